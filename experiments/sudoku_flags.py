"""The flags of the commands that only Sudoku has."""

import dataclasses
import pathlib
from typing import Annotated

from mdm_jax.ranges import INT32, Count, NotNegative, Range, Seed


@dataclasses.dataclass(frozen=True, kw_only=True)
class Demo:
    """Train a small model on 6x6 Sudokus, solve held-out ones in four orders, and 9x9 ones with the shipped weights."""

    steps: Count = 150
    """training steps"""
    batch_size: Count = 128
    """puzzles per training step"""
    num_train: Count = 60_000
    """puzzles to train on"""
    limit: Count = 500
    """number of held-out puzzles to solve"""
    limit_9x9: Count = 16
    """number of 9x9 puzzles of each set to solve with the shipped weights"""
    data: pathlib.Path = pathlib.Path("datasets")
    """folder of prepared data, made once and used again"""
    seed: Seed = 0
    """of the puzzles, the parameters and all draws"""
    out: pathlib.Path = pathlib.Path("runs/sudoku-demo")
    """folder of the run: checkpoints, metrics, pictures, results.json"""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Readings:
    """Decode with every combination of what the paper leaves open, and compare with its three numbers."""

    checkpoint: pathlib.Path = pathlib.Path("sudoku-6m")
    """a masked model: a run's folder, one of its checkpoints, or the name of shipped weights"""
    source: pathlib.Path | None = None
    """the file that the run took its puzzles from, if it took them from one"""
    num_steps: Count = 35
    """steps of a decoding; the paper's 50 steps fill in 82 tokens, and a puzzle has 57 blanks"""
    noise: NotNegative = 0.5
    """scale of the Gumbel noise on the scores"""
    limit: Count = 200
    """number of held-out puzzles of the normal set"""
    batch_size: Count = 200
    """puzzles in a batch"""
    seed: Seed = 0
    """of all draws"""
    out: pathlib.Path = pathlib.Path("runs/sudoku-readings")
    """folder of results.json"""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Parallel:
    """Compare selectors that reveal several cells a step: calls, puzzles solved, dependent cells revealed together."""

    checkpoint: pathlib.Path = pathlib.Path("sudoku-6m")
    """a masked model: a run's folder, one of its checkpoints, or the name of shipped weights"""
    source: pathlib.Path | None = None
    """take held-out puzzles from this file, of the run's difficulty; a run that was trained on a file wants it named"""
    limit: Count = 100
    """number of held-out puzzles of each set"""
    batch_size: Count = 100
    """puzzles in a batch"""
    seed: Seed = 0
    """of all draws"""
    out: pathlib.Path = pathlib.Path("runs/sudoku-parallel")
    """folder of the picture and results.json"""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Harden:
    """Make puzzles that are harder than random ones, to train on: puzzles.txt for train --source."""

    chains: Count = 1000
    """chains of ever harder puzzles; the puzzles of a chain, about ten, share their solution"""
    steps: Count = 2000
    """steps of a chain, each a small change that is kept unless it makes the puzzle easier"""
    least: Annotated[int, Range(0, INT32)] = 0
    """leave out puzzles that need fewer guesses of our solver"""
    seed: Seed = 0
    """of the puzzles"""
    out: pathlib.Path = pathlib.Path("runs/sudoku-harden")
    """folder of puzzles.txt and results.json"""
