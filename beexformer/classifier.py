"""
Classifying from Python: a checkpoint by its name or folder, texts in, answers out. No server, no torch.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

from beexformer.model.answer import Answer
from beexformer.model.checkpoint import SHIPPED
from beexformer.model.errors import CheckpointError, InputError
from beexformer.model.options import ExitOptions, ExitSettings

if TYPE_CHECKING:  # it loads numba
    from beexformer.model.engine import Engine

Text = str | tuple[str, str]
"""A text, or the two texts of a pair."""
Texts = list[str] | list[tuple[str, str]] | list[Text]


def load(checkpoint: str | Path) -> "Classifier":
    """A shipped checkpoint by its name ("sst2"), or any other by its folder.

    Reads and verifies it, also by texts that it keeps with their answers. The first call on a machine compiles the
    kernels, which takes some seconds; they are kept on disk, in NUMBA_CACHE_DIR where that is set. Raises
    CheckpointError, one sentence, for whatever is wrong."""
    from beexformer.model.engine import Engine

    shipped = sorted(path.parent.name for path in SHIPPED.glob("*/config.json"))
    folder = SHIPPED / checkpoint if checkpoint in shipped else Path(checkpoint)
    if not folder.is_dir():
        raise CheckpointError(f"{checkpoint} is no folder and no shipped checkpoint; these are {', '.join(shipped)}")
    engine = Engine.load(folder)
    engine.warm()
    return Classifier(engine)


class Classifier:
    """A loaded checkpoint; made by `load`. Several threads may use one at once, each on a core of its own."""

    def __init__(self, engine: "Engine") -> None:
        self.engine = engine

    def __repr__(self) -> str:
        return f"<beexformer.Classifier {self.name!r}: {', '.join(self.labels)}>"

    @property
    def name(self) -> str:
        return self.engine.name

    @property
    def labels(self) -> tuple[str, ...]:
        return self.engine.labels

    @property
    def thresholds(self) -> tuple[float, ...] | None:
        """The scores from which on labels apply, in their order, of a model of several labels a text; else None."""
        return self.engine.thresholds

    @property
    def num_blocks(self) -> int:
        """Blocks of the network, the deepest exit_index."""
        return self.engine.config.n_block

    @property
    def description(self) -> dict[str, Any]:
        """What the checkpoint says about itself, as `GET /models/{name}` has it: network, scores, provenance."""
        return self.engine.description

    def settings(self, **options: Any) -> ExitSettings:
        """The exit settings that are in effect where `classify` is given these options."""
        return self.engine.resolve(ExitOptions(**options))

    @overload
    def classify(
        self,
        text: str,
        text_pair: str | None = None,
        *,
        delta: float | None = None,
        entropy_threshold: float | None = None,
        min_blocks: int | None = None,
        max_blocks: int | None = None,
        profile: str | None = None,
        candidate_labels: list[str] | None = None,
        truncate: bool = True,
    ) -> Answer: ...
    @overload
    def classify(
        self,
        text: Texts,
        *,
        delta: float | None = None,
        entropy_threshold: float | None = None,
        min_blocks: int | None = None,
        max_blocks: int | None = None,
        profile: str | None = None,
        candidate_labels: list[str] | None = None,
        truncate: bool = True,
    ) -> list[Answer]: ...
    def classify(
        self,
        text: str | Texts,
        text_pair: str | None = None,
        *,
        candidate_labels: list[str] | None = None,
        truncate: bool = True,
        **options: Any,
    ) -> Answer | list[Answer]:
        """The answer to a text, to a pair of texts, or to each of a list of them, in order.

        The options are those of a request: `delta` in [-1, 1], `entropy_threshold` in [0, 1] (a share of ln(classes)),
        `min_blocks` and `max_blocks` in 1..num_blocks, `profile` the name of one that the checkpoint has; None takes
        the checkpoint's default. `candidate_labels` are classes in place of the model's own, for a checkpoint that
        `beexformer train --labels` wrote; what they cost is part of the first answer. A text longer than the window is
        cut, or refused where `truncate` is False.
        Raises InputError, one sentence, for what can't be answered; in a list it says which one, and none is answered.
        """
        exit_options, engine, spent = ExitOptions(**options), self.engine, 0.0
        if candidate_labels is not None:
            engine, spent = engine.candidates.engine(candidate_labels)
        if isinstance(text, str):
            [answer] = engine.predict([engine.encode(text, text_pair, exit_options, truncate=truncate)])
            return answer.with_candidates(spent)
        if isinstance(text, tuple) or text_pair is not None:
            raise InputError("give a pair as classify(text, text_pair), several texts or pairs as one list")
        rows = []
        for i, one in enumerate(text):
            first, second = (one, None) if isinstance(one, str) else one
            try:
                rows.append(engine.encode(first, second, exit_options, truncate=truncate))
            except InputError as error:
                raise InputError(f"text {i} of {len(text)}: {error}") from None
        answers = engine.predict(rows)
        return [answer.with_candidates(0.0 if i else spent) for i, answer in enumerate(answers)]
