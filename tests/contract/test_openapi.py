"""`openapi.yaml` is valid, complete, and says of the service what the service does: neither more nor less."""

import json
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any

import msgspec
import pytest
from openapi_spec_validator import OpenAPIV31SpecValidator

import adapter.contract
from adapter.access.policy import Policy
from adapter.app import contract as exact_routes
from adapter.contract.changes import Changes
from adapter.contract.release import Running
from adapter.contract.shutdown import ShutdownRequest
from adapter.exchange import Bodies
from adapter.group.drain import Drain
from adapter.group.state import Group, State
from adapter.inference import v1, v2
from adapter.inference.tensor import V2_DTYPES
from adapter.settings import Settings
from tests.adapters import Answer
from tests.contract.document import SOURCE, contract
from tests.golden.conftest import DATA

CONTRACT = contract()
OPERATIONS = list(CONTRACT.operations())
EXACT = {(path, method) for path, method, _ in OPERATIONS if not path.startswith(("/v1/", "/v2"))}
V1 = {(path, method) for path, method, _ in OPERATIONS if path.startswith("/v1/")}
V2 = {(path, method) for path, method, _ in OPERATIONS if path.startswith("/v2")}
V2_FORMS = ("/v2/models/{model}", "/v2/models/{model}/versions/{version}")
V2_VERBS = {("GET", "", "model"), ("GET", "/ready", "model_ready"), ("POST", "/infer", "infer")}
CHANGES = Changes(Group(), Running({}, Settings(), None, "tandem"), None)
V2_SERVER = {("/v2", "server"), ("/v2/health/live", "live"), ("/v2/health/ready", "ready")}
V1_FORMS = ("/v1/models/{model}", "/v1/models/{model}/versions/{version}", "/v1/models/{model}/labels/{label}")
V1_VERBS = {"POST": (":predict", ":classify", ":regress"), "GET": ("", "/metadata")}


def named(operation: tuple[str, str, dict[str, Any]]) -> str:
    return str(operation[2]["operationId"])


every_operation = pytest.mark.parametrize("operation", OPERATIONS, ids=named)


class TestTheDocument:
    def test_is_valid_openapi_3_1(self) -> None:
        assert CONTRACT.document["openapi"].startswith("3.1.")
        assert [error.message for error in OpenAPIV31SpecValidator(CONTRACT.document).iter_errors()] == []

    def test_is_what_the_build_made_json_of(self) -> None:
        built = Path(adapter.contract.__file__).with_name("openapi.json")
        assert json.loads(built.read_text()) == CONTRACT.document, f"{SOURCE.name} has changed: run `make setup`"

    @every_operation
    def test_tells_of_every_operation_what_it_is_and_how_it_fails(
        self, operation: tuple[str, str, dict[str, Any]]
    ) -> None:
        path, _, described = operation
        tags = [tag["name"] for tag in CONTRACT.document["tags"]]
        assert described["summary"]
        assert [tag for tag in described["tags"] if tag in tags] == described["tags"] != []
        failure = CONTRACT.follow(described["responses"]["default"])
        assert list(failure["content"]) == [
            "application/json" if path.startswith("/v1/") else "application/problem+json"
        ]

    @every_operation
    def test_names_request_id_and_bundle_on_every_answer(self, operation: tuple[str, str, dict[str, Any]]) -> None:
        for status, response in operation[2]["responses"].items():
            headers = CONTRACT.follow(response)["headers"]
            assert {"X-Request-Id", "X-Bundle"} <= headers.keys(), status
            assert status not in ("429", "503") or "Retry-After" in headers

    @every_operation
    def test_has_an_example_of_every_json_body(self, operation: tuple[str, str, dict[str, Any]]) -> None:
        described = operation[2]
        bodies = [CONTRACT.follow(response) for response in described["responses"].values()]
        bodies += [described["requestBody"]] if "requestBody" in described else []
        for body in bodies:
            for content_type, content in body.get("content", {}).items():  # 304 has none
                if content_type.endswith("json") and described["operationId"] != "openapi":
                    assert "example" in content or content["examples"], body["description"]

    def test_has_no_example_that_its_schema_refuses(self) -> None:
        checked = list(examples(CONTRACT.document))
        assert len(checked) > 20
        wrong = [(example, CONTRACT.schema_errors(schema, example)) for schema, example in checked]
        assert [case for case in wrong if case[1]] == []

    def test_has_no_component_that_nothing_uses(self) -> None:
        text = json.dumps(CONTRACT.document)
        components = [
            f"#/components/{kind}/{name}"
            for kind, named_ones in CONTRACT.document["components"].items()
            for name in named_ones
            if kind != "securitySchemes"  # named by operations, not referred to
        ]
        assert [component for component in components if f'"$ref": "{component}"' not in text] == []


class TestTheDocumentAndThePolicyAgree:
    @every_operation
    def test_each_operation_asks_for_what_the_gate_asks_for(self, operation: tuple[str, str, dict[str, Any]]) -> None:
        path, _, described = operation
        demand = Policy().demand(path, path)
        assert described["security"] == ([] if demand == "open" else [{"token": [demand]}])
        assert ("401" in described["responses"]) == (demand != "open")


