"""
What one training run is made of, read from a TOML file. Defaults are Table 1 of the paper.

A recipe names data relative to the data folder given on the command line, so the same file works on any machine. An
unknown or misspelt key is refused.
"""

import tomllib
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from model.config import BEEConfig
from model.data import Columns
from model.errors import TrainingError


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Data(_Section):
    """Where the rows are and how they are scored."""

    train: str = Field(description="training file, or a folder with train, dev and test files")
    dev: str | None = Field(None, description="development file; without one a tenth of the training rows is held out")
    test: str | None = Field(None, description="test file; reported once, never chosen on")
    text: str = "text"
    text_pair: str | None = None
    label: str = "label"
    labels: list[str] | None = Field(None, description="class names in the order of integer labels")
    metric: Literal["accuracy", "f1", "macro_f1", "matthews"] = "accuracy"
    licence: str = Field("not stated", description="of the data, for the model card")

    @property
    def columns(self) -> Columns:
        return Columns(self.text, self.text_pair, self.label)


class Network(_Section):
    """Shape and variant; see `BEEConfig`."""

    d_model: int = 512
    n_block: int = 6
    n_head: int = 4
    d_head: int = 768
    max_tokens: int = 128
    carry: Literal["x", "h"] = "x"
    slfn: Literal["depth", "time"] = "depth"
    binary: bool = True
    early_exit: bool = True

    def config(self, vocab_size: int, n_class: int) -> BEEConfig:
        return BEEConfig(vocab_size=vocab_size, n_class=n_class, **self.model_dump())


class Start(_Section):
    """What the network starts from."""

    encoder: Literal["minilm", "mpnet"] | None = Field(
        None, description="vocabulary and embeddings of this pretrained encoder; none: both are learned from the data"
    )
    vocab_size: int = Field(8000, description="WordPiece vocabulary learned from the data where there is no encoder")


class Teacher(_Section):
    """An option on top of the paper: a fine-tuned encoder whose answers are learned beside the labels."""

    encoder: Literal["minilm", "mpnet"] = "minilm"
    epochs: int = Field(3, ge=1)
    learning_rate: float = Field(5e-5, gt=0)
    batch_size: int = Field(32, ge=1)
    share: float = Field(0.5, ge=0, le=1, description="share of the teacher's answer in the target of a labelled row")
    unlabelled: str | None = Field(None, description="text file, a paragraph a line; the teacher labels its sentences")
    unlabelled_rows: int = Field(100_000, ge=1)


class Optim(_Section):
    """How it is trained: Table 1 unless the recipe says otherwise."""

    epochs: int = Field(50, ge=1)
    patience: int = Field(5, ge=1, description="evaluations without a better dev score before training ends")
    batch_size: int = Field(32, ge=1)
    learning_rate: float = Field(0.01, gt=0)
    min_learning_rate: float = Field(0.0001, ge=0)
    schedule: Literal["plateau", "linear"] = Field("plateau", description="halved on a plateau of the loss, or linear")
    warmup: float = Field(0.0, ge=0, lt=1, description="share of the steps over which the rate rises from zero")
    dropout: float = Field(0.3, ge=0, lt=1)
    label_smoothing: float = Field(0.0, ge=0, lt=1)
    embedding: Literal["sparse", "frozen"] = Field("sparse", description="which embedding rows move: touched, or none")
    precision: Literal["float32", "bfloat16"] = Field("float32", description="of products; signs are exact in both")
    compile: bool = Field(False, description="fuse elementwise parts with torch.compile; needs a C++ compiler")
    evaluations: int = Field(1, ge=1, description="evaluations and checkpoints an epoch")
    average_from: float | None = Field(
        None, ge=0, lt=1, description="share of the steps after which evaluated weights are averaged into one network"
    )
    log_steps: int = Field(50, ge=1, description="steps a line of the log stands for")
    seed: int = 1


class Finish(_Section):
    """A second phase on the labelled rows alone, after one that had text from elsewhere; the rate decays linearly."""

    epochs: int = Field(ge=1)
    batch_size: int = Field(ge=1)
    learning_rate: float = Field(gt=0)
    evaluations: int = Field(4, ge=1, description="evaluations and checkpoints an epoch")
    average_from: float | None = Field(None, ge=0, lt=1, description="as in [optim]")


class Recipe(_Section):
    """One training run."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9_-]*$")
    data: Data
    network: Network = Network.model_validate({})
    start: Start = Start.model_validate({})
    teacher: Teacher | None = None
    optim: Optim = Optim.model_validate({})
    finish: Finish | None = None

    def finishing(self) -> "Recipe":
        """The second phase as a recipe of its own."""
        assert self.finish is not None
        changes = {**self.finish.model_dump(), "schedule": "linear", "warmup": 0.0}
        return self.model_copy(update={"optim": self.optim.model_copy(update=changes), "finish": None})


def read(path: Path) -> Recipe:
    """A recipe from a TOML file. Raises TrainingError that names every wrong key."""
    try:
        content = tomllib.loads(path.read_text())
    except OSError as error:
        raise TrainingError(f"{path} can't be read ({error.strerror})") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise TrainingError(f"{path} is no TOML file: {error}") from None
    return parse(content, str(path))


def parse(content: dict[str, Any], source: str) -> Recipe:
    """A recipe from nested tables; `source` is named in the TrainingError."""
    try:
        return Recipe.model_validate(content)
    except ValidationError as error:
        wrong = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
        raise TrainingError(f"{source}: {wrong}") from None
