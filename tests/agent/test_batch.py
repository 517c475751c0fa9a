"""A batch through the bundle that serves, with a real runner."""

from __future__ import annotations

import io
import json
import wave
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgeopt_agent.inference.batch import BatchJob, Done, run_batch
from edgeopt_agent.inference.readers import read_inputs
from edgeopt_agent.inference.supervisor import RunnerCrashError, RunnerOptions
from edgeopt_agent.update.slots import Installed
from edgeopt_contract.bundle import Bundle
from edgeopt_contract.errors import DataError, UsageError
from edgeopt_contract.manifest import TensorSpec
from tests.tiny import POISON, Recipe, samples, tiny_bundle


def installed(bundle: Bundle) -> Installed:
    """The bundle as it lies in a slot."""
    return Installed(bundle.directory, bundle.digest, bundle.manifest, bundle.manifest.variants[0])


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A folder with one sample, a batch of 150 rows by name, and what cannot be answered."""
    folder = tmp_path / "in"
    (folder / "deep").mkdir(parents=True)
    np.save(folder / "one.npy", samples(5, 1)[0])
    np.savez(folder / "deep" / "many.npz", x=samples(6, 150))
    np.save(folder / "wide.npy", np.ones(7))
    np.save(folder / "pickled.npy", np.array([{}], dtype=object), allow_pickle=True)
    (folder / "cat.png").write_bytes(b"a picture")
    (folder / "notes.txt").write_text("not mine")
    return folder


class Report:
    """What was told while it ran."""

    def __init__(self, end_after: int = 1000) -> None:
        self.files: list[str] = []
        self._end_after = end_after

    def __call__(self, done: Done, total: int) -> None:
        """Note it; break off like a power cut when that is wanted."""
        assert 1 <= total
        self.files.append(done.file)
        if len(self.files) == self._end_after:
            raise KeyboardInterrupt


def job(tmp_path: Path, source: Path, recipe: Recipe | None = None, **options: Any) -> BatchJob:
    """A job on a bundle of its own."""
    recipe = recipe or Recipe()
    directory = tmp_path / f"bundle-{recipe.version}"
    bundle = tiny_bundle(directory, recipe)
    return BatchJob(installed(bundle), source, tmp_path / "out", RunnerOptions(**options))


def expected(rows: np.ndarray) -> np.ndarray:
    """What the tiny model answers."""
    weights = Recipe().sharpness * np.random.default_rng(7).normal(size=(4, 3)).astype(np.float32)
    scores = np.exp(rows @ weights - (rows @ weights).max(axis=-1, keepdims=True))
    return scores / scores.sum(axis=-1, keepdims=True)


async def test_every_file_gets_its_answer_or_its_reason(tmp_path: Path, source: Path) -> None:
    """Results lie beside each other under the inputs' names; the summary lists files, times and errors."""
    done = await run_batch(job(tmp_path, source), Report())

    with np.load(tmp_path / "out" / "one.npy.npz") as one, np.load(tmp_path / "out" / "deep" / "many.npz.npz") as many:
        np.testing.assert_allclose(expected(samples(5, 1)[0]), one["p"], rtol=1e-4)
        np.testing.assert_allclose(expected(samples(6, 150)), many["p"], rtol=1e-4)
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert (2, 0, 3) == (summary["answered"], summary["kept"], summary["failed"])
    files = {entry["file"]: entry for entry in summary["files"]}
    assert {"one.npy", "deep/many.npz", "wide.npy", "pickled.npy", "cat.png"} == set(files) == {d.file for d in done}
    assert (150, True) == (files["deep/many.npz"]["rows"], files["deep/many.npz"]["microseconds"] > 0)
    assert "expected shape (4,)" in files["wide.npy"]["error"]
    assert "preprocessing is not part of the graph" in files["cat.png"]["error"]
    assert "allow_pickle" in files["pickled.npy"]["error"]


async def test_interrupted_run_goes_on(tmp_path: Path, source: Path) -> None:
    """What has a result is not asked again; an input that changed is."""
    work = job(tmp_path, source)
    with pytest.raises(KeyboardInterrupt):
        await run_batch(work, Report(end_after=2))
    kept = [done.file for done in await run_batch(work, Report()) if done.kept]
    assert ["deep/many.npz"] == kept
    np.save(source / "one.npy", samples(9, 1)[0])
    kept = [done.file for done in await run_batch(work, Report()) if done.kept]
    assert ["deep/many.npz"] == kept
    assert ["deep/many.npz", "one.npy"] == [done.file for done in await run_batch(work, Report()) if done.kept]


async def test_a_file_is_a_batch_too(tmp_path: Path) -> None:
    """One array file with many rows."""
    np.save(tmp_path / "rows.npy", samples(6, 70))
    (done,) = await run_batch(job(tmp_path, tmp_path / "rows.npy"), Report())
    assert (70, "rows.npy.npz") == (done.rows, done.result)


@pytest.mark.parametrize("summary", ["[]", "{}", '{"bundle": 5}', "no JSON"])
async def test_a_target_with_another_summary_is_refused(tmp_path: Path, source: Path, summary: str) -> None:
    """It is somebody else's file, and stays as it is."""
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "summary.json").write_text(summary)
    with pytest.raises(UsageError, match="is not a summary of a batch: choose another target"):
        await run_batch(job(tmp_path, source), Report())
    assert summary == (tmp_path / "out" / "summary.json").read_text()


