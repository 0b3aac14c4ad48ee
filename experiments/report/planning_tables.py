"""The tables of RESULTS.md about planning: how much an order can gain."""

from experiments.measured import interval, percent, rows
from mdm_jax.report.plots import words

NAMES = {"truth": "the truth first (upper bound)", "learned": "learned"}


def learned_order() -> list[dict[str, str]]:
    """Orders by the number of cells in a step."""
    return [
        {
            "cells a step": str(row["tokens_per_step"]),
            "order": NAMES.get(row["oracle"]) or words(row["oracle"]),
            "solved": percent(row["solved"]),
            "95% interval": interval(row["solved_ci"]),
            "less the margin": f"{100 * row['minus_margin']:+.1f}" if "minus_margin" in row else "",
            "its 95% interval": interval(row.get("minus_margin_ci")),
        }
        for row in rows("sudoku-6m-learned-order")
    ]
