"""What a comparison leaves behind: JSON with the rows, the claims, and the machine as each model found it.

A run that was interrupted, or made model by model, goes on with the rows that are there already. Example::

    record = Record.read(Path("comparison.json"))
    record.add(rows, machine())
    record.write(Path("comparison.json"))
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from benchmarks.optimizer.cases import CASES
from benchmarks.optimizer.claims import Claim, claims
from benchmarks.optimizer.rows import Row

__all__ = ["SCHEMA", "Record"]

SCHEMA = 1


@dataclass(slots=True)
class Record:
    """The rows of all models, the machine (versions, commit, load) by model, and why models were left out."""

    rows: list[Row] = field(default_factory=list)
    machines: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)

    @classmethod
    def read(cls, path: Path) -> Record:
        """Return what lies at ``path``. Raises ``ValueError`` for another schema, or ``OSError``."""
        told = json.loads(path.read_bytes())
        if told.get("schema") != SCHEMA:
            raise ValueError(f"{path} has schema {told.get('schema')}: expected {SCHEMA}; write to another file")
        return cls(msgspec.convert(told["rows"], list[Row]), told["machines"], told["left_out"])

    @property
    def claims(self) -> list[Claim]:
        """The claims over all models."""
        return claims(self.rows, CASES)

    def add(self, rows: Sequence[Row], machine: Mapping[str, Any]) -> None:
        """Take the rows of one model, in place of those it has of it."""
        case = rows[0].case
        self.rows = [row for row in self.rows if row.case != case] + list(rows)
        self.machines[case] = machine

    def write(self, path: Path) -> None:
        """Write the JSON."""
        told = {
            "schema": SCHEMA,
            "machines": self.machines,
            "claims": [dataclasses.asdict(claim) for claim in self.claims],
            "left_out": self.left_out,
            "rows": [dataclasses.asdict(row) for row in self.rows],
        }
        path.write_text(json.dumps(told, indent=2) + "\n")
