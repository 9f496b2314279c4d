"""What a check says: that something holds, or that it does not apply to this service."""

from typing import Any

from deploy.check.service import Answer, Service


class Failed(Exception):
    """The contract is not kept; the message says what was found."""


class NotHere(Exception):
    """The check does not apply to this service; the message says why."""


def hold(condition: object, otherwise: str) -> None:
    """Fail by these words unless the condition holds."""
    if not condition:
        raise Failed(otherwise)


def status(answer: Answer, *wanted: int) -> Answer:
    """The answer, which must have one of these statuses; one that asks for another token ends the check."""
    if answer.status in (401, 403) and answer.status not in wanted:
        raise NotHere(f"the token given is not enough: {answer.status} {answer.body[:200].decode(errors='replace')}")
    hold(
        answer.status in wanted,
        f"expected {' or '.join(map(str, wanted))}, found {answer.status}: {answer.body[:200]!r}",
    )
    return answer


def problem(answer: Answer, *wanted: int) -> None:
    """It is a problem document (RFC 9457) of one of these statuses."""
    status(answer, *wanted)
    hold(answer.media_type == "application/problem+json", f"expected problem JSON, found {answer.media_type}")
    document = answer.json
    hold(
        document.get("status") == answer.status,
        f"the problem says status {document.get('status')}, the answer {answer.status}",
    )
    hold({"type", "title", "detail"} <= document.keys(), f"the problem has only {', '.join(document)}")


def document(service: Service) -> dict[str, Any]:
    """The service's own OpenAPI document."""
    found: dict[str, Any] = status(service.get("/openapi.json"), 200).json
    return found


def model(service: Service) -> str:
    """A model that the service has, by its document."""
    parameter = document(service)["components"]["parameters"]["Model"]
    name = (parameter["schema"].get("enum") or [parameter.get("example")])[0]
    if service.get(f"/v1/models/{name}").status == 404:
        raise NotHere(f"the document names no model that is here ({name})")
    return str(name)
