"""
Several labels a text: test scores of `beexformer train` beside TF-IDF on rows that are put together from public texts.

    python bench/multi_label.py --data folder [--tasks requests ...] [--rows 1000] [--work folder]

No set of this kind is among the data, so rows are made: one to three texts of different classes, one after another, are
a text whose labels are these classes; and every tenth is a text of none of them. It is easier than people's rows in one
way, each label has a sentence of its own to show for it, and harder in another: mean states have to hold all of them.
Training and test rows are made of the training and test texts of a set, each in one row at most: where the texts of a
class end, there are fewer rows than asked for. Prints a table and one JSON
line: seconds from the start of the process to the checkpoint and its peak memory too.

- requests: 24 intents of clinc150, one to three in a row; every tenth row is of other intents
- feelings: the four of tweet_emotion, one or two tweets in a row; every tenth row has sentences of subj
- news: the four of agnews, one to three in a row; every tenth row has sentences of subj
"""

import argparse
import csv
import json
import platform
import sys
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table
from timing import Used, used_by

from beexformer.model.engine import Engine
from beexformer.training import diagnosis, lexical
from beexformer.training.data import Columns, Rows, read_rows
from beexformer.training.evaluate import METRICS, OF_LABEL_SETS, evaluate, read_labelled

INTENTS = 24
NONE = 0.1  # share of rows without a label
TASKS = {"requests": ("clinc150", 3), "feelings": ("tweet_emotion", 2), "news": ("agnews", 3)}
"""Task -> (its set, the most texts in a row)."""
COMMAND = Path(sys.executable).parent / "beexformer"


def texts(folder: Path, split: str) -> dict[str, list[str]]:
    """The texts of a split by class."""
    rows, labels = read_rows(folder / f"{split}.tsv.gz", Columns("sentence"))
    return {name: [rows.texts[i] for i in np.flatnonzero(rows.labels == j)] for j, name in enumerate(labels)}


def made(data: Path, task: str, split: str, count: int) -> list[tuple[str, list[str]]]:
    """(text, labels) of so many rows."""
    name, most = TASKS[task]
    rng = np.random.default_rng([len(split), count])
    by_class = texts(data / "extra" / name, split)
    names = [*by_class][:: max(1, len(by_class) // INTENTS)][:INTENTS] if name == "clinc150" else [*by_class]
    other = [text for each in by_class if each not in names for text in by_class[each]]
    other = other or [text for each in texts(data / "extra" / "subj", split).values() for text in each]
    left = {name: rng.permutation(by_class[name]).tolist() for name in names}
    left_of_none = rng.permutation(other).tolist()
    rows: list[tuple[str, list[str]]] = []
    while len(rows) < count and all(left.values()):
        if rng.random() < NONE:
            rows.append((left_of_none.pop(), []))
            continue
        labels = rng.choice(names, rng.integers(1, most + 1), replace=False).tolist()
        rows.append((" ".join(left[label].pop() for label in labels), sorted(labels)))
    return rows


def write(path: Path, rows: list[tuple[str, list[str]]]) -> None:
    with path.open("w", newline="") as out:
        csv.writer(out).writerows([("text", "labels"), *((text, ";".join(labels)) for text, labels in rows)])


def trained(folder: Path) -> Used:
    """What the command took."""
    flags = ("--label", "labels", "--label-separator", ";")
    files = ("--train", str(folder / "train.csv"), "--out", str(folder / "model"), "--work", str(folder / "work"))
    return used_by([str(COMMAND), "train", *flags, *files], folder / "log.txt")


def compared(folder: Path) -> dict[str, Any]:
    """Test scores of each by all metrics, and what the network was said to be worth by cross-validation."""
    used = trained(folder)
    engine = Engine.load(folder / "model")
    columns = Columns(label="labels", label_separator=";")
    test = read_labelled(engine, folder / "test.csv", columns)
    train = read_labelled(engine, folder / "train.csv", columns)
    result = evaluate(engine, test)
    words = lexical.answered(train, test)
    assert words is not None
    dev = engine.description["evaluation"]["dev"]
    return {
        "network": result["metrics"],
        "TF-IDF": {name: float(METRICS[name](test.labels, words)) for name in OF_LABEL_SETS},
        "most frequent": {
            name: diagnosis.majority(train.labels, test.labels, METRICS[name])[1] for name in OF_LABEL_SETS
        },
        "cross-validated": dev["metrics"],
        "full depth": result["full_depth_score"],
        "flops_saved_ratio": result["flops_saved_ratio"],
        "by exit": [point["score"] for point in result["per_exit"]],
        "seconds": used.seconds,
        "peak_gb": used.peak_bytes / 1e9,
        "rows": [len(train), len(test)],
        "labels_a_text": labels_a_text(test),
    }


def labels_a_text(rows: Rows) -> float:
    return float(rows.labels.sum() / len(rows))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=[*TASKS])
    parser.add_argument("--rows", type=int, default=1000)
    parser.add_argument("--work", type=Path, default=Path("runs/multi-label"))
    asked = parser.parse_args()
    table = Table(title=f"test micro F1 / macro F1 / exact of {asked.rows} training rows")
    names = ("network", "TF-IDF", "most frequent", "cross-validated")
    for column in ("task", *names, "FLOPs saved", "s", "GB"):
        table.add_column(column)
    results = {}
    for task in asked.tasks:
        folder = asked.work / f"{task}-{asked.rows}"
        folder.mkdir(parents=True, exist_ok=True)
        write(folder / "train.csv", made(asked.data, task, "train", asked.rows))
        write(folder / "test.csv", made(asked.data, task, "test", 1000))
        results[task] = result = compared(folder)
        cells = [" / ".join(f"{100 * result[name][metric]:.1f}" for metric in OF_LABEL_SETS) for name in names]
        table.add_row(
            task, *cells, f"{result['flops_saved_ratio']:.1%}", f"{result['seconds']:.0f}", f"{result['peak_gb']:.2f}"
        )
    Console().print(table)
    print(json.dumps({"machine": platform.machine(), "rows": asked.rows, **results}))


if __name__ == "__main__":
    main()
