"""A pruned network on disk: its weights as safetensors, and a recipe that says what to do with the factory's network.

The factory builds the original again, the recipe's widths are set, the weights are filled in: nothing is unpickled,
nothing is traced, and Torch-Pruning is not needed (ADR 0014). The outputs are the same bit for bit. Example::

    write_pruned(Path("build/resnet"), recipe_of(pruned, network, "examples.resnet:model", {}), pruned)
    load_pruned(Path("build/resnet"))(pictures)
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from edgeopt.packing import check_directory
from edgeopt.pruning.answers import build, first_cause
from edgeopt_contract.errors import MissingExtraError, ModelError
from edgeopt_contract.storage import new_directory, storage_errors, write_durably
from edgeopt_contract.values import digest_of

if TYPE_CHECKING:
    from torch import nn

    from edgeopt.pruning.search import Pruned

__all__ = [
    "FORMAT",
    "ONNX",
    "RECIPE",
    "WEIGHTS",
    "PrunedRecipe",
    "check_output",
    "is_pruned",
    "load_pruned",
    "read_recipe",
    "recipe_of",
    "write_pruned",
]

FORMAT = 1
RECIPE = "pruning.json"
WEIGHTS = "weights.safetensors"
ONNX = "pruned.onnx"
_MAX_RECIPE = 64 * 2**20  # bytes; a recipe has a few lines for each layer


@dataclass(frozen=True, slots=True, kw_only=True)
class PrunedRecipe:
    """How the factory ``model`` becomes the pruned network.

    ``layers``: attributes that pruning changed (``out_channels`` and the like) by layer; ``shapes``: of all weights;
    ``removed``: output channels that went, as numbered in the original; ``weights`` and ``onnx``: SHA-256 of the files.
    ``evidence`` is for people and lineage: settings, data, speed, metrics, versions. Loading needs none of it.
    """

    model: str
    layers: dict[str, dict[str, int | list[int]]]
    shapes: dict[str, list[int]]
    removed: dict[str, list[int]]
    weights: str
    onnx: str
    evidence: dict[str, Any] = field(default_factory=dict)
    format: int = FORMAT


def recipe_of(pruned: Pruned, original: nn.Module, model: str, evidence: Mapping[str, Any]) -> PrunedRecipe:
    """Return the recipe that makes ``pruned`` of ``original``, which the factory ``model`` builds."""
    return PrunedRecipe(
        model=model,
        layers=_changed(original, pruned.network),
        shapes={name: list(tensor.shape) for name, tensor in pruned.network.state_dict().items()},
        removed={name: list(channels) for name, channels in pruned.removed.items()},
        weights=digest_of(_weights(pruned.network)),
        onnx=digest_of(pruned.onnx),
        evidence=dict(evidence),
    )


def write_pruned(directory: Path, recipe: PrunedRecipe, pruned: Pruned) -> None:
    """Write all of it, or nothing. Raises :class:`UsageError` for a directory of other things, or StorageError."""
    check_output(directory)
    files = {
        WEIGHTS: _weights(pruned.network),
        ONNX: pruned.onnx,
        RECIPE: msgspec.json.format(msgspec.json.encode(recipe, order="deterministic"), indent=1) + b"\n",
    }
    with new_directory(directory) as temporary, storage_errors(directory):
        for name, data in files.items():
            write_durably(temporary / name, data)


def check_output(directory: Path) -> None:
    """Raise :class:`UsageError` when ``directory`` cannot be made, or holds what an earlier pruning did not write."""
    check_directory(directory, (RECIPE,))


def is_pruned(reference: str | Path) -> bool:
    """Tell whether ``reference`` is a directory that ``edgeopt prune`` wrote."""
    return (Path(reference) / RECIPE).is_file()


def read_recipe(directory: Path) -> PrunedRecipe:
    """Return the recipe in ``directory``. Raises :class:`ModelError` for one that is missing, broken or too new."""
    data = _read(directory / RECIPE)
    if len(data) > _MAX_RECIPE:
        raise ModelError(f"{directory / RECIPE} has {len(data)} bytes: expected at most {_MAX_RECIPE}")
    try:
        recipe = msgspec.json.decode(data, type=PrunedRecipe)
    except (msgspec.DecodeError, RecursionError) as error:
        raise ModelError(f"{directory / RECIPE} is not a pruning recipe: {first_cause(error)}; prune again") from error
    if recipe.format != FORMAT:
        raise ModelError(
            f"{directory / RECIPE} has format {recipe.format}, this edgeopt reads {FORMAT}: use the one that wrote it"
        )
    return recipe


def load_pruned(directory: Path) -> nn.Module:
    """Return the pruned network in evaluation mode; its factory must be importable.

    Raises :class:`ModelError` when a file is missing or was changed, or the factory builds another network than it did.
    """
    recipe = read_recipe(directory)
    weights = _read(directory / WEIGHTS)
    if digest_of(weights) != recipe.weights:
        raise ModelError(f"{directory / WEIGHTS} is not the file that {RECIPE} names: copy both again, or prune again")
    network = copy.deepcopy(build(recipe.model))  # a factory may give the same network to everybody
    try:
        state = _safetensors().load(weights)
        _set_widths(network, recipe)
        network.load_state_dict(state)
    except (KeyError, AttributeError, RuntimeError, TypeError, ValueError) as error:
        raise ModelError(
            f"{recipe.model} does not build the network that was pruned into {directory}: {first_cause(error)}; "
            "restore the code of that time, or prune again"
        ) from error
    return network.eval()


def _changed(original: nn.Module, pruned: nn.Module) -> dict[str, dict[str, int | list[int]]]:
    """Return the whole numbers that pruning changed in each layer."""
    before = dict(original.named_modules())
    layers: dict[str, dict[str, int | list[int]]] = {}
    for name, module in pruned.named_modules():
        old = vars(before[name])
        for key, value in vars(module).items():
            if key.startswith("_") or not _is_width(value) or value == old.get(key):
                continue
            layers.setdefault(name, {})[key] = list(value) if isinstance(value, tuple) else value
    return layers


def _is_width(value: Any) -> bool:
    numbers = value if isinstance(value, tuple) else (value,)
    return all(isinstance(number, int) and not isinstance(number, bool) for number in numbers)


def _set_widths(network: nn.Module, recipe: PrunedRecipe) -> None:
    """Give layers the recorded widths, and room for weights of the recorded shapes."""
    import torch

    modules = dict(network.named_modules())
    for name, attributes in recipe.layers.items():
        for key, value in attributes.items():
            if key.startswith("_") or not _is_width(vars(modules[name])[key]):
                raise ValueError(f"{name}.{key} is not a width")
            setattr(modules[name], key, tuple(value) if isinstance(value, list) else value)
    for name, tensor in list(network.state_dict(keep_vars=True).items()):
        shape = recipe.shapes[name]
        if list(tensor.shape) == shape:
            continue
        owner, _, leaf = name.rpartition(".")
        room = torch.empty(shape, dtype=tensor.dtype)
        kind = isinstance(tensor, torch.nn.Parameter)
        setattr(modules[owner], leaf, torch.nn.Parameter(room, tensor.requires_grad) if kind else room)


def _weights(network: nn.Module) -> bytes:
    """Return all weights and buffers; clones, because safetensors refuses tensors that share memory."""
    state = {name: tensor.detach().clone().contiguous() for name, tensor in network.state_dict().items()}
    data: bytes = _safetensors().save(state)
    return data


def _safetensors() -> Any:
    try:
        import safetensors.torch as safetensors
    except ModuleNotFoundError as error:
        raise MissingExtraError(error.name or "safetensors", "pruning") from error
    return safetensors


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ModelError(f"cannot read {path}: {error.strerror}; prune again, or copy the whole directory") from error
