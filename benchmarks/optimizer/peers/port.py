"""The port to a peer: what a tool gets, and what it gives back.

A peer gets the float model that edgeopt starts from, the calibration samples, and for tools that judge accuracy the
selection samples; never the certification split. It gives a model and says what runs it. Example::

    made = peer.quantize(work)
    made.runtime, len(made.model)
"""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from io import BytesIO
from typing import Any, Protocol

from edgeopt.models import load_model
from edgeopt.recipe import RuntimeName
from edgeopt.samples import Sample

__all__ = ["Form", "Made", "Peer", "Refused", "Work", "ir_bytes", "ir_parts"]


class Refused(Exception):  # noqa: N818  (it is an answer, which becomes a row)
    """The tool cannot do it; the message says why, in its own words where it has any."""


class Form(StrEnum):
    """The format of a model."""

    ONNX = "onnx"
    IR = "ir"  # OpenVINO's, both files in one: see ir_bytes
    TFLITE = "tflite"


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """A tool's model and what runs it; ``note`` says what the tool chose, where it chose."""

    model: bytes
    runtime: RuntimeName = RuntimeName.ONNXRUNTIME
    form: Form = Form.ONNX
    note: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """What a peer may use: ``float_model`` is prepared ONNX, ``reference`` names the factory of the torch module.

    ``max_drop`` is a share, in the metric of the name ``metric``; tools that hold a limit get the one edgeopt gets.
    """

    float_model: bytes
    reference: str
    calibration: Sequence[Sample]
    selection: Sequence[Sample]
    metric: str
    max_drop: float

    def module(self) -> Any:
        """Return the ``torch.nn.Module``, in evaluation mode. Raises :class:`Refused` when the model came as a file."""
        module = load_model(self.reference).module
        if module is None:
            raise Refused("the tool needs the PyTorch module, and there is only an ONNX file")
        return module.eval()


class Peer(Protocol):
    """A tool with fixed settings."""

    @property
    def name(self) -> str:
        """What the table calls it: the tool, and how it is set."""

    @property
    def needs(self) -> tuple[str, ...]:
        """The distributions, as pip calls them, that must be installed."""

    def quantize(self, work: Work) -> Made:
        """Return the tool's model. Raises whatever the tool raises."""


def ir_bytes(xml: bytes, weights: bytes) -> bytes:
    """Return OpenVINO's two files as one: an archive without compression, so that its size is that of both."""
    whole = BytesIO()
    with zipfile.ZipFile(whole, "w") as archive:
        archive.writestr("model.xml", xml)
        archive.writestr("model.bin", weights)
    return whole.getvalue()


def ir_parts(model: bytes) -> tuple[bytes, bytes]:
    """Return what :func:`ir_bytes` was given."""
    with zipfile.ZipFile(BytesIO(model)) as archive:
        return archive.read("model.xml"), archive.read("model.bin")
