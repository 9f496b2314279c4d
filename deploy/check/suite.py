"""The checks. Each is a function whose first line says what holds; it fails by `Failed` and passes over by `NotHere`.

Nothing here changes the service or ends it: what is sent is read-only, or refused by any service that keeps the contract.
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

from deploy.check.documents import errors_of
from deploy.check.service import Answer, Service, Unreachable

Check = Callable[[Service], None]
CHECKS: list[Check] = []
STATES = {"starting", "loading", "warming", "ready", "degraded", "draining", "stopped"}


class Failed(Exception):
    """The contract is not kept; the message says what was found."""


class NotHere(Exception):
    """The check does not apply to this service; the message says why."""


@dataclass(frozen=True)
class Result:
    """What came of one check."""

    name: str
    title: str
    outcome: Literal["passed", "failed", "not here"]
    reason: str
    seconds: float


def run(service: Service) -> Iterator[Result]:
    """Every check, one after the other. Raises Unreachable when nobody answers at all."""
    service.request("GET", "/health/live")
    for check in CHECKS:
        began = time.perf_counter()
        outcome: Literal["passed", "failed", "not here"] = "passed"
        reason = ""
        try:
            check(service)
        except NotHere as error:
            outcome, reason = "not here", str(error)
        except Failed as error:
            outcome, reason = "failed", str(error)
        except (Unreachable, ValueError, KeyError, TypeError) as error:
            outcome, reason = "failed", f"{type(error).__name__}: {error}"
        title = (check.__doc__ or "").strip().splitlines()[0]
        yield Result(check.__name__, title, outcome, reason, time.perf_counter() - began)


def contract(check: Check) -> Check:
    CHECKS.append(check)
    return check


def hold(condition: object, otherwise: str) -> None:
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
    status(answer, *wanted)
    hold(answer.media_type == "application/problem+json", f"expected problem JSON, found {answer.media_type}")
    document = answer.json
    hold(
        document.get("status") == answer.status,
        f"the problem says status {document.get('status')}, the answer {answer.status}",
    )
    hold({"type", "title", "detail"} <= document.keys(), f"the problem has only {', '.join(document)}")


def document(service: Service) -> dict[str, Any]:
    found: dict[str, Any] = status(service.get("/openapi.json"), 200).json
    return found


def model(service: Service) -> str:
    """A model that the service has, by its document."""
    parameter = document(service)["components"]["parameters"]["Model"]
    name = (parameter["schema"].get("enum") or [parameter.get("example")])[0]
    if service.get(f"/v1/models/{name}").status == 404:
        raise NotHere(f"the document names no model that is here ({name})")
    return str(name)


@contract
def health(service: Service) -> None:
    """/health says the state, every check with its reason and since when, and the last changes"""
    answer = status(service.get("/health"), 200, 503)
    body = answer.json
    hold(body["state"] in STATES, f"state {body['state']!r}")
    hold((body["status"] == "pass") == (answer.status == 200), f"{answer.status} with status {body['status']!r}")
    for name, check in body["checks"].items():
        hold({"status", "reason", "since"} <= check.keys(), f"check {name} has only {', '.join(check)}")
    hold(all({"from", "to", "reason", "at"} <= change.keys() for change in body["history"]), "a change lacks a member")
    hold(answer.status == 200 or "retry-after" in answer.headers, "503 without Retry-After")


@contract
def health_is_open(service: Service) -> None:
    """/health/live, /ready and /startup ask for no token, and HEAD answers as GET does"""
    for path in ("/health/live", "/health/ready", "/health/startup"):
        got = service.request("GET", path, token=False)
        hold(got.status in (200, 503), f"{path} answers {got.status}")
        head = service.request("HEAD", path, token=False)
        hold((head.status, head.body) == (got.status, b""), f"HEAD {path} answers {head.status}, GET {got.status}")


@contract
def alive(service: Service) -> None:
    """/health/live is 200 while the service answers"""
    status(service.get("/health/live"), 200)


@contract
def request_id(service: Service) -> None:
    """X-Request-Id comes back as it was sent, and is made up where none or a bad one came"""
    hold(service.get("/health", X_Request_Id="check-7").headers.get("x-request-id") == "check-7", "not the one sent")
    made = service.get("/health").headers.get("x-request-id")
    hold(made, "none on an answer")
    bad = service.get("/health", X_Request_Id="no spaces please").headers.get("x-request-id")
    hold(bad and bad != "no spaces please", "one with spaces came back")
    hold(service.get("/nothing-here").headers.get("x-request-id"), "none on an error")


@contract
def unknown_resource(service: Service) -> None:
    """What is not there is 404 (or asks for a token first), as a problem document"""
    problem(service.get("/nothing-here"), 404, 401, 403)


@contract
def unknown_method(service: Service) -> None:
    """A method that is not offered is 405, with Allow"""
    answer = service.request("DELETE", "/health")
    problem(answer, 405)
    hold("GET" in answer.headers.get("allow", ""), "Allow does not name GET")


@contract
def openapi(service: Service) -> None:
    """/openapi.json is OpenAPI 3.1 under the service's own name and version, and has the contract's resources"""
    found = document(service)
    hold(str(found["openapi"]).startswith("3.1."), f"version {found['openapi']}")
    hold(found["info"]["title"] and found["info"]["version"], "no name or no version")
    wanted = {"/health", "/health/live", "/health/ready", "/health/startup", "/shutdown", "/metrics", "/changes"}
    wanted |= {"/changes/current", "/docs", "/openapi.json", "/v1/models/{model}", "/v1/models/{model}:predict", "/v2"}
    hold(not wanted - found["paths"].keys(), f"it lacks {', '.join(sorted(wanted - found['paths'].keys()))}")


@contract
def pages_are_as_documented(service: Service) -> None:
    """What the resources without parameters answer is what the document says: status, type, body"""
    found = document(service)
    wrong = []
    for path, item in found["paths"].items():
        if "get" not in item or "{" in path:
            continue
        answer = service.get(path)
        wrong += [f"GET {path}: {error}" for error in errors_of(found, item["get"], answer)]
    hold(not wrong, "; ".join(wrong))


@contract
def docs(service: Service) -> None:
    """/docs is a page that loads nothing from elsewhere, under a strict Content-Security-Policy"""
    answer = status(service.get("/docs"), 200)
    hold(answer.media_type == "text/html", f"it is {answer.media_type}")
    policy = answer.headers.get("content-security-policy", "")
    hold("default-src 'none'" in policy, f"the policy is {policy!r}")
    hold("unsafe-inline" not in policy and "unsafe-eval" not in policy, "the policy lets inline scripts or eval run")
    page = answer.body.decode()
    hold('="/' not in page and "://" not in page, "it has an address that is not relative to it")


@contract
def metrics(service: Service) -> None:
    """/metrics is Prometheus text, or OpenMetrics for who asks for that"""
    plain = status(service.get("/metrics"), 200)
    hold(plain.media_type == "text/plain", f"it is {plain.media_type}")
    hold(b"\n# TYPE " in plain.body, "it has no metric")
    other = status(service.get("/metrics", Accept="application/openmetrics-text; version=1.0.0"), 200)
    hold(other.media_type == "application/openmetrics-text", f"asked for OpenMetrics, it is {other.media_type}")
    hold(other.body.endswith(b"# EOF\n"), "OpenMetrics without its end")


@contract
def what_runs(service: Service) -> None:
    """/changes/current says what runs: bundle, versions, configuration, instance, state"""
    answer = status(service.get("/changes/current"), 200)
    body = answer.json
    named = answer.headers.get("x-bundle")
    bundle = body["bundle"]
    hold(
        named == (f"{bundle['name']}@{bundle['version']}" if bundle else None),
        f"X-Bundle says {named}, the page {bundle}",
    )
    hold(body["state"] in STATES, f"state {body['state']!r}")
    hold(str(body["config_digest"]).startswith("sha256:"), "no digest of the configuration")


@contract
def history(service: Service) -> None:
    """/changes is the history in pages, newest first, with an ETag that saves sending it again"""
    answer = status(service.get("/changes?limit=1"), 200)
    hold(len(answer.json["releases"]) <= 1, "more than the one release asked for")
    tag = answer.headers.get("etag", "")
    hold(tag, "no ETag")
    again = service.get("/changes?limit=1", If_None_Match=tag)
    hold((again.status, again.body) == (304, b""), f"unchanged, and answered {again.status}")
    problem(service.get("/changes?limit=0"), 400)


@contract
def shutdown_needs_a_valid_document(service: Service) -> None:
    """/shutdown refuses what it does not understand, without ending anything"""
    problem(service.post("/shutdown", {"grace_seconds": -1}), 400)
    problem(service.request("GET", "/shutdown"), 405)


@contract
def tokens(service: Service) -> None:
    """Where tokens are asked for, none and a bad one are answered 401 with WWW-Authenticate"""
    found = document(service)
    closed = [
        path
        for path, item in found["paths"].items()
        if "{" not in path and item.get("get", {}).get("security") not in (None, [])
    ]
    if not closed:
        raise NotHere("no resource asks for a token")
    for headers in ({}, {"Authorization": "Bearer not.a.token"}, {"Authorization": "Basic YTpi"}):
        answer = service.request("GET", closed[0], headers=headers, token=False)
        problem(answer, 401)
        hold(answer.headers.get("www-authenticate", "").startswith("Bearer"), "401 without WWW-Authenticate: Bearer")


@contract
def own_endpoint(service: Service) -> None:
    """/predict answers the example of its document, as documented, and refuses what is no document with 4xx"""
    found = document(service)
    operation = found["paths"].get("/predict", {}).get("post")
    if operation is None:
        raise NotHere("the service has no endpoint of its own")
    status(service.request("POST", "/predict", b"{", {"Content-Type": "application/json"}), 400, 422)
    body = operation["requestBody"]["content"].get("application/json", {})
    examples = [body["example"]] if "example" in body else [one["value"] for one in body.get("examples", {}).values()]
    if not examples:
        raise NotHere("its document has no example of a request")
    answer = status(service.post("/predict", examples[0]), 200)
    wrong = errors_of(found, operation, answer)
    hold(not wrong, "; ".join(wrong))


@contract
def v1_predicts(service: Service) -> None:
    """/v1 predicts by what the model's own metadata says that it takes"""
    name = model(service)
    metadata = status(service.get(f"/v1/models/{name}/metadata"), 200).json["metadata"]["signature_def"][
        "signature_def"
    ]
    signature = metadata.get("serving_default")
    if signature is None:
        raise NotHere("the model has no signature serving_default")
    row = {tensor: _zeros(info) for tensor, info in signature["inputs"].items()}
    answer = status(service.post(f"/v1/models/{name}:predict", {"inputs": row}), 200)
    hold("outputs" in answer.json, f"it answers {', '.join(answer.json)}")


