"""A folder that is not exactly right is refused, with words that help."""

import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file
from tiny import random_checkpoint

from beexformer.model.checkpoint import FILES, Checkpoint, digest, read, save
from beexformer.model.engine import Engine
from beexformer.model.errors import CheckpointError, TrainingError
from beexformer.model.manifest import Example, Profile
from beexformer.model.options import ExitOptions
from beexformer.model.tensors import named_spec, spec, stack, to_bytes, unstack

GOLDEN = Path(__file__).parent / "golden"


def redescribe(folder: Path, **changes: Any) -> None:
    """Edit config.json and make its digests right again, so that the next check is reached."""
    described = json.loads((folder / "config.json").read_text())
    described["sha256"] = {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in FILES}
    described.update(changes)
    described["digest"] = "" if "\\ud800" in json.dumps(described) else digest(described)
    (folder / "config.json").write_text(json.dumps(described))


def edit_tensors(folder: Path, edit: Callable[[dict[str, np.ndarray]], object]) -> None:
    tensors = load_file(folder / "model.safetensors")
    edit(tensors)
    (folder / "model.safetensors").write_bytes(to_bytes(tensors))
    redescribe(folder)


def flip_a_byte(folder: Path) -> None:
    content = bytearray((folder / "model.safetensors").read_bytes())
    content[-100] ^= 1
    (folder / "model.safetensors").write_bytes(content)


def cut_the_file(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1000])
    redescribe(folder)


def rewrite(folder: Path, name: str, content: bytes) -> None:
    (folder / name).write_bytes(content)
    redescribe(folder)


def replace_text(folder: Path, old: str, new: str) -> None:
    path = folder / "config.json"
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))


def edit_network(folder: Path, **changes: Any) -> None:
    redescribe(folder, network={**json.loads((folder / "config.json").read_text())["network"], **changes})


SPOILED: dict[str, tuple[Callable[[Path], object], str]] = {
    "flipped byte": (flip_a_byte, "model.safetensors is damaged"),
    "truncated, digest right": (cut_the_file, "can't be read"),
    "other version": (lambda f: redescribe(f, format_version=5), "format 5 and this release reads 1, 2, 3, 4;"),
    "no version": (lambda f: redescribe(f, format_version=None), "format None"),
    "missing file": (lambda f: (f / "tokenizer.json").unlink(), "tokenizer.json can't be read"),
    "missing config": (lambda f: (f / "config.json").unlink(), "config.json can't be read"),
    "config no JSON": (lambda f: (f / "config.json").write_text("{"), "it is no JSON object"),
    "no digests": (lambda f: redescribe(f, sha256={}), "must list the SHA-256"),
    "foreign network": (lambda f: redescribe(f, network={"layers": 12}), "doesn't describe a network"),
    "label too many": (lambda f: redescribe(f, labels=["a", "b", "c"]), "must name 2 different labels"),
    "same label twice": (lambda f: redescribe(f, labels=["a", "a"]), "must name 2 different labels"),
    "delta": (lambda f: redescribe(f, exit={"delta": 3}), "delta is 3.0 and must lie in"),
    "own digest": (lambda f: replace_text(f, '"positive"', '"joyful"'), "is damaged: the SHA-256 of its content"),
    "unknown field": (lambda f: redescribe(f, rules=[0.5, 0.5]), "'rules', which this release doesn't know"),
    "thresholds alone": (lambda f: redescribe(f, thresholds=[0.5, 0.5]), "thresholds go with network.multi_label"),
    "other input": (lambda f: redescribe(f, input="speech"), "input is 'speech' and must be 'text', 'pair' or null"),
    "no name": (lambda f: redescribe(f, name="Tiny model"), "name is 'Tiny model', and a-z"),
    "surrogate": (lambda f: redescribe(f, labels=["a", "\ud800"]), "lone surrogate"),
    "infinite": (
        lambda f: replace_text(f, '"delta": 0.0001', '"delta": 1e999'),
        "no JSON object of UTF-8 text and finite",
    ),
    "blank label": (lambda f: redescribe(f, labels=["a", " "]), "a label is ' '"),
    "profile of profiles": (
        lambda f: redescribe(f, profiles={"a": {"exit": {"profile": "b"}, "evidence": {}}}),
        "profile 'a' names another profile",
    ),
    "profile too deep": (
        lambda f: redescribe(f, profiles={"a": {"exit": {"max_blocks": 9}, "evidence": {}}}),
        "max_blocks is 9 and must lie in 1..6",
    ),
    "default profile": (lambda f: redescribe(f, exit={"profile": "fast"}), "has no profile 'fast'"),
    "option of a wrong type": (
        lambda f: redescribe(f, exit={"min_blocks": True}),
        "min_blocks is True, of a wrong type",
    ),
    "option unknown": (
        lambda f: redescribe(f, exit={"patience": 2}),
        "exit has a field that this release doesn't know",
    ),
    "consent": (
        lambda f: redescribe(f, examples=[{"text": "a", "text_pair": None, "title": None, "consent": "yes"}]),
        "consent of an example must be true or false",
    ),
    "a probe too short": (
        lambda f: redescribe(f, probes=[{"text": "a", "text_pair": None, "ids_sha256": "0" * 64, "logits": [[1, 2]]}]),
        "needs 2 logits for each of 6 exits",
    ),
    "integers": (lambda f: edit_network(f, n_block=6.0), "n_block=6.0 must be an integer"),
    "sizes": (lambda f: edit_network(f, n_block=10**9), "n_block=1000000000 must lie in 1..64"),
    "other sizes than the weights'": (lambda f: edit_network(f, d_head=128), "tensor 'heads.hidden.words' is U64"),
    "number beyond": (lambda f: edit_tensors(f, lambda t: t["heads.out.bias"].fill(1e7)), "numbers beyond 1e.06"),
    "evaluation": (lambda f: rewrite(f, "evaluation.json", b'{"dev": 3}'), "dev must be an object"),
    "card": (lambda f: rewrite(f, "README.md", b"\xff"), "is no UTF-8 text"),
    "missing tensor": (
        lambda f: edit_tensors(f, lambda t: t.pop("blocks.o.alpha")),
        "lacks tensor 'blocks.o.alpha'",
    ),
    "extra tensor": (lambda f: edit_tensors(f, lambda t: t.update(x=np.ones(8))), "foreign tensor 'x'"),
    "wrong shape": (
        lambda f: edit_tensors(f, lambda t: t.update({"heads.out.bias": np.ones((6, 16), np.float32)})),
        r"is F32 \[6, 16\] and must be float32 \[6, 64\]",
    ),
    "wrong type": (lambda f: edit_tensors(f, lambda t: t.update({"heads.out.bias": np.ones((6, 64))})), "is F64"),
    "NaN scale": (lambda f: edit_tensors(f, lambda t: t["blocks.qkv.alpha"].fill(np.nan)), "NaN or infinity"),
}


