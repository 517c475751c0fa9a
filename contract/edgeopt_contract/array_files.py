"""Reading ``.npy`` and ``.npz`` files that may be damaged, or made to do harm.

NumPy's reader lets through the errors of all that it is built of: of zip, zlib, the tokenizer and more. Here they are
one. Pickles are never read. It does not check names, shapes and dtypes: whoever reads knows what is expected. Example::

    stored = load_arrays(Path("samples.npz"))          # {"x": array, "y": array}; of an .npy file one array
"""

from __future__ import annotations

import tokenize
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["load_arrays"]

Array = npt.NDArray[Any]
_DAMAGED = (
    OSError,  # a place in the file that cannot be
    zipfile.BadZipFile,
    zlib.error,
    NotImplementedError,  # a zip version or a compression that Python does not read
    RuntimeError,  # an encrypted archive
    tokenize.TokenError,  # a header that ends in the middle
)


def load_arrays(path: Path, wanted: Callable[[str], bool] = bool) -> Array | dict[str, Array]:
    """Return the array of an ``.npy`` file, or of an ``.npz`` by name those arrays that are ``wanted``.

    Raises :class:`ValueError` with the reason when it holds something else or is damaged, :class:`OSError` when it
    cannot be opened, and :class:`MemoryError` when the machine has no room for what the file says that it holds.
    """
    with path.open("rb") as file:
        try:
            loaded = np.load(file, allow_pickle=False)
            if isinstance(loaded, np.ndarray):
                return loaded
            with loaded:
                return {name: loaded[name] for name in loaded.files if wanted(name)}
        except (ValueError, EOFError) as error:
            raise ValueError(str(error)) from error
        except _DAMAGED as error:
            raise ValueError(f"it is damaged: {error}") from error
