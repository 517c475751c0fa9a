"""One block of a file: what a manifest lists and a message carries.

Cutting files into blocks is :mod:`edgeopt_contract.cutting`. Example::

    Block(digest_of(data), len(data))
"""

from __future__ import annotations

from dataclasses import dataclass

from edgeopt_contract.values import check_digest

__all__ = ["MAX_BLOCK_BYTES", "MIN_BLOCK_BYTES", "Block"]

MIN_BLOCK_BYTES = 16 * 1024
MAX_BLOCK_BYTES = 128 * 1024


@dataclass(frozen=True, slots=True)
class Block:
    """One block of a file: the SHA-256 of its bytes, and how many there are."""

    sha256: str
    size: int

    def __post_init__(self) -> None:
        check_digest(self.sha256)
        if not 0 < self.size <= MAX_BLOCK_BYTES:
            raise ValueError(f"expected a block of 1-{MAX_BLOCK_BYTES} bytes, got {self.size}")
