"""Compute in depth: the same layers applied several times, beside several calls of a network.

Claim (after R-MDM, arXiv:2606.18022, and chenglou/sudoku-solver): a network whose layers are applied several times
solves more than the same network without loops, trained for as many steps or for as much compute, and more with more
loops. A masked model has a second way to spend compute, more calls that each reveal less. So the table is a surface:
loops by tokens a step, from one trained network, whose number of loops is chosen at inference, beside both networks
without loops. Whether it solves what a network of so many times the parameters solves, the table does not say.

    python -m experiments.loops reproduce --scale smoke
    python -m experiments.loops reproduce
    python -m experiments.loops reproduce --scale paper --minutes 60
"""

import dataclasses
import pathlib
from typing import ClassVar, Literal

from experiments.commands.plans import ReproduceFlags
from experiments.common import run
from mdm_jax.ranges import Count


@dataclasses.dataclass(frozen=True, kw_only=True)
class Reproduce(ReproduceFlags):
    """Train networks with and without loops, and solve held-out Sudokus by each at several numbers of loops."""

    experiment: ClassVar[str] = "loops"
    table: ClassVar[str] = "experiments.loops_table"
    scale: Literal["smoke", "small", "paper"] = "small"
    """smoke: seconds; small: 6x6 on two CPU cores; paper: 9x9 on an accelerator"""
    limit: Count = 500
    """the number of held-out puzzles of each set, from the first"""
    out: pathlib.Path = pathlib.Path("runs/loops")
    """folder of the runs, units.jsonl, the picture and results.json"""


COMMANDS = {"reproduce": (Reproduce, "experiments.commands.reproduce:reproduce")}

if __name__ == "__main__":
    run("loops")
