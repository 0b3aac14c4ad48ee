"""The table of order-aligned against plain training."""

import dataclasses
import functools
import operator
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

import mdm_jax
from experiments.aligned import Reproduce
from experiments.commands.decode import masked, measure
from experiments.commands.plans import Plan, Unit
from experiments.commands.reproduce import print_table, solved_by
from experiments.common import Row
from experiments.trainings import Training
from mdm_jax.data.difficulty import DIFFICULTIES
from mdm_jax.evaluation.intervals import mean_interval, paired_interval
from mdm_jax.loading import Model
from mdm_jax.oracles import ORACLES
from mdm_jax.report import bars
from mdm_jax.report.plots import Curve
from mdm_jax.tasks.base import Layout, Records, Task, held_out
from mdm_jax.tasks.sudoku.harder import guesses

COLUMNS = {
    "dataset": "puzzles",
    "guesses": "guesses",
    "n": "number",
    "oracle": "order",
    "tokens_per_step": "cells a step",
    "plain": "plain",
    "aligned": "aligned",
    "minus_plain": "aligned less plain",
    "minus_plain_ci": "95% interval over seeds",
    "puzzles_ci": "95% interval over puzzles, these networks",
}
PART = ("dataset", "oracle", "tokens_per_step", "guesses")
"""The fields that say which puzzles, and in which way; whole sets have no guesses."""
LOSSES = ("plain", "aligned")


@dataclasses.dataclass(frozen=True, kw_only=True)
class AlignedScale(Training):
    """The trainings, and how they are measured."""

    seeds: int
    ways: tuple[tuple[str, int], ...]
    """the order, and cells a step"""


SCALES = {
    "smoke": AlignedScale(
        size=6,
        clues=12,
        difficulty=None,
        num_train=100,
        num_test=8,
        model="sudoku_800k",
        steps=2,
        batch_size=8,
        learning_rate=3e-3,
        seeds=1,
        ways=(("margin", 12),),
    ),
    "small": AlignedScale(
        size=6,
        clues=12,
        difficulty=None,
        num_train=60_000,
        num_test=3_000,
        model="sudoku_800k",
        steps=300,
        batch_size=128,
        learning_rate=3e-3,
        seeds=2,
        ways=(("margin", 1), ("margin", 4), ("random", 1)),
    ),
    "paper": AlignedScale(
        size=9,
        clues=None,
        difficulty=None,
        num_train=2_000_000,
        num_test=1_000,
        model="sudoku_8x256",
        steps=50_000,
        batch_size=256,
        learning_rate=3e-3,
        seeds=3,
        ways=(("margin", 1), ("margin", 4), ("random", 1)),
    ),
}


def plans(flags: Reproduce) -> list[Plan]:
    """A training for each loss and seed, measured on both sets."""
    scale, found = SCALES[flags.scale], []
    records_of: Callable[[Any], Records] = functools.cache(functools.partial(held_out, limit=flags.limit))
    for i in range(scale.seeds):
        for loss in LOSSES:
            seeded = dataclasses.replace(flags, seed=flags.seed + i)
            train = scale.flags(seeded, f"{loss}-{i}", loss=loss)
            layout, units = train.layout_of(train.task()), []
            for difficulty in DIFFICULTIES:
                task = dataclasses.replace(train.task(), difficulty=difficulty, seed=flags.seed)
                unit = functools.partial(_unit, flags, loss, flags.seed + i, task, layout, records_of)
                units += [unit(order, k) for order, k in scale.ways]
            found.append(Plan(train, layout, units))
    return found


def _unit(
    flags: Reproduce,
    loss: str,
    seed: int,
    task: Task,
    layout: Layout,
    records_of: Callable[[Task], Records],
    order: str,
    k: int,
) -> Unit:
    """Solves one set in one way; the row holds which puzzles were solved."""
    label = f"{loss} {seed} {task.title} {order} {k}"

    def work(model: Model) -> list[Row]:
        decode = masked(model, layout, ORACLES[order], mdm_jax.PerStep(k))
        found = measure(task, layout, decode, records_of(task), seed=flags.seed, progress=label)
        fields: Row = {"method": layout.method, "loss": loss, "repeat": seed, "dataset": task.title}
        fields |= {"oracle": order, "tokens_per_step": k}
        is_solved = np.flatnonzero(found.scores["solved"]).tolist()
        parts = by_guesses(records_of(task)["puzzle"], found.scores["solved"])
        return [{**fields, **found.row, "is_solved": is_solved}, *({**fields, **part} for part in parts)]

    return Unit(label, work)


