"""The agent's side of trust: ways that fail, answers that are "not yet", and a child that leaves nothing behind."""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
import sys
from pathlib import Path
from random import Random

import pytest

from edgeopt_agent.delivery.http_download import HttpAccess
from edgeopt_agent.trust.checker import Trust, TrustOptions, read_clocks
from edgeopt_agent.trust.question import MAX_QUESTION_BYTES, WORK, Answer, Outcome, decode_answer, encode_answer
from edgeopt_agent.trust.sources import HttpMetadata, MqttMetadata
from edgeopt_contract.errors import MessageError, SignatureError, StorageError, UnreachableError
from edgeopt_contract.manifest import Manifest
from edgeopt_contract.tuf import TufMetadata
from tests.metadata import MetadataFleet

BUNDLE, OTHER = "ab" * 32, "cd" * 32


class Way:
    """Gives what a test says, and counts."""

    def __init__(self, *answers: bytes | None) -> None:
        self.answers = list(answers)
        self.asked = 0

    async def obtain(self) -> bytes:
        """Return the next answer, the last one for ever; None is a way that does not lead there."""
        self.asked += 1
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if answer is None:
            raise UnreachableError("nobody there")
        return answer


@pytest.fixture(scope="module")
def fleet() -> MetadataFleet:
    """A fleet that has signed BUNDLE."""
    fleet = MetadataFleet()
    fleet.add(BUNDLE, 1234)
    return fleet


def trust(fleet: MetadataFleet, directory: Path, *ways: Way, patience: float = 60.0) -> Trust:
    """Return what is tested, impatient."""
    options = TrustOptions(
        directory=directory / "trust", root=fleet.root_text, patience_seconds=patience,
        retry_base_seconds=0.01, retry_cap_seconds=0.02,
    )  # fmt: skip
    return Trust(ways, options, Random(1))


async def test_signed_bundle_is_trusted(fleet: MetadataFleet, tmp_path: Path) -> None:
    """The answer is what was signed; without any network the same answer comes from the disk."""
    checker = trust(fleet, tmp_path, Way(fleet.message()))
    assert Manifest.MAX_BYTES == checker.manifest_limit(BUNDLE)
    target = await checker.check(BUNDLE, None)
    assert (1234, Manifest.MAX_BYTES) == (checker.manifest_limit(BUNDLE), checker.manifest_limit("0" * 64))
    assert (BUNDLE, 1234, "tiny", 1) == (target.digest, target.length, target.name, target.counter)
    assert target == await trust(fleet, tmp_path, Way(None)).check(BUNDLE, None)
    assert {"state.json", "lock"} == {path.name for path in (tmp_path / "trust").iterdir()}
    assert 0o600 == (tmp_path / "trust" / "state.json").stat().st_mode & 0o777


async def test_older_bundle_may_run_beside_but_not_instead(tmp_path: Path) -> None:
    """A challenger takes no place, so what runs need not permit going back to it; unsigned it runs nowhere."""
    fleet = MetadataFleet()
    fleet.add(BUNDLE, 1234)
    fleet.add(OTHER, 1234, rollback=[])
    checker = trust(fleet, tmp_path, Way(fleet.message()), patience=0.2)
    await checker.check(OTHER, None)
    with pytest.raises(SignatureError, match="downgrade"):
        await checker.check(BUNDLE, OTHER)
    assert BUNDLE == (await checker.check(BUNDLE, OTHER, beside=True)).digest
    assert Manifest.MAX_BYTES == checker.manifest_limit(BUNDLE), "a shadow changes nothing about an update"
    with pytest.raises(SignatureError, match="not among the signed targets"):
        await checker.check("ef" * 32, OTHER, beside=True)


async def test_what_one_way_withholds_comes_by_the_other(fleet: MetadataFleet, tmp_path: Path) -> None:
    """A broker that is silent, or plays a recording, does not keep a device from what the server has."""
    silent = Way(None)
    await trust(fleet, tmp_path, silent, Way(fleet.message())).check(BUNDLE, None)
    assert 1 == silent.asked
    frozen = MetadataFleet.copy(fleet)
    newer = MetadataFleet.copy(fleet)
    newer.add(OTHER)
    reasons: list[str] = []

    async def note(reason: str) -> None:
        reasons.append(reason)

    await trust(fleet, tmp_path, Way(frozen.message()), Way(newer.message())).check(OTHER, None, note)
    assert 1 == len(reasons)
    assert "is not among the signed targets" in reasons[0]


async def test_it_waits_and_says_why_once(fleet: MetadataFleet, tmp_path: Path) -> None:
    """Each reason is told once, however often it is met; patience ends."""
    reasons: list[str] = []

    async def note(reason: str) -> None:
        reasons.append(reason)

    with pytest.raises(SignatureError, match=r"waited 2 s for other metadata: .*not among the signed"):
        await trust(fleet, tmp_path, Way(fleet.message()), patience=2.0).check(OTHER, None, note)
    assert 1 == len(reasons)


async def test_oversize_message_never_reaches_the_child(fleet: MetadataFleet, tmp_path: Path) -> None:
    """It is refused by its length."""
    with pytest.raises(SignatureError, match=f"more than {TufMetadata.MAX_BYTES}"):
        await trust(fleet, tmp_path, Way(bytes(TufMetadata.MAX_BYTES + 1)), patience=0.0).check(BUNDLE, None)
    assert not (tmp_path / "trust").exists()


