import pytest
from tiny import WORDS

from beexformer.model.errors import CheckpointError, InputError
from beexformer.model.tokenizer import SPECIAL, Tokenizer, train_wordpiece


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer(train_wordpiece([" ".join(WORDS)] * 5, 120), 12)


def test_pad_is_zero_and_never_made(tokenizer: Tokenizer) -> None:
    assert tokenizer.inner.token_to_id("[PAD]") == 0 == SPECIAL.index("[PAD]")
    assert (tokenizer.encode("the worst movie [PAD]x").ids > 0).all()


def test_a_pair_has_three_special_tokens(tokenizer: Tokenizer) -> None:
    cls, sep = (tokenizer.inner.token_to_id(t) for t in ("[CLS]", "[SEP]"))
    ids = tokenizer.encode("worst movie", "funny film").ids.tolist()
    assert ids[0] == cls
    assert ids[-1] == sep
    assert ids.count(sep) == 2


def test_the_longer_text_of_a_pair_is_cut_first(tokenizer: Tokenizer) -> None:
    row = tokenizer.encode("funny film", "dull " * 40)
    assert row.truncated
    assert len(row.ids) == 12
    assert row.ids[:3].tolist() == tokenizer.encode("funny film").ids[:3].tolist()
    assert not tokenizer.encode("a funny film").truncated


@pytest.mark.parametrize(
    ("text", "words"),
    [("", "text is empty"), (" \n\t\u3000", "text is empty"), ("a\ud800b", "surrogate at character 1")],
)
def test_what_cannot_be_encoded_says_so(tokenizer: Tokenizer, text: str, words: str) -> None:
    with pytest.raises(InputError, match=words):
        tokenizer.encode(text)
    with pytest.raises(InputError, match=words.replace("text", "text_pair")):
        tokenizer.encode("fine", text)


def test_too_long_is_refused_where_truncation_is_not_allowed(tokenizer: Tokenizer) -> None:
    with pytest.raises(InputError, match="window of 12 tokens"):
        tokenizer.encode("dull " * 40, truncate=False)


@pytest.mark.parametrize("text", ["\x00a\x07", "😀😀", "שלום עולם", "مرحبا", "\u202e\u200ba", "a" * 5000])
def test_strange_text_is_text(tokenizer: Tokenizer, text: str) -> None:
    assert 2 <= len(tokenizer.encode(text).ids) <= 12


def test_what_is_no_tokenizer_is_refused() -> None:
    with pytest.raises(CheckpointError, match="holds no tokenizer"):
        Tokenizer("{}", 12)
