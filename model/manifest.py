"""
What config.json says of a checkpoint beside the digests of its neighbours: fields, their checks, and back to JSON.

Whatever is wrong is a ValueError whose text goes into one sentence; nothing is allocated for what is stated here.
"""

import json
import math
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, cast, get_args, get_type_hints

from beexformer.model.budget import Budget, Rung
from beexformer.model.config import DEFAULT_DELTA, BEEConfig
from beexformer.model.errors import InputError
from beexformer.model.options import ExitOptions, resolve
from beexformer.model.probes import Probe

Input = Literal["text", "pair"]
Learned = Literal["rows", "labels", "labels and rows"]

NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")
"""What models and profiles are called: part of addresses, and labels of metrics."""
SHA256 = re.compile(r"[0-9a-f]{64}")
FIELDS = ("name", "network", "input", "labels", "exit", "profiles", "probes", "examples")
"""Of config.json in format 4, beside format_version, sha256 and digest."""
LEARNED_FROM = "learned_from"
CANDIDATE_LABELS = "candidate_labels"
THRESHOLDS = "thresholds"
OPTIONAL = (LEARNED_FROM, CANDIDATE_LABELS, THRESHOLDS)
"""Fields that are absent where they say nothing new."""

DEFAULTS = ExitOptions(delta=DEFAULT_DELTA)


@dataclass(frozen=True)
class Profile:
    """Exit options under a name, and what they were seen to do: JSON-ready, shown to users, interpreted by nobody.
    With a `budget` they are those of the machine that the profile was tuned on; others take what they have time for."""

    options: ExitOptions
    evidence: dict[str, Any]
    budget: Budget | None = None


@dataclass(frozen=True)
class Example:
    """A text (or pair) to try a model with. Only where its owner has consented is it shown to who opens the page."""

    text: str
    text_pair: str | None = None
    title: str | None = None  # what it is an example of
    consent: bool = False


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """`input` is None where it isn't known, as of formats 1 to 3: single texts and pairs are both answered then. `exit`
    is in effect where a request and its profile say nothing. `learned_from` says whether its classes were learned from
    labelled rows, from what they are called, or both; with `candidate_labels` requests may name classes of their own,
    and there are readers among the tensors. ValueError for what can't be."""

    name: str
    config: BEEConfig
    labels: tuple[str, ...]
    input: Input | None = None
    exit: ExitOptions = DEFAULTS
    profiles: Mapping[str, Profile] = field(default_factory=dict)
    probes: tuple[Probe, ...] = ()
    examples: tuple[Example, ...] = ()
    learned_from: Learned = "rows"
    candidate_labels: bool = False
    thresholds: tuple[float, ...] | None = None
    """Of several labels a text: the score from which on each label applies; as many as labels, between 0 and 1."""

    def __post_init__(self) -> None:
        config = self.config
        if not isinstance(self.name, str) or not NAME.fullmatch(self.name):
            raise ValueError(f"name is {self.name!r}, and a-z, 0-9, - and _ make one of at most 64 characters")
        if len(self.labels) != config.n_class or len(set(self.labels)) != len(self.labels):
            raise ValueError(f"it must name {config.n_class} different labels")
        for label in self.labels:
            _text(label, "a label")
        self._check_thresholds()
        if self.input not in (None, "text", "pair"):
            raise ValueError(f"input is {self.input!r} and must be 'text', 'pair' or null")
        if (config.pairs == "apart") > (self.input == "pair"):
            raise ValueError(f"network.pairs is 'apart', so input must be 'pair' and is {self.input!r}")
        if not config.binary or config.slfn != "depth":
            raise ValueError("it is a full-precision or time-reading network, and only 1-bit depth ones are served")
        if self.learned_from not in ("rows", "labels", "labels and rows"):
            raise ValueError(
                f"{LEARNED_FROM} is {self.learned_from!r} and must be 'rows', 'labels' or 'labels and rows'"
            )
        if type(self.candidate_labels) is not bool:
            raise ValueError(f"{CANDIDATE_LABELS} is {self.candidate_labels!r} and must be true or false")
        if self.candidate_labels and config.pooling != "mean":
            raise ValueError(f"{CANDIDATE_LABELS} are read off mean states, so network.pooling must be 'mean'")
        if self.candidate_labels and (config.head != "linear" or self.input == "pair" or config.multi_label):
            raise ValueError(f"{CANDIDATE_LABELS} need linear heads, single texts and one label for each")
        self._check_options()
        texts = [(kept.text, kept.text_pair) for kept in self.probes]
        texts += [(example.text, example.text_pair) for example in self.examples]
        for text, text_pair in texts:
            if self.input and (text_pair is not None) != (self.input == "pair"):
                raise ValueError(f"input is {self.input!r}, which {text!r} isn't")
        for probe in self.probes:
            if not SHA256.fullmatch(probe.ids_sha256):
                raise ValueError(f"probe {probe.text!r} has no SHA-256 of its ids")
            if [len(exit_) for exit_ in probe.logits] != [config.n_class] * len(config.exits):
                raise ValueError(
                    f"probe {probe.text!r} needs {config.n_class} logits for each of {len(config.exits)} exits"
                )

    def _check_options(self) -> None:
        """Raises ValueError for defaults or a profile that can't be in effect."""
        options = {name: profile.options for name, profile in self.profiles.items()}
        tried = [("", options)]
        for name, profile in self.profiles.items():
            if not NAME.fullmatch(name):
                raise ValueError(f"a profile is named {name!r}, and a-z, 0-9, - and _ make a name")
            rungs = profile.budget.rungs if profile.budget else ()
            if any(len(rung.exits) != self.config.n_block for rung in rungs):
                raise ValueError(f"profile {name!r} needs a share of texts for each of {self.config.n_block} blocks")
            each = [profile.options, *(rung.options for rung in rungs)]
            if any(asked.profile is not None for asked in each):
                raise ValueError(f"profile {name!r} names another profile")
            tried += [(name, {**options, name: asked}) for asked in each]
        for name, profiles in tried:
            asked = ExitOptions(profile=name or None)
            try:
                resolve(asked, defaults=self.exit, profiles=profiles, config=self.config, model=self.name)
            except InputError as error:
                raise ValueError(str(error)) from None

    def _check_thresholds(self) -> None:
        m = self.config.n_class
        if self.config.multi_label != (self.thresholds is not None):
            raise ValueError("thresholds go with network.multi_label: both for several labels a text, or neither")
        if self.thresholds is not None:
            inside = all(type(each) in (int, float) and 0 < each < 1 for each in self.thresholds)
            if len(self.thresholds) != m or not inside:
                raise ValueError(f"thresholds must be {m} numbers between 0 and 1, one for each label")

    def shown(self) -> dict[str, Any]:
        """What users see of it beside name, labels and network, JSON-ready: texts only with their owner's consent."""
        result = to_json(self)
        examples = [
            {"title": example.title, "text": example.text, "text_pair": example.text_pair}
            for example in self.examples
            if example.consent
        ]
        thresholds = {} if self.thresholds is None else {THRESHOLDS: result[THRESHOLDS]}
        return {
            "input": self.input,
            "exit": result["exit"],
            "profiles": result["profiles"],
            "examples": examples,
            LEARNED_FROM: self.learned_from,
            CANDIDATE_LABELS: self.candidate_labels,
            **thresholds,
        }


