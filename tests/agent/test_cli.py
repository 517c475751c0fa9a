"""The command line: exit codes, one line for each error, help with an example."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from edgeopt_agent.reports.spool import Spool
from tests.agent.conftest import Signer, free_port, write_identity

TOKEN = f"eo1.{'s' * 43}.{'A' * 43}"


def agent(*arguments: str, environment: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """Run ``edgeopt-agent``."""
    command = [str(Path(sys.executable).parent / "edgeopt-agent"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=30, env=environment)


@pytest.mark.parametrize("command", [[], ["enroll"], ["renew"], ["run"], ["status"]])
def test_every_help_has_an_example(command: list[str]) -> None:
    """``--help`` shows how it is typed."""
    done = agent(*command, "--help")
    assert 0 == done.returncode
    assert " ".join(["Example:\n    edgeopt-agent", *command]) in done.stdout


def test_help_and_status_load_nothing_heavy() -> None:
    """Neither the runtime nor an MQTT client is imported to print a help page."""
    code = (
        "import sys, edgeopt_agent.cli;"
        "heavy = {'numpy', 'onnxruntime', 'aiomqtt', 'paho', 'cryptography', 'asyncio', 'sqlite3'} & set(sys.modules);"
        "sys.exit(f'imported {heavy}' if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (0, "") == (done.returncode, done.stderr)


@pytest.mark.parametrize(
    ("arguments", "code", "reason"),
    [
        (["run", "--data", "{tmp}/none"], 2, "edgeopt-agent enroll"),
        (["status", "--data", "{tmp}/none"], 2, "edgeopt-agent enroll"),
        (["run", "--data", "{device}", "--source", "no.such:thing"], 2, "cannot be imported"),
        (["run", "--data", "{device}", "--window", "0"], 2, "window"),
        (["run"], 2, "--data"),
        (["frobnicate"], 2, "frobnicate"),
        (["renew", "--data", "{tmp}"], 2, "edgeopt-agent enroll"),
        (["enroll", "--server", "http://h", "--token", "t", "--device", "d", "--data", "{tmp}/x"], 2, "token create"),
        (
            ["enroll", "--server", "http://127.0.0.1:{port}", "--token", TOKEN, "--device", "d", "--data", "{tmp}/x"],
            5,
            "no fleet",
        ),
        (["enroll", "--server", "http://h", "--token", TOKEN, "--device", "a/b", "--data", "{tmp}/x"], 2, "device id"),
        (
            ["enroll", "--server", "http://h", "--token", TOKEN, "--device", "d", "--tag", "x", "--data", "{tmp}/x"],
            2,
            "KEY=VALUE",
        ),
        (
            ["enroll", "--server", "http://h", "--token", TOKEN, "--device", "d", "--data", "{device}/device.json/x"],
            1,
            "cannot write",
        ),
    ],
)
def test_errors_are_one_line_and_an_exit_code(
    arguments: list[str], code: int, reason: str, tmp_path: Path, signer: Signer
) -> None:
    """No traceback, the documented code, and words that help."""
    write_identity(tmp_path / "device", signer, 1)
    names = {"tmp": str(tmp_path), "device": str(tmp_path / "device"), "port": str(free_port())}
    done = agent(*(argument.format(**names) for argument in arguments))
    assert code == done.returncode, done.stderr
    assert reason in done.stderr
    assert "Traceback" not in done.stderr


def test_secrets_do_not_appear(tmp_path: Path, signer: Signer) -> None:
    """Neither a token in an error nor a password in the status."""
    done = agent("enroll", "--server", f"http://127.0.0.1:{free_port()}", "--token", "very-secret-token",
                 "--device", "d", "--data", str(tmp_path / "x"))  # fmt: skip
    assert "very-secret-token" not in done.stdout + done.stderr
    write_identity(tmp_path / "device", signer, 1)
    assert "secret" not in agent("status", "--data", str(tmp_path / "device"), "--json").stdout


def test_status_before_and_after_the_first_run(tmp_path: Path, signer: Signer) -> None:
    """An enrolled device without a run has no spool yet; afterwards its totals are there."""
    data = tmp_path / "device"
    write_identity(data, signer, 1)
    empty = {
        "device": "cam-1",
        "agent": None,
        "running": None,
        "update": None,
        "spool": None,
        "certificate_until": None,
    }
    shown = json.loads(agent("status", "--data", str(data), "--json").stdout)
    assert empty == {name: shown[name] for name in empty}
    assert shown["gauges"]["disk_free_bytes"] > 0
    Spool.open(data / "agent.db", now_ms=5).close()
    totals = {"session": 5, "last_number": 0, "unacknowledged": 0, "acknowledged_at": 0, "rows": 0, "errors": 0}
    assert totals == json.loads(agent("status", "--data", str(data), "--json").stdout)["spool"]
    text = agent("status", "--data", str(data)).stdout
    assert "0 messages wait" in text
    assert "never heard of" in text


def test_status_can_be_watched(tmp_path: Path, signer: Signer) -> None:
    """With --watch it comes again and again until interrupted, and then ends quietly."""
    write_identity(tmp_path / "device", signer, 1)
    heard = ["env", "--default-signal=INT"]  # tests that were started in the background hand on that it is ignored
    command = [*heard, str(Path(sys.executable).parent / "edgeopt-agent"), "status", "--watch", "--json", "--data"]
    with subprocess.Popen(
        [*command, str(tmp_path / "device")], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as watch:
        assert watch.stdout is not None
        shown = [json.loads(watch.stdout.readline())["device"] for _ in range(2)]
        watch.send_signal(signal.SIGINT)
        _, errors = watch.communicate(timeout=20)
    assert ["cam-1", "cam-1"] == shown
    assert 130 == watch.returncode
    assert b"Traceback" not in errors
