"""The tables of RESULTS.md about planning: what an order, a schedule, loops and the loss of an order gain or lose."""

from experiments import correction_report
from experiments.aligned_table import compared
from experiments.common import Row
from experiments.measured import interval, percent, rows
from mdm_jax.report.plots import words

NAMES = {"truth": "sees the answers", "learned": "learned"}


def learned_order(name: str, score: str = "solved", unit: str = "cells") -> list[dict[str, str]]:
    """Orders by the number of cells in a step, of a file."""
    return [
        {
            f"{unit} a step": str(row["tokens_per_step"]),
            "order": NAMES.get(row["oracle"]) or words(row["oracle"]),
            score: percent(row[score]),
            "95% interval": interval(row[f"{score}_ci"]),
            **({"all agree, 95% interval": _with_interval(row, "all_agree")} if "all_agree" in row else {}),
            "less the margin": f"{100 * row['minus_margin']:+.1f}" if "minus_margin" in row else "",
            "its 95% interval": interval(row.get("minus_margin_ci")),
        }
        for row in rows(name)
    ]


def _with_interval(row: Row, name: str) -> str:
    return f"{percent(row[name])}, {interval(row[f'{name}_ci'])}"


def schedules() -> list[dict[str, str]]:
    """What a schedule loses, by the theorem and measured."""
    return [
        {
            "network calls": f"{row['nfe']:.0f}",
            "schedule": row["schedule"],
            "theorem (nats)": f"{row['divergence']:.2f}",
            "measured": f"{row['measured']:.2f}",
            "95% interval": " to ".join(f"{end:.2f}" for end in row["measured_ci"]),
            "observations that agree": percent(row["accuracy"]),
            "sequences without a contradiction": percent(row["all_agree"]),
        }
        for row in rows("nae_sat-schedules")
        if row["num_steps"] > 1
    ]


def parallel() -> list[dict[str, str]]:
    """Selectors that reveal several cells a step, on the hard set."""
    return [
        {
            "selector": f"{row['rule']}: {row['selector']}",
            "network calls": f"{row['nfe']:.0f}",
            "solved": percent(row["solved"], 0),
            "95% interval": interval(row["solved_ci"]),
            "dependent pairs together, a puzzle": f"{row['dependent_pairs']:.0f}",
            "in units of a random order": f"{row['relative_dependence']:.2f}",
        }
        for row in rows("sudoku-parallel", dataset="hard")
    ]


def symmetric() -> list[dict[str, str]]:
    """Hard puzzles solved by the vote over symmetric forms, and by the mean of the predictions for them."""
    files = {"a vote": "sudoku-6m-hard-symmetric", "the mean prediction": "sudoku-6m-hard-average"}
    return [
        {
            "forms": str(row["proposals"]),
            "decided by": how,
            "network calls": f"{row['nfe']:.0f}",
            "solved": percent(row["solved"], 0),
            "95% interval": interval(row["solved_ci"]),
        }
        for how, name in files.items()
        for row in rows(name)
    ]


CHECKED = (
    *("threshold", "search-8-threshold", "symmetric-threshold", "symmetric-checked", "enough", "likeliest-checked"),
    *(f"search-{width}-checked" for width in (2, 4, 8, 16)),
)
"""Results on hard puzzles by a threshold on the margin, one puzzle at a time."""


def checked() -> list[dict[str, str]]:
    """Hard puzzles solved with and without a check of the answers, by network calls for a puzzle."""
    found = [row for name in CHECKED for row in rows(f"sudoku-6m-hard-{name}")]
    lines = []
    for row in sorted(found, key=lambda row: row["nfe"]):
        width, forms, check = (row.get(name) for name in ("search_width", "proposals", "check"))
        way = f"beam of {width}" if width else "one answer"
        if forms:
            way = f"{forms} symmetric forms" if row.get("choose") == "symmetric" else f"{forms} answers, noise 0.1"
        if row.get("enough") is not None:
            way = f"up to {forms} symmetric forms"
            check = check * row["check_forms"]
        kept = f"fits itself, {check} calls" if check else "most forms" if forms else "likeliest" if width else ""
        line = {"answers": way, "kept": kept, "network calls": f"{row['nfe']:.0f}"}
        lines.append(line | {"solved": percent(row["solved"], 0), "95% interval": interval(row["solved_ci"])})
    return lines


ENOUGH = {
    "sudoku-6m-enough": "sudoku-6m",
    "sudoku-6m-se11-enough": "sudoku-6m",
    "sudoku-6m-hard-trained-se11": "sudoku-6m-hard",
    "sudoku-6m-hard-trained-se11-more": "sudoku-6m-hard",
    "sudoku-6m-hard-trained-se11-wide": "sudoku-6m-hard",
    "sudoku-6m-hard-trained-se11-wide-more": "sudoku-6m-hard",
    "sudoku-6m-hard-trained-width-16": "sudoku-6m-hard",
    "sudoku-6m-hard-trained-width-64": "sudoku-6m-hard",
}
"""By the name of a file of results the weights."""


