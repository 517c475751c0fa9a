"""Building a root: what is refused before anything is fetched, and what a CPU's kernel says. The rest is marked isa."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgeopt.emulation.building import Request, build_root
from edgeopt.emulation.cpus import CPUS, cpuinfo
from edgeopt.targets import read_target
from edgeopt_contract.errors import UsageError
from edgeopt_contract.isa import isa_features

DEVICES = Path(__file__).parents[3] / "devices"


def test_an_unknown_architecture_is_refused(tmp_path: Path) -> None:
    """Before a folder is made."""
    with pytest.raises(UsageError, match="expected an architecture out of aarch64, got mips"):
        build_root(Request(arch="mips", folder=tmp_path / "roots"), on_step=print)
    assert not (tmp_path / "roots").exists()


def test_missing_tools_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a system that is no Debian."""
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UsageError, match=r"lacks apt-get, dpkg-deb.*build it on a Debian"):
        build_root(Request(arch="aarch64", folder=tmp_path), on_step=print)


@pytest.mark.parametrize("path", sorted(DEVICES.glob("*.toml")), ids=lambda path: path.stem)
def test_every_arm_profile_has_a_cpu_with_its_features(path: Path) -> None:
    """What /proc/cpuinfo will say leads to the features of the profile."""
    target = read_target(path)
    if target.arch == "aarch64":
        assert target.emulator is not None
        assert set(target.features) == set(isa_features(cpuinfo(target.emulator.cpu, cores=target.cores)))


def test_cpuinfo_has_a_part_for_each_core() -> None:
    """As Linux writes it: blank lines between the cores."""
    assert 4 == cpuinfo("cortex-a72", cores=4).count("CPU part\t: 0xd08\n")
    assert [f"processor\t: {core}" for core in range(4)] == [
        part.splitlines()[0] for part in cpuinfo("cortex-a72", cores=4).split("\n\n")
    ]
    assert len(CPUS) == len({part for part, _ in CPUS.values()})
