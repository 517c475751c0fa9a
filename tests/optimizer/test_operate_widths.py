"""How wide tables are in a fleet of 15,000 devices with names as people give them: at most 100 columns."""

# ruff: noqa: F811  # tests take imported fixtures by their names

from __future__ import annotations

import re
from typing import Any

import pytest

from edgeopt.cli import operate_options
from tests.optimizer.operate_fake import FakeFleet, Run, device_view, fleet, run  # noqa: F401  # the fixtures

WIDEST = 100
DIGEST = "3fa94c0d1e2b5a68" * 4
SITES = ("oslo-harbour", "rotterdam-maasvlakte", "bergen-terminal-2")


def devices() -> list[dict[str, Any]]:
    """Return the newest of 15,000 devices: of each site some, in each state that there is."""
    found = []
    for number, state in enumerate(("confirmed", "rolled_back", "downloading", "self_test", "superseded")):
        site = SITES[number % len(SITES)]
        view = device_view(f"{site}-gate{number:02}-cam-{14_990 + number}", site=site, line="12", hardware="pi-5-8gb")
        view |= {"health": ("ok", "failing", "offline", "revoked", "ok")[number], "running": DIGEST}
        view["update"] |= {"state": state, "detail": "the self-test of int8 differs by 0.31, at most 0.10 is allowed"}
        view["telemetry"] |= {"rows": 48_012_345, "errors": 1_204}
        found.append(view)
    return found


def audit() -> list[dict[str, Any]]:
    """Return entries as a fleet that works leaves them."""
    told = (
        ("edgeopt-fleet", "rollout.last_wave_passed", "rollout/digits-2-oslo-harbour", {
            "state": "succeeded", "wave": 3, "bundle": DIGEST, "reason": "",
        }),
        ("kari.nordmann", "rollout.roll_back_ordered", "rollout/digits-2-oslo-harbour", {
            "state": "rolling_back", "wave": 0, "bundle": DIGEST,
        }),
        ("device/rotterdam-maasvlakte-gate01-cam-14991", "device.enrol", "device/rotterdam-maasvlakte-gate01-cam-14991",
         {"serial": "6d1f0c4a8f10" * 3, "token": "3fa94c0d1e2b5a68"}),
        ("kari.nordmann", "bundle.publish", f"bundle/{DIGEST}", {"name": "digits", "version": "2", "complete": True}),
        ("ops", "token.create", "token/3fa94c0d1e2b5a68", {
            "uses": 500, "expires_at": 1_795_400_000, "cohort": "", "tags": {"site": "oslo-harbour", "line": "12"},
        }),
        ("ops", "tuf.accept", "tuf/metadata", {
            "role": "targets", "versions": {"root": 3, "targets": 41, "snapshot": 97, "timestamp": 310}, "drafts": [],
        }),
    )  # fmt: skip
    return [
        {"number": 152_340 - index, "at": 1_795_300_000_000 - index, "actor": actor, "via": "api", "operation": what,
         "subject": which, "detail": detail, "before": "", "after": DIGEST, "previous": DIGEST, "sha256": DIGEST}
        for index, (actor, what, which, detail) in enumerate(told)
    ]  # fmt: skip


def tokens() -> list[dict[str, Any]]:
    """Return tokens of an enrolment of a site."""
    return [
        {"id": "3fa94c0d1e2b5a68", "uses": 5000, "uses_left": 1234, "created_at": 1_795_300_000, "cohort": "",
         "created_by": "kari.nordmann", "expires_at": 1_795_400_000, "revoked_at": 1_795_350_000,
         "tags": {"site": site, "line": "12", "hardware": "pi-5-8gb"}}
        for site in SITES
    ]  # fmt: skip


def users() -> list[dict[str, Any]]:
    """Return users with two keys each."""
    keys = [
        {"prefix": "eok_Q3xk7ZpL", "created_at": 1_795_300_000, "expires_at": 1_795_400_000, "revoked_at": None},
        {"prefix": "eok_Yw81mmQa", "created_at": 1_795_300_000, "expires_at": None, "revoked_at": None},
    ]
    return [
        {"name": name, "role": "approver", "created_at": 1_795_300_000, "revoked_at": None, "keys": keys}
        for name in ("kari.nordmann", "pipeline-rotterdam-maasvlakte")
    ]


def alerts() -> list[dict[str, Any]]:
    """Return a drift alert and an alarm with their sentences."""
    drift = {
        "id": 1_204, "kind": "drift", "cohort": "oslo-harbour", "feature": "image.brightness.mean", "source": "input",
        "bundle": DIGEST, "state": "open", "opened_at": 1_795_300_000, "last_seen": 1_795_390_000, "psi": 1.4,
        "p_value": 1e-30, "rows": 412,
        "message": "oslo-harbour: image.brightness.mean: PSI 1.40, p 1.0e-30 on 412 rows; above 0.8: from 6% to 71%",
    }  # fmt: skip
    alarm = {
        **drift, "id": 1_205, "kind": "revoked_identity", "cohort": "", "feature": "", "psi": 0.0,
        "source": "device/rotterdam-maasvlakte-gate01-cam-14991", "state": "closed",
        "message": "device rotterdam-maasvlakte-gate01-cam-14991 tries to use an identity that was revoked",
    }  # fmt: skip
    return [drift, alarm]


