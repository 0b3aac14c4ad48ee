"""Sudoku: the order in which a masked diffusion model fills in a puzzle decides whether it solves it.

Claim (Kim et al. 2025, Table 2; 9x9, 6M parameters): solved 6.88% in random order, 18.51% by top probability, 89.49%
by the margin between the two likeliest digits. The demo shows it at 6x6 in about two minutes on two CPU cores.

    python -m experiments.sudoku demo
    python -m experiments.sudoku prepare --size 9 --num-train 200000
    python -m experiments.sudoku train --size 9 --num-train 200000 --model sudoku_6m --steps 20000 --out runs/sudoku-9x9
    python -m experiments.sudoku evaluate --checkpoint runs/sudoku-9x9 --oracle random,top_prob,margin
    python -m experiments.sudoku solve --checkpoint runs/sudoku-9x9 --puzzles FILE
"""

from experiments.common import main
from experiments.sudoku.flags import Demo, Evaluate, Export, Prepare, Readings, Reproduce, Solve, Train

COMMANDS = {
    "demo": (Demo, "experiments.sudoku.demo:demo"),
    "prepare": (Prepare, "experiments.sudoku.data:prepare"),
    "train": (Train, "experiments.sudoku.train:train"),
    "evaluate": (Evaluate, "experiments.sudoku.evaluate:evaluate"),
    "solve": (Solve, "experiments.sudoku.evaluate:solve"),
    "reproduce": (Reproduce, "experiments.sudoku.reproduce:reproduce"),
    "readings": (Readings, "experiments.sudoku.readings:readings"),
    "export": (Export, "experiments.sudoku.evaluate:export"),
}

if __name__ == "__main__":
    main("sudoku", __doc__ or "", COMMANDS)
