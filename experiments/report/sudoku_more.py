"""Tables of RESULTS.md on Sudoku: what each training of the 6M weights gave, the ladder, other measurements."""

from experiments.common import Row
from experiments.measured import interval, percent, rows
from experiments.report.tables import ORDERS, Lines, ours
from mdm_jax.report.plots import words

OTHERS = {
    "sudoku-public": "public test split of Ye et al. 2024, 31 to 36 givens",
    "sudoku-6m-remask": "a decoder that may take tokens back, 35 steps",
    "sudoku-6m-hard-search-1": "search of width 1",
    "sudoku-6m-hard-search-8": "search of width 8",
    "sudoku-6m-hard-8": "8 cells a step",
    "sudoku-6m-hard-leave-one-out": "8 cells a step, corrected by leave-one-out reads",
    "sudoku-blocks-none": "in blocks of 27 cells",
    "sudoku-blocks-prefix": "in blocks, keys and values of earlier blocks kept",
    "sudoku-blocks-dual": "in blocks, all keys and values kept",
    "sudoku-6m-5000-steps": "after 5,000 steps of training",
    "sudoku-6m-long-evaluate": "sudoku-6m-long, trained on 466,000 puzzles more",
    "sudoku-6m-looped-first-hard": "sudoku-6m-looped after training with three loops, four applied, other puzzles",
    "sudoku-6m-looped-first-normal": "sudoku-6m-looped after training with three loops, four applied, other puzzles",
    "sudoku-6m-looped-hard": "sudoku-6m-looped",
    "sudoku-6m-looped-normal": "sudoku-6m-looped",
    "sudoku-6m-looped-settled": "sudoku-6m-looped, threshold 0.99",
    "sudoku-6m-looped-settled-one": "sudoku-6m-looped",
    "sudoku-6m-looped-settled-normal": "sudoku-6m-looped, threshold 0.99",
    "sudoku-6m-looped-one": "sudoku-6m-looped",
    "sudoku-6m-looped-two": "sudoku-6m-looped, two cells a step",
    "sudoku-6m-looped-four": "sudoku-6m-looped, four cells a step",
    "sudoku-6m-looped-eight": "sudoku-6m-looped, eight cells a step",
    "sudoku-6m-looped-symmetric": "sudoku-6m-looped, threshold 0.99, a vote of symmetric forms",
    "sudoku-6m-looped-vote": "sudoku-6m-looped, threshold 0.99, a vote of symmetric forms",
    "sudoku-6m-looped-enough": "sudoku-6m-looped, threshold 0.99, symmetric forms until one fits itself",
    "sudoku-6m-looped-search": "sudoku-6m-looped, threshold 0.99, a checked beam of 8",
    "sudoku-6m-long-one": "sudoku-6m-long",
    "sudoku-6m-long-two": "sudoku-6m-long, two cells a step",
    "sudoku-6m-long-four": "sudoku-6m-long, four cells a step",
    "sudoku-6m-long-eight": "sudoku-6m-long, eight cells a step",
    "sudoku-6m-both-sets": "trained on both sets, 5,000 steps",
    "sudoku-6m-se11-searched": "eight symmetric forms, each by a checked beam of 8, threshold 0.99",
    "sudoku-6m-more-on-hard": "after 1,000 steps more on hard puzzles alone, threshold 0.99",
    "sudoku-6m-ladder-leave-one-out": "the ladder, 8 cells a step, corrected by leave-one-out reads",
    "sudoku-6m-harder": "held-out puzzles of `harden`",
    "sudoku-6m-hard-trained-harder": "the same by sudoku-6m-hard",
    "sudoku-6x6-plain": "6x6, plain loss",
    "sudoku-6x6-skewed": "6x6, skewed loss",
    "sudoku-6x6-reweighted": "6x6, re-weighted loss",
}
"""Further measurements of Sudoku, by their files."""
LADDER = {
    "sudoku-6m-ladder": ("sudoku-6m", "normal puzzles"),
    "sudoku-6m-looped-ladder": ("sudoku-6m-looped, threshold 0.99, until settled", "normal puzzles"),
    "sudoku-6m-hard-trained-ladder": ("sudoku-6m-hard", "hard ones too"),
}
"""The weights that solved the ladder, and what they were trained on, by their files."""
SLICES = (
    ("5,000 steps of 32, normal puzzles", "160,000", ("sudoku-6m-5000-steps",)),
    ("as many, of both sets", "160,000", ("sudoku-6m-both-sets",)),
    ("`sudoku-6m`: on from the first row", "323,000", ("sudoku-6m-evaluate",)),
    ("1,000 steps more, hard puzzles; threshold 0.99", "355,000", ("sudoku-6m-more-on-hard",)),
    ("`sudoku-6m-hard`: from `sudoku-6m`, with puzzles of `harden`", "515,000", ("sudoku-6m-hard-trained-ladder",)),
    ("`sudoku-6m-long`: from `sudoku-6m`, normal puzzles", "789,000", ("sudoku-6m-long-evaluate",)),
    (
        "from there with two, then three loops; four applied",
        "875,000",
        ("sudoku-6m-looped-first-normal", "sudoku-6m-looped-first-hard"),
    ),
    (
        "`sudoku-6m-looped`: with four, puzzles beyond singles; four applied",
        "968,000",
        ("sudoku-6m-looped-normal", "sudoku-6m-looped-hard"),
    ),
    (
        "the same; threshold 0.99, until settled",
        "968,000",
        ("sudoku-6m-looped-settled-normal", "sudoku-6m-looped-settled"),
    ),
)
"""What each training of the 6M weights was, the puzzles seen in all, and the files of what it solves."""


