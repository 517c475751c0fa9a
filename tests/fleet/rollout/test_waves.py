from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeopt_fleet.rollout import Candidate, Wave, assign, check_waves

NAMES = st.sets(st.text("abcdef0123456789", min_size=1, max_size=8), max_size=60)
PERCENTS = st.sets(st.integers(1, 100), min_size=1, max_size=6).map(lambda percents: tuple(sorted(percents)))
TEXTS = ["5%", "20%", "100%", "1 device", "7 devices", "tag:ring=canary", "tag:site=oslo", "hardware:aarch64"]


def waves_of(*texts: str | int) -> tuple[Wave, ...]:
    """Return waves."""
    return tuple(Wave.parse(text) for text in texts)


def groups_of(rollout: str, devices: dict[str, Candidate], *texts: str | int) -> list[list[str]]:
    """Return the devices of each wave in their order."""
    places = assign(rollout, devices, waves_of(*texts))
    return [
        sorted((name for name, place in places.items() if place.wave == index), key=lambda name: places[name].place)
        for index in range(len(texts))
    ]


def named(names: set[str] | list[str]) -> dict[str, Candidate]:
    """Return devices without tags."""
    return {name: Candidate() for name in names}


@given(devices=NAMES, waves=PERCENTS, rollout=st.text("xyz-1", min_size=1, max_size=6))
def test_no_device_is_in_two_waves_and_all_are_reached_at_100_percent(
    devices: set[str], waves: tuple[int, ...], rollout: str
) -> None:
    """Waves are disjoint, as large as their percent at least where enough devices are left, and complete at 100 %."""
    groups = groups_of(rollout, named(devices), *waves)

    members = [device for group in groups for device in group]
    assert len(members) == len(set(members))
    assert set(members) <= devices
    if waves[-1] == 100:
        assert set(members) == devices
    if len(devices) >= len(waves):
        assert all(groups)


@given(
    devices=NAMES,
    texts=st.lists(st.sampled_from(TEXTS), min_size=1, max_size=5, unique=True),
    draw=st.randoms(use_true_random=False),
)
def test_mixed_waves_are_disjoint_and_in_line(devices: set[str], texts: list[str], draw: object) -> None:
    """Whatever kinds are mixed: at most one wave a device, places count through, tags take all that is left of them."""
    percents = sorted((t for t in texts if t.endswith("%")), key=lambda t: int(t[:-1]))
    counts = sorted((t for t in texts if t.endswith(("device", "devices"))), key=lambda t: int(t.split()[0]))
    rising = [percents.pop(0) if t.endswith("%") else counts.pop(0) if t[0].isdigit() else t for t in texts]
    candidates = {
        name: Candidate(tags={"ring": "canary"} if name < "8" else {}, hardware="aarch64" if name > "c" else "x86_64")
        for name in devices
    }
    places = assign("r", candidates, waves_of(*rising))
    assert list(range(len(places))) == [place.place for place in places.values()]
    assert all(a.wave <= b.wave for a, b in zip(list(places.values()), list(places.values())[1:], strict=False))
    if "tag:ring=canary" in rising:
        wave = rising.index("tag:ring=canary")
        assert all(places[name].wave <= wave for name in devices if name < "8")
    assert places == assign("r", dict(reversed(list(candidates.items()))), waves_of(*rising)), "membership is sticky"


def test_different_rollouts_begin_with_different_devices() -> None:
    """No device is always the canary."""
    devices = named([f"cam-{number}" for number in range(50)])
    firsts = {groups_of(f"rollout-{number}", devices, 1, 100)[0][0] for number in range(50)}
    assert len(firsts) > 20


@pytest.mark.parametrize(
    ("devices", "waves", "sizes"),
    [
        (10, (20, 50, 100), [2, 3, 5]),
        (5, (20, 50, 100), [1, 2, 2]),
        (3, (20, 50, 100), [1, 1, 1]),
        (3, (90, 95, 100), [1, 1, 1]),
        (1, (20, 50, 100), [1, 0, 0]),
        (0, (100,), [0]),
        (10, (10, 30), [1, 2]),
        (6, (20, 50, 100), [2, 1, 3]),
        (100, ("5 devices", "20%", "100%"), [5, 15, 80]),
        (4, ("3 devices", "50%", "100%"), [2, 1, 1]),
        (10, ("3 devices",), [3]),
    ],
)
def test_sizes_of_waves(devices: int, waves: tuple[int | str, ...], sizes: list[int]) -> None:
    """Shares round up; the first wave always has somebody; the last one is not starved; numbers are cumulative."""
    assert sizes == [len(group) for group in groups_of("r", named([f"d{n}" for n in range(devices)]), *waves)]


def test_tags_and_hardware_come_first_where_they_are_named_first() -> None:
    """A ring of canaries, then one kind of board, then everybody else."""
    devices = {
        "a": Candidate(tags={"ring": "canary"}, hardware="pi-4"),
        "b": Candidate(hardware="pi-4"),
        "c": Candidate(hardware="jetson"),
    }
    assert [["a"], ["b"], ["c"]] == groups_of("r", devices, "tag:ring=canary", "hardware:pi-4", "100%")


@pytest.mark.parametrize(
    "waves", [(), (50, 50), (50, 20), tuple(range(1, 22)), ("5 devices", "2 devices"), ("tag:a=b",) * 2]
)
def test_wrong_waves_are_refused(waves: tuple[int | str, ...]) -> None:
    """Percents and counts rise; there are 1 to 20 waves, each once."""
    with pytest.raises(ValueError, match="expected"):
        check_waves(waves_of(*waves))


NO_WAVES = [
    0,
    101,
    -5,
    "0%",
    "101%",
    "5",
    "0 devices",
    "5 things",
    "tag:",
    "tag:site",
    "tag:=x",
    "hardware:",
    "a=b",
    "",
]


@pytest.mark.parametrize("text", NO_WAVES)
def test_what_is_no_wave_is_refused(text: str | int) -> None:
    """So is a bare number in words: it could be devices or percent."""
    with pytest.raises(ValueError, match="expected a wave"):
        Wave.parse(text)


@pytest.mark.parametrize("text", TEXTS)
def test_a_wave_reads_what_it_writes(text: str) -> None:
    """The text is what the database keeps."""
    assert text == str(Wave.parse(text))
