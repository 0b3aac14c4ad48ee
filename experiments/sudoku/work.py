"""What the Sudoku commands do."""

import dataclasses
import functools
import pathlib
import sys
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import numpy as np

import mdm_jax
from experiments.common import Results
from experiments.flags import DecodeFlags
from experiments.sudoku.decode import add_row, answer, autoregressive, masked, order_fields
from experiments.sudoku.flags import DataFlags, Evaluate, Export, Prepare, Solve, Train
from mdm_jax import loading
from mdm_jax.data import builders, pipeline, sudoku, sudoku_files, sudoku_layouts, sudoku_symmetry
from mdm_jax.data.sudoku_builder import prepare_sudoku
from mdm_jax.data.sudoku_layouts import Layout, Masked, Triples
from mdm_jax.data.sudoku_sets import DIFFICULTIES, Records, generate_rated, read_rated
from mdm_jax.errors import InputError
from mdm_jax.evaluation.puzzles import Decode
from mdm_jax.loading import Model, run_folder
from mdm_jax.models import presets
from mdm_jax.models.config import TransformerConfig
from mdm_jax.models.transformer import init_params, make_denoiser, num_params
from mdm_jax.sharding import check_batch, local_rows
from mdm_jax.training.config import check_config, read_config, write_config
from mdm_jax.training.distributed import barrier, is_lead
from mdm_jax.training.held_out import held_out_loss
from mdm_jax.training.loop import fit
from mdm_jax.training.objectives import causal_loss, masked_loss, reweighted_loss
from mdm_jax.training.state import TrainState
from mdm_jax.typing import Array, Oracle, Params, Selector

HELD_OUT = "held_out_loss_per_token"


def prepare(flags: Prepare) -> None:
    """`prepare`: the data set on disk."""
    results = Results("sudoku", "prepare", out=flags.out, seed=flags.seed)
    data = load_data(flags)
    for split in ("train", "test"):
        givens = (data[split]["puzzle"] != 0).sum(axis=1)
        name = dataset_name(flags.size, flags.difficulty)
        by_rules = float((data[split]["order"] >= 0).all(axis=1).mean())
        results.add(dataset=name, split=split, n=len(givens), givens=float(givens.mean()), solved_by_rules=by_rules)
    results.finish()


DATA_FIELDS = ("size", "clues", "difficulty", "num_train", "num_test", "seed", "source")


def data_fields(flags: DataFlags) -> dict[str, Any]:
    """What names a data set."""
    fields = {name: getattr(flags, name) for name in DATA_FIELDS}
    return fields | {"source": None if flags.source is None else str(flags.source)}


def load_data(flags: DataFlags) -> dict[str, Records]:
    """Both splits in memory, prepared by the first process if they are not yet."""
    what = f"{flags.difficulty or ''} {flags.size}x{flags.size}".strip()
    say(f"puzzles: {flags.num_train} + {flags.num_test} of {what} in {flags.data} ...")
    prepare = functools.partial(prepare_sudoku, flags.data, **data_fields(flags))
    if is_lead():
        prepare()
    barrier("the puzzles are prepared")
    return {split: builders.read_split(prepare(), split) for split in ("train", "test")}


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


ORACLES: dict[str, Oracle] = {"random": mdm_jax.oracles.random, "margin": mdm_jax.oracles.margin}
"""Of an evaluation while training."""


def dataset_name(size: int, difficulty: str | None) -> str:
    """What rows call a set of puzzles."""
    return difficulty if difficulty and size == 9 else f"{size}x{size}" + (f"-{difficulty}" if difficulty else "")


def decoders(model: Model, layout: Layout, oracles: Mapping[str, Oracle]) -> dict[str, Decode]:
    """One for each order, or the greedy one of an autoregressive model, which has no choice."""
    if isinstance(layout, Masked):
        return {name: masked(model.denoiser, model.params, layout, oracle) for name, oracle in oracles.items()}
    return {"greedy": autoregressive(model.config, model.params)}


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
    """Fresh parameters. In place, a cell's position starts as the sum of vectors of its row, its column and its box."""
    params = init_params(config, key)
    if isinstance(layout, Masked) and layout.in_place and config.positions == "learned":
        units = sudoku.units_of_cells(sudoku.size_of(config.max_length))
        vectors = config.init_std * jax.random.normal(jax.random.fold_in(key, 1), (int(units.max()) + 1, config.width))
        table = params["position_embedding"]["embedding"]
        params["position_embedding"]["embedding"] = vectors[units].sum(axis=1).astype(table.dtype)
    return params


