"""Digests, device ids and file names: only the plain ones exist."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeopt_contract.values import check_device_id, check_digest, check_relative_path, digest_of


def test_digest_is_sha_256() -> None:
    """The digest of nothing is the one that everybody knows."""
    assert "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855" == digest_of(b"")


@given(data=st.binary())
def test_every_digest_passes_its_own_check(data: bytes) -> None:
    """What digest_of makes, check_digest returns."""
    assert digest_of(data) == check_digest(digest_of(data))


@pytest.mark.parametrize("value", ["", "0" * 63, "0" * 65, "G" * 64, "A" * 64, "0" * 64 + "\n", "\uff10" * 64])
def test_what_is_not_a_digest_is_refused(value: str) -> None:
    """Upper case, other digits and a newline behind are no digests: names on disk and topics come from them."""
    with pytest.raises(ValueError, match="SHA-256"):
        check_digest(value)


@pytest.mark.parametrize("value", ["cam-7", "A", "0", "a_b", "x" * 64])
def test_plain_device_ids_pass(value: str) -> None:
    """Letters, digits, '_' and '-', up to 64 of them."""
    assert value == check_device_id(value)


@pytest.mark.parametrize("value", ["", "+", "#", "a/b", "a+", "-a", "_a", "a.b", "a b", "a\n", "$SYS", "é", "x" * 65])
def test_device_ids_that_would_reach_beyond_their_topic_are_refused(value: str) -> None:
    """A device id is an MQTT user name and one topic level: wildcards and levels cannot hide in it."""
    with pytest.raises(ValueError, match="device id"):
        check_device_id(value)


@pytest.mark.parametrize("value", ["model.onnx", "a", "model.int8-u8s8.onnx", "A_1.npz"])
def test_plain_file_names_pass(value: str) -> None:
    """One name, without folders."""
    assert value == check_relative_path(value)


@pytest.mark.parametrize(
    "value", ["", ".", "..", "../x", "a/b", "/etc/passwd", "a\\b", ".hidden", "a\0", "a\n", "c:x", "é", "x" * 129]
)
def test_paths_that_leave_the_bundle_are_refused(value: str) -> None:
    """A manifest from elsewhere cannot write outside its directory."""
    with pytest.raises(ValueError, match="plain file name"):
        check_relative_path(value)
