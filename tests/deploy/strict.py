"""
Manifests as strictly as `kubectl apply --validate=strict` and an API server take them: a key that stands twice in a
mapping, which YAML and JSON parsers pass over in silence, and an entry that stands twice in a list whose entries are
told apart by keys (`x-kubernetes-list-map-keys`; in older versions a key to merge by), as two variables of one name.
"""

import json
from collections.abc import Callable, Iterator
from typing import Any

import kubernetes_validate
import kubernetes_validate.utils
import yaml

Schema = dict[str, Any]


class _Loader(yaml.SafeLoader):
    def compose_mapping_node(self, anchor: str | None) -> yaml.MappingNode:
        node: yaml.MappingNode = super().compose_mapping_node(anchor)  # type: ignore[no-untyped-call]
        keys = [key.value for key, _ in node.value]
        twice = {key for key in keys if keys.count(key) > 1}
        if twice:
            raise ValueError(f"line {node.start_mark.line + 1}: {', '.join(sorted(twice))} twice")
        return node


def documents(text: str) -> list[dict[str, Any]]:
    """The documents of a file of YAML, empty ones left out. Raises ValueError for a key that stands twice."""
    return [document for document in yaml.load_all(text, _Loader) if document]


def of_json(text: str) -> Any:
    """A JSON text. Raises ValueError for a key that stands twice."""

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        names = [name for name, _ in pairs]
        twice = {name for name in names if names.count(name) > 1}
        if twice:
            raise ValueError(f"{', '.join(sorted(twice))} twice")
        return dict(pairs)

    return json.loads(text, object_pairs_hook=once)


def repeated(
    value: Any, schema: Schema, follow: Callable[[Schema], Schema] = lambda one: one, at: str = "$"
) -> Iterator[str]:
    """Where a list has an entry twice, by a structural schema; `follow` is what finds its references."""
    schema = follow(schema)
    if isinstance(value, dict):
        for name, one in value.items():
            below = schema.get("properties", {}).get(name) or schema.get("additionalProperties")
            if isinstance(below, dict):
                yield from repeated(one, below, follow, f"{at}.{name}")
    elif isinstance(value, list) and isinstance(schema.get("items"), dict):
        items = follow(schema["items"])
        merged = schema.get("x-kubernetes-patch-merge-key")
        keys = schema.get("x-kubernetes-list-map-keys", [merged] if merged else None)
        if keys or schema.get("x-kubernetes-list-type") == "set":
            names = [_name(entry, keys, items.get("properties", {})) if keys else entry for entry in value]
            yield from (f"{at}: {name} twice" for i, name in enumerate(names) if name in names[:i])
        for i, one in enumerate(value):
            yield from repeated(one, items, follow, f"{at}[{i}]")


def _name(entry: dict[str, Any], keys: list[str], properties: dict[str, Schema]) -> list[Any]:
    return [entry.get(key, properties.get(key, {}).get("default")) for key in keys]


def problems(resource: dict[str, Any], version: str) -> list[str]:
    """What is wrong with a resource of Kubernetes' own, of a version such as 1.27."""
    try:
        kubernetes_validate.validate(resource, version, strict=True)
    except kubernetes_validate.ValidationError as error:
        return [f"{error.json_path}: {error.message}"]
    files = f"kubernetes-json-schema/v{version}.0-local-strict"
    definitions = kubernetes_validate.utils.schema_contents(f"{files}/_definitions.json", version)["$defs"]
    group = resource["apiVersion"].replace("/", "-").replace(".k8s.io", "")
    kind = kubernetes_validate.utils.schema_contents(f"{files}/{resource['kind'].lower()}-{group}.json", version)

    def follow(schema: Schema) -> Schema:
        return definitions[schema["$ref"].rpartition("/")[2]] if "$ref" in schema else schema

    return [*repeated(resource, kind, follow)]
