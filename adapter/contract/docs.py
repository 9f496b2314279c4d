"""`/openapi.json` and `/docs`: the contract, to machines and to people.

`openapi.yaml` is the source. The build (`setup.py`) writes it as `openapi.json` and copies Swagger UI beside our page in
`swagger/`, so neither a YAML parser nor a package of assets is needed where the adapter runs.
"""

import html
from importlib.resources import files
from string import Template

import orjson
from aiohttp import web

import adapter
from adapter.bundle.manifest import Manifest
from adapter.exchange import Exchange, Handler, response

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


def routes(bundle: Manifest | None) -> dict[str, dict[str, Handler]]:
    """The documentation under the name and version of `bundle`, or as the gateway that runs none."""
    here = files("adapter.contract")
    document = orjson.loads((here / "openapi.json").read_bytes())
    name, version = (bundle.name, bundle.version) if bundle else ("Tandem gateway", adapter.__version__)
    document["info"] |= {"title": name, "version": version}
    if bundle:  # what "Try it out" begins with
        document["components"]["parameters"]["Model"]["example"] = bundle.models[0].name
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


def _static(body: bytes, content_type: str, headers: dict[str, str]) -> dict[str, Handler]:
    headers = {"Content-Type": content_type, **_HEADERS, **headers}

    async def answer(_: Exchange) -> web.StreamResponse:
        return response(200, body, headers)

    return {"GET": answer, "HEAD": answer}
