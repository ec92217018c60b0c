"""
The same token ids for ASCII text from a quicker library, `tokie`: 3 microseconds a sentence, `tokenizers` takes 50.

Both agreed on a million English sentences and on every ASCII character but DEL; of the rest of Unicode they read most
code points alike and some not (unassigned ones, newer marks), so all other text stays with `tokenizers`. So does what
this file doesn't know: pipelines other than BERT's, texts beyond LONGEST characters (tokie holds the GIL), and
platforms that tokie has no wheel for.
"""

import json
import tempfile
from typing import Any

LONGEST = 4096  # characters
WORDS = "The quick, brown fox: isn't it 1,000 times quicker? [SEP] unaffable\tETC...\n" + "".join(
    map(chr, range(32, 127))
)
WANTED = {"normalizer": "BertNormalizer", "pre_tokenizer": "BertPreTokenizer", "model": "WordPiece"}


class AsciiTokenizer:
    """Ids of text or pair, special tokens included, uncut; made by `of` only."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner

    def ids(self, text: str, text_pair: str | None) -> list[int] | None:
        """None where `tokenizers` is to be asked."""
        if not _plain(text):
            return None
        if text_pair is None:
            return self._inner.encode(text).ids  # type: ignore[no-any-return]
        return self._inner.encode_pair(text, text_pair).ids if _plain(text_pair) else None


def of(tokenizer: str, reference: Any) -> AsciiTokenizer | None:
    """For a tokenizer.json that `reference`, a `tokenizers.Tokenizer`, was made from; None where there can't be one."""
    try:
        import tokie
    except ImportError:
        return None
    described = json.loads(tokenizer)
    if any((described.get(part) or {}).get("type") != kind for part, kind in WANTED.items()):
        return None
    if not all(token.get("special") for token in described.get("added_tokens", [])):
        return None
    # text that looks like a special token is text
    described |= {"added_tokens": [], "truncation": None, "padding": None}
    with tempfile.NamedTemporaryFile("w", suffix=".json", encoding="utf-8") as file:
        file.write(json.dumps(described))  # in one go: `dump` writes a vocabulary piece by piece
        file.flush()
        try:
            result = AsciiTokenizer(tokie.Tokenizer.from_json(file.name))
            alike = all(
                result.ids(*row) == reference.encode(row[0], row[1]).ids for row in ((WORDS, None), (WORDS, WORDS))
            )
        except BaseException as error:  # of a library that may panic, which is no Exception
            if isinstance(error, (KeyboardInterrupt, SystemExit, MemoryError)):
                raise
            return None
    return result if alike else None


def _plain(text: str) -> bool:
    return text.isascii() and len(text) <= LONGEST and "\x7f" not in text
