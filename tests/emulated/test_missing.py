"""What cannot be emulated here is said in one sentence, which the skipped tests show."""

from __future__ import annotations

from pathlib import Path

import pytest

from devices.emulator import memory_group
from devices.emulator.image import board_image, no_boards
from devices.emulator.link import network
from devices.emulator.memory_group import MemoryGroup, no_memory_groups
from devices.emulator.namespaces import missing
from edgeopt_contract.errors import UsageError


def test_missing_tools_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the packages to install; and nothing starts."""
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "apt-get install iproute2" in (missing() or "")
    assert "apt-get install qemu-user-static" in (no_boards() or "")
    with pytest.raises(UsageError, match="iproute2"), network():
        pass
    with pytest.raises(UsageError, match="qemu-user-static"), board_image(print):
        pass


def test_forbidden_namespaces_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the system does not allow them, its own words are in the sentence."""
    for tool in ("ip", "nsenter", "unshare", "qemu-aarch64-static"):
        (tmp_path / tool).write_text("#!/bin/sh\necho not allowed here >&2\nexit 1\n")
        (tmp_path / tool).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("devices.emulator.namespaces.privileged_prefix", lambda: ("unshare",))
    assert (missing() or "").endswith("not allowed here")
    assert (no_boards() or "").endswith("not allowed here")


def test_missing_control_groups_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A limit that cannot be kept is refused rather than forgotten."""
    monkeypatch.setattr(memory_group, "_CONTROLLER", tmp_path)
    assert str(tmp_path) in (no_memory_groups() or "")
    with pytest.raises(UsageError, match="memory control groups"):
        MemoryGroup.create("b", limit_bytes=1 << 20)
