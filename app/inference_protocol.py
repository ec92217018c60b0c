"""
The Open Inference Protocol, version 2, as KServe, Seldon and Triton have it, over HTTP: texts in as BYTES, what an
answer says out as tensors with one row a text. Exit options are request parameters.

Errors have the protocol's own shape, {"error": "..."}. Texts of one request are answered all or not at all: the
protocol has no place for the error of one row. The binary data extension is spoken; shared memory and streams are not.
"""

from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Annotated, Any

from fastapi import APIRouter, Path, Request
from pydantic import BaseModel, Field, TypeAdapter, ValidationError
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, Response

from beexformer.app import tensors
from beexformer.app.context import RequestContext
from beexformer.app.schemas import ClassifyRequest
from beexformer.app.service import Serving
from beexformer.app.tensors import BY_LABEL, Tensor, outputs_of
from beexformer.model.answer import Answer
from beexformer.model.engine import Engine
from beexformer.model.errors import InputError, UnknownModel
from beexformer.model.options import ExitOptions

VERSION = "1"  # the only one of a model: a checkpoint that is replaced has another content, not another version here
HEADER = "Inference-Header-Content-Length"
ASKED = {*(option.name for option in fields(ExitOptions)), "truncate"}
OTHERS = {"binary_data_output", "timeout", "priority", "sequence_id", "sequence_start", "sequence_end"}  # of clients
ERRORS: dict[int, dict[str, Any]] = {
    status: {
        "description": said,
        "content": {"application/json": {"schema": {"$ref": "#/components/schemas/InferError"}}},
    }
    for status, said in (
        (400, "The request can't be answered"),
        (401, "A valid API key is required"),
        (404, "No such model or version"),
        (413, "Too much at once"),
        (503, "Overloaded or not ready"),
        (504, "The deadline passed"),
    )
}
ModelName = Annotated[str, Path(description="name of a loaded model")]
Version = Annotated[str, Path(description="version of the model; there is one, 1")]
router = APIRouter(prefix="/v2", tags=["inference protocol"])


def _errors(*statuses: int) -> dict[int | str, dict[str, Any]]:
    return {**{status: ERRORS[status] for status in statuses}, "default": {**ERRORS[400], "description": "Any other"}}


class InferError(BaseModel):
    """What went wrong, as the protocol has it."""

    error: str = Field(description="one sentence")


class InferTensor(BaseModel):
    """A tensor; without `data` where its bytes follow the JSON (binary data extension)."""

    name: str = Field(description="text or text_pair of a request; of a response one of the outputs")
    shape: list[int] = Field(description="[n], or [n, 1]; scores are [n, classes]")
    datatype: str = Field(description="BYTES for texts, in UTF-8")
    parameters: dict[str, Any] = Field(default={}, description="binary_data_size, where its bytes follow the JSON")
    data: list[Any] | None = Field(default=None, description="row by row, nested or flat")


class RequestedOutput(BaseModel):
    """An output that is asked for."""

    name: str = Field(description="one of the model's outputs")
    parameters: dict[str, Any] = Field(default={}, description="binary_data: true, for its bytes behind the JSON")


class InferRequest(BaseModel):
    """Texts to classify."""

    id: str | None = Field(default=None, description="is repeated in the response")
    parameters: dict[str, Any] = Field(
        default={}, description="exit options, as in /classify, for all texts; truncate; binary_data_output"
    )
    inputs: list[InferTensor] = Field(min_length=1, description="text, and text_pair for models of pairs")
    outputs: list[RequestedOutput] | None = Field(default=None, description="the outputs wanted; all without it")


class InferResponse(BaseModel):
    """What was found, one row a text."""

    model_name: str = Field(description="the model that answered")
    model_version: str = Field(description="its version")
    id: str | None = Field(default=None, description="the request's")
    outputs: list[InferTensor] = Field(description="the outputs, in the order asked for")


_request, _item = TypeAdapter(InferRequest), TypeAdapter(ClassifyRequest)


@router.get("", name="server_metadata", responses=_errors(401))
async def server_metadata() -> dict[str, Any]:
    """Name and version of the server, and the extensions that it speaks."""
    return {"name": "beexformer", "version": VERSION, "extensions": ["binary_tensor_data"]}


