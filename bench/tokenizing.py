"""
Both tokenizers on many sentences: whether ids are equal, and microseconds a sentence.

    python bench/tokenizing.py --text folder [--sentences 1000000]

`folder` has files of text, gzipped (*.txt.gz), a paragraph a line. Both are asked for ASCII sentences only.
Ends with one JSON line; the exit code is 1 where an id differs.
"""

import argparse
import gzip
import json
import re
import sys
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from timing import machine, today

from beexformer.model.checkpoint import SHIPPED
from beexformer.model.tokenizer import Tokenizer


def sentences(folder: Path) -> Iterator[str]:
    for file in sorted(folder.glob("*.txt.gz")):
        with gzip.open(file, "rt", encoding="utf-8") as lines:
            for line in lines:
                yield from (part for part in re.split(r"(?<=[.!?]) +", line.strip()) if part)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--text", type=Path, required=True)
    parser.add_argument("--sentences", type=int, default=1_000_000)
    arguments = parser.parse_args()
    file = next(SHIPPED.glob("*/tokenizer.json"))
    tokenizer = Tokenizer(file.read_text(encoding="utf-8"), 512)
    if not (quick := tokenizer._ascii):
        sys.exit("there is no quick tokenizer on this platform")
    slow_seconds = quick_seconds = 0.0
    compared = differ = others = 0
    texts = islice(sentences(arguments.text), arguments.sentences)
    while some := list(islice(texts, 1000)):
        start = time.thread_time()
        quick_ids = [quick.ids(text, None) for text in some]
        middle = time.thread_time()
        expected = [tokenizer.inner.encode_batch_fast([text])[0] for text in some]
        slow_seconds, quick_seconds = slow_seconds + time.thread_time() - middle, quick_seconds + middle - start
        for ids, encoding in zip(quick_ids, expected, strict=True):
            if ids is None:
                others += 1
            elif not encoding.overflowing:
                compared += 1
                differ += ids != encoding.ids
    each = 1e6 / (compared + others)
    result = {
        "sentences": compared,
        "differ": differ,
        "left_to_tokenizers": others,
        "tokenizers_us": round(slow_seconds * each, 2),
        "quick_us": round(quick_seconds * each, 2),
    }
    print(json.dumps({**result, "machine": machine(), "date": today()}))
    return int(differ > 0)


if __name__ == "__main__":
    sys.exit(main())
