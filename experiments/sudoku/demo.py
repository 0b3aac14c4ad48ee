"""The demo: a small model, trained here on 6x6 Sudokus, and the 9x9 model of the package, each in several orders."""

import pathlib
import sys
from collections.abc import Mapping

import mdm_jax
from experiments.common import Results
from experiments.puzzles.data import Layout, Records, first
from experiments.puzzles.decode import ORACLES, TWO_ORDERS, add_row, decoders, order_fields
from experiments.sudoku.data import GAME, dataset_name, test_set
from experiments.sudoku.evaluate import load_model
from experiments.sudoku.flags import Demo, Train
from experiments.sudoku.train import plot_sudoku_training, train_sudoku
from mdm_jax.data.difficulty import DIFFICULTIES
from mdm_jax.evaluation.puzzles import Filled
from mdm_jax.loading import Model
from mdm_jax.report import plots
from mdm_jax.tasks.sudoku import layouts as sudoku_layouts
from mdm_jax.tasks.sudoku import puzzle as sudoku
from mdm_jax.typing import Oracle

SIZE = 6
CLUES = 12
NUM_TEST = 1000
SHIPPED = pathlib.Path("sudoku-6m")


def demo(flags: Demo) -> None:
    """`demo`: training, the table and the pictures."""
    results = Results("sudoku", "demo", out=flags.out, seed=flags.seed)
    run_flags = Train(
        size=SIZE,
        clues=CLUES,
        num_train=flags.num_train,
        num_test=NUM_TEST,
        data=flags.data,
        seed=flags.seed,
        model="sudoku_800k",
        dtype="float32",
        steps=flags.steps,
        batch_size=flags.batch_size,
        optimizer="muon",
        learning_rate=3e-3,
        warmup_steps=min(50, flags.steps // 4),
        checkpoint_every=max(flags.steps // 3, 1),
        evaluate_every=max(flags.steps // 6, 1),
        evaluate_limit=64,
        out=flags.out,
    )
    layout = sudoku_layouts.get(run_flags.layout)
    model, test = train_sudoku(run_flags, ORACLES)
    records = first(flags.limit, test)
    filled = compare(results, model, layout, records, dataset_name(SIZE, None), ORACLES)
    pictures = [flags.out / "accuracy.png", flags.out / "order.png"]
    plot_sudoku_training(pictures[0], flags.out)
    plot_order(pictures[1], filled, records, "One held-out puzzle, the same weights, two orders (grey: given)")

    shipped, task = load_model(SHIPPED, 9)
    for difficulty in DIFFICULTIES:
        records = first(flags.limit_9x9, test_set(task, difficulty))
        filled = compare(results, shipped, sudoku_layouts.get(task["layout"]), records, difficulty, TWO_ORDERS)
        pictures.append(flags.out / f"order-{difficulty}.png")
        plot_order(pictures[-1], filled, records, f"A {difficulty} 9x9 puzzle, solved with the weights of the package")
    results.finish()
    sys.stdout.write("".join(f"{picture}\n" for picture in pictures))


def compare(
    results: Results, model: Model, layout: Layout, records: Records, dataset: str, oracles: Mapping[str, Oracle]
) -> dict[str, Filled]:
    """A row for each order; the answers by order."""
    filled = {}
    for name, decode in decoders(model, layout, oracles).items():
        row = {"dataset": dataset, **order_fields(name, mdm_jax.PerStep(1))}
        filled[name] = add_row(results, GAME, layout, decode, records, row, progress=f"{dataset} {name}")
    return filled


def plot_order(path: pathlib.Path, filled: Mapping[str, Filled], records: Records, title: str) -> None:
    """The puzzle on which random order did worst and the margin did not fail, if there is one, in both orders."""
    solutions = records["solution"]
    wrong = {name: (filled[name].tokens != solutions).sum(axis=1) for name in TWO_ORDERS}
    example = int((wrong["random"] - solutions.shape[1] * wrong["margin"]).argmax())
    plots.reveal_order(
        path,
        {name: (filled[name].tokens[example], filled[name].reveal_step[example]) for name in TWO_ORDERS},
        solutions[example],
        box=sudoku.BOXES[sudoku.size_of(solutions.shape[1])],
        title=title,
    )
