"""Reports the rows of a benchmark: a table for the terminal, a table in Markdown, and a picture."""

import functools
import pathlib
import textwrap
from collections.abc import Callable, Sequence
from typing import Any

from experiments.common import Row, table
from mdm_jax.report import bars, plots
from mdm_jax.report.plots import Curve

WIDTH = 120
"""Columns of the terminal."""
LONGEST = 24
"""Characters of a cell there."""
WHAT = ("batch", "peer", "oracle", "selector", "temperature")
MEASURED = ("nfe", "ms_per_nfe", "ms_per_nfe_range", "network_ms", "overhead", "sequences_per_s", "tokens_per_s")
OF_OURS = ("network_tflops", "roofline_share", "peak_bytes", "compile_s")
IF_ANY = ("ours_is_faster", "warning")
"""Columns of table.md. Those of IF_ANY appear if a row has them."""
ON_TERMINAL = (
    *("ms_per_nfe", "network_ms", "overhead", "ours_is_faster", "nfe", "tokens_per_s", "sequences_per_s"),
    *("roofline_share", "compile_s"),
)
"""Measured fields on the terminal, the most important first. Those that fit are shown."""


def cell(row: Row, name: str) -> str:
    """Formats a value of a row for both tables."""
    value = row.get(name)
    if value is None:
        return "mdm_jax" if name == "peer" else "-"
    if isinstance(value, list):
        return " to ".join(_number(bound, name) for bound in value)
    return _number(value, name) if isinstance(value, float) else str(value)


def _number(value: float, name: str) -> str:
    return f"{100 * value:+.1f}%" if name in ("overhead", "overhead_range") else f"{value:.4g}"


def markdown(rows: Sequence[Row]) -> str:
    """The rows of `run` as a Markdown table."""
    columns = [*WHAT, *MEASURED, *OF_OURS, *(name for name in IF_ANY if any(name in row for row in rows))]
    lines = ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
    lines += ["| " + " | ".join(cell(row, name) for name in columns) + " |" for row in rows]
    return "\n".join(lines) + "\n"


def shows(*measured: str, what: Sequence[str] = ()) -> Callable[[Sequence[Row]], str]:
    """`terminal`, with the measured fields chosen."""
    return functools.partial(terminal, measured=measured, what=what)


def terminal(rows: Sequence[Row], *, measured: Sequence[str], what: Sequence[str] = ()) -> str:
    """Formats rows in at most WIDTH columns. Values that all rows share stand above the table.

    Args:
      rows: the rows of results.json.
      measured: fields that always have a column; the last ones are dropped if not all fit.
      what: the other fields to show; none for all of them.
    """
    fields = [name for name in dict.fromkeys(name for row in rows for name in row) if name not in measured]
    fields = [name for name in fields if name != "warning" and (not what or name in what)]
    same = [name for name in fields if all(name in row and row[name] == rows[0][name] for row in rows)]
    lines = _wrapped("; ".join(f"{name} {cell(rows[0], name)}" for name in same))
    differ = [name for name in fields if name not in same]
    shown = [name for name in measured if any(name in row for row in rows)]
    while True:
        cells = [{name: _short(row, name) for name in [*differ, *shown]} for row in rows]
        text = table(cells)
        if not shown or max(map(len, text.splitlines())) <= WIDTH:
            break
        shown.pop()
    warnings = dict.fromkeys(row["warning"] for row in rows if "warning" in row)
    last = [line for warning in warnings for line in _wrapped(f"warning: {warning}")]
    return "\n".join([*lines, *([""] if lines else []), text, *([""] if last else []), *last])


def _wrapped(text: str) -> list[str]:
    return textwrap.wrap(text, WIDTH, break_on_hyphens=False)


def _short(row: Row, name: str) -> Any:
    """A cell of the terminal's table. Numbers stay numbers, which `table` aligns on the right."""
    if name != "overhead" and isinstance(row.get(name), int | float):
        return row[name]
    if name not in row and name != "peer":
        return None
    text, half = cell(row, name), (LONGEST - 2) // 2
    return text if len(text) <= LONGEST else f"{text[:half]}..{text[-half:]}"


def plot(path: pathlib.Path, rows: Sequence[Row], model: str) -> None:
    """Draws the overhead of each oracle, with a bar for each temperature."""
    same = ("batch", "selector")
    ours = [row for row in rows if "overhead" in row and all(row[name] == rows[0][name] for name in same)]
    series = {}
    for temperature in dict.fromkeys(row["temperature"] for row in ours):
        these = [row for row in ours if row["temperature"] == temperature]
        low, high = ([row["overhead_range"][end] for row in these] for end in (0, 1))
        names = [plots.words(row["oracle"]) for row in these]
        series[f"temperature {temperature:g}"] = Curve(names, [row["overhead"] for row in these], low, high)
    bars.bars(
        path,
        series,
        x_label="order",
        y_label="added to the network's time (%)",
        title=f"{model}: what choosing order and tokens costs (median and range of turns)",
        is_share=False,
    )
