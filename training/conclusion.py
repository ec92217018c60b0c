"""
What an owner is told at the end of a run: how good the network is, class by class and beside what is simpler, and what
to do next.
"""

from pathlib import Path
from typing import Any

from rich.console import Console

from beexformer.training import diagnosis, lexical, terminal_tables
from beexformer.training.data import Rows
from beexformer.training.evaluate import METRICS


def conclude(console: Console, labels: list[str], said: list[str], evaluation: dict[str, Any], out: Path) -> None:
    """Print it; `said` are the sentences of `compared`."""
    result = evaluation["dev"]
    console.print(terminal_tables.class_tables(labels, {**result, "advice": diagnosis.advice(result)}))
    for sentence in said:
        console.print(sentence, highlight=False, soft_wrap=True)
    model = out.resolve()
    console.print(
        f"try it:   beexformer classify 'a text' --checkpoint {model}\n"
        f"serve it: beexformer serve --checkpoints {model}",
        highlight=False,
        soft_wrap=True,
    )


def compared(labels: list[str], train: Rows, dev: Rows, result: dict[str, Any]) -> list[str]:
    """The network's score beside that of the largest class and of TF-IDF, of several labels a text by every metric that
    there is; and what follows where these are better. `dev` is `train` itself where the network was judged by
    cross-validation."""
    metric, score = result["metric"], result["score"]
    by_words = lexical.answered(train, dev)
    how = "each row by what was learned without it" if dev is train else "held-out rows"
    said = []
    for name, ours in {metric: score, **result.get("metrics", {})}.items():
        largest, always = diagnosis.majority(train.labels, dev.labels, METRICS[name])
        others = [f"always saying {labels[largest]!r} {always:.4f}"]
        if by_words is not None:
            others.append(f"TF-IDF with logistic regression {METRICS[name](dev.labels, by_words):.4f}")
        said.append(f"{name} of {len(dev)} rows, {how}: this model {ours:.4f}, {', '.join(others)}")
    majority = diagnosis.majority(train.labels, dev.labels, METRICS[metric])[1]
    words = None if by_words is None else METRICS[metric](dev.labels, by_words)
    if score <= majority:
        said.append("this model is no better than the largest class: give more rows, or look at the labels")
    elif words is not None and words > result["interval"][1]:
        said.append("TF-IDF is clearly better on these rows: single words decide here, so take that")
    return said
