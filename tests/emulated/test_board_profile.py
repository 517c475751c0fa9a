from __future__ import annotations

from pathlib import Path

import pytest

from devices.emulator.board_files import sensor_files, still_files
from devices.emulator.board_profile import BOARDS, BoardProfile, board_names, read_board
from edgeopt_agent.device.gauges import read_gauges
from edgeopt_agent.device.machine import read_capabilities
from edgeopt_contract.errors import UsageError

_ZONE = "sys/class/thermal/thermal_zone0/temp"


def _laid_out(folder: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


@pytest.fixture(params=board_names())
def board(request: pytest.FixtureRequest) -> BoardProfile:
    """Every board that there is."""
    return read_board(BOARDS / f"{request.param}.toml")


def test_the_issues_boards_are_there() -> None:
    """One for each device that was asked for."""
    asked = {"raspberry-pi-3", "raspberry-pi-4", "raspberry-pi-5", "raspberry-pi-zero-2w", "jetson-nano"}
    assert asked <= set(board_names())


def test_the_agent_sees_the_device_of_the_profile(board: BoardProfile, tmp_path: Path) -> None:
    """What the agent reads from the files is what devices/NAME.toml promises to the optimizer."""
    proc = _laid_out(tmp_path, still_files(board, "b-1")) / "proc"
    seen = read_capabilities(proc)
    assert set(board.target.features) == set(seen.features)
    assert board.facts.memory_total_kib * 1024 == seen.memory_bytes
    assert board.target.cores == (proc / "cpuinfo").read_text().count("processor")


def test_memory_is_what_the_device_has_less_what_its_firmware_takes(board: BoardProfile) -> None:
    """The two files about a device agree: MemTotal is below the memory that is built in, by a fifth at most."""
    built_in = board.target.memory_mib * 1024
    assert 0.8 * built_in < board.facts.memory_total_kib < built_in


def test_the_temperature_is_where_the_agent_looks(board: BoardProfile, tmp_path: Path) -> None:
    """In thousandths of a degree, below /sys/class/thermal."""
    folder = _laid_out(tmp_path, still_files(board, "b-1") | sensor_files(board, 61.25))
    gauges = read_gauges(tmp_path, folder / "proc", folder / "sys")
    assert 61.25 == gauges["temperature_celsius"]


def test_a_hot_board_takes_its_slowest_clock(board: BoardProfile) -> None:
    """From the temperature on at which it throttles, and in every file that says so; below, nowhere."""
    limit = board.facts.throttles_celsius
    slowest, fastest = board.facts.megahertz
    for celsius, clock, state, flags in ((limit - 0.1, fastest, "0\n", "0\n"), (limit, slowest, "1\n", "40004\n")):
        files = sensor_files(board, celsius)
        clocks = {text for name, text in files.items() if name.endswith("scaling_cur_freq")}
        assert {f"{clock * 1000}\n"} == clocks
        assert state == files["sys/class/thermal/cooling_device0/cur_state"]
        if board.facts.get_throttled is not None:
            assert flags == files[board.facts.get_throttled]


def test_a_board_that_is_no_arm_is_refused(tmp_path: Path) -> None:
    """With what it is instead."""
    (tmp_path / "boards").mkdir()
    (tmp_path / "x.toml").write_text((BOARDS.parent / "x86-atom.toml").read_text())
    with pytest.raises(UsageError, match="is x86_64"):
        read_board(tmp_path / "boards" / "x.toml")


@pytest.mark.parametrize("wrong", ['model = "x"\n', "fans = 3\n", "model =\n"])
def test_a_wrong_board_file_is_named(tmp_path: Path, wrong: str) -> None:
    """Missing and unknown keys, and what is no TOML, are the user's mistake."""
    (tmp_path / "boards").mkdir()
    (tmp_path / "pi.toml").write_text((BOARDS.parent / "raspberry-pi-4.toml").read_text())
    whole = (BOARDS / "raspberry-pi-4.toml").read_text()
    (tmp_path / "boards" / "pi.toml").write_text(wrong if "model" in wrong else whole + wrong)
    with pytest.raises(UsageError, match=r"pi\.toml"):
        read_board(tmp_path / "boards" / "pi.toml")
