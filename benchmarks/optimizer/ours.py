"""edgeopt as a user runs it: the real command, its report, and the variant that it chose.

Example::

    chosen = run_edgeopt(CASES["digits"], Path("build/digits"), budget="3m")
    chosen.made, chosen.reasons
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.optimizer.cases import Case
from benchmarks.optimizer.peers.port import Form, Made
from edgeopt.recipe import RuntimeName
from edgeopt.results import RunResult, TargetResult, VariantResult, from_json
from edgeopt.runtimes.port import available

__all__ = ["Run", "command_of", "run_command", "run_edgeopt"]

_ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True, slots=True)
class Run:
    """A run of the command: exit code, what it said, and the report (``None`` when it wrote none)."""

    code: int
    said: str
    report: RunResult | None
    folder: Path

    @property
    def target(self) -> TargetResult:
        """The only target: this machine."""
        assert self.report is not None, self.said
        return self.report.targets[0]

    @property
    def chosen(self) -> VariantResult | None:
        """The variant that the target gets; ``None`` when none passed."""
        return next((one for one in self.target.variants if one.name == self.target.chosen), None)

    def made(self) -> Made | None:
        """Return the chosen variant's model out of the bundle."""
        variant = self.chosen
        if variant is None:
            return None
        litert = variant.recipe.runtime is RuntimeName.LITERT
        return Made(
            model=(self.folder / variant.file).read_bytes(),
            runtime=variant.recipe.runtime,
            form=Form.TFLITE if litert else Form.ONNX,
            note=variant.recipe.title,
        )


def command_of(case: Case, output: Path, budget: str) -> list[str]:
    """Return the arguments of ``edgeopt optimize``, with every runtime that is installed here."""
    runtimes = [f"--runtime={name}" for name in available()]
    return ["optimize", *case.arguments(output), f"--budget={budget}", *runtimes]


def run_edgeopt(case: Case, output: Path, budget: str) -> Run:
    """Search within ``budget``."""
    return run_command(command_of(case, output, budget), output)


def run_command(arguments: Sequence[str], output: Path) -> Run:
    """Run ``edgeopt`` with ``arguments``; ``output`` is where its report will lie."""
    path = os.pathsep.join([*filter(None, [os.environ.get("PYTHONPATH")]), str(_ROOT)])
    done = subprocess.run(
        [sys.executable, "-m", "edgeopt.cli", *arguments],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    report = output / "report.json"
    found = from_json(report.read_bytes()) if report.exists() else None
    return Run(done.returncode, done.stdout + done.stderr, found, output)
