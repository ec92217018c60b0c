"""What the command for whole reviews says of a checkpoint, on a random one."""

import gzip
import sys
from pathlib import Path

import numpy as np
import pytest
from tiny import random_checkpoint, random_texts

from beexformer.model.engine import Engine
from beexformer.model.options import ExitOptions
from beexformer.training.data import Rows
from beexformer.training.evaluate import exits_taken, logits_of

sys.path.insert(0, str(Path(__file__).parent.parent / "bench"))

import long_text


def test_agreement_is_counted_for_each_way_of_leaving() -> None:
    engine = Engine(random_checkpoint())
    reviews = random_texts(40, longest=60)
    logits, read = logits_of(engine, Rows(reviews, None, np.zeros(40, int)))
    taken = exits_taken(engine.config, logits, engine.resolve(ExitOptions()))
    said = logits[np.arange(40), taken - 1].argmax(1)
    tokens, clean = np.tile([100, 200, 300, 512], 10), np.arange(40) < 10
    result = long_text.measured(engine, reviews, said, tokens, clean)
    assert result["as it ships"]["agreement"] == 1
    assert result["as it ships"]["untouched"] == 1
    deepest = logits[:, -1].argmax(1) == said
    assert result["at full depth"]["agreement"] == deepest.mean()
    assert result["at full depth"]["by_tokens"] == {
        "0-128": deepest[::4].mean(),
        "129-256": deepest[1::4].mean(),
        "257-511": deepest[2::4].mean(),
        "512-512": deepest[3::4].mean(),
    }
    assert result["at full depth"]["untouched"] == deepest[:10].mean()
    assert result["at full depth"]["flops_saved_ratio"] == 0
    assert result["cut"] == np.mean(read == engine.config.max_tokens)
    assert result["cut"] > 0


def test_a_review_with_a_sentence_that_was_read_is_told_apart(tmp_path: Path) -> None:
    with gzip.open(tmp_path / "read.tsv.gz", "wt") as file:
        file.write("sentence\tlabel\nI liked this film a lot.\t1\nGreat movie.\t1\n")
    reviews = ["It was long. I liked this FILM a lot.", "Great movie.", "It was nothing for me at all."]
    assert long_text.untouched(reviews, [tmp_path / "read.tsv.gz"]).tolist() == [False, True, True]


def test_answers_about_other_reviews_are_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "mpnet.npz", logits=np.zeros((3, 2)), tokens=np.ones(3), dev_accuracy=0.9)
    with pytest.raises(SystemExit, match="is of other reviews; give --work another folder"):
        long_text.mpnet(tmp_path, ["one"], tmp_path, 1, None)  # type: ignore[arg-type]
