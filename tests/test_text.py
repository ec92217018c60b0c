"""What an input is: nothing visible is refused, compatibility letters are plain letters, other text stays as it is."""

import pytest
from tiny import random_texts

import beexformer
from beexformer.model.errors import InputError
from beexformer.model.text import check, plain


@pytest.mark.parametrize(
    "text",
    [
        "",
        " \t\n\u3000",
        "\u200b\u200b",
        "\u0301\u0301",
        "\u0001\u0002",
        "\ufe0f",
        "\u202e",
        "\u2060\ufeff",
        "\u3164",
        "\u2800",
    ],
    ids=ascii,
)
def test_a_text_without_a_visible_character_is_blank(text: str) -> None:
    with pytest.raises(InputError, match="text is empty or blank; send at least one visible character"):
        check("text", text)
    check("text", f"{text}a{text}")


@pytest.mark.parametrize("text", ["a", ".", "😀", "م", "字", "²", "\u0301e", "€", "👍🏽", "a\u200bb"])
def test_whatever_can_be_seen_is_a_text(text: str) -> None:
    check("text", text)


def test_half_a_surrogate_is_said_where_it_is() -> None:
    with pytest.raises(InputError, match="text_pair has a lone surrogate at character 1"):
        check("text_pair", "a\ud800")
    with pytest.raises(InputError, match="has a lone surrogate at character 0"):
        check("text", "\ud800")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("It was terri\ufb01c and \ufb01ne", "It was terrific and fine"),
        ("Ｔｈｉｓ　ｍｏｖｉｅ　１０．", "This movie 10."),
        ("𝐓𝐡𝐢𝐬 𝓶𝓸𝓿𝓲𝓮", "This movie"),
        ("ⓣⓗⓘⓢ", "this"),
        ("Ⅷ ŉ ĳ ﬅ", "VIII ʼn ij st"),
        ("ﻣﺮﺣﺒﺎ", "مرحبا"),
    ],
)
def test_compatibility_letters_are_plain_letters(text: str, expected: str) -> None:
    assert plain(text) == expected
    assert plain(text) == plain(plain(text))


@pytest.mark.parametrize(
    "text",
    ["plain ascii", "m², ½, ™, …, №, €, ´, µ, 1ª", "naïve café", "cafe\u0301", "Привет, мир", "你好。", "😀", "한국어"],
)
def test_what_says_something_of_its_own_is_left_alone(text: str) -> None:
    assert plain(text) == text


def test_a_label_does_not_flip_on_letters_that_look_alike() -> None:
    sst2 = beexformer.load("sst2")
    expected = sst2.classify("It was terrific and fine.")
    assert expected.unknown_ratio is None
    for text in ("It was terri\ufb01c and \ufb01ne.", "Ｉｔ ｗａｓ ｔｅｒｒｉｆｉｃ ａｎｄ ｆｉｎｅ．"):
        assert sst2.classify(text) == expected


def test_the_share_of_unknown_tokens_is_in_the_answer() -> None:
    sst2 = beexformer.load("sst2")
    assert sst2.classify("😀 😡 👍").unknown_ratio == 1
    some = sst2.classify("a warm film 😀")
    assert some.unknown_ratio == 1 / (some.tokens - 2)
    assert beexformer.load("mrpc").classify("a film 😀", "a film").unknown_ratio == 1 / 5


def test_training_reads_texts_as_serving_does() -> None:
    tokenizer = beexformer.load("sst2").engine._tokenizer
    texts = [*random_texts(5), "ﬁne ＦＩＬＭ"]
    for one, many in zip(texts, tokenizer.encode_rows(texts), strict=True):
        assert tokenizer.encode(one).ids.tolist() == many.tolist()
    [pair] = tokenizer.encode_rows([("ﬁne", "film")])
    assert pair.tolist() == tokenizer.encode("fine", "film").ids.tolist()
