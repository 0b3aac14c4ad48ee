"""The paper's Tables 2 and 5 and what belongs to them, at three scales."""

import dataclasses
import functools
import sys
from typing import Any, Literal

import jax
import numpy as np

from experiments.commands.curves import grouped, plot_training
from experiments.commands.decode import Decoded
from experiments.commands.flags import Plan, Unit
from experiments.commands.reproduce import beside_the_paper, order_unit, solved_by
from experiments.commands.scales import LAYOUTS, MUON, Scale, chosen_methods
from experiments.common import Row, table
from experiments.sudoku import ORDERS, PAPER, Reproduce, Train, check_size
from experiments.trained import load_run
from mdm_jax.data.builders import digest
from mdm_jax.data.difficulty import DIFFICULTIES
from mdm_jax.errors import InputError
from mdm_jax.report import plots
from mdm_jax.tasks.base import Layout, Records, take
from mdm_jax.tasks.sudoku.rules import Rule
from mdm_jax.tasks.sudoku.task import Sudoku

OPTIMIZERS: dict[str, Literal["adamw", "muon"]] = {"mdm": "muon", "arm": "adamw", "arm_ordered": "adamw"}


@dataclasses.dataclass(frozen=True, kw_only=True)
class SudokuScale(Scale):
    """How much of everything."""

    size: int
    tokens_per_step: tuple[int, ...]
    """the last stands for all at once"""
    num_curve: int
    """held-out puzzles behind each point with several tokens per step"""


SCALES = {
    "smoke": SudokuScale(
        size=6,
        num_train=500,
        num_test=8,
        steps={"mdm": 4, "arm": 2, "arm_ordered": 2},
        batch_size=dict.fromkeys(LAYOUTS, 16),
        optimizer=OPTIMIZERS,
        learning_rate=dict.fromkeys(LAYOUTS, 1e-3),
        loss={"mdm": "skewed", "arm": "plain", "arm_ordered": "plain"},
        model=dict.fromkeys(LAYOUTS, "sudoku_800k"),
        tokens_per_step=(1, 36),
        num_curve=8,
    ),
    "small": SudokuScale(
        size=6,
        num_train=60_000,
        num_test=500,
        steps={"mdm": 200, "arm": 1600, "arm_ordered": 1600},
        batch_size={"mdm": 128, "arm": 32, "arm_ordered": 32},
        optimizer=MUON,
        learning_rate=dict.fromkeys(LAYOUTS, 3e-3),
        loss=dict.fromkeys(LAYOUTS, "plain"),
        model=dict.fromkeys(LAYOUTS, "sudoku_800k"),
        tokens_per_step=(1, 2, 3, 5, 36),
        num_curve=500,
    ),
    "paper": SudokuScale(
        size=9,
        num_train=1_800_000,
        num_test=1_000,
        steps={"mdm": 24_000, "arm": 200_000, "arm_ordered": 200_000},
        batch_size={"mdm": 1024, "arm": 256, "arm_ordered": 256},
        optimizer=OPTIMIZERS,
        learning_rate={"mdm": 3e-3, "arm": 2e-4, "arm_ordered": 2e-4},
        loss={"mdm": "skewed", "arm": "plain", "arm_ordered": "plain"},
        model={"mdm": "sudoku_6m_deep", "arm": "arm_42m", "arm_ordered": "arm_42m"},
        tokens_per_step=(1, 2, 3, 4, 6, 8, 12, 81),
        num_curve=300,
    ),
}


def head(flags: Reproduce) -> dict[str, Any]:
    """What must not change when the same command goes on; of given weights, what is in them."""
    chosen_methods(flags.methods)
    head: dict[str, Any] = {name: getattr(flags, name) for name in ("scale", "seed", "limit")}
    head |= {"checkpoint": str(flags.checkpoint), "settings": dataclasses.asdict(SCALES[flags.scale])}
    if flags.checkpoint is not None:
        weights = jax.tree.leaves(load_run("sudoku", flags.checkpoint)[0].params)
        head["weights"] = digest(*(np.asarray(leaf).tobytes() for leaf in weights))
    return head


