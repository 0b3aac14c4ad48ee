"""`reproduce`: a table or a figure of the paper at some scale. Started again, it goes on where it was."""

import functools
import importlib
from collections.abc import Callable, Mapping, Sequence

import numpy as np

import mdm_jax
from experiments.commands.curves import training_rows
from experiments.commands.decode import Decoded, autoregressive, masked, measure, order_fields
from experiments.commands.flags import Plan, ReproduceFlags, Unit
from experiments.commands.train import train_model
from experiments.common import Results, Row
from experiments.journal import Journal
from mdm_jax.evaluation.intervals import wilson
from mdm_jax.loading import Model
from mdm_jax.oracles import ORACLES
from mdm_jax.tasks.base import Layout, Records, Task


def reproduce(flags: ReproduceFlags) -> None:
    """Trains what is not trained, measures what is not measured, and prints and draws all of it."""
    results = Results(flags.experiment, "reproduce", out=flags.out, seed=flags.seed, scale=flags.scale)
    table = importlib.import_module(flags.table)
    journal = Journal(flags.out, table.head(flags), flags.minutes)
    for plan in table.plans(flags):
        model = functools.cache(functools.partial(_model_of, plan))
        for unit in plan.units:
            for row in journal.rows(unit.name, lambda: unit.work(model())):  # noqa: B023
                results.add(**row)
        for row in training_rows(plan.train.out, plan.train.task(), plan.layout.method):
            results.add(**row)
    results.finish(seconds=journal.seconds)
    table.report(flags, results.rows)


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
    """A row for one order and a number of tokens per step, and the rows that `parts` makes of the answers.

    Args:
      task: judges the answers.
      layout: of the model; an autoregressive one has no order, so that `oracle` is None.
      dataset: the name of the records in rows.
      records: what to answer.
      oracle: the name of the order.
      k: tokens per step.
      seed: of all draws.
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
    """How many records of each kind were solved: a row for each kind, with the kind's name in `field`."""
    rows = []
    for kind in sorted(set(kinds.tolist())):
        n, solved = int((kinds == kind).sum()), int(is_solved[kinds == kind].sum())
        rows.append({field: name(kind), "n": n, "solved": solved / n, "solved_ci": list(wilson(solved, n))})
    return rows


def beside_the_paper(rows: Sequence[Row], columns: Mapping[str, str]) -> list[Row]:
    """A line of a table for each row.

    Args:
      rows: of results.
      columns: the fields to show, with the heads of their columns.
    """
    return [{head: row.get(name) for name, head in columns.items()} for row in rows]
