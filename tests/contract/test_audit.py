from __future__ import annotations

import itertools

import pytest

from edgeopt_contract.audit import (
    NOTHING,
    BrokenChainError,
    Chain,
    Entry,
    Head,
    digest_of_state,
    export_lines,
    verify_export,
)

pytestmark = pytest.mark.rights


def entries(count: int) -> list[Entry]:
    """Return a chain of ``count`` entries."""
    made: list[Entry] = []
    for number in range(1, count + 1):
        made.append(
            Entry(
                number=number,
                at=1_764_000_000_000 + number,
                actor="ålice",
                via="api",
                operation="rollout.pause",
                subject=f"rollout/v{number}",
                previous=made[-1].sha256 if made else NOTHING,
                before=digest_of_state({"state": "running"}),
                after=digest_of_state({"state": "paused"}),
                detail={"reason": "too hot, said Åse", "share": 0.25, "n": [1, None, True]},
            )
        )
    return made


def exported(count: int) -> list[bytes]:
    """Return the lines of an export."""
    return list(export_lines(entries(count)))


def test_an_export_ends_where_the_chain_ends() -> None:
    """As many entries as were written, and the hash of the last; an empty log is one, too."""
    made = entries(3)
    assert Head(3, made[2].sha256) == verify_export(export_lines(made))
    assert Head(0, NOTHING) == verify_export(exported(0))


def test_every_changed_byte_is_found() -> None:
    """Whichever byte becomes whichever neighbour: the export is not believed. Also a byte that is cut out or added."""
    data = b"".join(exported(4))
    checked = 0
    for place, change in itertools.product(range(len(data)), (1, 2, 32, 128)):
        forged = data[:place] + bytes([data[place] ^ change]) + data[place + 1 :]
        with pytest.raises(BrokenChainError):
            verify_export(forged.splitlines(keepends=True))
        checked += 1
    for place in range(len(data)):
        for forged in (data[:place] + data[place + 1 :], data[:place] + b" " + data[place:]):
            with pytest.raises(BrokenChainError):
                verify_export(forged.splitlines(keepends=True))
            checked += 1
    print(f"\n{checked} exports with one byte changed, cut out or added: all found")


def test_missing_doubled_and_moved_lines_are_found() -> None:
    """Every line that is taken out, written twice or swapped with another."""
    lines = exported(6)
    for gone in range(len(lines)):
        with pytest.raises(BrokenChainError):
            verify_export(lines[:gone] + lines[gone + 1 :])
        with pytest.raises(BrokenChainError):
            verify_export(lines[: gone + 1] + lines[gone:])
    for one, other in itertools.combinations(range(len(lines)), 2):
        moved = list(lines)
        moved[one], moved[other] = moved[other], moved[one]
        with pytest.raises(BrokenChainError):
            verify_export(moved)


def test_the_message_says_where(subtests: pytest.Subtests) -> None:
    """Whoever looks for the forger begins at the right line."""
    lines = exported(5)
    for what, forged, words in (
        ("changed", [*lines[:2], lines[2].replace(b"pause", b"start"), *lines[3:]], "entry 3 .* was changed"),
        ("missing", [*lines[:2], *lines[3:]], "expected audit entry 3, got 4"),
        ("cut off", lines[:-1], "last line .* missing"),
        ("cut short", [*lines[:3], lines[-1]], "expected 5 audit entries, got 3"),
        ("more", [*lines, lines[0]], "line 7: something follows"),
    ):
        with subtests.test(what), pytest.raises(BrokenChainError, match=words):
            verify_export(forged)


def test_another_log_made_up_from_the_beginning_is_found_by_a_noted_head() -> None:
    """Who rewrites everything gets a chain that fits, but not the head that somebody kept."""
    honest = entries(4)
    noted = honest[1].sha256
    assert 4 == verify_export(export_lines(honest), noted).entries
    other = [Entry(number=1, at=1, actor="eve", via="api", operation="a.b", subject="c/d", previous=NOTHING)]
    assert 1 == verify_export(export_lines(other)).entries
    with pytest.raises(BrokenChainError, match="does not contain the head"):
        verify_export(export_lines(other), noted)


def test_a_chain_takes_only_what_follows() -> None:
    """The same entry twice, or one of another chain, is refused and changes nothing."""
    first, second, _ = entries(3)
    chain = Chain()
    chain.follow(first, first.sha256)
    for wrong, sha256 in ((first, first.sha256), (second, first.sha256)):
        with pytest.raises(BrokenChainError):
            chain.follow(wrong, sha256)
    assert Head(1, first.sha256) == chain.head
    chain.follow(second, second.sha256)
    assert Head(2, second.sha256) == chain.head
