"""MPNet as an encoder: for ids of our vocabulary it says what the library's says, and a backbone comes of it."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console
from test_distill import recipe, write_text
from tiny import WORDS, random_texts
from transformers import AutoModel, MPNetConfig, MPNetModel

from beexformer.model.config import BEEConfig
from beexformer.model.errors import TrainingError
from beexformer.model.tokenizer import Tokenizer, train_wordpiece
from beexformer.training import backbone, distill, encoders, mpnet, vocabulary
from beexformer.training.batches import Batch, pad
from beexformer.training.mpnet import MPNet
from beexformer.training.network import BEExformer
from beexformer.training.rotation import Rotation

LAYERS = 4
FIRST = ["<s>", "<pad>", "</s>", "<unk>"]


def random_mpnet(folder: Path) -> Path:
    """A tiny untrained one, its vocabulary as MPNet has it: special tokens, a BERT's words, <mask>."""
    described = json.loads(train_wordpiece([" ".join(WORDS)] * 5, 100))
    words = sorted(described["model"]["vocab"], key=described["model"]["vocab"].get)
    described["model"]["vocab"] = {word: i for i, word in enumerate([*FIRST, *words, "<mask>"])}
    described["post_processor"] = {
        "type": "RobertaProcessing", "sep": ["</s>", 2], "cls": ["<s>", 0], "trim_offsets": True,
        "add_prefix_space": False,
    }  # fmt: skip
    for token in described["added_tokens"]:
        token["id"] += len(FIRST)
    (folder / "tokenizer.json").write_text(json.dumps(described))
    torch.manual_seed(0)
    shape = {"hidden_size": 64, "num_hidden_layers": LAYERS, "num_attention_heads": 2, "intermediate_size": 64}
    config = MPNetConfig(vocab_size=len(words) + 5, max_position_embeddings=130, initializer_range=0.2, **shape)
    MPNetModel(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return random_mpnet(tmp_path_factory.mktemp("mpnet"))


def loaded(folder: Path, layers_a_block: int = 1) -> tuple[MPNet, vocabulary.Vocabulary]:
    words = vocabulary.of(folder)
    return mpnet.load(folder, words.specials[1], layers_a_block, words.rows), words


def rows_of(words: vocabulary.Vocabulary, texts: list[str]) -> tuple[torch.Tensor, torch.Tensor]:
    return pad(Tokenizer(words.tokenizer, 512).encode_rows(texts))


def differences(folder: Path, texts: list[str]) -> list[float]:
    """Largest difference of a state from the library's, before the first layer and after each; its ids are from its
    own tokenizer."""
    ours, words = loaded(folder)
    theirs = AutoModel.from_pretrained(folder, local_files_only=True).eval()
    own = Tokenizer((folder / "tokenizer.json").read_text(), 512)
    rows = own.encode_rows(texts)
    their_ids = torch.full((len(rows), max(map(len, rows))), 1)
    for row, ids in zip(their_ids, rows, strict=True):
        row[: len(ids)] = torch.from_numpy(ids)
    ids, mask = rows_of(words, texts)
    assert mask.equal(their_ids != 1)
    with torch.no_grad():
        wanted = theirs(input_ids=their_ids, attention_mask=mask.long(), output_hidden_states=True).hidden_states
    result = ours.all_states(ids, mask)
    return [float((a[mask] - b[mask]).abs().max()) for a, b in zip(result, wanted, strict=True)]


def test_its_states_are_the_librarys(encoder: Path) -> None:
    texts = [*random_texts(8, longest=9), " ".join(random_texts(20, longest=9))[:500]]
    assert max(len(row) for row in Tokenizer(vocabulary.of(encoder).tokenizer, 512).encode_rows(texts)) > 64
    assert max(differences(encoder, texts)) < 1e-4


@pytest.mark.slow
def test_the_real_one_says_what_the_librarys_says(tmp_path: Path) -> None:
    """About 10 s and 1.5 GB; the five packages are as README says."""
    try:
        folder = encoders.locate("mpnet", tmp_path)
    except TrainingError as error:
        pytest.skip(str(error))
    texts = ["A warm, funny film.", "Isn't it unaffable? 1,000 naïve cafés [SEP] <s> </s>", "no " * 300]
    assert max(differences(folder, texts)) < 1e-3
    assert len(vocabulary.of(folder).rows) == 30_522


def test_texts_have_the_same_words_in_both_vocabularies(encoder: Path) -> None:
    words = vocabulary.of(encoder)
    ours = Tokenizer(words.tokenizer, 64)
    theirs = Tokenizer((encoder / "tokenizer.json").read_text(), 64)
    for row in [*random_texts(20, longest=12), "qqqq 7 [SEP] <s>"]:
        result, wanted = (tokenizer.encode_rows([row])[0] for tokenizer in (ours, theirs))
        assert words.rows[result].tolist() == wanted.tolist()
        assert 0 not in result
    pair = [ours.inner.id_to_token(i) for i in ours.encode_rows([("a warm film", "ever")])[0]]
    assert pair == ["[CLS]", "a", "warm", "film", "[SEP]", "ever", "[SEP]"]
    assert ours.inner.token_to_id("[PAD]") == 0
    assert [words.rows[ours.inner.token_to_id(token)] for token in ("[PAD]", "[CLS]", "[SEP]")] == [1, 0, 2]


def test_a_block_learns_what_every_second_layer_says(encoder: Path) -> None:
    every, words = loaded(encoder)
    second, _ = loaded(encoder, 2)
    ids, mask = rows_of(words, random_texts(4))
    wanted = every.all_states(ids, mask)
    result = second.all_states(ids, mask)
    assert second.blocks == 2
    assert len(result) == 3
    for a, b in zip(result, wanted[::2], strict=True):
        assert a.equal(b)
    with pytest.raises(TrainingError, match="can't be shared out"):
        loaded(encoder, 3)


def calibration(words: vocabulary.Vocabulary) -> tuple[list[Batch], np.ndarray]:
    rows = Tokenizer(words.tokenizer, 64).encode_rows(random_texts(64, longest=12))
    batches = [pad(rows[i : i + 8]) for i in range(0, 64, 8)]
    return batches, np.bincount(np.concatenate(rows), minlength=len(words.rows))


def test_attention_starts_as_that_of_the_layer_that_sees_the_same(encoder: Path) -> None:
    """But for the bias of distances, which our attention hasn't got."""
    ours, words = loaded(encoder, 2)
    torch.nn.init.zeros_(ours.bias.weight)
    batches, counts = calibration(words)
    rotation = Rotation.of(ours, counts, batches)
    shape = {"d_model": 64, "n_head": 2, "n_block": 2, "max_tokens": 24}
    network = BEExformer(BEEConfig(len(words.rows), 2, binary=False, **shape))
    with torch.no_grad():
        network.embedding.weight.copy_(rotation.embedding(ours, counts))
    distill.start(network, ours, rotation, batches)
    ids, mask = batches[0]
    theirs = AutoModel.from_pretrained(encoder, local_files_only=True, attn_implementation="eager").eval()
    state = ours.all_states(ids, mask)[1]  # what block 2 sees, and the encoder's third layer
    extended = torch.where(mask, 0.0, -torch.inf)[:, None, None, :]
    wanted = theirs.encoder.layer[2].attention.attn(state, extended)[0] @ rotation.axes
    turned = (state @ rotation.axes - rotation.mean[1]) / rotation.spread[1]
    result = network.blocks[1].attention(turned, mask) * rotation.spread[1]
    assert torch.allclose(result[mask], wanted[mask], atol=1e-4)


def test_a_backbone_comes_of_it(tmp_path: Path, encoder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(distill, "locate", lambda name, cache: encoder)
    write_text(tmp_path)
    plan = recipe(encoder="mpnet", layers_a_block=2)
    distill.run(plan, tmp_path, tmp_path / "base", tmp_path / "work", Console(quiet=True), "cpu")
    for name in ("base", "base-full"):
        result = backbone.read(name, tmp_path)
        assert [result.shape[field] for field in ("n_block", "d_model", "n_head")] == [2, 64, 2]
        assert Tokenizer(result.tokenizer, 64).inner.token_to_id("[PAD]") == 0
        assert result.provenance["encoder"] == "mpnet"
    short = recipe(encoder="mpnet").lasting(3.0, "cpu")
    assert [stage.minutes for stage in (short.full_precision, short.bits)] == [1.5, 1.5]
    assert short.bits.tokens is None
    assert short.bits.means == plan.bits.means
