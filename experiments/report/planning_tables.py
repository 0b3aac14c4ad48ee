"""The tables of RESULTS.md about planning: what an order can gain, and what a schedule loses."""

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


def schedules() -> list[dict[str, str]]:
    """What a schedule loses, by the theorem and measured."""
    return [
        {
            "network calls": f"{row['nfe']:.0f}",
            "schedule": row["schedule"],
            "theorem (nats)": f"{row['divergence']:.2f}",
            "measured": f"{row['measured']:.2f}",
            "95% interval": " to ".join(f"{end:.2f}" for end in row["measured_ci"]),
            "observations that agree": percent(row["accuracy"]),
            "sequences without a contradiction": percent(row["all_agree"]),
        }
        for row in rows("nae_sat-schedules")
        if row["num_steps"] > 1
    ]


def parallel() -> list[dict[str, str]]:
    """Selectors that reveal several cells a step, on the hard set."""
    return [
        {
            "selector": f"{row['rule']}: {row['selector']}",
            "network calls": f"{row['nfe']:.0f}",
            "solved": percent(row["solved"], 0),
            "95% interval": interval(row["solved_ci"]),
            "dependent cells together": f"{row['relative_dependence']:.2f}",
        }
        for row in rows("sudoku-parallel", dataset="hard")
    ]


def symmetric() -> list[dict[str, str]]:
    """Hard puzzles solved by the vote over symmetric forms."""
    return [
        {
            "forms": str(row["proposals"]),
            "network calls": f"{row['nfe']:.0f}",
            "solved": percent(row["solved"], 0),
            "95% interval": interval(row["solved_ci"]),
        }
        for row in rows("sudoku-6m-hard-symmetric")
    ]
