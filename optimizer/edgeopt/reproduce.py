"""Building a bundle again from its own lineage, and telling why, if the result is another.

The lineage says model, data, settings and the recipe of each variant, so nothing is searched, timed or judged: the
files that devices run and test themselves with are made again and compared byte by byte. Evidence is not made again:
``edgeopt verify`` holds it against the files. How a build is done is the :data:`Rebuild` given. Example::

    found = reproduce(open_bundle(directory), rebuild, Moved(data={"data": "elsewhere"}), (None, "x86_64"))
    found.identical, found.causes
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from pathlib import Path
from typing import Any

import msgspec

from edgeopt import lineage
from edgeopt.packing import REPORT_JSON
from edgeopt_contract.bundle import Bundle
from edgeopt_contract.errors import BundleError
from edgeopt_contract.manifest import Manifest, Role
from edgeopt_contract.values import digest_of

__all__ = [
    "Comparison",
    "Moved",
    "Outcome",
    "Rebuild",
    "Rebuilt",
    "Reproduction",
    "explain_difference",
    "machine_of",
    "reproduce",
]

_LISTED = 8  # packages named in one sentence


class Outcome(StrEnum):
    """What came of one file."""

    IDENTICAL = "identical"
    DIFFERENT = "different"
    MISSING = "missing"  # the rebuild did not make it
    NEW = "new"  # only the rebuild has it
    NOT_REBUILT = "not rebuilt"  # evidence


@dataclass(frozen=True, slots=True)
class Rebuilt:
    """What a rebuild made: files by name, and the Merkle roots of the splits that it read."""

    files: Mapping[str, bytes]
    roots: Mapping[str, str]


Rebuild = Callable[[Manifest], Rebuilt]
"""Builds the variants, golden file and profile that a manifest's lineage describes; writes nothing that stays."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Moved:
    """What lies elsewhere now: the model, and the sources of data by purpose (``data``, ``calibration``, …)."""

    model: str | None = None
    data: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Comparison:
    """One file of the bundle or of the rebuild."""

    path: str
    outcome: Outcome


@dataclass(frozen=True, slots=True)
class Reproduction:
    """Every file with what came of it; ``causes`` explain a difference, in words, and are empty without one."""

    files: tuple[Comparison, ...]
    causes: tuple[str, ...]

    @property
    def identical(self) -> bool:
        """Whether each file that can be made again is the same to the last bit."""
        return all(one.outcome in (Outcome.IDENTICAL, Outcome.NOT_REBUILT) for one in self.files)


def reproduce(bundle: Bundle, rebuild: Rebuild, moved: Moved, machines: tuple[str | None, str]) -> Reproduction:
    """Rebuild and compare; ``machines`` are the one that made the bundle, if that is known, and this one.

    Raises :class:`BundleError` when the lineage does not say enough, and what ``rebuild`` raises.
    """
    manifest = bundle.manifest
    relocated = replace(manifest, lineage=_relocated(manifest.lineage, moved))
    rebuilt = rebuild(relocated)
    files = tuple(_compare(manifest, rebuilt.files))
    found = Reproduction(files, ())
    if found.identical:
        return found
    now = lineage.record(splits=rebuilt.roots, settings=relocated.lineage["settings"])
    return Reproduction(files, tuple(explain_difference(manifest.lineage, now, machines)))


def machine_of(directory: Path) -> str | None:
    """Return the machine that made the bundle in ``directory``, as the report beside it says; ``None``: not known."""
    try:
        report = msgspec.json.decode((directory / REPORT_JSON).read_bytes())
    except (OSError, UnicodeDecodeError, msgspec.MsgspecError):
        return None  # a bundle that came from elsewhere has no report beside it
    machine = report.get("machine") if isinstance(report, dict) else None
    return machine if isinstance(machine, str) else None


