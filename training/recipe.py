"""
What one training run is made of, read from a TOML file. Defaults are Table 1 of the paper, but for the course
of the learning rate and the size of batches (docs/design.md has both).

A recipe names data relative to the data folder given on the command line, so the same file works on any machine. An
unknown or misspelt key is refused.
"""

import dataclasses
import tomllib
from pathlib import Path
from typing import Any, Literal, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, create_model, model_validator

from beexformer.model.config import BEEConfig
from beexformer.model.errors import TrainingError
from beexformer.model.options import NOTHING_ASKED, ExitOptions
from beexformer.training.data import Columns

VARIANTS: dict[str, dict[str, Any]] = {
    "proposed": {"binary": True, "early_exit": True},
    "wee": {"binary": True, "early_exit": False},
    "wee-fp": {"binary": False, "early_exit": False},
    "fp": {"binary": False, "early_exit": True},
}
"""The networks of the paper's Table 2: what is proposed, and what it is compared with."""

NAME = r"^[a-z0-9][a-z0-9_-]*$"
"""What a model can be called: it is part of addresses, and a label of metrics."""

OWN = "train"
"""In place of a text file: the task's own training texts."""

FROZEN = 'optim.embedding = "frozen"'


class Section(BaseModel):
    """A table of a TOML file; unknown keys are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Passages(Section):
    """Running text whose sentences are training rows with soft labels, and how much of it is learned from."""

    file: str = Field(description="a text file, a document a line")
    rows: int = Field(ge=1, description="passages of up to 510 tokens that are drawn from it")
    held_out: int = Field(0, ge=0, description="paragraphs that nothing is read of, not even their sentences alone")
    held_out_seed: int = Field(2000, description="by which they are drawn, as in a backbone's recipe")
    seed: int = Field(1, description="by which passages are drawn")


class Data(Section):
    """Where the rows are and how they are scored."""

    train: str = Field(description="training file, or a folder with train, dev and test files")
    also: list[str] = Field([], description="further training files, as of rows that have soft labels only")
    soft_share: float = Field(
        0.7, ge=0, le=1, description="share of a soft label in the target of a row that has a label too"
    )
    soft_temperature: float = Field(1.0, gt=0, description="by which logits in soft labels are divided")
    passages: Passages | None = None
    labelled_share: float | None = Field(
        None, gt=0, description="labelled rows are repeated until they are about so many times the others"
    )
    dev: str | None = Field(None, description="development file; without one a tenth of the training rows is held out")
    test: str | None = Field(None, description="test file; reported once, never chosen on")
    text: str = "text"
    text_pair: str | None = None
    label: str = "label"
    encoding: str | None = Field(None, description="of files that are not UTF-8 or UTF-16, as cp1252")
    class_shares: Literal["learned", "labelled"] = Field(
        "learned",
        description="that scores suppose: those of all rows learned from, or those of the labelled ones, where other "
        "rows were made with shares of their own",
    )
    both_orders: bool = Field(
        False, description="read each pair the other way round too; for labels that do not depend on the order"
    )
    balance: bool = Field(False, description="rows of small classes count for as much together as those of large ones")
    described: dict[str, str] | None = Field(
        None, description="label -> a few words on it; with [heads], what is read of the class beside its rows"
    )
    labels: list[str] | None = Field(None, description="class names in the order of integer labels")
    label_separator: str | None = Field(
        None, min_length=1, description="between the labels of a text that has several; lists (JSON) need none"
    )
    metric: Literal["accuracy", "f1", "macro_f1", "micro_f1", "matthews"] = "accuracy"
    examples: bool = Field(False, description="store a text of some classes, which whoever opens the page sees")
    licence: str = Field("not stated", description="of the data, for the model card")

    @property
    def columns(self) -> Columns:
        return Columns(self.text, self.text_pair, self.label, self.encoding, self.label_separator)

    def metric_of(self, multi_label: bool) -> str:
        """Of several labels a text micro F1 in place of accuracy, which few would meet."""
        return "micro_f1" if multi_label and self.metric == "accuracy" else self.metric


_Shape: Any = create_model(  # type: ignore[call-overload]
    "_Shape",
    __base__=Section,
    **{
        f.name: (f.type, f.default)
        for f in dataclasses.fields(BEEConfig)
        if f.name not in ("vocab_size", "n_class", "binary", "early_exit", "multi_label")
    },
)


class Network(_Shape):  # type: ignore[misc]
    """Shape: the fields of `BEEConfig` but for what the data says (vocabulary, classes, whether several apply to a
    text) and the variant (whether it is binary and exits early)."""

    def config(
        self, vocab_size: int, n_class: int, variant: str = "proposed", *, multi_label: bool = False
    ) -> BEEConfig:
        fields = {**self.model_dump(), **VARIANTS[variant]}
        return BEEConfig(vocab_size=vocab_size, n_class=n_class, multi_label=multi_label, **fields)


class Start(Section):
    """What the network starts from: a backbone, a checkpoint, an encoder's vocabulary, or nothing."""

    backbone: str | None = Field(
        None, description="a shipped backbone, or a folder: vocabulary, shape, embeddings and blocks are those of it"
    )
    checkpoint: str | None = Field(
        None, description="a shipped checkpoint, or a folder, to go on from: all but the training is that of it"
    )
    encoder: Literal["minilm", "mpnet"] | None = Field(
        None, description="vocabulary and embeddings of this pretrained encoder; none: both are learned from the data"
    )
    vocab_size: int = Field(
        8000, ge=1, description="WordPiece vocabulary learned from the data where there is no other"
    )

    @model_validator(mode="after")
    def _one_start(self) -> Self:
        if sum(start is not None for start in (self.backbone, self.checkpoint, self.encoder)) > 1:
            raise ValueError(
                "each of them has a vocabulary and embeddings; give one of backbone, checkpoint and encoder"
            )
        return self


