from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgeopt_contract.messages import DeviceState
from edgeopt_fleet.filters import DeviceFilter, Health
from edgeopt_fleet.problems import InvalidError, NotFoundError
from tests.fleet.conftest import Kit


def ids(kit: Kit, wanted: DeviceFilter, cohort: str | None = None) -> list[str]:
    """Return the ids of all devices that fit."""
    return [row.id for row in kit.registry.devices(wanted, None, 1000, cohort)]


def test_pages_of_devices(kit: Kit) -> None:
    """Pages follow each other without loss or repetition, also when a device comes in between."""
    kit.enrol("a", "b", "d", "e", site="oslo")
    first = [row.id for row in kit.registry.devices(DeviceFilter(), None, 2)]
    kit.enrol("aa", "c", site="oslo")
    assert (["a", "b"], ["c", "d", "e"]) == (
        first, [row.id for row in kit.registry.devices(DeviceFilter(), first[-1], 9)],
    )  # fmt: skip


def test_every_filter_filters(kit: Kit) -> None:
    """Tags, hardware class, what runs, the newest update, version, presence and health; all of them must hold."""
    digest = kit.publish("1")
    kit.enrol("a", "b", site="oslo", line="2")
    kit.enrol("c", site="oslo", hardware="pi-5")
    kit.enrol("d", site='ö "quoted"')
    kit.status("a", running=digest, boot=2)
    kit.report("b", DeviceState.FAILED, None)
    kit.status("c", online=False)
    kit.enrol("e")
    kit.identities.revoke("e", 1000)
    for expected, wanted in (
        ("abcde", DeviceFilter()),
        ("abc", DeviceFilter(tags={"site": "oslo"})),
        ("ab", DeviceFilter(tags={"site": "oslo", "line": "2"})),
        ("d", DeviceFilter(tags={"site": 'ö "quoted"'})),
        ("", DeviceFilter(tags={"line": "3"})),
        ("c", DeviceFilter(hardware=("pi-5",))),
        ("abcde", DeviceFilter(hardware=("pi-5", "x86_64-avx2"))),
        ("a", DeviceFilter(running=digest[:6])),
        ("bcde", DeviceFilter(running="none")),
        ("b", DeviceFilter(state="failed")),
        ("abcde", DeviceFilter(agent_version="0")),
        ("", DeviceFilter(agent_version="9")),
        ("abd", DeviceFilter(online=True)),
        ("ce", DeviceFilter(online=False)),
        ("ad", DeviceFilter(health=Health.OK)),
        ("b", DeviceFilter(health=Health.FAILING)),
        ("c", DeviceFilter(health=Health.OFFLINE)),
        ("e", DeviceFilter(health=Health.REVOKED)),
        ("a", DeviceFilter(tags={"site": "oslo"}, running=digest, online=True)),
    ):
        assert list(expected) == ids(kit, wanted), wanted


@pytest.mark.parametrize("backend", ["sqlite"], indirect=True)
@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(key=st.text(min_size=1, max_size=64), value=st.text(max_size=128))
def test_any_tag_that_is_taken_is_found(kit: Kit, key: str, value: str) -> None:
    """Whatever characters a tag has: either it is refused, or the filter finds its device."""
    try:
        wanted = DeviceFilter(tags={key: value})
    except ValueError:
        return
    if not ids(kit, DeviceFilter()):
        kit.enrol("a")
    kit.registry.put_tags("a", wanted.tags, 1.0, lambda _present: None)
    assert ["a"] == ids(kit, wanted)


def test_tags_are_changed_for_whoever_read_them(kit: Kit) -> None:
    """The check sees the present tags within the transaction; what it refuses changes nothing."""
    kit.enrol("a", site="oslo")
    seen = []
    kit.registry.put_tags("a", {"hardware": "pi-5"}, 1.0, lambda present: seen.append(dict(present)))
    row = kit.registry.device("a")
    assert ([{"site": "oslo"}], {"hardware": "pi-5"}, "pi-5") == (seen, row.tags, row.hardware)
    assert row.changed > 0

    def refuse(_present: object) -> None:
        raise InvalidError("no")

    with pytest.raises(InvalidError):
        kit.registry.put_tags("a", {}, 1.0, refuse)
    assert {"hardware": "pi-5"} == kit.registry.device("a").tags


def test_what_is_not_there_is_named(kit: Kit) -> None:
    """Unknown devices and cohorts."""
    for call in (
        lambda: kit.registry.device("x"),
        lambda: kit.registry.detail("x"),
        lambda: kit.registry.reports("x", None, 1),
        lambda: kit.registry.windows("x", None, 1),
        lambda: kit.registry.put_tags("x", {}, 1.0, lambda _present: None),
        lambda: ids(kit, DeviceFilter(), "x"),
    ):
        with pytest.raises(NotFoundError, match="'x'"):
            call()


@pytest.mark.parametrize(
    "wrong",
    [
        {"tags": {"": "x"}},
        {"tags": {"a=b": "x"}},
        {"tags": {'a"': "x"}},
        {"tags": {"a": "\0"}},
        {"tags": {str(n): "" for n in range(33)}},
        {"hardware": ("",)},
        {"running": "xyz"},
        {"agent_version": "\n"},
    ],
)
def test_a_filter_that_cannot_be_meant(wrong: dict[str, object]) -> None:
    """It cannot be made."""
    with pytest.raises(ValueError, match="expected"):
        DeviceFilter(**wrong)  # type: ignore[arg-type]
