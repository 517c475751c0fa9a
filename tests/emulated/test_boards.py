"""The agent on emulated ARM boards: it enrols, updates, serves, reports, and survives what boards go through."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, checker, helper, numpy_helper

from demo.system import wait_until
from devices.emulator.fleet import Report
from devices.emulator.memory_group import no_memory_groups
from tests.emulated.conftest import BOARDS, SMALL, Boards
from tests.tiny import Recipe, tiny_bundle

pytestmark = [pytest.mark.emulated, pytest.mark.timeout(600)]

_DOTPROD = {"a53": False, "a72": False, "a76": True}
_HUNGRY_FLOATS = 300_000_000  # 1.2 GB


@pytest.mark.parametrize("name", BOARDS)
def test_the_fleet_knows_what_each_board_can(boards: Boards, name: str) -> None:
    """Architecture, instruction set, cores and memory are the profile's, as the agent found them."""
    profile, seen = boards[name].profile, boards.view(name)["capabilities"]
    assert "aarch64" == seen["arch"]
    assert set(profile.target.features) == set(seen["features"])
    assert _DOTPROD[name] == ("dotprod" in seen["features"])
    assert profile.target.cores == seen["cores"]
    assert profile.facts.memory_total_kib * 1024 == seen["memory_bytes"]


@pytest.mark.parametrize("name", BOARDS)
def test_int8_on_the_board_is_bit_identical_to_the_golden_outputs(
    boards: Boards, name: str, figure: Callable[[str], None]
) -> None:
    """Over HTTP on the board, every golden input gives the host's output to the last bit: it is the int8 variant."""
    assert boards.digest == boards.view(name)["running"]
    golden = np.load(boards.digits / "golden.npz")
    inputs = golden["inputs/input"][:16]
    outputs = boards.infer(name, inputs)
    np.testing.assert_array_equal(golden["outputs/int8/linear"][:16], outputs)
    assert not np.array_equal(golden["outputs/fp32/linear"][:16], outputs)
    figure(f"{name:>5}: {outputs.size} int8 outputs bit-identical to the golden ones, bundle {boards.digest[:12]}")


def test_boards_report_their_temperature(boards: Boards) -> None:
    """Telemetry has what the board's sensor says: the profile's at first, and what it is changed to later."""
    for name in BOARDS:
        boards.infer(name, np.zeros((1, 1, 8, 8), np.float32))
    for name in BOARDS:
        _wait_for_celsius(boards, name, boards[name].profile.facts.temperature_celsius)
    boards["a76"].set_temperature(84.5)
    boards.infer("a76", np.zeros((1, 1, 8, 8), np.float32))
    _wait_for_celsius(boards, "a76", 84.5)
    _wait_for_celsius(boards, "a53", boards["a53"].profile.facts.temperature_celsius)


def test_a_full_disk_is_reported_and_the_old_model_serves(
    boards: Boards, tmp_path: Path, figure: Callable[[str], None]
) -> None:
    """A bundle that does not fit is told with what is missing; the board waits for room and serves what it had."""
    _needs_limits()
    tiny_bundle(tmp_path / "large", Recipe(version="large", padding_bytes=8 << 20))
    rollout = boards.send(boards.publish(tmp_path / "large"), SMALL)
    job = f"{rollout}.1.{SMALL}"

    def told() -> Report | None:
        reports = (one for one in boards.fleet.reports(SMALL) if one.job == job)
        return next((one for one in reports if "bytes free in /var/lib/edgeopt" in one.detail), None)

    report = wait_until(f"{SMALL} to tell what is missing", told, 240)
    assert "downloading" == report.state
    assert boards.digest == boards.view(SMALL)["running"]
    boards.fleet.system.edgeopt("rollout", "cancel", rollout)
    assert "runs_old_untouched" == _ended(boards, rollout, SMALL).result
    _wait_for_digits(boards)
    assert (1, 10) == boards.infer(SMALL, np.zeros((1, 1, 8, 8), np.float32)).shape
    figure(f"{SMALL:>5}: 8 MiB for a disk of 24 MiB: {report.detail}")