def by_guesses(puzzles: np.ndarray, is_solved: np.ndarray) -> list[Row]:
    """The share solved of puzzles that a search solves with so many guesses: none, 1, 2 to 3, 4 to 7, and so on.

    `is_solved` of a row holds the numbers of the puzzles that are solved, in the whole set.
    """
    doublings = np.frexp(guesses(puzzles))[1]

    def name(number: int) -> str:
        least, most = 2**number // 2, 2**number - 1
        return f"{least}" if least >= most else f"{least} to {most}"

    parts = solved_by("guesses", doublings, name, is_solved)
    for part, kind in zip(parts, sorted(set(doublings.tolist())), strict=True):
        part["is_solved"] = np.flatnonzero(np.asarray(is_solved, bool) & (doublings == kind)).tolist()
    return parts


def compared(rows: Sequence[Row]) -> list[Row]:
    """For each set or part of it, and way: both losses over all seeds, and the mean of their difference, two intervals.

    `minus_plain_ci` is Student's, of a difference for each seed: it holds for new trainings. `puzzles_ci` is of a
    difference for each puzzle, the mean over seeds: it holds for new puzzles, and for these networks alone.
    """
    lines = []
    for part, own in _grouped(rows).items():
        puzzles = np.array(sorted({puzzle for row in own for puzzle in row["is_solved"]}), int)
        rest, share = (0, own[0]["n"] - len(puzzles)), dict[str, Any]()  # those that no network solved
        for loss in LOSSES:
            seeds = sorted((row for row in own if row["loss"] == loss), key=operator.itemgetter("repeat"))
            share[loss] = np.array([np.pad(np.isin(puzzles, row["is_solved"]), rest) for row in seeds], float)
        difference = share["aligned"] - share["plain"]  # [seeds, puzzles]
        line: Row = {name: value for name, value in zip(PART, part, strict=True) if value is not None}
        line |= {"n": own[0]["n"]} | {loss: float(values.mean()) for loss, values in share.items()}
        line |= {"minus_plain": float(difference.mean()), "puzzles_ci": paired_interval(difference.mean(axis=0))}
        by_seed = difference.mean(axis=1)
        if len(by_seed) > 1:
            line["minus_plain_ci"] = mean_interval(by_seed)
        lines.append(line)
    return lines


def _grouped(rows: Sequence[Row]) -> dict[tuple[Any, ...], list[Row]]:
    """The rows of each set or part of it, and way, in the order of the sets."""
    found: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        if "is_solved" in row:  # not those over a training
            found.setdefault(tuple(row.get(name) for name in PART), []).append(row)
    return found


def report(flags: Reproduce, rows: list[Row]) -> list[pathlib.Path]:
    """Prints the comparison, and draws it."""
    lines = compared(rows)
    of_sets = {field: head for field, head in COLUMNS.items() if field != "guesses"}
    print_table("Solved, the mean over seeds", [line for line in lines if "guesses" not in line], of_sets)
    print_table("By the guesses that a search needs", [line for line in lines if "guesses" in line], COLUMNS)
    path = flags.out / "aligned.png"
    plot(path, rows)
    return [path]


def plot(path: pathlib.Path, rows: Sequence[Row]) -> None:
    """Draws both losses on each set, in each way and with each seed."""
    measured = [row for row in rows if "is_solved" in row and "guesses" not in row]
    seeds = len({row["repeat"] for row in measured})
    ways = list(dict.fromkeys((row["dataset"], row["oracle"], row["tokens_per_step"]) for row in measured))
    measured.sort(key=lambda row: (ways.index((row["dataset"], row["oracle"], row["tokens_per_step"])), row["repeat"]))
    series: dict[str, Curve] = {}
    for loss in LOSSES:
        own = [row for row in measured if row["loss"] == loss]
        names = [f"{row['dataset']}, {row['oracle']}, {row['tokens_per_step']} a step" for row in own]
        if seeds > 1:
            names = [f"{name}, seed {row['repeat']}" for name, row in zip(names, own, strict=True)]
        low, high = ([row["solved_ci"][i] for row in own] for i in (0, 1))
        series[loss] = Curve(names, [row["solved"] for row in own], low, high)
    bars.dots(
        path,
        series,
        x_label="puzzles solved (%), with 95% intervals",
        title="Plain and order-aligned training, equal steps",
    )