def explain_difference(
    then: Mapping[str, Any], now: Mapping[str, Any], machines: tuple[str | None, str]
) -> Iterator[str]:
    """Yield what is another now than when the bundle was made, in words; pure, never empty."""
    causes = [
        *_model(then.get("settings", {}), now.get("settings", {})),
        *_code(then.get("git"), now.get("git")),
        *_packages(then.get("versions", {}), now.get("versions", {})),
        *_data(then.get("data", {}), now.get("data", {})),
        *_data_versions(then.get("data_versions", {}), now.get("data_versions", {})),
    ]
    before, here = machines
    if before is not None and before != here:
        causes.append(f"other CPU: {before} then, {here} now; kernels round differently")
    yield from causes
    if not causes:
        yield (
            "code, packages, data and CPU are the same"
            + (
                " (as far as is known: the CPU that made the bundle is not recorded beside it)"
                if before is None
                else ""
            )
            + ": something in the build does not repeat, for instance a model factory without a fixed seed"
        )


def _relocated(then: Mapping[str, Any], moved: Moved) -> dict[str, Any]:
    settings = then.get("settings")
    if not isinstance(settings, Mapping) or not isinstance(settings.get("data"), Mapping) or "model" not in settings:
        raise BundleError("the lineage of this bundle names no model and data: it cannot be built again")
    given = dict(settings["data"])
    unknown = sorted(set(moved.data) - set(given))
    if unknown:
        sources = ", ".join(key for key in lineage.PURPOSES if key in given)
        raise BundleError(f"this bundle was made without {unknown[0]}: it was made from {sources}; give these anew")
    return {
        **then,
        "settings": {**settings, "model": moved.model or settings["model"], "data": {**given, **moved.data}},
    }


def _compare(manifest: Manifest, rebuilt: Mapping[str, bytes]) -> Iterator[Comparison]:
    listed = {entry.path: entry for entry in manifest.files}
    for path, entry in listed.items():
        if path in rebuilt:
            same = digest_of(rebuilt[path]) == entry.sha256
            yield Comparison(path, Outcome.IDENTICAL if same else Outcome.DIFFERENT)
        else:
            yield Comparison(path, Outcome.NOT_REBUILT if entry.role is Role.EVIDENCE else Outcome.MISSING)
    yield from (Comparison(path, Outcome.NEW) for path in sorted(set(rebuilt) - set(listed)))


def _model(then: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[str]:
    before, here = then.get("model"), now.get("model")
    if before != here:
        yield f"the model was given as {before} then, as {here} now: it may be another"


def _code(then: Mapping[str, Any] | None, now: Mapping[str, Any] | None) -> Iterator[str]:
    if then is None or now is None:
        if then is not now:
            where = "outside a git repository" if then is None else f"at the commit {then['commit'][:12]}"
            yield f"other code, perhaps: the bundle was made {where}, this is {'one' if then is None else 'none'}"
        return
    if then["commit"] != now["commit"]:
        yield f"other code: the commit was {then['commit'][:12]}, it is {now['commit'][:12]} now"
    if then.get("changes") != now.get("changes"):
        yield {
            (True, True): "other code: there were uncommitted changes then, and there are others now",
            (True, False): "other code: the bundle was made with uncommitted changes, which no commit has",
            (False, True): "other code: there are uncommitted changes now",
        }[bool(then["dirty"]), bool(now["dirty"])]


def _packages(then: Mapping[str, str], now: Mapping[str, str]) -> Iterator[str]:
    changed = [
        f"{name} {then.get(name, 'absent')} then, {now.get(name, 'absent')} now"
        for name in sorted({*then, *now})
        if then.get(name) != now.get(name)
    ]
    if changed:
        more = f"; and {len(changed) - _LISTED} more" if len(changed) > _LISTED else ""
        yield f"other packages: {'; '.join(changed[:_LISTED])}{more}"


def _data(then: Mapping[str, str], now: Mapping[str, str]) -> Iterator[str]:
    for split, root in then.items():
        if now.get(split) != root:
            yield f"other data: the split {split} has the root {now.get(split, 'none')[:12]}, it was {root[:12]}"


def _data_versions(then: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[str]:
    for purpose in sorted({*then, *now}):
        before, here = (found.get(purpose, {}).get("version", "none") for found in (then, now))
        if before != here:
            yield f"other version of {purpose}: {before} then, {here} now"