def enough() -> list[dict[str, str]]:
    """Puzzles solved by forms until one fits itself, by set."""
    return [
        {
            "weights": weights,
            "puzzles": row["dataset"].removesuffix(".txt").replace("_", " "),
            "number": str(row["n"]),
            "forms at most": str(row["proposals"]),
            "beam of each form": str(row.get("search_width") or ""),
            "solved": percent(row["solved"]),
            "95% interval": interval(row["solved_ci"]),
            "network calls": f"{row['nfe']:,.0f}",
        }
        for name, weights in ENOUGH.items()
        for row in rows(name)
    ]


def correction() -> list[dict[str, str]]:
    """Judges beside decoding that takes nothing back, a line for each training and way: by calls on hard puzzles."""
    lines: dict[tuple[object, ...], dict[str, str]] = {}
    found = correction_report.compared(rows("correction-small"))
    for row in sorted(found, key=lambda row: (row["dataset"], row["nfe"])):  # hard before normal
        key = tuple(row[name] for name in ("loss", "way", "tokens_per_step", "remask_steps"))
        steps = {"cells a step": str(row["tokens_per_step"] or "")}
        line = lines.setdefault(key, {"training": row["loss"], "decoding": row["way"], **steps})
        name = row["dataset"].partition("-")[2]
        line |= {f"{name}: network calls": f"{row['nfe']:.0f}", f"{name}: solved": percent(row["solved"])}
        line |= {f"{name}: 95% interval": interval(row["solved_ci"])}
    return list(lines.values())


def correction_ladder() -> list[dict[str, str]]:
    """The same at 9x9 on the sets of the ladder: the share solved, and the network calls."""
    lines: dict[tuple[object, ...], dict[str, str]] = {}
    for row in correction_report.compared(rows("correction-tuned")):
        key = tuple(row[name] for name in ("loss", "way", "tokens_per_step", "remask_steps"))
        steps = {"cells a step": str(row["tokens_per_step"] or "")}
        line = lines.setdefault(key, {"training": row["loss"], "decoding": row["way"], **steps})
        line[row["dataset"].replace("_", " ")] = f"{percent(row['solved'], 0)} in {row['nfe']:.0f}"
    heads = ["training", "decoding", "cells a step", "normal", "beyond singles", "hard"]
    return [{**{head: line[head] for head in heads}, **line} for line in lines.values()]


def loops() -> list[dict[str, str]]:
    """Puzzles solved by a looped network, and by those without loops: a column for each number of cells a step."""
    lines: dict[tuple[str, int], dict[str, str]] = {}
    for row in rows("loops-small", examples=None):
        network, count, k = row["network"], row["num_loops"], row["tokens_per_step"]
        name = f"{count} loop{'s' * (count > 1)}" if network == "looped" else f"no loops: {network}"
        line = lines.setdefault((network, count), {"network": name})
        line[f"{k} cell{'s' * (k > 1)} a step"] = f"{percent(row['solved'])} ({interval(row['solved_ci'])})"
    return list(lines.values())


def aligned_tail() -> list[dict[str, str]]:
    """Order-aligned beside plain training, by margin: by the guesses that a search needs."""
    lines = [line for line in compared(rows("aligned-small", oracle="margin")) if "guesses" in line]
    return [
        {
            "set": line["dataset"],
            "guesses": line["guesses"],
            "puzzles": f"{line['n']:,}",
            "cells a step": str(line["tokens_per_step"]),
            "plain": percent(line["plain"]),
            "aligned": percent(line["aligned"]),
            "aligned less plain": f"{100 * line['minus_plain']:+.1f}",
            "interval over puzzles": interval(line["puzzles_ci"]),
        }
        for line in sorted(
            lines, key=lambda line: (line["dataset"] != "6x6-normal", len(line["guesses"]), line["guesses"])
        )
    ]


def aligned() -> list[dict[str, str]]:
    """Order-aligned beside plain training."""
    return [
        {
            "set": line["dataset"],
            "order": words(line["oracle"]),
            "cells a step": str(line["tokens_per_step"]),
            "plain": percent(line["plain"]),
            "aligned": percent(line["aligned"]),
            "aligned less plain": f"{100 * line['minus_plain']:+.1f}",
            "interval over puzzles": interval(line["puzzles_ci"]),
            "interval over seeds": interval(line["minus_plain_ci"]),
        }
        for line in compared(rows("aligned-small"))
        if "guesses" not in line
    ]
