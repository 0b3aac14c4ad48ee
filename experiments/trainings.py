"""Trainings of one network on Sudokus that differ in one thing, for tables that compare them."""

import dataclasses
import pathlib
from typing import Any, Literal

from experiments.commands.plans import ReproduceFlags
from experiments.sudoku import Train


@dataclasses.dataclass(frozen=True, kw_only=True)
class Training:
    """The puzzles, the network, and how it is trained."""

    size: int
    clues: int | None
    difficulty: Literal["normal", "hard"] | None
    num_train: int
    num_test: int
    model: str
    steps: int
    batch_size: int
    learning_rate: float
    init_from: str | None = None
    """start from these weights"""

    def flags(self, of: ReproduceFlags, name: str, **changes: Any) -> Train:
        """The flags of one training, in a folder of its own; `changes` replace flags of `train`."""
        steps = changes.get("steps", self.steps)
        options = {field.name: getattr(self, field.name) for field in dataclasses.fields(Training)}
        options["init_from"] = self.init_from and pathlib.Path(self.init_from)
        options |= {"data": of.data, "seed": of.seed, "out": of.out / name.replace(", ", "-").replace(" ", "-")}
        options |= {"dtype": "float32", "optimizer": "muon", "warmup_steps": min(50, self.steps // 4)}
        options |= {"checkpoint_every": max(steps // 6, 1), "evaluate_every": max(steps // 3, 1), "evaluate_limit": 64}
        return Train(**{**options, **changes})
