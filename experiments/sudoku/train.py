"""Training on Sudokus."""

import functools
import math
import pathlib
from collections.abc import Mapping
from typing import Any

import jax

import mdm_jax
from experiments.common import Results
from experiments.sudoku.data import data_fields, dataset_name, first, load_data
from experiments.sudoku.decode import add_row, answer, autoregressive, masked, order_fields
from experiments.sudoku.flags import Train
from experiments.training import begin, plot_training, training_rows
from mdm_jax.data import sudoku, sudoku_layouts, sudoku_symmetry
from mdm_jax.data.sudoku_layouts import Layout, Masked, Triples
from mdm_jax.data.sudoku_sets import Records
from mdm_jax.errors import InputError
from mdm_jax.evaluation.puzzles import Decode
from mdm_jax.loading import Model
from mdm_jax.models import presets
from mdm_jax.models.config import TransformerConfig
from mdm_jax.models.transformer import init_params, make_denoiser
from mdm_jax.training.objectives import causal_loss, masked_loss, reweighted_loss, skewed_loss
from mdm_jax.training.state import TrainState
from mdm_jax.typing import Array, Oracle, Params

LOSSES = {"plain": masked_loss, "skewed": skewed_loss, "reweighted": reweighted_loss}
ORACLES: dict[str, Oracle] = {"random": mdm_jax.oracles.random, "margin": mdm_jax.oracles.margin}
"""Of an evaluation while training."""


def train(flags: Train) -> None:
    """`train`: a model at any size, preset, layout and budget."""
    results = Results("sudoku", "train", out=flags.out, seed=flags.seed)
    config, layout = model_config(flags), sudoku_layouts.get(flags.layout)
    state, test = train_model(flags, config, ORACLES)
    model = Model(config, state.best_params, make_denoiser(config))
    for name, decode in decoders(model, layout, ORACLES).items():
        row = {"dataset": dataset_name(flags.size, flags.difficulty)}
        row |= order_fields(name, mdm_jax.PerStep(1)) if isinstance(layout, Masked) else {}
        add_row(results, layout, decode, first(flags.evaluate_limit, test), row, mesh=flags.mesh.make())
    results.finish()


def model_config(flags: Train) -> TransformerConfig:
    """The preset with the vocabulary and the length of a puzzle."""
    layout = sudoku_layouts.get(flags.layout)
    fitted = {
        "vocab_size": layout.num_tokens(flags.size),
        "num_extra_tokens": 0,
        "max_length": layout.length(flags.size),
        "causal": isinstance(layout, Triples),
        "shift_logits": isinstance(layout, Masked) and layout.shift_logits,
    }
    chosen = {name: getattr(flags, name) for name in ("dtype", "param_dtype", "remat")}
    chosen |= {} if flags.dropout is None else {"dropout": flags.dropout}
    return TransformerConfig.from_json(presets.get(flags.model).to_json() | fitted | chosen)


