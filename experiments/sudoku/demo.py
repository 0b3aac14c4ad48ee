"""The demo: train a small model on 6x6 Sudokus, then solve held-out ones in four orders from the same weights."""

import pathlib
import sys

import mdm_jax
from experiments.common import Results
from experiments.sudoku.flags import Demo, Train
from experiments.sudoku.work import add_row, first, model_config, train_model
from mdm_jax import oracles
from mdm_jax.loading import Model
from mdm_jax.models.transformer import make_denoiser
from mdm_jax.report import plots
from mdm_jax.training.metrics import read_metrics

ORACLES = {
    "random": oracles.random,
    "top_prob": oracles.top_prob,
    "margin": oracles.margin,
    "neg_entropy": oracles.neg_entropy,
}
SIZE = 6
CLUES = 12
NUM_TEST = 1000
BOX = (2, 3)


def demo(flags: Demo) -> None:
    """`demo`: training, the table and two pictures."""
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
        learning_rate=2e-3,
        warmup_steps=min(50, flags.steps // 4),
        checkpoint_every=max(flags.steps // 3, 1),
        evaluate_every=max(flags.steps // 6, 1),
        evaluate_limit=64,
        out=flags.out,
    )
    config, mesh = model_config(run_flags), run_flags.mesh.make()
    state, test = train_model(run_flags, config, ORACLES)
    model = Model(config, state.best_params, make_denoiser(config))
    puzzles, solutions = (first(flags.limit, test[name]) for name in ("puzzle", "solution"))
    filled = {
        name: add_row(results, model, name, oracle, mdm_jax.PerStep(1), puzzles, solutions, mesh=mesh)
        for name, oracle in ORACLES.items()
    }
    results.finish()

    pictures = [flags.out / "accuracy.png", flags.out / "order.png"]
    plot_accuracy(pictures[0], flags.out)
    wrong = {name: (filled[name].tokens != solutions).sum(axis=1) for name in ("random", "margin")}
    example = int((wrong["random"] - SIZE**2 * wrong["margin"]).argmax())
    plots.reveal_order(
        pictures[1],
        {name: (filled[name].tokens[example], filled[name].reveal_step[example]) for name in wrong},
        solutions[example],
        box=BOX,
        title="One held-out puzzle, the same weights, two orders (grey: given)",
    )
    sys.stdout.write("".join(f"{picture}\n" for picture in pictures))


def plot_accuracy(path: pathlib.Path, folder: pathlib.Path) -> None:
    """Puzzles solved in each order over training, from the run's metrics."""
    lines = read_metrics(folder)
    series = {}
    for name in ORACLES:
        points = [(line["step"], line[f"solved/{name}"]) for line in lines if f"solved/{name}" in line]
        series[name] = ([step for step, _ in points], [share for _, share in points])
    plots.curves(
        path,
        series,
        x_label="training steps",
        y_label="held-out 6x6 Sudokus solved (%)",
        title="One model, four orders",
    )
