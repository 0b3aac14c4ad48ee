"""The numbers of this device beside those of the CPU.

Claim: the library computes on a GPU or TPU what it computes on the CPU in float32, but for rounding. Logits and
gradients in float32 differ by less than 1e-4, in bfloat16 by less than 3e-2. A row is the same alone, in a batch and
padded. `sample` is the plain loop that a reader would write. The shipped weights solve what they solve on the CPU. A
training step that runs twice gives the same bits. A row that does not hold is an error: exit code 1.

    python -m experiments.parity
    python -m experiments.parity --limit 200
    python -m experiments.parity --scale smoke --out runs/parity-smoke
"""

import dataclasses
import pathlib
from typing import Literal

from experiments.common import run
from mdm_jax.ranges import Count, Seed


@dataclasses.dataclass(frozen=True, kw_only=True)
class Check:
    """Compare this device with the CPU."""

    scale: Literal["smoke", "small"] = "small"
    """smoke: networks of one layer, two puzzles; small: as they are used"""
    limit: Count = 50
    """held-out puzzles that both devices solve by the shipped weights"""
    seed: Seed = 0
    """of parameters, tokens and draws"""
    out: pathlib.Path = pathlib.Path("runs/parity")
    """folder of results.json"""


COMMANDS = {"check": (Check, "experiments.parity_checks:check")}

if __name__ == "__main__":
    run("parity")
