"""
Exceptions to problems: one table, one shape (RFC 9457). What isn't in the table is a bug: 500, and no word about it.

FastAPI is not known here: what a process that only waits for others says has to be there at once.

Refused in, on the way of a request:

- protocol.py: broken HTTP (400), CONNECT (405), too late (408), address or headers too large (414, 431)
- admission.py: keys (401), Content-Length that is no number (400) or too large (413); middleware.py: a body without
  one that has grown too large (413), a client that left while it sent (499)
- service.py, stand_in.py: not ready (503); routes.py: /readyz while the process ends (503)
- scheduler.py: too much waits (503), before the body is parsed (`admit`, also by direct.py) and when a text is to wait
  its turn; its deadline has passed (504)
- fast_path.py: no JSON by its type (415); main.py: no JSON (400), wrong fields (422)
- schemas.py, classify.py, model/options.py, model/text.py, model/engine.py: what fields say (422);
  model/registry.py: no such model (404); routes.py: too large a batch (413); quotas.py: too many texts of a key (429)
- admin.py, deployment.py: a change of models (404, 409); inference_protocol.py: what /v2 refuses (400, 413)
"""

from collections.abc import Sequence
from http.client import responses as phrases
from typing import Any
from urllib.parse import quote

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import Scope

from beexformer.app.context import RequestContext
from beexformer.app.prefix import route_path
from beexformer.app.quotas import QuotaExceeded
from beexformer.app.scheduler import DeadlineExceeded, Draining, Overloaded
from beexformer.app.schemas import FieldError, Problem
from beexformer.model.errors import BEEError, InputError, UnknownModel

MEDIA_TYPE = "application/problem+json"
INFERENCE_PROTOCOL = "/v2/"  # paths below it
MAX_FIELD_ERRORS = 20
TYPES = "urn:problem-type:beexformer:"


class NotJSON(Exception):
    """The body is no JSON at all."""


class InvalidFields(Exception):
    """Fields of a body, or headers, are wrong; `errors` says of each what pydantic does."""

    def __init__(self, errors: Sequence[Any]) -> None:
        super().__init__(f"{len(errors)} fields are wrong")
        self.errors = errors


class ChangeRefused(BEEError):
    """What is served stays as it is."""


class NotHTTP(HTTPException):
    """What came in breaks the rules of HTTP/1.1."""

    def __init__(self, detail: str) -> None:
        super().__init__(400, detail)


class NotReady(Exception):
    """The engines have not answered their first forward yet."""

    retry_after = 1

    def __init__(self, state: str) -> None:
        failed = "an engine failed its first forward; the log says why"
        super().__init__(failed if state == "failed" else "the service is starting; try again")


class ClientGone(Exception):
    """The client closed the connection before the answer; only the log and the metrics see this."""

    def __init__(self) -> None:
        super().__init__("the client closed the connection before there was an answer")


# kind -> (status, slug of the type, title); kinds are exceptions, or statuses of the framework's own HTTPException
TABLE: dict[type[Exception] | int, tuple[int, str, str]] = {
    NotJSON: (400, "not-json", "The body is not JSON"),
    400: (400, "not-json", "The body is not JSON"),
    NotHTTP: (400, "not-http", "The request is not valid HTTP"),
    401: (401, "unauthorized", "A valid API key is required"),
    UnknownModel: (404, "unknown-model", "No model of that name is loaded"),
    404: (404, "not-found", "There is nothing at this path"),
    405: (405, "method-not-allowed", "This path does not take this method"),
    408: (408, "too-slow", "The request took too long to arrive"),
    ChangeRefused: (409, "change-refused", "What is served stays as it is"),
    413: (413, "too-large", "The body or the batch is too large"),
    414: (414, "long-path", "The path is too long"),
    415: (415, "not-json-type", "The content type must be application/json"),
    InvalidFields: (422, "invalid-field", "A field is missing, unknown or has an invalid value"),
    InputError: (422, "invalid-input", "The text or its options can't be answered"),
    431: (431, "large-head", "The headers are too many or too large"),
    QuotaExceeded: (429, "quota", "The key's quota is used up"),
    499: (499, "client-gone", "The client left"),
    ClientGone: (499, "client-gone", "The client left"),
    Overloaded: (503, "overloaded", "Requests wait too long"),
    Draining: (503, "draining", "The service is shutting down"),
    NotReady: (503, "starting", "The service is starting"),
    DeadlineExceeded: (504, "deadline-exceeded", "The deadline passed"),
}
FIELDS_WORDS = {  # of a body, where pydantic speaks of Python
    "unexpected_keyword_argument": "there is no such field",
    "dataclass_type": "must be a JSON object",
}
BUG = (500, "internal", "Something went wrong here")


