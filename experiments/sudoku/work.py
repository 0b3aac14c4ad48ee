"""What the Sudoku commands do. A blank is the mask token, so that a puzzle is its own `x_init` and its own prompt."""

import dataclasses
import functools
import pathlib
import sys
from collections.abc import Mapping
from typing import Any

import numpy as np

import mdm_jax
from experiments.common import Results
from experiments.sudoku.flags import DataFlags, Evaluate, Prepare, Solve, Train
from mdm_jax.data import builders, pipeline, sudoku, sudoku_files
from mdm_jax.data.sudoku_builder import prepare_sudoku
from mdm_jax.errors import InputError
from mdm_jax.evaluation.puzzles import Filled, fill_in, score
from mdm_jax.loading import Model, run_folder
from mdm_jax.models import presets
from mdm_jax.models.config import TransformerConfig
from mdm_jax.models.transformer import init_params, make_denoiser, num_params
from mdm_jax.sharding import check_batch, local_rows
from mdm_jax.training.config import check_config, read_config, write_config
from mdm_jax.training.distributed import barrier, is_lead
from mdm_jax.training.held_out import held_out_loss
from mdm_jax.training.loop import fit
from mdm_jax.training.state import TrainState
from mdm_jax.training.step import masked_loss
from mdm_jax.typing import Denoiser, Oracle, Params, Selector

BLANK = 0
"""of a puzzle, and the mask token"""
HELD_OUT = "held_out_loss_per_token"


def prepare(flags: Prepare) -> None:
    """`prepare`: the data set on disk."""
    results = Results("sudoku", "prepare", out=flags.out, seed=flags.seed)
    data = load_data(flags)
    for split in ("train", "test"):
        givens = (data[split]["puzzle"] != BLANK).sum(axis=1)
        results.add(dataset=f"{flags.size}x{flags.size}", split=split, n=len(givens), givens=float(givens.mean()))
    results.finish()


def load_data(flags: DataFlags) -> dict[str, dict[str, np.ndarray]]:
    """Both splits in memory, prepared by the first process if they are not yet."""
    say(f"puzzles: {flags.num_train} + {flags.num_test} of {flags.size}x{flags.size} in {flags.data} ...")
    fields = ("size", "clues", "num_train", "num_test", "seed")
    prepare = functools.partial(prepare_sudoku, flags.data, **{name: getattr(flags, name) for name in fields})
    if is_lead():
        prepare()
    barrier("the puzzles are prepared")
    return {split: builders.read_split(prepare(), split) for split in ("train", "test")}


def train(flags: Train) -> None:
    """`train`: a model at any size, preset and budget."""
    results = Results("sudoku", "train", out=flags.out, seed=flags.seed)
    config = model_config(flags)
    oracles = {"random": mdm_jax.oracles.random, "margin": mdm_jax.oracles.margin}
    state, test = train_model(flags, config, oracles)
    model = Model(config, state.best_params, make_denoiser(config))
    puzzles, solutions = (first(flags.evaluate_limit, test[name]) for name in ("puzzle", "solution"))
    for name, oracle in oracles.items():
        add_row(results, model, name, oracle, mdm_jax.PerStep(1), puzzles, solutions, mesh=flags.mesh.make())
    results.finish()


def model_config(flags: Train) -> TransformerConfig:
    """The preset with the vocabulary (blank and digits) and the length of a puzzle."""
    fitted = {"vocab_size": flags.size + 1, "num_extra_tokens": 0, "max_length": flags.size**2, "causal": False}
    chosen = {name: getattr(flags, name) for name in ("dtype", "param_dtype", "remat")}
    return TransformerConfig.from_json(presets.get(flags.model).to_json() | fitted | chosen)


