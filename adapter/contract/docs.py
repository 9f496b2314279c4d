"""`/openapi.json` and `/docs`: the contract, to machines and to people.

`openapi.yaml` is the source. The build (`setup.py`) writes it as `openapi.json` and copies Swagger UI beside our page in
`swagger/`, so neither a YAML parser nor a package of assets is needed where the adapter runs.
"""

import html
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib.resources import files
from string import Template
from typing import Any

import orjson

import adapter
from adapter.bundle.manifest import Manifest
from adapter.exchange import Exchange, Handler, response
from adapter.http.answer import Answer

ASSETS = {
    "start.js": "text/javascript; charset=utf-8",
    "swagger-ui-bundle.js": "text/javascript; charset=utf-8",
    "swagger-ui.css": "text/css; charset=utf-8",
}

# Swagger UI runs without inline scripts and styles; its style sheet has images as data: URLs (CSP Level 3).
_POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' data:",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    )
)
_HEADERS = {"X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer"}


@dataclass(frozen=True)
class Endpoint:
    """What the bundle's own resource, `POST /predict`, takes and gives: content types with their schemas and examples."""

    request: Mapping[str, Any]
    """Content type → OpenAPI's media type object: `{"application/json": {"schema": {...}, "example": ...}}`."""
    response: Mapping[str, Any]
    """The same of the answer with status 200."""
    summary: str = ""
    schemas: Mapping[str, Any] = field(default_factory=dict)
    """What they refer to, by its name among the document's schemas."""


def routes(
    bundle: Manifest | None, endpoint: Endpoint | None = None, demand: Callable[[str], str] | None = None
) -> dict[str, dict[str, Handler]]:
    """The documentation under the name and version of `bundle`, or as the gateway that runs none.

    `endpoint` is the bundle's own resource, if it has one. `demand` tells what a path asks for, a scope or `open`, `any`,
    `closed`; None where no token is asked for.
    """
    here = files("adapter.contract")
    document = orjson.loads((here / "openapi.json").read_bytes())
    name, version = (bundle.name, bundle.version) if bundle else ("Tandem gateway", adapter.__version__)
    _name(document, name, version, bundle)
    _describe(document, endpoint)
    _secure(document, demand)
    template = Template((here / "swagger" / "index.html").read_text(encoding="utf-8"))
    page = template.substitute(title=html.escape(f"{name} {version}"))
    return {
        "/openapi.json": _static(orjson.dumps(document), "application/json", {"Cache-Control": "no-cache"}),
        "/docs": _static(
            page.encode(),
            "text/html; charset=utf-8",
            {"Cache-Control": "no-cache", "Content-Security-Policy": _POLICY},
        ),
    } | {
        f"/docs/{asset}": _static(
            (here / "swagger" / asset).read_bytes(), content_type, {"Cache-Control": "max-age=3600"}
        )
        for asset, content_type in ASSETS.items()
    }


def _name(document: dict[str, Any], name: str, version: str, bundle: Manifest | None) -> None:
    document["info"] |= {"title": name, "version": version}
    if bundle:  # a gateway serves what its TensorFlow Serving has; a bundle knows its models
        model = document["components"]["parameters"]["Model"]
        model["example"] = bundle.models[0].name  # what "Try it out" begins with
        model["schema"] = {"enum": [each.name for each in bundle.models]}
        document["components"]["parameters"]["Version"]["example"] = bundle.models[0].version


def _describe(document: dict[str, Any], endpoint: Endpoint | None) -> None:
    """Put the bundle's own resource in the place of the contract's general one, or leave it out."""
    if endpoint is None:
        del document["paths"]["/predict"]
        document["tags"] = [tag for tag in document["tags"] if tag["name"] != "Service"]
        return
    operation = document["paths"]["/predict"]["post"]
    operation["requestBody"]["content"] = endpoint.request
    operation["responses"]["200"]["content"] = endpoint.response
    document["components"]["schemas"] |= endpoint.schemas
    if endpoint.summary:
        operation["summary"] = endpoint.summary


def _secure(document: dict[str, Any], demand: Callable[[str], str] | None) -> None:
    """What each operation asks for here. OpenAPI has the scopes of a bearer token as roles (3.1, Security Requirement)."""
    if demand is None:
        del document["components"]["securitySchemes"]
    for path, item in document["paths"].items():
        for operation in item.values():
            if demand is None:
                del operation["security"]
                continue
            asked = demand(path)
            operation["security"] = (
                [] if asked == "open" else [{"token": [] if asked in ("any", "closed") else [asked]}]
            )


def _static(body: bytes, content_type: str, headers: dict[str, str]) -> dict[str, Handler]:
    headers = {"Content-Type": content_type, **_HEADERS, **headers}

    async def answer(_: Exchange) -> Answer:
        return response(200, body, headers)

    return {"GET": answer, "HEAD": answer}
