"""What a run reads: the teacher is asked once, its answers reach the targets, no row that is scored is trained on."""

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console
from safetensors.numpy import load_file
from test_teacher import random_encoder
from tiny import random_texts

from beexformer.model.engine import Engine
from beexformer.model.errors import DataError, TrainingError
from beexformer.model.exits import softmax
from beexformer.training import own_rows, prepare, recipe, teacher, teacher_labels, train
from beexformer.training.data import Input, Rows
from beexformer.training.progress import RunProgress

RECIPES = Path(__file__).parent.parent / "recipes"
GLUE = ["sst2", "cola", "mrpc", "rte"]
NETWORK = {"d_model": 128, "n_block": 2, "n_head": 2, "d_head": 64, "max_tokens": 32}
SENTENCES = [f"The {text} film {i}." for i, text in enumerate(random_texts(300, seed=9, longest=8))]


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return random_encoder(tmp_path_factory.mktemp("encoder"))


@pytest.fixture
def root(tmp_path: Path, encoder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Labelled single texts and pairs with splits of their own, and free text that repeats rows of dev and test."""
    for module in (prepare, teacher_labels):
        monkeypatch.setattr(module, "locate", lambda name, cache: encoder)
    for kind in ("single", "pairs"):
        (tmp_path / kind).mkdir()
    for seed, split in enumerate(("train", "dev", "test")):
        texts = [f"{text} {split}." for text in random_texts(60, seed, longest=8)]
        others = [f"{text} {split}." for text in random_texts(60, seed + 10, longest=8)]
        labels = [int("worst" in text) for text in texts]
        if split == "train":  # rows of dev, in another dress
            texts += ["  THE warm film DEV.", "funny   movie test."]
            others += ["It is DEV.", "it is test."]
            labels += [0, 1]
        else:
            texts += [f"the warm film {split}.", f"funny movie {split}."]
            others += [f"it is {split}.", f"it is {split}."]
            labels += [0, 1]
        single = [f"{text}\t{label}" for text, label in zip(texts, labels, strict=True)]
        pairs = [f"{a}\t{b}\t{label}" for a, b, label in zip(texts, others, labels, strict=True)]
        (tmp_path / "single" / f"{split}.tsv").write_text("\n".join(["text\tlabel", *single]) + "\n")
        (tmp_path / "pairs" / f"{split}.tsv").write_text("\n".join(["text\tother\tlabel", *pairs]) + "\n")
    leaked = ["The warm  film dev.", "FUNNY movie test.", "It is dev.", "it is Test."]
    lines = [" ".join([*SENTENCES[i : i + 5], *leaked]) for i in range(0, 300, 5)]
    (tmp_path / "free.txt").write_text("\n".join(lines))
    (tmp_path / "other").mkdir()  # rows without labels, whose dev file is not to be read
    rows = [f"{a}\t{b}" for a, b in zip(SENTENCES[:40], SENTENCES[40:80], strict=True)]
    rows += [f"{text}\t{SENTENCES[90]}" for text in leaked[:2]]
    (tmp_path / "other" / "train.tsv").write_text("\n".join(["text\tother", *rows, rows[0]]) + "\n")
    (tmp_path / "other" / "dev.tsv").write_text("text\tother\nnot this\tnor that\n")
    return tmp_path


def plan(kind: str = "single", **sections: Any) -> recipe.Recipe:
    content = {
        "name": "taught",
        "data": {"train": kind, **({"text_pair": "other"} if kind == "pairs" else {})},
        "network": NETWORK,
        "start": {"encoder": "minilm"},
        "teacher": {"epochs": 1},
        "optim": {"epochs": 1, "embedding": "frozen"},
    }
    return recipe.parse({**content, **sections}, "test", recipe.Recipe)


def tables(*rows: tuple[str, int, str]) -> dict[str, Any]:
    return {"epochs": 1, "text": [{"file": file, "rows": count, "form": form} for file, count, form in rows]}


def prepared(recipe: recipe.Recipe, root: Path, work: str = "work") -> prepare.Prepared:
    (root / work).mkdir(exist_ok=True)
    return prepare.prepare(recipe, root, root / work, RunProgress(Console(quiet=True)))


def hashes(rows: list[Input], apart: bool) -> set[str]:
    """SHA-256 of rows without case and blanks; `apart`: of every text of a pair."""
    units = [[row] if isinstance(row, str) else list(row) for row in rows]
    units = [[text] for row in units for text in row] if apart else units
    return {hashlib.sha256("\t".join("".join(t.lower().split()) for t in unit).encode()).hexdigest() for unit in units}


SINGLE = tables(("free.txt", 40, "sentences"), ("free.txt", 50, "perturbed"), ("train", 60, "perturbed"))
PAIRS = tables(("free.txt", 40, "neighbours"), ("free.txt", 50, "rewritten"), ("train", 60, "rewritten"))


@pytest.mark.parametrize(("kind", "section"), [("single", SINGLE), ("pairs", PAIRS)])
def test_no_row_that_is_scored_is_trained_on(root: Path, kind: str, section: dict[str, Any]) -> None:
    data = prepared(plan(kind, teacher=section), root)
    assert data.test
    scored = data.dev.inputs() + data.test.inputs()
    assert not hashes(data.train.inputs(), False) & hashes(scored, False)
    assert not hashes(data.unlabelled, True) & hashes(scored, True)
    assert data.facts["train_rows_dropped"] == 2
    assert len(data.train) == 60
    assert len(data.ids) == len(data.targets) == 60 + len(data.unlabelled)
    assert len(hashes(data.unlabelled, False)) == len(data.unlabelled), "distinct"
    assert [table["rows"] for table in data.facts["teacher"]["text"]] == [t["rows"] for t in section["text"]]


def test_pairs_are_read_in_both_orders_where_that_is_asked_for(root: Path) -> None:
    """Each with what is said of it, and none that is a dev or test row the other way round."""
    lines = (root / "pairs" / "dev.tsv").read_text().splitlines()[1:3]
    turned = ["\t".join([b, a, label]) for a, b, label in (line.split("\t") for line in lines)]
    with (root / "pairs" / "train.tsv").open("a") as file:
        file.write("\n".join(turned) + "\n")
    pairs = {"train": "pairs", "text_pair": "other"}
    one = prepared(plan("pairs", data=pairs, teacher=None), root)
    both = prepared(plan("pairs", data={**pairs, "both_orders": True}, teacher=None), root)
    kept = [i for i, (a, b) in enumerate(one.train.inputs()) if f"{b}\t{a}" not in "\n".join(lines)]
    assert (len(one.train), len(kept), both.facts["train_rows_dropped"]) == (62, 60, 4)
    told = [*zip(one.train.take(np.array(kept)).inputs(), one.train.labels[kept], strict=True)]
    assert [*zip(both.train.inputs(), both.train.labels, strict=True)] == [
        *told, *(((b, a), label) for (a, b), label in told)
    ]  # fmt: skip
    with pytest.raises(TrainingError, match="both_orders is for pairs"):
        plan(data={"train": "single", "both_orders": True})
    with pytest.raises(TrainingError, match="alike in either order"):
        plan("pairs", data={**pairs, "both_orders": True}, teacher=None, heads={}, optim={})


@pytest.mark.parametrize("task", GLUE)
def test_no_dev_row_is_in_the_labelled_rows_of_a_shipped_recipe(task: str, data_root: Path, tmp_path: Path) -> None:
    shipped = recipe.read(RECIPES / f"{task}.toml", recipe.Recipe)
    bare = shipped.model_copy(update={"teacher": None, "start": recipe.Start.model_validate({"vocab_size": 200})})
    data = prepare.prepare(bare, data_root, tmp_path, RunProgress(Console(quiet=True)))
    assert not hashes(data.train.inputs(), False) & hashes(data.dev.inputs(), False)
    assert len(data.dev) == {"sst2": 872, "cola": 1043, "mrpc": 408, "rte": 277}[task]


@pytest.mark.parametrize(("kind", "file"), [("single", "other"), ("pairs", "other"), ("pairs", "other/train.tsv")])
def test_rows_of_another_file_are_taken_as_they_stand(root: Path, kind: str, file: str) -> None:
    data = prepared(plan(kind, teacher=tables((file, 100, "rows"))), root)
    first, second = SENTENCES[:40], SENTENCES[40:80]
    assert sorted(data.unlabelled) == sorted(first if kind == "single" else zip(first, second, strict=True))
    assert len(prepared(plan(kind, teacher=tables((file, 30, "rows"))), root, "fewer").unlabelled) == 30


def test_rows_of_a_file_without_the_columns_are_refused(root: Path) -> None:
    (root / "bare.csv").write_text("review\ngood\n")
    with pytest.raises(DataError, match="no column 'text'; it has review"):
        prepared(plan(teacher=tables(("bare.csv", 9, "rows"))), root)


@pytest.mark.parametrize("file", ["single", "single/dev.tsv"])
def test_rows_that_are_the_tasks_own_leave_nothing_to_ask_about(root: Path, file: str) -> None:
    with pytest.raises(TrainingError, match=rf"nothing can be made of {file} \(rows\)"):
        prepared(plan(teacher=tables((file, 100, "rows"))), root)
    assert not (root / "work" / "teacher").exists(), "said before an encoder is fine-tuned"


def test_rows_that_are_all_scored_leave_nothing_to_train_on(root: Path) -> None:
    with pytest.raises(TrainingError, match="every training row is also a development or test row"):
        prepared(plan(data={"train": "single/train.tsv", "dev": "single/train.tsv"}), root)


def test_a_handful_of_pairs_is_enough_to_measure_lengths(root: Path) -> None:
    (root / "few.tsv").write_text("text\tother\tlabel\nA b c.\tone two three four five six\t0\na b c d e f\tone\t1\n")
    data = {"train": "few.tsv", "dev": "pairs/dev.tsv", "text_pair": "other"}
    assert len(prepared(plan(data=data, teacher=PAIRS), root).unlabelled) > 90


@pytest.mark.parametrize(("kind", "form"), [("single", "neighbours"), ("pairs", "perturbed"), ("pairs", "sentences")])
def test_text_of_the_other_kind_is_refused(root: Path, kind: str, form: str) -> None:
    with pytest.raises(TrainingError, match=f"'{form}' of free.txt makes"):
        prepared(plan(kind, teacher=tables(("free.txt", 9, form))), root)


def test_label_smoothing_is_in_the_targets(root: Path) -> None:
    """Szegedy et al. 2016: 1 - e of a target stays on its label, e is spread over all m classes."""
    smooth = plan(optim={"epochs": 1, "embedding": "frozen", "label_smoothing": 0.2}, teacher=None)
    data = prepared(smooth, root)
    m = len(data.labels)
    np.testing.assert_allclose(data.targets.max(1), 0.8 + 0.2 / m, rtol=1e-6)
    np.testing.assert_allclose(data.targets.min(1), 0.2 / m, rtol=1e-6)
    assert (data.targets.argmax(1) == data.train.labels).all()


def test_targets_are_labels_mixed_with_answers_and_answers_alone(root: Path) -> None:
    section = {**tables(("free.txt", 40, "sentences")), "share": 0.25, "temperature": 2.0}
    data = prepared(plan(teacher=section), root)
    labelled, free = (np.load(root / "work" / f"labels-{name}" / "00000.npy") for name in ("train", "sentences-free"))
    expected = 0.75 * np.eye(2)[data.train.labels] + 0.25 * softmax(labelled / 2)
    np.testing.assert_allclose(data.targets[:60], expected, atol=1e-6)
    np.testing.assert_allclose(data.targets[60:], softmax(free / 2), atol=1e-6)


def test_a_teacher_of_the_longest_rows_that_has_no_share_is_not_asked_about_labelled_rows(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    taught: list[int] = []
    finetune = teacher.finetune

    def counted(encoder: Path, rows: Rows, *args: Any, **named: Any) -> teacher.Teacher:
        taught.append(len(rows))
        return finetune(encoder, rows, *args, **named)

    monkeypatch.setattr(teacher, "finetune", counted)
    data = prepared(plan(teacher={**SINGLE, "longest": 20, "share": 0.0}), root)
    assert taught == [data.facts["teacher"]["train_rows"]] == [20]
    assert (data.targets[: len(data.train)] == np.eye(2)[data.train.labels]).all()
    assert not (root / "work" / "labels-train").exists()


def test_all_seeds_and_variants_share_one_teacher_and_its_text(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one = prepared(plan(teacher=SINGLE), root)
    monkeypatch.setattr(teacher, "_forward", None)  # asked again, it would have to think
    other = prepared(plan(teacher=SINGLE).seeded(5), root)
    assert other.unlabelled == one.unlabelled
    assert (other.targets == one.targets).all()
    assert (other.dev.texts, other.train.texts) == (one.dev.texts, one.train.texts)


def test_text_is_a_function_of_the_teachers_seed(root: Path) -> None:
    section = {**SINGLE, "seed": 1}
    texts = [
        prepared(plan(teacher={**section, "seed": s}), root, w).unlabelled for s, w in ((1, "a"), (1, "b"), (2, "c"))
    ]
    assert texts[0] == texts[1]
    assert texts[0] != texts[2]


def test_answers_of_another_teacher_or_to_other_rows_are_refused(root: Path) -> None:
    prepared(plan(teacher=SINGLE), root)
    prepared(plan(teacher={**SINGLE, "share": 0.1, "temperature": 3.0}), root)  # nothing to ask again for that
    with pytest.raises(TrainingError, match=r"work/teacher comes from another \[teacher\] section"):
        prepared(plan(teacher={**SINGLE, "learning_rate": 1e-3}), root)
    more = tables(("free.txt", 41, "sentences"))
    with pytest.raises(TrainingError, match="labels-sentences-free comes from another"):
        prepared(plan(teacher=more), root)
    (root / "work" / "teacher" / "fingerprint.json").unlink()
    with pytest.raises(TrainingError, match="work/teacher comes from another"):
        prepared(plan(teacher=SINGLE), root)


def test_a_run_with_a_teacher_ends_with_the_encoders_vocabulary_and_embeddings(root: Path, encoder: Path) -> None:
    evaluation = train.run(plan(teacher=SINGLE), root, root / "out", root / "work", Console(quiet=True))
    made = evaluation["provenance"]["teacher"]
    assert 140 <= made["unlabelled_rows"] <= 150  # a sentence may be in two tables
    assert made["unlabelled"] == "free.txt (sentences), free.txt (perturbed), train (perturbed)"
    engine = Engine.load(root / "out")
    start = load_file(encoder / "model.safetensors")["embeddings.word_embeddings.weight"]
    embedding = engine._network.embedding
    ours = (embedding.rows * embedding.scale[:, None])[: len(start)]  # the file fills rows up
    theirs = start - start.mean(0)
    gram, expected = ours @ ours.T, theirs @ theirs.T
    np.testing.assert_allclose(gram / np.trace(gram), expected / np.trace(expected), atol=1e-3)


def test_balance_weighs_rows_so_that_classes_weigh_the_same() -> None:
    weights = prepare._weights(np.array([0, 0, 0, 1]), 3)
    assert weights.tolist() == pytest.approx([2 / 3, 2 / 3, 2 / 3, 2.0])
    assert weights.mean() == pytest.approx(1.0)


def test_rows_of_which_none_can_judge_another_are_refused(root: Path) -> None:
    (root / "two.csv").write_text("text,label\nfine,pos\ndull,neg\n")
    with pytest.raises(TrainingError, match=r"2 rows, and no class with two: .* add rows"):
        prepare.prepare(
            own_rows.own_rows("two", {"train": "two.csv"}), root, root / "none", RunProgress(Console(quiet=True))
        )
    assert not (root / "none").exists(), "nothing is made before rows were read"