class Text(Section):
    """Text without labels, which the teacher labels."""

    file: str = Field(
        description='text file, a paragraph a line; of "rows" a data file with the columns of [data], or a folder with '
        'a train file; or "train", the task\'s own training texts'
    )
    rows: int = Field(ge=1)
    form: Literal["rows", "sentences", "perturbed", "neighbours", "rewritten"] = Field(
        "sentences",
        description="what is made of it: of rows nothing, they are as they stand; see training/augment.py for the "
        "others, "
        "of which the last two are pairs",
    )

    @property
    def pairs(self) -> bool | None:
        """Whether it makes pairs; None for rows, which are what the task's own are."""
        return None if self.form == "rows" else self.form in ("neighbours", "rewritten")

    @property
    def name(self) -> str:
        return f"{self.form}-{Path(self.file).name.split('.')[0]}"

    @model_validator(mode="after")
    def _own(self) -> Self:
        if self.file == OWN and self.form not in ("perturbed", "rewritten"):
            raise ValueError(f"of the training texts themselves there is 'perturbed' or 'rewritten', no {self.form!r}")
        return self


class Teacher(Section):
    """An option on top of the paper: a fine-tuned encoder whose answers are learned beside the labels."""

    encoder: Literal["minilm", "mpnet"] = "minilm"
    epochs: int = Field(3, ge=1)
    learning_rate: float = Field(5e-5, gt=0)
    batch_size: int = Field(32, ge=1)
    longest: int | None = Field(
        None, ge=1, description="fine-tune on so many of the longest rows: short phrases teach little"
    )
    share: float = Field(0.5, ge=0, le=1, description="share of the teacher's answer in the target of a labelled row")
    temperature: float = Field(1.0, gt=0, description="its logits are divided by this before they become targets")
    seed: int = Field(
        1, ge=0, description="of fine-tuning and of the text; the runs of all seeds and variants share both"
    )
    text: list[Text] = []

    @model_validator(mode="after")
    def _distinct(self) -> Self:
        names = [table.name for table in self.text]
        if len(set(names)) < len(names):
            raise ValueError("two tables of text with one form and one file; put their rows into one")
        return self


