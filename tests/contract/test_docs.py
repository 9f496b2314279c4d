"""`/openapi.json` and `/docs` of a running service: its own document, and a page that shows it without help from elsewhere."""

import asyncio
import json
import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from openapi_spec_validator import OpenAPIV31SpecValidator

import adapter as package
from adapter.contract import docs
from adapter.exchange import Handler
from tests.adapters import Adapter
from tests.contract.document import contract

ASSETS = {
    "docs/swagger-ui.css": "text/css; charset=utf-8",
    "docs/swagger-ui-bundle.js": "text/javascript; charset=utf-8",
    "docs/start.js": "text/javascript; charset=utf-8",
}


@pytest.fixture(scope="module")
def adapter(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Adapter]:
    """An adapter with a bundle, and nobody behind it: the documentation needs none."""
    top = tmp_path_factory.mktemp("bundle")
    model = top / "models" / "rain" / "3"
    model.mkdir(parents=True)
    (model / "saved_model.pb").touch()
    (top / "bundle.toml").write_text('name = "weather"\nversion = "2.1.0"\n[[models]]\nname = "rain"\nversion = 3\n')
    with Adapter(bundle=top, tfs_grpc=f"unix://{top}/nobody.sock") as running:
        yield running


class Page(HTMLParser):
    """The addresses that a page loads, and what stands inside its script and style elements."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.loads: list[str] = []
        self.inline: list[str] = []
        self.title = ""
        self._inside = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._inside = tag
        given = dict(attrs)
        self.inline += [name for name in given if name.startswith("on") or name == "style"]
        self.loads += [given[name] or "" for name in ("src", "href") if name in given]

    def handle_endtag(self, _tag: str) -> None:
        self._inside = ""

    def handle_data(self, data: str) -> None:
        if self._inside in ("script", "style"):
            self.inline.append(data)
        elif self._inside == "title":
            self.title += data


def test_the_document_is_served_under_the_bundles_name_and_version(adapter: Adapter) -> None:
    answer = adapter.request("GET", "/openapi.json")
    source = contract().document
    assert answer.status == 200
    assert answer.headers["content-type"] == "application/json"
    assert answer.json["info"] == source["info"] | {"title": "weather", "version": "2.1.0"}
    assert answer.json["components"]["parameters"]["Model"]["example"] == "rain"
    assert answer.json["components"]["parameters"]["Model"]["schema"] == {"enum": ["rain"]}
    assert answer.json["paths"].keys() == source["paths"].keys() - {"/predict"}


def test_where_no_token_is_asked_for_the_document_asks_for_none(adapter: Adapter) -> None:
    document = adapter.request("GET", "/openapi.json").json
    assert "securitySchemes" not in document["components"]
    assert [o for item in document["paths"].values() for o in item.values() if "security" in o] == []


def test_where_a_token_is_asked_for_each_operation_names_its_scope() -> None:
    document = served(docs.routes(None, demand=lambda path: {"/health": "open", "/changes": "any"}.get(path, "admin")))
    assert document["components"]["securitySchemes"]["token"]["scheme"] == "bearer"
    assert document["paths"]["/health"]["get"]["security"] == []
    assert document["paths"]["/changes"]["get"]["security"] == [{"token": []}]
    assert document["paths"]["/shutdown"]["post"]["security"] == [{"token": ["admin"]}]


def test_a_bundles_own_resource_has_its_own_schemas() -> None:
    request = {"application/json": {"schema": {"type": "object", "required": ["image"]}, "example": {"image": ""}}}
    answer = {"application/json": {"schema": {"type": "object"}, "example": {"digit": 7}}}
    document = served(docs.routes(None, docs.Endpoint(request, answer, "Which digit?")))
    operation = document["paths"]["/predict"]["post"]
    assert operation["summary"] == "Which digit?"
    assert operation["requestBody"]["content"] == request
    assert operation["responses"]["200"]["content"] == answer
    assert [error.message for error in OpenAPIV31SpecValidator(document).iter_errors()] == []


def served(routes: dict[str, dict[str, Handler]]) -> dict[str, Any]:
    """The document that these routes serve."""
    body = asyncio.run(routes["/openapi.json"]["GET"](None)).body  # type: ignore[arg-type]
    return json.loads(body)


def test_a_gateway_names_itself(tmp_path: Path) -> None:
    with Adapter(tfs_grpc=f"unix://{tmp_path}/nobody.sock") as gateway:
        info = gateway.request("GET", "/openapi.json").json["info"]
    assert (info["title"], info["version"]) == ("Tandem gateway", package.__version__)


def test_the_document_leaves_the_address_to_where_it_was_found(adapter: Adapter) -> None:
    assert [server["url"] for server in adapter.request("GET", "/openapi.json").json["servers"]] == ["."]


def test_the_page_loads_its_assets_and_nothing_else(adapter: Adapter) -> None:
    answer = adapter.request("GET", "/docs")
    assert answer.status == 200
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    page = Page(answer.body.decode())
    assert page.title == "weather 2.1.0"
    assert sorted(page.loads) == sorted([*ASSETS, "data:,", "openapi.json"])


@pytest.mark.parametrize("asset", ASSETS)
def test_an_asset_has_its_type_and_is_not_taken_for_another(asset: str, adapter: Adapter) -> None:
    answer = adapter.request("GET", f"/{asset}")
    assert answer.status == 200
    assert answer.headers["content-type"] == ASSETS[asset]
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["cache-control"] == "max-age=3600"
    assert answer.body


def test_swagger_ui_is_one_that_reads_openapi_3_1(adapter: Adapter) -> None:
    script = adapter.request("GET", "/docs/swagger-ui-bundle.js").body.decode()
    version = re.search(r'PACKAGE_VERSION:"(\d+)\.', script)
    assert version is not None
    assert int(version[1]) >= 5


def test_every_address_is_relative_so_that_a_path_prefix_does_no_harm(adapter: Adapter) -> None:
    page = Page(adapter.request("GET", "/docs").body.decode())
    assert [address for address in page.loads if address.startswith("/") or "//" in address] == []
    start = adapter.request("GET", "/docs/start.js").body.decode()
    assert re.findall(r'url: "([^"]*)"', start) == ["openapi.json"]


def test_the_policy_allows_nothing_inline_and_nothing_from_elsewhere(adapter: Adapter) -> None:
    answer = adapter.request("GET", "/docs")
    policy = dict(directive.split(" ", 1) for directive in answer.headers["content-security-policy"].split("; "))
    assert policy.pop("img-src") == "'self' data:"
    assert {policy.pop(name) for name in ("script-src", "style-src", "connect-src")} == {"'self'"}
    assert policy.keys() == {"default-src", "base-uri", "form-action", "frame-ancestors"}
    assert set(policy.values()) == {"'none'"}
    assert Page(answer.body.decode()).inline == []


@pytest.mark.parametrize(
    "path", ["/docs/", "/docs/nothing.js", "/docs/../docs", "/docs/swagger-ui-bundle.js/", "/docs/index.html"]
)
def test_anything_else_inside_docs_is_a_problem_document(path: str, adapter: Adapter) -> None:
    answer = adapter.request("GET", path)
    assert answer.status == 404
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json["status"] == 404
    assert contract().answer_errors("GET", "/docs", answer) == []


def test_head_answers_without_the_body(adapter: Adapter) -> None:
    for path in ("/docs", "/openapi.json", "/docs/start.js"):
        head, get = adapter.request("HEAD", path), adapter.request("GET", path)
        assert (head.status, head.body) == (200, b"")
        assert head.headers["content-length"] == str(len(get.body))
