"""The OpenAPI document as a judge: does this answer, to this request, agree with it?"""

import json
import re
from collections.abc import Iterator
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from jsonschema import Draft202012Validator, FormatChecker
from referencing import Registry
from referencing.jsonschema import DRAFT202012

from tests.adapters import Answer

SOURCE = Path(__file__).parents[2] / "adapter" / "contract" / "openapi.yaml"
METHODS = ("get", "post", "put", "patch", "delete", "head", "options", "trace")
_BASE = "urn:contract"
_FORMATS = FormatChecker(formats=())
_FORMATS.checks("date-time", raises=ValueError)(
    lambda text: not isinstance(text, str) or bool(datetime.fromisoformat(text))
)


class Contract:
    """`document`, with its references followed and its schemas at work."""

    def __init__(self, document: dict[str, Any]) -> None:
        self.document = document
        self._registry = Registry().with_resource(_BASE, DRAFT202012.create_resource(document))

    def operations(self) -> Iterator[tuple[str, str, dict[str, Any]]]:
        """Every (path, METHOD, operation)."""
        for path, item in self.document["paths"].items():
            for method in METHODS:
                if method in item:
                    yield path, method.upper(), item[method]

    def follow(self, node: Any) -> Any:
        """`node`, or what it refers to."""
        while isinstance(node, dict) and "$ref" in node:
            node = self._registry.resolver(_BASE).lookup(_BASE + node["$ref"]).contents
        return node

    def schema_errors(self, schema: dict[str, Any], value: Any) -> list[str]:
        """What is wrong with `value` by one of the document's schemas."""
        rooted = json.loads(json.dumps(schema).replace('"$ref": "#/', f'"$ref": "{_BASE}#/'))
        validator = Draft202012Validator(rooted, registry=self._registry, format_checker=_FORMATS)
        return [f"{error.json_path}: {error.message[:300]}" for error in validator.iter_errors(value)]

    def path_of(self, path: str) -> str | None:
        """The document's path for that of a request, if it has one."""
        path = path.partition("?")[0]
        matches = [template for template in self.document["paths"] if _expression(template).fullmatch(path)]
        assert len(matches) < 2, f"{path} is documented as {matches}"
        return matches[0] if matches else None

    def request_errors(self, path: str, body: Any) -> list[str]:
        """What is wrong with the JSON body of a POST."""
        operation = self.document["paths"][self.path_of(path)]["post"]
        return self.schema_errors(operation["requestBody"]["content"]["application/json"]["schema"], body)

    def answer_errors(self, method: str, path: str, answer: Answer) -> list[str]:
        """What is wrong with an answer: its status, its headers, its content type, its body."""
        responses = self.document["paths"][self.path_of(path)][method.lower()]["responses"]
        documented = self.follow(responses.get(str(answer.status), responses["default"]))
        errors = []
        for name, given in documented["headers"].items():
            header = self.follow(given)
            text = answer.headers.get(name.lower())
            if text is not None:
                value = json.loads(text) if header["schema"]["type"] == "integer" else text
                errors += [f"{name}: {error}" for error in self.schema_errors(header["schema"], value)]
            elif header.get("required"):
                errors.append(f"{name} is missing")
        if "content" not in documented:
            return errors + (["a body that is not documented"] if answer.body else [])
        content_type = answer.headers["content-type"].partition(";")[0]
        if content_type not in documented["content"]:
            return [*errors, f"{answer.status} {content_type} is not documented"]
        schema = documented["content"][content_type].get("schema")
        if schema is None:  # bytes
            return errors
        value = answer.json if content_type.endswith("json") else answer.body.decode()
        return errors + self.schema_errors(schema, value)


@cache
def contract() -> Contract:
    """The contract as its source has it."""
    return Contract(yaml.safe_load(SOURCE.read_text(encoding="utf-8")))


@cache
def _expression(template: str) -> re.Pattern[str]:
    """Parameters have no slash and no colon in them; a version has digits alone."""
    escaped = re.escape(template)
    return re.compile(re.sub(r"\\\{(\w+)\\\}", lambda m: r"\d+" if m[1] == "version" else "[^/:]+", escaped))