class Optim(Section):
    """How it is trained. Rate, epochs and dropout are Table 1's unless the recipe says otherwise; its batches are of 32
    rows, and its rate falls on plateaus of the loss, where ours falls linearly: docs/log.md says why."""

    epochs: float = Field(50, gt=0, description="passes over the rows, those of the teacher's text among them")
    tokens_a_step: int = Field(1024, ge=16, description="of a batch, pads counted")
    learning_rate: float = Field(
        0.01, gt=0, description="at its highest; it falls linearly to nearly zero at the last step"
    )
    warmup: float = Field(0.05, ge=0, lt=1, description="share of the tokens over which the rate rises from zero")
    clip: float | None = Field(None, gt=0, description="most that the norm of all gradients may be")
    dropout: float = Field(0.3, ge=0, lt=1)
    label_smoothing: float = Field(0.0, ge=0, lt=1)
    embedding: Literal["learned", "frozen"] = Field("learned", description="whether the embedding's rows move")
    precision: Literal["float32", "bfloat16", "auto"] = Field(
        "float32", description="of products; signs are exact in both, auto takes what this device multiplies faster"
    )
    compile: bool = Field(False, description="fuse elementwise parts; needs a compiler: C++ on a CPU, Triton on a GPU")
    seed: int = Field(1, ge=0, description="of initialisation, order of the rows and dropout")


class FullPrecision(Section):
    """Binarizing in steps: the full-precision counterpart is trained first, by [optim] but for what stands here; then
    bits start from it and follow its states. See training/full_precision.py."""

    epochs: float = Field(2, gt=0)
    learning_rate: float = Field(1e-3, gt=0)
    clip: float | None = Field(1.0, gt=0, description="as in [optim]")
    states: float = Field(1.0, ge=0, description="weight of the states' distance beside the soft-routing loss of bits")


class SecondStage(Section):
    """A second phase on the labelled rows alone, after one that had more of others; otherwise as [optim] says."""

    epochs: float = Field(gt=0)
    tokens_a_step: int = Field(512, ge=16)
    learning_rate: float = Field(3e-4, gt=0)


class Exit(Section):
    """Exit options that are in effect where a request asks for nothing; see model/options.py."""

    delta: float | None = Field(None, ge=-1, le=1)
    entropy_threshold: float | None = Field(None, ge=0, le=1)
    min_blocks: int | None = Field(None, ge=1)
    max_blocks: int | None = Field(None, ge=1)

    @property
    def options(self) -> ExitOptions:
        return ExitOptions(**self.model_dump())


class Heads(Section):
    """Nothing but linear heads, fitted to the frozen states of a 1-bit backbone; see training/heads.py. [optim] says
    nothing then, but for label_smoothing and seed."""

    folds: int = Field(5, ge=2, le=20, description="of the cross-validation that chooses and judges them")


