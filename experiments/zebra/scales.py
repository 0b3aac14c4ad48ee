"""The paper's figures, and how much of everything `reproduce` does at each scale."""

import dataclasses

from experiments.puzzles.reproduce import LAYOUTS, MUON, Scale
from mdm_jax.tasks.zebra.clues import LARGEST, SMALLEST, Size

PAPER = {
    ("arm", None): 0.8031,
    ("arm_ordered", None): 0.9117,
    ("mdm", "random"): 0.769,
    ("mdm", "top_prob"): 0.985,
    ("mdm", "margin"): 0.983,
}
"""Table 3: share of puzzles solved, by method and order."""
PAPER_SET = "3x3-to-6x6"
"""What the paper's figures are of."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class ZebraScale(Scale):
    """How much of everything."""

    smallest: Size = SMALLEST
    largest: Size


SCALES = {
    "smoke": ZebraScale(
        largest=Size(3, 4),
        num_train=200,
        num_test=8,
        steps={"mdm": 3, "arm": 2, "arm_ordered": 2},
        batch_size=dict.fromkeys(LAYOUTS, 16),
        optimizer=MUON,
        learning_rate=dict.fromkeys(LAYOUTS, 1e-3),
        loss={"mdm": "skewed", "arm": "plain", "arm_ordered": "plain"},
        model=dict.fromkeys(LAYOUTS, "sudoku_800k"),
        num_evaluations=1,
    ),
    "small": ZebraScale(
        largest=Size(4, 4),
        num_train=200_000,
        num_test=500,
        steps=dict.fromkeys(LAYOUTS, 3000),
        batch_size={"mdm": 64, "arm": 32, "arm_ordered": 32},
        optimizer=MUON,
        learning_rate=dict.fromkeys(LAYOUTS, 3e-3),
        loss={"mdm": "skewed", "arm": "plain", "arm_ordered": "plain"},
        model=dict.fromkeys(LAYOUTS, "sudoku_800k"),
        num_evaluations=6,
    ),
    "paper": ZebraScale(
        largest=LARGEST,
        num_train=1_500_000,
        num_test=1_000,
        steps=dict.fromkeys(LAYOUTS, 100_000),
        batch_size={"mdm": 256, "arm": 128, "arm_ordered": 128},
        optimizer={"mdm": "muon", "arm": "adamw", "arm_ordered": "adamw"},
        learning_rate={"mdm": 3e-3, "arm": 2e-4, "arm_ordered": 2e-4},
        loss=dict.fromkeys(LAYOUTS, "plain"),
        model={"mdm": "smdm_19m", "arm": "arm_42m", "arm_ordered": "arm_42m"},
    ),
}