def train_model(flags: Train, config: TransformerConfig, oracles: Mapping[str, Oracle]) -> tuple[TrainState, Records]:
    """Trains as the flags say, from the newest checkpoint if there is one; the last state and the held-out split."""
    optimizer, loop, mesh, layout = flags.optimizer(), flags.loop(), flags.mesh.make(), sudoku_layouts.get(flags.layout)
    is_masked = isinstance(layout, Masked)
    if flags.loss != "plain" and not is_masked:
        raise InputError(f"--loss {flags.loss} is for masked models, and --layout {flags.layout} is not: leave it out")
    names = [*(f"solved/{name}" for name in (oracles if is_masked else ["greedy"])), HELD_OUT]
    if loop.best_metric not in (None, *names):
        raise InputError(f"--best-metric {loop.best_metric} is none of the evaluation's: {', '.join(names)}")
    chosen = {name: getattr(flags, name) for name in ("layout", "loss", "augment")}
    run: dict[str, Any] = {"model": config.to_json(), "task": {"name": "sudoku", **data_fields(flags), **chosen}}
    run |= {"optimizer": dataclasses.asdict(optimizer), "batch_size": loop.batch_size}
    check_config(flags.out, run)
    check_batch(loop.batch_size, mesh, parts=loop.accumulate)
    data = load_data(flags)
    test = first(flags.evaluate_limit, data["test"], "--evaluate-limit")
    batches = pipeline.Batches(
        data["train"],
        batch_size=loop.batch_size,
        seed=flags.seed,
        rows=local_rows(mesh, loop.batch_size),
        augment=sudoku_symmetry.augment if flags.augment else None,
    )
    if is_lead():
        write_config(flags.out, run)
    denoiser = make_denoiser(config, as_features=True)
    plain = masked_loss(layout.mask_id) if isinstance(layout, Masked) else causal_loss()
    loss = reweighted_loss(layout.mask_id) if isinstance(layout, Masked) and flags.loss == "reweighted" else plain
    say(f"{num_params(config):,} parameters, {flags.steps} steps of {flags.batch_size} in {flags.out}")
    nats_per_token = held_out_loss(denoiser, plain, layout.examples(test), mesh, batch_size=loop.batch_size)

    def evaluate(params: Params) -> dict[str, float]:
        values = {HELD_OUT: nats_per_token(params)}
        for name, decode in decoders(Model(config, params, make_denoiser(config)), layout, oracles).items():
            filled = answer(layout, decode, test["puzzle"], mesh=mesh)
            values[f"solved/{name}"] = float(sudoku.is_solved(filled.tokens, test["puzzle"]).mean())
        return values

    state = fit(
        flags.out,
        apply=denoiser,
        init_params=functools.partial(start_params, config, layout),
        loss=loss,
        batches=batches,
        to_batch=layout.examples,
        optimizer=optimizer,
        loop=loop,
        mesh=mesh,
        evaluate=evaluate,
        flops_per_example=3 * config.forward_flops(config.max_length, num_logits=config.max_length / 2),
    )
    return state, data["test"]


def say(line: str) -> None:
    """A line on stderr, of the first process."""
    if is_lead():
        sys.stderr.write(line + "\n")


def evaluate(flags: Evaluate) -> None:
    """`evaluate`: any oracles, any selector, a checkpoint, and puzzles."""
    results = Results("sudoku", "evaluate", out=flags.out, seed=flags.seed)
    oracles, selector = flags.oracles(), flags.selector()
    model, task = load_model(flags.checkpoint, flags.size)
    layout = sudoku_layouts.get(task["layout"])
    for dataset, records in held_out(flags, task).items():
        for name, decode, fields in asked(flags, model, layout, oracles, selector):
            options = {"batch_size": flags.batch_size, "seed": flags.seed, "progress": f"{dataset} {name}"}
            add_row(results, layout, decode, first(flags.limit, records), {"dataset": dataset, **fields}, **options)
    results.finish()


def held_out(flags: Evaluate, task: Mapping[str, Any]) -> dict[str, Records]:
    """The puzzles that are asked for, by the name of the set: those of a file, or held-out ones like the run's."""
    size = task["size"]
    if flags.puzzles is not None:
        if flags.difficulty is not None:
            raise InputError("--difficulty is for held-out puzzles, and --puzzles gives others: leave one of them out")
        found = sudoku_files.read_puzzles(flags.puzzles, size=size)
        return {flags.puzzles.name: {"puzzle": found.puzzles, "solution": found.solutions}}
    sets: dict[str, Records] = {}
    for difficulty in [task["difficulty"]] if flags.difficulty is None else flags.difficulty.split(","):
        sets[dataset_name(size, difficulty)] = test_set(task, difficulty)
    return sets


