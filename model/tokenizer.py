"""
Text to token ids: WordPiece from the `tokenizers` library, or for ASCII text from one that gives the same ids sooner
(model/ascii_tokenizer.py); the vocabulary is inside the checkpoint.

A single text becomes `[CLS] a [SEP]`, a pair `[CLS] a [SEP] b [SEP]`; id 0 is the pad (Alg. 1) and is never made here.
Text of any script, emoji and control characters are fine; what can't be encoded is an InputError (model/text.py).
"""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from weakref import WeakValueDictionary

import numpy as np
from tokenizers import Tokenizer as WordPieceTokenizer
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors, trainers

from beexformer.model import ascii_tokenizer
from beexformer.model.errors import CheckpointError, InputError
from beexformer.model.text import check, plain

EXPORT_ANEW = "export the checkpoint anew"
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]


@dataclass(slots=True)
class Tokens:
    """Ids of one row [L] int32, special tokens included; whether the text was cut to fit; and the share of the text's
    own tokens that the vocabulary doesn't know ([UNK])."""

    ids: np.ndarray
    truncated: bool
    unknown_ratio: float


class Tokenizer:
    """The tokenizer of a checkpoint: cuts to `max_tokens` where allowed, the longer text of a pair first."""

    def __init__(self, json: str, max_tokens: int, rows: int | None = None) -> None:
        """`rows` of the embedding there are; CheckpointError where an id has none, or where this is no tokenizer."""
        try:
            self.inner = WordPieceTokenizer.from_str(json)
            self.inner.no_padding()
            self.inner.no_truncation()
            self.inner.encode_special_tokens = True  # "[SEP]" typed by someone is text, not a separator
            self._ascii = ascii_tokenizer.of(json, self.inner)
            self.inner.enable_truncation(max_tokens, strategy="longest_first")
            special = [self.inner.encode("", pair).ids for pair in (None, "")]
            known, added = self.inner.get_vocab(with_added_tokens=False), self.inner.get_added_tokens_decoder()
            largest = max(*known.values(), *added, *special[0], *special[1], -1)
            unknown = getattr(self.inner.model, "unk_token", None)
            if unknown is not None and unknown not in known:  # a text with an unknown word could not be read
                raise ValueError(f"its vocabulary lacks its token for unknown words, {unknown!r}")
        except BaseException as error:  # the library raises nothing narrower; where it panics, not even an Exception
            if isinstance(error, (KeyboardInterrupt, SystemExit, MemoryError)):
                raise
            raise CheckpointError(f"tokenizer.json holds no tokenizer ({error}); {EXPORT_ANEW}") from None
        if not all(special) or max(map(len, special)) >= max_tokens:
            raise CheckpointError(
                f"tokenizer.json puts {len(special[0])} special tokens around a text, {len(special[1])} around a pair; "
                f"it takes at least one, and room for words among {max_tokens}; {EXPORT_ANEW}"
            )
        if rows is not None and largest >= rows:
            raise CheckpointError(
                f"tokenizer.json has a token with id {largest} and the embedding has {rows} rows; {EXPORT_ANEW}"
            )
        self.max_tokens = max_tokens
        self._unknown = -1 if (unknown := self.inner.token_to_id("[UNK]")) is None else unknown

    @property
    def vocab_size(self) -> int:
        return int(self.inner.get_vocab_size())

    def encode(self, text: str, text_pair: str | None = None, *, truncate: bool = True) -> Tokens:
        """Raises InputError for a blank text, a lone surrogate, or a text too long where `truncate` is False."""
        check("text", text)
        if text_pair is not None:
            check("text_pair", text_pair)
        text, text_pair = plain(text), None if text_pair is None else plain(text_pair)
        ids, truncated = self._ascii.ids(text, text_pair) if self._ascii else None, False
        if ids is None or len(ids) > self.max_tokens:
            # the batch call lets go of the GIL, the single one would hold it over a long text
            encoding = self.inner.encode_batch_fast([text if text_pair is None else (text, text_pair)])[0]
            ids, truncated = encoding.ids, bool(encoding.overflowing)
        if truncated and not truncate:
            raise InputError(
                f"the text is longer than the model's window of {self.max_tokens} tokens; shorten it or allow truncate"
            )
        own = len(ids) - (2 if text_pair is None else 3)  # without [CLS] and [SEP]
        return Tokens(np.array(ids, dtype=np.int32), truncated, ids.count(self._unknown) / own if own else 0.0)

    def encode_rows(self, rows: Sequence[str | tuple[str, str]]) -> list[np.ndarray]:
        """Ids of many texts or pairs, as `encode` makes them, without its checks: for rows of training."""
        texts = [plain(row) if isinstance(row, str) else (plain(row[0]), plain(row[1])) for row in rows]
        return [np.array(encoding.ids, dtype=np.int32) for encoding in self.inner.encode_batch_fast(texts)]

    def count_cut(self, rows: Sequence[str | tuple[str, str]]) -> int:
        """How many of these texts or pairs have more tokens than are read."""
        texts = [plain(row) if isinstance(row, str) else (plain(row[0]), plain(row[1])) for row in rows]
        return sum(bool(encoding.overflowing) for encoding in self.inner.encode_batch_fast(texts))


_tokenizers: WeakValueDictionary[tuple[str, int, int | None], Tokenizer] = WeakValueDictionary()


def shared(json: str, max_tokens: int, rows: int | None = None) -> Tokenizer:
    """A `Tokenizer`, the one that is there already if another model has the same: a vocabulary is megabytes."""
    key = hashlib.sha256(json.encode()).hexdigest(), max_tokens, rows
    if (result := _tokenizers.get(key)) is None:
        result = _tokenizers[key] = Tokenizer(json, max_tokens, rows)
    return result


def train_wordpiece(texts: Iterable[str], vocab_size: int) -> str:
    """A lower-casing WordPiece vocabulary learned from `texts`, as the JSON of a tokenizer.

    Not reproducible: the library breaks ties in the order of a hash table, so keep what this returns.
    """
    tokenizer = WordPieceTokenizer(models.WordPiece(unk_token="[UNK]", max_input_chars_per_word=100))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    trainer = trainers.WordPieceTrainer(vocab_size=vocab_size, special_tokens=SPECIAL, show_progress=False)
    tokenizer.train_from_iterator(texts, trainer)
    cls, sep = (tokenizer.token_to_id(token) for token in ("[CLS]", "[SEP]"))
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", cls), ("[SEP]", sep)]
    )
    return str(tokenizer.to_str())
