"""The demo trains a small model on 6x6 Sudokus. It solves 6x6 puzzles, and 9x9 ones with the shipped weights."""

import pathlib
from collections.abc import Mapping, Sequence

from experiments.commands.curves import plot_training, training_rows
from experiments.commands.decode import TWO_ORDERS, Decoded, add_row, one_by_one
from experiments.commands.train import train_model
from experiments.commands.view import Page, record_at
from experiments.common import Results, Row, say_written, table
from experiments.measured import interval, percent
from experiments.sudoku import ORDERS, SHIPPED, Train, held_out
from experiments.sudoku_flags import Demo
from experiments.trained import load_run
from mdm_jax.data.difficulty import DIFFICULTIES
from mdm_jax.report.plots import words
from mdm_jax.report.puzzle_pictures import Board, reveal_order
from mdm_jax.tasks.base import Records, take
from mdm_jax.tasks.sudoku import puzzle as sudoku

SIZE = 6
CLUES = 12
NUM_TEST = 1000


def train_flags(flags: Demo) -> Train:
    """The flags of the small model's training."""
    return Train(
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


def demo(flags: Demo) -> None:
    """`demo`: trains, prints the table, draws the pictures and writes the viewer's pages."""
    results = Results("sudoku", "demo", out=flags.out, seed=flags.seed)
    run_flags = train_flags(flags)
    task = run_flags.task()
    layout = run_flags.layout_of(task)
    model, test = train_model(run_flags, ORDERS)
    records = take(flags.limit, test)
    pictures, pages = [flags.out / "accuracy.png", flags.out / "order.png"], []
    decoded = {}
    for name, decode, how in one_by_one(model, task, layout, ORDERS):
        fields = {"dataset": task.title, **how}
        decoded[name] = add_row(results, task, layout, decode, records, fields, progress=f"{task.title} {name}")
    rows = training_rows(flags.out, task, layout.method)
    plot_training(pictures[0], rows, "solved", y_label="held-out Sudokus solved (%)")
    plot_order(pictures[1], decoded, records, "One held-out puzzle, the same weights, two orders (grey: given)")

    model, shipped, layout = load_run("sudoku", SHIPPED)
    for difficulty in DIFFICULTIES:
        records = held_out(shipped, None, flags.limit_9x9, difficulty)
        decoders = list(one_by_one(model, shipped, layout, TWO_ORDERS))
        for name, decode, how in decoders:
            fields = {"dataset": difficulty, **how}
            decoded[name] = add_row(results, shipped, layout, decode, records, fields, progress=f"{difficulty} {name}")
        pictures.append(flags.out / f"order-{difficulty}.png")
        title = f"A {difficulty} 9x9 puzzle, solved with the weights of the package"
        plot_order(pictures[-1], decoded, records, title)
        example = telling_example(decoded, records)
        view = shipped.view(record_at(records, example))
        path = flags.out / f"viewer-{difficulty}.html"
        pages.append(Page(path, title, layout, records, view, index=example))
        for name, decode, how in decoders:
            pages[-1].add(name, model, decode, decoded[name], how)
    results.finish(shown=conclusion)
    say_written(*pictures)
    for page in pages:
        page.write()


def demo_table(rows: Sequence[Row]) -> list[Row]:
    """The table of the README: a line for each order."""
    lines = []
    for row in rows:
        if row["dataset"] == "6x6":
            own = {other["dataset"]: other for other in rows if other["oracle"] == row["oracle"]}
            line = {"order": words(row["oracle"]), f"6x6 solved, of {row['n']}": percent(row["solved"])}
            line["95% interval"] = interval(row["solved_ci"])
            for dataset in DIFFICULTIES:
                if dataset in own:
                    of = own[dataset]["n"]
                    line[f"9x9 {dataset}, of {of}"] = str(round(of * own[dataset]["solved"]))
            lines.append(line)
    return lines


def conclusion(rows: Sequence[Row]) -> str:
    """What the demo ends with."""
    solved = {row["oracle"]: percent(row["solved"]) for row in rows if row["dataset"] == "6x6"}
    return (
        f"{table(demo_table(rows))}\n\nThe same weights solve {solved['margin']} of the 6x6 puzzles by margin and "
        f"{solved['random']} in random order: they differ in the order alone."
    )


def telling_example(decoded: Mapping[str, Decoded], records: Records) -> int:
    """The puzzle in which margin has the fewest cells wrong, and then random the most."""
    solutions = records["solution"]
    wrong = {name: (decoded[name].answers != solutions).sum(axis=1) for name in TWO_ORDERS}
    return int((wrong["random"] - solutions.shape[1] * wrong["margin"]).argmax())


def plot_order(path: pathlib.Path, decoded: Mapping[str, Decoded], records: Records, title: str) -> None:
    """Draws the puzzle that tells the most, in both orders."""
    solutions, example = records["solution"], telling_example(decoded, records)
    reveal_order(
        path,
        {name: Board(decoded[name].answers[example], decoded[name].steps[example]) for name in TWO_ORDERS},
        solutions[example],
        box=sudoku.BOXES[sudoku.size_of(solutions.shape[1])],
        title=title,
    )
