"""The flags of the Sudoku commands. What they do is imported when one runs, so that `--help` answers at once."""

import dataclasses
import pathlib
from typing import Annotated, Literal

import tyro

from experiments.flags import DecodeFlags, PuzzleRunFlags
from mdm_jax.ranges import INT32, Count, NotNegative, Range


@dataclasses.dataclass(frozen=True, kw_only=True)
class DataFlags:
    """Which puzzles; those to train on and those held out never share a solution."""

    size: Annotated[int, Range(4, 9)] = 9
    """rows of a grid: 4, 6 or 9"""
    clues: Annotated[int, Range(0, 81)] | None = None
    """givens per puzzle (None: minimal puzzles, where every given is needed)"""
    difficulty: Literal["normal", "hard"] | None = None
    """normal: only puzzles that seven rules solve without guessing; hard: only the others"""
    source: pathlib.Path | None = None
    """take puzzles from this file instead of making them; docs/sudoku.md lists the formats"""
    num_train: Annotated[int, Range(1, INT32)] = 100_000
    """puzzles to train on"""
    num_test: Annotated[int, Range(1, 1_000_000)] = 1_000
    """puzzles held out"""
    data: pathlib.Path = pathlib.Path("datasets")
    """folder of prepared data, made once and used again"""
    seed: Annotated[int, Range(0, below=1 << 32)] = 0
    """of the puzzles, the parameters and all draws"""


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
    """held-out puzzles to solve"""
    limit_9x9: Count = 16
    """9x9 puzzles of each set to solve with the weights that come with the package"""
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
class Train(DataFlags, PuzzleRunFlags):
    """Train a model; the same command again goes on from its newest checkpoint."""

    model: str = "sudoku_6m"
    """a preset of mdm_jax.models.presets; its vocabulary and length are fitted to the puzzles"""
    layout: Literal["in-place", "question-answer", "shifted", "triples", "ordered-triples"] = "in-place"
    """how a puzzle becomes a sequence; in triples (row, column, digit) it is learned autoregressively"""
    augment: bool = False
    """turn each puzzle into one of the 1.2e12 that Sudoku's symmetries make of it, anew in each epoch; below 9x9 it may
    become one whose solution is held out"""
    out: pathlib.Path = pathlib.Path("runs/sudoku")
    """folder of the run: checkpoints, metrics, results.json"""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Evaluate(DecodeFlags):
    """Solve held-out puzzles, or those of a file, and count."""

    checkpoint: pathlib.Path = pathlib.Path("sudoku-6m")
    """a run's folder, one of its checkpoints, or the name of shipped weights"""
    size: Annotated[int, Range(4, 9)] | None = None
    """rows of a grid, which the checkpoint must be for (None: whatever it is for)"""
    puzzles: pathlib.Path | None = None
    """a file of puzzles, in any format that docs/sudoku.md lists; None: held-out puzzles like the run's"""
    source: pathlib.Path | None = None
    """the file that the run took its puzzles from, of which those held out are used again"""
    difficulty: str | None = None
    """of held-out puzzles: normal, hard, or both with a comma (None: as in training)"""
    limit: Count | None = None
    """use only the first so many"""
    batch_size: Count = 128
    """puzzles at a time"""
    seed: int = 0
    """of all draws"""
    out: pathlib.Path = pathlib.Path("runs/sudoku-evaluate")
    """folder of results.json"""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Solve(DecodeFlags):
    """Solve puzzles given here or in a file; print each grid and the order in which it was filled in."""

    puzzle: Annotated[tuple[str, ...], tyro.conf.Positional] = ()
    """puzzles, row by row, with any of . 0 _ * x for blanks; a grid may stand in quotes, line by line"""
    checkpoint: pathlib.Path = pathlib.Path("sudoku-6m")
    """a run's folder, one of its checkpoints, or the name of shipped weights"""
    size: Annotated[int, Range(4, 9)] | None = None
    """rows of a grid, which the checkpoint must be for (None: whatever it is for)"""
    puzzles: pathlib.Path | None = None
    """a file of puzzles, in any format that docs/sudoku.md lists"""
    limit: Count | None = None
    """use only the first so many"""
    seed: int = 0
    """of all draws"""
    out: pathlib.Path = pathlib.Path("runs/sudoku-solve")
    """folder of results.json"""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Reproduce:
    """Tables 2 and 5, every method and order on the normal and the hard set, and curves; started again, it goes on."""

    scale: Literal["smoke", "small", "paper"] = "small"
    """smoke: seconds of everything; small: 6x6 on two CPU cores; paper: 9x9 on an accelerator"""
    methods: str = "mdm,arm,arm_ordered"
    """which models, with commas"""
    checkpoint: pathlib.Path | None = None
    """a trained masked model to use instead of training one"""
    limit: Count | None = None
    """use only the first so many held-out puzzles of each set"""
    minutes: Annotated[float, Range(0, 1e6)] | None = None
    """save and stop after this long; the same command goes on"""
    data: pathlib.Path = pathlib.Path("datasets")
    """folder of prepared data, made once and used again"""
    seed: int = 0
    """of the puzzles, the parameters and all draws"""
    out: pathlib.Path = pathlib.Path("runs/sudoku-reproduce")
    """folder of the runs, of what was measured so far, of pictures and results.json"""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Readings:
    """Decode under every reading of what the paper leaves open, and compare with its three numbers."""

    checkpoint: pathlib.Path = pathlib.Path("sudoku-6m")
    """a masked model: a run's folder, one of its checkpoints, or the name of shipped weights"""
    source: pathlib.Path | None = None
    """the file that the run took its puzzles from, of which those held out are used again"""
    num_steps: Count = 35
    """of each decoding; the paper's 50 are for 82 tokens, of which the 57 blanks of a puzzle have 35"""
    noise: NotNegative = 0.5
    """scale of the Gumbel noise on the scores, where there is noise"""
    limit: Count = 200
    """held-out puzzles of the normal set"""
    batch_size: Count = 200
    """puzzles at a time"""
    seed: int = 0
    """of all draws"""
    out: pathlib.Path = pathlib.Path("runs/sudoku-readings")
    """folder of results.json"""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Export:
    """Write a trained model as safetensors, which evaluate, solve and mdm_jax.load read."""

    checkpoint: pathlib.Path
    """a run's folder, or one of its checkpoints"""
    dtype: Literal["bfloat16", "float32"] = "bfloat16"
    """of the parameters in the file"""
    out: pathlib.Path
    """folder to write to"""
    seed: int = 0
    """nothing is drawn"""
