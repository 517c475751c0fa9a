"""The command line: exit codes, one clear message, help at once, nothing half-written."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

import click
import pytest

from edgeopt.cli import COMMANDS, group
from edgeopt.cli.parsing import parse_agreement, parse_drop, parse_seconds
from edgeopt_contract.commands import run_command
from edgeopt_contract.errors import ExitCode, UsageError

ZOO = Path(__file__).parent
Capture = pytest.CaptureFixture[str]


def _edgeopt(*arguments: str | Path) -> int:
    """Run the command line in this process and return its exit code."""
    return run_command(lambda: group([str(item) for item in arguments], prog_name="edgeopt", standalone_mode=False))


def _quantize(output: Path, model: str, data: str, *more: str) -> int:
    return _edgeopt("quantize", f"edgeopt_zoo:{model}", "--data", f"edgeopt_zoo:{data}", "-o", output, *more)


class TestHelp:
    """Help answers at once, because it imports nothing heavy."""

    @pytest.mark.parametrize("arguments", [["--help"], ["quantize", "--help"], ["verify", "--help"], ["--version"]])
    def test_help_imports_neither_torch_nor_onnxruntime(self, arguments: list[str]) -> None:
        """Seen from the modules that a fresh process has loaded; nor scipy, which the gate needs."""
        program = (
            "import sys; from edgeopt.cli import main\n"
            f"sys.argv = ['edgeopt', *{arguments!r}]\n"
            "try: main()\n"
            "except SystemExit as end: code = end.code\n"
            "heavy = {'torch', 'onnx', 'onnxruntime', 'scipy', 'httpx', 'rich', 'jinja2'} & set(sys.modules)\n"
            "sys.exit(f'loaded {heavy}' if heavy else code)\n"
        )
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
        assert (0, "") == (done.returncode, done.stderr)
        assert "edgeopt" in done.stdout

    def test_the_overview_lists_every_command_with_a_line(self, capsys: Capture) -> None:
        """The table is the overview."""
        assert ExitCode.GOOD == _edgeopt("--help")
        shown = capsys.readouterr().out
        for name, entry in COMMANDS.items():
            assert f"  {name} " in shown
            assert entry.summary in shown

    @pytest.mark.parametrize("name", ["quantize", "verify"])
    def test_every_command_has_an_example(self, name: str, capsys: Capture) -> None:
        """An example that begins with the command itself."""
        assert ExitCode.GOOD == _edgeopt(name, "--help")
        shown = capsys.readouterr().out
        assert f"Example:\n    edgeopt {name}" in shown

    @pytest.mark.parametrize("name", sorted(COMMANDS))
    def test_the_table_names_what_exists(self, name: str) -> None:
        """Each entry is a click command with the name it is listed under."""
        module, _, attribute = COMMANDS[name].location.partition(":")
        command = getattr(import_module(module), attribute)
        assert isinstance(command, click.Command)
        assert name == command.name

    def test_an_unknown_command_is_a_usage_error(self, capsys: Capture) -> None:
        """Exit 2 and the word that was not understood."""
        assert ExitCode.BAD_INPUT == _edgeopt("quantise")
        assert "No such command 'quantise'" in capsys.readouterr().err


class TestQuantize:
    """The command that does the work."""

    def test_a_pass_prints_the_verdict_and_verifies(
        self, tmp_path: Path, stopwatch: Callable[[float], None], capsys: Capture
    ) -> None:
        """Exit 0, a summary on stdout, a bundle whose every byte is right."""
        stopwatch(1.5)
        assert ExitCode.GOOD == _quantize(tmp_path / "out", "digits", "digits_data", "--max-drop", "2%")
        shown = capsys.readouterr().out
        assert shown.startswith("PASS: int8 is chosen")
        assert "report.html" in shown
        assert ExitCode.GOOD == _edgeopt("verify", tmp_path / "out")
        assert "edgeopt_zoo 1 is intact: 8 files, variants int8, fp32" in capsys.readouterr().out

    def test_json_is_the_report(self, tmp_path: Path, stopwatch: Callable[[float], None], capsys: Capture) -> None:
        """--json prints report.json, byte for byte, and nothing else."""
        stopwatch(0.5)
        options = ("--max-drop", "1%", "--json", "--name", "net", "--version", "7", "--labels", "a, b,c,d")
        assert ExitCode.GOOD == _quantize(tmp_path / "out", "tiny", "table", *options)
        shown = capsys.readouterr().out
        assert (tmp_path / "out" / "report.json").read_text() == shown
        report = json.loads(shown)
        assert ("net", "7", "fp32") == (report["name"], report["version"], report["targets"][0]["chosen"])
        manifest = json.loads((tmp_path / "out" / "manifest.json").read_bytes())
        assert ["a", "b", "c", "d"] == manifest["labels"]

    @pytest.mark.parametrize(
        ("data", "metric", "drop", "code"),
        [
            ("exact_table", "edgeopt_zoo:exactness", "1%", ExitCode.GATE_FAIL),
            ("table", "accuracy", "0.05%", ExitCode.GATE_INCONCLUSIVE),
        ],
    )
    def test_verdicts_are_exit_codes(
        self, data: str, metric: str, drop: str, code: ExitCode, tmp_path: Path, stopwatch: Callable[[float], None]
    ) -> None:
        """FAIL is 3, INCONCLUSIVE is 4."""
        stopwatch(2.0)
        assert code == _quantize(tmp_path / "out", "tiny", data, "--max-drop", drop, "--metric", metric)

    @pytest.mark.parametrize(
        ("model", "data", "more", "message"),
        [
            ("absent", "table", (), "error: edgeopt_zoo has no function 'absent'"),
            ("tiny", "unlabelled", (), "error: the metric 'accuracy' needs labels"),
            ("misfit", "table", (), "error: running the model on a sample of the data (input 16) failed"),
            ("tiny", "unplugged", (), "error: reading from edgeopt_zoo:unplugged() failed: OSError: camera unplugged"),
            ("tiny", "table", ("--metric", "f1"), "error: unknown metric 'f1'"),
            ("tiny", "table", ("--metric", "edgeopt_zoo:failing_metric"), "failed on a sample: KeyError: 'boxes'"),
            ("tiny", "table", ("--target", "no.toml"), "error: cannot read the target profile no.toml"),
            ("tiny", "table", ("--selection-data", "a:b"), "error: give either --data, or the three"),
            ("tiny", "table", ("--confidence", "0.2"), "error: Invalid value for '--confidence'"),
            ("tiny", "table", ("--confidence", "nan"), "error: Invalid value for '--confidence': 'nan' is no number."),
            ("tiny", "table", ("--labels", "a,b"), "error: --labels names 2 classes, the model has 4: name all"),
            ("tiny", "table", ("--max-drop", "lots"), "error: --max-drop 'lots': expected points of the metric"),
        ],
    )
    def test_bad_input_is_one_message_and_exit_2(
        self, model: str, data: str, more: tuple[str, ...], message: str, tmp_path: Path, capsys: Capture
    ) -> None:
        """No traceback, nothing written."""
        assert ExitCode.BAD_INPUT == _quantize(tmp_path / "out", model, data, "--max-drop", "1%", *more)
        shown = capsys.readouterr()
        assert message in shown.err
        assert "Traceback" not in shown.err
        assert "" == shown.out
        assert not (tmp_path / "out").exists()

    def test_missing_data_names_the_options(self, tmp_path: Path, capsys: Capture) -> None:
        """Neither --data nor the three splits."""
        assert ExitCode.BAD_INPUT == _edgeopt("quantize", "a:b", "--max-drop", "1%", "-o", tmp_path / "out")
        assert "error: data is missing: give --data" in capsys.readouterr().err

    def test_as_a_user_types_it(self, tmp_path: Path) -> None:
        """A fresh process in the directory of the user's module, with real timing; progress keeps off stdout."""
        command = [sys.executable, "-m", "edgeopt.cli", "quantize", "edgeopt_zoo:tiny", "--data", "edgeopt_zoo:table"]
        done = subprocess.run(
            [*command, "--max-drop", "10%", "--json", "-o", str(tmp_path / "out")],
            capture_output=True,
            text=True,
            check=False,
            cwd=ZOO,
            env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
        )
        assert (0, "") == (done.returncode, done.stderr)
        report = json.loads(done.stdout)
        assert report["baseline"]["latency_ms"] > 0
        speeds = [trial["speed"] for trial in report["targets"][0]["trials"] if not trial.get("problem")]
        assert speeds
        assert all(speed["ratio_low"] <= speed["ratio"] <= speed["ratio_high"] for speed in speeds)


