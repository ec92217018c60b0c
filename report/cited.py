"""
Published numbers: the rows of the paper's Table 2 (arXiv 2412.05225v1), as it prints them.
"""

from typing import NamedTuple


class Column(NamedTuple):
    """A column of Table 2: a task by a metric, its own where none is said."""

    task: str
    title: str
    metric: str | None = None


PAPER = {"sst2": "SST-2", "cola": "CoLA", "mrpc": "MRPC", "rte": "RTE"}
"""Tasks of the paper's Table 2 and how it writes them."""
COLUMNS = (
    Column("sst2", "SST-2"),
    Column("cola", "CoLA"),
    Column("mrpc", "MRPC"),
    Column("mrpc", "MRPC", "accuracy"),
    Column("rte", "RTE"),
)
"""GLUE scores MRPC by F1 and by accuracy. The paper has one column for it, in which quantized BERTs have the accuracies
of BiT's Table 1 and others F1."""


class Cited(NamedTuple):
    """A row: scores in points, None where it has none."""

    name: str
    bits: str
    megabytes: float
    scores: tuple[float | None, ...]  # SST-2, CoLA, MRPC, RTE
    kind: str  # "quantized" or "early exit", the halves of the table
    mrpc: str | None = None  # the metric of its MRPC, None for the task's own

    def score(self, column: Column) -> float | None:
        """None where it has none by this metric."""
        if column.task == "mrpc" and column.metric != self.mrpc:
            return None
        return self.scores[[*PAPER].index(column.task)]


CITED = (
    Cited("Q-BERT", "8-8", 43, (84.6, None, 68.3, 52.7), "quantized", "accuracy"),
    Cited("TernaryBERT", "2-8", 28, (None, 50.7, 87.5, 68.2), "quantized", "accuracy"),
    Cited("BinaryBERT", "1-8", 16.5, (92.6, 53.4, 85.5, 72.2), "quantized", "accuracy"),
    Cited("BinaryBERT", "1-4", 16.5, (92.3, 44.4, 83.3, 65.3), "quantized", "accuracy"),
    Cited("BinaryBERT", "1-2", 16.5, (82.5, 14.6, 68.3, 52.7), "quantized", "accuracy"),
    Cited("BinaryBERT", "1-1", 16.5, (53.2, 0, 68.3, 52.7), "quantized", "accuracy"),
    Cited("BiBERT", "1-1", 13.4, (88.7, 25.4, 72.5, 57.4), "quantized", "accuracy"),
    Cited("BiT (WMS)", "1-4", 13.4, (91.5, 42.0, 86.8, 66.4), "quantized", "accuracy"),
    Cited("BiT (WMS)", "1-2", 13.4, (90.8, 32.1, 78.4, 58.1), "quantized", "accuracy"),
    Cited("BiT (WMS)", "1-1", 13.4, (87.7, 25.1, 79.7, 58.8), "quantized", "accuracy"),
    Cited("BiT", "1-1", 13.4, (89.9, 32.9, 79.9, 62.1), "quantized", "accuracy"),
    Cited("ElasticBERT-base", "32-32", 416, (None, None, 87.9, None), "early exit"),
    Cited("ElasticBERT-base-6L", "32-32", 256, (None, None, 87.3, None), "early exit"),
    Cited("BE3R-BERT", "32-32", 1297, (93.23, 59.81, 90.27, 71.48), "early exit"),
    Cited("BE3R-Electra", "32-32", 1278, (96.79, 68.26, 91.47, 86.28), "early exit"),
    Cited("PABEE", "32-32", 46, (93.0, 61.2, 90.0, 80.1), "early exit"),
    Cited("BEEformer WEE, paper", "1-1", 11.05, (85.77, 53.21, 82.30, 64.98), "quantized"),
    Cited("BEEformer WEE-FP, paper", "32-32", 102.41, (90.71, 57.43, 84.27, 67.15), "early exit"),
    Cited("BEEformer FP, paper", "32-32", 263, (95.10, 62.70, 90.92, 75.81), "early exit"),
    Cited("BEEformer, paper", "1-1", 14.26, (92.32, 60.30, 86.47, 71.11), "quantized"),
)
ONE_BIT = tuple(c for c in CITED if c.bits == "1-1" and c.name in ("BiT", "BiBERT", "BinaryBERT"))
"""Whose weights and activations have one bit, as those here: what claims are about."""
