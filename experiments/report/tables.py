"""The tables of RESULTS.md and of the README, each made from results files."""

from collections.abc import Mapping, Sequence

from experiments import hardness, nae_sat, sudoku, zebra
from experiments.common import Row
from experiments.decoder_ablation import side_by_side
from experiments.measured import interval, percent, rows, value
from experiments.sudoku_demo import demo_table
from mdm_jax.report.plots import words
from mdm_jax.tasks.language.settings import PAPER as LANGUAGE

Lines = list[dict[str, str]]
"""The rows of a table: a text for each column."""

ORDERS = ("random", "top_prob", "margin")
CONTRADICTS = "≠"
NOISE = {"decoder": "strict", "values": "drawn", "noise": "annealed", "score": "log"}
"""The reading of the paper's decoding whose numbers are nearest to the paper's."""
AT_ONE = {"tokens_per_step": 1, "hardest_rule": None, "examples": None}
"""The rows that hold for all puzzles, one cell per step."""


def _paper(share: float | None) -> str:
    return "" if share is None else percent(share, 2)


def _method(row: Row) -> dict[str, str]:
    method = words(row["method"]).replace("mdm", "masked")
    return {"method": method, "order": words(row["oracle"]) if "oracle" in row else "-"}


def _ours(row: Row) -> dict[str, str]:
    return {"ours": percent(row["solved"]), "95% interval": interval(row["solved_ci"]), "n": f"{row['n']:,}"}


def results() -> Lines:
    """The rows of the README, with one number a cell."""
    normal = {order: sudoku.PAPER["mdm", "normal", order] for order in ORDERS}
    plain = {order: value("sudoku-6m", "solved", dataset="normal", oracle=order, **AT_ONE) for order in ORDERS}
    noisy = value("sudoku-readings", "solved", oracle="top_prob", **NOISE)
    hard = sudoku.PAPER["mdm", "hard", "margin"]
    until, calls = (value("sudoku-6m-enough", field, dataset="hard") for field in ("solved", "nfe"))
    looped, passes = (value("sudoku-6m-looped-settled", field, dataset="hard") for field in ("solved", "passes"))
    by_margin, its_calls = (
        value("sudoku-6m", field, dataset="hard", oracle="margin", **AT_ONE) for field in ("solved", "nfe")
    )
    fewer = f"{calls:.0f} network calls a puzzle, margin {its_calls:.0f}"
    deeper = f"as many parameters; {passes:.0f} passes of the layers, without loops {its_calls:.0f}"
    small = value("zebra-small", "solved", method="mdm", oracle="margin", size=None, examples=None)
    lines = [
        ("9x9 Sudoku, random order", normal["random"], plain["random"], ""),
        ("9x9 Sudoku, top probability", normal["top_prob"], plain["top_prob"], f"{CONTRADICTS} contradicts it"),
        ("9x9 Sudoku, top probability, noise on log scores", normal["top_prob"], noisy, "the likely cause"),
        ("9x9 Sudoku, margin", normal["margin"], plain["margin"], ""),
        ("hard 9x9 Sudoku, margin", hard, by_margin, ""),
        ("the same, layers applied until states settle", None, looped, deeper),
        ("without loops, symmetric forms until one fits itself", None, until, fewer),
        ("Zebra, margin; ours is 3x3 to 4x4 only, 0.8M", zebra.PAPER["mdm", "margin"], small, "falls short"),
    ]
    heads = ("puzzles solved by one masked model", "paper", "ours", "")
    return [
        dict(zip(heads, (what, _paper(paper), percent(ours), note), strict=True)) for what, paper, ours, note in lines
    ]


def demo() -> Lines:
    """What the demo ends with."""
    return [{name: str(cell) for name, cell in line.items()} for line in demo_table(rows("sudoku-demo"))]


def tables_2_and_5() -> Lines:
    """Every method and order on both sets."""
    lines = []
    for (method, dataset, oracle), paper in sudoku.PAPER.items():
        line = {"set": dataset, "method": words(method).replace("mdm", "masked, 6M"), "order": words(oracle or "-")}
        line["paper"] = _paper(paper)
        if method == "mdm":
            (row,) = rows("sudoku-6m", dataset=dataset, oracle=oracle, **AT_ONE)
            line |= _ours(row) | {"": CONTRADICTS if oracle == "top_prob" else ""}
        else:
            line |= {"ours": "not run"}
        lines.append(line)
    return lines


def noise() -> Lines:
    """The paper's line, and the readings that are nearest to it."""
    lines = []
    for reading in side_by_side(rows("sudoku-readings"))[:12]:
        choices = {name: str(reading[name]) for name in ("decoder", "values", "noise", "score")}
        digits = 2 if reading["decoder"] == "paper" else 0
        lines.append(choices | {words(name): percent(reading[name], digits) for name in ORDERS})
    return lines


def sudoku_small() -> Lines:
    """Three methods at 6x6."""
    found = rows("sudoku-small", examples=None, hardest_rule=None)
    one_at_a_time = (row for row in found if row.get("tokens_per_step", 1) == 1)
    return [{"set": row["dataset"], **_method(row), **_ours(row)} for row in one_at_a_time]


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
        | _ours(row)
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
        | _ours(row)
        | {"network calls": f"{row['nfe']:.{int(row['nfe'] < 10)}f}", "passes of the layers": _passes(row)}
        for name, what in OTHERS.items()
        for row in rows(name)
        if row["oracle"] in ORDERS
    ]


