"""The one training loop of the examples: AdamW, one-cycle learning rate, one thread, a fixed seed.

It reads and writes no file. Example::

    train(network, inputs, labels, Recipe(epochs=14))
    accuracy(network, inputs, labels)            # 0.91
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn

__all__ = ["Augment", "Recipe", "accuracy", "train"]

Augment = Callable[[torch.Tensor, torch.Generator], torch.Tensor]


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """How to train: ``augment`` changes each batch before the network sees it."""

    epochs: int
    batch: int = 128
    peak_rate: float = 0.006
    weight_decay: float = 0.01
    seed: int = 20
    augment: Augment | None = None


def train(network: nn.Module, inputs: torch.Tensor, labels: torch.Tensor, recipe: Recipe) -> None:
    """Train ``network`` in place from scratch on ``inputs`` (N x ...) and ``labels`` (int64, N).

    Deterministic on one machine: one thread, and every random draw comes from ``recipe.seed``.
    """
    torch.set_num_threads(1)
    torch.manual_seed(recipe.seed)
    network.apply(_initialise)
    generator = torch.Generator().manual_seed(recipe.seed)
    steps = -(-len(inputs) // recipe.batch)
    optimizer = torch.optim.AdamW(network.parameters(), lr=recipe.peak_rate, weight_decay=recipe.weight_decay)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, recipe.peak_rate, total_steps=recipe.epochs * steps)
    network.train().to(memory_format=torch.channels_last)  # twice as fast for depthwise layers on a CPU
    for _ in range(recipe.epochs):
        for chosen in torch.randperm(len(inputs), generator=generator).split(recipe.batch):
            batch = inputs[chosen] if recipe.augment is None else recipe.augment(inputs[chosen], generator)
            loss = nn.functional.cross_entropy(network(batch), labels[chosen])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    network.eval()


def accuracy(network: nn.Module, inputs: torch.Tensor, labels: torch.Tensor) -> float:
    """Return the share of ``inputs`` whose greatest score is at their label."""
    with torch.inference_mode():
        hits = [
            (network(batch).argmax(1) == expected).sum().item()
            for batch, expected in zip(inputs.split(500), labels.split(500), strict=True)
        ]
    return float(sum(hits)) / len(inputs)


def _initialise(module: nn.Module) -> None:
    """Draw a layer's weights again, so that they depend on the recipe's seed alone."""
    reset = getattr(module, "reset_parameters", None)
    if reset is not None:
        reset()
