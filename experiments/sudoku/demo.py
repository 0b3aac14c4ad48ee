"""The demo: train a small model on 6x6 Sudokus, then solve held-out ones in four orders from the same weights."""

import sys

import mdm_jax
from experiments.common import Results
from experiments.sudoku.decode import ORACLES, add_row, order_fields
from experiments.sudoku.flags import Demo, Train
from experiments.sudoku.reproduce import plot_training
from experiments.sudoku.work import dataset_name, decoders, first, model_config, train_model
from mdm_jax.data import sudoku_layouts
from mdm_jax.loading import Model
from mdm_jax.models.transformer import make_denoiser
from mdm_jax.report import plots

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
    config, layout = model_config(run_flags), sudoku_layouts.get(run_flags.layout)
    state, test = train_model(run_flags, config, ORACLES)
    model, records = Model(config, state.best_params, make_denoiser(config)), first(flags.limit, test)
    solutions = records["solution"]
    filled = {}
    for name, decode in decoders(model, layout, ORACLES).items():
        row = {"dataset": dataset_name(SIZE, None), **order_fields(name, mdm_jax.PerStep(1))}
        filled[name] = add_row(results, layout, decode, records, row, progress=name, mesh=run_flags.mesh.make())
    results.finish()

    pictures = [flags.out / "accuracy.png", flags.out / "order.png"]
    plot_training(pictures[0], flags.out, tuple(ORACLES))
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
