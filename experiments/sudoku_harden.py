"""Writes a file of puzzles that are harder than random ones, for `train --source`."""

import numpy as np

from experiments.common import Results, say_written
from experiments.sudoku_flags import Harden
from mdm_jax.errors import InputError
from mdm_jax.progress import Bar
from mdm_jax.tasks.sudoku.harder import generate_harder


def harden(flags: Harden) -> None:
    """`harden`: puzzles.txt, a puzzle on each line, and a row about them. What is written stays if it is stopped."""
    results, path = Results("sudoku", "harden", out=flags.out, seed=flags.seed), flags.out / "puzzles.txt"
    if path.is_dir():
        raise InputError(f"{path} is a folder: give another --out")
    if path.exists():
        raise InputError(f"{path} has puzzles, which would be lost: give another --out")
    found = []
    with path.open("w") as file, Bar(total=flags.chains, desc="harden", unit="chains") as bar:
        for harder in generate_harder(flags.chains, steps=flags.steps, seed=flags.seed):
            is_wanted = harder.guesses >= flags.least
            file.writelines("".join(map(str, puzzle)) + "\n" for puzzle in harder.puzzles[is_wanted])
            file.flush()
            found.append((harder.guesses[is_wanted], (harder.puzzles[is_wanted] > 0).sum(axis=1)))
            bar.update(harder.chains)
    guesses, givens = (np.concatenate(values) for values in zip(*found, strict=True))
    if not len(guesses):
        path.unlink()
        raise InputError(f"no puzzle needs {flags.least} guesses: lower --least, or raise --steps or --chains")
    spread = {f"guesses_{q}": int(np.percentile(guesses, q)) for q in (10, 50, 90)}
    results.add(n=len(guesses), chains=flags.chains, givens=float(givens.mean()), **spread)
    results.finish()
    say_written(path)
