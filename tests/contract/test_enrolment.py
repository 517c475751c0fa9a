from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeopt_contract.codec import decode
from edgeopt_contract.enrolment import EnrolRequest, EnrolResponse, EnrolToken, MqttAccess, RenewRequest
from tests.contract.conftest import golden_bytes

SECRET = "s" * 43


@given(st.binary(min_size=32, max_size=32))
def test_a_token_survives_a_round_trip(raw: bytes) -> None:
    """Whatever the fingerprint, the text means the same token again, also with blanks around it."""
    token = EnrolToken(secret=SECRET, fingerprint=raw.hex())
    assert token == EnrolToken.parse(f" {token}\n")


@pytest.mark.parametrize(
    "text", ["", "once", SECRET, f"eo1.{SECRET}", f"eo2.{SECRET}.{'A' * 43}", f"eo1.{SECRET}.{'A' * 42}"]
)
def test_a_text_that_is_no_token_is_refused_without_repeating_it(text: str) -> None:
    """The message says where tokens come from; a mistyped secret does not reach the screen."""
    with pytest.raises(ValueError, match="edgeopt token create") as caught:
        EnrolToken.parse(text)
    assert SECRET not in str(caught.value)


def test_secrets_are_left_out_when_a_record_is_printed() -> None:
    """Tokens, bearers and passwords cannot reach a log by printing a record."""
    request = decode(EnrolRequest, golden_bytes("enrol_request"))
    response = decode(EnrolResponse, golden_bytes("enrol_response"))
    access = MqttAccess(host="h", port=1, tls=False, password="hunter2")
    shown = f"{request!r} {response!r} {access!r} {EnrolToken(secret=SECRET, fingerprint='0' * 64)!r}"
    assert not any(secret in shown for secret in (request.token, response.bearer, "hunter2", SECRET))


def test_what_is_signed_names_device_certificate_and_new_key() -> None:
    """A signature cannot be used for another device, another certificate or another key."""
    signed = RenewRequest.signed_bytes
    assert 4 == len({signed("a", "1", "c"), signed("b", "1", "c"), signed("a", "2", "c"), signed("a", "1", "d")})
