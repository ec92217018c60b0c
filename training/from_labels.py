"""
A checkpoint from labels alone: `beexformer train --labels labels.txt`. No row is read, and so nothing is measured: card
and page say so, and the checkpoint takes further labels from requests.
"""

import datetime
import json
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from rich.console import Console

from beexformer.model import checkpoint, probes
from beexformer.model.checkpoint import Checkpoint
from beexformer.model.config import DEFAULT_DELTA
from beexformer.model.engine import Engine
from beexformer.model.options import ExitOptions
from beexformer.model.tokenizer import Tokenizer
from beexformer.training import backbone, card, export, frozen, heads, label_names, mean_states, provenance
from beexformer.training.backbone import Backbone
from beexformer.training.data import digest
from beexformer.training.label_names import LabelNames
from beexformer.training.own_rows import SMALL, backbone_of, own_name

EXIT = ExitOptions(delta=DEFAULT_DELTA, min_blocks=3)
"""Where nothing was measured: over the three sets of docs/log.md no score lies more than a point below the best fixed
exit's, at two thirds of full depth."""


def run(
    file: Path, out: Path, console: Console, max_tokens: int | None = None, size: str = SMALL, root: Path = Path()
) -> None:
    """Read labels, make heads of what they are called, write `out`; backbone as `own_rows.backbone_of` says. Raises
    TrainingError before anything is written for labels that can't be taken, or where `out` is something else."""
    began = time.monotonic()
    own_name(out.name)
    named = label_names.read(file)
    words = [*named.described.values()]
    start = backbone.read(backbone_of(size, root), root)
    length: int = max_tokens or start.shape["max_tokens"]
    facts: dict[str, Any] = {
        "labels": file.name,
        "labels_sha256": digest(words),
        "max_tokens": length,
        "backbone": start.provenance,
    }
    if _finished(out, facts):
        console.print(f"{out} is finished; change the labels, or remove it, to make it anew", soft_wrap=True)
        return
    if not label_names.telling(named.labels):
        console.print(
            "- some labels are numbers or codes: only what describes them can tell texts apart", soft_wrap=True
        )
    checkpoint.ensure_writable(out)
    with console.status("reading what classes are called"):
        result, parity = _checkpoint(out.name, named, start, length)
        facts |= {
            "described": named.described,
            "commit": provenance.commit(),
            "date": datetime.date.today().isoformat(),
            "seconds": round(time.monotonic() - began, 1),
            "parity": asdict(parity),
        }
        result = replace(result, evaluation={"provenance": facts})
        checkpoint.save(replace(result, card=card.of_labels(result)), out)
    _conclude(console, named.labels, out)


def _checkpoint(name: str, named: LabelNames, start: Backbone, length: int) -> tuple[Checkpoint, export.Parity]:
    """The checkpoint, without evaluation and card, and how torch and engine compare on it."""
    words = [*named.described.values()]
    tokenizer = Tokenizer(start.tokenizer, length)
    config = mean_states.config_of(start, len(words), tokenizer.vocab_size, length)
    network = mean_states.network_of(start, config)
    readers = label_names.scaled_readers(start, network)
    weights = label_names.heads_of(words, readers, network, start.tokenizer)
    frozen.put([heads.Linear.through_origin(rows) for rows in weights], network)
    result = export.packed(network, name, named.labels, start.tokenizer, False, {})
    result = label_names.with_readers(replace(result, exit=EXIT, learned_from="labels"), readers)
    engine = Engine(result)
    texts = [*(text for text, _ in probes.TEXTS), *words[:: max(1, len(words) // frozen.VERIFIED)]]
    parity = export.verified(result, engine, [engine.encode(text) for text in texts])
    return replace(result, probes=probes.make(engine)), parity


def _finished(out: Path, facts: dict[str, Any]) -> bool:
    try:
        before = json.loads((out / "evaluation.json").read_text())["provenance"]
        same: bool = all(before[name] == value for name, value in facts.items())
        return same
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _conclude(console: Console, labels: list[str], out: Path) -> None:
    model = out.resolve()
    shown = ", ".join(labels[:10]) + (f" and {len(labels) - 10} more" if len(labels) > 10 else "")
    console.print(
        f"{len(labels)} classes from what they are called: {shown}\n"
        "No row was read and nothing was measured: scores are an order, no probabilities. A few dozen labelled rows\n"
        f"tell how good it is (beexformer evaluate rows.csv --checkpoint {model}); five a class make it better\n"
        "(--train rows.csv beside --labels). Requests may name other classes (candidate_labels).\n"
        f"try it:   beexformer classify 'a text' --checkpoint {model}\n"
        f"serve it: beexformer serve --checkpoints {model}",
        highlight=False,
        soft_wrap=True,
    )
