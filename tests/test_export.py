"""What `calibrate_and_export` leaves behind: a calibrated checkpoint whose evaluation, card and record say the same."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny import random_texts

from beexformer.model.config import BEEConfig
from beexformer.model.engine import Engine
from beexformer.model.options import ExitOptions
from beexformer.model.tokenizer import Tokenizer, train_wordpiece
from beexformer.training import calibrate, export
from beexformer.training.data import Rows
from beexformer.training.evaluate import logits_of
from beexformer.training.network import BEExformer

TEXTS = random_texts(300, longest=9)
TOKENIZER = train_wordpiece(TEXTS, 100)  # once: learning it again gives another one


def network() -> BEExformer:
    """An untrained one whose every exit is sure: logits of the two classes are 4 apart on average."""
    torch.manual_seed(0)
    shape = {"d_model": 64, "n_block": 2, "n_head": 2, "d_head": 64, "max_tokens": 32}
    result = BEExformer(BEEConfig(vocab_size=Tokenizer(TOKENIZER, 32).vocab_size, n_class=2, **shape)).eval()
    logits = export.network_logits(result, IDS)
    calibrate.Calibration(np.abs(logits[..., 1] - logits[..., 0]).mean(0) / 4, np.zeros(2)).fold(result)
    return result


def shifted(by: float) -> BEExformer:
    """The same, but that all exits add this to the logit of the second class and take it from that of the first."""
    result = network()
    calibrate.Calibration(np.ones(2), np.array([-by, by])).fold(result)
    return result


IDS = [np.array(encoding.ids) for encoding in Tokenizer(TOKENIZER, 32).inner.encode_batch(TEXTS)]
LABELS = export.network_logits(network(), IDS)[:, -1].argmax(-1)
LABELS[::4] = 1 - LABELS[::4]  # its last exit is right three times in four
DEV, TEST = Rows(TEXTS[:200], None, LABELS[:200]), Rows(TEXTS[200:], None, LABELS[200:])
MADE = {
    "data": "task",
    "train_rows": 9,
    "data_sha256": "0" * 64,
    "recipe": {"start": {"encoder": None}},
    "tokens": 1,
    "seconds": 1,
    "machine": "here",
    "seed": 1,
    "commit": "none",
    "date": "today",
    "tokens_median": 5,
    "tokens_p99": 9,
}


def finished(
    out: Path, test: Rows | None = TEST, shift: float = 0.0, **options: Any
) -> tuple[dict[str, Any], export.Parity]:
    return export.calibrate_and_export(
        shifted(shift),
        name="task",
        labels=["no", "yes"],
        tokenizer=TOKENIZER,
        metric="accuracy",
        dev=DEV,
        test=test,
        provenance={**MADE, **options.pop("made", {})},
        licence="none",
        out=out,
        **options,
    )


def test_what_is_served_is_calibrated(tmp_path: Path) -> None:
    evaluation, parity = finished(tmp_path / "a")
    fitted = evaluation["calibration"]
    assert parity.holds
    assert fitted["kind"] == "per_exit"
    assert len(fitted["temperatures"]) == 2
    assert min(fitted["temperatures"]) > 1.5, "no exit is as good as it is sure"
    engine = Engine.load(tmp_path / "a")
    served, _ = logits_of(engine, DEV)
    raw, _ = logits_of(Engine.load(_written(tmp_path / "raw", calibration="none")), DEV)
    assert fitted["temperatures"] == pytest.approx(calibrate.temperatures(raw, DEV.labels), rel=1e-4)
    np.testing.assert_allclose(served, calibrate.recorded(evaluation, engine.config).of(raw), rtol=1e-4, atol=1e-6)


def test_a_class_bias_is_served_where_it_pays(tmp_path: Path) -> None:
    """Exits that all say one class too often are put right, and evaluation and card say so."""
    evaluation, parity = finished(tmp_path / "a", shift=4.0)
    assert parity.holds
    engine = Engine.load(tmp_path / "a")
    fitted = calibrate.recorded(evaluation, engine.config)
    assert fitted.bias[0] > 0.1
    assert fitted.bias.sum() == pytest.approx(0)
    raw, _ = logits_of(Engine.load(_written(tmp_path / "raw", shift=4.0, calibration="none")), DEV)
    served, _ = logits_of(engine, DEV)
    np.testing.assert_allclose(served, fitted.of(raw), rtol=1e-4, atol=1e-5)
    assert evaluation["dev"]["full_depth_score"] > (raw[:, -1].argmax(-1) == DEV.labels).mean() + 0.05
    for split in ("dev", "test"):
        assert evaluation["calibration"][split]["ece_after"] < evaluation["calibration"][split]["ece_before"]
    card = (tmp_path / "a" / "README.md").read_text()
    assert "Dev rows fitted temperatures and class biases" in card
    assert "Class biases, the same at every exit, were fitted there too" in card


def test_where_no_class_bias_pays_nothing_is_said_of_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calibrate, "bias_pays", lambda *_: False)
    evaluation, _ = finished(tmp_path / "a", shift=4.0)
    assert set(evaluation["calibration"]) == {"kind", "temperatures", "dev", "test"}
    card = (tmp_path / "a" / "README.md").read_text()
    assert "Dev rows fitted temperatures; the test set" in card
    assert "Class biases" not in card


def test_a_class_bias_is_fitted_to_the_exits_that_may_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[slice] = []

    def pays(raw: np.ndarray, labels: np.ndarray, kind: str, answering: slice) -> bool:
        asked.append(answering)
        return False

    monkeypatch.setattr(calibrate, "bias_pays", pays)
    for options in (ExitOptions(), ExitOptions(min_blocks=2), ExitOptions(max_blocks=1)):
        finished(tmp_path / "a", options=options)
    assert asked == [slice(0, 2), slice(1, 2), slice(0, 1)]


def _written(out: Path, **options: Any) -> Path:
    finished(out, **options)
    return out


def test_calibration_is_measured_where_it_was_not_fitted(tmp_path: Path) -> None:
    evaluation, _ = finished(tmp_path / "a")
    engine = Engine.load(tmp_path / "a")
    for split, rows in (("dev", DEV), ("test", TEST)):
        result = evaluation["calibration"][split]
        assert result["rows"] == len(rows)
        assert result["ece_after"] < result["ece_before"]
        assert sum(bin["rows"] for bin in result["reliability_after"]) == len(rows)
    served = calibrate.served(logits_of(engine, TEST)[0], engine.default_delta)
    after = calibrate.expected_calibration_error(served, TEST.labels)
    assert evaluation["calibration"]["test"]["ece_after"] == pytest.approx(after)


def test_the_record_gets_what_is_served(tmp_path: Path) -> None:
    seen: list[tuple[np.ndarray, np.ndarray]] = []

    def on_dev(logits: np.ndarray, tokens: np.ndarray) -> None:
        assert not (tmp_path / "a").exists(), "before anything is written"
        seen.append((logits, tokens))

    finished(tmp_path / "a", on_dev=on_dev)
    [(logits, tokens)] = seen
    engine = Engine.load(tmp_path / "a")
    again, lengths = logits_of(engine, DEV)
    assert (logits == again).all()
    assert (tokens == lengths).all()


def test_one_temperature_for_all_exits_or_none(tmp_path: Path) -> None:
    evaluation, _ = finished(tmp_path / "a", calibration="common")
    first, second = evaluation["calibration"]["temperatures"]
    assert first == second > 1
    evaluation, _ = finished(tmp_path / "b", None, calibration="none")
    assert evaluation["calibration"]["temperatures"] == [1, 1]
    result = evaluation["calibration"]["dev"]
    assert result["ece_before"] == pytest.approx(result["ece_after"])
    assert "test" not in evaluation["calibration"]


def test_the_card_says_what_was_measured(tmp_path: Path) -> None:
    evaluation, _ = finished(tmp_path / "a")
    card = (tmp_path / "a" / "README.md").read_text()
    for split in ("dev", "test"):
        result = evaluation["calibration"][split]
        assert f"{split} {result['ece_before']:.3f} before and {result['ece_after']:.3f} after" in card
    assert "a temperature per exit" in card
    assert "no calibrated" not in card
    finished(tmp_path / "b", calibration="none")
    assert "Scores are no calibrated probabilities" in (tmp_path / "b" / "README.md").read_text()


@pytest.mark.parametrize(("seconds", "said"), [(41.2, "41 s"), (405.9, "7 min"), (17_500.0, "4.9 h")])
def test_the_card_says_how_long_training_took(tmp_path: Path, seconds: float, said: str) -> None:
    finished(tmp_path / "a", made={"seconds": seconds})
    assert f"tokens in {said}\n" in (tmp_path / "a" / "README.md").read_text()


def test_the_card_names_what_it_started_from_and_what_taught_it(tmp_path: Path) -> None:
    text = [{"file": "corpus.txt.gz", "rows": 12345, "form": "neighbours"}]
    taught = {"encoder": "mpnet", "dev_accuracy": 0.5, "unlabelled_rows": 12345, "unlabelled": "x", "text": text}
    finished(
        tmp_path / "a", made={"teacher": taught, "backbone": {"name": "english", "encoder": "minilm", "text": text}}
    )
    card = (tmp_path / "a" / "README.md").read_text()
    assert (
        "backbone english, embeddings and blocks, distilled without labels from minilm on 12,345 rows of corpus" in card
    )
    assert "mpnet, fine-tuned on the same rows (dev accuracy 0.5000), which also labelled 12,345 rows of corpus" in card
    finished(tmp_path / "b")
    assert "random embeddings; the blocks start from nothing" in (tmp_path / "b" / "README.md").read_text()
