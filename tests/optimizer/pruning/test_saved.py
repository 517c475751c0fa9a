"""What was written comes back bit for bit, in a fresh process too, and nothing else is accepted."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from pruning_networks import PRUNABLE, half, residual, samples

from edgeopt.pruning.answers import tensors
from edgeopt.pruning.channels import count_macs, find_groups, remove
from edgeopt.pruning.plan import Importance
from edgeopt.pruning.saved import (
    ONNX,
    RECIPE,
    WEIGHTS,
    check_output,
    is_pruned,
    load_pruned,
    recipe_of,
    write_pruned,
)
from edgeopt.pruning.search import Pruned
from edgeopt.timing import Speed
from edgeopt_contract.errors import ModelError, UsageError

EXAMPLE = tensors(samples(8))
FOLDER = Path(__file__).parent


def pruned(name: str) -> Pruned:
    """Return a network of the zoo without half of its channels."""
    network = PRUNABLE[name]()
    groups = find_groups(network, EXAMPLE, Importance.MAGNITUDE).groups
    removed = half(groups)
    remove(network, EXAMPLE, removed)
    speed = Speed(baseline_ms=2, variant_ms=1, ratio=2, ratio_low=2, ratio_high=2, confidence=0.95, rounds=1)
    return Pruned(
        network=network,
        onnx=b"onnx",
        original_onnx=b"before",
        ratio=0.5,
        removed=removed,
        speed=speed,
        macs_before=2,
        macs_after=count_macs(network, EXAMPLE),
        attempts=(),
        notes=(),
    )  # fmt: skip  (a record of numbers)


def written(directory: Path, name: str) -> torch.nn.Module:
    """Write a pruned network and return it."""
    result = pruned(name)
    recipe = recipe_of(result, PRUNABLE[name](), f"pruning_networks:{name}", {"seed": 0})
    write_pruned(directory, recipe, result)
    return result.network


@pytest.mark.parametrize("name", PRUNABLE)
def test_every_kind_of_network_comes_back_bit_for_bit(name: str, tmp_path: Path) -> None:
    """With all widths, in evaluation mode."""
    network = written(tmp_path / "out", name)
    loaded = load_pruned(tmp_path / "out")
    assert not loaded.training
    with torch.inference_mode():
        assert torch.equal(network(EXAMPLE["input"]), loaded(EXAMPLE["input"]))
    assert str(network) == str(loaded)


def test_a_factory_s_own_network_stays_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that gives everybody the same network is not left with the pruned one: it loads again."""
    shared = residual()
    before = str(shared)
    written(tmp_path / "out", "residual")
    monkeypatch.setattr("pruning_networks.residual", lambda: shared)
    first, second = load_pruned(tmp_path / "out"), load_pruned(tmp_path / "out")
    assert before == str(shared) != str(first)
    assert str(first) == str(second)


def test_a_fresh_process_without_torch_pruning_gives_the_same_bits(tmp_path: Path) -> None:
    """Nothing is unpickled: pickle is taken away from the process that loads."""
    network = written(tmp_path / "out", "residual")
    program = (
        "import sys; from pathlib import Path\n"
        f"sys.path.insert(0, {str(FOLDER)!r})\n"
        "import pickle, numpy as np, torch\n"
        "sys.modules['torch_pruning'] = None\n"
        "def refuse(*_, **__): raise SystemExit('unpickled')\n"
        "pickle.load = pickle.loads = torch.load = refuse\n"
        "from edgeopt.pruning.saved import load_pruned\n"
        "from edgeopt.pruning.answers import tensors\n"
        "from pruning_networks import samples\n"
        f"network = load_pruned(Path({str(tmp_path / 'out')!r}))\n"
        "torch.set_num_threads(1)\n"
        "with torch.inference_mode():\n"
        f"    np.save({str(tmp_path / 'answers.npy')!r}, network(tensors(samples(8))['input']).numpy())\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (0, "") == (done.returncode, done.stderr)
    torch.set_num_threads(1)
    with torch.inference_mode():
        expected = network(EXAMPLE["input"]).numpy()
    assert expected.tobytes() == np.load(tmp_path / "answers.npy").tobytes()


def test_two_writes_give_the_same_bytes(tmp_path: Path) -> None:
    """Nothing of the day is in them."""
    for name in ("one", "two"):
        written(tmp_path / name, "residual")
    for file in (RECIPE, WEIGHTS, ONNX):
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()


def test_a_directory_is_recognised_by_its_recipe(tmp_path: Path) -> None:
    """A factory's name or any other directory is not taken for one."""
    written(tmp_path / "out", "residual")
    assert is_pruned(str(tmp_path / "out"))
    assert not is_pruned(tmp_path)
    assert not is_pruned("examples.resnet:model")


def _flip(directory: Path) -> None:
    data = bytearray((directory / WEIGHTS).read_bytes())
    data[-1] ^= 1
    (directory / WEIGHTS).write_bytes(data)


def _edit(**changes: object) -> Callable[[Path], None]:
    def edit(directory: Path) -> None:
        recipe = json.loads((directory / RECIPE).read_text())
        (directory / RECIPE).write_text(json.dumps(recipe | changes))

    return edit


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (_flip, "is not the file that pruning.json names"),
        (lambda directory: (directory / WEIGHTS).unlink(), "cannot read .*weights.safetensors: No such file"),
        (lambda directory: (directory / RECIPE).write_text("{"), "is not a pruning recipe"),
        (_edit(format=2), "has format 2, this edgeopt reads 1"),
        (_edit(model="pruning_networks:depthwise"), "does not build the network that was pruned"),
        (_edit(model="pruning_networks:nothing"), "has no function 'nothing'"),
        (_edit(layers={"head": {"forward": 3}}), "does not build the network that was pruned"),
        (_edit(layers={"head": {"training": 0}}), "head.training is not a width"),
    ],
)
def test_what_does_not_fit_is_refused(harm: Callable[[Path], None], message: str, tmp_path: Path) -> None:
    """A flipped bit, a missing file, another network, and a recipe that would change more than widths."""
    written(tmp_path / "out", "residual")
    harm(tmp_path / "out")
    with pytest.raises(ModelError, match=message):
        load_pruned(tmp_path / "out")


def test_other_peoples_directories_are_not_replaced(tmp_path: Path) -> None:
    """An earlier result is, an empty directory too."""
    written(tmp_path / "out", "residual")
    check_output(tmp_path / "out")
    (tmp_path / "empty").mkdir()
    check_output(tmp_path / "empty")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.tex").touch()
    with pytest.raises(UsageError, match="holds other files"):
        check_output(tmp_path / "full")
    with pytest.raises(UsageError, match="is a file"):
        check_output(tmp_path / "full" / "thesis.tex")


def test_the_original_is_what_the_factory_builds() -> None:
    """The recipe records what differs from it, and nothing of what does not."""
    result = pruned("residual")
    recipe = recipe_of(result, residual(), "pruning_networks:residual", {})
    assert {"in_features"} == set(recipe.layers["head"])
    assert {"in_channels", "out_channels"} == set(recipe.layers["first.0"])
    assert {"num_features"} == set(recipe.layers["stem.1"])
