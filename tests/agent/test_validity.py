from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from edgeopt_agent.credentials.validity import Validity

DAY = 86400


@given(begin=st.integers(0, 2**40), life=st.integers(1, 3650 * DAY), share=st.floats(0, 1))
def test_a_certificate_is_renewed_in_the_last_third_but_not_at_its_end(begin: int, life: int, share: float) -> None:
    """Whatever the share, there is at least a sixth of the life left for failures."""
    due = Validity(begin, begin + life).due(share)
    assert begin + 0.66 * life <= due <= begin + 0.76 * life


@given(life=st.integers(1, 3650 * DAY))
def test_it_is_tried_often_enough_before_it_expires(life: int) -> None:
    """The longest pause fits several times into what is left."""
    validity = Validity(0, life)
    assert validity.retry_base <= validity.retry_cap <= life / 24
    assert validity.patience <= life / 24


def test_ninety_days() -> None:
    """The default: due after 60 to 67.5 days, retried within a minute at first and six hours at last."""
    validity = Validity(0, 90 * DAY)
    assert (60 * DAY, 67.5 * DAY) == (validity.due(0), validity.due(1))
    assert (60, 6 * 3600, 3600) == (validity.retry_base, validity.retry_cap, validity.patience)
