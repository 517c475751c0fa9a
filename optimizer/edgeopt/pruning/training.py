"""Training a pruned network again: the user's own function, or distillation from the original.

The default needs no labels: the student learns the original's answers, softened by a temperature (Hinton et al.,
arXiv:1503.02531) and as logits, and the labels where they are whole numbers; other outputs are learnt as numbers. AdamW
with a cosine schedule. A user's function takes one :class:`TrainingJob` and trains ``job.student`` in place::

    def train(job):
        for epoch in range(job.epochs):
            for batch in job.batches(epoch):
                loss = my_loss(answers(job.student, batch.inputs), batch.labels)
                ...
                job.report(loss.item())
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from edgeopt.loading import call_user_code, load_attribute
from edgeopt.pruning.answers import answers, tensors
from edgeopt.samples import Sample, chunks
from edgeopt_contract.errors import ModelError, UsageError

if TYPE_CHECKING:
    import torch
    from torch import nn

__all__ = ["Batch", "Train", "TrainingJob", "distill", "load_training", "train_checked"]

_PASS = 256  # samples that go through the teacher at once
_TEACHER_SHARE = 0.9  # of the loss; the labels' part has the rest (Hinton et al., section 2: a much lower weight)


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """Inputs by name (N x ...), labels, and the places of the samples among ``TrainingJob.samples``."""

    inputs: dict[str, torch.Tensor]
    labels: list[Any]
    places: list[int]


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class TrainingJob:
    """What a training function gets: train ``student`` in place, for ``epochs`` over ``samples``.

    ``teacher`` is the original, in evaluation mode. ``report`` takes the loss after each step and moves the progress
    bar. All randomness must come from ``seed``; torch's own generator has been seeded with it.
    """

    student: nn.Module
    teacher: nn.Module
    samples: Sequence[Sample]
    epochs: int
    batch: int
    rate: float
    temperature: float
    seed: int
    report: Callable[[float], None]

    @property
    def steps(self) -> int:
        """How many batches all epochs have together; a last batch of one sample is left out."""
        full, rest = divmod(len(self.samples), self.batch)
        return self.epochs * (full + (rest > 1))

    def batches(self, epoch: int) -> Iterator[Batch]:
        """Yield the samples in an order that ``seed`` and ``epoch`` decide; BatchNorm cannot learn from one alone."""
        order = np.random.default_rng([self.seed, epoch]).permutation(len(self.samples)).tolist()
        for places in chunks(order, self.batch):
            if len(places) > 1:
                chosen = [self.samples[place] for place in places]
                yield Batch(tensors(chosen), [sample.label for sample in chosen], list(places))


Train = Callable[[TrainingJob], object]


def load_training(reference: str) -> Train:
    """Return the user's training function. Raises :class:`UsageError`."""
    return load_attribute(reference, UsageError)


def train_checked(train: Train, job: TrainingJob) -> None:
    """Let ``train`` do the job and look at what it left, in evaluation mode.

    torch's random numbers start from the seed, and go on for the caller as if nothing had been drawn. Raises
    :class:`ModelError` when the function raises, returns something, changes shapes or leaves weights without meaning.
    """
    import torch

    shapes = {name: tensor.shape for name, tensor in job.student.state_dict().items()}
    with torch.random.fork_rng(devices=[]), torch.enable_grad():
        torch.manual_seed(job.seed)
        given = call_user_code(lambda: train(job), "the training function", ModelError)
    if given is not None:
        raise ModelError(
            f"the training function returned {type(given).__name__}: expected nothing; it trains job.student in place"
        )
    job.student.eval()
    after = job.student.state_dict()
    if shapes != {name: tensor.shape for name, tensor in after.items()}:
        raise ModelError("the training function changed the shape of weights: it must train job.student as it is")
    broken = [name for name, tensor in after.items() if tensor.is_floating_point() and not tensor.isfinite().all()]
    if broken:
        raise ModelError(f"training left NaN or infinity in {', '.join(broken[:3])}: lower the learning rate")