def start_params(config: TransformerConfig, layout: Layout, key: Array) -> Params:
    """Fresh parameters; in place, they start from what a Sudoku's cells have to do with each other.

    A cell's position is the sum of orthogonal vectors of its row, its column and its box, and as long as a token's
    vector. In each layer a quarter of the heads, rounded down, begin by attending to the cell's row, as many to its
    column, and as many to its box: with exp(5) times the weight of cells elsewhere.
    """
    params = init_params(config, key)
    if not (isinstance(layout, Masked) and layout.in_place and config.positions == "learned"):
        return params
    size = sudoku.size_of(config.max_length)
    orthogonal = jax.nn.initializers.orthogonal()
    key_units, key_heads = jax.random.split(jax.random.fold_in(key, 1))
    vectors = orthogonal(key_units, (3 * size, config.width))  # of the rows, the columns, the boxes
    length = config.init_std * math.sqrt(config.width / 3)
    table = params["position_embedding"]["embedding"]
    table = (length * vectors[sudoku.units_of_cells(size)].sum(axis=1)).astype(table.dtype)
    params["position_embedding"]["embedding"] = table
    if config.kv_heads != config.num_heads:
        return params
    row_square = config.width / 6  # of a normalised input: half is the token's, a third of the rest the row's
    gain = math.sqrt(5 * math.sqrt(config.head_width) / row_square)
    heads = [unit for unit in range(3) for _ in range(config.num_heads // 4)]
    for layer in range(config.num_layers):
        weights = params[f"layers_{layer}"]["attention"]
        for head, unit in enumerate(heads):
            into = orthogonal(jax.random.fold_in(key_heads, layer * len(heads) + head), (size, config.head_width))
            product = gain * vectors[unit * size : (unit + 1) * size].T @ into
            columns = slice(head * config.head_width, (head + 1) * config.head_width)
            for name in ("query", "key"):
                kernel = weights[name]["kernel"]
                weights[name]["kernel"] = kernel.at[:, columns].set(product.astype(kernel.dtype))
    return params


def train_model(flags: Train, config: TransformerConfig, oracles: Mapping[str, Oracle]) -> tuple[TrainState, Records]:
    """Trains as the flags say, from the newest checkpoint if there is one; the last state and the held-out split."""
    layout = sudoku_layouts.get(flags.layout)
    is_masked = isinstance(layout, Masked)
    if flags.loss != "plain" and not is_masked:
        raise InputError(f"--loss {flags.loss} is for masked models, and --layout {flags.layout} is not: leave it out")
    chosen = {name: getattr(flags, name) for name in ("layout", "loss", "augment")}
    chosen["init_from"] = None if flags.init_from is None else str(flags.init_from)
    run = begin(
        flags,
        config,
        {"name": "sudoku", **data_fields(flags), **chosen},
        out=flags.out,
        scores=[f"solved/{name}" for name in (oracles if is_masked else ["greedy"])],
        init_from=flags.init_from,
    )
    data = load_data(flags)
    test = first(flags.evaluate_limit, data["test"], "--evaluate-limit")
    if isinstance(layout, Triples):
        layout.check(data["train"])
        layout.check(test)

    def solved(model: Model) -> dict[str, float]:
        values = {}
        for name, decode in decoders(model, layout, oracles).items():
            filled = answer(layout, decode, test["puzzle"], mesh=run.mesh)
            values[f"solved/{name}"] = float(sudoku.is_solved(filled.tokens, test["puzzle"]).mean())
        return values

    plain = masked_loss(layout.mask_id) if isinstance(layout, Masked) else causal_loss()
    state = run.train(
        data["train"],
        to_batch=layout.examples,
        loss=LOSSES[flags.loss](layout.mask_id) if isinstance(layout, Masked) else plain,
        plain_loss=plain,
        held_out=layout.examples(test),
        scores=solved,
        init_params=functools.partial(start_params, config, layout),
        augment=sudoku_symmetry.augment if flags.augment else None,
    )
    return state, data["test"]


def sudoku_training(run: pathlib.Path) -> list[dict[str, Any]]:
    """What a run's evaluations found, by the examples it had seen; none where nothing was trained."""
    return training_rows(run, "solved", lambda task: dataset_name(task["size"], task["difficulty"]), method=run.name)


def plot_sudoku_training(path: pathlib.Path, run: pathlib.Path) -> None:
    """Puzzles solved in each order over training."""
    plot_training(path, sudoku_training(run), "solved", y_label="held-out Sudokus solved (%)")


def decoders(model: Model, layout: Layout, oracles: Mapping[str, Oracle]) -> dict[str, Decode]:
    """One for each order, or the greedy one of an autoregressive model, which has no choice."""
    if isinstance(layout, Masked):
        return {name: masked(model.denoiser, model.params, layout, oracle) for name, oracle in oracles.items()}
    return {"greedy": autoregressive(model.config, model.params)}
