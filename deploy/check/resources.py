"""What the contract's resources promise: health, documents, metrics, changes, shutdown, and who gets in."""

from deploy.check.documents import errors_of
from deploy.check.expectations import NotHere, document, hold, problem, status
from deploy.check.service import Service

STATES = {"starting", "loading", "warming", "ready", "degraded", "draining", "stopped"}


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


def health_is_open(service: Service) -> None:
    """/health/live, /ready and /startup ask for no token, and HEAD answers as GET does"""
    for path in ("/health/live", "/health/ready", "/health/startup"):
        got = service.request("GET", path, token=False)
        hold(got.status in (200, 503), f"{path} answers {got.status}")
        head = service.request("HEAD", path, token=False)
        hold((head.status, head.body) == (got.status, b""), f"HEAD {path} answers {head.status}, GET {got.status}")


def alive(service: Service) -> None:
    """/health/live is 200 while the service answers"""
    status(service.get("/health/live"), 200)


def request_id(service: Service) -> None:
    """X-Request-Id comes back as it was sent, and is made up where none or a bad one came"""
    hold(service.get("/health", X_Request_Id="check-7").headers.get("x-request-id") == "check-7", "not the one sent")
    made = service.get("/health").headers.get("x-request-id")
    hold(made, "none on an answer")
    bad = service.get("/health", X_Request_Id="no spaces please").headers.get("x-request-id")
    hold(bad and bad != "no spaces please", "one with spaces came back")
    hold(service.get("/nothing-here").headers.get("x-request-id"), "none on an error")


def unknown_resource(service: Service) -> None:
    """What is not there is 404 (or asks for a token first), as a problem document"""
    problem(service.get("/nothing-here"), 404, 401, 403)


def unknown_method(service: Service) -> None:
    """A method that is not offered is 405, with Allow"""
    answer = service.request("DELETE", "/health")
    problem(answer, 405)
    hold("GET" in answer.headers.get("allow", ""), "Allow does not name GET")


def openapi(service: Service) -> None:
    """/openapi.json is OpenAPI 3.1 under the service's own name and version, and has the contract's resources"""
    found = document(service)
    hold(str(found["openapi"]).startswith("3.1."), f"version {found['openapi']}")
    hold(found["info"]["title"] and found["info"]["version"], "no name or no version")
    wanted = {"/health", "/health/live", "/health/ready", "/health/startup", "/shutdown", "/metrics", "/changes"}
    wanted |= {"/changes/current", "/docs", "/openapi.json", "/v1/models/{model}", "/v1/models/{model}:predict", "/v2"}
    hold(not wanted - found["paths"].keys(), f"it lacks {', '.join(sorted(wanted - found['paths'].keys()))}")


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


def docs(service: Service) -> None:
    """/docs is a page that loads nothing from elsewhere, under a strict Content-Security-Policy"""
    answer = status(service.get("/docs"), 200)
    hold(answer.media_type == "text/html", f"it is {answer.media_type}")
    policy = answer.headers.get("content-security-policy", "")
    hold("default-src 'none'" in policy, f"the policy is {policy!r}")
    hold("unsafe-inline" not in policy and "unsafe-eval" not in policy, "the policy lets inline scripts or eval run")
    page = answer.body.decode()
    hold('="/' not in page and "://" not in page, "it has an address that is not relative to it")


def metrics(service: Service) -> None:
    """/metrics is Prometheus text, or OpenMetrics for who asks for that"""
    plain = status(service.get("/metrics"), 200)
    hold(plain.media_type == "text/plain", f"it is {plain.media_type}")
    hold(b"\n# TYPE " in plain.body, "it has no metric")
    other = status(service.get("/metrics", Accept="application/openmetrics-text; version=1.0.0"), 200)
    hold(other.media_type == "application/openmetrics-text", f"asked for OpenMetrics, it is {other.media_type}")
    hold(other.body.endswith(b"# EOF\n"), "OpenMetrics without its end")


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


def history(service: Service) -> None:
    """/changes is the history in pages, newest first, with an ETag that saves sending it again"""
    answer = status(service.get("/changes?limit=1"), 200)
    hold(len(answer.json["releases"]) <= 1, "more than the one release asked for")
    tag = answer.headers.get("etag", "")
    hold(tag, "no ETag")
    again = service.get("/changes?limit=1", If_None_Match=tag)
    hold((again.status, again.body) == (304, b""), f"unchanged, and answered {again.status}")
    problem(service.get("/changes?limit=0"), 400)


def shutdown_needs_a_valid_document(service: Service) -> None:
    """/shutdown refuses what it does not understand, without ending anything"""
    problem(service.post("/shutdown", {"grace_seconds": -1}), 400)
    problem(service.request("GET", "/shutdown"), 405)


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
