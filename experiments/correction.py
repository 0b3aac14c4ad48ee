"""Correction: tokens that are taken back because a judge doubts them, at equal network calls.

Claim (WINO, Feng et al. 2025; PRISM, arXiv:2510.01384; ProSeCo, arXiv:2602.11590): a sampler that reveals several
tokens a step and takes back those that a judge finds wrong solves more than one that commits to each, in the same
number of calls. The judge asks the network with the token masked again (leave-one-out), or asks a network that was
trained on its own answers (`--loss filled`, `--loss quality`). Beside them: no correction, remasking by scores that no
loss trained, and a beam search whose fillings are checked. A training step on own answers calls the network twice, so
the plain loss is trained for twice as many steps.

    python -m experiments.correction reproduce --scale smoke
    python -m experiments.correction reproduce
    python -m experiments.correction reproduce --scale tuned --limit 40 --ladder FOLDER
    python -m experiments.correction reproduce --scale paper --minutes 60
"""

import dataclasses
import pathlib
from typing import ClassVar, Literal

from experiments.commands.plans import ReproduceFlags
from experiments.common import run
from mdm_jax.ranges import Count


@dataclasses.dataclass(frozen=True, kw_only=True)
class Reproduce(ReproduceFlags):
    """Train by each loss with several seeds, and solve held-out Sudokus with and without correction."""

    experiment: ClassVar[str] = "correction"
    table: ClassVar[str] = "experiments.correction_table"
    scale: Literal["smoke", "small", "tuned", "paper"] = "small"
    """smoke: seconds; small: 6x6 from nothing, 0.8M parameters; tuned: 9x9 from the shipped 6M weights, on two CPU
    cores; paper: 9x9 from nothing, on an accelerator"""
    ladder: pathlib.Path | None = None
    """solve the sets of `sudoku evaluate --ladder`, with the public lists in this folder (9x9 only)"""
    limit: Count = 500
    """the number of held-out puzzles of each set, from the first"""
    out: pathlib.Path = pathlib.Path("runs/correction")
    """folder of the runs, units.jsonl, the picture and results.json"""


COMMANDS = {"reproduce": (Reproduce, "experiments.commands.reproduce:reproduce")}

if __name__ == "__main__":
    run("correction")
