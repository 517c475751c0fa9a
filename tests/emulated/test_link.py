from __future__ import annotations

import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path

import pytest

from devices.emulator.arm_root import CHECKOUT
from devices.emulator.conditions import PRESETS, Conditions
from devices.emulator.link import Link, link, network
from devices.emulator.namespaces import missing
from edgeopt_contract.errors import UsageError

pytestmark = pytest.mark.skipif(missing() is not None, reason=missing() or "")

_ECHO = "import socket,sys;s=socket.create_server(('0.0.0.0',7));print('up',flush=True)\nwhile 1:\n c=s.accept()[0]\n while d:=c.recv(65536): c.sendall(d)"  # noqa: E501
_CALL = (
    "import socket,sys,time\n"
    "address, count, size = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])\n"
    "start = time.monotonic()\n"
    "s = socket.create_connection((address, 7), timeout=30)\n"
    "s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)\n"
    "for n in range(count):\n"
    "    s.sendall(b'x' * size); left = size\n"
    "    while left: left -= len(s.recv(left))\n"
    "print(time.monotonic() - start)\n"
)


def _here() -> Path:
    """Return which network namespace this thread is in."""
    return Path("/proc/thread-self/ns/net").readlink()


def _runs(pid: int) -> bool:
    """Return whether a process runs; one that has ended and that nobody asked for does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def _wait_for_a_sleep(pids: list[int]) -> None:
    """Wait until processes have become 'sleep', and so are where they belong."""
    deadline = time.monotonic() + 10
    while not all(Path(f"/proc/{pid}/comm").read_text() == "sleep\n" for pid in pids):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def _called(line: Link, count: int = 1, size: int = 1) -> float:
    """Send ``size`` bytes there and back ``count`` times from the far end; return the seconds with connecting."""
    command = line.far.command(sys.executable, "-c", _CALL, line.near.address, str(count), str(size))
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


@pytest.fixture
def echo() -> Iterator[Callable[[Link], None]]:
    """Start servers at near ends that send back what they get; ended with the test."""
    started: list[subprocess.Popen[str]] = []

    def start(line: Link) -> None:
        command = line.near.command(sys.executable, "-c", _ECHO)
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        started.append(process)
        assert process.stdout is not None
        assert "up\n" == process.stdout.readline()

    yield start
    for process in started:
        process.kill()
        process.communicate()


def test_delay_is_felt_by_the_kernels_tcp(echo: Callable[[Link], None]) -> None:
    """With 50 ms each way a connection and two round trips take three times 100 ms or more."""
    with link(delay_ms=50) as line:
        echo(line)
        assert _called(line, count=2) >= 0.3


def test_rate_is_kept(echo: Callable[[Link], None]) -> None:
    """30 000 bytes at 384 kbit/s take 0.625 s or more, however TCP cuts them."""
    with link(rate_bits=384_000) as line:
        echo(line)
        assert _called(line, size=30_000) >= 0.625


def test_loss_is_repaired_by_tcp_and_counted(echo: Callable[[Link], None]) -> None:
    """Bytes arrive whole over a link that loses a fifth, and both directions say what they lost."""
    with link(loss=0.2, seed=5) as line:
        echo(line)
        _called(line, count=20, size=2000)
        up, down = line.count()
        assert 0 < up.lost < up.packets
        assert 0 < down.lost < down.packets
        assert up.bytes > 40_000


def test_conditions_change_while_it_runs(echo: Callable[[Link], None]) -> None:
    """A change holds from the moment that the call returns, and keeps what it does not name."""
    with link(delay_ms=100, rate_bits=1e6) as line:
        echo(line)
        assert Conditions(delay_ms=0, rate_bits=1e6) == line.change(delay_ms=0)
        line.change(delay_ms=150)
        assert _called(line) >= 0.6


def test_an_outage_ends_by_itself(echo: Callable[[Link], None]) -> None:
    """Nothing passes during the outage; what TCP sends again afterwards does."""
    with link() as line:
        echo(line)
        line.outage(0.7)
        start = time.monotonic()
        _called(line)
        assert time.monotonic() - start >= 0.7
        assert line.count()[0].lost > 0


def test_a_thread_enters_the_near_end_and_comes_back() -> None:
    """Inside, sockets belong to the near end, whose loopback is its own; afterwards all is as before."""
    outside = _here()
    with link() as line:
        try:
            with line.near.entered():
                assert outside != _here()
                socket.create_server((line.near.address, 0)).close()
                socket.create_server(("127.0.0.1", 0)).close()
        except UsageError as refused:
            pytest.skip(str(refused))
        assert outside == _here()


def test_devices_reach_the_near_end_only(echo: Callable[[Link], None]) -> None:
    """Each device has its own conditions, and none reaches another."""
    with network() as net:
        one, two = net.attach("one", PRESETS["3G"]), net.attach("two", Conditions())
        echo(two)
        _called(two)
        ask = f"import socket;socket.create_connection(({one.far.address!r}, 7), timeout=0.5)"
        refused = subprocess.run(
            two.far.command(sys.executable, "-c", ask), capture_output=True, text=True, check=False
        )
        assert "TimeoutError" in refused.stderr
        assert 0 == one.count()[1].packets


def test_wrong_requests_are_answered_and_harm_nothing() -> None:
    """A condition that cannot be and a name that is taken are the caller's mistakes; the link goes on."""
    with network() as net:
        line = net.attach("one", Conditions())
        with pytest.raises(UsageError, match="loss"):
            line.change(loss=7)
        with pytest.raises(UsageError, match="attach"):
            net.attach("one", Conditions())
        assert 0 == line.count()[0].lost


def test_nothing_is_left_when_the_program_is_killed() -> None:
    """After SIGKILL of the program that made a link, what it started at both ends dies, and the link's process ends."""
    program = (
        "import subprocess, time\nfrom devices.emulator.link import link\n"
        "with link() as line:\n"
        " ends = [subprocess.Popen(end.command('sleep', '600')) for end in (line.near, line.far)]\n"
        " print(line.near.pid, *(process.pid for process in ends), flush=True)\n time.sleep(600)\n"
    )
    with subprocess.Popen([sys.executable, "-c", program], cwd=CHECKOUT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        pids = [int(word) for word in process.stdout.readline().split()]
        assert [True, True, True] == [_runs(pid) for pid in pids]
        _wait_for_a_sleep(pids[1:])
        process.send_signal(signal.SIGKILL)
        deadline = time.monotonic() + 10
        while any(map(_runs, pids)) and time.monotonic() < deadline:
            time.sleep(0.01)
    assert [False, False, False] == [_runs(pid) for pid in pids]


def test_what_runs_at_an_end_survives_an_orderly_end() -> None:
    """The end of the block ends the link and nobody's processes: who started them stops them."""
    with link() as line:
        process = subprocess.Popen(line.far.command("sleep", "600"))
        _wait_for_a_sleep([process.pid])
    assert _runs(line.near.pid) is False
    assert None is process.poll()
    process.kill()
    process.wait()


def test_presets_are_ready_to_use() -> None:
    """Every named link can be had as keywords."""
    with link(**asdict(PRESETS["3G"])) as line:
        assert PRESETS["3G"] == line.change()
