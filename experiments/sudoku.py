"""Sudoku: the order in which a masked diffusion model fills in a puzzle decides whether it solves it.

Claim (Kim et al. 2025, Table 2; 9x9, 6M parameters): the model solves 6.88% of the puzzles in random order, 18.51% by
top probability, and 89.49% by the margin between the two likeliest digits. The demo shows this at 6x6 in minutes
on two CPU cores.

    python -m experiments.sudoku demo
    python -m experiments.sudoku prepare --size 9 --num-train 200000
    python -m experiments.sudoku harden --chains 100 --out runs/harder
    python -m experiments.sudoku train --size 9 --num-train 200000 --model sudoku_6m --steps 20000 --out runs/sudoku-9x9
    python -m experiments.sudoku evaluate --checkpoint runs/sudoku-9x9 --oracle random,top_prob,margin
    python -m experiments.sudoku parallel
    python -m experiments.sudoku solve --checkpoint runs/sudoku-9x9 --puzzles FILE
"""

import dataclasses
import pathlib
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

import tyro

from experiments.commands.flags import EvaluateFlags, ExportFlags, PuzzleTrainFlags, Question, SolveFlags, TaskFlags
from experiments.commands.plans import MethodsFlags
from experiments.common import run, say
from experiments.sudoku_flags import Demo, Harden, Parallel, Readings
from mdm_jax.errors import InputError
from mdm_jax.ranges import Range

if TYPE_CHECKING:
    from mdm_jax.loading import Model
    from mdm_jax.models.config import ModelConfig
    from mdm_jax.tasks.base import Layout, Records, Task
    from mdm_jax.tasks.sudoku.task import Sudoku
    from mdm_jax.typing import Array, Params

