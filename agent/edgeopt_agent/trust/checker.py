"""The agent's side of trust: fetch the metadata, ask the child, and wait for newer metadata when it is "not yet".

Neither ``tuf`` nor ``cryptography`` is imported here. Example::

    trust = Trust([MqttMetadata(link)], TrustOptions(directory=data / "trust", root=identity.root), Random())
    target = await trust.check(bundle, running=None, on_wait=report)     # raises SignatureError, StorageError
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import shutil
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random

from edgeopt_agent.log import log_event
from edgeopt_agent.mqtt.backoff import full_jitter
from edgeopt_agent.trust.floor import Reading
from edgeopt_agent.trust.question import WORK, Answer, Outcome, Question, decode_answer, encode_question
from edgeopt_agent.trust.sources import MetadataSource
from edgeopt_contract.errors import MessageError, SignatureError, StorageError, UnreachableError
from edgeopt_contract.manifest import Manifest
from edgeopt_contract.tuf import BundleTarget, TufMetadata

__all__ = ["Trust", "TrustOptions", "read_clocks"]

_REASONS = 8  # an attacker who thinks of ever new ones does not fill the spool


@dataclass(frozen=True, slots=True, kw_only=True)
class TrustOptions:
    """``root`` is the text of the enrolment's root metadata; ``patience_seconds`` bounds waiting for newer metadata."""

    directory: Path
    root: str
    child_seconds: float = 150.0
    patience_seconds: float = 3600.0
    retry_base_seconds: float = 0.5
    retry_cap_seconds: float = 60.0


class Trust:
    """See the module."""

    def __init__(
        self,
        sources: Sequence[MetadataSource],
        options: TrustOptions,
        random: Random,
        clocks: Callable[[], Reading] | None = None,
    ) -> None:
        self._sources = tuple(sources)
        self._options = options
        self._random = random
        self._clocks = clocks or read_clocks
        self._checked: BundleTarget | None = None

    def tidy(self) -> None:
        """Remove what a check could not remove; the next one may be far off. Only while nothing is checked."""
        shutil.rmtree(self._options.directory / WORK, ignore_errors=True)

    def manifest_limit(self, bundle: str) -> int:
        """Return how long the manifest of ``bundle`` may be: what was signed, if it was the last to be trusted."""
        checked = self._checked
        return checked.length if checked is not None and checked.digest == bundle else Manifest.MAX_BYTES

    async def check(
        self,
        bundle: str,
        running: str | None,
        on_wait: Callable[[str], Awaitable[None]] | None = None,
        *,
        beside: bool = False,
    ) -> BundleTarget:
        """Return what was signed about ``bundle`` if a device that runs ``running`` may install it, or ``beside`` it.

        While newer metadata could change the answer it waits, and tells ``on_wait`` every new reason once. Raises
        :class:`SignatureError` for a bundle that must not be installed, :class:`StorageError`.
        """
        options, told, attempt = self._options, set[str](), 0
        end = time.monotonic() + options.patience_seconds
        while True:
            answer = await self._ask(bundle, running, await self._obtain(attempt), beside=beside)
            if answer.target is not None:
                if not beside:
                    self._checked = answer.target
                return answer.target
            if answer.outcome is Outcome.REFUSED:
                raise SignatureError(answer.reason)
            if answer.outcome is Outcome.FAILED:
                raise StorageError(answer.reason)
            if answer.reason not in told and len(told) < _REASONS:
                told.add(answer.reason)
                log_event("not_yet_trusted", level=logging.WARNING, bundle=bundle[:12], reason=answer.reason)
                if on_wait is not None:
                    await on_wait(answer.reason)
            if time.monotonic() >= end:
                raise SignatureError(f"waited {options.patience_seconds:g} s for other metadata: {answer.reason}")
            await self._pause(attempt, end)
            attempt += 1

    async def _pause(self, attempt: int, end: float) -> None:
        options = self._options
        delay = full_jitter(
            attempt,
            base_seconds=options.retry_base_seconds,
            cap_seconds=options.retry_cap_seconds,
            random=self._random,
        )
        await asyncio.sleep(min(delay, max(0.0, end - time.monotonic())))

    async def _obtain(self, attempt: int) -> bytes:
        """Return what is published now, or nothing: then the child goes by what it verified before.

        The ways take turns: one that is withheld or forged does not stand between a device and the other.
        """
        for turn in range(len(self._sources)):
            try:
                return await self._sources[(attempt + turn) % len(self._sources)].obtain()
            except UnreachableError as error:
                log_event("metadata_unanswered", level=logging.WARNING, reason=error)
        return b""

    async def _ask(self, bundle: str, running: str | None, metadata: bytes, *, beside: bool) -> Answer:
        if len(metadata) > TufMetadata.MAX_BYTES:
            text = f"the fleet's metadata are refused: {len(metadata)} bytes, more than {TufMetadata.MAX_BYTES}"
            return Answer(outcome=Outcome.WAITING, reason=text)
        question = Question(
            bundle=bundle,
            running=running,
            root=self._options.root,
            directory=str(self._options.directory),
            reading=self._clocks(),
            metadata=metadata,
            beside=beside,
        )
        try:
            return decode_answer(await self._run_child(encode_question(question)))
        except (MessageError, TimeoutError, OSError) as error:
            text = f"the trust check gave no answer: {error or 'it took too long'}"
            return Answer(outcome=Outcome.WAITING, reason=text)

    async def _run_child(self, question: bytes) -> bytes:
        """Run the child to its end; it does not outlive this call. Raises ``TimeoutError``, ``OSError``."""
        child = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "edgeopt_agent.trust",
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
        )
        try:
            async with asyncio.timeout(self._options.child_seconds):
                output, _ = await child.communicate(question)
                return output
        finally:
            if child.returncode is None:
                with contextlib.suppress(ProcessLookupError):
                    child.kill()
                await child.wait()


def read_clocks() -> Reading:
    """Return what the clocks of this device say (``/proc/sys/kernel/random/boot_id`` names the boot)."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()
    except OSError:
        boot = ""  # every run counts as another boot: the floor stands still, which is safe
    return Reading(wall=time.time(), boot=boot, uptime=time.clock_gettime(time.CLOCK_BOOTTIME))
