"""One command, three kinds of CPU: what each gets, on what it was certified, and that devices find it."""

from __future__ import annotations

import dataclasses
import io
from pathlib import Path

import numpy as np
import pytest

from edgeopt import pipeline
from edgeopt.cli import group
from edgeopt.emulation.root import Root
from edgeopt.inspection import inspect_bundle
from edgeopt.recipe import Recipe
from edgeopt.results import RunResult, SpeedResult, from_json
from edgeopt.runtimes.onnx_runtime import OnnxRuntimeSession
from edgeopt.samples import Array, Sample
from edgeopt.search.laboratory import Timer
from edgeopt.targets import host_target, read_target
from edgeopt.timing import Plan
from edgeopt_contract.bundle import Bundle, open_bundle
from edgeopt_contract.commands import run_command
from edgeopt_contract.manifest import Capabilities
from examples import bright_digits
from tests.optimizer import runs
from tests.optimizer.isa.conftest import DEVICES, Answer, emulator_of

pytestmark = pytest.mark.isa

TARGETS = ("x86-avx2", "x86-vnni", "raspberry-pi-4")
LAYERS = 10  # with weights
SAMPLES = [Sample({"input": picture}, label) for picture, label in bright_digits.data()]


def priced(recipe: Recipe) -> SpeedResult:
    """Say that int8 is twice as fast as fp32, and less so for each node in float: pictures of 8 x 8 tell no time."""
    return runs.speed(2 * 0.95 ** len(recipe.float_nodes))


def timer_of(_run: object, _plan: Plan) -> Timer:
    """Stand in for the stopwatch."""
    return lambda _model, recipe: priced(recipe)