@pytest.fixture
def busy(fleet: FakeFleet, monkeypatch: pytest.MonkeyPatch) -> FakeFleet:
    """A fleet that has worked for a while."""
    fleet.devices, fleet.alerts, fleet.page_size = devices(), alerts(), 1000
    fleet.cohorts = {"all": {}, **{f"{site}-pi-5-8gb": {"site": site, "hardware": "pi-5-8gb"} for site in SITES}}
    for name, items in (("audit", audit()), ("tokens", tokens()), ("users", users())):
        monkeypatch.setattr(fleet, f"_{name}", lambda *_asked, items=items: (200, {"items": items}), raising=False)
    return fleet


LISTS = {  # a command, and what people copy from its table: it stands there whole
    "devices": ("rotterdam-maasvlakte-gate01-cam-14991", DIGEST[:12]),
    "audit": ("rollout/digits-2-oslo-harbour", "rollout.roll_back_ordered", "152340"),
    "token list": ("3fa94c0d1e2b5a68", "kari.nordmann"),
    "users": ("pipeline-rotterdam-maasvlakte",),
    "alerts --all": ("1204", "revoked_identity"),
    "cohorts": ("rotterdam-maasvlakte-pi-5-8gb",),
    "rollout list": ("v2",),
    "bundles": (),
}


@pytest.mark.parametrize("command", LISTS)
def test_a_table_fits_and_its_names_are_whole(run: Run, busy: FakeFleet, command: str) -> None:
    """At most 100 columns; no dictionary of Python's, no whole digest; names can be copied and searched for."""
    code, out, err = run(*command.split())
    assert (0, "") == (code, err)
    print(f"\n$ edgeopt {command}\n{out}")
    assert max(map(len, out.splitlines())) <= WIDEST
    assert all(mark not in out for mark in ("{", "}", "None", "'", DIGEST))
    for name in LISTS[command]:
        assert any(name in line.split() for line in out.splitlines()), name


PAGE = {
    "digest": DIGEST, "name": "gate-camera-classifier", "version": "2026.11.3", "created_at": 1_795_300_000,
    "complete": True, "size": 31_234_567, "blocks": 482, "labels": 12,
    "inputs": [{"name": "image", "dtype": "uint8", "shape": [3, 320, 320]}],
    "outputs": [{"name": "logits", "dtype": "float32", "shape": [12]}],
    "variants": [
        {"name": f"int8-{arch}", "size": 5_242_880, "download": 5_340_000, "runtime": "onnxruntime 1.20",
         "arch": [arch], "features": ["dotprod", "fp16"],
         "certified_for": ["raspberry-pi-4", "raspberry-pi-5", "jetson-orin-nano"]}
        for arch in ("aarch64", "x86_64")
    ],
    "profile_rows": 5000,
    "profile_features": ["image.brightness", "image.contrast", "logits.confidence", "logits.top1"],
    "evidence": ["report.html", "report.json"], "running_on": 11_204,
    "signature": {"in_force": True, "signatures": 3, "threshold": 2, "counter": 41, "rollback": [DIGEST[::-1]]},
    "rollouts": [{"name": "gate-cameras-2026-11-3", "state": "succeeded", "cohort": "rotterdam-maasvlakte-pi-5-8gb"}],
}  # fmt: skip

FACTS = (
    "31.2 MB in 482 blocks", "image uint8[3,320,320]", "by 3 of 2 needed keys, as number 41", "11204 devices",
    "int8-aarch64 5.2 MB 5.3 MB onnxruntime 1.20", "gate-cameras-2026-11-3 succeeded",
)  # fmt: skip


@pytest.mark.parametrize("width", [80, 100])
def test_the_page_of_a_bundle_fits(run: Run, busy: FakeFleet, monkeypatch: pytest.MonkeyPatch, width: int) -> None:
    """Its variants with what they need, the signatures, where it runs; also on a narrow terminal."""
    monkeypatch.setattr(busy, "_bundles", lambda *_asked: (200, PAGE))
    monkeypatch.setattr(operate_options, "_PIPED_WIDTH", width)
    out = run("bundles", "show", "3fa94c")[1]
    print(f"\n$ edgeopt bundles show 3fa94c\n{out}")
    assert max(map(len, out.splitlines())) <= width
    words = " ".join(out.split())
    for fact in (*FACTS, DIGEST):
        assert fact in words, fact


LAST = {  # what stands at the end of a line, where a table is cut first
    "devices": "maasvlakte",
    "audit": "timestamp=310",
    "token list": "-terminal-2",
    "alerts --all": "revoked",
}


@pytest.mark.parametrize("command", LAST)
def test_nothing_is_lost_on_a_narrow_terminal(
    run: Run, busy: FakeFleet, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    """At 80 columns cells are broken, and none is cut."""
    monkeypatch.setattr(operate_options, "_PIPED_WIDTH", 80)
    out = run(*command.split())[1]
    print(f"\n$ edgeopt {command}\n{out}")
    assert max(map(len, out.splitlines())) <= 80
    assert "…" not in out
    assert LAST[command] in re.sub(r"\s", "", out)
