"""The flags of the Sudoku commands. What they do is imported when one runs, so that `--help` answers at once."""

import dataclasses
import pathlib
from typing import Annotated

import tyro

from experiments.flags import DecodeFlags, RunFlags


@dataclasses.dataclass(frozen=True, kw_only=True)
class DataFlags:
    """Which puzzles; train and test never share a solution."""

    size: int = 9
    """rows of a grid: 4, 6 or 9"""
    clues: int | None = None
    """givens per puzzle (None: minimal puzzles, where every given is needed)"""
    num_train: int = 100_000
    """puzzles to train on"""
    num_test: int = 1_000
    """puzzles held out"""
    data: pathlib.Path = pathlib.Path("datasets")
    """folder of prepared data, made once and used again"""
    seed: int = 0
    """of the puzzles, the parameters and all draws"""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Demo:
    """Train a small model on 6x6 Sudokus and solve held-out ones in four orders, from the same weights."""

    steps: int = 450
    """training steps"""
    batch_size: int = 128
    """puzzles per training step"""
    num_train: int = 60_000
    """puzzles to train on"""
    limit: int = 500
    """held-out puzzles to solve"""
    data: pathlib.Path = pathlib.Path("datasets")
    """folder of prepared data, made once and used again"""
    seed: int = 0
    """of the puzzles, the parameters and all draws"""
    out: pathlib.Path = pathlib.Path("runs/sudoku-demo")
    """folder of the run: checkpoints, metrics, pictures, results.json"""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Prepare(DataFlags):
    """Generate puzzles and write them as a tfds dataset."""

    out: pathlib.Path = pathlib.Path("runs/sudoku-prepare")
    """folder of results.json"""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Train(DataFlags, RunFlags):
    """Train a model; the same command again goes on from its newest checkpoint."""

    model: str = "sudoku_6m"
    """a preset of mdm_jax.models.presets; its vocabulary and length are fitted to the puzzles"""
    evaluate_limit: int = 128
    """held-out puzzles in an evaluation, which gives solved/random, solved/margin and held_out_loss_per_token"""
    out: pathlib.Path = pathlib.Path("runs/sudoku")
    """folder of the run: checkpoints, metrics, results.json"""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Evaluate(DecodeFlags):
    """Solve held-out puzzles, or those of a file, and count."""

    checkpoint: pathlib.Path
    """a run's folder, or one of its checkpoints"""
    size: int | None = None
    """rows of a grid, which the checkpoint must be for (None: whatever it is for)"""
    puzzles: pathlib.Path | None = None
    """a file of puzzles (CSV with quizzes,solutions, or one per line); None: the run's held-out puzzles"""
    limit: int | None = None
    """use only the first so many"""
    batch_size: int = 128
    """puzzles at a time"""
    seed: int = 0
    """of all draws"""
    out: pathlib.Path = pathlib.Path("runs/sudoku-evaluate")
    """folder of results.json"""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Solve(DecodeFlags):
    """Solve puzzles given here or in a file; print each grid and the order in which it was filled in."""

    puzzle: Annotated[tuple[str, ...], tyro.conf.Positional] = ()
    """puzzles, row by row, with 0 or . for blanks"""
    checkpoint: pathlib.Path
    """a run's folder, or one of its checkpoints"""
    size: int | None = None
    """rows of a grid, which the checkpoint must be for (None: whatever it is for)"""
    puzzles: pathlib.Path | None = None
    """a file of puzzles (CSV with quizzes,solutions, or one per line)"""
    limit: int | None = None
    """use only the first so many"""
    seed: int = 0
    """of all draws"""
    out: pathlib.Path = pathlib.Path("runs/sudoku-solve")
    """folder of results.json"""