ORDERS = ("random", "top_prob", "margin", "neg_entropy")
"""The orders that tables compare."""
PAPER = {
    ("arm", "normal", None): 0.0973,
    ("arm_ordered", "normal", None): 0.8718,
    ("arm_ordered", "hard", None): 0.3257,
    ("mdm", "normal", "random"): 0.0688,
    ("mdm", "normal", "top_prob"): 0.1851,
    ("mdm", "normal", "margin"): 0.8949,
    ("mdm", "hard", "random"): 0.0362,
    ("mdm", "hard", "top_prob"): 0.0944,
    ("mdm", "hard", "margin"): 0.4988,
}
"""Tables 2 and 5: share of puzzles solved, by method, set and order."""
SHIPPED = pathlib.Path("sudoku-6m")
"""The shipped weights."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Prepare(TaskFlags):
    """Generate puzzles and write them as a tfds dataset. Training and held-out puzzles never share a solution."""

    experiment: ClassVar[str] = "sudoku"
    size: Annotated[int, Range(4, 9)] = 9
    """rows of a grid: 4, 6 or 9"""
    clues: Annotated[int, Range(0, 81)] | None = None
    """givens per puzzle (None: minimal puzzles, where every given is needed)"""
    difficulty: Literal["normal", "hard"] | None = None
    """normal: only puzzles that seven rules solve without guessing; hard: only the others (None: all)"""
    source: pathlib.Path | None = None
    """take puzzles from this file instead of making them; docs/sudoku.md lists the formats"""
    out: pathlib.Path = pathlib.Path("runs/sudoku-prepare")
    """folder of results.json"""

    def task(self) -> "Sudoku":
        """The puzzles that the flags name."""
        from mdm_jax.tasks.sudoku.task import Sudoku

        return Sudoku(
            size=self.size,
            clues=self.clues,
            difficulty=self.difficulty,
            num_train=self.num_train,
            num_test=self.num_test,
            seed=self.seed,
            source=self.source,
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Train(Prepare, PuzzleTrainFlags):
    """Train a model; the same command again goes on from its newest checkpoint."""

    names: ClassVar[tuple[str, ...]] = (
        *("size", "clues", "difficulty", "num_train", "num_test", "seed", "source"),
        "layout",
    )
    model: str = "sudoku_6m"
    """a preset of mdm_jax.models.presets; its vocabulary and length are fitted to the puzzles"""
    layout: Literal["in-place", "question-answer", "shifted", "triples", "ordered-triples"] = "in-place"
    """how a puzzle becomes a sequence; the model of triples (row, column, digit) is autoregressive"""
    augment: bool = False
    """apply one of the 1.2e12 symmetries of Sudoku to each puzzle, another one in each epoch; below 9x9 the result may
    be a puzzle with a held-out solution"""
    out: pathlib.Path = pathlib.Path("runs/sudoku")
    """folder of the run: checkpoints, metrics, results.json"""

    def recorded(self) -> dict[str, Any]:
        """Also the augmentation, and for puzzles of a file the name of the data, which changes with the file."""
        dataset = {} if self.source is None else {"dataset": self.task().dataset}
        return dataset | {"augment": self.augment} | super().recorded()

    def start_params(self, config: "ModelConfig", layout: "Layout", key: "Array") -> "Params":
        """Initial parameters with rows, columns and boxes built in."""
        from experiments.fresh_params import sudoku_params

        return sudoku_params(config, layout, key)

    def augmentation(self) -> Callable[..., Any] | None:
        """A random symmetry for each puzzle, if the flag is set."""
        from mdm_jax.tasks.sudoku import symmetry

        return symmetry.augment if self.augment else None


def held_out(task: Any, source: pathlib.Path | None, limit: int | None, difficulty: str | None) -> "Records":
    """The first puzzles that a run held out, or as many of another difficulty.

    Args:
      task: the task of the run.
      source: the file that the user names. A file that only a run's config names is not opened.
      limit: the largest number of puzzles; None for all.
      difficulty: the difficulty of the puzzles.
    """
    from mdm_jax.tasks import base

    if source is None and task.source is not None:
        raise InputError(f"the run took its puzzles from {task.source}: to use that file again, give it with --source")
    chosen = dataclasses.replace(task, source=source, difficulty=difficulty)
    return base.held_out(chosen, limit, say=say)


def check_size(checkpoint: pathlib.Path | None, task: Any, size: int | None) -> None:
    """Raises InputError if a model is for grids of another size than `size`; None fits any."""
    if size not in (None, task.size):
        raise InputError(f"{checkpoint} solves {task.size}x{task.size}, not {size}x{size}; give one that does")


@dataclasses.dataclass(frozen=True, kw_only=True)
class GivenFlags:
    """A model, and a file of puzzles for it."""

    experiment: ClassVar[str] = "sudoku"
    checkpoint: pathlib.Path = SHIPPED
    """a run's folder, one of its checkpoints, or the name of shipped weights"""
    size: Annotated[int, Range(4, 9)] | None = None
    """rows of a grid, which the checkpoint must be for (None: any)"""
    puzzles: pathlib.Path | None = None
    """take the puzzles of this file, in any format that docs/sudoku.md lists"""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Evaluate(GivenFlags, EvaluateFlags):
    """Solve held-out puzzles like the run's, or those of a file, and count."""

    source: pathlib.Path | None = None
    """take held-out puzzles from this file; a run that was trained on a file wants it named again"""
    difficulty: str | None = None
    """of held-out puzzles: normal, hard, or both with a comma (None: as in training)"""
    ladder: pathlib.Path | None = None
    """solve the sets that all models are compared on: our normal and hard ones, and the public lists in this folder"""
    out: pathlib.Path = pathlib.Path("runs/sudoku-evaluate")
    """folder of results.json"""

    def about(self, model: "Model", task: Any) -> dict[str, Any]:
        """On the ladder, the puzzles that the model was trained on, and the weights that it began with."""
        if self.ladder is None:
            return {}
        puzzles = model.task.get("dataset", task.title)  # those of a file have no other name
        return {"trained_on": puzzles, "init_from": model.task.get("init_from")}

    def datasets(self, task: Any) -> "dict[str, Records]":
        """The sets of the ladder, the puzzles of a file, or held-out ones like the run's."""
        from mdm_jax.data.difficulty import DIFFICULTIES
        from mdm_jax.tasks.sudoku.files import read_puzzles

        check_size(self.checkpoint, task, self.size)
        if self.ladder is not None:
            from experiments.sudoku_ladder import ladder

            self._check_alone("ladder", "puzzles", "difficulty", "source")
            check_size(self.checkpoint, task, 9)
            return ladder(self.ladder, self.limit)
        if self.puzzles is not None:
            self._check_alone("puzzles", "difficulty", "source")
            found = read_puzzles(self.puzzles, size=task.size, limit=self.limit)
            say(found.how)
            return {self.puzzles.name: {"puzzle": found.puzzles, "solution": found.solutions}}
        sets: dict[str, Records] = {}
        for difficulty in [task.difficulty] if self.difficulty is None else self.difficulty.split(","):
            if difficulty not in (None, *DIFFICULTIES):
                raise InputError(f"unknown difficulty {difficulty!r}; choose from {', '.join(DIFFICULTIES)}")
            title = dataclasses.replace(task, difficulty=difficulty).title
            sets[title] = held_out(task, self.source, self.limit, difficulty)
        return sets

    def _check_alone(self, given: str, *others: str) -> None:
        """Raises InputError if the puzzles are named in another way too."""
        for name in others:
            if getattr(self, name) is not None:
                raise InputError(f"--{given} names the puzzles, and so does --{name}: leave one of them out")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Solve(GivenFlags, SolveFlags):
    """Solve puzzles, and print each grid and the order in which it was filled in."""

    puzzle: Annotated[tuple[str, ...], tyro.conf.Positional] = ()
    """puzzles, row by row, with any of . 0 _ * x for blanks; a grid may stand in quotes, line by line"""
    out: pathlib.Path = pathlib.Path("runs/sudoku-solve")
    """folder of results.json"""

    def questions(self) -> list[Question]:
        """The puzzles, all in one batch."""
        import numpy as np

        from mdm_jax.tasks.sudoku import files
        from mdm_jax.tasks.sudoku import puzzle as sudoku

        if bool(self.puzzle) == (self.puzzles is not None):
            raise InputError("give puzzles either on the command line or in a file with --puzzles")
        if self.puzzles is None:
            parsed = [files.parse_puzzle(text, f"puzzle {i + 1}") for i, text in enumerate(self.puzzle[: self.limit])]
            if len({len(puzzle) for puzzle in parsed}) > 1:
                raise InputError("the puzzles have different sizes; give those of one size")
            puzzles = np.stack(parsed)
        else:
            found = files.read_puzzles(self.puzzles, limit=self.limit)
            say(found.how)
            puzzles = found.puzzles
        records = {"puzzle": puzzles, "solution": sudoku.solve(puzzles)[0]}
        size = sudoku.size_of(puzzles.shape[1])
        if self.size not in (None, size):
            raise InputError(f"the puzzles are {size}x{size}, not --size {self.size}")
        labels = [f"puzzle {i + 1}, " for i in range(len(puzzles))]
        return [Question(f"{size}x{size}", records, "", labels)]

    def check_fit(self, task: "Task", questions: Sequence[Question]) -> None:
        """Raises InputError if the puzzles have another size than the model's."""
        from mdm_jax.tasks.sudoku import puzzle as sudoku

        for question in questions:
            check_size(self.checkpoint, task, sudoku.size_of(question.records["puzzle"].shape[1]))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Reproduce(MethodsFlags):
    """Tables 2 and 5: every method and order on the normal and the hard set; the same command again goes on."""

    experiment: ClassVar[str] = "sudoku"
    table: ClassVar[str] = "experiments.sudoku_tables"
    scale: Literal["smoke", "small", "paper"] = "small"
    """smoke: seconds; small: 6x6 on two CPU cores; paper: 9x9 on an accelerator"""
    checkpoint: pathlib.Path | None = None
    """a trained masked model to use instead of training one"""
    out: pathlib.Path = pathlib.Path("runs/sudoku-reproduce")
    """folder of the runs, units.jsonl, pictures and results.json"""


COMMANDS = {
    "demo": (Demo, "experiments.sudoku_demo:demo"),
    "prepare": (Prepare, "experiments.commands.prepare:prepare"),
    "harden": (Harden, "experiments.sudoku_harden:harden"),
    "train": (Train, "experiments.commands.train:train"),
    "evaluate": (Evaluate, "experiments.commands.evaluate:evaluate"),
    "solve": (Solve, "experiments.commands.solve:solve"),
    "reproduce": (Reproduce, "experiments.commands.reproduce:reproduce"),
    "readings": (Readings, "experiments.decoder_ablation:readings"),
    "parallel": (Parallel, "experiments.sudoku_parallel:parallel"),
    "export": (ExportFlags, "experiments.commands.evaluate:export"),
}

if __name__ == "__main__":
    run("sudoku")
