"""The examples on sequences: what they promise, and what their data looks like."""

from __future__ import annotations

from types import ModuleType

import numpy as np
import pytest
import torch

from examples import gru, lstm, transformer
from examples.fashion_mnist import FOLDER
from examples.letter import rows
from examples.training import accuracy


@pytest.mark.parametrize("example", [lstm, gru])
def test_recurrent_weights_reach_what_the_examples_promise(example: ModuleType) -> None:
    """At least 86 % of the first 2,000 test pictures, with 100 to 150 thousand parameters."""
    if not FOLDER.exists():
        pytest.skip("needs the Debian package dataset-fashion-mnist")
    inputs, labels = example.sequences("t10k")
    assert ((10_000, 14, 56), np.float32) == (inputs.shape, inputs.dtype)
    network = example.model()
    assert accuracy(network, torch.from_numpy(inputs[:2000]), torch.from_numpy(labels[:2000])) >= 0.86
    assert 100_000 <= sum(weights.numel() for weights in network.parameters()) <= 150_000


def test_transformer_weights_reach_what_the_example_promises() -> None:
    """At least 95 % of the test rows, with 360 thousand parameters."""
    inputs, labels = transformer.tokens("test")
    network = transformer.model()
    assert accuracy(network, torch.from_numpy(inputs), torch.from_numpy(labels)) >= 0.95
    assert 350_000 <= sum(weights.numel() for weights in network.parameters()) <= 370_000


def test_tokens_are_the_rows_of_the_table() -> None:
    """Whole numbers from 0 to 15, in the order of the letter example."""
    inputs, labels = transformer.tokens("test")
    assert (np.int64, 0, 15) == (inputs.dtype, inputs.min(), inputs.max())
    expected, letters = rows("test")
    np.testing.assert_allclose(expected, (inputs - 7.5) / 7.5, rtol=1e-6)
    np.testing.assert_array_equal(letters, labels)


def test_padding_changes_no_answer() -> None:
    """A row that is padded to a common length, and masked, is answered as without."""
    network = transformer.model()
    inputs = torch.from_numpy(transformer.tokens("test")[0][:50])
    padded = torch.nn.functional.pad(inputs, (0, 4), value=3)
    with torch.inference_mode():
        expected = network(inputs)
        torch.testing.assert_close(
            network(padded, torch.arange(20).expand(50, -1) < 16), expected, rtol=1e-4, atol=1e-4
        )
