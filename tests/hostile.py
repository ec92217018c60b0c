"""
Edits of a checkpoint folder that nobody means well, each made from its number; and a process that loads what comes of
them. Run as `python hostile.py FOLDER FIRST LAST`: a line of JSON before each edit and one after it, so that the last
line says which one ended the process.
"""

import hashlib
import json
import math
import os
import random
import resource
import shutil
import signal
import sys
from pathlib import Path
from typing import Any

import numpy as np

from beexformer.model.checkpoint import FILES, digest
from beexformer.model.engine import Engine
from beexformer.model.errors import CheckpointError

SECONDS = 20  # that an edit may take before it counts as a hang: a hundred times what one takes
MEMORY = 3 << 30  # bytes of address space that loading may add
NASTY: list[Any] = [
    *(None, True, False, -1, 0, 1, 2, 3, 63, 64, 65, 511, 512, 513, 65_536, 10**6, 2 * 10**9, 2**31, 2**63, 10**30),
    *(-0.0, 0.5, 1.5, 1e-320, 1e30, 1e308, math.inf, math.nan),
    *("", " ", "a", "\ud800", "\x00", "é" * 5, "x" * 10_000, "../../etc", "int8", "linear", "pair", "0" * 64),
    *([], {}, [[]], [1, 2], [None], {"a": 1}, [[0.0] * 2] * 6),
]
TEXTS = ["the worst movie", "a warm , funny film " * 40, "🙂 \x00 ﬁ é", "[SEP] [CLS] [PAD]"]


def edit(folder: Path, number: int) -> str:
    """Spoil `folder` in one of many ways; says how."""
    rng = random.Random(number)
    how = rng.choice([flip, flip, cut, structure, structure, structure, structure, header, value, value])
    said = how(folder, rng)
    repair(folder)
    return f"{how.__name__}: {said}"


def flip(folder: Path, rng: random.Random) -> str:
    """A few bits anywhere."""
    path = folder / rng.choice(["config.json", *FILES])
    content = bytearray(path.read_bytes())
    places = [rng.randrange(len(content)) for _ in range(rng.choice([1, 1, 1, 4, 32]))]
    for place in places:
        content[place] ^= 1 << rng.randrange(8)
    path.write_bytes(content)
    return f"{path.name} at {places[:3]}"


def cut(folder: Path, rng: random.Random) -> str:
    """Less of a file, or more."""
    path = folder / rng.choice(["config.json", *FILES])
    content = path.read_bytes()
    more = rng.random() < 0.3
    path.write_bytes(content + bytes(rng.randrange(1, 500)) if more else content[: rng.randrange(len(content))])
    return f"{path.name} {'longer' if more else 'shorter'}"


def structure(folder: Path, rng: random.Random) -> str:
    """A value of a JSON file becomes a nasty one, goes, or moves."""
    path = folder / rng.choice(["config.json", "config.json", "tokenizer.json", "evaluation.json"])
    content = json.loads(path.read_bytes())
    *way, last = rng.choice(sorted(paths(content), key=str) or [("dev",)])
    inner = content
    for step in way:
        inner = inner[step]
    action = rng.choice(["nasty", "nasty", "nasty", "gone", "twice"])
    if action == "gone" and inner:
        inner.pop(last)
    elif action == "twice" and isinstance(inner, list):
        inner.append(inner[last])
    else:
        inner[last] = rng.choice(NASTY)
    path.write_text(json.dumps(content))
    return f"{path.name} {'.'.join(map(str, [*way, last]))} {action}"