@router.get("/health/live", response_class=Response, responses=_errors(503))
async def server_live(service: Serving) -> Response:
    """The process lives."""
    return Response(status_code=503 if service.registry.state == "failed" else 200)


@router.get("/health/ready", response_class=Response, responses=_errors(503))
async def server_ready(service: Serving) -> Response:
    """Every model can be asked."""
    return Response(status_code=200 if service.registry.state == "ready" and not service.draining else 503)


@router.get("/models/{name}/ready", response_class=Response, responses=_errors(401, 404, 503))
async def model_ready(name: ModelName, service: Serving) -> Response:
    """The model can be asked."""
    service.registry.get(name)
    return await server_ready(service)


@router.get("/models/{name}/versions/{version}/ready", response_class=Response, responses=_errors(401, 404, 503))
async def model_version_ready(name: ModelName, version: Version, service: Serving) -> Response:
    """The model of that version can be asked."""
    _check(name, version)
    return await model_ready(name, service)


@router.get("/models/{name}", responses=_errors(401, 404))
async def model_metadata(name: ModelName, service: Serving) -> dict[str, Any]:
    """Inputs and outputs of a model."""
    engine = service.registry.get(name)
    inputs = ["text"] if engine.input == "text" else ["text", "text_pair"]
    thresholds = {} if engine.thresholds is None else {"thresholds": list(engine.thresholds)}
    return {
        "name": engine.name,
        "versions": [VERSION],
        "platform": "beexformer",
        "inputs": [{"name": each, "datatype": "BYTES", "shape": [-1]} for each in inputs],
        "outputs": [
            {"name": each, "datatype": kind, "shape": [-1, len(engine.labels)] if each in BY_LABEL else [-1]}
            for each, kind in outputs_of(engine.config.multi_label).items()
        ],
        "parameters": {"labels": list(engine.labels), **thresholds},
    }


@router.get("/models/{name}/versions/{version}", responses=_errors(401, 404))
async def model_version_metadata(name: ModelName, version: Version, service: Serving) -> dict[str, Any]:
    """Inputs and outputs of the model of that version."""
    _check(name, version)
    return await model_metadata(name, service)


INFER: dict[str, Any] = {
    "responses": {200: {"model": InferResponse}, **_errors(*ERRORS)},
    "openapi_extra": {
        "requestBody": {
            "required": True,
            "content": {"application/json": {"schema": {"$ref": "#/components/schemas/InferRequest"}}},
        }
    },
}


@router.post("/models/{name}/infer", **INFER)
async def infer(name: ModelName, request: Request, service: Serving) -> Response:
    """Classify texts."""
    service.admit(request.scope, dict(request.scope["headers"]))
    engine, body = service.registry.get(name), await request.body()
    asked, rest = _parsed(body, request.headers.get(HEADER))
    items, outputs = _items(engine, asked, rest, service.settings.max_items), _outputs(engine, asked)
    timeout = service.settings.request_timeout_ms / 1000
    context = RequestContext.of(request)
    outcomes = await service.classifier.outcomes(items, context, timeout, request.is_disconnected)
    answers: list[Answer] = []
    for i, outcome in enumerate(outcomes):
        if isinstance(outcome, InputError):
            raise HTTPException(400, f"text {i}: {outcome}")
        if isinstance(outcome, Exception):
            raise outcome
        answers.append(outcome)
    return _response(engine, asked, outputs, answers)


@router.post("/models/{name}/versions/{version}/infer", **INFER)
async def infer_version(name: ModelName, version: Version, request: Request, service: Serving) -> Response:
    """Classify texts with the model of that version."""
    _check(name, version)
    return await infer(name, request, service)


def _check(name: str, version: str) -> None:
    if version != VERSION:
        raise UnknownModel(f"model {name!r} has no version {version!r}; there is one, {VERSION}")


def _parsed(body: bytes, header: str | None) -> tuple[InferRequest, bytes]:
    """(the JSON, the bytes of tensors behind it)"""
    if header is not None and not (
        header.isascii() and header.isdigit() and len(header) < 12 and int(header) <= len(body)
    ):
        raise HTTPException(400, f"{HEADER} must be the length of the JSON at the beginning of the body")
    end = len(body) if header is None else int(header)
    try:
        return _request.validate_json(body[:end]), body[end:]
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(map(str, first["loc"])) or "the body"
        raise HTTPException(400, f"{place}: {first['msg']}") from None


