"""What a checkpoint's own probes notice."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tiny import random_checkpoint

from beexformer.model import probes
from beexformer.model.checkpoint import Checkpoint, read, save
from beexformer.model.engine import Engine
from beexformer.model.errors import CheckpointError


@pytest.fixture(scope="module")
def probed() -> Checkpoint:
    checkpoint = random_checkpoint(input="pair")
    return replace(checkpoint, probes=probes.make(Engine(checkpoint)))


def test_probes_are_pairs_of_a_model_of_pairs_and_survive_a_file(probed: Checkpoint, tmp_path: Path) -> None:
    assert len(probed.probes) == probes.ENOUGH
    assert all(probe.text_pair for probe in probed.probes)
    save(probed, tmp_path / "tiny")
    assert read(tmp_path / "tiny").probes == probed.probes
    Engine.load(tmp_path / "tiny").warm()


def test_another_tokenizer_is_noticed_when_the_checkpoint_is_loaded(probed: Checkpoint) -> None:
    tokenizer = json.loads(probed.tokenizer)
    vocabulary = tokenizer["model"]["vocab"]
    vocabulary["a"], vocabulary["f"] = vocabulary["f"], vocabulary["a"]
    with pytest.raises(CheckpointError, match="reads 'a warm, funny film' otherwise than when it was exported"):
        Engine(replace(probed, tokenizer=json.dumps(tokenizer)))


@pytest.mark.parametrize(
    "name", ["blocks.qkv.words", "blocks.norm_h.bias", "heads.out.alpha", "heads.hidden.threshold"]
)
def test_other_weights_are_noticed_before_the_first_answer(probed: Checkpoint, name: str) -> None:
    changed = probed.tensors[name].copy()
    if changed.dtype == np.uint64:
        changed[0] ^= np.uint64(0xFFFF)
    else:
        changed[0] += np.float32(0.1)
    engine = Engine(replace(probed, tensors={**probed.tensors, name: changed}))
    with pytest.raises(CheckpointError, match=r"answers '.*' otherwise than when it was exported"):
        engine.warm()


def test_a_text_whose_bits_hang_on_rounding_is_no_probe(monkeypatch: pytest.MonkeyPatch) -> None:
    """Thresholds put where the reference implementation has another sign than the kernels."""
    engine = Engine(random_checkpoint())
    first = engine.encode(*probes.TEXTS[0][:1])

    def elsewhere(row: object) -> np.ndarray:
        logits: np.ndarray = engine.logits([row])[0]  # type: ignore[list-item]
        return logits + (0.2 if len(row.ids) == len(first.ids) else 0)  # type: ignore[attr-defined]

    monkeypatch.setattr(engine, "reference_logits", elsewhere)
    assert probes.TEXTS[0][0] not in {probe.text for probe in probes.make(engine)}


@pytest.mark.slow
@pytest.mark.parametrize("verb", [["classify", "a warm film", "--text-pair", "a film"], ["serve", "--port", "0"]])
def test_other_weights_end_a_command_with_one_sentence_and_exit_code_2(
    probed: Checkpoint, tmp_path: Path, verb: list[str]
) -> None:
    changed = probed.tensors["blocks.norm_h.bias"] + np.float32(0.1)
    save(replace(probed, tensors={**probed.tensors, "blocks.norm_h.bias": changed}), tmp_path / "tiny")
    where = {
        "classify": ["--checkpoint", str(tmp_path / "tiny")],
        "serve": ["--checkpoints", str(tmp_path / "tiny")],
    }
    command = [Path(sys.executable).parent / "beexformer", *verb, *where[verb[0]]]
    ended = subprocess.run(command, capture_output=True, text=True)
    assert ended.returncode == 2, ended.stderr
    said = ended.stderr.splitlines()[-1]
    assert said.startswith("beexformer: checkpoint 'tiny' answers ")
    assert "Traceback" not in ended.stderr
