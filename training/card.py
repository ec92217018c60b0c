"""
The model card of a checkpoint: what it is, how good, how made, what it must not be used for. Text only.
"""

from typing import Any

from beexformer.model.checkpoint import Checkpoint
from beexformer.model.options import ExitOptions
from beexformer.training.calibrate import BINS

FRONT = """---
pipeline_tag: text-classification
tags: [binary-neural-network, early-exit, beexformer]
---"""


def write(checkpoint: Checkpoint, licence: str) -> str:
    """README.md of a checkpoint folder, from its description and its evaluation."""
    config, result = checkpoint.config, checkpoint.evaluation
    made, dev, fitted = result["provenance"], result["dev"], result.get("calibration", {})
    options = checkpoint.exit.over(ExitOptions(delta=dev["delta"])).stated()
    marks = "; in pairs, tokens that both texts have are marked" if config.exact_match else ""
    scored = "\n".join(
        f"| {name} | {part['rows']} | {part['score']:.4f} | {part['full_depth_score']:.4f} "
        f"| {part['flops_saved_ratio']:.1%} | {' '.join(map(str, part['exits']))} |"
        for name, part in (("dev", dev), ("test", result.get("test")))
        if part
    )
    return f"""{FRONT}
# {checkpoint.name}

A BEExformer (arXiv 2412.05225): {config.n_block} blocks of width {config.d_model} with {config.n_head} heads, 1-bit
weights and activations, an exit after every block{marks}. Labels: {", ".join(checkpoint.labels)}.{_reading(checkpoint)}

| set | rows | {dev["metric"]} at {options} | at full depth | FLOPs saved | rows leaving by block |
| --- | ---: | ---: | ---: | ---: | --- |
{scored}

{_judged(made, "bias" in fitted)} FLOPs are real operations plus
binary operations / 64.

## How it was made

- data: {made["data"]} ({made["train_rows"]} rows; SHA-256 {made["data_sha256"][:16]}...), licence: {licence}
- start: {_start(made)}
- teacher: {_taught(made)}
- {made["tokens"]:,} tokens in {_lasting(made["seconds"])}
  on {made["machine"]}, seed {made["seed"]}
- commit {made["commit"]}, {made["date"]}; the whole recipe is in evaluation.json

## Limits

- Half of the labelled training texts have at most {made["tokens_median"]} tokens, 99 in 100 at most
  {made["tokens_p99"]}: longer ones are a guess, and beyond {config.max_tokens} tokens a text is cut.
- {_calibration(fitted)}
- It repeats the biases of its data and of what it started from; don't let it decide about people.
"""


def _lasting(seconds: float) -> str:
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def of_labels(checkpoint: Checkpoint) -> str:
    """The same of a checkpoint that was made of labels alone."""
    config, made = checkpoint.config, checkpoint.evaluation["provenance"]
    described = "\n".join(f'- {label}: read as "{words}"' for label, words in made["described"].items())
    return f"""{FRONT}
# {checkpoint.name}

**Made of what its classes are called, without a single labelled row. Nothing was measured: how good it is on your texts
nobody knows until labelled rows are scored.** Its scores order the classes; they are no probabilities.

A BEExformer (arXiv 2412.05225): {config.n_block} blocks of width {config.d_model} with {config.n_head} heads, 1-bit
weights and activations, an exit after every block.

{described}

A request may name other classes (`candidate_labels`).

## How it was made

- labels: {made["labels"]} (SHA-256 {made["labels_sha256"][:16]}...)
- start: {_start(made)}
- each class is a row of every exit's head: the vector of its words, read back through the exit's reader
- commit {made["commit"]}, {made["date"]}

## Limits

- Topics that their words name are told apart; types of questions, tone and irony hardly. Beyond {config.max_tokens}
  tokens a text is cut. English only.
- It repeats the biases of what it started from; don't let it decide about people.
"""


def _several(checkpoint: Checkpoint) -> str:
    """What a model of several labels a text has to say of them."""
    if checkpoint.thresholds is None:
        return ""
    metrics = checkpoint.evaluation["dev"]["metrics"]
    each = zip(checkpoint.labels, checkpoint.thresholds, checkpoint.evaluation["dev"]["by_class"], strict=True)
    lines = "\n".join(
        f"| {label} | {threshold:.3f} | {result['rows']} | {result['precision']:.3f} | {result['recall']:.3f} "
        f"| {result['f1']:.3f} |"
        for label, threshold, result in each
    )
    return (
        "\nAny number of them applies to a text, none perhaps: each has a score of its own, a sigmoid, and applies\n"
        f"from its threshold on. On dev micro F1 {metrics['micro_f1']:.4f}, macro F1 {metrics['macro_f1']:.4f}; "
        f"{metrics['accuracy']:.1%} of the rows\nhave exactly their labels.\n\n"
        f"| label | threshold | rows | precision | recall | F1 |\n| --- | ---: | ---: | ---: | ---: | ---: |\n{lines}"
    )