def header(folder: Path, rng: random.Random) -> str:
    """What the weights file says of its tensors, or how long its header is."""
    path = folder / "model.safetensors"
    content = path.read_bytes()
    length = int.from_bytes(content[:8], "little")
    if rng.random() < 0.2:
        other = rng.choice([0, 1, length - 1, length + 1, 2**31, 2**63, 2**64 - 1])
        path.write_bytes(other.to_bytes(8, "little") + content[8:])
        return f"length {other}"
    described = json.loads(content[8 : 8 + length])
    name = rng.choice(sorted(described))
    what = rng.choice(["dtype", "shape", "data_offsets", "name", "none"])
    if what == "name":
        described[rng.choice(["blocks.7.qkv.words", "__metadata__", ""])] = described.pop(name)
    elif what == "none":
        described[name] = rng.choice(NASTY)
    elif what == "dtype":
        described[name]["dtype"] = rng.choice(["F16", "F64", "I8", "U8", "BOOL", "", 7, None])
    else:
        numbers = described[name][what]
        numbers[rng.randrange(len(numbers))] = rng.choice([-1, 0, 1, 63, 64, 10**6, 2**31, 2**63, 1.5, "a", None])
    new = json.dumps(described).encode()
    new += b" " * (-(8 + len(new)) % 64)
    path.write_bytes(len(new).to_bytes(8, "little") + new + content[8 + length :])
    return f"{name} {what}"


def value(folder: Path, rng: random.Random) -> str:
    """A number among the weights."""
    path = folder / "model.safetensors"
    content = bytearray(path.read_bytes())
    start = 8 + int.from_bytes(content[:8], "little")
    place = start + 4 * rng.randrange((len(content) - start) // 4)
    number = rng.choice([np.nan, np.inf, -np.inf, 3e38, -3e38, 1e7, 1e-40, 0.0, 1e5])
    content[place : place + 4] = np.float32(number).tobytes()
    path.write_bytes(content)
    return f"{number} at {place - start}"


def paths(content: Any, limit: int = 400) -> set[tuple[Any, ...]]:
    """Ways to the values of a JSON document, of long objects and lists the first few."""
    result: set[tuple[Any, ...]] = set()
    todo: list[tuple[tuple[Any, ...], Any]] = [((), content)]
    while todo and len(result) < limit:
        way, inner = todo.pop(0)
        steps = (
            list(inner)[:40]
            if isinstance(inner, dict)
            else range(min(3, len(inner)))
            if isinstance(inner, list)
            else []
        )
        for step in steps:
            result.add((*way, step))
            todo.append(((*way, step), inner[step]))
    return result


def repair(folder: Path) -> None:
    """All digests are right again, as far as config.json can still be read."""
    path = folder / "config.json"
    try:
        content = json.loads(path.read_bytes())
        content["sha256"] = {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in FILES}
        content["digest"] = digest(content)
        path.write_text(json.dumps(content))
    except (ValueError, TypeError, KeyError, OverflowError):  # then it is refused for that
        pass


def load(folder: Path, wanted: list[np.ndarray]) -> str:
    """Load a folder and use it: "refused", "as before", or what is wrong."""
    try:
        engine = Engine.load(folder)
        engine.warm()
    except CheckpointError as error:
        return "refused" if str(error) and "\n" not in str(error) else f"refused without one sentence: {error}"
    json.dumps(engine.description, allow_nan=False).encode()
    pair = "the film" if engine.input == "pair" else None
    for answer in engine.predict([engine.encode(text, pair) for text in TEXTS]):
        if not (math.isclose(sum(answer.scores.values()), 1) and all(map(math.isfinite, answer.entropies))):
            return f"an answer that is none: {answer.scores}"
    probes = [engine.logits([engine.encode(probe.text, probe.text_pair)])[0] for probe in engine._probes]
    for logits in probes:
        if not any(logits.shape == one.shape and np.abs(logits - one).max() < 0.01 for one in wanted):
            return "a wrong answer"
    return "as before"


def main(original: Path, first: int, last: int) -> None:
    engine = Engine.load(original)
    engine.warm()
    wanted = [engine.logits([engine.encode(probe.text, probe.text_pair)])[0] for probe in engine._probes]
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, resource.RLIM_INFINITY))
    spoiled = original.parent / f"spoiled-{os.getpid()}"
    for number in range(first, last):
        shutil.rmtree(spoiled, ignore_errors=True)
        shutil.copytree(original, spoiled)
        how = edit(spoiled, number)
        print(json.dumps([number, how]), flush=True)
        signal.alarm(SECONDS)  # ends the process, also within a kernel
        try:
            outcome = load(spoiled, wanted)
        except BaseException as error:
            outcome = f"{type(error).__name__}: {error}"[:300]
        signal.alarm(0)
        print(json.dumps([number, how, outcome]), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
