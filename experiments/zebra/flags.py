"""The flags of the Zebra commands. What they do is imported when one runs, so that `--help` answers at once."""

import dataclasses
import pathlib
from typing import Annotated, Literal

from experiments.flags import DecodeFlags, PuzzleRunFlags
from mdm_jax.ranges import INT32, Count, Range


@dataclasses.dataclass(frozen=True, kw_only=True)
class DataFlags:
    """Which puzzles; no puzzle to train on is one of those held out, nor the same in other names or another order."""

    min_houses: Annotated[int, Range(3, 6)] = 3
    """fewest houses"""
    max_houses: Annotated[int, Range(3, 6)] = 6
    """most houses"""
    min_attributes: Annotated[int, Range(3, 6)] = 3
    """fewest attributes"""
    max_attributes: Annotated[int, Range(3, 6)] = 6
    """most attributes"""
    difficulty: Literal["normal", "hard"] | None = None
    """normal: only puzzles that deduction solves without guessing; hard: only the others"""
    num_train: Annotated[int, Range(1, INT32)] = 100_000
    """puzzles to train on"""
    num_test: Annotated[int, Range(1, 1_000_000)] = 1_000
    """puzzles held out"""
    data: pathlib.Path = pathlib.Path("datasets")
    """folder of prepared data, made once and used again"""
    seed: Annotated[int, Range(0, below=1 << 32)] = 0
    """of the puzzles, the parameters and all draws"""


@dataclasses.dataclass(frozen=True, kw_only=True)
class GivenFlags:
    """Puzzles that are given rather than generated."""

    riddle: str | None = None
    """a famous one by its name: fish"""
    puzzles: tuple[pathlib.Path, ...] = ()
    """files of puzzles, in any format that docs/zebra.md lists"""
    limit: Count | None = None
    """use only the first so many puzzles"""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Prepare(DataFlags):
    """Generate puzzles and write them as a tfds dataset."""

    out: pathlib.Path = pathlib.Path("runs/zebra-prepare")
    """folder of results.json"""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Train(DataFlags, PuzzleRunFlags):
    """Train a model; the same command again goes on from its newest checkpoint."""

    model: str = "smdm_19m"
    """a preset of mdm_jax.models.presets, such as arm_42m or sudoku_800k; vocabulary, length, positions and the size
    of fresh weights are fitted"""
    layout: Literal["in-place", "triples", "ordered-triples"] = "in-place"
    """how a puzzle becomes a sequence; in triples (attribute, value, house) it is learned autoregressively, either
    attribute by attribute or in the order of deduction"""
    out: pathlib.Path = pathlib.Path("runs/zebra")
    """folder of the run: checkpoints, metrics, results.json"""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Evaluate(GivenFlags, DecodeFlags):
    """Solve held-out puzzles like those of the run, or given ones, and count."""

    checkpoint: pathlib.Path
    """a run's folder, or one of its checkpoints"""
    batch_size: Count = 128
    """puzzles at a time"""
    seed: int = 0
    """of all draws"""
    out: pathlib.Path = pathlib.Path("runs/zebra-evaluate")
    """folder of results.json"""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Solve(GivenFlags, DecodeFlags):
    """Print the clues in English, the grid that comes out, and the step at which each cell was filled in."""

    checkpoint: pathlib.Path | None = None
    """a run's folder, or one of its checkpoints (None: no model; the exact solver and deduction answer)"""
    seed: int = 0
    """of all draws"""
    out: pathlib.Path = pathlib.Path("runs/zebra-solve")
    """folder of results.json"""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Reproduce:
    """Table 3, every method and order, over training and by size; started again, it goes on."""

    scale: Literal["smoke", "small", "paper"] = "small"
    """smoke: seconds of everything; small: 3x3 to 4x4 on two CPU cores; paper: 3x3 to 6x6 on an accelerator"""
    methods: str = "mdm,arm,arm_ordered"
    """which models, with commas"""
    limit: Count | None = None
    """use only the first so many held-out puzzles"""
    minutes: Annotated[float, Range(0, 1e6)] | None = None
    """save and stop after this long; the same command goes on"""
    data: pathlib.Path = pathlib.Path("datasets")
    """folder of prepared data, made once and used again"""
    seed: int = 0
    """of the puzzles, the parameters and all draws"""
    out: pathlib.Path = pathlib.Path("runs/zebra-reproduce")
    """folder of the runs, of what was measured so far, of pictures and results.json"""