async def test_disk_that_cannot_be_written_is_no_trust(fleet: MetadataFleet, tmp_path: Path) -> None:
    """What is not remembered is not accepted."""
    (tmp_path / "trust").write_bytes(b"a file where the directory should be")
    with pytest.raises(StorageError):
        await trust(fleet, tmp_path, Way(fleet.message())).check(BUNDLE, None)


async def test_cancelled_check_leaves_no_child(fleet: MetadataFleet, tmp_path: Path) -> None:
    """A newer offer ends the check of the older one, child included."""
    started = asyncio.Event()

    class Slow(Way):
        async def obtain(self) -> bytes:
            started.set()
            return await super().obtain()

    task = asyncio.create_task(trust(fleet, tmp_path, Slow(fleet.message())).check(OTHER, None))
    await started.wait()
    await asyncio.sleep(0)  # let it begin
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not any(b"edgeopt_agent.trust" in command for command in commands_of_children())


def commands_of_children() -> list[bytes]:
    """What the children of this process run."""
    children = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
    return [Path(f"/proc/{child}/cmdline").read_bytes() for child in children]


async def test_ways_that_lead_nowhere(tmp_path: Path) -> None:
    """No broker and no server are unreachable, not an error of another kind."""

    class NoLink:
        async def wait_until_connected(self) -> None:
            await asyncio.Event().wait()

        async def fetch(self, topic: str, patience_seconds: float) -> None:
            raise AssertionError

    with pytest.raises(UnreachableError, match="no connection"):
        await MqttMetadata(NoLink(), 0.01).obtain()  # type: ignore[arg-type]
    with pytest.raises(UnreachableError):
        await HttpMetadata(lambda: HttpAccess(server="http://127.0.0.1:1", bearer="x", ca="")).obtain()


async def test_slow_drip_over_http_is_given_up() -> None:
    """A byte now and then keeps no device waiting for ever."""
    hung_up = asyncio.Event()

    async def drip(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
        with contextlib.suppress(ConnectionError):
            while True:
                writer.write(b"{")
                await writer.drain()
                await asyncio.sleep(0.05)
        writer.close()
        hung_up.set()

    server = await asyncio.start_server(drip, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    access = HttpAccess(server=f"http://127.0.0.1:{port}", bearer="x", ca="")
    with pytest.raises(UnreachableError, match=r"within 0\.5 s"):
        await HttpMetadata(lambda: access, 0.5).obtain()
    await hung_up.wait()
    server.close()


def test_child_that_answers_nothing_is_no_trust() -> None:
    """What a killed child leaves on its pipe is not an answer; nor is trust without a target."""
    for nothing in (b"", b"\xc1", b"trusted", bytes(100_000)):
        with pytest.raises(MessageError):
            decode_answer(nothing)
    with pytest.raises(MessageError, match="only with it"):
        decode_answer(encode_answer(Answer(outcome=Outcome.TRUSTED)))


def test_child_refuses_an_endless_question() -> None:
    """It reads so much and no more, and says nothing."""
    done = subprocess.run(
        [sys.executable, "-m", "edgeopt_agent.trust"],
        input=bytes(MAX_QUESTION_BYTES + 10),
        capture_output=True,
        check=False,
    )
    assert (True, b"") == (done.returncode != 0, done.stdout)


def test_agent_imports_neither_tuf_nor_cryptography() -> None:
    """They live in the child alone."""
    code = "import sys, edgeopt_agent.app; print({m.split('.')[0] for m in sys.modules} & {'tuf', 'cryptography'})"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert "set()" == done.stdout.strip()


def test_clocks_are_read() -> None:
    """The boot's name stays, the time since boot grows."""
    first, second = read_clocks(), read_clocks()
    assert first.boot == second.boot
    assert 0 < first.uptime <= second.uptime


async def test_check_leaves_no_scratch_and_tidying_removes_what_was_left(fleet: MetadataFleet, tmp_path: Path) -> None:
    """A check unpacks beside what it keeps; what a killed one left is removed at the start, and nothing else is."""
    checking = trust(fleet, tmp_path, Way(fleet.message()))
    directory = tmp_path / "trust"
    checking.tidy()  # there is nothing yet
    await checking.check(BUNDLE, None)
    kept = sorted(path.name for path in directory.iterdir())
    assert WORK not in kept
    (directory / WORK / "metadata").mkdir(parents=True)
    (directory / WORK / "metadata" / "timestamp.json").write_text("half")
    checking.tidy()
    assert kept == sorted(path.name for path in directory.iterdir())


async def test_scratch_of_a_killed_check_does_not_matter(fleet: MetadataFleet, tmp_path: Path) -> None:
    """The next check begins with what was verified, whatever lies where it unpacks."""
    (tmp_path / "trust" / WORK).mkdir(parents=True)
    (tmp_path / "trust" / WORK / "snapshot.json").write_text("of another time")
    assert BUNDLE == (await trust(fleet, tmp_path, Way(fleet.message())).check(BUNDLE, None)).digest
    assert not (tmp_path / "trust" / WORK).exists()
