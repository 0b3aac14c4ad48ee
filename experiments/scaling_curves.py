"""The runs of the scaling study, and the power laws that are fitted to their losses."""

import dataclasses
import functools
import itertools
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from experiments.commands.prepare import load_splits
from experiments.commands.reproduce import head
from experiments.commands.train import network, train_model
from experiments.common import Results, Row, say_written, table
from experiments.journal import Journal
from experiments.scaling import LEARNERS, SCALES, Network, Reproduce, Scale
from experiments.text import Train
from experiments.text_commands import measured
from mdm_jax.data.checks import Split
from mdm_jax.evaluation.intervals import mean_interval
from mdm_jax.models import kinds
from mdm_jax.report import plots
from mdm_jax.tasks.base import Records, take
from mdm_jax.tasks.text.task import Text
from mdm_jax.training.lock import locked

LARGEST = 1_000.0
"""Of a factor beyond this nothing is said: a power law does not hold so far from the budgets that it was fitted to."""
COLUMNS = {
    "learner": "class",
    "exponent": "b",
    "exponent_ci": "95% interval of b",
    "compute": "compute for equal loss",
    "compute_ci": "95% interval of it",
}


def reproduce(flags: Reproduce) -> None:
    """Trains what is not trained yet, then fits and draws. The same command goes on where it stopped."""
    with locked(flags.out):
        results = Results("scaling", "reproduce", out=flags.out, seed=flags.seed, scale=flags.scale)
        scale = SCALES[flags.scale]
        journal = Journal(flags.out, head(flags, scale, []), flags.minutes)
        load = functools.cache(load_splits)  # all trainings read the same rows
        for repeat in range(scale.repeats):
            for budget, networks in scale.budgets.items():
                for learner in LEARNERS:
                    for net in networks:
                        train = train_flags(flags, scale, learner, budget, net, repeat)
                        where = {"learner": learner, "budget": budget, "repeat": repeat}
                        for row in journal.rows(train.out.name, lambda: [where | row_of(train, scale, load)]):  # noqa: B023
                            results.add(**row)
        best = lowest(results.rows)
        for row in [*laws(best), *gaps(best)]:
            results.add(**row)
        results.finish(seconds=journal.seconds, shown=_shown)
        plot(flags.out / "scaling.png", results.rows)
        say_written(flags.out / "scaling.png")


def _shown(rows: Sequence[Row]) -> str:
    """The table of all rows, and one of the laws."""
    found = [{COLUMNS[name]: row[name] for name in COLUMNS if name in row} for row in rows if "exponent" in row]
    return f"{table(rows)}\n\n{table(found)}"


def train_flags(flags: Reproduce, scale: Scale, learner: str, budget: float, net: Network, repeat: int) -> Train:
    """The flags of one training: as many steps as the budget pays for."""
    loss, order = LEARNERS[learner]
    size = f"{net.layers}x{net.width}" if net.width else net.model
    train = Train(
        source=flags.source,
        test_source=flags.test_source,
        held_out=flags.held_out,
        tokenizer=flags.tokenizer,
        vocab=scale.vocab,
        length=scale.length,
        data=flags.data,
        loss=loss,
        order=order,
        order_seed=flags.seed + repeat,
        model=net.model,
        layers=net.layers,
        width=net.width,
        batch_size=scale.batch_size,
        learning_rate=scale.learning_rate,
        evaluate_limit=scale.evaluate_limit,
        seed=flags.seed + repeat,
        out=flags.out / f"{learner.replace(' ', '-')}-{budget:g}-{size}-{repeat}",
    )
    num_params = kinds.num_params(network(train, train.task()), embedding=False)
    steps = max(1, round(budget / (6 * num_params * scale.batch_size * scale.length)))
    return dataclasses.replace(train, steps=steps, checkpoint_every=min(steps, 1_000))


def row_of(train: Train, scale: Scale, load: Callable[[Text, pathlib.Path], Mapping[Split, Records]]) -> Row:
    """Trains a model, and gives its row."""
    task = train.task()
    model, held_out = train_model(train, orders=None, data=load(task, train.data))
    layout = train.layout_of(task)
    seeds = range(1 if layout.mask_id is None else scale.draws)
    found = measured(
        train,
        model,
        task,
        layout,
        take(train.evaluate_limit, held_out),
        mesh=train.mesh.make(),
        batch_size=train.batch_size,
        seeds=seeds,
    )
    return found | {"steps": train.steps, "tokens": train.steps * train.batch_size * scale.length}


