"""Zebra: the order in which a model fills in the grid of a logic puzzle decides whether it solves the puzzle.

Claim (Kim et al. 2025, Table 3; 3 to 6 houses and attributes): an MDM of 19M parameters solves 76.9% in random order,
98.5% by top probability and 98.3% by the margin. An autoregressive model of 42M parameters solves 80.31%, and 91.17% if
it was trained with the order in which to fill in the cells. `reproduce --scale small` compares the three models at 3x3
to 4x4 in about half an hour on two CPU cores.

    python -m experiments.zebra solve --riddle fish
    python -m experiments.zebra reproduce --scale small
    python -m experiments.zebra train --num-train 1500000 --steps 100000 --optimizer muon --learning-rate 3e-3
    python -m experiments.zebra evaluate --checkpoint runs/zebra --oracle random,top_prob,margin
    python -m experiments.zebra solve --riddle fish --checkpoint runs/zebra
"""

import dataclasses
import pathlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from experiments.commands.flags import EvaluateFlags, PuzzleTrainFlags, Question, SolveFlags, TaskFlags
from experiments.commands.plans import MethodsFlags
from experiments.common import Row, run
from mdm_jax.ranges import Count, Range

if TYPE_CHECKING:
    from experiments.commands.decode import Decoded
    from mdm_jax.models.config import ModelConfig
    from mdm_jax.tasks.base import Layout, Records, Task
    from mdm_jax.tasks.zebra.task import Zebra
    from mdm_jax.typing import Array, Params

ORDERS = ("random", "top_prob", "margin", "neg_entropy")
"""The orders that tables compare."""
PAPER = {
    ("arm", None): 0.8031,
    ("arm_ordered", None): 0.9117,
    ("mdm", "random"): 0.769,
    ("mdm", "top_prob"): 0.985,
    ("mdm", "margin"): 0.983,
}
"""Table 3: share of puzzles solved, by method and order."""
PAPER_SET = "3x3-to-6x6"
"""The set of the paper's figures."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Prepare(TaskFlags):
    """Generate puzzles and write them as a tfds dataset.

    No held-out puzzle is a training puzzle, nor one with other names or another order of clues.
    """

    experiment: ClassVar[str] = "zebra"
    min_houses: Annotated[int, Range(3, 6)] = 3
    """fewest houses"""
    max_houses: Annotated[int, Range(3, 6)] = 6
    """most houses"""
    min_attributes: Annotated[int, Range(3, 6)] = 3
    """fewest attributes"""
    max_attributes: Annotated[int, Range(3, 6)] = 6
    """most attributes"""
    difficulty: Literal["normal", "hard"] | None = None
    """normal: only puzzles that deduction solves without guessing; hard: only the others (None: all)"""
    out: pathlib.Path = pathlib.Path("runs/zebra-prepare")
    """folder of results.json"""

    def task(self) -> "Zebra":
        """The puzzles that the flags name."""
        from mdm_jax.tasks.zebra.task import Zebra

        return Zebra(
            min_houses=self.min_houses,
            max_houses=self.max_houses,
            min_attributes=self.min_attributes,
            max_attributes=self.max_attributes,
            difficulty=self.difficulty,
            num_train=self.num_train,
            num_test=self.num_test,
            seed=self.seed,
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Train(Prepare, PuzzleTrainFlags):
    """Train a model; the same command again goes on from its newest checkpoint."""

    names: ClassVar[tuple[str, ...]] = (
        *("min_houses", "max_houses", "min_attributes", "max_attributes"),
        *("difficulty", "num_train", "num_test", "seed", "layout"),
    )
    model: str = "smdm_19m"
    """a preset of mdm_jax.models.presets, such as arm_42m or sudoku_800k; vocabulary, length, positions and the scale
    of initial weights are fitted"""
    layout: Literal["in-place", "triples", "ordered-triples"] = "in-place"
    """how a puzzle becomes a sequence; the model of triples (attribute, value, house) is autoregressive, and cells come
    attribute by attribute or in the order of deduction"""
    out: pathlib.Path = pathlib.Path("runs/zebra")
    """folder of the run: checkpoints, metrics, results.json"""

    def fitted(self, config: "ModelConfig") -> "ModelConfig":
        """Sets the standard deviation of initial weights to width^-1/2, which keeps the norm of vectors.

        With 0.02 in layers this narrow, the model takes much longer to learn to read the clues: attention to a clue and
        the use of its content only help together.
        """
        from mdm_jax.models.config import TransformerConfig

        config = super().fitted(config)
        if not isinstance(config, TransformerConfig):
            return config
        return dataclasses.replace(config, init_std=config.width**-0.5)

    def start_params(self, config: "ModelConfig", layout: "Layout", key: "Array") -> "Params":
        """Initial parameters with the attributes and the values of cells built in."""
        from experiments.fresh_params import zebra_params

        return zebra_params(config, layout, key)


@dataclasses.dataclass(frozen=True, kw_only=True)
class GivenFlags:
    """Puzzles that are given rather than generated."""

    riddle: str | None = None
    """a famous puzzle by its name: fish"""
    puzzles: tuple[pathlib.Path, ...] = ()
    """files of puzzles, in any format that docs/zebra.md lists"""
    limit: Count | None = None
    """the number of puzzles, from the first (None: all)"""

    def given(self) -> "dict[str, Records]":
        """The puzzles that the flags name, with their solutions, by riddle or file.

        Raises:
          InputError: as `zebra_given.written`; or a puzzle does not have exactly one solution.
        """
        from experiments.zebra_given import solved, written

        found = written(self.riddle, self.puzzles, self.limit)
        return {name: solved(puzzles) for name, puzzles in found.items()}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Evaluate(GivenFlags, EvaluateFlags):
    """Solve held-out puzzles like those of the run, or given ones, and count."""

    experiment: ClassVar[str] = "zebra"
    out: pathlib.Path = pathlib.Path("runs/zebra-evaluate")
    """folder of results.json"""

    def datasets(self, task: Any) -> "Mapping[str, Records]":
        """Given puzzles, or held-out ones."""
        from experiments.zebra_given import check_fit

        given = self.given()
        check_fit(self.checkpoint, task, given)
        return given or super().datasets(task)

    def paper(self, dataset: str, method: str, oracle: str | None) -> float | None:
        """The figure of Table 3, for the paper's set and decoding one cell at a time without noise."""
        from mdm_jax import PerStep

        is_same = self.selector() == PerStep(1) and self.changed() <= {"oracle", "tokens_per_step"}
        is_same = is_same and not self.proposals
        return PAPER.get((method, oracle)) if is_same and dataset == PAPER_SET else None

    def parts(self, records: "Records", decoded: "Decoded") -> list[Row]:
        """The share solved of each size, if there are several sizes."""
        from experiments.zebra_given import solved_by_size

        rows = solved_by_size(records, decoded)
        return rows if len(rows) > 1 else []


