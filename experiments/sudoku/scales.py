"""The paper's figures, and how much of everything `reproduce` does at each scale."""

import dataclasses
from typing import Literal

from experiments.puzzles.reproduce import LAYOUTS, MUON, Scale

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

OPTIMIZERS: dict[str, Literal["adamw", "muon"]] = {"mdm": "muon", "arm": "adamw", "arm_ordered": "adamw"}


@dataclasses.dataclass(frozen=True, kw_only=True)
class SudokuScale(Scale):
    """How much of everything."""

    size: int
    tokens_per_step: tuple[int, ...]
    """the last stands for all at once"""
    num_curve: int
    """held-out puzzles behind each point with several tokens per step"""


SCALES = {
    "smoke": SudokuScale(
        size=6,
        num_train=500,
        num_test=8,
        steps={"mdm": 4, "arm": 2, "arm_ordered": 2},
        batch_size=dict.fromkeys(LAYOUTS, 16),
        optimizer=OPTIMIZERS,
        learning_rate=dict.fromkeys(LAYOUTS, 1e-3),
        loss={"mdm": "skewed", "arm": "plain", "arm_ordered": "plain"},
        model=dict.fromkeys(LAYOUTS, "sudoku_800k"),
        tokens_per_step=(1, 36),
        num_curve=8,
    ),
    "small": SudokuScale(
        size=6,
        num_train=60_000,
        num_test=500,
        steps={"mdm": 200, "arm": 1600, "arm_ordered": 1600},
        batch_size={"mdm": 128, "arm": 32, "arm_ordered": 32},
        optimizer=MUON,
        learning_rate=dict.fromkeys(LAYOUTS, 3e-3),
        loss=dict.fromkeys(LAYOUTS, "plain"),
        model=dict.fromkeys(LAYOUTS, "sudoku_800k"),
        tokens_per_step=(1, 2, 3, 5, 36),
        num_curve=500,
    ),
    "paper": SudokuScale(
        size=9,
        num_train=1_800_000,
        num_test=1_000,
        steps={"mdm": 24_000, "arm": 200_000, "arm_ordered": 200_000},
        batch_size={"mdm": 1024, "arm": 256, "arm_ordered": 256},
        optimizer=OPTIMIZERS,
        learning_rate={"mdm": 3e-3, "arm": 2e-4, "arm_ordered": 2e-4},
        loss={"mdm": "skewed", "arm": "plain", "arm_ordered": "plain"},
        model={"mdm": "sudoku_6m_deep", "arm": "arm_42m", "arm_ordered": "arm_42m"},
        tokens_per_step=(1, 2, 3, 4, 6, 8, 12, 81),
        num_curve=300,
    ),
}