@pytest.mark.parametrize(
    ("text", "share"), [("1%", 0.01), ("1pp", 0.01), ("0.01", 0.01), (" 0.5 % ", 0.005), (".02", 0.02), ("0", 0.0)]
)
def test_drops_are_points_however_they_are_written(text: str, share: float) -> None:
    """One per cent, one point and 0.01 are the same."""
    assert share == pytest.approx(parse_drop(text))


@pytest.mark.parametrize("text", ["", "one", "-1%", "1", "100%", "1e-3", "1%%", "nan"])
def test_other_drops_are_refused(text: str) -> None:
    """A bare 1 would allow everything, so it is asked back."""
    with pytest.raises(UsageError, match="--max-drop"):
        parse_drop(text)


def test_the_option_that_is_wrong_is_named() -> None:
    """Two options are read alike, so the message says which it was."""
    with pytest.raises(UsageError, match="--max-class-drop 'x'"):
        parse_drop("x", "--max-class-drop")


@pytest.mark.parametrize(("text", "share"), [("95%", 0.95), ("0.95", 0.95), (" 99.5 % ", 0.995), (".5", 0.5)])
def test_agreement_is_a_share_however_it_is_written(text: str, share: float) -> None:
    """95 % and 0.95 are the same."""
    assert share == pytest.approx(parse_agreement(text))