def test_when_memory_is_used_up_the_runner_dies_and_not_the_agent(
    boards: Boards, tmp_path: Path, figure: Callable[[str], None]
) -> None:
    """A model that eats more than the board has fails its self-test; the agent lives on and serves the old model."""
    _needs_limits()
    memory = boards[SMALL].memory
    assert memory is not None
    assert 0 == memory.kills()
    boot = boards.view(SMALL)["boot"]
    tiny_bundle(tmp_path / "hungry", Recipe(version="hungry", model=_hungry_model()))
    rollout = boards.send(boards.publish(tmp_path / "hungry"), SMALL)
    report = _ended(boards, rollout, SMALL)
    assert "failed" == report.state
    assert memory.kills() > 0
    assert boards[SMALL].on
    assert boot == boards.view(SMALL)["boot"]
    _wait_for_digits(boards)
    assert (1, 10) == boards.infer(SMALL, np.zeros((1, 1, 8, 8), np.float32)).shape
    figure(f"{SMALL:>5}: the kernel killed {memory.kills()} runners for memory, the agent none: {report.detail}")


def test_a_power_cut_in_the_middle_of_an_update(boards: Boards, tmp_path: Path, figure: Callable[[str], None]) -> None:
    """Cut while it downloads and switched on again, the board gets to the new bundle by itself."""
    board, line = boards[SMALL], boards.fleet.links[SMALL]
    tiny_bundle(tmp_path / "next", Recipe(version="next", padding_bytes=400_000))
    digest = boards.publish(tmp_path / "next")
    line.change(rate_bits=400_000)
    before = line.count()[1].bytes
    rollout = boards.send(digest, SMALL)
    wait_until("a third of the download", lambda: line.count()[1].bytes - before > 130_000, every=0.02)
    board.cut_power()
    assert not board.on
    cut = line.count()[1].bytes - before
    assert ["downloading"] == [report.state for report in boards.fleet.reports(SMALL)][-1:]
    line.change(rate_bits=0)
    boards.switch_on(SMALL)
    report = _ended(boards, rollout, SMALL)
    assert ("confirmed", "runs_new") == (report.state, report.result)
    assert digest == boards.view(SMALL)["running"]
    seconds = time.monotonic() - boards.since[SMALL]
    figure(
        f"{SMALL:>5}: power cut after {cut} bytes; confirmed {seconds:.1f} s after it was switched on, "
        f"{line.count()[1].bytes - before} bytes in all for a bundle of {_size(tmp_path / 'next')}"
    )


def _needs_limits() -> None:
    reason = no_memory_groups()
    if reason is not None:
        pytest.skip(reason)


def _wait_for_celsius(boards: Boards, name: str, celsius: float) -> None:
    """Wait until the newest telemetry of a board has a temperature."""
    what = f"{name} to report {celsius} degrees"
    wait_until(what, lambda: boards.fleet.gauges(name).get("temperature_celsius") == celsius)


def _ended(boards: Boards, rollout: str, name: str) -> Report:
    """Wait until a board has a result, and return how it ended."""

    def result() -> Report | None:
        assert boards[name].on, boards[name].log.read_text()[-3000:]
        return boards.result(rollout, name)

    return wait_until(f"{name} to end {rollout}", result, 240)


def _wait_for_digits(boards: Boards) -> None:
    """Wait until the server has sent the small board back to the digits, and it has said that it runs them."""

    def settled() -> bool:
        view = boards.view(SMALL)
        return (boards.digest, "confirmed", "runs_new") == (
            view["running"], view["update"]["state"], view["update"]["result"],
        )  # fmt: skip

    wait_until("the digits again", settled)


def _size(directory: Path) -> int:
    return sum(path.stat().st_size for path in directory.iterdir())


def _hungry_model() -> bytes:
    """Return a model that fills 1.2 GB for every input."""
    weights = np.ones((4, 3), np.float32)
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["scores"]),
        helper.make_node("Softmax", ["scores"], ["likely"]),
        helper.make_node("Shape", ["x"], ["shape"]),
        helper.make_node("Gather", ["shape", "first"], ["rows"]),
        helper.make_node("Mul", ["rows", "many"], ["length"]),
        helper.make_node("ConstantOfShape", ["length"], ["filled"]),
        helper.make_node("ReduceSum", ["filled"], ["sum"], keepdims=0),
        helper.make_node("Add", ["likely", "sum"], ["p"]),
    ]
    constants = [
        numpy_helper.from_array(weights, "w"),
        numpy_helper.from_array(np.array([0], np.int64), "first"),
        numpy_helper.from_array(np.array([_HUNGRY_FLOATS], np.int64), "many"),
    ]
    graph = helper.make_graph(
        nodes, "hungry",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 4])],
        [helper.make_tensor_value_info("p", TensorProto.FLOAT, ["n", 3])],
        constants,
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    checker.check_model(model)
    return bytes(model.SerializeToString())
