"""The paper's Table 3 at three scales."""

import dataclasses
import functools
import sys
from typing import Any, Literal

from experiments.commands.curves import grouped, plot_training
from experiments.commands.flags import Plan
from experiments.commands.reproduce import beside_the_paper, order_unit
from experiments.commands.scales import LAYOUTS, MUON, Scale, chosen_methods
from experiments.common import Row, table
from experiments.zebra import ORDERS, PAPER, PAPER_SET, Reproduce, Train
from experiments.zebra_given import riddles, solved_by_size
from mdm_jax.report import plots
from mdm_jax.tasks.base import take


@dataclasses.dataclass(frozen=True, kw_only=True)
class ZebraScale(Scale):
    """How much of everything; sizes are (houses, attributes)."""

    smallest: tuple[int, int] = (3, 3)
    largest: tuple[int, int]


PLAIN: dict[str, Literal["plain", "skewed"]] = dict.fromkeys(LAYOUTS, "plain")
SCALES = {
    "smoke": ZebraScale(
        largest=(3, 4),
        num_train=200,
        num_test=8,
        steps={"mdm": 3, "arm": 2, "arm_ordered": 2},
        batch_size=dict.fromkeys(LAYOUTS, 16),
        optimizer=MUON,
        learning_rate=dict.fromkeys(LAYOUTS, 1e-3),
        loss=PLAIN | {"mdm": "skewed"},
        model=dict.fromkeys(LAYOUTS, "sudoku_800k"),
        num_evaluations=1,
    ),
    "small": ZebraScale(
        largest=(4, 4),
        num_train=200_000,
        num_test=500,
        steps=dict.fromkeys(LAYOUTS, 3000),
        batch_size={"mdm": 64, "arm": 32, "arm_ordered": 32},
        optimizer=MUON,
        learning_rate=dict.fromkeys(LAYOUTS, 3e-3),
        loss=PLAIN | {"mdm": "skewed"},
        model=dict.fromkeys(LAYOUTS, "sudoku_800k"),
        num_evaluations=6,
    ),
    "paper": ZebraScale(
        largest=(6, 6),
        num_train=1_500_000,
        num_test=1_000,
        steps=dict.fromkeys(LAYOUTS, 100_000),
        batch_size={"mdm": 256, "arm": 128, "arm_ordered": 128},
        optimizer={"mdm": "muon", "arm": "adamw", "arm_ordered": "adamw"},
        learning_rate={"mdm": 3e-3, "arm": 2e-4, "arm_ordered": 2e-4},
        loss=PLAIN,
        model={"mdm": "smdm_19m", "arm": "arm_42m", "arm_ordered": "arm_42m"},
    ),
}


def head(flags: Reproduce) -> dict[str, Any]:
    """The flags and the scale."""
    chosen_methods(flags.methods)
    chosen = {name: getattr(flags, name) for name in ("scale", "seed", "limit")}
    return chosen | {"settings": dataclasses.asdict(SCALES[flags.scale])}


def train_flags(flags: Reproduce, method: str) -> Train:
    """How a method is trained."""
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
        records = records or take(flags.limit, task.records("test", task.num_test))
        by_size, units = functools.partial(solved_by_size, records), []
        unit = functools.partial(order_unit, task, layout, seed=flags.seed)
        for oracle in [None] if layout.mask_id is None else ORDERS:
            paper = PAPER.get((method, oracle)) if task.title == PAPER_SET else None
            units.append(unit(task.title, records, oracle, paper=paper, parts=by_size))
            units += [unit(name, alone, oracle) for name, alone in riddles(task.largest).items()]
        plans.append(Plan(train, layout, units))
    return plans


def report(flags: Reproduce, rows: list[Row]) -> None:
    """Table 3, the famous puzzles, and the pictures by size and over training."""
    columns = {"method": "method", "oracle": "order", "paper": "paper", "solved": "ours"}
    columns |= {"solved_ci": "95% interval", "nfe": "NFE", "per_second": "puzzles/s"}
    title = train_flags(flags, "mdm").task().title
    measured = [row | {"paper": PAPER.get((row["method"], row.get("oracle")))} for row in rows if "nfe" in row]
    lines = beside_the_paper([row for row in measured if row["dataset"] == title], columns)
    sys.stdout.write(f"\nTable 3; the paper's figures are of {PAPER_SET} (houses x attributes)\n{table(lines)}\n")
    for row in measured:
        if row["dataset"] != title:
            verdict = "solved" if row["solved"] else f"{row['cells']:.0%} of the cells right"
            sys.stdout.write(f"{row['dataset']}, {row['method']}, {row.get('oracle', 'greedy')}: {verdict}\n")
    named = [row if row["method"] == "mdm" else row | {"oracle": row["method"]} for row in rows]
    pictures = [flags.out / "sizes.png", flags.out / "training.png"]
    by_size = grouped([row for row in named if "size" in row], "size", "solved")
    plots.bars(pictures[0], by_size, y_label="solved (%)", title="By size, houses x attributes")
    over_training = [row for row in named if "examples" in row]
    plot_training(pictures[1], over_training, "solved", y_label="held-out puzzles solved (%)")
    sys.stdout.write("".join(f"{picture}\n" for picture in pictures))
