"""PulseVAD's teacher, which tells speech from everything else in 200 ms of sound (81 thousand parameters).

Network, weights and the features that it hears come out of the package ``pulsevad``; speech are Asterisk's English and
French prompts, the rest is its music on hold, both from Debian. A window of a prompt that is nearly silent is left out:
nobody could say what it is. Prompts are cut into windows that do not overlap. Example::

    apt-get install asterisk-core-sounds-en-wav asterisk-core-sounds-fr-wav asterisk-moh-opsound-wav
    edgeopt quantize examples.pulse_vad:model --data examples.pulse_vad:data --max-drop 1% -o build/pulse-vad
"""

import wave
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from scipy.signal import resample_poly
from torch import nn

from examples.missing_data import MissingDataError
from examples.package_files import module_at, package_file

__all__ = ["FOLDER", "data", "model"]

FOLDER = Path("/usr/share/asterisk")  # where the Debian packages put them
_PACKAGE = "pulsevad"
_RATE, _WINDOW = 16_000, 3_200
_LEAST_LEVEL = 0.02  # root mean square below which a window of a prompt is a pause
_SPEECH_WINDOWS = 3  # of one prompt
_MUSIC_STEP = 3  # every third window of the music: there are hours of it
_PACKAGES = "asterisk-core-sounds-en-wav asterisk-core-sounds-fr-wav asterisk-moh-opsound-wav"
Waves = npt.NDArray[np.float32]


def model() -> nn.Module:
    """Return the network: float32 N x 64 x 21 log-mel features to N x 2 logits (other, speech)."""
    network: nn.Module = module_at(package_file(_PACKAGE, "pulsevad/model.py")).PulseVAD()
    stored = torch.load(package_file(_PACKAGE, "pulsevad/data/pulsevad_teacher_81k.pth"), weights_only=True)
    network.load_state_dict(stored["state_dict"])
    return network.eval()


def data() -> Iterator[tuple[Waves, int]]:
    """Yield (features float32 64 x 21, 1 for speech and 0 for music)."""
    features = module_at(package_file(_PACKAGE, "pulsevad/frontend_np.py")).extract_log_mel_np
    for window, label in _windows():
        yield features(window)[0], label


def _windows() -> Iterator[tuple[Waves, int]]:
    speech, music = sorted(FOLDER.glob("sounds/*/*.wav")), sorted(FOLDER.glob("moh/*.wav"))
    if not speech or not music:
        raise MissingDataError(f"sound in {FOLDER}", f"apt-get install {_PACKAGES}")
    for path in speech:
        windows = _cut(path)
        loud = windows[np.sqrt((windows**2).mean(axis=1)) >= _LEAST_LEVEL]
        yield from ((window, 1) for window in loud[:_SPEECH_WINDOWS])
    for path in music:
        yield from ((window, 0) for window in _cut(path)[::_MUSIC_STEP])


def _cut(path: Path) -> Waves:
    """Return the windows of a mono file of 16 bits at 16 kHz, shape (n, 3200); what is left at the end is dropped."""
    with wave.open(str(path)) as file:
        rate = file.getframerate()
        values = np.frombuffer(file.readframes(file.getnframes()), "<i2").astype(np.float32) / 32768
    resampled: Waves = resample_poly(values, _RATE, rate).astype(np.float32)
    return resampled[: len(resampled) // _WINDOW * _WINDOW].reshape(-1, _WINDOW)
