"""Everything that this library has to measure on an accelerator, as one command that stops in time.

The slices, in order of worth: right, cost, peers, train, sudoku, sudoku-looped, sudoku-hard, five of nae_sat, zebra,
arm, arm_ordered, load, scaling, text. Each stands by itself, runs in processes of its own with their own limits, and
leaves a file `accelerator-SLICE.json`. A slice is left out where experiments/results or --out holds its file from such
a device, unless --slices names it. What is cut off keeps the rows that it has.

    python -m experiments.accelerator --minutes 15
    python -m experiments.accelerator --minutes 8 --slices right,cost,train --out runs/card
    python -m experiments.accelerator --rehearse
"""

import dataclasses
import pathlib
from typing import Annotated

from experiments.common import run
from mdm_jax.ranges import Range


@dataclasses.dataclass(frozen=True, kw_only=True)
class Measure:
    """Measure the slices that are missing, as many as the time allows."""

    minutes: Annotated[float, Range(above=0, most=1e6)] = 15.0
    """start nothing that does not fit, and stop everything after this long"""
    slices: str | None = None
    """the slices to measure, with commas, in this order (None: all that are missing)"""
    rehearse: bool = False
    """run every command at toy size, on any device, to see that it runs"""
    source: str | None = None
    """the corpus of the slices scaling and text, as for experiments.text (None: they are left out)"""
    ladder: pathlib.Path | None = None
    """folder of the public lists that the slices of Sudoku solve too, as for `sudoku evaluate` (None: none)"""
    out: pathlib.Path = pathlib.Path("runs/accelerator")
    """folder of rows.jsonl, which grows with each command, of a file for each slice, and of the runs and their logs"""


COMMANDS = {"measure": (Measure, "experiments.accelerator_run:measure")}

if __name__ == "__main__":
    run("accelerator")
