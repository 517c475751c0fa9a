"""The operator's commands against the real fleet server, so that client and server mean the same by every word."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import httpx
import pytest

from edgeopt.cli import group
from edgeopt_contract.bundle import Bundle, BundleContents, write_bundle
from edgeopt_contract.codec import encode
from edgeopt_contract.commands import run_command
from edgeopt_contract.manifest import Capabilities
from tests.contract.conftest import contents, pi  # noqa: F401  # the fixtures
from tests.identity import DeviceKey, enrol_request

pytestmark = pytest.mark.scenario

Run = Callable[..., tuple[int, str, str]]
FLEET = Path(sys.executable).parent / "edgeopt-fleet"
EDGEOPT = Path(sys.executable).parent / "edgeopt"
_START_SECONDS = 60


@pytest.fixture(scope="module")
def access(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Serve a new fleet; give the path of its operator.json."""
    home = founded(tmp_path_factory.mktemp("served"))
    with serving(home):
        yield home / "operator.json"


def founded(place: Path) -> Path:
    """Found a fleet and return its directory."""
    subprocess.run([FLEET, "init", place / "fleet", "--tick-seconds", "0.05"], check=True, capture_output=True)
    return place / "fleet"


@contextlib.contextmanager
def serving(home: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Serve a fleet."""
    url = json.loads((home / "operator.json").read_text())["url"]
    with (home.parent / "log").open("ab") as log, subprocess.Popen([FLEET, "serve", home], stderr=log) as server:
        try:
            _wait_until_connected(url, server)
            yield server
        finally:
            server.terminate()


def _wait_until_connected(url: str, server: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while True:
        assert server.poll() is None, "the server ended"
        assert time.monotonic() < deadline, "the server did not connect to its broker in time"
        try:
            if httpx.get(f"{url}/healthz", trust_env=False).json()["broker"] == "connected":
                return
        except httpx.TransportError:
            pass  # not listening yet
        time.sleep(0.05)


@pytest.fixture
def run(access: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Run:
    """Run an edgeopt command against the served fleet."""
    monkeypatch.setenv("EDGEOPT_FLEET", os.fspath(access))

    def invoke(*arguments: str) -> tuple[int, str, str]:
        capfd.readouterr()
        code = run_command(lambda: group.main([*arguments], "edgeopt", standalone_mode=False))
        out, err = capfd.readouterr()
        return code, out, err

    return invoke


@pytest.fixture
def bundle(tmp_path: Path, contents: BundleContents) -> Bundle:  # noqa: F811  # the fixture
    """A bundle on disk."""
    return write_bundle(tmp_path / "bundle", contents)


def enrol(access: Path, token: str, device: str, capabilities: Capabilities) -> httpx.Response:
    """Enrol as a device does."""
    request = enrol_request(token, device, DeviceKey(), capabilities, line="2")
    url = json.loads(access.read_text())["url"]
    return httpx.post(f"{url}/api/v1/devices/enrol", content=encode(request), timeout=_START_SECONDS, trust_env=False)


def test_no_alerts_on_a_quiet_fleet(run: Run) -> None:
    """The alert list is there from the start; so this is asked before a token is used up below."""
    assert (0, "no open alerts\n", "") == run("alerts")


def test_from_token_to_cohort(run: Run, access: Path, pi: Capabilities) -> None:  # noqa: F811  # the fixture
    """A device that enrols with a printed token is listed, shown and counted into its cohort, with all its tags."""
    code, out, _ = run("token", "create", "--uses", "2", "--tag", "site=oslo")
    assert 0 == code
    for device in ("cam-1", "cam-2"):
        assert 201 == enrol(access, out.strip(), device, pi).status_code
    assert 403 == enrol(access, out.strip(), "cam-3", pi).status_code
    assert ["token_reuse"] == [alert["kind"] for alert in json.loads(run("alerts", "--json")[1])]
    assert (0, "") == run("cohorts", "create", "line-2", "--tag", "site=oslo", "--tag", "line=2")[::2]
    assert "line-2" in run("cohorts", "list")[1]
    found = json.loads(run("devices", "--tag", "site=oslo", "--tag", "line=2", "--json")[1])
    assert ["cam-1", "cam-2"] == [device["id"] for device in found]
    code, out, _ = run("devices", "show", "cam-1")
    assert 0 == code
    assert "aarch64 dotprod fp16 neon" in out
    assert "line=2 site=oslo" in out
    assert run("devices")[1].endswith("2 devices\n")


def test_publish_then_roll_out_then_cancel(run: Run, bundle: Bundle, access: Path, pi: Capabilities) -> None:  # noqa: F811  # the fixture
    """The digest that publish prints is what a rollout takes; every order answers with the rollout."""
    token = run("token", "create")[1].strip()
    enrol(access, token, "cam-9", pi)
    code, out, _ = run("publish", str(bundle.directory))
    assert (0, f"{bundle.digest}\n") == (code, out)
    assert (0, f"{bundle.digest}\n") == run("publish", str(bundle.directory))[:2]
    assert ["digits", "1", "yes"] == run("bundles")[1].splitlines()[1].split()[1:4]

    create = (
        "rollout",
        "create",
        "v1",
        "--bundle",
        bundle.digest[:8],
        "--waves",
        "50%,100%",
        "--bake",
        "0s",
        "--draft",
    )
    code, out, _ = run(*create, "--step-timeout", "1h", "--minimum-executed", "1", "--json")
    assert 0 == code
    view = json.loads(out)
    assert ("draft", bundle.digest, "all") == (view["state"], view["bundle"], view["cohort"])
    assert (0.0, 3600.0) == (view["policy"]["bake_seconds"], view["policy"]["step_timeout_seconds"])

    for order, state in (("start", "running"), ("pause", "paused"), ("resume", "running"), ("cancel", "cancelled")):
        code, out, _ = run("rollout", order, "v1")
        assert 0 == code
        assert state in out
    code, _, err = run("rollout", "resume", "v1")
    assert 2 == code
    assert "the fleet refuses: rollout v1 is cancelled" in err
    assert "v1" == run("rollout")[1].splitlines()[1].split()[0]
    code, out, _ = run("rollout", "watch", "v1")
    assert 3 == code
    assert "rollout v1 cancelled" == out.splitlines()[-1]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("devices", "show", "nobody"), "nobody"),
        (("cohorts", "show", "nowhere"), "nowhere"),
        (("rollout", "show", "never"), "never"),
        (("rollout", "create", "x", "--bundle", "ffff"), "ffff"),
        (("cohorts", "create", "not a name"), "name"),
    ],
)
def test_refusals_are_exit_code_2_in_one_line(run: Run, arguments: tuple[str, ...], words: str) -> None:
    """What the fleet refuses is said with the name that was given."""
    code, out, err = run(*arguments)
    assert (2, "", 1) == (code, out, len(err.splitlines()))
    assert err.startswith("error: the fleet refuses: ")
    assert words in err


def test_a_wrong_key_is_refused(run: Run, access: Path, tmp_path: Path) -> None:
    """Another fleet's operator.json does not open this one."""
    other = tmp_path / "operator.json"
    other.write_text(json.dumps({**json.loads(access.read_text()), "key": "guess"}))
    code, _, err = run("devices", "list", "--fleet", str(other))
    assert 2 == code
    assert "operator.json" in err


def test_two_arms_from_their_making_to_their_conclusion(
    run: Run,
    access: Path,
    tmp_path: Path,
    contents: BundleContents,  # noqa: F811  # the fixture
    pi: Capabilities,  # noqa: F811  # the fixture
) -> None:
    """Created, shown with who is in which arm, not compared before their time, and concluded after the end."""
    token = run("token", "create", "--uses", "4", "--tag", "site=bergen")[1].strip()
    for number in range(4):
        assert 201 == enrol(access, token, f"door-{number}", pi).status_code
    run("cohorts", "create", "doors", "--tag", "site=bergen")
    bundles = [write_bundle(tmp_path / version, replace(contents, version=version)) for version in ("7", "8")]
    for one in bundles:
        assert 0 == run("publish", str(one.directory))[0]
    arms = [part for one in bundles for part in ("--arm", f"{one.digest[:10]}=50")]
    create = ("rollout", "create", "ab", *arms, "--observe", "1h", "--cohort", "doors", "--waves", "100%")
    code, out, err = run(*create, "--dry-run")
    assert (0, "") == (code, err)
    assert "arm A: digits 7, 2 devices" in out
    code, out, err = run(*create, "--draft", "--json")
    assert (0, "") == (code, err)
    view = json.loads(out)
    assert [(one.digest, 2) for one in bundles] == [(arm["bundle"], arm["members"]) for arm in view["arms"]]
    assert 3600.0 == view["observation"]["seconds"]
    code, out, _ = run("rollout", "show", "ab")
    assert 0 == code
    assert ["A", "A", "B", "B"] == sorted(line.split()[2] for line in out.splitlines() if line.startswith("door-"))
    code, out, _ = run("rollout", "compare", "ab")
    assert (4, True) == (code, "observed for 0.0 of 1.0 h" in out)
    assert 2 == run("rollout", "conclude", "ab", "--keep", "B")[0]
    assert 0 == run("rollout", "cancel", "ab")[0]
    code, out, err = run("rollout", "conclude", "ab", "--keep", "B", "--waves", "100%", "--draft")
    assert (0, "") == (code, err)
    assert "ab: kept B" in out
    rest = json.loads(run("rollout", "show", "ab-rest", "--json")[1])
    assert ("draft", bundles[1].digest, 4) == (rest["state"], rest["bundle"], len(rest["members"]))
    code, out, _ = run("rollout", "explain", "ab")
    assert 0 == code
    code, out, _ = run("rollout", "replay", "ab")
    assert (0, True) == (code, out.startswith("0 looks judged again"))


class Watcher:
    """An ``edgeopt … watch`` in a process of its own, whose lines are waited for."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    @classmethod
    @contextlib.contextmanager
    def started(cls, access: Path, *words: str) -> Iterator[Watcher]:
        """Begin to watch; whatever happens, it ends."""
        command, pipe = [str(EDGEOPT), *words, "--fleet", str(access), "--json"], subprocess.PIPE
        with subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True) as process:
            try:
                yield cls(process)
            finally:
                process.kill()

    def states_until(self, state: str) -> list[str]:
        """Return the states that are told, up to ``state``."""
        assert self._process.stdout is not None
        found: list[str] = []
        while not found or found[-1] != state:
            line = self._process.stdout.readline()
            assert line, f"it ended after {found}"
            found.append(json.loads(line)["state"])
        return found

    def end(self) -> tuple[int, str]:
        """Return exit code and what it said on the error stream, once it has ended."""
        _, err = self._process.communicate(timeout=_START_SECONDS)
        return self._process.returncode, err


def test_watching_goes_on_over_a_killed_fleet(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    bundle: Bundle,
    pi: Capabilities,  # noqa: F811  # the fixture
) -> None:
    """Each order is told as an event; after kill -9 the stream goes on where it was, and that is said."""
    home = founded(tmp_path)
    access = home / "operator.json"
    monkeypatch.setenv("EDGEOPT_FLEET", os.fspath(access))

    def order(*words: str) -> str:
        return subprocess.run([EDGEOPT, *words], check=True, capture_output=True, text=True).stdout.strip()

    with contextlib.ExitStack() as watching:
        with serving(home) as server:
            assert 201 == enrol(access, order("token", "create"), "cam-1", pi).status_code
            digest = order("publish", str(bundle.directory))
            order("rollout", "create", "v1", "--bundle", digest[:8], "--draft")
            watcher = watching.enter_context(Watcher.started(access, "rollout", "watch", "v1"))
            assert ["draft"] == watcher.states_until("draft")
            order("rollout", "start", "v1")
            watcher.states_until("running")
            order("rollout", "pause", "v1")
            watcher.states_until("paused")
            server.kill()
        with serving(home):
            order("rollout", "resume", "v1")
            watcher.states_until("running")
            order("rollout", "cancel", "v1")
            watcher.states_until("cancelled")
            code, err = watcher.end()
    assert 3 == code
    assert "the fleet's events broke off" in err
    assert "trying to go on where they did" in err


def test_a_watched_shadow_is_told_of_by_events(run: Run, access: Path, bundle: Bundle, pi: Capabilities) -> None:  # noqa: F811  # the fixture
    """From draft to end, with the exit code for what ended without enough."""
    enrol(access, run("token", "create")[1].strip(), "cam-20", pi)
    digest = run("publish", str(bundle.directory))[1].strip()
    assert 0 == run("shadow", "create", "next", "--bundle", digest[:8], "--for", "1h", "--draft")[0]
    with Watcher.started(access, "shadow", "watch", "next") as watcher:
        assert ["draft"] == watcher.states_until("draft")
        assert 0 == run("shadow", "start", "next")[0]
        watcher.states_until("running")
        assert 0 == run("shadow", "end", "next")[0]
        watcher.states_until("ended")
        assert (4, "") == watcher.end()