@dataclasses.dataclass(frozen=True, kw_only=True)
class Solve(GivenFlags, SolveFlags):
    """Print the clues in English, the answer, and the step at which each cell was filled in."""

    experiment: ClassVar[str] = "zebra"
    checkpoint: pathlib.Path | None = None
    """a run's folder, or one of its checkpoints (None: no model; the exact solver and deduction answer)"""
    out: pathlib.Path = pathlib.Path("runs/zebra-solve")
    """folder of results.json"""

    def questions(self) -> list[Question]:
        """One question for each puzzle, with its clues and its own names."""
        from experiments.zebra_given import questions, written

        return questions(written(self.riddle, self.puzzles, self.limit))

    def check_fit(self, task: "Task", questions: Sequence[Question]) -> None:
        """Raises InputError if a puzzle is larger than those of the model."""
        from experiments.zebra_given import check_fit

        check_fit(self.checkpoint, task, {question.dataset: question.records for question in questions})


@dataclasses.dataclass(frozen=True, kw_only=True)
class Reproduce(MethodsFlags):
    """Table 3: every method and order, over training and by size; the same command again goes on."""

    experiment: ClassVar[str] = "zebra"
    table: ClassVar[str] = "experiments.zebra_table"
    scale: Literal["smoke", "small", "paper"] = "small"
    """smoke: seconds; small: 3x3 to 4x4 on two CPU cores; paper: 3x3 to 6x6 on an accelerator"""
    out: pathlib.Path = pathlib.Path("runs/zebra-reproduce")
    """folder of the runs, units.jsonl, pictures and results.json"""


COMMANDS = {
    "prepare": (Prepare, "experiments.commands.prepare:prepare"),
    "train": (Train, "experiments.commands.train:train"),
    "evaluate": (Evaluate, "experiments.commands.evaluate:evaluate"),
    "solve": (Solve, "experiments.zebra_given:solve"),
    "reproduce": (Reproduce, "experiments.commands.reproduce:reproduce"),
}

if __name__ == "__main__":
    run("zebra")
