"""Training again: it learns from the original alone, repeats itself, and a user's function is held to its task."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from pruning_networks import residual, samples
from torch import nn

from edgeopt.pruning.answers import answers, tensors
from edgeopt.pruning.training import TrainingJob, distill, load_training, train_checked
from edgeopt.samples import Sample
from edgeopt_contract.errors import ModelError, UsageError


def job(student: nn.Module, teacher: nn.Module, data: list[Sample], **changes: Any) -> TrainingJob:
    """Return a small job."""
    settings: dict[str, Any] = {
        "epochs": 6,
        "batch": 16,
        "rate": 5e-3,
        "temperature": 4.0,
        "seed": 0,
        "report": lambda loss: None,
    }  # fmt: skip  (one line says it)
    return TrainingJob(student=student, teacher=teacher, samples=data, **(settings | changes))


def distance(student: nn.Module, teacher: nn.Module, data: list[Sample]) -> float:
    """Return the mean absolute difference of the answers."""
    with torch.inference_mode():
        return float((answers(student, tensors(data))[0] - answers(teacher, tensors(data))[0]).abs().mean())


def shaken(network: nn.Module) -> nn.Module:
    """Return a copy whose weights are off."""
    torch.manual_seed(11)
    other = copy.deepcopy(network)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.add_(0.2 * parameter.std(correction=0) * torch.randn_like(parameter))
    return other


@pytest.mark.parametrize("labelled", [True, False])
def test_distillation_brings_the_student_nearer_to_its_teacher(*, labelled: bool) -> None:
    """With labels and without; the teacher is sure of its answers, so labels say the same."""
    teacher = residual()
    with torch.no_grad():
        teacher.head.weight *= 40
    right = answers(teacher, tensors(samples(128)))[0].argmax(1).tolist()
    data = [Sample(one.inputs, label if labelled else None) for one, label in zip(samples(128), right, strict=True)]
    student = shaken(teacher)
    before = distance(student, teacher, data)
    train_checked(distill, job(student, teacher, data))
    assert distance(student, teacher, data) < 0.7 * before
    assert not student.training


def test_probabilities_and_numbers_can_be_learnt_too() -> None:
    """A network that ends in softmax, and one with a single number for each sample."""
    for last in (nn.Softmax(1), nn.Linear(10, 1)):
        torch.manual_seed(2)
        teacher = nn.Sequential(residual(), last).eval()
        student = shaken(teacher)
        data = [Sample(one.inputs, None) for one in samples(128)]
        before = distance(student, teacher, data)
        train_checked(distill, job(student, teacher, data))
        assert distance(student, teacher, data) < before


def test_the_same_seed_gives_the_same_weights_and_another_gives_others() -> None:
    """Whatever the state of torch's own random numbers, which are left as they were."""
    teacher, data = residual(), samples(64)
    students = [shaken(teacher) for _ in range(3)]
    states = []
    for number, (student, seed) in enumerate(zip(students, (0, 0, 1), strict=True)):
        torch.manual_seed(number)
        state = torch.random.get_rng_state()
        train_checked(distill, job(student, teacher, data, epochs=2, seed=seed))
        assert torch.equal(state, torch.random.get_rng_state())
        states.append(torch.cat([tensor.flatten().float() for tensor in student.state_dict().values()]))
    assert torch.equal(states[0], states[1])
    assert not torch.equal(states[0], states[2])


def test_every_step_is_reported_and_no_batch_has_one_sample() -> None:
    """33 samples in batches of 16: two batches in each epoch, because BatchNorm cannot learn from one sample."""
    losses: list[float] = []
    task = job(shaken(residual()), residual(), samples(33), epochs=3, report=losses.append)
    train_checked(distill, task)
    assert 6 == task.steps == len(losses)
    assert {2} == {len(list(task.batches(epoch))) for epoch in range(3)}


def _raises(task: TrainingJob) -> None:
    raise RuntimeError("no optimizer today")


def _returns(task: TrainingJob) -> object:
    return task.student


def _widens(task: TrainingJob) -> None:
    task.student.head = nn.Linear(32, 11)


def _breaks(task: TrainingJob) -> None:
    with torch.no_grad():
        task.student.head.weight[0, 0] = torch.nan


@pytest.mark.parametrize(
    ("train", "message"),
    [
        (_raises, r"the training function failed: RuntimeError: no optimizer today \(test_training.py, line \d+\)"),
        (_returns, "returned Residual: expected nothing"),
        (_widens, "changed the shape of weights"),
        (_breaks, r"left NaN or infinity in head.weight: lower the learning rate"),
    ],
)
def test_a_training_function_is_held_to_its_task(train: Callable[[TrainingJob], object], message: str) -> None:
    """What it did wrong, in a sentence."""
    with pytest.raises(ModelError, match=message):
        train_checked(train, job(residual(), residual(), samples(4)))


def test_a_training_function_is_found_by_name() -> None:
    """And a wrong name is the user's error."""
    assert distill is load_training("edgeopt.pruning.training:distill")
    with pytest.raises(UsageError, match="has no function 'nothing'"):
        load_training("edgeopt.pruning.training:nothing")