async def test_results_of_two_bundles_are_never_mixed(tmp_path: Path, source: Path) -> None:
    """Another bundle needs another target."""
    await run_batch(job(tmp_path, source), Report())
    with pytest.raises(UsageError, match="choose another target"):
        await run_batch(job(tmp_path, source, Recipe(version="2")), Report())


@pytest.mark.parametrize(
    ("name", "reason"), [("missing", "is not there"), ("empty", "holds nothing"), ("out", "taken for inputs")]
)
async def test_nothing_to_do_is_said(tmp_path: Path, name: str, reason: str) -> None:
    """A source that is missing, empty, or the target itself."""
    (tmp_path / "empty").mkdir()
    (tmp_path / "out").mkdir()
    np.save(tmp_path / "out" / "one.npy", np.ones(4))
    with pytest.raises(UsageError, match=reason):
        await run_batch(job(tmp_path, tmp_path / name), Report())


async def test_input_that_hangs_the_model_costs_that_file(tmp_path: Path, source: Path) -> None:
    """The runner is started again for the next file; after three in a row the batch ends with what it has."""
    poison = np.full(4, POISON, np.float32)
    np.save(source / "aaa.npy", poison)
    work = job(tmp_path, source, Recipe(poisonable=True), infer_timeout_seconds=0.5)
    done = {one.file: one for one in await run_batch(work, Report())}
    assert "no answer within 0.5 s" in done["aaa.npy"].error
    assert 150 == done["deep/many.npz"].rows

    for name in ("aab", "aac"):
        np.save(source / f"{name}.npy", poison)
    with pytest.raises(RunnerCrashError):
        await run_batch(work, Report())
    assert 2 == json.loads((tmp_path / "out" / "summary.json").read_text())["failed"]


# --- reading --------------------------------------------------------------------------------------------------------


def spec(dtype: str, *shape: int) -> tuple[TensorSpec, ...]:
    """A model with one input."""
    return (TensorSpec(name="x", dtype=dtype, shape=shape),)


@pytest.mark.parametrize(
    ("shape", "expected_shape"),
    [
        ((6, 8, 3), (6, 8, 3)),
        ((3, 6, 8), (3, 6, 8)),
        ((-1, -1, 1), (6, 8, 1)),
        ((6, 8), (6, 8)),
        ((1, 6, 8), (1, 6, 8)),
    ],
)
def test_picture_is_read_as_it_is(tmp_path: Path, shape: tuple[int, ...], expected_shape: tuple[int, ...]) -> None:
    """Pixels in the layout that the model has, in colour or grey; nothing is resized or scaled."""
    pillow = pytest.importorskip("PIL.Image")
    pixels = np.random.default_rng(0).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    pillow.fromarray(pixels).save(tmp_path / "a.png")
    read = read_inputs(tmp_path / "a.png", spec("uint8", *shape))
    assert (expected_shape, np.uint8) == (read.shape, read.dtype)
    if expected_shape == (6, 8, 3):
        np.testing.assert_array_equal(pixels, read)
    if expected_shape == (3, 6, 8):
        np.testing.assert_array_equal(pixels.transpose(2, 0, 1), read)


def sound(path: Path, values: np.ndarray, channels: int = 1, width: int = 2) -> Path:
    """Write a WAV file."""
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setparams((channels, width, 16000, 0, "NONE", ""))
        file.writeframes(values.tobytes())
    path.write_bytes(buffer.getvalue())
    return path


@pytest.mark.parametrize(("dtype", "shape", "scale"), [("int16", (4,), 1), ("float32", (1, -1), 32768)])
def test_sound_is_read_as_it_is(tmp_path: Path, dtype: str, shape: tuple[int, ...], scale: int) -> None:
    """Values as stored, or as a part of full scale."""
    values = np.asarray([0, 1, -32768, 32767], np.int16)
    read = read_inputs(sound(tmp_path / "a.wav", values), spec(dtype, *shape))
    assert (len(shape), dtype) == (read.ndim, read.dtype.name)
    np.testing.assert_array_equal(values, read.reshape(-1) * scale)


@pytest.mark.parametrize(
    ("name", "specs", "reason"),
    [
        ("a.png", spec("float32", 3, 6, 8), "preprocessing is not part"),
        ("a.png", spec("uint8", 6), "preprocessing is not part"),
        ("a.png", (*spec("uint8", 6, 8), *spec("uint8", 6, 8)), "2 inputs"),
        ("broken.png", spec("uint8", 6, 8), "cannot be read as a picture"),
        ("a.wav", spec("float32", 40, 40), "its features are not part"),
        ("stereo.wav", spec("float32", 4), "one channel of 16 bits"),
        ("broken.wav", spec("float32", 4), "cannot be read as WAV"),
        ("a.txt", spec("float32", 4), "expected one of"),
        ("broken.npz", spec("float32", 4), "numpy.savez"),
        ("missing.npy", spec("float32", 4), "numpy.save"),
    ],
)
def test_file_that_is_no_input_is_explained(
    tmp_path: Path, name: str, specs: tuple[TensorSpec, ...], reason: str
) -> None:
    """What was expected, and what to give instead."""
    pillow = pytest.importorskip("PIL.Image")
    pillow.fromarray(np.zeros((6, 8, 3), np.uint8)).save(tmp_path / "a.png")
    sound(tmp_path / "a.wav", np.zeros(4, np.int16))
    sound(tmp_path / "stereo.wav", np.zeros(4, np.int16), channels=2)
    for broken in ("broken.png", "broken.wav", "broken.npz"):
        (tmp_path / broken).write_bytes(b"nothing")
    with pytest.raises(DataError, match=reason):
        read_inputs(tmp_path / name, specs)
