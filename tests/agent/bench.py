"""Serving over two filled slots, without an agent around it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from edgeopt_agent.inference.health import HealthLimits
from edgeopt_agent.inference.served import ServedOptions
from edgeopt_agent.inference.serving import Serving, ServingOptions
from edgeopt_agent.inference.supervisor import RunnerOptions
from edgeopt_agent.reports.books import Books
from edgeopt_agent.reports.clerk import Clerk
from edgeopt_agent.reports.spool import Spool
from edgeopt_agent.runner.arrays import array_of, tensor_of
from edgeopt_agent.runner.frames import Tensor
from edgeopt_agent.update.slots import Installed, Slots
from edgeopt_contract.blocks import Block
from edgeopt_contract.codec import decode
from edgeopt_contract.manifest import Capabilities
from edgeopt_contract.messages import Telemetry
from tests.agent.conftest import blocks_of
from tests.tiny import Recipe, samples, tiny_bundle

ROW = samples(1, 1)[0]


def tensors(value: np.ndarray, name: str = "x") -> list[Tensor]:
    """A request with one input."""
    return [tensor_of(name, value)]


def array(outputs: Sequence[Tensor]) -> np.ndarray:
    """The only output of a reply."""
    (tensor,) = outputs
    return array_of(tensor)


class Bench:
    """See the module."""

    def __init__(
        self,
        root: Path,
        capabilities: Capabilities,
        runner: RunnerOptions,
        *,
        limits: HealthLimits | None = None,
        one_runner: bool = False,
    ) -> None:
        self.slots = Slots(root / "slots", capabilities)
        self.slots.prepare()
        self.root = root
        self.spool = Spool.open(root / "agent.db", now_ms=1)
        self.faults: list[str] = []
        self.seen: list[Telemetry] = []
        self.now = 1000.0
        self.clerk = Clerk(lambda: Spool.open(root / "agent.db", now_ms=1))
        self.books = self.clerk.do_now(Books, self.clerk.spool, root, lambda: self.now)
        served = ServedOptions(runner=runner, limits=limits or HealthLimits(crashes=2), queue_limit=1000)
        self.serving = Serving(
            ServingOptions(served=served, one_runner=one_runner), self.clerk, self.books, self.faults.append
        )

    def install(self, slot: str, recipe: Recipe) -> Installed:
        """Fill a slot."""
        bundle = tiny_bundle(self.root / f"bundle-{slot}-{recipe.version}", recipe)
        blocks = blocks_of(bundle)

        def read(block: Block) -> bytes:
            return blocks[block.sha256]

        return self.slots.fill(slot, blocks[bundle.digest], read)

    def windows(self) -> list[Telemetry]:
        """What was spooled, when everything is that was given to the clerk."""
        self.clerk.do_now(lambda: None)
        return [decode(Telemetry, message.payload) for message in self.spool.unacknowledged(100)]

    async def vanish(self) -> None:
        """End as a killed agent ends: nothing is told, and the runner ends with it."""
        assert self.serving.current is not None
        await self.serving.current.stop()
        await self.clerk.do(self.books.close)
        await self.clerk.close()
        self.spool.close()

    async def stop(self) -> None:
        """End everything; ``seen`` is what was spooled."""
        await self.serving.stop()
        self.seen = self.windows()
        await self.clerk.close()
        self.spool.close()
