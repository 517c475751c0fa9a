"""Channels that go together, go together; the oracle is the original with the same channels silenced."""

from __future__ import annotations

import copy

import pytest
import torch
from pruning_networks import PRUNABLE, fixed_width, half, residual, samples, single_layer
from torch import nn

from edgeopt.pruning.answers import tensors
from edgeopt.pruning.channels import count_macs, find_groups, remove
from edgeopt.pruning.plan import Importance
from edgeopt_contract.errors import ModelError

EXAMPLE = tensors(samples(2))
CONSUMERS = {  # which inputs of which layers read the outputs of a layer: (layer, first input)
    "residual": {
        "second.2": [("first.0", 0), ("second.0", 0), ("head", 0)],
        "first.0": [("first.2", 0)],
        "second.0": [("second.2", 0)],
    },
    "depthwise": {"3": [("6", 0)], "6": [("10", 0)]},
    "grouped": {"2": [("7", 0)]},
    "concatenating": {"left": [("both", 0)], "right": [("both", 24)], "both": [("head", 0)]},
    "scaled": {"conv": [("head", 0)]},
}


def silence(network: nn.Module, consumers: list[tuple[str, int]], channels: tuple[int, ...]) -> None:
    """Let the layers that read ``channels`` ignore them."""
    layers = dict(network.named_modules())
    with torch.no_grad():
        for name, first in consumers:
            layers[name].weight[:, [first + channel for channel in channels]] = 0


@pytest.mark.parametrize("name", PRUNABLE)
def test_a_pruned_network_computes_what_the_original_does_with_these_channels_silenced(name: str) -> None:
    """For residual, depthwise, grouped, concatenating networks and one with a parameter of its own, all at once."""
    network = PRUNABLE[name]()
    original, pruned = copy.deepcopy(network), copy.deepcopy(network)
    groups = find_groups(network, EXAMPLE, Importance.MAGNITUDE).groups
    by_layer = half(groups)
    compared = {layer: gone for layer, gone in by_layer.items() if layer in CONSUMERS[name]}
    assert set(CONSUMERS[name]) == set(compared)
    for layer, channels in compared.items():
        assert channels
        silence(original, CONSUMERS[name][layer], channels)
    remove(pruned, EXAMPLE, compared)
    with torch.inference_mode():
        torch.testing.assert_close(original(EXAMPLE["input"]), pruned(EXAMPLE["input"]), rtol=1e-4, atol=1e-5)
    assert count_macs(pruned, EXAMPLE) < count_macs(original, EXAMPLE)


def test_a_grouped_convolution_keeps_its_groups() -> None:
    """And each of them the same number of channels."""
    network = PRUNABLE["grouped"]()
    groups = find_groups(network, EXAMPLE, Importance.MAGNITUDE).groups
    assert {("0", 32, 4), ("2", 64, 4)} == {(group.layer, group.width, group.parts) for group in groups}
    remove(network, EXAMPLE, half(groups))
    conv = dict(network.named_modules())["2"]
    assert (16, 32, 4) == (conv.in_channels, conv.out_channels, conv.groups)


def test_residual_channels_are_one_group() -> None:
    """The stem and the ends of both blocks add up, so they lose the same channels."""
    layers = [group.layer for group in find_groups(residual(), EXAMPLE, Importance.MAGNITUDE).groups]
    assert 3 == len(layers)
    assert 2 == len({"first.0", "second.0"} & set(layers))


def test_the_outputs_and_the_inputs_keep_their_width() -> None:
    """The classifier is not a group, and a note says so; the first layer keeps its three inputs."""
    network = residual()
    structure = find_groups(network, EXAMPLE, Importance.MAGNITUDE)
    assert ("head keeps its width: the outputs depend on it",) == structure.notes
    remove(network, EXAMPLE, half(structure.groups))
    assert (3, 10) == (network.stem[0].in_channels, network.head.out_features)


def test_a_width_that_the_code_knows_is_left_alone_with_a_note() -> None:
    """The other convolution is pruned all the same."""
    structure = find_groups(fixed_width(), EXAMPLE, Importance.MAGNITUDE)
    assert ["free"] == [group.layer for group in structure.groups]
    assert [True, True] == [
        any(note.startswith(f"{layer} keeps its width") for note in structure.notes) for layer in ("known", "head")
    ]


def test_a_network_of_one_layer_is_refused() -> None:
    """With the reason."""
    with pytest.raises(ModelError, match=r"nothing in the model can be pruned, .*: 1 keeps its width: the outputs"):
        find_groups(single_layer(), EXAMPLE, Importance.MAGNITUDE)


def test_attention_is_left_alone() -> None:
    """Channels of heads are not ours to take."""

    class Attending(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 16, 3, padding=1)
            self.attention = nn.MultiheadAttention(16, 2, batch_first=True)
            self.wide, self.head = nn.Linear(16, 32), nn.Linear(32, 10)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            tokens = self.conv(x).flatten(2).transpose(1, 2)
            mixed, _ = self.attention(tokens, tokens, tokens, need_weights=False)
            return self.head(torch.relu(self.wide(mixed.mean(1))))

    torch.manual_seed(1)
    structure = find_groups(Attending().train().eval(), EXAMPLE, Importance.MAGNITUDE)
    assert ["wide"] == [group.layer for group in structure.groups]
    assert any("MultiheadAttention" in note for note in structure.notes)


def test_multiplications_are_those_of_the_layers() -> None:
    """Worked by hand: 64 places times 3 x 3 x 3 x 8, bias and all left out by a convolution without one."""
    network = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1, bias=False)).eval()
    assert 64 * 27 * 8 == count_macs(network, EXAMPLE)


def test_inputs_by_name_reach_the_network() -> None:
    """Two named inputs, one of whole numbers: both are passed by keyword, and what reads them is pruned."""

    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.words, self.wide = nn.Embedding(20, 16), nn.Linear(4, 16)
            self.middle, self.head = nn.Linear(16, 32), nn.Linear(32, 5)

        def forward(self, tokens: torch.Tensor, numbers: torch.Tensor) -> torch.Tensor:
            both = self.words(tokens).mean(1) + self.wide(numbers)
            return self.head(torch.relu(self.middle(torch.relu(both))))

    torch.manual_seed(1)
    example = {"tokens": torch.randint(20, (2, 7)), "numbers": torch.randn(2, 4)}
    network = Two().eval()
    groups = find_groups(network, example, Importance.MAGNITUDE).groups
    assert {16, 32} == {group.width for group in groups}
    remove(network, example, half(groups))
    assert (8, 8, 16) == (network.words.embedding_dim, network.wide.out_features, network.middle.out_features)
    assert (2, 5) == network(**example).shape
