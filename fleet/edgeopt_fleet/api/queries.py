"""Query parameters that an operation does not have are refused: a misspelt filter must not mean no filter.

One dependency of the whole application, which reads from each route what its query may hold. Example::

    app = FastAPI(dependencies=[Depends(refuse_unknown)])
    # GET /api/v1/devices?tags=site=oslo: 422, query: expected some of agent_version, cohort, …, got 'tags'
"""

from __future__ import annotations

from collections.abc import Iterator
from difflib import get_close_matches

from fastapi import Request
from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute

from edgeopt_fleet.problems import InvalidError

__all__ = ["known_parameters", "refuse_unknown"]

_LONGEST_SHOWN = 80


async def refuse_unknown(request: Request) -> None:
    """Raise :class:`InvalidError` for a query parameter that the operation does not have, naming those it has.

    The value is left out: it may be a secret.
    """
    if not request.url.query:
        return
    route = request.scope["route"]
    known = known_parameters(route) if isinstance(route, APIRoute) else ()
    for name in request.query_params:
        if name not in known:
            raise InvalidError(_words(name[:_LONGEST_SHOWN], known))


def known_parameters(route: APIRoute) -> tuple[str, ...]:
    """Return the names of the query parameters of ``route``, sorted."""
    return tuple(sorted(set(_names(route.dependant))))


def _names(dependant: Dependant) -> Iterator[str]:
    """Yield what the endpoint itself asks for, then what its dependencies ask for, like a page."""
    yield from (field.alias for field in dependant.query_params)
    for dependency in dependant.dependencies:
        yield from _names(dependency)


def _words(name: str, known: tuple[str, ...]) -> str:
    if not known:
        return f"query: this operation takes no parameters, got {name!r}"
    near = get_close_matches(name, known, n=1)
    meant = f"; did you mean {near[0]!r}?" if near else ""
    return f"query: expected some of {', '.join(known)}, got {name!r}{meant}"