class TestRoutesAndDocumentAgree:
    def test_every_exact_route_is_documented_and_the_other_way_round(self) -> None:
        settings = Settings()
        table = exact_routes(None, Group(), Bodies(settings), Drain(0), CHANGES)
        served = {(CONTRACT.path_of(path), method) for path, methods in table.items() for method in methods}
        assert {(path, method) for path, method in served if method != "HEAD"} == EXACT - {("/predict", "POST")}
        assert {(path, "GET") for path, method in served if method == "HEAD"} <= served

    def test_every_documented_asset_is_served(self) -> None:
        table = exact_routes(None, Group(), Bodies(Settings()), Drain(0), CHANGES)
        (asset,) = (p for p in CONTRACT.document["paths"]["/docs/{asset}"]["get"]["parameters"] if "schema" in p)
        assert {f"/docs/{name}" for name in asset["schema"]["enum"]} == {p for p in table if p.startswith("/docs/")}

    def test_every_verb_on_every_form_of_a_model_is_documented(self) -> None:
        assert {
            (form + verb, method) for method in V1_VERBS for form, verb in product(V1_FORMS, V1_VERBS[method])
        } == V1

    @pytest.mark.parametrize(("path", "method"), sorted(V1))
    def test_what_is_documented_under_v1_is_served(self, path: str, method: str) -> None:
        target = v1.parse(method, path.format(model="m", version=7, label="stable"))
        verb = path.rpartition("}")[2]
        assert target.verb == (verb[1:] or "status")
        assert target.servable.model == "m"
        assert target.servable.version == (7 if "{version}" in path else None)
        assert target.servable.label == ("stable" if "{label}" in path else None)

    def test_every_resource_of_v2_is_documented_and_served(self) -> None:
        served = {(path, "GET"): verb for path, verb in V2_SERVER}
        served |= {(form + end, method): verb for form, (method, end, verb) in product(V2_FORMS, V2_VERBS)}
        assert served.keys() == V2
        for (path, _), verb in served.items():
            target = v2.parse(path.format(model="m", version=7))
            assert (target.verb, target.route) == (verb, path)

    def test_v2_knows_its_datatypes(self) -> None:
        assert set(CONTRACT.document["components"]["schemas"]["Datatype"]["enum"]) == set(V2_DTYPES)

    def test_health_knows_the_states_of_the_group(self) -> None:
        assert set(CONTRACT.document["components"]["schemas"]["State"]["enum"]) == set(State)

    def test_shutdown_takes_what_its_decoder_takes(self) -> None:
        (ours,) = msgspec.json.schema_components([ShutdownRequest])[1].values()
        documented = CONTRACT.document["components"]["schemas"]["ShutdownRequest"]
        limits = {"minimum", "maximum", "maxLength"}
        assert documented["properties"].keys() == ours["properties"].keys()
        assert documented["additionalProperties"] == ours["additionalProperties"]
        for name, theirs in ours["properties"].items():
            flat = theirs | next(iter(theirs.get("anyOf", [{}])), {})
            mine = documented["properties"][name]
            assert {k: mine[k] for k in limits & mine.keys()} == {k: flat[k] for k in limits & flat.keys()}


def recorded() -> Iterator[Any]:
    """Recorded requests of documented resources, with what was answered in UTF-8."""
    for case in json.loads((DATA / "rest_cases.json").read_text()):
        method, path = case["request"]["method"], case["request"]["path"]
        if (
            (CONTRACT.path_of(path), method) in V1
            and case["response"]["body"]
            and type(case["response"]["body"]) is str
        ):
            yield pytest.param(case, id=case["id"])


class TestTensorFlowServingsOwnAnswers:
    @pytest.mark.parametrize("case", list(recorded()))
    def test_what_was_recorded_is_as_documented(self, case: dict[str, Any]) -> None:
        request, response = case["request"], case["response"]
        status = int(response["status_line"].split()[1])
        headers = {name.lower(): value for name, value in response["headers"]} | {"x-request-id": "ours"}
        answer = Answer(status, headers, response["body"].encode())
        assert CONTRACT.answer_errors(request["method"], request["path"], answer) == []
        if request["method"] == "POST" and status == 200 and isinstance(request["body"], str):
            sent, _ = json.JSONDecoder().raw_decode(request["body"].lstrip("\ufeff"))
            assert CONTRACT.request_errors(request["path"], sent) == []


def examples(node: Any) -> Iterator[tuple[dict[str, Any], Any]]:
    """Every (schema, example) at or below `node`."""
    if isinstance(node, list):
        for child in node:
            yield from examples(child)
    if not isinstance(node, dict):
        return
    if "schema" in node:
        if "example" in node:
            yield node["schema"], node["example"]
        for example in node.get("examples", {}).values():
            yield node["schema"], example["value"]
    elif isinstance(node.get("examples"), list):
        for example in node["examples"]:
            yield node, example
    for child in node.values():
        yield from examples(child)
