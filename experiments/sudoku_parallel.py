"""Selectors that reveal several cells a step: what they cost, what they solve, and what they reveal together.

The tokens of a step are drawn as if they knew nothing of one another. On Sudoku it is known which cells do depend on
each other directly: those of one row, column or box. `dependent_pairs` counts the pairs of such cells that a selector
reveals together in a puzzle, and `relative_dependence` says how often that is, in units of what a random order has.
Claim of DAPD (arXiv:2603.12996) and DEMASK (arXiv:2604.02560): a rule that avoids such pairs loses less.
"""

import pathlib
from collections.abc import Sequence

from experiments.commands.curves import grouped
from experiments.commands.decode import masked, measure, order_fields
from experiments.commands.view import order_row
from experiments.common import Results, Row, say_written, table
from experiments.sudoku import held_out
from experiments.sudoku_flags import Parallel
from experiments.trained import load_run
from mdm_jax import EntropyBudget, Klass, PerStep, Threshold, oracles
from mdm_jax.data.difficulty import DIFFICULTIES
from mdm_jax.errors import InputError
from mdm_jax.report import plots
from mdm_jax.typing import Selector

RULES: dict[str, tuple[str, Sequence[Selector]]] = {
    "random, k cells": ("random", [PerStep(k) for k in (4, 8, 16)]),
    "margin, k cells": ("margin", [PerStep(k) for k in (2, 4, 8, 16)]),
    "margin above a threshold": ("margin", [Threshold(tau) for tau in (0.999, 0.99, 0.9, 0.5)]),
    "entropy budget": ("neg_entropy", [EntropyBudget(gamma) for gamma in (0.001, 0.01, 0.1, 1.0)]),
    "KLASS": ("margin", [Klass(p, 0.01) for p in (0.999, 0.9, 0.6)]),
    "KLASS, calmer": ("margin", [Klass(p, 0.001) for p in (0.9, 0.6)]),
}
"""By name: the order, and the selectors, from the most careful one."""


def parallel(flags: Parallel) -> None:
    """`parallel`: a row for each set and selector, and a picture."""
    results = Results("sudoku", "parallel", out=flags.out, seed=flags.seed)
    model, task, layout = load_run("sudoku", flags.checkpoint)
    if layout.mask_id is None:
        raise InputError(f"{flags.checkpoint} is autoregressive and has no order to choose: give a masked model")
    difficulties = DIFFICULTIES if task.size == 9 and flags.source is None else (task.difficulty,)
    for difficulty in difficulties:
        records = held_out(task, flags.source, flags.limit, difficulty)
        for rule, (order, selectors) in RULES.items():
            for selector in selectors:
                decode = masked(model, layout, oracles.ORACLES[order], selector)
                label = f"{difficulty or task.title} {selector}"
                options = {"batch_size": flags.batch_size, "seed": flags.seed, "progress": label}
                decoded = measure(task, layout, decode, records, **options)
                fields: Row = {"dataset": difficulty or task.title, "rule": rule, **order_fields(order, selector)}
                results.add(**fields, **decoded.row, **order_row(task, records, decoded))
    results.finish(fields={"checkpoint": str(flags.checkpoint)}, shown=shown)
    plot(flags.out / "parallel.png", results.rows)
    say_written(flags.out / "parallel.png")


def shown(rows: Sequence[Row]) -> str:
    """The table that is printed."""
    names = ("dataset", "rule", "selector", "nfe", "solved", "solved_ci", "relative_dependence", "dependent_pairs")
    return table([{name: row.get(name) for name in names} for row in rows])


def plot(path: pathlib.Path, rows: Sequence[Row]) -> None:
    """Draws puzzles of the last set solved, and dependent cells revealed together, against network calls."""
    own = sorted((row for row in rows if row["dataset"] == rows[-1]["dataset"]), key=lambda row: row["nfe"])
    fields = {"share solved": "solved", "dependent pairs together, a puzzle": "dependent_pairs"}
    parts = {label: grouped([r for r in own if field in r], "nfe", field, by="rule") for label, field in fields.items()}
    title = f"{rows[-1]['dataset']} Sudokus, {rows[-1]['n']} held out"
    plots.panels(path, parts, x_label="network calls of a batch", title=title, log_x=True)