def _passes(row: Row) -> str:
    """Of a looped network, if they were counted; without loops a call is a pass."""
    passes = row.get("passes") if "num_loops" in row else row["nfe"]
    return "" if passes is None else f"{passes:.0f}"


def _depth(row: Row) -> str:
    """How often a looped network applied its layers."""
    if "num_loops" not in row:
        return ""
    forms = f", {row['proposals']} forms" if "proposals" in row else ""
    most = f"{row['num_loops']} loop{'s' * (row['num_loops'] > 1)}"
    if "settled" not in row:
        return f"{forms}, {most}"
    taken = f"{row['loops']:.1f} loops, " if "loops" in row else ""
    return f"{forms}, until settled: {taken}at most {most}"


def sudoku_ladder() -> Lines:
    """What the weights solve of each set of the ladder, one puzzle at a time."""
    lines = [
        {"set": row["dataset"], "weights": weights, "trained on": trained_on}
        | ours(row)
        | {
            "network calls a puzzle": f"{row['nfe']:.1f}",
            "passes of the layers": _passes(row),
            "seconds a puzzle": f"{1 / row['per_second']:.2f}",
        }
        for name, (weights, trained_on) in LADDER.items()
        for row in rows(name)
    ]
    sets = list(dict.fromkeys(line["set"] for line in lines))
    return sorted(lines, key=lambda line: sets.index(line["set"]))


def sudoku_slices() -> Lines:
    """What each training of the 6M weights gave, by margin."""
    lines = []
    for what, seen, names in SLICES:
        line = {"training": what, "puzzles seen in all": seen}
        for dataset in ("normal", "hard"):
            ((name, row),) = ((name, row) for name in names for row in rows(name, dataset=dataset, oracle="margin"))
            solved = f"{percent(row['solved'])} of {row['n']:,}"
            line[dataset] = f"[{solved}](experiments/results/{name}.json) ({interval(row['solved_ci'])})"
        lines.append(line)
    return lines


def sudoku_more() -> Lines:
    """A line for each order and set of OTHERS."""
    return [
        {
            "what": f"[{what}](experiments/results/{name}.json){_depth(row)}",
            "set": row["dataset"],
            "order": words(row["oracle"]),
        }
        | ours(row)
        | {"network calls": f"{row['nfe']:.{int(row['nfe'] < 10)}f}", "passes of the layers": _passes(row)}
        for name, what in OTHERS.items()
        for row in rows(name)
        if row["oracle"] in ORDERS
    ]