def train_model(
    flags: Train, config: TransformerConfig, oracles: Mapping[str, Oracle]
) -> tuple[TrainState, dict[str, np.ndarray]]:
    """Trains as the flags say, from the newest checkpoint if there is one; the last state and the held-out split."""
    optimizer, loop, mesh = flags.optimizer(), flags.loop(), flags.mesh.make()
    names = [*(f"solved/{name}" for name in oracles), HELD_OUT]
    if loop.best_metric not in (None, *names):
        raise InputError(f"--best-metric {loop.best_metric} is none of the evaluation's: {', '.join(names)}")
    sizes = {name: getattr(flags, name) for name in ("size", "clues", "num_train", "num_test", "seed")}
    task = {"name": "sudoku", "mask_id": BLANK, **sizes}
    run: dict[str, Any] = {"model": config.to_json(), "task": task, "optimizer": dataclasses.asdict(optimizer)}
    run["batch_size"] = loop.batch_size
    check_config(flags.out, run)
    check_batch(loop.batch_size, mesh, parts=loop.accumulate)
    data = load_data(flags)
    test = {name: first(flags.evaluate_limit, rows, "--evaluate-limit") for name, rows in data["test"].items()}
    batches = pipeline.Batches(
        data["train"],
        batch_size=loop.batch_size,
        seed=flags.seed,
        rows=local_rows(mesh, loop.batch_size),
    )
    if is_lead():
        write_config(flags.out, run)
    denoiser, loss = make_denoiser(config, as_features=True), masked_loss(BLANK)
    say(f"{num_params(config):,} parameters, {flags.steps} steps of {flags.batch_size} in {flags.out}")
    nats_per_token = held_out_loss(denoiser, loss, to_batch(test), mesh, batch_size=loop.batch_size)

    def evaluate(params: Params) -> dict[str, float]:
        values = {HELD_OUT: nats_per_token(params)}
        for name, oracle in oracles.items():
            filled = decode(denoiser, params, test["puzzle"], oracle, mdm_jax.PerStep(1), mesh=mesh)
            values[f"solved/{name}"] = float(sudoku.is_solved(filled.tokens, test["puzzle"]).mean())
        return values

    state = fit(
        flags.out,
        apply=denoiser,
        init_params=lambda key: init_params(config, key),
        loss=loss,
        batches=batches,
        to_batch=to_batch,
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


def to_batch(raw: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Solutions to predict, of which the givens are the prompt."""
    return {"tokens": raw["solution"].astype(np.int32), "is_prompt": raw["puzzle"] != BLANK}


def decode(
    denoiser: Denoiser, params: Params, puzzles: np.ndarray, oracle: Oracle, selector: Selector, **options: Any
) -> Filled:
    """The model's answers."""
    return fill_in(denoiser, params, puzzles, mask_id=BLANK, oracle=oracle, selector=selector, **options)


def add_row(
    results: Results,
    model: Model,
    name: str,
    oracle: Oracle,
    selector: Selector,
    puzzles: np.ndarray,
    solutions: np.ndarray,
    *,
    dataset: str | None = None,
    **options: Any,
) -> Filled:
    """Solves the puzzles in one order and adds the row that says how it went."""
    filled = decode(
        model.denoiser, model.params, puzzles, oracle, selector, progress=name if is_lead() else None, **options
    )
    size = sudoku.size_of(puzzles.shape[1])
    results.add(
        method="mdm",
        dataset=dataset or f"{size}x{size}",
        oracle=name,
        selector=repr(selector),
        tokens_per_step=selector.k if isinstance(selector, mdm_jax.PerStep) else None,
        **score(filled, puzzles, solutions, mask_id=BLANK, is_solved=sudoku.is_solved),
    )
    return filled


def evaluate(flags: Evaluate) -> None:
    """`evaluate`: any oracles, any selector, a checkpoint, and puzzles."""
    results = Results("sudoku", "evaluate", out=flags.out, seed=flags.seed)
    oracles, selector = flags.oracles(), flags.selector()
    model, task = load_model(flags.checkpoint, flags.size)
    if flags.puzzles is None:
        keys = ("size", "clues", "seed")
        puzzles, solutions = sudoku.generate(task["num_test"], split="test", **{key: task[key] for key in keys})
        dataset = f"{task['size']}x{task['size']}"
    else:
        found = sudoku_files.read_puzzles(flags.puzzles, size=task["size"])
        puzzles, solutions, dataset = found.puzzles, found.solutions, flags.puzzles.name
    puzzles, solutions = first(flags.limit, puzzles), first(flags.limit, solutions)
    options = decode_options(flags) | {"batch_size": flags.batch_size, "dataset": dataset}
    for name, oracle in oracles.items():
        add_row(results, model, name, oracle, selector, puzzles, solutions, **options)
    results.finish()


def decode_options(flags: Evaluate | Solve) -> dict[str, Any]:
    """Flags that go to `fill_in` as they are."""
    return {"temperature": flags.temperature, "block_length": flags.block_length, "seed": flags.seed}


def first(limit: int | None, rows: np.ndarray, flag: str = "--limit") -> np.ndarray:
    """The first `limit` rows; all if that is None. `flag` is what the message names."""
    if limit is not None and limit < 1:
        raise InputError(f"{flag} must be at least 1, got {limit}")
    return rows[:limit]


def load_model(checkpoint: pathlib.Path, size: int | None) -> tuple[Model, dict[str, Any]]:
    """A trained model, and the puzzles it was trained on; InputError if it is not for grids of `size`."""
    model = mdm_jax.load(checkpoint)
    task = read_config(run_folder(checkpoint)[0]).get("task", {})
    if task.get("name") != "sudoku":
        raise InputError(f"{checkpoint} is a run of {task.get('name', 'another task')}, not of sudoku")
    missing = [name for name in ("size", "clues", "num_test", "seed") if name not in task]
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
    puzzles = first(flags.limit, puzzles)
    solutions = sudoku.solve(puzzles)[0]
    size = sudoku.size_of(puzzles.shape[1])
    if flags.size not in (None, size):
        raise InputError(f"the puzzles are {size}x{size}, not --size {flags.size}")
    model, _ = load_model(flags.checkpoint, size)
    for name, oracle in oracles.items():
        filled = add_row(results, model, name, oracle, selector, puzzles, solutions, **decode_options(flags))
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
