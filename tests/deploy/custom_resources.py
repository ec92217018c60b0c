"""
Strict checks of custom resources against the schemas in tests/deploy/schemas: what a schema doesn't name is an error,
as `kubectl apply --validate=strict` says, where an API server alone would drop it, and so is what a list has twice.
Rules in CEL are not evaluated.
"""

import gzip
import json
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
from strict import repeated

SCHEMAS = Path(__file__).parent / "schemas"
KINDS = {path.name.removesuffix(".json.gz") for path in SCHEMAS.glob("*.json.gz")}


def closed(schema: Any) -> Any:
    """A structural schema as JSON Schema in which objects have no other properties than those named."""
    if not isinstance(schema, dict):
        return schema
    result = dict(schema)
    if "properties" in schema:
        result["properties"] = {name: closed(one) for name, one in schema["properties"].items()}
        if not schema.get("x-kubernetes-preserve-unknown-fields"):
            result.setdefault("additionalProperties", False)
    for name in ("items", "additionalProperties"):
        if name in result:
            result[name] = closed(result[name])
    if schema.get("nullable") and "type" in schema:
        result["type"] = [schema["type"], "null"]
    return result


@cache
def validator(kind: str) -> jsonschema.protocols.Validator:
    schema = closed(json.loads(gzip.decompress((SCHEMAS / f"{kind}.json.gz").read_bytes())))
    return jsonschema.Draft202012Validator(schema)


def problems(resource: dict[str, Any]) -> list[str]:
    """What is wrong with it, by the schema of its kind."""
    of_kind = validator(resource["kind"])
    wrong = [f"{error.json_path}: {error.message[:300]}" for error in of_kind.iter_errors(resource)]
    return [*wrong, *repeated(resource, of_kind.schema)]
