"""Every kind of record against its golden file and its hostile ones."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeopt_contract.codec import decode, encode
from edgeopt_contract.errors import MessageError
from edgeopt_contract.messages import Ack, Desired, DeviceState, Reported, Result, Telemetry
from tests.contract.conftest import GOLDEN, HOSTILE, KINDS, golden_bytes

NAMES = sorted(KINDS)
HOSTILE_FILES = sorted(HOSTILE.glob("*/*.json"))


def test_every_kind_has_a_golden_file_and_hostile_ones() -> None:
    """A new message cannot be added without files that pin it."""
    assert NAMES == sorted(path.name.partition(".")[0] for path in GOLDEN.iterdir())
    assert NAMES == sorted(path.name for path in HOSTILE.iterdir())


@pytest.mark.parametrize("name", NAMES)
def test_golden_file_survives_a_round_trip_to_the_byte(name: str) -> None:
    """What version 1 wrote, every later program reads and writes the same."""
    assert golden_bytes(name) == encode(decode(KINDS[name], golden_bytes(name)))


@pytest.mark.parametrize("name", NAMES)
def test_unknown_fields_survive_a_round_trip(name: str) -> None:
    """A relay that is older than the sender loses nothing, not even a field called 'extra'."""
    plain = json.loads(golden_bytes(name)) | {"from_the_future": {"deep": [1, None, "x"]}, "extra": 5}
    again = json.loads(encode(decode(KINDS[name], json.dumps(plain).encode())))
    assert plain == again


def test_every_hostile_file_says_what_its_error_must_name() -> None:
    """The tables of expected errors and the files agree."""
    for folder in HOSTILE.iterdir():
        files = {path.stem for path in folder.glob("*.json")}
        assert files == set(tomllib.loads((folder / "expected.toml").read_text()))


@pytest.mark.parametrize("path", HOSTILE_FILES, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_hostile_file_is_refused_by_name(path: Path) -> None:
    """A bad message is refused with a text that names the message and what is wrong with it."""
    kind = KINDS[path.parent.name]
    fragment = tomllib.loads((path.parent / "expected.toml").read_text())[path.stem]
    with pytest.raises(MessageError) as caught:
        decode(kind, path.read_bytes())
    assert str(caught.value).startswith(kind.__name__)
    assert fragment in str(caught.value)


@pytest.mark.parametrize("name", NAMES)
def test_oversized_message_is_refused_before_it_is_parsed(name: str) -> None:
    """One byte too many is refused, even when the rest is good."""
    kind = KINDS[name]
    padded = golden_bytes(name) + b" " * (kind.MAX_BYTES - len(golden_bytes(name)))
    assert isinstance(decode(kind, padded), kind)
    with pytest.raises(MessageError, match=f"at most {kind.MAX_BYTES} bytes, got {kind.MAX_BYTES + 1}"):
        decode(kind, padded + b" ")


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("depth", [40, 5000])
def test_deep_nesting_is_refused(name: str, depth: int) -> None:
    """Brackets in brackets exhaust no stack."""
    bomb = golden_bytes(name)[:-1] + b',"bomb":' + b"[" * depth + b"]" * depth + b"}"
    with pytest.raises(MessageError, match=r"nesting|recursion"):
        decode(KINDS[name], bomb)


@pytest.mark.parametrize("name", NAMES)
@given(data=st.binary(max_size=300))
def test_arbitrary_bytes_raise_nothing_but_a_message_error(name: str, data: bytes) -> None:
    """Whatever a network brings, the caller has one exception to handle."""
    with pytest.raises(MessageError):
        decode(KINDS[name], data)


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


@pytest.mark.parametrize("name", NAMES)
@given(data=st.data())
def test_any_field_replaced_by_any_json_is_decoded_or_refused(name: str, data: st.DataObject) -> None:
    """A message that is nearly right either means something or raises MessageError; what it means can be sent on."""
    plain: dict[str, Any] = json.loads(golden_bytes(name))
    for key in data.draw(st.sets(st.sampled_from(sorted(plain)), max_size=2), "fields"):
        plain[key] = data.draw(JSON_VALUES, key)
    payload = json.dumps(plain).encode()
    try:
        record = decode(KINDS[name], payload)
    except MessageError:
        return
    assert record == decode(KINDS[name], encode(record))


def test_numbers_count_from_one() -> None:
    """A record with an impossible number cannot be made, not only not be decoded."""
    golden = decode(Reported, golden_bytes("reported"))
    with pytest.raises(ValueError, match="from 1 on, got 1 and 0"):
        Reported(session=1, number=0, at=0, job="j", bundle=golden.bundle, state=DeviceState.IDLE, running=None)


def test_a_final_report_says_what_runs_now() -> None:
    """State and result arrive as members of their enums, so that comparing by identity works."""
    reported = decode(Reported, golden_bytes("reported"))
    assert DeviceState.CONFIRMED is reported.state
    assert Result.RUNS_NEW is reported.result


def test_deadline_and_gauges_may_be_left_out() -> None:
    """Fields with a default may be missing."""
    for kind, name, field in ((Desired, "desired", "deadline"), (Telemetry, "telemetry", "infrastructure")):
        plain = json.loads(golden_bytes(name))
        del plain[field]
        assert not getattr(decode(kind, json.dumps(plain).encode()), field)


def test_gauge_that_is_not_a_number_cannot_be_sent() -> None:
    """A NaN would become null, which the fleet refuses for ever: the sender hears of it instead."""
    telemetry = Telemetry(
        session=1,
        number=1,
        bundle="0" * 64,
        variant="fp32",
        start=0,
        end=0,
        rows=0,
        errors=0,
        cells={},
        latency=(),
        infrastructure={"temperature_celsius": float("nan")},
    )
    with pytest.raises(MessageError, match=r"infrastructure\.temperature_celsius: expected a finite number"):
        encode(telemetry)


@given(upto=st.integers(0, 20), beyond=st.sets(st.integers(1, 30)), number=st.integers(1, 40))
def test_ack_covers_what_is_below_and_what_is_listed(upto: int, beyond: set[int], number: int) -> None:
    """Above the contiguous part only the listed numbers are committed."""
    ack = Ack(session=1, upto=upto, beyond=tuple(sorted(beyond)))
    assert (number in {*range(upto + 1), *beyond}) == ack.covers(number)
