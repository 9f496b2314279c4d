"""What each resource asks for: one table, from the beginning of a route to a scope.

`open` asks for nothing, `any` for a valid token whatever its scopes, `closed` lets nobody in. What is not in the table,
resources that do not exist among them, asks for a valid token.
"""

from collections.abc import Mapping

OPEN, ANY, CLOSED = "open", "any", "closed"
SCOPES = ("predict", "admin", "metrics", "docs")
DEMANDS = (OPEN, ANY, CLOSED, *SCOPES)

TABLE: Mapping[str, str] = {
    "/health": OPEN,
    "/v2/health": OPEN,
    "/predict": "predict",
    "/v1": "predict",
    "/v2": "predict",
    "/metrics": "metrics",
    "/changes": "docs",
    "/docs": "docs",
    "/openapi.json": "docs",
    "/shutdown": "admin",
}


class PolicyError(Exception):
    """A policy that cannot be read, one line for each mistake."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("; ".join(problems))
        self.problems = problems


class Policy:
    """`TABLE` with the changes of a text like `/metrics=open, /docs=open`.

    Raises:
        PolicyError: naming what is no resource of the table and no demand.
    """

    def __init__(self, changes: str = "") -> None:
        table = dict(TABLE)
        problems = []
        for change in filter(None, (part.strip() for part in changes.split(","))):
            resource, _, demand = (part.strip() for part in change.partition("="))
            if resource not in TABLE or demand not in DEMANDS:
                problems.append(
                    f"{change[:80]!r}: expected RESOURCE=DEMAND with one of {' '.join(TABLE)} and one of {' '.join(DEMANDS)}"
                )
            table[resource] = demand
        if problems:
            raise PolicyError(problems)
        self.table: Mapping[str, str] = table
        self._known: dict[str, str] = {}

    def demand(self, route: str, path: str) -> str:
        """What a request of `route` asks for; `path` tells the health resources of `/v2` from its others."""
        if path in ("/v2/health/live", "/v2/health/ready"):
            return self.table["/v2/health"]
        found = self._known.get(route)
        if found is None:
            found = self._known[route] = self._look_up(route)
        return found

    def _look_up(self, route: str) -> str:
        while route and route not in self.table:
            route = route.rpartition("/")[0]
        return self.table.get(route, ANY)