def plans(flags: Reproduce) -> list[Plan]:
    """A model for each method, measured on the normal and the hard set."""
    scale = SCALES[flags.scale]
    size: dict[str, Any] = {"size": scale.size, "num_train": scale.num_train, "num_test": scale.num_test}
    tasks = [Sudoku(**size, difficulty=difficulty, seed=flags.seed) for difficulty in DIFFICULTIES]
    sets = [(task, take(flags.limit, task.records("test", task.num_test))) for task in tasks]
    made = []
    for method in chosen_methods(flags.methods):
        train = Train(
            size=scale.size,
            difficulty="normal",
            data=flags.data,
            seed=flags.seed,
            augment=method == "mdm",  # a symmetry changes the order in which the rules fill in the blanks
            out=flags.out / method,
            **scale.flags(method),
        )
        model, layout = None, train.layout_of(train.task())
        if method == "mdm" and flags.checkpoint is not None:
            model, task, layout = load_run("sudoku", flags.checkpoint)
            check_size(flags.checkpoint, task, scale.size)
            if layout.mask_id is None:
                raise InputError(f"{flags.checkpoint} is autoregressive: give a masked model")
        units = [unit for task, records in sets for unit in units_of(flags, layout, task, records)]
        made.append(Plan(train, layout, units, model))
    return made


def units_of(flags: Reproduce, layout: Layout, task: Sudoku, records: Records) -> list[Unit]:
    """All orders; of a masked model on the normal set also several cells per step."""
    dataset, scale = task.title, SCALES[flags.scale]
    unit = functools.partial(order_unit, task, layout, dataset, seed=flags.seed)

    def paper(oracle: str | None) -> float | None:
        return PAPER.get((layout.method, dataset, oracle))

    if layout.mask_id is None:
        return [unit(records, None, paper=paper(None))]

    def by_hardest_rule(decoded: Decoded) -> list[Row]:
        hardest = records["rule"].max(axis=1)
        return solved_by("hardest_rule", hardest, lambda rule: Rule(rule).name.lower(), decoded.scores["solved"])

    is_normal = task.difficulty == "normal"
    parts = by_hardest_rule if is_normal else None
    units = [unit(records, name, paper=paper(name), parts=parts) for name in ORDERS]
    few = take(scale.num_curve, records)
    several = scale.tokens_per_step[1:] if is_normal else ()
    return units + [unit(few, name, k) for k in several for name in ORDERS]


def report(flags: Reproduce, rows: list[Row]) -> None:
    """Prints both tables and draws the pictures."""
    columns = {"method": "method", "oracle": "order", "paper": "paper", "solved": "ours", "solved_ci": "95% interval"}
    columns |= {"nfe": "NFE", "per_second": "puzzles/s"}
    measured = [row for row in rows if "hardest_rule" not in row and "examples" not in row]
    size = SCALES[flags.scale].size
    for number, difficulty in (("2", "normal"), ("5", "hard")):
        title = Sudoku(size=size, difficulty=difficulty, num_train=1, num_test=1).title
        own = [row for row in measured if row["dataset"] == title and row.get("tokens_per_step", 1) == 1]
        sys.stdout.write(f"\nTable {number}, {difficulty} puzzles\n{table(beside_the_paper(own, columns))}\n")
    pictures = []
    by_tokens = [row for row in measured if row["method"] == "mdm" and row["dataset"].endswith("normal")]
    if by_tokens:
        pictures.append(flags.out / "tokens-per-step.png")
        plots.curves(
            pictures[-1],
            grouped(sorted(by_tokens, key=lambda row: row["tokens_per_step"]), "tokens_per_step", "solved"),
            x_label="cells revealed per step",
            y_label="puzzles of the normal set solved (%)",
            title="One model, four orders",
            log_x=True,
        )
    if by_rule := [row | {"rule": row["hardest_rule"].replace("_", " ")} for row in rows if "hardest_rule" in row]:
        pictures.append(flags.out / "hardest-rule.png")
        title = "By the hardest rule that a person would need"
        plots.bars(pictures[-1], grouped(by_rule, "rule", "solved"), y_label="solved (%)", title=title)
    if over_training := [row for row in rows if "examples" in row and row["method"] == "mdm"]:
        pictures.append(flags.out / "examples.png")
        plot_training(pictures[-1], over_training, "solved", y_label="held-out Sudokus solved (%)")
    sys.stdout.write("".join(f"{picture}\n" for picture in pictures))
