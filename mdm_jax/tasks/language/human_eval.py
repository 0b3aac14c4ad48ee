"""HumanEval: the body of a function from its docstring (Chen et al. 2021), or a piece of it (Bavarian et al. 2022)."""

import dataclasses
import pathlib
from collections.abc import Sequence

from mdm_jax.tasks.language.benchmark import Generative, Hole, Problem, Prompt, Score, read_records
from mdm_jax.tasks.language.sandbox import Limits, run_program

FIELDS = dict.fromkeys(("task_id", "entry_point", "prompt", "canonical_solution", "test"), str)
LIMITS = Limits(seconds=3)
"""Those of the official evaluation."""


@dataclasses.dataclass(frozen=True)
class HumanEval(Generative):
    """The body of a function behind its head and docstring, run with the tests."""

    files: Sequence[str] = ("HumanEval.jsonl.gz", "HumanEval.jsonl")

    def read(self, path: pathlib.Path) -> list[Problem]:
        """The problems."""
        return read_records(path, FIELDS)

    def prompt(self, problem: Problem, shots: Sequence[Problem], num_shots: int) -> Prompt:
        """The head and the docstring."""
        del shots, num_shots
        return str(problem["prompt"])

    def reference(self, problem: Problem) -> str:
        """The author's."""
        return str(problem["canonical_solution"])

    def score(self, problem: Problem, answer: str) -> Score:
        """Whether the tests pass."""
        whole = problem["prompt"] + answer + problem.get("suffix", "")
        verdict = run_program(f"{whole}\n{problem['test']}\ncheck({problem['entry_point']})\n", LIMITS)
        return Score(float(verdict.passed), verdict.why)


@dataclasses.dataclass(frozen=True)
class Infilling(HumanEval):
    """A piece that is missing in the body; its number of tokens is given."""

    def read(self, path: pathlib.Path) -> list[Problem]:
        """The problems."""
        return read_records(path, FIELDS | {"suffix": str})

    def prompt(self, problem: Problem, shots: Sequence[Problem], num_shots: int) -> Prompt:
        """What stands before and behind."""
        del shots, num_shots
        parts = (problem["prompt"], Hole(problem["canonical_solution"]), problem["suffix"])
        return [part for part in parts if part != ""]
