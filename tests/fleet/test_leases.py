from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from edgeopt_fleet.leases import Lease, Role, claim, free, is_held, prolong

OWNERS = st.sampled_from(["a", "b", "c"])
STEPS = st.lists(
    st.tuples(st.sampled_from(["claim", "prolong", "free"]), OWNERS, st.floats(0, 4)), min_size=1, max_size=60
)


def test_a_lease_is_taken_once_and_again_when_it_has_run_out() -> None:
    """The second process waits; after the time it gets the work with a higher epoch."""
    first = claim(Lease(Role.DRIFT), "a", now=10.0, seconds=5.0)
    assert Lease(Role.DRIFT, "a", 1, 15.0) == first
    assert first is not None
    assert claim(first, "b", now=14.9, seconds=5.0) is None
    assert Lease(Role.DRIFT, "b", 2, 20.0) == claim(first, "b", now=15.0, seconds=5.0)


def test_a_restart_of_the_owner_is_another_epoch() -> None:
    """What the process before it still tries to write is refused."""
    first = claim(Lease(Role.DRIFT), "a", now=10.0, seconds=5.0)
    assert first is not None
    second = claim(first, "a", now=11.0, seconds=5.0)
    assert second is not None
    assert 2 == second.epoch
    assert not is_held(first, second)


def test_a_late_owner_goes_on_while_nobody_else_came() -> None:
    """Past its time a lease can be prolonged, until somebody has taken it."""
    mine = claim(Lease(Role.DRIFT), "a", now=10.0, seconds=5.0)
    assert mine is not None
    assert Lease(Role.DRIFT, "a", 1, 105.0) == prolong(mine, mine, now=100.0, seconds=5.0)
    taken = claim(mine, "b", now=100.0, seconds=5.0)
    assert taken is not None
    assert prolong(mine, taken, now=101.0, seconds=5.0) is None


def test_what_was_handed_back_is_free_at_once() -> None:
    """And the epoch goes on rising."""
    mine = claim(Lease(Role.DRIFT), "a", now=10.0, seconds=5.0)
    assert mine is not None
    after = claim(free(mine), "b", now=10.1, seconds=5.0)
    assert after is not None
    assert 2 == after.epoch


@given(STEPS)
def test_no_two_processes_hold_a_role_and_epochs_never_repeat(steps: list[tuple[str, str, float]]) -> None:
    """Whatever the order of claims, renewals and returns, with processes that believe what they held last."""
    present, now = Lease(Role.INGEST), 0.0
    believed: dict[str, Lease] = {}
    epochs = []
    for what, owner, waited in steps:
        now += waited
        mine = believed.get(owner)
        if what == "claim":
            taken = claim(present, owner, now=now, seconds=5.0)
            if taken is not None:
                others = [lease for name, lease in believed.items() if name != owner and is_held(lease, present)]
                assert all(lease.expires_at <= now for lease in others), "taken from one whose time was not over"
                present = believed[owner] = taken
                epochs.append(taken.epoch)
        elif mine is not None:
            kept = prolong(mine, present, now=now, seconds=5.0) if what == "prolong" else None
            if kept is not None:
                present = believed[owner] = kept
            elif what == "free" and is_held(mine, present):
                present = free(mine)
        assert 1 >= sum(is_held(lease, present) for lease in believed.values())
    assert sorted(set(epochs)) == epochs
