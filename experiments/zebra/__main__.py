"""Zebra: clues say who lives where; the order in which a model fills in the grid decides whether it is right.

Claim (Kim et al. 2025, Table 3; 3 to 6 houses and attributes): an MDM of 19M parameters solves 76.9% in random order,
98.5% by top probability and 98.3% by the margin; an autoregressive one of 42M 80.31%, and 91.17% if it was shown in
which order to fill in the cells. `reproduce --scale small` shows what order does to each of the three at 3x3 to
4x4, in about half an hour on two CPU cores.

    python -m experiments.zebra solve --riddle fish
    python -m experiments.zebra reproduce --scale small
    python -m experiments.zebra train --num-train 1500000 --steps 100000 --optimizer muon --learning-rate 3e-3
    python -m experiments.zebra evaluate --checkpoint runs/zebra --oracle random,top_prob,margin
    python -m experiments.zebra solve --riddle fish --checkpoint runs/zebra
"""

from experiments.common import main
from experiments.zebra.flags import Evaluate, Prepare, Reproduce, Solve, Train

COMMANDS = {
    "prepare": (Prepare, "experiments.zebra.data:prepare"),
    "train": (Train, "experiments.zebra.train:train"),
    "evaluate": (Evaluate, "experiments.zebra.evaluate:evaluate"),
    "solve": (Solve, "experiments.zebra.solve:solve"),
    "reproduce": (Reproduce, "experiments.zebra.reproduce:reproduce"),
}

if __name__ == "__main__":
    main("zebra", __doc__ or "", COMMANDS)
