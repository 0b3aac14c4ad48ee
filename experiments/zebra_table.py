"""Table 3 of the paper at three scales."""

import dataclasses
import functools
import pathlib
import sys
from collections.abc import Sequence

from experiments.commands.curves import grouped, plot_training
from experiments.commands.plans import Plan
from experiments.commands.reproduce import PUZZLE_COLUMNS, order_unit, print_table
from experiments.commands.scales import Budget, Scale, chosen_methods
from experiments.common import Row
from experiments.zebra import ORDERS, PAPER, PAPER_SET, Reproduce, Train
from experiments.zebra_given import riddles, solved_by_size
from mdm_jax.report import bars
from mdm_jax.tasks.base import held_out


@dataclasses.dataclass(frozen=True, kw_only=True)
class ZebraScale(Scale):
    """The sizes of the puzzles, (houses, attributes), and the trainings."""

    smallest: tuple[int, int] = (3, 3)
    largest: tuple[int, int]


SCALES = {
    "smoke": ZebraScale(
        largest=(3, 4),
        num_train=200,
        num_test=8,
        mdm=Budget(model="sudoku_800k", steps=3, batch_size=16, learning_rate=1e-3, loss="skewed"),
        arm=Budget(model="sudoku_800k", steps=2, batch_size=16, learning_rate=1e-3),
        num_evaluations=1,
    ),
    "small": ZebraScale(
        largest=(4, 4),
        num_train=200_000,
        num_test=500,
        mdm=Budget(model="sudoku_800k", steps=3000, batch_size=64, learning_rate=3e-3, loss="skewed"),
        arm=Budget(model="sudoku_800k", steps=3000, batch_size=32, learning_rate=3e-3),
        num_evaluations=6,
    ),
    "paper": ZebraScale(
        largest=(6, 6),
        num_train=1_500_000,
        num_test=1_000,
        mdm=Budget(model="smdm_19m", steps=100_000, batch_size=256, learning_rate=3e-3),
        arm=Budget(model="arm_42m", steps=100_000, batch_size=128, learning_rate=2e-4, optimizer="adamw"),
    ),
}


def train_flags(flags: Reproduce, method: str) -> Train:
    """The flags of a method's training."""
    scale = SCALES[flags.scale]
    (min_houses, min_attributes), (max_houses, max_attributes) = scale.smallest, scale.largest
    return Train(
        min_houses=min_houses,
        max_houses=max_houses,
        min_attributes=min_attributes,
        max_attributes=max_attributes,
        data=flags.data,
        seed=flags.seed,
        out=flags.out / method,
        **scale.flags(method),
    )


def plans(flags: Reproduce) -> list[Plan]:
    """A model for each method, measured on held-out puzzles and on the famous ones."""
    plans, records = [], None
    for method in chosen_methods(flags.methods):
        train = train_flags(flags, method)
        task = train.task()
        layout = train.layout_of(task)
        records = records or held_out(task, flags.limit)
        by_size, units = functools.partial(solved_by_size, records), []
        unit = functools.partial(order_unit, task, layout, seed=flags.seed)
        for oracle in [None] if layout.mask_id is None else ORDERS:
            paper = PAPER.get((method, oracle)) if task.title == PAPER_SET else None
            units.append(unit(task.title, records, oracle, paper=paper, parts=by_size))
            units += [unit(name, alone, oracle) for name, alone in riddles(task.largest).items()]
        plans.append(Plan(train, layout, units))
    return plans


def report(flags: Reproduce, rows: list[Row]) -> list[pathlib.Path]:
    """Prints Table 3 and the famous puzzles, and draws the pictures by size and over training."""
    title = train_flags(flags, "mdm").task().title
    measured = [row | {"paper": PAPER.get((row["method"], row.get("oracle")))} for row in rows if "nfe" in row]
    held_out = [row for row in measured if row["dataset"] == title]
    print_table(f"Table 3; the paper's figures are of {PAPER_SET} (houses x attributes)", held_out, PUZZLE_COLUMNS)
    for row in measured:
        if row["dataset"] != title:
            verdict = "solved" if row["solved"] else f"{row['cells']:.0%} of the cells right"
            sys.stdout.write(f"{row['dataset']}, {row['method']}, {row.get('oracle', 'greedy')}: {verdict}\n")
    pictures = {flags.out / "sizes.png": plot_sizes, flags.out / "training.png": plot_over_training}
    for path, draw in pictures.items():
        draw(path, rows)
    return list(pictures)


def _named(rows: Sequence[Row], field: str) -> list[Row]:
    """The rows with a field; an autoregressive method takes the place of an order."""
    return [row if row["method"] == "mdm" else row | {"oracle": row["method"]} for row in rows if field in row]


def plot_sizes(path: pathlib.Path, rows: Sequence[Row]) -> None:
    """Draws puzzles solved by their size."""
    bars.bars(
        path,
        grouped(_named(rows, "size"), "size", "solved"),
        x_label="size of the puzzle (houses x attributes)",
        y_label="puzzles solved (%)",
        title="By size, with 95% intervals",
    )


def plot_over_training(path: pathlib.Path, rows: Sequence[Row]) -> None:
    """Draws puzzles solved over the trainings of all methods."""
    plot_training(path, _named(rows, "examples"), "solved", y_label="held-out puzzles solved (%)")