class Best(NamedTuple):
    """The lowest losses of a class."""

    budgets: NDArray[np.float64]
    """FLOPs [K]"""
    nats: NDArray[np.float64]
    """nats per token [repeats, K], each the lowest of all sizes"""


def lowest(rows: Sequence[Row]) -> dict[str, Best]:
    """The lowest loss of each class, budget and repeat."""
    found: dict[str, dict[float, dict[int, float]]] = {}
    for row in rows:
        by_repeat = found.setdefault(row["learner"], {}).setdefault(row["budget"], {})
        nats = by_repeat.get(row["repeat"], np.inf)
        by_repeat[row["repeat"]] = min(nats, row["nats_per_token"])
    return {
        learner: Best(np.array(list(budgets)), np.array([list(nats.values()) for nats in budgets.values()]).T)
        for learner, budgets in found.items()
    }


def law(x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.float64]:
    """Intercept and slope, [..., 2], of the line through (x [n], y [..., n]) by least squares."""
    slope = (y @ (x - x.mean())) / ((x - x.mean()) ** 2).sum()
    return np.stack([y.mean(axis=-1) - slope * x.mean(), slope], axis=-1)


def log_factor(x: float, own: NDArray[np.float64], other: NDArray[np.float64]) -> NDArray[np.float64]:
    """The log of how many times as much compute `own` needs for the loss that `other` has at x, by laws [..., 2]."""
    return (other @ [1, x] - own[..., 0]) / own[..., 1] - x


def laws(best: dict[str, Best]) -> list[Row]:
    """A row for each class: the exponent b, and the factor of compute beside the first class at the middle budget.

    Both are means over the repeats, each with a law of its own, and the intervals are Student's: those of the line of
    these budgets. How far losses lie from any line they do not say.
    """
    rows: list[Row] = []
    first: NDArray[np.float64] | None = None
    for learner, (budgets, nats) in best.items():
        x = np.log(budgets)
        own = law(x, np.log(nats))
        exponents = -own[:, 1]
        row: Row = {"learner": learner, "exponent": exponents.mean()}
        if len(own) > 1:
            row["exponent_ci"] = list(mean_interval(exponents))
        if first is None:
            first = own
        else:
            logs = np.where(exponents > 0, log_factor(x.mean(), own, first), np.inf)
            row["compute"] = _shown_factor(logs.mean())
            if len(own) > 1 and np.isfinite(logs).all():
                row["compute_ci"] = [_shown_factor(end) for end in mean_interval(logs)]
        rows.append(row | {"log_scale": own[:, 0].mean(), "n": len(own)})
    return rows


def _shown_factor(log: float) -> float | str:
    """A factor of compute by its logarithm, or that it is beyond `LARGEST`."""
    return float(np.exp(log)) if log < np.log(LARGEST) else f"over {LARGEST:,.0f}"


def gaps(best: dict[str, Best]) -> list[Row]:
    """A row for each class and the one before it: the mean difference of their losses, with Student's interval.

    The differences are means over the budgets, one for each repeat.
    """
    rows = []
    for before, learner in itertools.pairwise(best):
        differences = (best[learner].nats - best[before].nats).mean(axis=1)
        mean, row = differences.mean(), {"learner": learner, "minus": before, "n": len(differences)}
        if len(differences) > 1:
            row["nats_ci"] = list(mean_interval(differences))
        rows.append(row | {"nats": mean})
    return rows


def plot(path: pathlib.Path, rows: Sequence[Row]) -> None:
    """Draws the lowest losses, with the range of the repeats."""
    best = lowest([row for row in rows if "steps" in row])
    names = {row["learner"]: f"{row['learner']}, b = {row['exponent']:.3f}" for row in rows if "exponent" in row}
    plots.curves(
        path,
        {
            names[learner]: plots.Curve(
                found.budgets.tolist(), *(end(found.nats, axis=0).tolist() for end in (np.mean, np.min, np.max))
            )
            for learner, found in best.items()
        },
        x_label="compute of training, 6 N D (FLOPs)",
        y_label="held-out loss (nats per token)",
        title="The lowest loss of all sizes at each budget",
        log_x=True,
        is_share=False,
        from_zero=False,
    )
