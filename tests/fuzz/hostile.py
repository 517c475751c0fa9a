"""Messages that are none, made from the golden ones: each kind of damage is one function, and always does damage.

Example::

    topic, payload = spoil(random.Random(7), "telemetry", b'{"schema": 1, …}', "cam-7", "truncated")
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from typing import Any

from edgeopt_contract.messages import Reported, Status, Telemetry
from edgeopt_contract.topics import PREFIX

__all__ = ["DAMAGES", "KINDS", "spoil"]

KINDS = {"reported": Reported, "telemetry": Telemetry, "status": Status}
Damage = Callable[[random.Random, str, dict[str, Any]], "bytes | tuple[str, bytes]"]

_OPTIONAL = {"extra", "detail", "result", "infrastructure", "machine"}
_DIGESTS = ("bundle", "running")
_COUNTS = ("rows", "errors", "session", "number", "at", "start", "end", "boot")


def spoil(generator: random.Random, kind: str, golden: bytes, device: str, damage: str) -> tuple[str, bytes]:
    """Return topic and payload of a message of ``kind`` with this damage, which must not be taken."""
    spoilt = DAMAGES[damage](generator, kind, json.loads(golden))
    return spoilt if isinstance(spoilt, tuple) else (f"{PREFIX}/devices/{device}/{kind}", spoilt)


def _truncated(generator: random.Random, _kind: str, message: dict[str, Any]) -> bytes:
    whole = json.dumps(message).encode()
    return whole[: generator.randrange(len(whole))]


def _too_large(generator: random.Random, kind: str, message: dict[str, Any]) -> bytes:
    return json.dumps({**message, "padding": "x" * (KINDS[kind].MAX_BYTES + generator.randrange(1000))}).encode()


def _wrong_type(generator: random.Random, _kind: str, message: dict[str, Any]) -> bytes:
    name = generator.choice(sorted(message))
    wrong = [value for value in (True, 1.5, [[]], {"a": {"b": "c"}}) if not _alike(value, message[name])]
    return json.dumps({**message, name: generator.choice(wrong)}).encode()


def _alike(one: Any, other: Any) -> bool:
    """Say whether two values may be of one type: True is an integer to json, and what is in a container may differ."""
    return type(one) is type(other) or (isinstance(one, dict) and isinstance(other, dict))


def _huge_number(generator: random.Random, _kind: str, message: dict[str, Any]) -> bytes:
    name = generator.choice([name for name in _COUNTS if name in message])
    huge = generator.choice([2**53, -(2**53), 2**63, 2**64, 10**30, 10**400])
    return json.dumps({**message, name: huge}).encode()


def _no_number(generator: random.Random, _kind: str, message: dict[str, Any]) -> bytes:
    name = generator.choice([*(name for name in _COUNTS if name in message), "unknown"])
    literal = generator.choice([b"NaN", b"Infinity", b"-Infinity", b"1e400", b"-1e999"])
    return json.dumps({**message, name: "@"}).encode().replace(b'"@"', literal)


def _deep(generator: random.Random, _kind: str, message: dict[str, Any]) -> bytes:
    depth = generator.choice([33, 100, 1000, 5000])
    opening, closing = generator.choice([(b"[", b"]"), (b'{"a":', b"}")])
    return json.dumps({**message, "x": "@"}).encode().replace(b'"@"', opening * depth + b"1" + closing * depth)


def _unknown_schema(generator: random.Random, _kind: str, message: dict[str, Any]) -> bytes:
    return json.dumps({**message, "schema": generator.choice([0, 2, -1, 99, "1", None, 1.5, True, [1]])}).encode()


def _missing_field(generator: random.Random, _kind: str, message: dict[str, Any]) -> bytes:
    del message[generator.choice(sorted(set(message) - _OPTIONAL))]
    return json.dumps(message).encode()


def _no_text(generator: random.Random, _kind: str, message: dict[str, Any]) -> bytes:
    whole = json.dumps({**message, "x": "@"}).encode()
    return whole.replace(
        b"@", generator.choice([b"\xff", b"\xc0\x80", b"\xed\xa0\x80", b"\x00", b"\n", b"\\x", b"\\ud800"])
    )


def _no_object(generator: random.Random, _kind: str, message: dict[str, Any]) -> bytes:
    return generator.choice([b"", b"null", b"[]", b"1", b'"x"', b"{", b"{}", generator.randbytes(50), b"[" * 50_000,
                             json.dumps([message]).encode(), json.dumps(message).encode() + b"}"])  # fmt: skip


def _wrong_value(generator: random.Random, kind: str, message: dict[str, Any]) -> bytes:
    """Well-formed, and impossible: counts below zero, no digest, a window that ends before it begins."""
    changes: list[dict[str, Any]] = [{"bundle": "x" * 64}, {"bundle": "0" * 63}, {"session": 0}, {"number": -1}]
    if kind == "telemetry":
        changes += [
            {"rows": -1},
            {"errors": -5},
            {"end": message["start"] - 1},
            {"latency": [-1]},
            {"cells": {"a": [-1]}},
        ]
    if kind == "reported":
        changes += [{"state": "happy"}, {"result": "runs_away"}, {"running": "abc"}]
    if kind == "status":
        changes = [{"device": "a/b"}, {"device": ""}, {"running": "0"}, {"online": "yes"}, {"device": "somebody-else"}]
    return json.dumps({**message, **generator.choice(changes)}).encode()


def _wrong_topic(generator: random.Random, kind: str, message: dict[str, Any]) -> tuple[str, bytes]:
    topic = generator.choice([
        f"{PREFIX}/devices/cam-7/desired", f"{PREFIX}/devices/cam-7/ack", f"{PREFIX}/devices/cam-7/{kind}/x",
        f"{PREFIX}/devices//{kind}", f"{PREFIX}/devices/a b/{kind}", f"{PREFIX}/devices/{'x' * 65}/{kind}",
        f"edgeopt/v2/devices/cam-7/{kind}", f"{PREFIX}/{kind}", f"{PREFIX}/devices/cam-7", "", "/", "$SYS/uptime",
        f"{PREFIX}/devices/cam-7/{kind.upper()}", f"{PREFIX}/devices/\u00fc/{kind}", f"{PREFIX}/devices/cam-7/{kind}\n",
    ])  # fmt: skip
    return topic, json.dumps(message).encode()


DAMAGES: dict[str, Damage] = {
    "truncated": _truncated,
    "too large": _too_large,
    "wrong type": _wrong_type,
    "huge number": _huge_number,
    "no number": _no_number,
    "deep nesting": _deep,
    "unknown schema": _unknown_schema,
    "missing field": _missing_field,
    "no text": _no_text,
    "no object": _no_object,
    "wrong value": _wrong_value,
    "wrong topic": _wrong_topic,
}
