"""The tables of the fleet's database.

Columns and indexes only; what may be in them is decided by the modules that write them. Times are seconds since
1970 on the server's clock unless a comment says otherwise. A new column needs the revision made anew, or a new one:
``python -m tools.migration``.
"""

from __future__ import annotations

from sqlalchemy import BigInteger, Integer, String
from sqlmodel import AutoString, SQLModel

from edgeopt_fleet.store.tables.devices import CertificateRow, CohortRow, DeviceRow
from edgeopt_fleet.store.tables.keeping import AnswerRow, BlockRow, ChangeRow, DraftRow, LeaseRow, MetadataRow
from edgeopt_fleet.store.tables.people import ApiKeyRow, AuditHeadRow, AuditRow, TokenRow, UserRow
from edgeopt_fleet.store.tables.rollouts import (
    ArmStartRow,
    BaselineRow,
    BundleRow,
    EvidenceRow,
    MemberRow,
    RolloutRow,
    VerdictRow,
)
from edgeopt_fleet.store.tables.shadows import ShadowLookRow, ShadowMemberRow, ShadowRow, ShadowServedRow
from edgeopt_fleet.store.tables.telemetry import (
    AlertRow,
    DriftRow,
    ReportRow,
    RollupRow,
    ServedRow,
    SpoolRow,
    WindowRow,
)

__all__ = [
    "AlertRow",
    "AnswerRow",
    "ApiKeyRow",
    "ArmStartRow",
    "AuditHeadRow",
    "AuditRow",
    "BaselineRow",
    "BlockRow",
    "BundleRow",
    "CertificateRow",
    "ChangeRow",
    "CohortRow",
    "DeviceRow",
    "DraftRow",
    "DriftRow",
    "EvidenceRow",
    "LeaseRow",
    "MemberRow",
    "MetadataRow",
    "ReportRow",
    "RolloutRow",
    "RollupRow",
    "ServedRow",
    "ShadowLookRow",
    "ShadowMemberRow",
    "ShadowRow",
    "ShadowServedRow",
    "SpoolRow",
    "TokenRow",
    "UserRow",
    "VerdictRow",
    "WindowRow",
]


def _make_portable() -> None:
    """Let all columns mean the same on SQLite and PostgreSQL.

    Integers of devices go up to 2**53, SQLite's always do, but it counts row ids in INTEGER columns only. Text is
    compared by its code points, as SQLite and Python do, not by the rules of the server's language.
    """
    integer = BigInteger().with_variant(Integer(), "sqlite")
    text = String().with_variant(String(collation="C"), "postgresql")
    for table in SQLModel.metadata.tables.values():
        for column in table.columns:
            if type(column.type) is Integer:
                column.type = integer
            elif isinstance(column.type, AutoString | String):
                column.type = text


_make_portable()
