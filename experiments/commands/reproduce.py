"""`reproduce` makes a table of the paper at some scale. The same command again goes on where it stopped."""

import dataclasses
import functools
import importlib
import pathlib
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

import mdm_jax
from experiments.commands.curves import training_rows
from experiments.commands.decode import Decoded, autoregressive, masked, measure, order_fields
from experiments.commands.plans import Plan, ReproduceFlags, Unit
from experiments.commands.train import train_model
from experiments.common import Results, Row, say_written, table
from experiments.journal import Journal
from mdm_jax.data.builders import digest
from mdm_jax.evaluation.intervals import wilson
from mdm_jax.loading import Model
from mdm_jax.oracles import ORACLES
from mdm_jax.tasks.base import Layout, Records, Task
from mdm_jax.training.lock import locked

PUZZLE_COLUMNS = {
    "method": "method",
    "oracle": "order",
    "paper": "paper",
    "solved": "ours",
    "solved_ci": "95% interval",
    "nfe": "NFE",
    "per_second": "puzzles/s",
}
"""The fields of a table of puzzles, with the heads of their columns."""
MAY_CHANGE = ("methods", "minutes", "data", "out")
"""The flags that may change when the same reproduction goes on."""


def reproduce(flags: ReproduceFlags) -> None:
    """Trains and measures what is not done yet, then prints the table and draws the pictures."""
    with locked(flags.out):
        results = Results(flags.experiment, "reproduce", out=flags.out, seed=flags.seed, scale=flags.scale)
        module = importlib.import_module(flags.table)
        plans = module.plans(flags)
        journal = Journal(flags.out, head(flags, module.SCALES[flags.scale], plans), flags.minutes)
        for plan in plans:
            model = functools.cache(functools.partial(_model_of, plan))
            for unit in plan.units:
                for row in journal.rows(unit.name, lambda: unit.work(model())):  # noqa: B023
                    results.add(**row)
            for row in training_rows(plan.train.out, plan.train.task(), plan.layout.method):
                results.add(**row)
        results.finish(seconds=journal.seconds)
        say_written(*module.report(flags, results.rows))


def head(flags: Any, scale: Any, plans: Sequence[Plan]) -> dict[str, Any]:
    """The first line of the journal: all that must stay the same when the reproduction goes on."""
    head = {name: value for name, value in vars(flags).items() if name not in MAY_CHANGE}
    head = {name: str(value) if isinstance(value, pathlib.Path) else value for name, value in head.items()}
    head["settings"] = dataclasses.asdict(scale)
    given = [np.asarray(leaf).tobytes() for plan in plans if plan.model for leaf in jax.tree.leaves(plan.model.params)]
    return head | ({"weights": digest(*given)} if given else {})


def _model_of(plan: Plan) -> Model:
    return plan.model or train_model(plan.train)[0]


def order_unit(
    task: Task,
    layout: Layout,
    dataset: str,
    records: Records,
    oracle: str | None,
    k: int = 1,
    *,
    seed: int,
    paper: float | None = None,
    parts: Callable[[Decoded], list[Row]] | None = None,
) -> Unit:
    """Measures one order at a number of tokens per step, and adds the rows that `parts` makes.

    Args:
      task: scores the answers.
      layout: the layout of the model.
      dataset: the name of the records in rows.
      records: the records to answer.
      oracle: the name of the order; None for an autoregressive model, which has no order.
      k: tokens per step.
      seed: the seed of all draws.
      paper: the paper's figure.
      parts: makes rows about parts of the records.
    """
    name = f"{layout.method} {dataset} {oracle or 'greedy'} {k}"
    fields: Row = {"method": layout.method, "dataset": dataset}
    fields |= order_fields(oracle, mdm_jax.PerStep(k)) if oracle else {}

    def work(model: Model) -> list[Row]:
        selector = mdm_jax.PerStep(k)
        decode = masked(model, layout, ORACLES[oracle], selector) if oracle else autoregressive(model)
        decoded = measure(task, layout, decode, records, seed=seed, progress=name)
        rows = parts(decoded) if parts else []
        return [fields | decoded.row | {"paper": paper}, *(fields | row for row in rows)]

    return Unit(name, work)


def solved_by(field: str, kinds: np.ndarray, name: Callable[[int], str], is_solved: np.ndarray) -> list[Row]:
    """The share of records solved, by kind.

    Args:
      field: the field of a row that holds the name of a kind.
      kinds: int [N], the kind of each record.
      name: gives the name of a kind.
      is_solved: bool [N].
    """
    rows = []
    for kind in sorted(set(kinds.tolist())):
        n, solved = int((kinds == kind).sum()), int(is_solved[kinds == kind].sum())
        rows.append({field: name(kind), "n": n, "solved": solved / n, "solved_ci": list(wilson(solved, n))})
    return rows


def print_table(title: str, rows: Sequence[Row], columns: Mapping[str, str]) -> None:
    """Prints a table.

    Args:
      title: the line above it.
      rows: the rows of results, one for each line.
      columns: the fields to show, with the heads of their columns.
    """
    lines = [{head: row.get(name) for name, head in columns.items()} for row in rows]
    sys.stdout.write(f"\n{title}\n{table(lines)}\n")
