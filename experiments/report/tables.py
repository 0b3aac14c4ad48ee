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


def ours(row: Row) -> dict[str, str]:
    """The columns of what our model solves."""
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
            line |= ours(row) | {"": CONTRADICTS if oracle == "top_prob" else ""}
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
    return [{"set": row["dataset"], **_method(row), **ours(row)} for row in one_at_a_time]


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
        lines.append({**_method(row), "paper": paper, **ours(row), "4,000 steps": longer})
    return lines


def zebra_5x5() -> Lines:
    """Zebra at 5x5."""
    return [{"order": words(row["oracle"])} | ours(row) for row in rows("zebra-5x5")]


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
