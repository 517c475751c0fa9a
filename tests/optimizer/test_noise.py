"""What others took of the machine is read rightly and said in words."""

from __future__ import annotations

import pytest

from edgeopt import noise
from edgeopt.noise import CpuTimes, cpu_times, noise_note, parse_cpu_times

STAT = """cpu  1000 50 200 9000 300 10 40 70 0 0
cpu0 500 25 100 4500 150 5 20 35 0 0
cpu1 500 25 100 4500 150 5 20 35 0 0
intr 12345
"""


def _after(*, busy: float, own: float, stolen: float = 0.0, cpus: int = 2) -> CpuTimes:
    return CpuTimes(wall=10.0, busy=busy, own=own, stolen=stolen, cpus=cpus)


START = CpuTimes(wall=0.0, busy=0.0, own=0.0, stolen=0.0, cpus=2)


def test_busy_and_stolen_time_are_added_up_over_all_cpus() -> None:
    """User, nice, system and interrupts are busy; idle and waiting for disks are not; steal is apart."""
    assert (13.0, 0.7, 2) == parse_cpu_times(STAT, 100)


def test_a_quiet_machine_needs_no_words() -> None:
    """What this process itself computes is no noise, nor are the crumbs that any system takes."""
    assert "" == noise_note(START, _after(busy=10.2, own=10.0))


def test_other_programs_are_told() -> None:
    """In CPUs, as people count them."""
    note = noise_note(START, _after(busy=19.0, own=8.0))
    assert "other programs used 1.1 of 2 CPUs" in note
    assert "hypervisor" not in note


def test_stolen_time_is_told() -> None:
    """The neighbour on the same host cannot be seen otherwise."""
    assert "the hypervisor withheld 5% of the CPU time" in noise_note(START, _after(busy=10.0, own=10.0, stolen=1.0))


@pytest.mark.parametrize("after", [START, _after(busy=99.0, own=0.0, cpus=0)])
def test_nothing_is_said_where_nothing_is_known(after: CpuTimes) -> None:
    """No time has passed, or the system does not tell."""
    assert "" == noise_note(START, after)


def test_the_times_of_this_machine_only_grow() -> None:
    """Two readings are in order, and this process's share is part of the whole."""
    before, after = cpu_times(), cpu_times()
    assert before.wall <= after.wall
    assert before.own <= after.own
    assert before.cpus == after.cpus >= 1


def test_without_proc_stat_only_the_own_time_is_known(monkeypatch: pytest.MonkeyPatch, tmp_path: object) -> None:
    """Other systems have no such file."""
    monkeypatch.setattr(noise, "_STAT", noise.Path("/nowhere/stat"))
    assert 0 == cpu_times().cpus