def test_set(task: Mapping[str, Any], difficulty: str | None) -> Records:
    """Puzzles of the test side, as many as the run held out."""
    if difficulty not in (None, *DIFFICULTIES):
        raise InputError(f"unknown difficulty {difficulty!r}; choose from {', '.join(DIFFICULTIES)}")
    options = {"size": task["size"], "difficulty": difficulty, "split": "test"}
    if task["source"] is not None:
        return read_rated(task["source"], task["num_test"], **options)
    parts = list(generate_rated(task["num_test"], clues=task["clues"], seed=task["seed"], **options))
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def asked(
    flags: DecodeFlags, model: Model, layout: Layout, oracles: Mapping[str, Oracle], selector: Selector
) -> Iterator[tuple[str, Decode, dict[str, Any]]]:
    """The decoders that the flags ask for: name, decoder, and what a row says of it."""
    if not isinstance(layout, Masked):
        yield "greedy", autoregressive(model.config, model.params, temperature=flags.temperature), {}
        return
    for name, oracle in oracles.items():
        decode = masked(
            model.denoiser,
            model.params,
            layout,
            oracle,
            selector,
            temperature=flags.temperature,
            block_length=flags.block_length,
        )
        yield name, decode, order_fields(name, selector)


def first(limit: int | None, records: Records, flag: str = "--limit") -> Records:
    """The first `limit` records; all if that is None. `flag` is what the message names."""
    if limit is not None and limit < 1:
        raise InputError(f"{flag} must be at least 1, got {limit}")
    return {name: rows[:limit] for name, rows in records.items()}


def load_model(checkpoint: pathlib.Path, size: int | None) -> tuple[Model, dict[str, Any]]:
    """A trained model, and the puzzles it was trained on; InputError if it is not for grids of `size`."""
    model = mdm_jax.load(checkpoint)
    task = read_config(run_folder(checkpoint)[0]).get("task", {})
    if task.get("name") != "sudoku":
        raise InputError(f"{checkpoint} is a run of {task.get('name', 'another task')}, not of sudoku")
    missing = [name for name in (*DATA_FIELDS, "layout") if name not in task]
    if missing:
        raise InputError(f"the config.json of {checkpoint} lacks {', '.join(missing)} in its task; restore it")
    if size not in (None, task["size"]):
        raise InputError(f"{checkpoint} solves {task['size']}x{task['size']}, not {size}x{size}; give one that does")
    return model, task


def solve(flags: Solve) -> None:
    """`solve`: the grids, and the step at which each cell was filled in."""
    results = Results("sudoku", "solve", out=flags.out, seed=flags.seed)
    oracles, selector = flags.oracles(), flags.selector()
    if bool(flags.puzzle) == (flags.puzzles is not None):
        raise InputError("give puzzles either on the command line or in a file with --puzzles")
    if flags.puzzles is None:
        parsed = [sudoku_files.parse_puzzle(text, f"puzzle {i + 1}") for i, text in enumerate(flags.puzzle)]
        if len({len(puzzle) for puzzle in parsed}) > 1:
            raise InputError("the puzzles have different sizes; give those of one size")
        puzzles = np.stack(parsed)
    else:
        puzzles = sudoku_files.read_puzzles(flags.puzzles).puzzles
    records = first(flags.limit, {"puzzle": puzzles, "solution": sudoku.solve(puzzles)[0]})
    puzzles, solutions = records["puzzle"], records["solution"]
    size = sudoku.size_of(puzzles.shape[1])
    if flags.size not in (None, size):
        raise InputError(f"the puzzles are {size}x{size}, not --size {flags.size}")
    model, task = load_model(flags.checkpoint, size)
    layout = sudoku_layouts.get(task["layout"])
    for name, decode, fields in asked(flags, model, layout, oracles, selector):
        row = {"dataset": f"{size}x{size}", **fields}
        filled = add_row(results, layout, decode, records, row, seed=flags.seed)
        solved = sudoku.is_solved(filled.tokens, puzzles)
        for i, (tokens, steps, is_right) in enumerate(zip(filled.tokens, filled.reveal_step, solved, strict=True)):
            wrong = int((tokens != solutions[i]).sum())
            verdict = "solved" if is_right else f"not solved, {wrong} cells wrong"
            sys.stdout.write(f"\npuzzle {i + 1}, order {name}: {verdict}\n")
            sys.stdout.write(sudoku_files.format_grid(tokens, size) + "\n")
            sys.stdout.write(f"filled in at step (. = given):\n{format_steps(steps, size)}\n")
    results.finish()


def format_steps(reveal_step: np.ndarray, size: int) -> str:
    """The step of each cell, from 1, as a grid of numbers."""
    cells = ["." if step < 0 else str(step + 1) for step in reveal_step]
    rows = [cells[i : i + size] for i in range(0, size * size, size)]
    return "\n".join(" ".join(cell.rjust(2) for cell in row) for row in rows)


def export(flags: Export) -> None:
    """`export`: weights and config that need no checkpoint library."""
    path = loading.export(flags.checkpoint, flags.out, dtype=flags.dtype)
    sys.stdout.write(f"{path}: {path.stat().st_size:,} bytes\n")