@contract
def v1_refuses(service: Service) -> None:
    """/v1 tells errors as TensorFlow Serving does: `{"error": …}`, 404 for a model that is not there, 400 for no input"""
    name = model(service)
    for answer, wanted in (
        (service.get("/v1/models/no-such-model"), (404, 403)),
        (service.post(f"/v1/models/{name}:predict", {}), (400,)),
        (service.request("POST", f"/v1/models/{name}:predict", b"{"), (400,)),
    ):
        status(answer, *wanted)
        hold(set(answer.json) == {"error"}, f"an error with {', '.join(answer.json)}")


@contract
def v2(service: Service) -> None:
    """/v2 says what the server and the model are, and whether they are ready"""
    name = model(service)
    hold({"name", "version", "extensions"} <= status(service.get("/v2"), 200).json.keys(), "/v2 lacks a member")
    hold(status(service.get("/v2/health/live"), 200).json == {"live": True}, "/v2/health/live")
    described = status(service.get(f"/v2/models/{name}"), 200).json
    hold({"name", "platform", "inputs", "outputs"} <= described.keys(), f"the model has only {', '.join(described)}")
    problem(service.get("/v2/models/no-such-model"), 404, 403)


@contract
def one_bundle(service: Service) -> None:
    """Every answer names the same bundle"""
    hold(len(service.bundles) == 1, f"answers named {', '.join(map(str, sorted(map(str, service.bundles))))}")


def _zeros(info: dict[str, Any]) -> Any:
    """The smallest input of this type and shape."""
    value: Any = "" if info["dtype"] == "DT_STRING" else False if info["dtype"] == "DT_BOOL" else 0
    for dimension in reversed(info["tensor_shape"].get("dim", [])):
        value = [value] * max(1, int(dimension["size"]))
    return value