def table_1_paper() -> Lines:
    """Table 1 of the paper."""
    return [
        {"N, P": f"{N}, {P}", "vanilla": _paper(row["vanilla"]), "margin": _paper(row["margin"])}
        for (N, P), row in nae_sat.PAPER.items()
    ]


def table_1() -> Lines:
    """The same at a small size, by steps."""
    orders = (*nae_sat.ORDERS, "vanilla")
    return _agreement({order: rows("nae_sat-small", oracle=order, examples=None) for order in orders}, "num_steps")


def exact() -> Lines:
    """With the exact predictor, by tokens per step."""
    return _agreement({order: rows("nae_sat-exact", oracle=order) for order in nae_sat.ORDERS}, "tokens_per_step")


def _agreement(by_order: Mapping[str, Sequence[Row]], field: str) -> Lines:
    unit = field.removeprefix("num_").removeprefix("tokens_").replace("_", " ")
    return [
        {"order": words(order)} | {f"{row[field]} {unit}": percent(row["accuracy"]) for row in own}
        for order, own in by_order.items()
    ]


def table_3() -> Lines:
    """Zebra at a small size, and after a third more steps."""
    lines = []
    for row in rows("zebra-small", examples=None, size=None):
        same = {"method": row["method"], "oracle": row.get("oracle"), "size": None, "examples": None}
        paper = _paper(zebra.PAPER.get((row["method"], row.get("oracle"))))
        longer = percent(value("zebra-small-4000-steps", "solved", **same))
        lines.append({**_method(row), "paper": paper, **_ours(row), "4,000 steps": longer})
    return lines


def zebra_5x5() -> Lines:
    """Zebra at 5x5."""
    return [{"order": words(row["oracle"])} | _ours(row) for row in rows("zebra-5x5")]


def riddle() -> Lines:
    """Einstein's riddle."""
    return [{"order": words(row["oracle"]), "cells right": percent(row["cells"], 0)} for row in rows("zebra-fish")]


def thresholds() -> Lines:
    """Where belief propagation changes."""
    return [
        {"threshold": row["threshold"].replace("_", "-").title(), "unit": "neighbours of a latent"}
        | {"paper": f"{hardness.PAPER[row['threshold']]:g}", "ours": f"{row['neighbours']:.1f}"}
        for row in rows("hardness-small")
        if "threshold" in row
    ]


def overlaps() -> Lines:
    """What it finds from two starts."""
    lines: dict[float, dict[str, str]] = {}
    for row in rows("hardness-small"):
        if "overlap" in row:
            line = lines.setdefault(row["neighbours"], {"neighbours": f"{row['neighbours']:g}"})
            line[f"from a {row['start']} start"] = percent(row["overlap"])
    return list(lines.values())


def imbalance() -> Lines:
    """Errors at latents and observations, at three numbers of masked latents."""
    return [
        {"compared": row["compared"], "latents masked": str(row["masked_latents"])}
        | {kind: f"{row[f'{kind}_error']:.3f}" for kind in ("latents", "observations")}
        for row in rows("imbalance-small")
        if row["masked_latents"] in (1, 6, 11)
    ]


PROTEINS = ("proteins/antiberty", "proteins/antiberty-2-1")
"""Residues recovered: many a step, and few."""


def proteins() -> Lines:
    """Residues recovered."""
    recovered = [row for name in PROTEINS for row in rows(name)]
    return [
        {
            "masked": percent(row["masked"], 0),
            "residues a step": str(row["tokens_per_step"]),
            "order": words(row["oracle"]),
            "recovered": percent(row["recovered"]),
            "95% interval": interval(row["recovered_ci"]),
            "less the random order": f"{100 * row['minus_random']:+.1f}" if "minus_random" in row else "",
            "its 95% interval": interval(row.get("minus_random_ci")),
        }
        for row in sorted(recovered, key=lambda row: (row["masked"], -row["tokens_per_step"]))
    ]


def costs() -> Lines:
    """What choosing costs."""
    return [
        {"order": words(row["oracle"]), "temperature": f"{row['temperature']:g}"}
        | {"ms per network call": f"{row['ms_per_nfe']:.1f}", "over the bare network": f"{100 * row['overhead']:+.1f}%"}
        for row in rows("throughput-6m")
    ]


TORCH = {
    "throughput-6m-torch-bf16": "6M, bfloat16",
    "throughput-6m-torch": "6M, float32",
    "throughput-6m-torch-before": "6M, float32, another CPU, an older version",
    "throughput-170m-torch": "170M, 1,024 tokens, bfloat16",
    "throughput-170m-blocks-torch": "170M, 128 tokens, one sequence, blocks of 32, bfloat16, an Intel CPU",
    "throughput-170m-blocks-dual-torch": "the same with kept keys and values",
    "throughput-vocabulary-torch": "126,464 tokens, float32",
}
"""Comparisons with PyTorch, by their files."""


def torch() -> Lines:
    """How many times as fast as PyTorch."""
    lines = []
    for name, what in TORCH.items():
        for temperature in (0.0, 1.0):
            own = [row for row in rows(name, oracle="margin", temperature=temperature) if "peer" in row]
            head = {"network": f"[{what}](experiments/results/{name}.json)", "temperature": f"{temperature:g}"}
            if own:
                lines.append(head | {row["peer"]: f"{row['ours_is_faster']:.2f}" for row in own})
    return lines


def table_4() -> Lines:
    """The paper's language benchmarks."""
    return [{"benchmark": name} | {words(o): _paper(row[o]) for o in ORDERS} for name, row in LANGUAGE.items()]