class Recipe(Section):
    """One training run."""

    name: str = Field(pattern=NAME)
    data: Data
    network: Network = Network.model_validate({})
    start: Start = Start.model_validate({})
    teacher: Teacher | None = None
    heads: Heads | None = None
    optim: Optim = Optim.model_validate({})
    full_precision: FullPrecision | None = None
    second_stage: SecondStage | None = None
    exit: Exit | None = None

    @model_validator(mode="after")
    def _grid(self) -> Self:
        if self.network.embedding == "int4+2" and self.optim.embedding != "frozen":
            raise ValueError(f'network.embedding "int4+2" is a grid that rows can\'t leave; add {FROZEN}')
        return self

    @model_validator(mode="after")
    def _pairs(self) -> Self:
        if self.network.exact_match and self.data.text_pair is None:
            raise ValueError("network.exact_match is for pairs of texts; name the second column as data.text_pair")
        if self.data.both_orders and self.data.text_pair is None:
            raise ValueError("data.both_orders is for pairs of texts; name the second column as data.text_pair")
        if self.data.both_orders and self.heads:
            raise ValueError("[heads] reads a pair alike in either order; leave data.both_orders out")
        return self

    @model_validator(mode="after")
    def _bits(self) -> Self:
        if self.start.checkpoint and self.full_precision:
            raise ValueError("a checkpoint has its bits already; leave [full_precision] out, or start from a backbone")
        return self

    @model_validator(mode="after")
    def _shares(self) -> Self:
        if self.data.class_shares == "labelled" and (self.heads or self.second_stage or self.data.balance):
            raise ValueError(
                'data.class_shares "labelled" is for training on other rows too; leave it out with [heads], '
                "[second_stage] and balance"
            )
        return self

    @model_validator(mode="after")
    def _frozen(self) -> Self:
        if self.heads is None:
            return self
        if self.network.head != "linear" or self.start.backbone is None:
            raise ValueError('[heads] needs network.head = "linear" and start.backbone, a 1-bit one')
        if self.network.pooling != "mean":
            raise ValueError("[heads] choose between poolings by cross-validation; leave network.pooling out")
        if self.teacher or self.full_precision or self.second_stage:
            raise ValueError("[heads] trains no network; leave [teacher], [full_precision] and [second_stage] out")
        return self

    @property
    def exit_options(self) -> ExitOptions:
        """What is in effect where a request asks for nothing, as far as the recipe says."""
        return self.exit.options if self.exit else NOTHING_ASKED

    def seeded(self, seed: int) -> "Recipe":
        """The same run from another seed."""
        return self.model_copy(update={"optim": self.optim.model_copy(update={"seed": seed})})

    def reading(self, max_tokens: int) -> "Recipe":
        """The same run with texts of so many tokens."""
        fields = {**self.network.model_dump(exclude_unset=True), "max_tokens": max_tokens}
        return self.model_copy(update={"network": Network.model_validate(fields)})

    def changed(
        self,
        max_tokens: int | None = None,
        folds: int | None = None,
        epochs: int | None = None,
        teacher: str | None = None,
        examples: bool | None = None,
    ) -> "Recipe":
        """The same run with what its owner asks for. Raises TrainingError for what means nothing to it."""
        if self.heads and (epochs or teacher):
            flag, also = ("--epochs", "") if epochs else ("--teacher", "; columns p_<label> teach heads, see the docs")
            raise TrainingError(
                f"{flag} means nothing for single texts: their heads are computed, not trained step by step. It goes "
                f"with pairs and with --start{also}"
            )
        if self.data.text_pair and self.data.described:
            raise TrainingError("--labels goes with single texts alone; leave it out")
        if not self.heads and (folds or self.data.described):
            flag = "--folds" if folds else "--labels"
            raise TrainingError(
                f"{flag} goes with heads alone: with --epochs, --teacher or --start a network is trained, once, and "
                "judged by a tenth of the rows or by --dev; leave it out"
            )
        result = self.reading(max_tokens) if max_tokens else self
        content = result.model_dump(exclude_unset=True)
        if folds:
            content["heads"] = {"folds": folds}
        if epochs:
            content["optim"] = {**content["optim"], "epochs": epochs}
        if teacher:
            content["teacher"] = {"encoder": teacher}
        if examples:
            content["data"] = {**content["data"], "examples": True}
        return parse(content, "arguments", Recipe)

    def for_full_precision(self) -> "Recipe":
        """The full-precision counterpart's training as a recipe of its own."""
        assert self.full_precision is not None
        optim = self.optim.model_copy(update=self.full_precision.model_dump(exclude={"states"}))
        return self.model_copy(update={"optim": optim, "full_precision": None, "second_stage": None})


Kind = TypeVar("Kind", bound=Section)


def read(path: Path, kind: type[Kind]) -> Kind:
    """A recipe from a TOML file. Raises TrainingError that names every wrong key."""
    try:
        content = tomllib.loads(path.read_text())
    except OSError as error:
        raise TrainingError(f"{path} can't be read ({error.strerror})") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise TrainingError(f"{path} is no TOML file: {error}") from None
    return parse(content, str(path), kind)


def parse(content: dict[str, Any], source: str, kind: type[Kind]) -> Kind:
    """A recipe from nested tables; `source` is named in the TrainingError, and so is every wrong key."""
    try:
        return kind.model_validate(content)
    except ValidationError as error:
        wrong = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
        raise TrainingError(f"{source}: {wrong}") from None
