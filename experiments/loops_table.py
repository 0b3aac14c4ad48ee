"""The surface of loops by tokens a step."""

import dataclasses
import functools
import math
import pathlib
from collections.abc import Callable, Sequence
from typing import Any, Literal

import mdm_jax
from experiments.commands.decode import masked, measure
from experiments.commands.plans import Plan, Unit
from experiments.commands.reproduce import print_table
from experiments.common import Row
from experiments.loops import Reproduce
from experiments.trainings import Training
from mdm_jax import oracles
from mdm_jax.loading import Model
from mdm_jax.models.looped import with_loops
from mdm_jax.report import heat
from mdm_jax.tasks.base import Layout, Records, Task, held_out

COLUMNS = {
    "network": "network",
    "dataset": "puzzles",
    "num_loops": "loops",
    "tokens_per_step": "cells a step",
    "passes": "passes of the layers",
    "solved": "solved",
    "solved_ci": "95% interval",
}
ROWS = {
    "once, as many steps": "no loops,\nas many training steps",
    "once, as much compute": "no loops,\nas much training compute",
}
"""What the networks without loops are called in the figure."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class LoopsScale(Training):
    """The trainings, and the points of the surface."""

    difficulties: tuple[Literal["normal", "hard"] | None, ...]
    """of the held-out puzzles"""
    num_loops: int
    """that are trained"""
    loops: tuple[int, ...]
    """at inference"""
    tokens_per_step: tuple[int, ...]


SCALES = {
    "smoke": LoopsScale(
        size=4,
        clues=None,
        difficulty=None,
        difficulties=(None,),
        num_train=100,
        num_test=8,
        model="sudoku_800k",
        num_loops=2,
        steps=2,
        batch_size=8,
        learning_rate=3e-3,
        loops=(1, 3),
        tokens_per_step=(8,),
    ),
    "small": LoopsScale(
        size=6,
        clues=12,
        difficulty=None,
        difficulties=(None,),
        num_train=60_000,
        num_test=1_000,
        model="sudoku_800k",
        num_loops=4,
        steps=150,
        batch_size=128,
        learning_rate=3e-3,
        loops=(1, 2, 3, 4, 6, 8, 16),
        tokens_per_step=(1, 2, 4, 8, 24),
    ),
    "paper": LoopsScale(
        size=9,
        clues=None,
        difficulty="normal",
        difficulties=("normal", "hard"),
        num_train=1_000_000,
        num_test=1_000,
        model="sudoku_800k",
        num_loops=16,
        steps=50_000,
        batch_size=2048,
        learning_rate=2e-3,
        loops=(1, 2, 4, 8, 16, 32, 64, 256, 1024),
        tokens_per_step=(1, 2, 4, 8, 16, 64),
    ),
}


def plans(flags: Reproduce) -> list[Plan]:
    """A looped network, and two without loops: trained for as many steps, and for as much compute."""
    scale = SCALES[flags.scale]
    networks: dict[str, dict[str, Any]] = {
        "looped": {"num_loops": scale.num_loops},
        "once, as many steps": {},
        "once, as much compute": {"steps": scale.num_loops * scale.steps},
    }
    records_of: Callable[[Any], Records] = functools.cache(functools.partial(held_out, limit=flags.limit))
    found = []
    for name, changes in networks.items():
        train = scale.flags(flags, name, **changes)
        layout, units = train.layout_of(train.task()), []
        for difficulty in scale.difficulties:
            task = dataclasses.replace(train.task(), difficulty=difficulty)
            unit = functools.partial(_unit, name, task, layout, records_of, seed=flags.seed)
            for loops in scale.loops if name == "looped" else (1,):
                units += [unit(loops, k) for k in scale.tokens_per_step]
        found.append(Plan(train, layout, units))
    return found


def _unit(
    name: str,
    task: Task,
    layout: Layout,
    records_of: Callable[[Task], Records],
    loops: int,
    k: int,
    *,
    seed: int,
) -> Unit:
    """Solves by the margin, k cells a step, with so many loops."""
    label = f"{name} {task.title} {loops} {k}"

    def work(model: Model) -> list[Row]:
        model = model._replace(params=with_loops(model.params, loops)) if name == "looped" else model
        decode = masked(model, layout, oracles.margin, mdm_jax.PerStep(k))
        row = measure(task, layout, decode, records_of(task), seed=seed, progress=label).row
        fields: Row = {"method": layout.method, "network": name, "dataset": task.title, "oracle": "margin"}
        return [{**fields, "num_loops": loops, "tokens_per_step": k, "passes": loops * row["nfe"], **row}]

    return Unit(label, work)


def report(flags: Reproduce, rows: list[Row]) -> list[pathlib.Path]:
    """Prints the surface, and draws it."""
    print_table("Solved by the margin", [row for row in rows if "passes" in row], COLUMNS)
    path = flags.out / "loops.png"
    plot(path, rows, SCALES[flags.scale].num_loops)
    return [path]


def plot(path: pathlib.Path, rows: Sequence[Row], trained: int) -> None:
    """Draws puzzles solved of the first set as a surface of loops by cells a step; below it, networks without loops.

    Args:
      path: the PNG file.
      rows: those of the table.
      trained: the loops that the looped network was trained with.
    """
    measured = [row for row in rows if "passes" in row and row["dataset"] == rows[0]["dataset"]]
    once = max(row["passes"] for row in measured if row["num_loops"] == 1)
    groups: dict[bool, dict[str, dict[str, heat.Cell]]] = {}
    for row in measured:
        network, loops, passes = str(row["network"]), row["num_loops"], row["passes"]
        is_looped = network == "looped"
        name = f"{loops} loop{'s' * (loops > 1)}{', as trained' * (loops == trained)}"
        name = name if is_looped else ROWS.get(network, network)
        cells = groups.setdefault(is_looped, {}).setdefault(name, {})
        note = f"{passes:.0f} pass{'es' * (passes > 1)}"
        cells[str(row["tokens_per_step"])] = heat.Cell(row["solved"], note, math.isclose(passes, once, rel_tol=0.1))
    heat.heat_map(
        path,
        list(groups.values()),
        x_label=f"cells a step (framed: equal compute, about {once:.0f} passes of the layers)",
        title=f"{measured[0]['dataset']} Sudokus solved by the margin",
    )
