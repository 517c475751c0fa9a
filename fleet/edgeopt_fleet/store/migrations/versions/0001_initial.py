"""The tables of a fleet."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

__all__ = ["downgrade", "upgrade"]


def upgrade() -> None:
    """Apply this revision."""
    op.create_table(
        "alert",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("kind", sa.String().with_variant(sa.String(collation="C"), "postgresql"), nullable=False),
        sa.Column("cohort", sa.String().with_variant(sa.String(collation="C"), "postgresql"), nullable=False),
        sa.Column("feature", sa.String().with_variant(sa.String(collation="C"), "postgresql"), nullable=False),
        sa.Column("source", sa.String().with_variant(sa.String(collation="C"), "postgresql"), nullable=False),
        sa.Column("bundle", sa.String().with_variant(sa.String(collation="C"), "postgresql"), nullable=False),
        sa.Column("state", sa.String().with_variant(sa.String(collation="C"), "postgresql"), nullable=False),
        sa.Column("changed", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("opened_at", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("last_seen", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("psi", sa.Float(), nullable=False),
        sa.Column("p_value", sa.Float(), nullable=False),
        sa.Column("rows", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("message", sa.String().with_variant(sa.String(collation="C"), "postgresql"), nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index(op.f("ix_alert_changed"), "alert", ["changed"], unique=False)
    op.create_index(op.f("ix_alert_state"), "alert", ["state"], unique=False)
    op.create_table(
        "answer",
        sa.Column("key", sa.String().with_variant(sa.String(collation="C"), "postgresql"), nullable=False),
        sa.Column("request_sha256", sa.String().with_variant(sa.String(collation="C"), "postgresql"), nullable=False),
        sa.Column("created_at", sa.Float(), nullable=False),
        sa.Column("status", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=True),
        sa.Column("sealed", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("key"),
    )
    op.create_index(op.f("ix_answer_created_at"), "answer", ["created_at"], unique=False)
    op.create_table(
        "api_key",
        sa.Column("sha256", sa.String().with_variant(sa.String(collation="C"), "postgresql"), nullable=False),
        sa.Column("person", sa.String().with_variant(sa.String(collation="C"), "postgresql"), nullable=False),
        sa.Column("prefix", sa.String().with_variant(sa.String(collation="C"), "postgresql"), nullable=False),
        sa.Column("created_at", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("expires_at", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=True),
        sa.Column("revoked_at", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=True),
        sa.PrimaryKeyConstraint("sha256"),
    )
    op.create_index(op.f("ix_api_key_person"), "api_key", ["person"], unique=False)
    op.create_table(
        "arm_start",
        sa.Column("rollout", sa.String().with_variant(sa.String(collation="C"), "postgresql"), nullable=False),
        sa.Column("device", sa.String().with_variant(sa.String(collation="C"), "postgresql"), nullable=False),
        sa.Column("rows", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("errors", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("counts", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("rollout", "device"),
    )
    op.create_table(
        "audit",
        sa.Column("number", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("at", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("actor", sa.String().with_variant(sa.String(collation="C"), "postgresql"), nullable=False),
        sa.Column("via", sa.String().with_variant(sa.String(collation="C"), "postgresql"), nullable=False),
        sa.Column("operation", sa.String().with_variant(sa.String(collation="C"), "postgresql"), nullable=False),
        sa.Column("subject", sa.String().with_variant(sa.String(collation="C"), "postgresql"), nullable=False),
        sa.Column("before", sa.String().with_variant(sa.String(collation="C"), "postgresql"), nullable=False),
        sa.Column("after", sa.String().with_variant(sa.String(collation="C"), "postgresql"), nullable=False),
        sa.Column("detail", sa.JSON(), nullable=False),
        sa.Column("previous", sa.String().with_variant(sa.String(collation="C"), "postgresql"), nullable=False),
        sa.Column("sha256", sa.String().with_variant(sa.String(collation="C"), "postgresql"), nullable=False),
        sa.PrimaryKeyConstraint("number"),
    )
    op.create_index(op.f("ix_audit_actor"), "audit", ["actor"], unique=False)
    op.create_index(op.f("ix_audit_operation"), "audit", ["operation"], unique=False)
    op.create_index(op.f("ix_audit_subject"), "audit", ["subject"], unique=False)
    op.create_table(
        "audit_head",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("number", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("sha256", sa.String().with_variant(sa.String(collation="C"), "postgresql"), nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_table(
        "baseline",
        sa.Column("rollout", sa.String().with_variant(sa.String(collation="C"), "postgresql"), nullable=False),
        sa.Column("device", sa.String().with_variant(sa.String(collation="C"), "postgresql"), nullable=False),
        sa.Column("bundle", sa.String().with_variant(sa.String(collation="C"), "postgresql"), nullable=False),
        sa.Column("rows", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("errors", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("counts", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("rollout", "device", "bundle"),
    )
    op.create_table(
        "block",
        sa.Column("sha256", sa.String().with_variant(sa.String(collation="C"), "postgresql"), nullable=False),
        sa.Column("data", sa.LargeBinary(), nullable=False),
        sa.Column("stored_at", sa.Float(), nullable=False),
        sa.PrimaryKeyConstraint("sha256"),
    )
    op.create_table(
        "bundle",
        sa.Column("digest", sa.String().with_variant(sa.String(collation="C"), "postgresql"), nullable=False),
        sa.Column("name", sa.String().with_variant(sa.String(collation="C"), "postgresql"), nullable=False),
        sa.Column("version", sa.String().with_variant(sa.String(collation="C"), "postgresql"), nullable=False),
        sa.Column("manifest", sa.LargeBinary(), nullable=False),
        sa.Column("created_at", sa.Float(), nullable=False),
        sa.Column("complete", sa.Boolean(), nullable=False),
        sa.Column("counter", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=True),
        sa.Column("profile", sa.LargeBinary(), nullable=True),
        sa.PrimaryKeyConstraint("digest"),
    )
    op.create_table(
        "certificate",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("serial", sa.String().with_variant(sa.String(collation="C"), "postgresql"), nullable=False),
        sa.Column("device", sa.String().with_variant(sa.String(collation="C"), "postgresql"), nullable=False),
        sa.Column("public_key", sa.LargeBinary(), nullable=False),
        sa.Column(
            "public_key_sha256", sa.String().with_variant(sa.String(collation="C"), "postgresql"), nullable=False
        ),
        sa.Column("pem", sa.String().with_variant(sa.String(collation="C"), "postgresql"), nullable=False),
        sa.Column("valid_from", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("valid_until", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("bearer_sha256", sa.String().with_variant(sa.String(collation="C"), "postgresql"), nullable=False),
        sa.Column("token_sha256", sa.String().with_variant(sa.String(collation="C"), "postgresql"), nullable=True),
        sa.Column("replaces", sa.String().with_variant(sa.String(collation="C"), "postgresql"), nullable=True),
        sa.Column("revoked_at", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=True),
        sa.Column("changed", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("serial"),
    )
    op.create_index(op.f("ix_certificate_bearer_sha256"), "certificate", ["bearer_sha256"], unique=False)
    op.create_index(op.f("ix_certificate_changed"), "certificate", ["changed"], unique=False)
    op.create_index(op.f("ix_certificate_device"), "certificate", ["device"], unique=False)
    op.create_index(op.f("ix_certificate_public_key_sha256"), "certificate", ["public_key_sha256"], unique=False)
    op.create_index(op.f("ix_certificate_replaces"), "certificate", ["replaces"], unique=False)
    op.create_table(
        "change",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("number", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_table(
        "cohort",
        sa.Column("name", sa.String().with_variant(sa.String(collation="C"), "postgresql"), nullable=False),
        sa.Column("tags", sa.JSON(), nullable=False),
        sa.Column("others", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("name"),
    )
    op.create_table(
        "device",
        sa.Column("id", sa.String().with_variant(sa.String(collation="C"), "postgresql"), nullable=False),
        sa.Column("tags", sa.JSON(), nullable=False),
        sa.Column("capabilities", sa.JSON(), nullable=False),
        sa.Column("machine", sa.JSON(), nullable=False),
        sa.Column("hardware", sa.String().with_variant(sa.String(collation="C"), "postgresql"), nullable=False),
        sa.Column("malformed", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("changed", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("password_hash", sa.String().with_variant(sa.String(collation="C"), "postgresql"), nullable=False),
        sa.Column("enrolled_at", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("revoked_at", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=True),
        sa.Column("online", sa.Boolean(), nullable=False),
        sa.Column("boot", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("agent_version", sa.String().with_variant(sa.String(collation="C"), "postgresql"), nullable=False),
        sa.Column("running", sa.String().with_variant(sa.String(collation="C"), "postgresql"), nullable=True),
        sa.Column("last_seen", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=True),
        sa.Column("desired_job", sa.String().with_variant(sa.String(collation="C"), "postgresql"), nullable=True),
        sa.Column("desired_bundle", sa.String().with_variant(sa.String(collation="C"), "postgresql"), nullable=True),
        sa.Column("desired_bake_seconds", sa.Float(), nullable=False),
        sa.Column("desired_not_before", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=True),
        sa.Column("desired_window", sa.JSON(none_as_null=True), nullable=True),
        sa.Column("desired_pending", sa.Boolean(), nullable=False),
        sa.Column("report_spool", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("report_number", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("job", sa.String().with_variant(sa.String(collation="C"), "postgresql"), nullable=True),
        sa.Column("job_bundle", sa.String().with_variant(sa.String(collation="C"), "postgresql"), nullable=True),
        sa.Column("state", sa.String().with_variant(sa.String(collation="C"), "postgresql"), nullable=True),
        sa.Column("result", sa.String().with_variant(sa.String(collation="C"), "postgresql"), nullable=True),
        sa.Column("detail", sa.String().with_variant(sa.String(collation="C"), "postgresql"), nullable=False),
        sa.Column("reported_at", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=True),
        sa.Column("gauges", sa.JSON(), nullable=False),
        sa.Column("gauges_at", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=True),
        sa.Column("gauges_spool", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("gauges_number", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("newest_window", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("windows", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("rows", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("errors", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.PrimaryKeyConstraint("id"),
        postgresql_with={"fillfactor": 50},
    )
    op.create_index(op.f("ix_device_changed"), "device", ["changed"], unique=False)
    op.create_index(op.f("ix_device_desired_pending"), "device", ["desired_pending"], unique=False)
    op.create_index(op.f("ix_device_hardware"), "device", ["hardware"], unique=False)
    op.create_table(
        "draft",
        sa.Column("role", sa.String().with_variant(sa.String(collation="C"), "postgresql"), nullable=False),
        sa.Column("data", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("role"),
    )
    op.create_table(
        "drift",
        sa.Column("cohort", sa.String().with_variant(sa.String(collation="C"), "postgresql"), nullable=False),
        sa.Column("bundle", sa.String().with_variant(sa.String(collation="C"), "postgresql"), nullable=False),
        sa.Column("last_window", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("members", sa.String().with_variant(sa.String(collation="C"), "postgresql"), nullable=False),
        sa.Column("base", sa.LargeBinary(), nullable=False),
        sa.Column("features", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("cohort", "bundle"),
    )
    op.create_table(
        "evidence",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("rollout", sa.String().with_variant(sa.String(collation="C"), "postgresql"), nullable=False),
        sa.Column("wave", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("arm", sa.String().with_variant(sa.String(collation="C"), "postgresql"), nullable=False),
        sa.Column("at", sa.Float(), nullable=False),
        sa.Column("look", sa.String().with_variant(sa.String(collation="C"), "postgresql"), nullable=True),
        sa.Column("code", sa.String().with_variant(sa.String(collation="C"), "postgresql"), nullable=False),
        sa.Column("policy", sa.LargeBinary(), nullable=False),
        sa.Column("evidence", sa.LargeBinary(), nullable=False),
        sa.Column("verdict", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index(op.f("ix_evidence_rollout"), "evidence", ["rollout"], unique=False)
    op.create_table(
        "lease",
        sa.Column("role", sa.String().with_variant(sa.String(collation="C"), "postgresql"), nullable=False),
        sa.Column("owner", sa.String().with_variant(sa.String(collation="C"), "postgresql"), nullable=False),
        sa.Column("epoch", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("expires_at", sa.Float(), nullable=False),
        sa.Column("note", sa.String().with_variant(sa.String(collation="C"), "postgresql"), nullable=False),
        sa.PrimaryKeyConstraint("role"),
    )
    op.create_table(
        "member",
        sa.Column("rollout", sa.String().with_variant(sa.String(collation="C"), "postgresql"), nullable=False),
        sa.Column("device", sa.String().with_variant(sa.String(collation="C"), "postgresql"), nullable=False),
        sa.Column("active", sa.Boolean(), nullable=False),
        sa.Column("open", sa.Boolean(), nullable=False),
        sa.Column("to_offer", sa.Boolean(), nullable=False),
        sa.Column("held", sa.Boolean(), nullable=False),
        sa.Column("wave", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("place", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("bundle", sa.String().with_variant(sa.String(collation="C"), "postgresql"), nullable=False),
        sa.Column("arm", sa.String().with_variant(sa.String(collation="C"), "postgresql"), nullable=False),
        sa.Column("previous", sa.String().with_variant(sa.String(collation="C"), "postgresql"), nullable=True),
        sa.Column("distrusted", sa.String().with_variant(sa.String(collation="C"), "postgresql"), nullable=True),
        sa.Column("attempt", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("tries", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("again", sa.Boolean(), nullable=False),
        sa.Column("withdrawn", sa.Boolean(), nullable=False),
        sa.Column("taken", sa.Boolean(), nullable=False),
        sa.Column("state", sa.String().with_variant(sa.String(collation="C"), "postgresql"), nullable=True),
        sa.Column("outcome", sa.String().with_variant(sa.String(collation="C"), "postgresql"), nullable=True),
        sa.Column("kind", sa.String().with_variant(sa.String(collation="C"), "postgresql"), nullable=True),
        sa.Column("returned", sa.Boolean(), nullable=False),
        sa.Column("result", sa.String().with_variant(sa.String(collation="C"), "postgresql"), nullable=True),
        sa.Column("detail", sa.String().with_variant(sa.String(collation="C"), "postgresql"), nullable=False),
        sa.Column("failure", sa.String().with_variant(sa.String(collation="C"), "postgresql"), nullable=False),
        sa.Column("running", sa.String().with_variant(sa.String(collation="C"), "postgresql"), nullable=True),
        sa.Column("online", sa.Boolean(), nullable=False),
        sa.Column("deadline", sa.Float(), nullable=True),
        sa.PrimaryKeyConstraint("rollout", "device"),
    )
    op.create_index(op.f("ix_member_device"), "member", ["device"], unique=False)
    op.create_index("member_late", "member", ["rollout", "deadline"], unique=False)
    op.create_index("member_line", "member", ["rollout", "to_offer", "wave", "place"], unique=False)
    op.create_table(
        "metadata",
        sa.Column("role", sa.String().with_variant(sa.String(collation="C"), "postgresql"), nullable=False),
        sa.Column("version", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("data", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("role", "version"),
    )
    op.create_table(
        "person",
        sa.Column("name", sa.String().with_variant(sa.String(collation="C"), "postgresql"), nullable=False),
        sa.Column("role", sa.String().with_variant(sa.String(collation="C"), "postgresql"), nullable=False),
        sa.Column("created_at", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("revoked_at", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=True),
        sa.PrimaryKeyConstraint("name"),
    )
    op.create_table(
        "report",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("device", sa.String().with_variant(sa.String(collation="C"), "postgresql"), nullable=False),
        sa.Column("session", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("number", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("at", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("job", sa.String().with_variant(sa.String(collation="C"), "postgresql"), nullable=False),
        sa.Column("bundle", sa.String().with_variant(sa.String(collation="C"), "postgresql"), nullable=False),
        sa.Column("state", sa.String().with_variant(sa.String(collation="C"), "postgresql"), nullable=False),
        sa.Column("running", sa.String().with_variant(sa.String(collation="C"), "postgresql"), nullable=True),
        sa.Column("result", sa.String().with_variant(sa.String(collation="C"), "postgresql"), nullable=True),
        sa.Column("detail", sa.String().with_variant(sa.String(collation="C"), "postgresql"), nullable=False),
        sa.Column("received_at", sa.Float(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("device", "session", "number"),
    )
    op.create_index("report_of_device", "report", ["device", "id"], unique=False)
    op.create_table(
        "rollout",
        sa.Column("name", sa.String().with_variant(sa.String(collation="C"), "postgresql"), nullable=False),
        sa.Column("bundle", sa.String().with_variant(sa.String(collation="C"), "postgresql"), nullable=False),
        sa.Column("cohort", sa.String().with_variant(sa.String(collation="C"), "postgresql"), nullable=False),
        sa.Column("waves", sa.JSON(), nullable=False),
        sa.Column("policy", sa.JSON(), nullable=False),
        sa.Column("execution", sa.JSON(), nullable=False),
        sa.Column("trial", sa.JSON(), nullable=True),
        sa.Column("state", sa.String().with_variant(sa.String(collation="C"), "postgresql"), nullable=False),
        sa.Column("wave", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("started_at", sa.Float(), nullable=False),
        sa.Column("wave_started_at", sa.Float(), nullable=False),
        sa.Column("step_started_at", sa.Float(), nullable=False),
        sa.Column("pacing", sa.JSON(), nullable=False),
        sa.Column("tally", sa.JSON(), nullable=False),
        sa.Column("reason", sa.String().with_variant(sa.String(collation="C"), "postgresql"), nullable=False),
        sa.Column("fault", sa.String().with_variant(sa.String(collation="C"), "postgresql"), nullable=False),
        sa.Column("kept", sa.String().with_variant(sa.String(collation="C"), "postgresql"), nullable=False),
        sa.Column("approval", sa.Boolean(), nullable=False),
        sa.Column("created_by", sa.String().with_variant(sa.String(collation="C"), "postgresql"), nullable=False),
        sa.Column("approved_by", sa.String().with_variant(sa.String(collation="C"), "postgresql"), nullable=False),
        sa.Column("approval_reason", sa.String().with_variant(sa.String(collation="C"), "postgresql"), nullable=False),
        sa.Column("created_at", sa.Float(), nullable=False),
        sa.Column("updated_at", sa.Float(), nullable=False),
        sa.Column("seen", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("next_look_at", sa.Float(), nullable=False),
        sa.Column("looked_early", sa.Boolean(), nullable=False),
        sa.Column("settled", sa.Boolean(), nullable=False),
        sa.Column("changed", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.PrimaryKeyConstraint("name"),
    )
    op.create_index(op.f("ix_rollout_changed"), "rollout", ["changed"], unique=False)
    op.create_index(op.f("ix_rollout_created_at"), "rollout", ["created_at"], unique=False)
    op.create_index(op.f("ix_rollout_settled"), "rollout", ["settled"], unique=False)
    op.create_index(op.f("ix_rollout_state"), "rollout", ["state"], unique=False)
    op.create_table(
        "rollup",
        sa.Column("bundle", sa.String().with_variant(sa.String(collation="C"), "postgresql"), nullable=False),
        sa.Column("device", sa.String().with_variant(sa.String(collation="C"), "postgresql"), nullable=False),
        sa.Column("seconds", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("start", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("windows", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("rows", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("errors", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("counts", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("bundle", "device", "seconds", "start"),
    )
    op.create_index("rollup_by_age", "rollup", ["seconds", "start"], unique=False)
    op.create_table(
        "served",
        sa.Column("bundle", sa.String().with_variant(sa.String(collation="C"), "postgresql"), nullable=False),
        sa.Column("device", sa.String().with_variant(sa.String(collation="C"), "postgresql"), nullable=False),
        sa.Column("windows", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("rows", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("errors", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("counts", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("bundle", "device"),
        postgresql_with={"fillfactor": 50},
    )
    op.create_table(
        "shadow",
        sa.Column("name", sa.String().with_variant(sa.String(collation="C"), "postgresql"), nullable=False),
        sa.Column("bundle", sa.String().with_variant(sa.String(collation="C"), "postgresql"), nullable=False),
        sa.Column("cohort", sa.String().with_variant(sa.String(collation="C"), "postgresql"), nullable=False),
        sa.Column("share", sa.Float(), nullable=False),
        sa.Column("until", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("at_once", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("rows_each", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=True),
        sa.Column("policy", sa.JSON(), nullable=False),
        sa.Column("state", sa.String().with_variant(sa.String(collation="C"), "postgresql"), nullable=False),
        sa.Column("reason", sa.String().with_variant(sa.String(collation="C"), "postgresql"), nullable=False),
        sa.Column("created_by", sa.String().with_variant(sa.String(collation="C"), "postgresql"), nullable=False),
        sa.Column("created_at", sa.Float(), nullable=False),
        sa.Column("updated_at", sa.Float(), nullable=False),
        sa.Column("looked_rows", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("looked_failed", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("changed", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.PrimaryKeyConstraint("name"),
    )
    op.create_index(op.f("ix_shadow_bundle"), "shadow", ["bundle"], unique=False)
    op.create_index(op.f("ix_shadow_changed"), "shadow", ["changed"], unique=False)
    op.create_index(op.f("ix_shadow_created_at"), "shadow", ["created_at"], unique=False)
    op.create_index(op.f("ix_shadow_state"), "shadow", ["state"], unique=False)
    op.create_table(
        "shadow_look",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("shadow", sa.String().with_variant(sa.String(collation="C"), "postgresql"), nullable=False),
        sa.Column("number", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("at", sa.Float(), nullable=False),
        sa.Column("code", sa.String().with_variant(sa.String(collation="C"), "postgresql"), nullable=False),
        sa.Column("policy", sa.LargeBinary(), nullable=False),
        sa.Column("evidence", sa.LargeBinary(), nullable=False),
        sa.Column("verdict", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("shadow_look_of", "shadow_look", ["shadow", "id"], unique=False)
    op.create_table(
        "shadow_member",
        sa.Column("shadow", sa.String().with_variant(sa.String(collation="C"), "postgresql"), nullable=False),
        sa.Column("device", sa.String().with_variant(sa.String(collation="C"), "postgresql"), nullable=False),
        sa.Column("place", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("offered", sa.Boolean(), nullable=False),
        sa.Column("open", sa.Boolean(), nullable=False),
        sa.Column("pending", sa.Boolean(), nullable=False),
        sa.Column("news", sa.Boolean(), nullable=False),
        sa.Column("state", sa.String().with_variant(sa.String(collation="C"), "postgresql"), nullable=True),
        sa.Column("detail", sa.String().with_variant(sa.String(collation="C"), "postgresql"), nullable=False),
        sa.Column("reported_at", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=True),
        sa.Column("report_spool", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("report_number", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.PrimaryKeyConstraint("shadow", "device"),
    )
    op.create_index(op.f("ix_shadow_member_news"), "shadow_member", ["news"], unique=False)
    op.create_index(op.f("ix_shadow_member_open"), "shadow_member", ["open"], unique=False)
    op.create_index(op.f("ix_shadow_member_pending"), "shadow_member", ["pending"], unique=False)
    op.create_index("shadow_member_line", "shadow_member", ["shadow", "offered", "place"], unique=False)
    op.create_index("shadow_member_of_device", "shadow_member", ["device", "offered"], unique=False)
    op.create_table(
        "shadow_served",
        sa.Column("shadow", sa.String().with_variant(sa.String(collation="C"), "postgresql"), nullable=False),
        sa.Column("device", sa.String().with_variant(sa.String(collation="C"), "postgresql"), nullable=False),
        sa.Column("bundle", sa.String().with_variant(sa.String(collation="C"), "postgresql"), nullable=False),
        sa.Column("windows", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("compared", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("agreed", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("incomparable", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("errors", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("squares", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("counts", sa.LargeBinary(), nullable=False),
        sa.Column("classes", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("shadow", "device"),
    )
    op.create_table(
        "spool",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("device", sa.String().with_variant(sa.String(collation="C"), "postgresql"), nullable=False),
        sa.Column("session", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("upto", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("beyond", sa.JSON(), nullable=False),
        sa.Column("rows", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("errors", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("device", "session"),
        postgresql_with={"fillfactor": 50},
    )
    op.create_table(
        "token",
        sa.Column("sha256", sa.String().with_variant(sa.String(collation="C"), "postgresql"), nullable=False),
        sa.Column("uses", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("uses_left", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("created_at", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("created_by", sa.String().with_variant(sa.String(collation="C"), "postgresql"), nullable=False),
        sa.Column("expires_at", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("revoked_at", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=True),
        sa.Column("cohort", sa.String().with_variant(sa.String(collation="C"), "postgresql"), nullable=False),
        sa.Column("tags", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("sha256"),
    )
    op.create_table(
        "verdict",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("rollout", sa.String().with_variant(sa.String(collation="C"), "postgresql"), nullable=False),
        sa.Column("at", sa.Float(), nullable=False),
        sa.Column("wave", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("arm", sa.String().with_variant(sa.String(collation="C"), "postgresql"), nullable=False),
        sa.Column("verdict", sa.String().with_variant(sa.String(collation="C"), "postgresql"), nullable=False),
        sa.Column("reasons", sa.JSON(), nullable=False),
        sa.Column("key", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index(op.f("ix_verdict_rollout"), "verdict", ["rollout"], unique=False)
    op.create_table(
        "window",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=False, nullable=False),
        sa.Column("previous", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("device", sa.String().with_variant(sa.String(collation="C"), "postgresql"), nullable=False),
        sa.Column("session", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("number", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("bundle", sa.String().with_variant(sa.String(collation="C"), "postgresql"), nullable=False),
        sa.Column("variant", sa.String().with_variant(sa.String(collation="C"), "postgresql"), nullable=False),
        sa.Column("start", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("end", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("rows", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("errors", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("counts", sa.LargeBinary(), nullable=False),
        sa.Column("infrastructure", sa.JSON(), nullable=False),
        sa.Column("received_at", sa.Float(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )


def downgrade() -> None:
    """Undo this revision."""
    op.drop_table("window")
    op.drop_index(op.f("ix_verdict_rollout"), table_name="verdict")
    op.drop_table("verdict")
    op.drop_table("token")
    op.drop_table("spool")
    op.drop_table("shadow_served")
    op.drop_index("shadow_member_of_device", table_name="shadow_member")
    op.drop_index("shadow_member_line", table_name="shadow_member")
    op.drop_index(op.f("ix_shadow_member_pending"), table_name="shadow_member")
    op.drop_index(op.f("ix_shadow_member_open"), table_name="shadow_member")
    op.drop_index(op.f("ix_shadow_member_news"), table_name="shadow_member")
    op.drop_table("shadow_member")
    op.drop_index("shadow_look_of", table_name="shadow_look")
    op.drop_table("shadow_look")
    op.drop_index(op.f("ix_shadow_state"), table_name="shadow")
    op.drop_index(op.f("ix_shadow_created_at"), table_name="shadow")
    op.drop_index(op.f("ix_shadow_changed"), table_name="shadow")
    op.drop_index(op.f("ix_shadow_bundle"), table_name="shadow")
    op.drop_table("shadow")
    op.drop_table("served")
    op.drop_index("rollup_by_age", table_name="rollup")
    op.drop_table("rollup")
    op.drop_index(op.f("ix_rollout_state"), table_name="rollout")
    op.drop_index(op.f("ix_rollout_settled"), table_name="rollout")
    op.drop_index(op.f("ix_rollout_created_at"), table_name="rollout")
    op.drop_index(op.f("ix_rollout_changed"), table_name="rollout")
    op.drop_table("rollout")
    op.drop_index("report_of_device", table_name="report")
    op.drop_table("report")
    op.drop_table("person")
    op.drop_table("metadata")
    op.drop_index("member_line", table_name="member")
    op.drop_index("member_late", table_name="member")
    op.drop_index(op.f("ix_member_device"), table_name="member")
    op.drop_table("member")
    op.drop_table("lease")
    op.drop_index(op.f("ix_evidence_rollout"), table_name="evidence")
    op.drop_table("evidence")
    op.drop_table("drift")
    op.drop_table("draft")
    op.drop_index(op.f("ix_device_hardware"), table_name="device")
    op.drop_index(op.f("ix_device_desired_pending"), table_name="device")
    op.drop_index(op.f("ix_device_changed"), table_name="device")
    op.drop_table("device")
    op.drop_table("cohort")
    op.drop_table("change")
    op.drop_index(op.f("ix_certificate_replaces"), table_name="certificate")
    op.drop_index(op.f("ix_certificate_public_key_sha256"), table_name="certificate")
    op.drop_index(op.f("ix_certificate_device"), table_name="certificate")
    op.drop_index(op.f("ix_certificate_changed"), table_name="certificate")
    op.drop_index(op.f("ix_certificate_bearer_sha256"), table_name="certificate")
    op.drop_table("certificate")
    op.drop_table("bundle")
    op.drop_table("block")
    op.drop_table("baseline")
    op.drop_table("audit_head")
    op.drop_index(op.f("ix_audit_subject"), table_name="audit")
    op.drop_index(op.f("ix_audit_operation"), table_name="audit")
    op.drop_index(op.f("ix_audit_actor"), table_name="audit")
    op.drop_table("audit")
    op.drop_table("arm_start")
    op.drop_index(op.f("ix_api_key_person"), table_name="api_key")
    op.drop_table("api_key")
    op.drop_index(op.f("ix_answer_created_at"), table_name="answer")
    op.drop_table("answer")
    op.drop_index(op.f("ix_alert_state"), table_name="alert")
    op.drop_index(op.f("ix_alert_changed"), table_name="alert")
    op.drop_table("alert")
