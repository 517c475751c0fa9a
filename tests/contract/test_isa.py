"""Reading the features that decide about int8 kernels from the kernel's CPU listing."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeopt_contract.isa import isa_features, normalize_arch

HASWELL = "processor\t: 0\nmodel name\t: avx512_vnni is only in the name\nflags\t\t: fpu sse4_2 fma avx2 bmi2\n"
SAPPHIRE_RAPIDS = "flags\t\t: avx2 avx512f avx_vnni amx_int8 avx512_vnni\n"
PI_4 = "processor\t: 0\nFeatures\t: fp asimd evtstrm crc32 cpuid\nCPU part\t: 0xd08\n"
PI_5 = "Features\t: fp asimd evtstrm aes fphp asimdhp cpuid asimdrdm asimddp\n"


@pytest.mark.parametrize(
    ("cpuinfo", "expected"),
    [
        (HASWELL, ("avx2",)),
        (SAPPHIRE_RAPIDS, ("amx_int8", "avx2", "avx512_vnni", "avx512f", "avx_vnni", "vnni")),
        ("flags : avx_vnni avx2", ("avx2", "avx_vnni", "vnni")),
        (PI_4, ("neon",)),
        (PI_5, ("dotprod", "fp16", "neon")),
        ("Features : asimd i8mm asimddp", ("dotprod", "i8mm", "neon")),
        ("", ()),
        ("flags", ()),
    ],
)
def test_known_machines(cpuinfo: str, expected: tuple[str, ...]) -> None:
    """Only the lines of flags count, and either form of VNNI gives the name that stands for both."""
    assert expected == isa_features(cpuinfo)


@given(cpuinfo=st.text(max_size=300))
def test_any_text_gives_sorted_features(cpuinfo: str) -> None:
    """A strange kernel gives fewer features, never an error."""
    assert tuple(sorted(set(isa_features(cpuinfo)))) == isa_features(cpuinfo)


@pytest.mark.parametrize(
    ("machine", "expected"),
    [
        ("x86_64", "x86_64"),
        ("AMD64", "x86_64"),
        ("arm64", "aarch64"),
        ("aarch64", "aarch64"),
        ("armv7l", "armhf"),
        ("armv8l", "armhf"),
        ("riscv64", "riscv64"),
    ],
)
def test_architectures_have_one_name_each(machine: str, expected: str) -> None:
    """Windows, macOS and Linux name the same machine differently; manifests do not."""
    assert expected == normalize_arch(machine)