def kind(error: Exception) -> tuple[int, str, str]:
    """(status, slug, title) of an exception."""
    if isinstance(error, InvalidFields) and _no_json(error):
        return TABLE[NotJSON]
    default = TABLE.get(error.status_code, BUG) if isinstance(error, HTTPException) else BUG
    return next((TABLE[cls] for cls in type(error).__mro__ if cls in TABLE), default)


def problem(error: Exception, *, instance: str | None = None, request_id: str | None = None) -> Problem:
    """The problem an exception stands for."""
    status, slug, title = kind(error)
    fields = None
    if status == BUG[0]:
        detail = "the service failed to answer; the log has the details under this request id"
    elif isinstance(error, HTTPException):
        # the framework's own words repeat the status or, for 400, hide what the caller can do
        detail = title if error.detail in (phrases.get(status), "There was an error parsing the body") else error.detail
    elif isinstance(error, InvalidFields) and _no_json(error):
        detail = _json_detail(error)
    elif isinstance(error, InvalidFields):
        fields = _field_errors(error.errors)
        detail = "; ".join(f"{_place(field)}: {field.detail}" for field in fields[:3])
    else:
        detail = str(error)
    return Problem(
        type=TYPES + slug,
        title=title,
        status=status,
        detail=_encodable(detail),
        instance=instance,
        request_id=request_id,
        errors=fields,
    )


def respond(error: Exception, scope: Scope) -> Response:
    """The response to that request which an exception stands for."""
    context = RequestContext.of(scope)
    result = problem(error, instance=quote(scope["path"]), request_id=context.request_id)
    headers = dict(error.headers or {}) if isinstance(error, HTTPException) else {}
    if hasattr(error, "retry_after"):
        headers["Retry-After"] = str(error.retry_after)
    if route_path(scope).startswith(INFERENCE_PROTOCOL):  # which has a shape of its own, and no 422
        status = 400 if result.status == 422 else result.status
        return JSONResponse({"error": result.detail}, status, headers)
    return Response(result.model_dump_json(exclude_none=True), result.status, headers, MEDIA_TYPE)


async def handle(request: Request, error: Exception) -> Response:
    """The one exception handler of the app."""
    return respond(error, request.scope)


def responses(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Those statuses as OpenAPI answers with a problem for a body; the rest falls under "default"."""
    content = {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}
    described: dict[int | str, dict[str, Any]] = {}
    for status in statuses:
        titles = dict.fromkeys(title for of, _, title in (*TABLE.values(), BUG) if of == status)
        described[status] = {"description": " / ".join(titles), "content": content}
        if status in (429, 503):
            described[status]["headers"] = {
                "Retry-After": {"description": "seconds to wait before trying again", "schema": {"type": "integer"}}
            }
    return {**described, "default": {"description": "Any other problem", "content": content}}


def _no_json(error: InvalidFields) -> bool:
    first = error.errors[0]
    missing = first["type"] == "missing" and tuple(first["loc"]) == ("body",)
    return first["type"] == "json_invalid" or missing


def _json_detail(error: InvalidFields) -> str:
    first = error.errors[0]
    if first["type"] == "missing":
        return "the body is empty; send a JSON object"
    return f"{first['ctx']['error']} (character {first['loc'][-1]})"


def _field_errors(errors: Sequence[Any]) -> list[FieldError]:
    fields = []
    for error in errors[:MAX_FIELD_ERRORS]:
        loc, detail = list(error["loc"]), _encodable(FIELDS_WORDS.get(error["type"], error["msg"]))
        if loc[:1] == ["header"]:
            fields.append(FieldError(header=str(loc[1]), detail=detail))
        else:
            steps = (
                str(step).replace("~", "~0").replace("/", "~1") for step in (loc[1:] if loc[:1] == ["body"] else loc)
            )
            fields.append(
                FieldError(pointer="#" + "".join(f"/{quote(step, errors='replace')}" for step in steps), detail=detail)
            )
    return fields


def _place(field: FieldError) -> str:
    return field.header or (field.pointer or "").lstrip("#/") or "the body"


def _encodable(text: str) -> str:
    """A caller's lone surrogates must not keep the problem about them from being sent."""
    return text.encode("utf-8", "replace").decode()
