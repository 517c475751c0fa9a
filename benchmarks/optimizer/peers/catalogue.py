"""All peers, in the order of the table.

Example::

    PEERS["nncf on OpenVINO IR"].quantize(work)
"""

from __future__ import annotations

from benchmarks.optimizer.peers.apart import INC, OLIVE, Apart
from benchmarks.optimizer.peers.inc_tools import NeuralCompressor
from benchmarks.optimizer.peers.litert_tools import LiteRt
from benchmarks.optimizer.peers.nncf_tools import Nncf, NncfControlled
from benchmarks.optimizer.peers.olive_tools import Olive
from benchmarks.optimizer.peers.onnxruntime_tools import (
    PER_CHANNEL,
    PERCENTILE,
    SEVEN_BITS,
    OnnxRuntimeDynamic,
    OnnxRuntimeStatic,
)
from benchmarks.optimizer.peers.onnxsim_tools import OnnxsimAuto
from benchmarks.optimizer.peers.openvino_tools import OpenVinoFloat
from benchmarks.optimizer.peers.port import Peer
from edgeopt.runtimes.litert_convert import LiteRtInt8

__all__ = ["APART", "PEERS"]

_HERE: tuple[Peer, ...] = (
    OnnxRuntimeStatic("onnxruntime, defaults"),
    OnnxRuntimeStatic("onnxruntime, per channel", PER_CHANNEL),
    OnnxRuntimeStatic("onnxruntime, per channel, 7 bits", SEVEN_BITS),
    OnnxRuntimeStatic("onnxruntime, percentile, 7 bits", PERCENTILE),
    OnnxRuntimeDynamic(),
    Nncf("nncf on ONNX", ir=False),
    Nncf("nncf on OpenVINO IR", ir=True),
    NncfControlled("nncf, accuracy control, ONNX", ir=False),
    NncfControlled("nncf, accuracy control, IR", ir=True),
    OpenVinoFloat(),
    LiteRt("ai-edge-quantizer, static", LiteRtInt8.STATIC),
    LiteRt("ai-edge-quantizer, dynamic", LiteRtInt8.DYNAMIC),
    OnnxsimAuto(),
)
_APART: tuple[tuple[Peer, Apart], ...] = (
    (Olive("olive, static"), OLIVE),
    (Olive("olive, dynamic", "OnnxDynamicQuantization"), OLIVE),
    (NeuralCompressor("inc, static"), INC),
    (NeuralCompressor("inc, static, 7 bits", reduce_range=True), INC),
)

PEERS: dict[str, Peer] = {peer.name: peer for peer in (*_HERE, *(peer for peer, _ in _APART))}
APART: dict[str, Apart] = {peer.name: apart for peer, apart in _APART}  # those with an environment of their own
