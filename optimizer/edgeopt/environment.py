"""The environment lock: the installed distributions that can change what a build gives, with their versions.

That is everything that edgeopt's own extras for building need, directly or not, and the distributions of the modules
that the user's model and data come from. Tools beside them (a test runner, an editor) are left out, so that installing
one does not change a bundle. It reads the metadata of installed packages, nothing else. Example::

    lock = versions_of(["examples.digits"])     # {"numpy": "2.4.6", "onnx": "1.23.2", …}
    lock_digest(lock)                           # 64 hex digits
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from importlib import metadata

from edgeopt_contract.errors import MissingExtraError
from edgeopt_contract.values import canonical_json, digest_of

__all__ = ["lock_digest", "versions_of"]

_SELF = "edgeopt"
_EXTRAS = ("data", "litert", "openvino", "optimizer", "pruning")


def versions_of(modules: Iterable[str] = ()) -> dict[str, str]:
    """Return the versions by name, sorted; ``modules`` are the dotted names of modules that the user named.

    Raises :class:`MissingExtraError` when the optimizer is not installed whole.
    """
    try:
        from packaging.requirements import Requirement
    except ModuleNotFoundError as error:
        raise MissingExtraError("packaging", "optimizer") from error
    waiting = [f"{_SELF}[{','.join(_EXTRAS)}]", *_distributions(modules)]
    seen: set[tuple[str, frozenset[str]]] = set()
    versions: dict[str, str] = {}
    while waiting:
        wanted = Requirement(waiting.pop())
        name, extras = _normal(wanted.name), frozenset(wanted.extras)
        if (name, extras) in seen:
            continue
        seen.add((name, extras))
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue  # an extra that is not installed takes no part
        waiting.extend(_needs(name, extras))
    return dict(sorted(versions.items()))


def lock_digest(versions: Mapping[str, str]) -> str:
    """Return the SHA-256 (hex) of ``versions``, whatever their order."""
    return digest_of(canonical_json(dict(versions)))


def _needs(name: str, extras: frozenset[str]) -> Iterator[str]:
    """Yield what ``name`` with ``extras`` requires on this platform."""
    from packaging.requirements import Requirement

    for line in metadata.requires(name) or ():
        requirement = Requirement(line)
        marker = requirement.marker
        if marker is None or any(marker.evaluate({"extra": extra}) for extra in ("", *extras)):
            yield requirement.name + (f"[{','.join(sorted(requirement.extras))}]" if requirement.extras else "")


def _distributions(modules: Iterable[str]) -> list[str]:
    """Return the distributions that the modules came with; code of the working directory has none, git knows it."""
    first_names = {module.partition(".")[0] for module in modules}
    if not first_names:
        return []
    owners = metadata.packages_distributions()
    return sorted({owner for name in first_names for owner in owners.get(name, ())})


def _normal(name: str) -> str:
    """Return the normalized name of a distribution (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()
