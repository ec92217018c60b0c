"""
What a text is before it is tokenized: refused where there is nothing to read in it, and compatibility letters are the
plain letters that they stand for (Unicode's compatibility decompositions, UAX #15).

ﬁ is fi, Ｔ is T, 𝐓 is T, ⓣ is t; signs that say something of their own, as ², ½ or ™, are left as they are.
"""

import unicodedata

from beexformer.model.errors import InputError

LATIN_1 = 0xFF  # µ, ª and º are on keyboards, and vocabularies know them
FILLERS = "\u115f\u1160\u2800\u3164\uffa0"  # letters and symbols, says Unicode, of which nothing is seen


def check(name: str, text: str) -> None:
    """Raises InputError, one sentence about `name`, for a text without a visible character or with half a surrogate."""
    if not any(map(_visible, text)):
        if any("\ud800" <= c <= "\udfff" for c in text):
            _refuse_surrogate(name, text)
        raise InputError(f"{name} is empty or blank; send at least one visible character")
    if not text.isascii():
        _refuse_surrogate(name, text)


def plain(text: str) -> str:
    """The text with plain letters in place of compatibility letters."""
    if text.isascii() or unicodedata.is_normalized("NFKC", text):
        return text
    return text.translate(_PLAIN)


def _visible(c: str) -> bool:
    return unicodedata.category(c)[0] in "LNPS" and c not in FILLERS


def _refuse_surrogate(name: str, text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise InputError(f"{name} has a lone surrogate at character {error.start}; send well-formed Unicode") from None


class _Plain(dict[int, str]):
    """Code points to what stands in their place; filled as they are met."""

    def __missing__(self, code: int) -> str:
        c = chr(code)
        kind, _, _ = unicodedata.decomposition(c).partition(" ")
        if not kind.startswith("<") or code <= LATIN_1:  # nothing, or only accents taken apart
            return c
        letters = unicodedata.normalize("NFKC", c)
        letter = unicodedata.category(c)[0] == "L" or unicodedata.category(c) == "Nl"
        styled = kind in ("<font>", "<circle>") and letters.isalpha()
        if letter or styled or kind in ("<wide>", "<narrow>"):
            self[code] = letters
            return letters
        return c


_PLAIN = _Plain()
