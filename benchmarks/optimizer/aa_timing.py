"""How often the stopwatch calls two equal models different, on a machine that is busy with other things.

A/A: a model is timed against itself, as the optimizer times a variant against fp32. At 95 % confidence at most 5 % of
such comparisons may find a difference. Busy processes, started and ended here, take the CPU away meanwhile. It prints
for each model how many intervals left one out, with the exact binomial interval (Clopper and Pearson, 1934) of that
share. Example::

    python -m benchmarks.optimizer.aa_timing --runs 200 --seconds 1.5 --busy 2
"""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import os
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import click
import numpy as np
from scipy import stats

from edgeopt.graph import prepare
from edgeopt.models import TorchModel
from edgeopt.noise import cpu_times, noise_note
from edgeopt.recipe import RuntimeName
from edgeopt.runtimes.port import open_session
from edgeopt.samples import Sample, stack
from edgeopt.timing import Plan, estimate, loader, measure

__all__ = ["Share", "busy", "called_different", "main", "models"]

_LONGEST_SECONDS = 7200.0  # a busy process ends by itself, should nobody end it


@dataclass(frozen=True, slots=True)
class Share:
    """How many of ``runs`` comparisons of a model with itself found a difference; ``worst`` is the largest one."""

    model: str
    runs: int
    different: int
    worst: float
    seconds_each: float

    @property
    def interval(self) -> tuple[float, float]:
        """The exact 95 % interval of the share."""
        exact = stats.binomtest(self.different, self.runs).proportion_ci(0.95, "exact")
        return float(exact.low), float(exact.high)

    def __str__(self) -> str:
        low, high = self.interval
        return (
            f"{self.model:>12}: {self.different} of {self.runs} called different = {self.different / self.runs:.1%} "
            f"(95 % interval {low:.1%} to {high:.1%}), largest ratio {self.worst:.3f}, {self.seconds_each:.2f} s each"
        )


def models() -> dict[str, tuple[bytes, dict[str, np.ndarray]]]:
    """Return models with a feed each: an MLP of microseconds, a CNN of tenths of a millisecond, and that in int8."""
    import torch
    from torch import nn

    from examples import digits

    torch.manual_seed(0)
    mlp = nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 4)).eval()
    row = Sample({"input": np.random.default_rng(0).standard_normal(16).astype(np.float32)}, None)
    pictures = [Sample({"input": picture}, None) for picture in digits.pictures("test")[0][:32]]
    cnn = prepare(TorchModel(digits.model()).to_onnx(pictures[0])).model
    return {
        "tiny MLP": (prepare(TorchModel(mlp).to_onnx(row)).model, stack([row])),
        "digits CNN": (cnn, stack(pictures[:1])),
        "digits int8": (_int8(cnn, pictures), stack(pictures[:1])),
    }


def _int8(model: bytes, samples: list[Sample]) -> bytes:
    import onnx
    from onnxruntime.quantization import CalibrationDataReader, quantize_static

    from edgeopt.silence import silenced

    class Reader(CalibrationDataReader):  # type: ignore[misc]  # onnxruntime publishes no types
        """The samples, one at a time."""

        def __init__(self) -> None:
            self._samples = iter(samples)

        def get_next(self) -> dict[str, np.ndarray] | None:
            """Return the next sample as a batch of one."""
            sample = next(self._samples, None)
            return None if sample is None else stack([sample])

    with tempfile.TemporaryDirectory() as folder, silenced():
        result = Path(folder) / "int8.onnx"
        quantize_static(onnx.load_model_from_string(model), str(result), Reader(), per_channel=True)
        return result.read_bytes()


@contextlib.contextmanager
def busy(processes: int, seconds: float = _LONGEST_SECONDS) -> Iterator[None]:
    """Keep ``processes`` CPUs busy, in bursts as real programs do, for ``seconds`` at most."""
    context = multiprocessing.get_context("spawn")
    started = [context.Process(target=_burn, args=(seconds, number), daemon=True) for number in range(processes)]
    for process in started:
        process.start()
    try:
        yield
    finally:
        for process in started:
            process.terminate()
            process.join()


def _burn(seconds: float, seed: int) -> None:
    """Compute and rest in turns of random length until the time is over."""
    random = np.random.default_rng(seed)
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        pause = time.monotonic() + random.exponential(0.05)
        block = random.standard_normal((256, 256))
        while time.monotonic() < pause:
            block = np.sort(block, axis=0)[::-1]
        time.sleep(random.exponential(0.02))


def called_different(name: str, model: bytes, feeds: dict[str, np.ndarray], plan: Plan, runs: int) -> Share:
    """Time ``model`` against itself ``runs`` times."""
    different, worst, begin = 0, 1.0, time.perf_counter()
    for _ in range(runs):
        openers = [lambda: open_session(model, RuntimeName.ONNXRUNTIME, threads=1)] * 2
        speed = estimate(measure(loader(openers, [feeds]), time.perf_counter, plan))
        if not speed.ratio_low <= 1 <= speed.ratio_high:
            different += 1
            worst = max(worst, speed.ratio, 1 / speed.ratio)
    return Share(name, runs, different, worst, (time.perf_counter() - begin) / runs)


@click.command()
@click.option("--runs", default=200, show_default=True, help="Comparisons of each model with itself.")
@click.option("--seconds", default=Plan().seconds, show_default=True, help="Measuring time of one comparison.")
@click.option("--busy", "processes", default=os.cpu_count() or 1, show_default=True, help="Busy processes meanwhile.")
@click.option("--only", help="One of the models.")
@click.option("--output", type=click.Path(path_type=Path), help="Write the figures as JSON.")
def main(runs: int, seconds: float, processes: int, only: str | None, output: Path | None) -> None:
    """Print the share of A/A comparisons that found a difference."""
    plan, shares, before = Plan(seconds=seconds), [], cpu_times()
    with busy(processes):
        for name, (model, feeds) in models().items():
            if only in (None, name):
                shares.append(called_different(name, model, feeds, plan, runs))
                click.echo(str(shares[-1]))
    click.echo(noise_note(before, cpu_times()) or "the machine was quiet")
    if output is not None:
        figures = [asdict(share) | {"interval": share.interval} for share in shares]
        output.write_text(json.dumps({"plan": asdict(plan), "busy": processes, "shares": figures}, indent=2))


if __name__ == "__main__":
    main()
