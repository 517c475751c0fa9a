"""What is read of a graph's convolutions."""

from __future__ import annotations

from edgeopt.layers import convolutions
from tests.optimizer.graphs import convolution_chain, old_convolution


def test_convolutions_in_order_with_their_kind() -> None:
    """Every second convolution of the chain is depthwise; before each stands all that comes earlier."""
    found = convolutions(convolution_chain(4))
    assert ["w0", "w1", "w2", "w3"] == [layer.weight for layer in found]
    assert [False, True, False, True] == [layer.depthwise for layer in found]
    assert [0, 2, 4, 6] == [len(layer.before) for layer in found]


def test_weights_that_are_computed_are_no_constant_convolution() -> None:
    """A weight in a Constant node is folded before; until then it is not one of the file's constants."""
    assert () == convolutions(old_convolution())