def to_json(described: Manifest) -> dict[str, Any]:
    """The fields of config.json."""
    optional = {LEARNED_FROM: described.learned_from, CANDIDATE_LABELS: described.candidate_labels}
    usual = {LEARNED_FROM: "rows", CANDIDATE_LABELS: False}
    return {
        "name": described.name,
        "network": described.config.to_dict(),
        "input": described.input,
        "labels": list(described.labels),
        **({} if described.thresholds is None else {THRESHOLDS: list(described.thresholds)}),
        "exit": described.exit.to_dict(),
        "profiles": {
            name: {"exit": profile.options.to_dict(), "evidence": profile.evidence, **_budget_json(profile.budget)}
            for name, profile in described.profiles.items()
        },
        "probes": [asdict(probe) for probe in described.probes],
        "examples": [asdict(example) for example in described.examples],
        **{name: value for name, value in optional.items() if value != usual[name]},
    }


def from_json(result: Mapping[str, Any]) -> Manifest:
    """Format 4's fields. Raises ValueError, also for a field that this release doesn't know: it may change answers."""
    _fields(result, (*FIELDS, *(name for name in OPTIONAL if name in result)), "config.json")
    probes = [
        _fields(probe, ("text", "text_pair", "ids_sha256", "logits"), "a probe") for probe in _list(result, "probes")
    ]
    examples = [
        _fields(each, ("text", "text_pair", "title", "consent"), "an example") for each in _list(result, "examples")
    ]
    profiles = {
        name: _fields(profile, ("exit", "evidence", *(["budget"] if "budget" in profile else [])), f"profile {name!r}")
        for name, profile in _object(result["profiles"], "profiles").items()
    }
    if any(type(example["consent"]) is not bool for example in examples):
        raise ValueError("consent of an example must be true or false")
    return Manifest(
        name=result["name"],
        config=network(result["network"]),
        input=cast("Input | None", result["input"]),
        labels=labels(result),
        thresholds=tuple(_list(result, THRESHOLDS)) if THRESHOLDS in result else None,
        exit=_options(result["exit"], "exit"),
        profiles={
            name: Profile(
                _options(profile["exit"], f"profile {name!r}"),
                _object(profile["evidence"], "evidence"),
                _budget(profile["budget"]) if "budget" in profile else None,
            )
            for name, profile in profiles.items()
        },
        probes=tuple(
            Probe(*_pair(probe), ids_sha256=_text(probe["ids_sha256"], "ids_sha256"), logits=_logits(probe["logits"]))
            for probe in probes
        ),
        examples=tuple(
            Example(*_pair(example), _optional(example["title"], "a title"), example["consent"]) for example in examples
        ),
        learned_from=result.get(LEARNED_FROM, "rows"),
        candidate_labels=result.get(CANDIDATE_LABELS, False),
    )


