"""
The wire: what requests, answers and problems look like in JSON. Nothing else.

Types are strict (a number in quotes is no number), unknown fields are refused, and NaN is no delta.
"""

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidatorFunctionWrapHandler, WrapValidator

from beexformer.model.cost import CostModel
from beexformer.model.engine import Prediction

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
PROBLEM: dict[str, Any] = {
    "type": "urn:problem-type:beexformer:invalid-field",
    "title": "A field is missing, unknown or has an invalid value",
    "status": 422,
    "detail": "delta: Input should be less than or equal to 1",
    "instance": "/classify",
    "request_id": "0b5c2c0c5f4e4c41a3e5b1b1f0a9d3c7",
    "errors": [{"pointer": "#/delta", "detail": "Input should be less than or equal to 1"}],
}


class ClassifyRequest(BaseModel):
    """One text, or a pair of texts, to classify. Only `text` is required."""

    model_config = ConfigDict(
        strict=True,
        extra="forbid",
        frozen=True,
        json_schema_extra={"examples": [{"text": "a warm, funny and moving film"}]},
    )

    text: str = Field(description="the text; any script, must hold a visible character")
    text_pair: str | None = Field(default=None, description="a second text, for models trained on pairs")
    model: str | None = Field(default=None, description="name of a loaded model; null takes the default one")
    delta: float | None = Field(
        default=None,
        ge=-1,
        le=1,
        allow_inf_nan=False,
        description="leave when a block lowers the entropy by less than this fraction; null takes the model's default",
    )
    entropy_threshold: float | None = Field(
        default=None,
        ge=0,
        le=1,
        allow_inf_nan=False,
        description="leave, whatever delta says, once the entropy is below this share of ln(classes); null or 0: never",
    )
    min_blocks: int | None = Field(default=None, ge=1, description="walk at least so many blocks")
    max_blocks: int | None = Field(default=None, ge=1, description="walk at most so many blocks")
    truncate: bool = Field(
        default=True, description="cut a text longer than the model's window; false refuses it with 422"
    )
    cost: bool = Field(default=False, description="say what the engine's cost model predicts for this text")


class Cost(BaseModel):
    """What the engine's cost model predicts for a text, on this machine as busy as it is."""

    predicted_ms: float = Field(description="engine milliseconds of the walk that was taken")
    predicted_ms_full: float = Field(description="engine milliseconds of the same text through all blocks")

    @classmethod
    def of(cls, model: CostModel, found: Prediction) -> "Cost":
        return cls(
            predicted_ms=model.milliseconds(found.tokens, found.exit_index),
            predicted_ms_full=model.milliseconds(found.tokens, found.num_blocks),
        )


class Answer(BaseModel):
    """The class of one text and what it took to find it."""

    model_config = ConfigDict(frozen=True, json_schema_extra={"examples": [ANSWER]})

    label: str = Field(description="the most probable class")
    score: float = Field(description="its probability")
    scores: dict[str, float] = Field(description="the probability of each class")
    exit_index: int = Field(description="block after which the walk ended, counted from 1")
    num_blocks: int = Field(description="blocks of the model")
    entropies: list[float] = Field(description="entropy of the scores after each exit walked, in nats")
    flops: float = Field(description="operations executed: real ones plus binary ones / 64")
    flops_full: float = Field(description="operations of the same text through all blocks")
    flops_saved: float
    flops_saved_ratio: float
    delta: float = Field(description="the exit threshold that was used")
    entropy_threshold: float | None = Field(default=None, description="likewise; only if one was given")
    model: str
    tokens: int = Field(description="tokens read, special ones included")
    truncated: bool = Field(description="the text was longer than the model's window and was cut")
    cost: Cost | None = Field(default=None, description="only if it was asked for")

    @classmethod
    def of(cls, model: str, found: Prediction, cost_model: CostModel | None = None) -> "Answer":
        return cls(
            label=found.label,
            score=found.score,
            scores=found.scores,
            exit_index=found.exit_index,
            num_blocks=found.num_blocks,
            entropies=list(found.entropies),
            flops=found.flops,
            flops_full=found.flops_full,
            flops_saved=found.flops_saved,
            flops_saved_ratio=found.flops_saved_ratio,
            delta=found.delta,
            entropy_threshold=found.entropy_threshold or None,
            model=model,
            tokens=found.tokens,
            truncated=found.truncated,
            cost=Cost.of(cost_model, found) if cost_model else None,
        )


class FieldError(BaseModel):
    """One invalid field: where it is and what is wrong with it."""

    pointer: str | None = Field(default=None, description="JSON pointer into the body")
    header: str | None = Field(default=None, description="name of the header, if it was one")
    detail: str


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

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, arbitrary_types_allowed=True)

    items: list[Annotated[ClassifyRequest, WrapValidator(_refuse_alone)]] = Field(min_length=1)


class BatchAnswer(BaseModel):
    """One result for each item, in order: an answer, or the problem of that item alone (it has a `status`)."""

    results: list[Answer | Problem]


class ModelSummary(BaseModel):
    """A loaded model."""

    name: str
    labels: list[str]
    default: bool = Field(description="answers requests that name no model")
    default_delta: float
    num_blocks: int
    size_bytes: int


class Models(BaseModel):
    """The loaded models."""

    models: list[ModelSummary]


class ModelDescription(BaseModel):
    """All that a checkpoint says about itself."""

    name: str
    labels: list[str]
    default_delta: float
    format_version: int
    size_bytes: int
    config: dict[str, Any] = Field(description="shape of the network")
    evaluation: dict[str, Any] = Field(description="scores per exit and along delta on the data it was evaluated on")
    cost_model: dict[str, Any] | None = Field(
        description="predicts engine milliseconds on this machine: ratio * (a + blocks * (p + q tokens + r pairs)), "
        "coefficients being (a, p, q, r), pairs tokens rounded up to 4 times tokens rounded up to 16; null until ready"
    )


class Health(BaseModel):
    """State of the process."""

    status: str
