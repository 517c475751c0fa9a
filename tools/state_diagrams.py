"""Write docs/states.md from the three transition tables, so that the drawing cannot differ from the rules.

It reads the ``TRANSITIONS`` of ``edgeopt_agent.update.transitions``, ``edgeopt_agent.shadow.transitions`` and
``edgeopt_fleet.rollout``, each a dict of (state, event) to the next state.
Edges between the same two states share one arrow. Example::

    python -m tools.state_diagrams           # writes docs/states.md
    python -m tools.state_diagrams --check   # exits with 1 when it is stale
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import Any

__all__ = ["mermaid", "page"]

PAGE = Path(__file__).parent.parent / "docs" / "states.md"

Transitions = Mapping[Any, StrEnum]  # (state, event) to state

_TEMPLATE = """# The life cycles

Generated from the transition tables by `make diagrams`; do not edit. Events that leave a state as it is are not drawn,
they stand in the list below each diagram. A device passes over an event that
its state does not list; the fleet refuses it (HTTP 409).

## An update on a device

`edgeopt_agent.update.transitions` is the table, `edgeopt_agent.update.lifecycle` the frozen record, the rules and one
`step(record, event, now) -> (record, commands)`. The agent saves the record and then acts; after a restart it enters
the saved state again. A command may be carried out twice.

{device}

## A shadow on a device

`edgeopt_agent.shadow.transitions` and `edgeopt_agent.shadow.lifecycle`: the same shape, much smaller, for nothing
switches. It lives beside an update and changes nothing about it.

{shadow}

## A rollout on the fleet

`edgeopt_fleet.rollout`: the same shape, its table is in `states.py`. The gate's verdicts, the operator's orders and the
devices' reports arrive as events.

{rollout}
"""


def mermaid(transitions: Transitions, start: StrEnum) -> str:
    """Return a Mermaid state diagram of ``transitions`` that begins in ``start``."""
    arrows: dict[tuple[str, str], list[str]] = {}
    for (state, event), following in transitions.items():
        if state != following:
            arrows.setdefault((state.value, following.value), []).append(event.value)
    sources = {source for source, _ in arrows}
    ends = sorted({following.value for following in transitions.values()} - sources)
    lines = ["```mermaid", "stateDiagram-v2", f"    [*] --> {start.value}"]
    lines += [f"    {source} --> {target}: {', '.join(events)}" for (source, target), events in arrows.items()]
    lines += [f"    {end} --> [*]" for end in ends]
    return "\n".join([*lines, "```"])


def _unchanged(transitions: Transitions) -> str:
    """Return a list of the states that an event enters again."""
    stays: dict[str, list[str]] = {}
    for (state, event), following in transitions.items():
        if state == following:
            stays.setdefault(state.value, []).append(event.value)
    if not stays:
        return "No event enters the state in which it happens."
    lines = [f"- `{state}`: {', '.join(events)}" for state, events in stays.items()]
    return "\n".join(["Entered again:", "", *lines])


def page() -> str:
    """Return docs/states.md as it should be."""
    from edgeopt_agent.shadow import transitions as shadow
    from edgeopt_agent.update import transitions
    from edgeopt_fleet import rollout

    parts = {
        name: f"{mermaid(table, start)}\n\n{_unchanged(table)}"
        for name, table, start in (
            ("device", transitions.TRANSITIONS, transitions.State.IDLE),
            ("shadow", shadow.TRANSITIONS, shadow.State.IDLE),
            ("rollout", rollout.TRANSITIONS, rollout.State.DRAFT),
        )
    }
    return _TEMPLATE.format(**parts)


def main(arguments: list[str]) -> int:
    """Write the page, or compare it."""
    expected = page()
    if arguments == ["--check"]:
        if PAGE.read_text(encoding="utf-8") == expected:
            return 0
        print(f"{PAGE.name} is stale: run 'make diagrams'", file=sys.stderr)
        return 1
    PAGE.write_text(expected, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
