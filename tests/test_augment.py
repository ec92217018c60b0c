"""Text made from text: deterministic, distinct, near the task's lengths."""

from collections import Counter

import numpy as np
import pytest

from beexformer.training import augment
from beexformer.training.augment import Words
from beexformer.training.data import key

TEXT = "The old man walks over the bridge, and his dog has walked with him since 1999 in Prague."
OTHER = "Mary Smith was walking the dogs, which they had never been given, to London."
WORDS = Words([TEXT, OTHER, "walk walking walked making made makes make stopped stop stopping"])


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def paragraphs(count: int) -> list[str]:
    """Paragraphs of 6 sentences of 5 to 24 words."""
    words = [f"word{i}" for i in range(500)]
    generator = rng(3)

    def sentence() -> str:
        drawn = [words[i] for i in generator.integers(500, size=generator.integers(4, 24))]
        return "The " + " ".join(drawn[:3]) + ", " + " ".join(drawn[3:]) + "."

    return [" ".join(sentence() for _ in range(6)) for _ in range(count)]


def test_an_edit_changes_a_sentence_and_leaves_its_end_alone() -> None:
    for seed in range(300):
        changed = augment.perturb(TEXT, WORDS, rng(seed))
        assert changed != TEXT
        assert changed.endswith(".")
        assert abs(len(changed.split()) - len(TEXT.split())) <= 1
    assert augment.perturb("He won 't go ?", WORDS, rng()).endswith(" ?")
    assert augment.perturb("Stop!", WORDS, rng()) == "Stop!", "one word is left alone"


@pytest.mark.parametrize("edit", dict.fromkeys(augment.EDITS), ids=lambda edit: edit.__name__)
def test_every_edit_does_what_its_name_says(edit: object) -> None:
    before = Counter(TEXT.split())
    length = len(TEXT.split())
    seen = set()
    for seed in range(200):
        changed = edit(TEXT.split(), WORDS, rng(seed))  # type: ignore[operator]
        gone, come = before - Counter(changed), Counter(changed) - before
        seen.add((len(changed) - length, gone.total(), come.total()))
    expected = {
        "_drop": {(-1, 1, 0)},
        "_drop_function_word": {(-1, 1, 0)},
        "_swap": {(0, 0, 0)},
        "_move": {(0, 0, 0)},
        "_repeat": {(1, 0, 1)},
        "_insert_function_word": {(1, 0, 1)},
        "_replace": {(0, 1, 1), (0, 0, 0)},
        "_exchange_function_word": {(0, 1, 1)},
        "_change_ending": {(0, 1, 1), (0, 0, 0)},
    }
    assert seen == expected[edit.__name__]  # type: ignore[attr-defined]


def test_function_words_give_way_to_their_like() -> None:
    for seed in range(100):
        [changed] = augment._exchange_function_word(["The"], WORDS, rng(seed))
        assert changed in augment.CLASSES[0]
        assert changed != "the"


@pytest.mark.parametrize(
    ("word", "forms"),
    [
        ("walks", ["walk", "walked", "walking"]),
        ("Making", ["make", "makes"]),
        ("stopped", ["stop", "stopping"]),
        ("since", []),
    ],
)
def test_endings_give_words_that_occur(word: str, forms: list[str]) -> None:
    assert WORDS.forms(word) == forms


def test_replacements_follow_the_frequency_of_the_corpus() -> None:
    words = Words(["the the the cat"])
    generator = rng()
    drawn = Counter(words.draw(generator) for _ in range(4000))
    assert drawn["the"] / 4000 == pytest.approx(0.75, abs=0.03)


def test_shortening_keeps_order_and_comes_near_the_length() -> None:
    for seed in range(100):
        short = augment.shorten(TEXT, 8, rng(seed))
        assert short.endswith(".")
        assert 3 <= len(short.split()) <= 11
        assert short[:-1] in TEXT
    assert augment.shorten("As it is.", 8, rng()) == "As it is."


def test_a_rewritten_sentence_is_another_one() -> None:
    made = [augment.rewrite(TEXT, OTHER, 12, WORDS, rng(seed)) for seed in range(500)]
    assert TEXT not in made
    assert len(set(made)) > 200
    assert any("London" in text for text in made), "joined or exchanged with the other"
    assert max(len(text.split()) for text in made) <= 12 * 1.3 + 3


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_a_share_of_the_texts_is_perturbed(share: float) -> None:
    texts = [f"The man sees number {i} over there." for i in range(1000)]
    stream = augment.perturbed(texts, Words(texts), rng(), share)
    drawn = [next(stream) for _ in texts]
    same = len(set(drawn) & set(texts))
    assert same == pytest.approx(1000 * (1 - share), abs=60)


@pytest.mark.parametrize("form", ["neighbours", "rewritten"])
def test_pairs_come_from_one_paragraph_and_have_the_lengths_of_the_task(form: str) -> None:
    text = paragraphs(40)
    lengths = np.column_stack([rng(1).integers(8, 40, 100), rng(2).integers(5, 15, 100)])
    made = (
        augment.neighbours(text, lengths, rng())
        if form == "neighbours"
        else augment.rewritten(text, lengths, Words(text), rng())
    )
    pairs = [next(made) for _ in range(300)]
    assert all(any(a in paragraph for paragraph in text) for a, _ in pairs)
    assert max(len(a.split()) for a, _ in pairs) <= 40
    assert max(len(b.split()) for _, b in pairs) <= 22
    assert {1, 2, 3} == {a.count(".") for a, _ in pairs}
    if form == "neighbours":
        assert all(any(f"{a} {b}" in paragraph for paragraph in text) for a, b in pairs)


def test_own_pairs_keep_a_side_that_is_known() -> None:
    own = [(f"The first text {i} is here, said Ann.", f"Bob said text {i} was there.") for i in range(20)]
    sides = {text for pair in own for text in pair}
    made = augment.distinct(augment.rewritten_pairs(own, Words(sides), rng()), 200, {key(pair) for pair in own})
    assert len(made) == 200
    assert all(sides & set(pair) for pair in made)
    assert any(pair[::-1] in own for pair in made), "sides swapped"


def test_distinct_rows_are_none_that_are_kept_out() -> None:
    rows = iter([("a", "b"), ("A", " b"), ("c", "kept  out"), ("Kept out", "d"), ("e", "f"), ("g", "h"), ("i", "j")])
    without = {key("kept out"), key(("e", "f"))}
    assert augment.distinct(rows, 2, without) == [("a", "b"), ("g", "h")]
    assert augment.distinct(iter(["x", "X ", "y"]), 9, set()) == ["x", "y"], "all there are"


def test_a_source_without_sentences_ends() -> None:
    lengths = np.array([[5, 5]])
    assert augment.distinct(augment.neighbours(["One.", "Two words."], lengths, rng()), 5, set()) == []
    assert augment.distinct(augment.rewritten_pairs([], WORDS, rng()), 5, set()) == []


def test_the_same_seed_makes_the_same_rows() -> None:
    text, lengths = paragraphs(30), np.array([[20, 8]])
    made = [augment.distinct(augment.rewritten(text, lengths, Words(text), rng(s)), 100, set()) for s in (1, 1, 2)]
    assert made[0] == made[1]
    assert made[0] != made[2]
