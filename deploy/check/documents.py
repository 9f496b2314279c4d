"""Does an answer agree with the service's own document: its status, its content type, its body?"""

import json
from typing import Any

from deploy.check.service import Answer

_BASE = "urn:document"


def errors_of(document: dict[str, Any], operation: dict[str, Any], answer: Answer) -> list[str]:
    """What is wrong with the answer of `operation`; one that asks for another token is not looked at."""
    from jsonschema import Draft202012Validator
    from referencing import Registry
    from referencing.jsonschema import DRAFT202012

    if answer.status in (401, 403):
        return []
    registry: Any = Registry().with_resource(_BASE, DRAFT202012.create_resource(document))
    responses = operation["responses"]
    found = responses.get(str(answer.status), responses.get("default"))
    if found is None:
        return [f"{answer.status} is not documented"]
    while "$ref" in found:
        found = registry.resolver(_BASE).lookup(_BASE + found["$ref"]).contents
    content = found.get("content", {})
    if answer.media_type not in content:
        return [f"{answer.status} as {answer.media_type or 'nothing'} is not documented"]
    schema = content[answer.media_type].get("schema")
    if schema is None or not answer.media_type.endswith("json"):
        return []
    rooted = json.loads(json.dumps(schema).replace('"$ref": "#/', f'"$ref": "{_BASE}#/'))
    validator = Draft202012Validator(rooted, registry=registry)
    return [f"{error.json_path}: {error.message[:200]}" for error in validator.iter_errors(answer.json)]
