"""Table 1 of the paper at three scales."""

import dataclasses
import functools
import pathlib
from collections.abc import Sequence
from typing import Any

from experiments.commands.curves import grouped, plot_training
from experiments.commands.decode import masked, measure
from experiments.commands.plans import Plan, Unit
from experiments.commands.reproduce import print_table
from experiments.common import Row
from experiments.nae_sat import AGREEMENT, BUDGETS, ORDERS, PAPER, Reproduce, SequenceBudget
from mdm_jax import Binomial, PerStep, TopK
from mdm_jax.loading import Model
from mdm_jax.oracles import ORACLES
from mdm_jax.report import plots
from mdm_jax.tasks.base import Layout
from mdm_jax.tasks.nae_sat.task import NaeSat
from mdm_jax.typing import Selector


@dataclasses.dataclass(frozen=True)
class Scale:
    """How large Table 1 is."""

    budget: SequenceBudget
    distributions: tuple[tuple[int, int], ...]
    """(N, P)"""
    num_samples: int
    num_steps: tuple[int, ...]
    """of decoding, beside one token at a time"""


SCALES = {
    "smoke": Scale(BUDGETS["smoke"], ((6, 12),), 8, (6,)),
    "small": Scale(BUDGETS["small"], ((10, 50),), 500, (30, 10)),
    "paper": Scale(BUDGETS["paper"], tuple(PAPER), 1000, (100, 50)),
}


def plans(flags: Reproduce) -> list[Plan]:
    """A model for each distribution, with one unit for each number of steps."""
    scale, plans = SCALES[flags.scale], []
    for sizes in scale.distributions:
        out, limit = flags.out / "{}-{}".format(*sizes), min(128, scale.num_samples)
        others: dict[str, Any] = {"data": flags.data, "seed": flags.seed, "out": out, "evaluate_limit": limit}
        train = scale.budget.train_flags(*sizes, evaluations=8, **others)
        task = train.task()
        units = [
            Unit(
                f"{task.title} {num_steps or 'one by one'}",
                functools.partial(rows_of, flags, task, train.layout_of(task), num_steps),
            )
            for num_steps in (None, *scale.num_steps)
        ]
        plans.append(Plan(train, train.layout_of(task), units))
    return plans


def rows_of(flags: Reproduce, task: NaeSat, layout: Layout, num_steps: int | None, model: Model) -> list[Row]:
    """All orders and vanilla inference in `num_steps` steps; None is one token at a time."""
    length, sizes = task.num_latents + task.num_observations, (task.num_latents, task.num_observations)
    selector: Selector = PerStep(1) if num_steps is None else TopK(num_steps)
    decoders: dict[str, tuple[str, Selector]] = {name: (name, selector) for name in ORDERS}
    decoders["vanilla"] = "random", Binomial(num_steps or length)
    records = task.records("test", SCALES[flags.scale].num_samples)
    rows = []
    for name, (oracle, chosen) in decoders.items():
        decode = masked(model, layout, ORACLES[oracle], chosen, temperature=task.temperature)
        options: dict[str, Any] = {"seed": flags.seed, "batch_size": 250, "progress": f"{task.title} {name}"}
        found = measure(task, layout, decode, records, **options).row
        fields: Row = {"method": "mdm", "dataset": task.title, "oracle": name, "selector": repr(chosen)}
        fields |= {"num_steps": num_steps or length, **found, "paper": PAPER.get(sizes, {}).get(name)}
        rows.append(fields)
    return rows


def report(flags: Reproduce, rows: list[Row]) -> list[pathlib.Path]:
    """Prints Table 1 and draws, for each distribution, the pictures over training and by the number of steps."""
    columns = {"dataset": "distribution", "num_steps": "steps", "oracle": "order", "paper": "paper"}
    columns |= {"accuracy": "ours", "accuracy_ci": "95% interval", "nfe": "NFE", "per_second": "sequences/s"}
    print_table("Table 1", [row for row in rows if "num_steps" in row], columns)
    pictures = []
    for sizes in SCALES[flags.scale].distributions:
        stem, title = "{}-{}".format(*sizes), "N={}, P={}".format(*sizes)
        own = [row for row in rows if row["dataset"] == title]
        training, steps = (flags.out / f"{kind}-{stem}.png" for kind in ("training", "steps"))
        plot_over_training(training, own)
        by_steps = sorted((row for row in own if "num_steps" in row), key=lambda row: row["num_steps"])
        plots.curves(
            steps,
            grouped(by_steps, "num_steps", "accuracy"),
            x_label="steps of decoding",
            y_label=AGREEMENT,
            title=f"L&O-NAE-SAT, {title}",
            log_x=True,
        )
        pictures += [training, steps]
    return pictures


def plot_over_training(path: pathlib.Path, rows: Sequence[Row]) -> None:
    """Draws the agreement over the training of a model, with the span of the paper's figures."""
    spans = {}
    for ours, theirs in (("random", "vanilla"), ("margin", "margin")):
        values = [row[theirs] for row in PAPER.values()]
        spans[ours] = min(values), max(values)
    plot_training(path, [row for row in rows if "examples" in row], "accuracy", y_label=AGREEMENT, paper=spans)
