"""What the judge of a shadow is told, by which rules it judges, and both as bytes.

Pure. It does not collect (:mod:`edgeopt_fleet.store.shadow_looks` does). :func:`encode` gives canonical bytes, from
which :func:`decode` makes evidence that judges to the same verdict, byte for byte. Example::

    policy = ShadowPolicy(minimum_agreement=0.97)
    judge(decode(encode(evidence)), policy) == judge(evidence, policy)
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass, field

import msgspec

from edgeopt_contract.errors import MessageError
from edgeopt_contract.values import canonical_json

__all__ = ["ClassAgreement", "DeviceAgreement", "ShadowEvidence", "ShadowPolicy", "decode", "encode"]

_FORMAT = 1
_MOST_BYTES = 64 * 1024 * 1024  # of evidence when unpacked


@dataclass(frozen=True, slots=True, kw_only=True)
class ShadowPolicy:
    """When a challenger is recommended.

    ``minimum_agreement`` is of the mean over all members, ``minimum_class_agreement`` of each class that has
    ``class_rows`` rows, on the devices that compared. ``false_recommendation`` is the chance that a challenger which
    agrees less, over all or in a class, or is slower than allowed, is ever recommended, over all looks;
    ``false_refusal`` that one within these limits, and with its errors, is ever refused for any of them.
    """

    minimum_agreement: float = 0.95
    minimum_class_agreement: float = 0.8
    minimum_rows: int = 50  # compared, on a device that counts
    minimum_devices: int = 1  # that count
    class_rows: int = 30
    max_error_share: float = 0.01  # of the challenger's own runs
    max_latency_ratio: float = 2.0  # of medians; the challenger runs at low priority beside the champion
    max_failed_share: float = 0.1  # of devices that began
    false_recommendation: float = 0.05
    false_refusal: float = 0.05

    def __post_init__(self) -> None:
        for name in ("minimum_agreement", "minimum_class_agreement", "max_error_share", "max_failed_share"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"expected {name} from 0 to 1, got {getattr(self, name)}")
        for name in ("minimum_rows", "minimum_devices", "class_rows"):
            if not 1 <= getattr(self, name) < 2**31:
                raise ValueError(f"expected {name} from 1 to 2**31 - 1, got {getattr(self, name)}")
        if not 0 < self.max_latency_ratio <= 1e6:
            raise ValueError(f"expected max_latency_ratio above 0, at most a million, got {self.max_latency_ratio}")
        for name in ("false_recommendation", "false_refusal"):
            if not 1e-9 <= getattr(self, name) <= 0.5:
                raise ValueError(f"expected {name} from 1e-9 to 0.5, got {getattr(self, name)}")


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceAgreement:
    """What one device compared. ``agreed`` of ``compared`` rows; what could not be compared did not agree.

    ``windows`` is the effective number of windows the rows came in (Kish: fewer when one holds most of the rows).
    ``champion_us`` and ``challenger_us`` are medians of the same rows, in microseconds; None where nothing was timed.
    """

    device: str
    hardware: str
    state: str
    compared: int = 0
    agreed: int = 0
    incomparable: int = 0
    errors: int = 0
    windows: float = 0.0
    champion_us: float | None = None
    challenger_us: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassAgreement:
    """Rows on all devices for which the champion's top-1 was this class.

    ``windows`` is the effective number of windows that they came in, if each window held as few classes as it can;
    0 where that is not known, and so nothing is sure.
    """

    label: str
    agreed: int
    disagreed: int
    windows: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ShadowEvidence:
    """All that is known at one look, the ``number``-th from 1 on.

    ``members`` is about how many devices something is to be said, ``hardware`` how many of them are of each hardware
    class; ``devices`` are those that were asked.
    """

    number: int
    members: int
    devices: tuple[DeviceAgreement, ...]
    classes: tuple[ClassAgreement, ...] = ()
    hardware: dict[str, int] = field(default_factory=dict)


def encode(evidence: ShadowEvidence) -> bytes:
    """Return ``evidence`` as bytes."""
    plain = canonical_json([_FORMAT, msgspec.to_builtins(evidence)])
    return zlib.compress(plain, 6)


def decode(stored: bytes) -> ShadowEvidence:
    """Return what :func:`encode` was given. Raises :class:`MessageError` when ``stored`` is not that."""
    try:
        unpacker = zlib.decompressobj()
        version, plain = msgspec.json.decode(unpacker.decompress(stored, _MOST_BYTES))
        if version != _FORMAT or not unpacker.eof:
            raise MessageError(
                f"stored evidence: expected format {_FORMAT}, whole, got {version!r}; update this program"
            )
        return msgspec.convert(plain, ShadowEvidence)
    except (ValueError, TypeError, zlib.error, msgspec.MsgspecError) as error:
        raise MessageError(f"stored evidence cannot be read: {error}") from error
