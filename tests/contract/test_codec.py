"""The codec's own rules, on a record made for the purpose."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeopt_contract.codec import decode, encode, to_builtins
from edgeopt_contract.errors import MessageError
from edgeopt_contract.values import canonical_json


@dataclass(frozen=True, slots=True, kw_only=True)
class Note:
    """A record with one field of each sort."""

    SCHEMA: ClassVar[int] = 3
    MAX_BYTES: ClassVar[int] = 200

    text: str
    scores: tuple[float, ...] = ()
    extra: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.text == "forbidden":
            raise ValueError("expected another text")


def test_canonical_json_does_not_depend_on_the_order_of_keys() -> None:
    """Equal values give equal bytes: a digest of them means something."""
    assert b'{"a":2,"b":{"c":1,"d":3}}' == canonical_json({"b": {"d": 3, "c": 1}, "a": 2})


def test_schema_is_written_and_extra_is_spread() -> None:
    """On the wire unknown fields stand beside the known ones."""
    assert {"schema": 3, "text": "x", "scores": (), "hint": 1} == to_builtins(Note(text="x", extra={"hint": 1}))


def test_extra_cannot_replace_a_known_field() -> None:
    """What the record says wins over what an earlier relay kept."""
    assert {"schema": 3, "text": "x", "scores": ()} == to_builtins(Note(text="x", extra={"text": "y", "schema": 9}))


def test_numbers_are_not_made_from_text() -> None:
    """Decoding is strict: a text is never taken for a number, and the error says where it stood."""
    with pytest.raises(MessageError, match=r"Note: Expected `float`, got `str` - at `\$\.scores\[1\]`"):
        decode(Note, b'{"schema": 3, "text": "x", "scores": [1, "2"]}')


def test_a_refusing_record_becomes_a_message_error() -> None:
    """A value that the record itself refuses is the sender's fault."""
    with pytest.raises(MessageError, match="Note: expected another text"):
        decode(Note, b'{"schema": 3, "text": "forbidden"}')


@pytest.mark.parametrize(
    ("record", "text"),
    [
        (Note(text="x", scores=(float("inf"),)), r"Note\.scores: expected a finite number, got inf"),
        (Note(text="x", extra={"n": 2**53}), r"Note\.n: expected an integer of at most 2\*\*53 - 1"),
        (Note(text="x" * 200), "at most 200 bytes, got 2"),
        (Note(text="x", extra={"n": [[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[0]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]}), "32 levels"),
    ],
)
def test_what_would_be_refused_cannot_be_sent(record: Note, text: str) -> None:
    """A message that every receiver refuses would be sent again for ever: its sender hears of it."""
    with pytest.raises(MessageError, match=text):
        encode(record)


def test_a_memoryview_is_as_good_as_bytes() -> None:
    """A broker's client need not copy what it received."""
    assert Note(text="x") == decode(Note, memoryview(b'{"schema":3,"text":"x"}'))


@given(
    text=st.text(max_size=20).filter("forbidden".__ne__),
    scores=st.lists(st.floats(allow_nan=False, allow_infinity=False), max_size=3).map(tuple),
)
def test_every_record_that_can_be_sent_arrives_as_it_was(text: str, scores: tuple[float, ...]) -> None:
    """Decode undoes encode, for every text and every finite float."""
    note = Note(text=text, scores=scores)
    try:
        payload = encode(note)
    except MessageError:  # control characters take six bytes each: too long
        assert len(canonical_json(to_builtins(note))) > Note.MAX_BYTES
        return
    assert note == decode(Note, payload)
