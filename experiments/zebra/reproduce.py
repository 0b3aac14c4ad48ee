"""The paper's Table 3 at three scales. Started again, it goes on where it was."""

import dataclasses
import pathlib
import sys
from typing import Any

from experiments.common import Results, Row, table
from experiments.journal import Journal
from experiments.puzzles.data import MaskedLayout, first
from experiments.puzzles.decode import ORACLES
from experiments.puzzles.reproduce import Method, beside_the_paper, chosen_methods
from experiments.training import plot_training
from experiments.zebra.data import GAME, data_fields, dataset_name, riddles, solved_by_size, test_set
from experiments.zebra.flags import Reproduce, Train
from experiments.zebra.scales import PAPER, PAPER_SET, SCALES, ZebraScale
from experiments.zebra.train import layout_of, train_zebra, zebra_training
from mdm_jax.report import plots


def reproduce(flags: Reproduce) -> None:
    """`reproduce`: trains what is not trained, measures what is not measured, and prints and draws all of it."""
    results = Results("zebra", "reproduce", out=flags.out, seed=flags.seed, scale=flags.scale)
    methods = chosen_methods(flags.methods)
    scale = SCALES[flags.scale]
    head: dict[str, Any] = {"scale": flags.scale, "seed": flags.seed, "limit": flags.limit}
    head |= {"settings": dataclasses.asdict(scale)}
    journal = Journal(flags.out, head, flags.minutes)
    famous = riddles(scale.largest)
    for method in methods:
        train = train_flags(flags, scale, method)
        run = Method(GAME, layout_of(train), journal, flags.seed, lambda: train_zebra(train)[0])  # noqa: B023
        task = data_fields(train)
        dataset, records = dataset_name(task), first(flags.limit, test_set(task))
        for oracle in ORACLES if isinstance(run.layout, MaskedLayout) else [None]:
            paper = PAPER.get((method, oracle)) if dataset == PAPER_SET else None
            by_size = lambda filled: solved_by_size(records, filled.tokens)  # noqa: B023, E731
            for row in run.rows(dataset, records, oracle, paper=paper, parts=by_size):
                results.add(**row)
            for name, alone in famous.items():
                results.add(**run.rows(name, alone, oracle)[0])
        for row in zebra_training(flags.out / method):
            results.add(**row)
    results.finish(seconds=journal.seconds)
    measured = [row for row in results.rows if "nfe" in row]
    lines = beside_the_paper([row | {"paper": paper_of(row)} for row in measured if row["dataset"] not in famous])
    sys.stdout.write(f"\nTable 3; the paper's figures are of {PAPER_SET} (houses x attributes)\n{table(lines)}\n")
    for row in measured:
        if row["dataset"] in famous:
            verdict = "solved" if row["solved"] else f"{row['cells']:.0%} of the cells right"
            sys.stdout.write(f"{row['dataset']}, {row['method']}, {row.get('oracle', 'greedy')}: {verdict}\n")
    draw(flags.out, results.rows)


def train_flags(flags: Reproduce, scale: ZebraScale, method: str) -> Train:
    """How a method is trained."""
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


def paper_of(row: Row) -> float | None:
    """The paper's figure for a row's method and order."""
    return PAPER.get((row["method"], row.get("oracle")))


def draw(folder: pathlib.Path, rows: list[Row]) -> None:
    """The pictures: by training examples, and by size."""
    named = [row if row["method"] == "mdm" else row | {"oracle": row["method"]} for row in rows]
    by_size: dict[str, tuple[list[str], list[float]]] = {}
    for row in named:
        if "size" in row:
            sizes, shares = by_size.setdefault(row["oracle"], ([], []))
            sizes.append(row["size"])
            shares.append(row["solved"])
    plots.bars(folder / "sizes.png", by_size, y_label="solved (%)", title="By size, houses x attributes")
    over_training = [row for row in named if "examples" in row]
    plot_training(folder / "training.png", over_training, "solved", y_label="held-out puzzles solved (%)")
    sys.stdout.write(f"{folder / 'sizes.png'}\n{folder / 'training.png'}\n")
