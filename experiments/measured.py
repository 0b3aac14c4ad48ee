"""Reads what was measured: the files under experiments/results."""

import json
import pathlib
from typing import Any

from experiments.common import Row

FOLDER = pathlib.Path(__file__).parent / "results"


def record(name: str) -> dict[str, Any]:
    """A results.json, by the name of its file without the ending."""
    return dict(json.loads((FOLDER / f"{name}.json").read_text()))


def rows(name: str, **where: Any) -> list[Row]:
    """The rows of a file whose fields have these values; None: the row does not have the field."""
    return [row for row in record(name)["rows"] if all(row.get(field) == value for field, value in where.items())]


def value(name: str, field: str, **where: Any) -> Any:
    """A field of the one row whose fields have these values."""
    (row,) = rows(name, **where)
    return row[field]


def percent(share: float, digits: int = 1) -> str:
    """A share in percent."""
    return f"{100 * share:.{digits}f}%"


def interval(ends: list[float] | tuple[float, float] | None) -> str:
    """The ends of an interval of shares, in percent; empty for None."""
    return "" if ends is None else f"{100 * ends[0]:.1f} to {100 * ends[1]:.1f}"


def duration(seconds: float) -> str:
    """A time that a person reads."""
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min"


def markdown(lines: list[dict[str, str]]) -> str:
    """A table in Markdown, with a column for each key."""
    heads = list(dict.fromkeys(head for line in lines for head in line))
    texts = [heads, ["---"] * len(heads), *[[line.get(head, "") for head in heads] for line in lines]]
    return "\n".join("| " + " | ".join(text) + " |" for text in texts)
