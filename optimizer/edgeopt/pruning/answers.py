"""Calling a torch network on samples: names, batches and outputs as lists of tensors.

It trains nothing and loads nothing but what a factory builds. Example::

    answers(network, tensors(samples[:32]))[0].shape         # torch.Size([32, 10])
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from edgeopt.data import DEFAULT_INPUT
from edgeopt.loading import is_reference
from edgeopt.samples import Sample, stack
from edgeopt_contract.errors import ModelError

if TYPE_CHECKING:
    import torch
    from torch import nn

__all__ = ["Feeds", "answers", "build", "first_cause", "tensors"]

Feeds = Mapping[str, "torch.Tensor"]


def build(reference: str) -> nn.Module:
    """Return what the factory ``reference`` builds. Raises :class:`ModelError`."""
    from edgeopt.models import load_model

    if not is_reference(reference):
        raise ModelError(
            f"{reference!r} cannot be pruned: channels are taken out of a torch.nn.Module, so give the function that "
            "builds it as 'package.module:function'"
        )
    return load_model(reference).module


def tensors(samples: Sequence[Sample]) -> dict[str, torch.Tensor]:
    """Return the inputs of ``samples`` as batches."""
    import torch

    return {name: torch.from_numpy(np.ascontiguousarray(array)) for name, array in stack(samples).items()}


def answers(network: nn.Module, feeds: Feeds) -> list[torch.Tensor]:
    """Return the outputs of ``network`` in order: a single unnamed input goes by position, others by keyword."""
    unnamed = set(feeds) == {DEFAULT_INPUT}
    outputs: Any = network(feeds[DEFAULT_INPUT]) if unnamed else network(**feeds)
    values = outputs.values() if isinstance(outputs, Mapping) else outputs
    return list(values) if isinstance(outputs, Mapping | list | tuple) else [outputs]


def first_cause(error: BaseException) -> str:
    """Return the first line of what an exception says, with its type if it says nothing."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