def from_json_of_old(result: Mapping[str, Any]) -> Manifest:
    """The fields of formats 1 to 3, which have one default, delta. Raises ValueError and KeyError."""
    delta = result["default_delta"]
    return Manifest(
        name=result["name"],
        config=network(result["network"]),
        labels=labels(result),
        exit=_options({"delta": delta}, "default_delta"),
    )


def network(result: Any) -> BEEConfig:
    try:
        return BEEConfig(**_object(result, "network"))
    except TypeError as error:
        raise ValueError(str(error).replace("BEEConfig.__init__() ", "network ")) from None


def labels(result: Mapping[str, Any]) -> tuple[str, ...]:
    return tuple(_text(label, "a label") for label in _list(result, "labels"))


def _budget_json(budget: Budget | None) -> dict[str, Any]:
    if budget is None:
        return {}
    rungs = [{"exit": rung.options.to_dict(), "flops": rung.flops, "exits": list(rung.exits)} for rung in budget.rungs]
    return {"budget": {"milliseconds": budget.milliseconds, "tokens": budget.tokens, "rungs": rungs}}


def _budget(result: Any) -> Budget:
    stated = _fields(result, ("milliseconds", "tokens", "rungs"), "a budget")
    rungs = [_fields(rung, ("exit", "flops", "exits"), "a rung") for rung in _list(stated, "rungs")]
    numbers = [stated["milliseconds"], *(n for rung in rungs for n in (rung["flops"], *_list(rung, "exits")))]
    if type(stated["tokens"]) is not int or not all(type(n) in (int, float) for n in numbers):
        raise ValueError("a budget is made of numbers")
    return Budget(
        stated["milliseconds"],
        stated["tokens"],
        tuple(Rung(_options(rung["exit"], "a rung"), rung["flops"], tuple(rung["exits"])) for rung in rungs),
    )


_KINDS: dict[str, tuple[type, ...]] = {
    name: (int, float) if float in get_args(kind) else get_args(kind)[:1]
    for name, kind in get_type_hints(ExitOptions).items()
}
"""Option -> the types that JSON may have for it."""


def _options(result: Any, where: str) -> ExitOptions:
    stated = _object(result, where)
    for name, value in stated.items():
        if type(value) not in _KINDS.get(name, (type(value),)):
            raise ValueError(f"{where}: {name} is {value!r}, of a wrong type")
    try:
        return ExitOptions(**stated)
    except TypeError:
        raise ValueError(f"{where} has a field that this release doesn't know") from None


def _fields(result: Any, names: tuple[str, ...], where: str) -> Mapping[str, Any]:
    """`result` as an object of exactly these fields."""
    for kind, names_ in (("lacks", set(names) - set(_object(result, where))), ("has", set(result) - set(names))):
        if names_:
            hint = "" if kind == "lacks" else ", which this release doesn't know"
            raise ValueError(f"{where} {kind} the field {min(names_)!r}{hint}")
    return cast("Mapping[str, Any]", result)


def _object(result: Any, where: str) -> dict[str, Any]:
    if not isinstance(result, dict):
        raise ValueError(f"{where} must be an object")
    return result


def _list(result: Mapping[str, Any], name: str) -> list[Any]:
    if not isinstance(result[name], list):
        raise ValueError(f"{name} must be a list")
    return cast("list[Any]", result[name])


def _text(result: Any, where: str) -> str:
    if not isinstance(result, str) or not result.strip():
        raise ValueError(f"{where} is {result!r} and must be a text that isn't blank")
    return result


def _pair(result: Mapping[str, Any]) -> tuple[str, str | None]:
    return _text(result["text"], "text"), _optional(result["text_pair"], "text_pair")


def _optional(result: Any, where: str) -> str | None:
    return None if result is None else _text(result, where)


def _logits(result: Any) -> tuple[tuple[float, ...], ...]:
    if not isinstance(result, list) or not all(isinstance(exit_, list) for exit_ in result):
        raise ValueError("logits of a probe must be a list for each exit")
    numbers = tuple(tuple(exit_) for exit_ in result)
    if not all(type(z) in (int, float) and math.isfinite(z) for exit_ in numbers for z in exit_):
        raise ValueError("logits of a probe must be numbers")
    return numbers


def parse(content: bytes) -> dict[str, Any]:
    """A JSON object of well-formed text and finite numbers. Raises ValueError."""
    try:
        result = json.loads(content.decode())
        # a lone surrogate is valid in JSON, and in no file or address; so is 1e999, which is infinite
        json.dumps(result, ensure_ascii=False, allow_nan=False).encode()
    except UnicodeEncodeError:
        raise ValueError("it has a lone surrogate in a text") from None
    except (ValueError, RecursionError):
        raise ValueError("it is no JSON object of UTF-8 text and finite numbers") from None
    return _object(result, "it")
