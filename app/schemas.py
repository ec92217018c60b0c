"""
The wire: what requests, answers and problems look like in JSON. Nothing else. Answers and exit options are the model's
own dataclasses; pydantic validates and writes them as they are.

Types are strict (a number in quotes is no number), unknown fields are refused, and NaN is no delta.
"""

from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    TypeAdapter,
    ValidationError,
    ValidatorFunctionWrapHandler,
    WrapValidator,
)

from beexformer.model.answer import Answer
from beexformer.model.described import described
from beexformer.model.options import ExitOptions

ANSWER: dict[str, Any] = {
    "label": "positive",
    "score": 0.97,
    "scores": {"negative": 0.03, "positive": 0.97},
    "exit_index": 2,
    "num_blocks": 6,
    "entropies": [0.31, 0.29],
    "flops": 9.1e6,
    "flops_full": 2.7e7,
    "flops_saved": 1.79e7,
    "flops_saved_ratio": 0.66,
    "delta": 0.0001,
    "model": "sst2",
    "tokens": 9,
    "truncated": False,
}
NAME = Field(description="what requests and metrics call it")
LABELS = Field(description="its classes, in the order of their scores")
DEFAULT_DELTA = Field(description="delta of requests that state none")
SIZE = Field(description="bytes of the checkpoint folder")
INPUT = Field(
    description="what it classifies: single texts, or pairs; the other is refused; null: not known, both are answered"
)
LEARNED_FROM = Field(description="what its classes were learned from: labelled rows, what they are called, or both")
CANDIDATE_LABELS = Field(description="whether a request may name classes of its own")
THRESHOLDS = Field(
    default=None,
    description="of several labels a text: the score from which on each label applies; null: one label a text",
)
PROBLEM: dict[str, Any] = {
    "type": "urn:problem-type:beexformer:invalid-field",
    "title": "A field is missing, unknown or has an invalid value",
    "status": 422,
    "detail": "delta: Input should be less than or equal to 1",
    "instance": "/classify",
    "request_id": "0b5c2c0c5f4e4c41a3e5b1b1f0a9d3c7",
    "errors": [{"pointer": "#/delta", "detail": "Input should be less than or equal to 1"}],
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassifyRequest(ExitOptions):
    """One text, or a pair of texts, to classify, and how its row may leave early. Only `text` is required."""

    __pydantic_config__ = ConfigDict(
        extra="forbid", json_schema_extra={"examples": [{"text": "a warm, funny and moving film"}]}
    )

    text: str = described(
        "the text; any script, must hold a visible character; compatibility letters (ligatures, full width) are read "
        "as their plain letters",
        strict=True,
    )
    text_pair: str | None = described("a second text, for models trained on pairs", strict=True, default=None)
    model: str | None = described("name of a loaded model; null takes the default one", strict=True, default=None)
    truncate: bool = described(
        "cut a text longer than the model's window; false refuses it with 422", strict=True, default=True
    )
    candidate_labels: list[str] | None = described(
        "classes to choose from, in place of the model's own: 2 to 64 different names or short descriptions of at most "
        "200 characters; only of a model that takes them (candidate_labels of /models/{name})",
        strict=True,
        default=None,
    )
    cost: bool = described("say what the engine's cost model predicts for this text", strict=True, default=False)


_answer = TypeAdapter(Answer)


def to_json(answer: Answer) -> bytes:
    """The answer as the API sends it: what is None is left out."""
    return _answer.dump_json(answer, exclude_none=True)


class FieldError(BaseModel):
    """One invalid field: where it is and what is wrong with it."""

    pointer: str | None = Field(default=None, description="JSON pointer into the body")
    header: str | None = Field(default=None, description="name of the header, if it was one")
    detail: str = Field(description="what is wrong with it")


class Problem(BaseModel):
    """What went wrong, as RFC 9457 has it (application/problem+json)."""

    model_config = ConfigDict(json_schema_extra={"examples": [PROBLEM]})

    type: str = Field(description="stable name of the kind of problem")
    title: str = Field(description="the kind of problem in words")
    status: int = Field(description="HTTP status code")
    detail: str = Field(description="what was wrong this time")
    instance: str | None = Field(default=None, description="path of the request, or pointer to the item of a batch")
    request_id: str | None = Field(default=None, description="the request's X-Request-ID")
    errors: list[FieldError] | None = Field(default=None, description="the invalid fields, at most 20")


def _refuse_alone(value: Any, handler: ValidatorFunctionWrapHandler) -> Any:
    """An invalid item stands in the list as its own error, so that its neighbours are still answered."""
    try:
        return handler(value)
    except ValidationError as error:
        return error


class BatchRequest(BaseModel):
    """Items to classify, each with options of its own."""

    model_config = ConfigDict(extra="forbid", frozen=True, arbitrary_types_allowed=True)

    items: list[Annotated[ClassifyRequest, WrapValidator(_refuse_alone)]] = Field(
        min_length=1, description="texts, each with a model and options of its own"
    )


class BatchAnswer(BaseModel):
    """One result for each item, in order: an answer, or the problem of that item alone (it has a `status`)."""

    results: list[Answer | Problem] = Field(description="in the order of the items")


class ModelSummary(BaseModel):
    """A loaded model."""

    name: str = NAME
    labels: list[str] = LABELS
    thresholds: list[float] | None = THRESHOLDS
    default: bool = Field(description="answers requests that name no model")
    default_delta: float = DEFAULT_DELTA
    num_blocks: int = Field(description="blocks of the network, the deepest exit")
    input: Literal["text", "pair"] | None = INPUT
    learned_from: Literal["rows", "labels", "labels and rows"] = LEARNED_FROM
    candidate_labels: bool = CANDIDATE_LABELS
    size_bytes: int = SIZE


class Models(BaseModel):
    """The loaded models."""

    models: list[ModelSummary] = Field(description="in the order in which they were loaded")


class ModelDescription(BaseModel):
    """All that a checkpoint says about itself."""

    name: str = NAME
    labels: list[str] = LABELS
    thresholds: list[float] | None = THRESHOLDS
    default_delta: float = DEFAULT_DELTA
    format_version: int = Field(description="version of the checkpoint folder's format")
    size_bytes: int = SIZE
    config: dict[str, Any] = Field(description="shape of the network")
    input: Literal["text", "pair"] | None = INPUT
    exit: dict[str, Any] = Field(description="exit options in effect where a request and its profile say nothing")
    profiles: dict[str, Any] = Field(description="exit options under a name, and what they were seen to do")
    examples: list[dict[str, Any]] = Field(description="texts to try it with")
    learned_from: Literal["rows", "labels", "labels and rows"] = LEARNED_FROM
    candidate_labels: bool = CANDIDATE_LABELS
    evaluation: dict[str, Any] = Field(description="scores per exit and along delta on the data it was evaluated on")
    cost_model: dict[str, Any] = Field(
        description="predicts engine milliseconds on this machine: ratio * (a + blocks * (p + q tokens + r pairs)), "
        "coefficients being (a, p, q, r), pairs tokens rounded up to 4 times tokens rounded up to 16"
    )


class Health(BaseModel):
    """State of the process."""

    status: str = Field(description="alive or ready; anything else is a problem")
