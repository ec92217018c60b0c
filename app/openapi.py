"""
The API's own description: what FastAPI derives from endpoints and types, and what it can't know. Security schemes stand
in it where keys are configured; the check itself is the middleware's, before a body is read.
"""

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from fastapi.routing import APIRoute

from beexformer.app.admission import ADMIN, OPEN
from beexformer.app.inference_protocol import InferError, InferRequest

TAGS = [
    {"name": "classify", "description": "Texts in, classes out."},
    {"name": "models", "description": "What is loaded, and what it says about itself."},
    {
        "name": "inference protocol",
        "description": "The Open Inference Protocol, version 2, as KServe and Triton have it.",
    },
    {"name": "admin", "description": "Loading, reloading and unloading models; needs an admin key."},
    {"name": "operation", "description": "Health checks and metrics; never need a key."},
]
SCHEMES = {
    "key": {
        "type": "apiKey",
        "in": "header",
        "name": "X-API-Key",
        "description": "one of the configured keys; below /admin one of those for it",
    },
    "bearer": {"type": "http", "scheme": "bearer", "description": "the same, as Authorization: Bearer"},
}


def operation_id(route: APIRoute) -> str:
    """The endpoint's own name: stable, and what generated clients call the method."""
    return route.name


def describe(app: FastAPI, *, keys: bool) -> None:
    """Gives `app` its OpenAPI document; `keys`: a key is needed where a path isn't open."""

    def document() -> dict[str, Any]:
        if app.openapi_schema is None:
            result = get_openapi(title=app.title, version=app.version, summary=app.summary, routes=app.routes)
            used = {
                tag for path in result["paths"].values() for operation in path.values() for tag in operation["tags"]
            }
            result["tags"] = [tag for tag in TAGS if tag["name"] in used]
            for model in (InferRequest, InferError):
                schema = model.model_json_schema(ref_template="#/components/schemas/{model}")
                result["components"]["schemas"] |= {**schema.pop("$defs", {}), model.__name__: schema}
            _require_keys(result, keys)
            app.openapi_schema = result
        return app.openapi_schema

    app.openapi = document  # type: ignore[method-assign]  # FastAPI's own way to extend it


def _require_keys(document: dict[str, Any], keys: bool) -> None:
    guarded = [path for path in document["paths"] if path.startswith(ADMIN) or (keys and path not in OPEN)]
    if guarded:
        document["components"]["securitySchemes"] = SCHEMES
    for path in guarded:
        for operation in document["paths"][path].values():
            operation["security"] = [{name: []} for name in SCHEMES]