def _items(engine: Engine, asked: InferRequest, rest: bytes, most: int) -> list[ClassifyRequest]:
    texts = _texts(asked.inputs, rest)
    if "text" not in texts or texts.keys() - {"text", "text_pair"}:
        raise HTTPException(400, "inputs are one tensor named text, and for pairs another named text_pair")
    pairs: Sequence[str | None] = texts.get("text_pair") or [None] * len(texts["text"])
    if len(pairs) != len(texts["text"]):
        raise HTTPException(400, f"text has {len(texts['text'])} rows and text_pair {len(pairs)}")
    if len(pairs) > most:
        raise HTTPException(413, f"the request has {len(pairs)} texts and may have {most}; send several")
    if unknown := asked.parameters.keys() - ASKED - OTHERS:
        raise HTTPException(400, f"there is no parameter {min(unknown)!r}; known are {', '.join(sorted(ASKED))}")
    options = {name: value for name, value in asked.parameters.items() if name in ASKED}
    try:
        return [
            _item.validate_python({"text": text, "text_pair": pair, "model": engine.name, **options})
            for text, pair in zip(texts["text"], pairs, strict=True)
        ]
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise HTTPException(400, f"parameters.{'.'.join(map(str, first['loc']))}: {first['msg']}") from None


def _texts(inputs: Sequence[InferTensor], rest: bytes) -> Mapping[str, list[str]]:
    result: dict[str, list[str]] = {}
    for given in inputs:
        if given.datatype != "BYTES" or given.name in result:
            raise HTTPException(400, f"input {given.name!r} must stand there once, with datatype BYTES")
        size = given.parameters.get("binary_data_size")
        try:
            if given.data is not None:
                result[given.name] = tensors.flat_texts(given.data)
            elif type(size) is int and 0 <= size <= len(rest):
                result[given.name], rest = tensors.unpack_texts(rest[:size]), rest[size:]
            else:
                raise ValueError("it has neither data nor as many bytes behind the JSON as binary_data_size says")
        except ValueError as error:
            raise HTTPException(400, f"input {given.name!r}: {error}") from None
        if tensors.count(given.shape) != len(result[given.name]) or given.shape[1:] not in ([], [1]):
            raise HTTPException(
                400, f"input {given.name!r} has {len(result[given.name])} texts and shape {given.shape}"
            )
    if rest:
        raise HTTPException(400, f"{len(rest)} bytes are left over behind the tensors")
    return result


def _outputs(engine: Engine, asked: InferRequest) -> dict[str, bool]:
    """The outputs wanted, and whether as bytes behind the JSON."""
    binary = asked.parameters.get("binary_data_output") is True
    known = outputs_of(engine.config.multi_label)
    wanted = asked.outputs or [RequestedOutput(name=name) for name in known]
    for output in wanted:
        if output.name not in known:
            raise HTTPException(400, f"there is no output {output.name!r}; known are {', '.join(known)}")
    return {output.name: output.parameters.get("binary_data", binary) is True for output in wanted}


def _response(engine: Engine, asked: InferRequest, wanted: Mapping[str, bool], answers: Sequence[Answer]) -> Response:
    outputs, behind = [], b""
    for name, binary in wanted.items():
        tensor = Tensor.of(name, answers)
        shown: dict[str, Any] = {"name": name, "shape": tensor.shape, "datatype": tensor.datatype}
        if binary:
            packed = tensor.packed()
            behind += packed
            outputs.append({**shown, "parameters": {"binary_data_size": len(packed)}})
        else:
            outputs.append({**shown, "data": tensor.data})
    named = {"id": asked.id} if asked.id is not None else {}
    content = {"model_name": engine.name, "model_version": VERSION, **named, "outputs": outputs}
    response = JSONResponse(content)
    if not behind:
        return response
    head = bytes(response.body)
    return Response(head + behind, headers={HEADER: str(len(head))}, media_type="application/octet-stream")
