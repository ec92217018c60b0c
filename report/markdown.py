"""
Cells and tables as the report writes them.
"""

from collections.abc import Iterable, Sequence

from beexformer.report.bootstrap import Difference


def table(columns: Sequence[str], rows: Iterable[Sequence[str]], left: int = 1) -> list[str]:
    """Lines of a Markdown table and an empty one; the first `left` columns are aligned to the left."""
    rule = ["---" if i < left else "---:" for i in range(len(columns))]
    return [*(f"| {' | '.join(cells)} |" for cells in (columns, rule, *rows)), ""]


def points(score: float | None) -> str:
    """A score in hundredths; "-" for none."""
    return "-" if score is None else f"{100 * score:.1f}"


def verdict(result: Difference, word: str) -> str:
    """A difference in points with its interval, and what follows from it."""
    return f"{100 * result.value:+.1f} [{100 * result.low:+.1f}, {100 * result.high:+.1f}] {word}"