def _reading(checkpoint: Checkpoint) -> str:
    """What its heads read beside the mean of a text's states, and what several labels a text mean, if it has that."""
    return _pooling(checkpoint) + _several(checkpoint)


def _pooling(checkpoint: Checkpoint) -> str:
    if checkpoint.config.pooling == "mean":
        return ""
    how = "; cross-validation chose that" if "pooling" in checkpoint.evaluation["provenance"] else ""
    return f"\nEvery exit reads the mean of a text's states and one that weighs its first words most{how}."


def _judged(made: dict[str, Any], biased: bool) -> str:
    if made.get("cross_validated"):
        return (
            "Nothing was held out: dev are the training rows, cross-validated, each answered by heads that were\n"
            "fitted without it; the test set, where there is one, chose nothing."
        )
    if "heads" in made:
        return "Training rows alone chose everything, by cross-validation; neither dev nor test did."
    if "patience" in made["recipe"].get("optim", {}):  # of releases before 0.2
        return "The dev set chose when to stop training; the test set, where there is one, chose nothing."
    fitted = "temperatures and class biases" if biased else "temperatures"
    return (
        f"The weights are those at the end of the schedule. Dev rows fitted {fitted}; the test set, where there is\n"
        "one, chose nothing."
    )


def _start(made: dict[str, Any]) -> str:
    if before := made.get("checkpoint"):
        its = before["provenance"]
        return (
            f"checkpoint {before['name']} of {its['date']}, SHA-256 of its weights {before['sha256'][:16]}...\n"
            f"  - its data: {its['data']} ({its['train_rows']} rows), licence: {its['recipe']['data']['licence']}\n"
            f"  - its start: {_start(its)}\n"
            f"  - its teacher: {_taught(its)}"
        )
    if backbone := made.get("backbone"):
        named = f"backbone {backbone['name']}, embeddings and blocks"
        if "encoder" in backbone:
            named += f", distilled without labels from {backbone['encoder']}"
        text = backbone.get("text", backbone.get("recipe", {}).get("text", []))
        return named + (f" on {_text(text)}" if text else "")
    return f"{made['recipe']['start']['encoder'] or 'random'} embeddings; the blocks start from nothing"


def _taught(made: dict[str, Any]) -> str:
    if facts := made.get("teacher"):
        return _teacher(facts)
    files = made["recipe"].get("data", {}).get("also")
    return f"soft labels, in its data and in {', '.join(files)}" if files else "none"


def _teacher(facts: dict[str, Any]) -> str:
    text = f"{facts['encoder']}, fine-tuned on the same rows (dev accuracy {facts['dev_accuracy']:.4f})"
    if facts.get("text"):
        text += f", which also labelled {_text(facts['text'])}"
    elif facts["unlabelled_rows"]:
        text += f", which also labelled {facts['unlabelled_rows']:,} sentences of {facts['unlabelled']}"
    return text


def _text(tables: list[dict[str, Any]]) -> str:
    """What was taken from which file: rows, form, name."""
    return ", ".join(f"{t['rows']:,} rows of {t['file']} ({t.get('form', 'sentences')})" for t in tables)


def _calibration(fitted: dict[str, Any]) -> str:
    if not fitted or fitted["kind"] == "none":
        return (
            "Scores are no calibrated probabilities: an exit is trained to agree with labels and teacher, not to doubt."
        )
    kinds = {"per_exit": "a temperature per exit", "per_label": "a temperature per exit and label"}
    kind = kinds.get(fitted["kind"], "one temperature for all exits")
    measured = "; ".join(
        f"{split} {fitted[split]['ece_before']:.3f} before and {fitted[split]['ece_after']:.3f} after{how}"
        for split, how in (("dev", " (fitted on one half, measured on the other)"), ("test", ""))
        if split in fitted
    )
    return (
        f"Scores are calibrated by {kind}, fitted on dev and part of the weights.\n"
        f"{_biases(fitted)}"
        f"  Expected calibration error of the answers, in {BINS} bins: {measured}.\n"
        "  On other text than this data they are no probabilities."
    )


def _biases(fitted: dict[str, Any]) -> str:
    if "bias" not in fitted:
        return ""
    return (
        "  Class biases, the same at every exit, were fitted there too: they put right how often each class is\n"
        "  predicted, and dev scores are of the rows that they were fitted on.\n"
    )