def distill(job: TrainingJob) -> None:
    """Train with the original's answers, and the labels where they are classes.

    The teacher answers each sample once; its answers are kept in memory.
    """
    import torch

    taught = _taught(job)
    optimizer = torch.optim.AdamW(job.student.parameters(), lr=job.rate, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, _warm_cosine(job.steps))
    job.student.train()
    for epoch in range(job.epochs):
        for batch in job.batches(epoch):
            targets = [whole[batch.places] for whole in taught]
            loss = _loss(answers(job.student, batch.inputs), targets, batch.labels, job.temperature)
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(job.student.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            job.report(loss.item())


def _taught(job: TrainingJob) -> list[torch.Tensor]:
    """Return the teacher's outputs for all samples."""
    import torch

    with torch.no_grad():
        parts = [answers(job.teacher, tensors(chunk)) for chunk in chunks(job.samples, _PASS)]
    return [torch.cat(outputs) for outputs in zip(*parts, strict=True)]


def _warm_cosine(steps: int) -> Callable[[int], float]:
    """Return the schedule: up over the first tenth, then down along half a cosine to zero."""
    warm = max(1, steps // 10)

    def factor(step: int) -> float:
        if step < warm:
            return (step + 1) / warm
        return 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, steps - warm)))

    return factor


def _loss(
    outputs: Sequence[torch.Tensor], targets: Sequence[torch.Tensor], labels: Sequence[Any], temperature: float
) -> torch.Tensor:
    """Return how far the student is from its teacher, and from the labels if the first output has a class for each."""
    import torch
    from torch.nn import functional

    losses = [
        _class_loss(output, target, temperature) if _is_scores(target) else _number_loss(output, target)
        for output, target in zip(outputs, targets, strict=True)
        if target.is_floating_point()
    ]
    if not losses:
        raise ModelError("no output of the model is a float tensor: there is nothing to learn from; give --train")
    imitation = torch.stack(losses).mean()
    classes = _classes(labels, targets[0])
    if classes is None:
        return imitation
    truth = functional.nll_loss(_log_scores(outputs[0], targets[0]), classes)
    return _TEACHER_SHARE * imitation + (1 - _TEACHER_SHARE) * truth


def _class_loss(output: torch.Tensor, target: torch.Tensor, temperature: float) -> torch.Tensor:
    """Return the divergence of the softened answers, in the unit of the labels' loss (Hinton et al., section 2)."""
    from torch.nn import functional

    soft = functional.log_softmax(_log_scores(output, target) / temperature, dim=-1)
    wanted = functional.log_softmax(_log_scores(target, target) / temperature, dim=-1)
    return functional.kl_div(soft, wanted, reduction="batchmean", log_target=True) * temperature**2


def _number_loss(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Return the mean squared difference, in variances of the teacher's output."""
    from torch.nn import functional

    variance = target.float().var().clamp_min(1e-6)
    return functional.mse_loss(output.float(), target.float()) / variance


def _is_scores(target: torch.Tensor) -> bool:
    """Whether an output has one score for each of several classes: N x C with C above one."""
    return bool(target.ndim == 2 and target.shape[1] > 1)


def _log_scores(output: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
    """Return the logarithm of probabilities, whether the network gives logits or probabilities; the teacher tells."""
    import torch
    from torch.nn import functional

    if bool((teacher >= 0).all()) and torch.allclose(teacher.sum(-1), torch.ones(()), atol=1e-3):
        return output.clamp_min(1e-7).log()
    return functional.log_softmax(output, dim=-1)


def _classes(labels: Sequence[Any], target: torch.Tensor) -> torch.Tensor | None:
    """Return the labels as classes of the first output, or ``None`` when they are not whole numbers of its range."""
    import torch

    whole = all(isinstance(label, int | np.integer) for label in labels)
    if not whole or not _is_scores(target) or not all(0 <= label < target.shape[1] for label in labels):
        return None
    return torch.tensor([int(label) for label in labels])
