"""Which channels of a network go together, how much each matters, and taking them out.

The dependency graph and the removal are Torch-Pruning's (Fang et al., DepGraph, arXiv:2301.12900). Every group is
first removed in part from a copy that is then run: where the code of the network fixes a width, or the outputs change
their shape (the classifier), the group is left alone and a note says why. It does not decide how many channels go:
that is :mod:`edgeopt.pruning.plan`. Example::

    found = find_groups(network, example, gradients=None)
    remove(network, example, {"0.conv1": (3, 5)})
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from edgeopt.pruning.answers import Feeds, answers, first_cause
from edgeopt.pruning.plan import ChannelGroup, Importance
from edgeopt.silence import silenced
from edgeopt_contract.errors import MissingExtraError, ModelError

if TYPE_CHECKING:
    from torch import nn

__all__ = ["Structure", "count_macs", "find_groups", "remove"]


@dataclass(frozen=True, slots=True)
class Structure:
    """What can be pruned, and notes on what is left alone."""

    groups: tuple[ChannelGroup, ...]
    notes: tuple[str, ...]


def find_groups(network: nn.Module, example: Feeds, importance: Importance) -> Structure:
    """Return the groups of channels that can be removed; ``network`` has gradients if ``importance`` is Taylor's.

    Raises :class:`ModelError` when the network cannot be traced, or nothing in it can be pruned.
    """
    graph = _graph(network, example)
    names = {module: name for name, module in network.named_modules()}
    groups, notes = [], []
    for coupled in graph.get_all_groups():
        layer = names[coupled[0].dep.target.module]
        problem = _untouchable(coupled) or _problem(network, example, layer, _half(coupled, graph))
        scores = None if problem else _scores(coupled, importance)
        if problem or scores is None:
            notes.append(f"{layer} keeps its width: {problem or 'it has no weights to judge by'}")
            continue
        parts = _parts(coupled, graph)
        averaged = scores.reshape(parts, -1).mean(0)  # the parts lose the same positions
        groups.append(ChannelGroup(layer, len(scores), parts, tuple(map(float, averaged))))
    if not groups:
        reasons = "; ".join(notes) or "it has no convolution or linear layer"
        raise ModelError(f"nothing in the model can be pruned, only convolutions and linear layers can: {reasons}")
    return Structure(tuple(groups), tuple(notes))


def remove(network: nn.Module, example: Feeds, removals: Mapping[str, Sequence[int]]) -> None:
    """Remove output channels of layers, and all that depend on them, in place. Raises :class:`ModelError`."""
    graph = _graph(network, example)
    layers = dict(network.named_modules())
    for name, channels in removals.items():
        if channels:
            layer = layers[name]
            with silenced():
                graph.get_pruning_group(layer, _pruner(graph, layer), list(channels)).prune()
    for parameter in network.parameters():
        parameter.grad = None  # gradients of the widths that were


def count_macs(network: nn.Module, example: Feeds) -> int:
    """Return the multiplications of one sample's inference, as Torch-Pruning counts them."""
    pruning = _torch_pruning()
    one = {name: tensor[:1] for name, tensor in example.items()}
    with silenced():
        macs, _ = pruning.utils.count_ops_and_params(network, _arguments(one))
    return int(macs)


def _graph(network: nn.Module, example: Feeds) -> Any:
    import torch

    pruning = _torch_pruning()
    for parameter in network.parameters():
        parameter.requires_grad_(parameter.is_floating_point())  # the graph is read from autograd's
    try:
        with silenced(), torch.enable_grad():
            return pruning.DependencyGraph().build_dependency(network, example_inputs=_arguments(example))
    except Exception as error:
        raise ModelError(
            f"the model cannot be traced for pruning: {first_cause(error)}; give a network whose outputs are tensors "
            "that depend on its parameters"
        ) from error


def _arguments(example: Feeds) -> Any:
    """Return what Torch-Pruning calls the network with: by position if unnamed, else by keyword."""
    from edgeopt.data import DEFAULT_INPUT

    return (example[DEFAULT_INPUT],) if set(example) == {DEFAULT_INPUT} else dict(example)


def _untouchable(coupled: Any) -> str:
    """Return why channels that pass through such layers are not for us to take; empty when there are none."""
    import torch

    for dep, _ in coupled:
        if isinstance(dep.target.module, torch.nn.MultiheadAttention | torch.nn.RNNBase):
            return f"it is tied to a layer of type {type(dep.target.module).__name__}"
    return ""


def _problem(network: nn.Module, example: Feeds, layer: str, channels: Sequence[int]) -> str:
    """Return why ``channels`` of ``layer`` cannot be removed; empty when they can."""
    import torch

    if not channels:
        return "it has one channel"
    trial = copy.deepcopy(network)
    try:
        before = [output.shape for output in answers(trial, example)]
        remove(trial, example, {layer: channels})
        with silenced(), torch.no_grad():
            after = [output.shape for output in answers(trial, example)]
    except Exception as error:  # Torch-Pruning and the user's forward raise whatever they raise
        return f"the model's code fixes it ({first_cause(error)})"
    return "" if before == after else "the outputs depend on it"


def _half(coupled: Any, graph: Any) -> list[int]:
    """Return half of the channels of a group, the same of each part."""
    parts, width = _parts(coupled, graph), len(coupled[0].idxs)
    size = width // parts
    return [part * size + at for part in range(parts) for at in range(size // 2)]


def _parts(coupled: Any, graph: Any) -> int:
    """Return into how many equal parts the layers of a group cut its channels; depthwise layers do not cut."""
    import torch

    parts = [1]
    for dep, _ in coupled:
        module = dep.target.module
        depthwise = isinstance(module, torch.nn.modules.conv._ConvNd) and module.groups == module.out_channels  # noqa: SLF001  (torch has no public name for "any convolution")
        pruner = graph.get_pruner_of_module(module)
        if depthwise or pruner is None:
            continue
        outwards = graph.is_out_channel_pruning_fn(dep.handler)
        parts.append((pruner.get_out_channel_groups if outwards else pruner.get_in_channel_groups)(module) or 1)
    return max(parts)


def _pruner(graph: Any, layer: Any) -> Any:
    return graph.get_pruner_of_module(layer).prune_out_channels


def _scores(coupled: Any, importance: Importance) -> Any:
    """Return the importance of each channel of a group, or ``None``; by magnitude where there is no BatchNorm."""
    importances = _torch_pruning().importance
    by_magnitude = importances.GroupMagnitudeImportance(p=2)
    measure = {
        Importance.MAGNITUDE: by_magnitude,
        Importance.BN_SCALE: importances.BNScaleImportance(),
        Importance.TAYLOR: importances.GroupTaylorImportance(),
    }[importance]
    with silenced():
        scores = measure(coupled)
        return by_magnitude(coupled) if scores is None else scores


def _torch_pruning() -> Any:
    try:
        with silenced():
            import torch_pruning
    except ModuleNotFoundError as error:
        raise MissingExtraError(error.name or "torch_pruning", "pruning") from error
    return torch_pruning
