"""The plan of correction: each judge beside decoding that takes nothing back."""

import dataclasses
import functools
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

import mdm_jax
from experiments.commands.decode import correcting, masked, measure, remasking, searching
from experiments.commands.plans import Plan, Unit
from experiments.commands.reproduce import print_table, solved_by
from experiments.common import Row
from experiments.correction import Reproduce
from experiments.correction_report import COLUMNS, SEARCH, TAIL, compared, plot, plot_sets
from experiments.sudoku_ladder import OWN, ladder, names_in
from experiments.trainings import Training
from mdm_jax import oracles
from mdm_jax.data.difficulty import DIFFICULTIES
from mdm_jax.errors import InputError
from mdm_jax.loading import Model
from mdm_jax.sampling import Decode
from mdm_jax.tasks.base import Layout, Records, Task, held_out, take
from mdm_jax.tasks.sudoku.rules import Rule
from mdm_jax.tasks.sudoku.task import Sudoku

JUDGES = {"plain": "leave-one-out", "filled": "filled", "quality": "quality"}
"""The judge that a network of each loss is decoded with."""
SURE = 0.99
"""The margin from which the search reveals cells at once."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class CorrectionScale(Training):
    """The trainings, and how they are measured."""

    seeds: int
    plain: tuple[int, ...]
    """cells a step without correction"""
    corrected: Mapping[str, tuple[int, ...]]
    """cells a step with it, by the loss of the network"""
    remask_steps: tuple[int, ...]
    width: int
    check: int


SCALES = {
    "smoke": CorrectionScale(
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
        plain=(12,),
        corrected=dict.fromkeys(JUDGES, (12,)),
        remask_steps=(2,),
        width=2,
        check=1,
    ),
    "small": CorrectionScale(
        size=6,
        clues=12,
        difficulty=None,
        num_train=60_000,
        num_test=1_000,
        model="sudoku_800k",
        steps=300,
        batch_size=128,
        learning_rate=3e-3,
        seeds=2,
        plain=(1, 2, 4, 8),
        corrected=dict.fromkeys(JUDGES, (2, 4, 8)),
        remask_steps=(6, 12, 24),
        width=4,
        check=4,
    ),
    "tuned": CorrectionScale(
        size=9,
        clues=None,
        difficulty="normal",
        num_train=20_000,
        num_test=1_000,
        model="sudoku_6m_deep",
        init_from="sudoku-6m",
        steps=100,
        batch_size=32,
        learning_rate=3e-4,
        seeds=2,
        plain=(2, 4, 8),
        corrected={"filled": (4, 8), "quality": (4, 8)},  # leave-one-out asks for each of 57 cells
        remask_steps=(15,),
        width=4,
        check=4,
    ),
    "paper": CorrectionScale(
        size=9,
        clues=None,
        difficulty=None,
        num_train=2_000_000,
        num_test=1_000,
        model="sudoku_6m_deep",
        steps=25_000,
        batch_size=256,
        learning_rate=3e-3,
        seeds=2,
        plain=(1, 2, 4, 8),
        corrected=dict.fromkeys(JUDGES, (2, 4, 8)),
        remask_steps=(8, 15, 29, 57),
        width=8,
        check=4,
    ),
}


def plans(flags: Reproduce) -> list[Plan]:
    """A training for each seed and loss, measured on both sets."""
    scale, found = SCALES[flags.scale], []
    if flags.ladder is not None and scale.size != 9:
        raise InputError(f"--ladder is for 9x9 puzzles, and --scale {flags.scale} has {scale.size}x{scale.size} ones")
    sets: dict[str, Callable[[], Records]] | None = None
    for i in range(scale.seeds):
        for loss in JUDGES:
            seeded = dataclasses.replace(flags, seed=flags.seed + i)
            steps = scale.steps * (2 if loss == "plain" else 1)
            train = scale.flags(seeded, f"{loss}-{i}", loss=loss, steps=steps)
            task = train.task()
            layout, sets = train.layout_of(task), sets or sets_of(flags, task)
            units = []
            for name, records in sets.items():
                for way, fields, decoder in ways(scale, loss):
                    about: Row = {"method": layout.method, "loss": loss, "repeat": flags.seed + i}
                    about |= {"dataset": name, "oracle": "margin", "way": way, **fields}
                    units.append(_unit(about, task, layout, records, decoder, flags.seed))
            found.append(Plan(train, layout, units))
    return found


def sets_of(flags: Reproduce, task: Sudoku) -> dict[str, Callable[[], Records]]:
    """What is solved, by name, each made once, when it is needed: held-out puzzles of both sets, or the ladder's.

    At 9x9 also those of the normal set that need more than singles.
    """
    sets: dict[str, Callable[[], Records]]
    if flags.ladder is None:
        chosen = [dataclasses.replace(task, difficulty=difficulty, seed=flags.seed) for difficulty in DIFFICULTIES]
        sets = {one.title: functools.cache(functools.partial(held_out, one, flags.limit)) for one in chosen}
    else:
        chosen = OWN
        every = functools.cache(functools.partial(ladder, flags.ladder, flags.limit))
        sets = {name: functools.partial(lambda name: every()[name], name) for name in names_in(flags.ladder)}
    if task.size == 9:
        sets[TAIL] = functools.cache(functools.partial(_tail, chosen[0], flags.limit))
    return sets


def _tail(normal: Sudoku, limit: int) -> Records:
    """The first held-out puzzles of the normal set that need more than singles."""
    records = held_out(normal, None)
    is_in = records["rule"].max(axis=1) > Rule.HIDDEN_SINGLE
    return take(limit, {name: values[is_in] for name, values in records.items()})


def ways(scale: CorrectionScale, loss: str) -> list[tuple[str, Row, Callable[[Model, Layout], Decode]]]:
    """How the network of one loss is decoded: names, fields of the row, and what makes the decoder."""
    of = functools.partial(functools.partial, _margin)
    search: dict[str, Any] = {"width": scale.width, "selector": mdm_jax.Threshold(SURE), "check": scale.check}
    judge = JUDGES[loss]
    return [
        *(("none", {"tokens_per_step": k}, of(masked, selector=mdm_jax.PerStep(k))) for k in scale.plain),
        *((judge, {"tokens_per_step": k}, of(correcting, judge=judge, k=k)) for k in scale.corrected.get(loss, ())),
        *(("remasking", {"remask_steps": n}, of(remasking, num_steps=n)) for n in scale.remask_steps),
        (SEARCH, {"search_width": scale.width, "check": scale.check}, of(searching, **search)),
    ]


def _margin(make: Callable[..., Decode], model: Model, layout: Layout, **options: Any) -> Decode:
    """A decoder by the margin."""
    return make(model, layout, oracles.margin, **options)


def _unit(
    about: Row,
    task: Task,
    layout: Layout,
    records_of: Callable[[], Records],
    decoder: Callable[[Model, Layout], Decode],
    seed: int,
) -> Unit:
    """Solves one set in one way; puzzles that the rules solve also by the hardest rule that they need."""
    label = " ".join(str(value) for name, value in about.items() if name not in ("method", "oracle"))

    def work(model: Model) -> list[Row]:
        records = records_of()
        # A search calls the network for a batch as often as its most doubtful row wants: here calls are a puzzle's.
        options: dict[str, Any] = {"batch_size": 1} if about["way"] == SEARCH else {}
        found = measure(task, layout, decoder(model, layout), records, seed=seed, progress=label, **options)
        is_solved = np.flatnonzero(found.scores["solved"]).tolist()
        rows: list[Row] = [{**about, **found.row, "is_solved": is_solved}]
        if about["dataset"].endswith(("normal", TAIL)):
            hardest = records["rule"].max(axis=1)
            by_rule = solved_by("hardest_rule", hardest, lambda rule: Rule(rule).name.lower(), found.scores["solved"])
            rows += [{**about, **row} for row in by_rule]
        return rows

    return Unit(label, work)


def report(flags: Reproduce, rows: list[Row]) -> list[pathlib.Path]:
    """Prints the table, and draws it."""
    print_table("Correction, all seeds", compared(rows), COLUMNS)
    paths = [flags.out / "correction.png", flags.out / "correction-sets.png"]
    for path, draw in zip(paths, (plot, plot_sets), strict=True):
        draw(path, rows)
    return paths
