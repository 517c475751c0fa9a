"""What a new version of a model costs a device that has the old one: the figures of docs/protocol.md.

Weights as a network has them after training: smooth in no way, so that nothing but equality can be shared.
"""

from __future__ import annotations

import numpy as np
import pytest

from edgeopt_contract.cutting import cut

_LAYERS = 20
_LAYER_WEIGHTS = 64 * 1024  # float32: 5 MB in all


def layers(seed: int) -> list[np.ndarray]:
    """Return the weights of a network of 5 MB."""
    generator = np.random.default_rng(seed)
    return [generator.normal(scale=0.05, size=_LAYER_WEIGHTS).astype(np.float32) for _ in range(_LAYERS)]


def quantized(weights: list[np.ndarray], headroom: float = 1.0) -> bytes:
    """Return int8 weights with one scale a layer, as an exporter writes them."""
    pieces = []
    for layer in weights:
        scale = np.float32(np.abs(layer).max() * headroom / 127)
        pieces.append(scale.tobytes() + np.round(layer / scale).astype(np.int8).tobytes())
    return b"".join(pieces)


def fetched_share(old: bytes, new: bytes) -> float:
    """Return the share of ``new`` that a device with ``old`` must fetch."""
    have = {block.sha256 for block in cut(old)}
    return sum(block.size for block in cut(new) if block.sha256 not in have) / len(new)


def test_a_fine_tuned_head_costs_little_more_than_itself(capsys: pytest.CaptureFixture[str]) -> None:
    """A tenth of the weights, at the end, is trained anew: at most 15 % are fetched, in float and in int8."""
    old = layers(1)
    new = old[: _LAYERS * 9 // 10] + layers(2)[_LAYERS * 9 // 10 :]
    shares = {
        "float32": fetched_share(b"".join(map(bytes, old)), b"".join(map(bytes, new))),
        "int8, same scales in front": fetched_share(quantized(old), quantized(new)),
    }
    with capsys.disabled():
        print(*(f"\n10 % changed at the end, {kind}: {share:.1%} fetched" for kind, share in shares.items()))
    assert all(0.10 <= share <= 0.15 for share in shares.values()), shares


def test_a_model_that_is_quantized_again_shares_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    """Other scales change nearly every byte, so nearly all is fetched; this is what it costs, not a promise."""
    weights = layers(1)
    share = fetched_share(quantized(weights), quantized(weights, headroom=1.01))
    with capsys.disabled():
        print(f"\nthe same weights with scales 1 % wider: {share:.1%} fetched")
    assert share > 0.9