@pytest.mark.parametrize("name", SPOILED)
def test_a_spoiled_folder_is_refused_with_one_sentence(folder: Path, name: str) -> None:
    spoil, words = SPOILED[name]
    spoil(folder)
    with pytest.raises(CheckpointError, match=words) as caught:
        read(folder)
    assert "\n" not in str(caught.value)


def test_no_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no checkpoint folder"):
        read(tmp_path / "nothing")


def test_what_is_saved_is_read(checkpoint: Checkpoint, folder: Path) -> None:
    result = read(folder)
    assert (result.name, result.config, result.labels) == (checkpoint.name, checkpoint.config, checkpoint.labels)
    assert result.size_bytes == sum(file.stat().st_size for file in folder.iterdir())
    for name in spec(checkpoint.config):
        assert (result.tensors[name] == checkpoint.tensors[name]).all()


def test_a_file_with_packed_embeddings_and_several_thresholds_says_so(tmp_path: Path) -> None:
    save(random_checkpoint(embedding="int4+2", head_thresholds=3, exact_match=True), tmp_path / "tiny")
    result = read(tmp_path / "tiny")
    assert (result.config.embedding, result.config.head_thresholds, result.config.exact_match) == ("int4+2", 3, True)
    assert result.format_version == 4
    shapes = {name: (str(tensor.dtype), tensor.shape) for name, tensor in result.tensors.items()}
    assert shapes["embedding.rows"] == ("uint8", (-(-result.config.vocab_size // 64) * 64, 21))
    assert shapes["embedding.step"] == ("float32", (64,))
    assert shapes["heads.hidden.threshold"] == ("float32", (6, 3 * 128))
    assert shapes["heads.hidden.words"] == ("uint64", (6, 4, 2, 16))
    assert shapes["heads.out.threshold"] == ("float32", (6, 64))


SHAPES: dict[str, dict[str, Any]] = {
    "int8": {"carry": "h"},
    "packed": {"embedding": "int4+2", "head_thresholds": 3, "exact_match": True},
    "linear": {"head": "linear", "labels": tuple("abcde"), "vocabulary": 130},
    "one exit": {"early_exit": False, "d_model": 192, "n_head": 6},
}


@pytest.mark.parametrize("shape", SHAPES)
def test_a_weights_file_can_be_mapped_as_it_is(tmp_path: Path, shape: str) -> None:
    """Each tensor of a mapped file is aligned to a cache line, and what the engine reads is in the file itself."""
    checkpoint = random_checkpoint(**SHAPES[shape])
    save(checkpoint, tmp_path / "tiny")
    mapped = np.memmap(tmp_path / "tiny" / "model.safetensors", mode="r")
    start = 8 + int.from_bytes(mapped[:8].tobytes(), "little")
    header = json.loads(mapped[8:start].tobytes())
    assert header.keys() == spec(checkpoint.config).keys()
    for name, described in header.items():
        first, last = (start + offset for offset in described["data_offsets"])
        assert mapped[first:].ctypes.data % 64 == 0, name
        wanted = checkpoint.tensors[name]
        assert (mapped[first:last].view(wanted.dtype).reshape(described["shape"]) == wanted).all()
    by_library = load_file(tmp_path / "tiny" / "model.safetensors")
    assert all((by_library[name] == array).all() for name, array in checkpoint.tensors.items())


@pytest.mark.parametrize("shape", SHAPES)
def test_stacked_and_named_tensors_are_the_same_numbers(shape: str) -> None:
    checkpoint = random_checkpoint(**SHAPES[shape])
    named = unstack(checkpoint.tensors, checkpoint.config)
    assert {name: (str(array.dtype), array.shape) for name, array in named.items()} == named_spec(checkpoint.config)
    again = stack(named, checkpoint.config)
    assert again.keys() == checkpoint.tensors.keys()
    assert all((again[name] == array).all() for name, array in checkpoint.tensors.items())


def test_weights_are_read_once_and_not_copied(folder: Path) -> None:
    result = read(folder)
    network = Engine(result)._network
    for array, name in (
        (network.blocks.norm_x.weight, "blocks.norm_x.weight"),
        (network.embedding.rows, "embedding.rows"),
    ):
        assert np.shares_memory(array, result.tensors[name])


@pytest.mark.parametrize(
    ("version", "later"),
    [
        (1, {"embedding": "int8", "head_thresholds": 1, "exact_match": False, "head": "binary"}),
        (2, {"exact_match": False, "head": "binary"}),
        (3, {"head": "binary"}),
    ],
)
def test_a_folder_of_an_older_format_takes_the_defaults_of_later_fields(version: int, later: dict[str, object]) -> None:
    described = json.loads((GOLDEN / f"v{version}" / "checkpoint" / "config.json").read_text())
    result = read(GOLDEN / f"v{version}" / "checkpoint")
    assert result.format_version == version
    assert result.config.to_dict() == {**described["network"], **later}


def test_saving_replaces_in_one_move_and_leaves_nothing_behind(checkpoint: Checkpoint, folder: Path) -> None:
    save(checkpoint, folder)
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]


def test_saving_costs_nobody_a_file(checkpoint: Checkpoint, folder: Path) -> None:
    (folder / "reviews.csv").write_text("mine")
    with pytest.raises(TrainingError, match=r"holds 'reviews\.csv', which is not ours"):
        save(checkpoint, folder)
    assert (folder / "reviews.csv").read_text() == "mine"
    alone = folder.parent / "project"
    alone.mkdir()
    save(checkpoint, alone)
    (alone / "model.safetensors").unlink()
    with pytest.raises(TrainingError, match=r"'README\.md', which is not ours"):
        save(checkpoint, alone)
    (folder.parent / "file").touch()
    with pytest.raises(TrainingError, match="is a file"):
        save(checkpoint, folder.parent / "file")
    with pytest.raises(TrainingError, match="can't be written"):
        save(checkpoint, folder.parent / "file" / "inner")


def test_wrong_tensors_are_not_saved(checkpoint: Checkpoint, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="lacks"):
        save(Checkpoint(**{**vars(checkpoint), "tensors": {}}), tmp_path / "bad")
    assert list(tmp_path.iterdir()) == []


def test_defaults_profiles_and_examples_survive_a_file_and_only_consented_texts_are_shown(tmp_path: Path) -> None:
    before = replace(
        random_checkpoint(input="text"),
        exit=ExitOptions(delta=0.01, entropy_threshold=0.1, profile="fast"),
        profiles={"fast": Profile(ExitOptions(max_blocks=2), {"rows": 100, "score": 0.9})},
        examples=(Example("a warm film", None, "Warm", True), Example("a private remark")),
    )
    save(before, tmp_path / "tiny")
    result = read(tmp_path / "tiny")
    for name in ("exit", "profiles", "examples", "input", "labels", "config"):
        assert getattr(result, name) == getattr(before, name)
    engine = Engine(result)
    in_effect = engine.encode("fine").exit
    assert (in_effect.delta, in_effect.entropy_threshold, in_effect.max_blocks, in_effect.profile) == (
        0.01,
        0.1,
        2,
        "fast",
    )
    assert engine.description["examples"] == [{"title": "Warm", "text": "a warm film", "text_pair": None}]
    assert "private" not in json.dumps(engine.description)
    assert engine.description["profiles"]["fast"]["evidence"] == {"rows": 100, "score": 0.9}
