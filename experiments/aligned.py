"""Order-aligned training beside plain training: what it gains where puzzles are easy, and what it costs where not.

Claim (PUMA, Kim et al. 2026, arXiv:2602.10314): a masked model that is trained on the subsets that its own order leaves
masked learns what inference asks for in fewer steps. Against it (arXiv:2605.29123): training that follows confidence
raises the error on the rarest problems, which random masks do not. Both losses here cost one network call a step, so
equal steps are equal tokens and about equal time. But with the aligned loss a sequence stays for eight steps, so that
it sees an eighth as many different puzzles. The sets: puzzles that seven rules solve, and the others.

    python -m experiments.aligned reproduce --scale smoke
    python -m experiments.aligned reproduce
    python -m experiments.aligned reproduce --scale paper --minutes 60
"""

import dataclasses
import pathlib
from typing import ClassVar, Literal

from experiments.commands.plans import ReproduceFlags
from experiments.common import run
from mdm_jax.ranges import Count


@dataclasses.dataclass(frozen=True, kw_only=True)
class Reproduce(ReproduceFlags):
    """Train by both losses with several seeds, and solve held-out Sudokus of each set."""

    experiment: ClassVar[str] = "aligned"
    table: ClassVar[str] = "experiments.aligned_table"
    scale: Literal["smoke", "small", "paper"] = "small"
    """smoke: seconds; small: 6x6 on two CPU cores; paper: 9x9 on an accelerator"""
    limit: Count = 500
    """the number of held-out puzzles of each set, from the first"""
    out: pathlib.Path = pathlib.Path("runs/aligned")
    """folder of the runs, units.jsonl, the picture and results.json"""


COMMANDS = {"reproduce": (Reproduce, "experiments.commands.reproduce:reproduce")}

if __name__ == "__main__":
    run("aligned")