@pytest.mark.parametrize("text", ["", "most", "95", "100%", "1", "0", "0%", "-5%", "95pp", "nan"])
def test_other_agreements_are_refused(text: str) -> None:
    """All, nothing and bare per cents are asked back: no number of samples proves 100 %."""
    with pytest.raises(UsageError, match="--min-agreement"):
        parse_agreement(text)


@pytest.mark.parametrize(("text", "seconds"), [("90", 90), ("90s", 90), ("10m", 600), (" 1.5h ", 5400)])
def test_a_budget_is_a_time(text: str, seconds: float) -> None:
    """Seconds unless a unit is named."""
    assert seconds == parse_seconds(text)


@pytest.mark.parametrize("text", ["", "0", "-5m", "ten", "10d"])
def test_other_budgets_are_refused(text: str) -> None:
    """No time is no budget."""
    with pytest.raises(UsageError, match="--budget"):
        parse_seconds(text)


class TestSeveralCriteria:
    """--max-class-drop and --min-agreement."""

    def test_all_are_judged_and_told(self, tmp_path: Path, stopwatch: Callable[[float], None], capsys: Capture) -> None:
        """They stand in report.json and on the page, and the settings are on record."""
        stopwatch(1.5)
        given = ("--max-drop", "20%", "--max-class-drop", "60%", "--min-agreement", "60%", "--json")
        code = _quantize(tmp_path / "out", "digits", "digits_data", *given)
        report = json.loads(capsys.readouterr().out)
        (target,) = report["targets"]
        assert ["drop", "class_drop", "agreement"] == [one["name"] for one in target["criteria"]]
        assert list(range(10)) == [one["label"] for one in target["criteria"][1]["classes"]]
        assert target["variants"][0]["metric"]["n"] == sum(one["n"] for one in target["criteria"][1]["classes"])
        assert target["variants"][0]["agreement"] == pytest.approx(target["criteria"][2]["value"])
        settings = report["lineage"]["settings"]
        assert (0.6, 0.6) == (settings["max_class_drop"], settings["min_agreement"])
        assert (ExitCode.GOOD, "PASS") == (code, report["verdict"])

    def test_agreement_that_cannot_be_proved_leaves_it_open(
        self, tmp_path: Path, stopwatch: Callable[[float], None], capsys: Capture
    ) -> None:
        """One criterion that is open makes the whole so, although the drop holds by far."""
        stopwatch(1.5)
        given = ("--max-drop", "90%", "--min-agreement", "99.99%")
        code = _quantize(tmp_path / "out", "tiny", "table", *given)
        shown = capsys.readouterr().out
        assert code in (ExitCode.GATE_INCONCLUSIVE, ExitCode.GATE_FAIL)
        assert "agreement with the float model: " in shown
        assert "(asked for: 99.99 %)" in shown

    def test_labels_that_are_no_classes(self, tmp_path: Path, capsys: Capture) -> None:
        """Exit 2, and the message says what to do."""
        given = ("--metric", "agreement", "--max-drop", "5%", "--max-class-drop", "5%")
        assert ExitCode.BAD_INPUT == _quantize(tmp_path / "out", "tiny", "unlabelled", *given)
        assert "the worst class is judged by integer labels, got None" in capsys.readouterr().err


class TestVerify:
    """Every byte counts."""

    @pytest.fixture
    def bundle(self, tmp_path: Path, stopwatch: Callable[[float], None], capsys: Capture) -> Path:
        """A small bundle."""
        stopwatch(0.5)
        assert ExitCode.GOOD == _quantize(tmp_path / "out", "tiny", "table", "--max-drop", "1%")
        capsys.readouterr()
        return tmp_path / "out"

    def test_one_changed_byte_is_found(self, bundle: Path, capsys: Capture) -> None:
        """In any file: exit 2, and the message names it."""
        for name in ("fp32.onnx", "golden.npz", "profile.json", "evidence.json"):
            data = bytearray((bundle / name).read_bytes())
            data[len(data) // 2] ^= 1
            (bundle / name).write_bytes(data)
            assert ExitCode.BAD_INPUT == _edgeopt("verify", bundle)
            assert f"{name}: expected SHA-256" in capsys.readouterr().err
            data[len(data) // 2] ^= 1
            (bundle / name).write_bytes(data)
        assert ExitCode.GOOD == _edgeopt("verify", bundle)

    def test_what_is_no_bundle(self, tmp_path: Path, capsys: Capture) -> None:
        """A directory without a manifest, and one that does not exist."""
        assert ExitCode.BAD_INPUT == _edgeopt("verify", tmp_path)
        assert ExitCode.BAD_INPUT == _edgeopt("verify", tmp_path / "nowhere")
        assert 2 == capsys.readouterr().err.count("is not a bundle")