@pytest.fixture(scope="module")
def directory(arm: Root, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundle that the command writes."""
    output = tmp_path_factory.mktemp("fleet") / "bright"
    targets = [part for name in TARGETS for part in ("--target", str(DEVICES / f"{name}.toml"))]
    data = ("--data", "examples.bright_digits:data", "--max-drop", "3%", "--runtime", "onnxruntime")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pipeline._Run, "_timer", timer_of)
        patch.setenv("EDGEOPT_TRACKING", "0")
        emulated = ("--emulator", str(arm.path.parent), "--emulator-seconds", "120", "--budget", "30m")
        arguments = ["optimize", "examples.bright_digits:model", *data, *targets, *emulated, "-o", str(output)]
        code = run_command(lambda: group(arguments, prog_name="edgeopt", standalone_mode=False))
    assert 0 == code
    return output


@pytest.fixture(scope="module")
def bundle(directory: Path) -> Bundle:
    """It, opened."""
    return open_bundle(directory)


@pytest.fixture(scope="module")
def report(directory: Path) -> RunResult:
    """What it says of itself."""
    return from_json((directory / "report.json").read_bytes())


def model_for(bundle: Bundle, name: str) -> tuple[str, bytes]:
    """Return the name and the bytes of the variant that a device of that kind takes."""
    target = read_target(DEVICES / f"{name}.toml")
    device = Capabilities(
        arch=target.arch, features=target.features, runtimes={"onnxruntime": "1.31.0"}, cores=4, memory_bytes=2**30
    )
    variant = bundle.manifest.variant_for(device)
    return variant.name, (bundle.directory / variant.file).read_bytes()


def accuracy(outputs: dict[str, Array]) -> float:
    """The share of right answers."""
    (logits,) = outputs.values()
    return float(np.mean(logits.argmax(axis=1) == [sample.label for sample in SAMPLES]))


def test_every_kind_of_device_takes_what_was_chosen_for_it(bundle: Bundle, report: RunResult) -> None:
    """The report's choice is the manifest's, and was certified for that target."""
    assert "PASS" == report.verdict
    for name in TARGETS:
        chosen, _ = model_for(bundle, name)
        assert report.target(name).chosen == chosen
        assert name in next(one.certified_for for one in bundle.manifest.variants if one.name == chosen)


def test_the_report_says_on_what_each_was_certified(report: RunResult) -> None:
    """In words; an emulated CPU answers as many samples as its time allows, simulated integers are called that."""
    found = {name: report.target(name).execution for name in TARGETS}
    print("".join(f"\n{name}: certified on {words}" for name, words in found.items()))
    assert found["raspberry-pi-4"].startswith("emulated (qemu-aarch64 -cpu cortex-a72)")
    if host_target().saturates:
        assert f"this CPU ({host_target().name})" == found["x86-avx2"]
        assert "simulated integers: QEMU translates neither AVX-512 nor VNNI" == found["x86-vnni"]
    stages = [stage.stage for stage in report.target("raspberry-pi-4").stages]
    assert ["int8 simulated", "int8 by onnxruntime on raspberry-pi-4"] == stages[-2:]


def test_few_layers_are_reduced_and_only_where_products_saturate(
    bundle: Bundle, report: RunResult, saturating: Answer
) -> None:
    """Full range loses at least 5 points on AVX2; what ships for it at most 0.5, with at most 30 % reduced."""
    recipes = {name: report.target(name).variants[0].recipe for name in TARGETS}
    _, full = model_for(bundle, "x86-vnni")
    _, spared = model_for(bundle, "x86-avx2")
    exact = accuracy(OnnxRuntimeSession(full, threads=1, simulated=True).predict(SAMPLES))
    ruined, repaired = (accuracy(saturating(model, SAMPLES)) for model in (full, spared))
    share = len(recipes["x86-avx2"].reduced_weights) / LAYERS
    print(
        f"\nVNNI in full range {exact:.2%}; that on AVX2 {ruined:.2%}; what ships for AVX2 {repaired:.2%}, with "
        f"{share:.0%} of the layers in 7 bits ({recipes['x86-avx2'].title})"
    )
    assert ((), ()) == (recipes["x86-vnni"].reduced_weights, recipes["raspberry-pi-4"].reduced_weights)
    assert exact - ruined >= 0.05
    assert exact - repaired <= 0.005
    assert 0 < share <= 0.3
    assert ("vnni",) == next(one.features for one in bundle.manifest.variants if "x86-vnni" in one.certified_for)


def test_reducing_fewer_layers_is_nearer_to_fp32_at_no_cost_in_time(report: RunResult) -> None:
    """Beside the recipe that reduces all dense layers, otherwise the same."""
    trials = {trial.recipe: trial for trial in report.target("x86-avx2").trials if trial.problem is None}
    (selective,) = (trial for trial in trials.values() if trial.rung == "selective range")
    plain = dataclasses.replace(selective.recipe, reduced_weights=())
    same = [one for one in trials.values() if dataclasses.replace(one.recipe, reduced_weights=()) == plain]
    most = max(same, key=lambda trial: len(trial.recipe.reduced_weights))
    print(f"\n{most.title}: error {most.error:.4f}; {selective.title}: error {selective.error:.4f}")
    assert most.error > selective.error
    assert most.size_bytes == pytest.approx(selective.size_bytes, rel=0.001)


@pytest.mark.parametrize("name", ["raspberry-pi-4"])
def test_golden_outputs_hold_on_the_real_kind_of_cpu(bundle: Bundle, name: str, arm: Root) -> None:
    """They are simulated here; the device's kernels stay within the tolerance of its self-test."""
    chosen, model = model_for(bundle, name)
    variant = next(one for one in bundle.manifest.variants if one.name == chosen)
    with np.load(io.BytesIO((bundle.directory / "golden.npz").read_bytes())) as golden:
        samples = [Sample({"input": picture}, None) for picture in golden["inputs/input"]]
        (key,) = (key for key in golden.files if key.startswith(f"outputs/{chosen}/"))
        expected = golden[key].astype(np.float64)
    emulator = emulator_of(read_target(DEVICES / f"{name}.toml"), arm.path.parent)
    (actual,) = emulator.predict(model, samples[:16]).values()
    far = np.abs(actual - expected[:16]).mean() / expected.std()
    print(f"\n{chosen}: {far:.5f} standard deviations from the golden outputs, {variant.tolerance} allowed")
    assert far <= variant.tolerance


def test_the_bundle_verifies(directory: Path) -> None:
    """Evidence, manifest and files agree, and the evidence says what each target gets."""
    found = inspect_bundle(directory)
    assert found.evidence is not None
    assert set(TARGETS) == set(found.evidence)
