"""The tables of RESULTS.md about models of text."""

from collections.abc import Sequence

from experiments.common import Row
from experiments.measured import rows
from experiments.scaling_curves import lowest
from mdm_jax.report.plots import words

Lines = list[dict[str, str]]
WORDS = {"identity": "left to right", "closer": "closer (L/10 swaps)", "all (bound)": "all orders (the bound)"}
PAPER = {"identity": 3.171, "closer": 3.212, "uniform": 3.245}
"""Nats per token of the paper's 170M model, by the order."""


def span(ends: Sequence[float] | None, digits: int = 3) -> str:
    """The ends of an interval; empty for None."""
    return "" if ends is None else f"{ends[0]:.{digits}f} to {ends[1]:.{digits}f}"


def scaling() -> Lines:
    """The lowest loss of each class at each budget, the law, and the difference to the class before it."""
    found = rows("scaling-small")
    laws = {row["learner"]: row for row in found if "exponent" in row}
    gaps = {row["learner"]: row for row in found if "minus" in row}
    lines = []
    for learner, best in lowest([row for row in found if "steps" in row]).items():
        means, law, gap = best.nats.mean(axis=0), laws[learner], gaps.get(learner)
        line = {"class": learner}
        line |= {
            f"{budget:.2g} FLOPs".replace("e+", "e"): f"{x:.3f}" for budget, x in zip(best.budgets, means, strict=True)
        }
        line |= {"b": f"{law['exponent']:.3f}", "95% interval": span(law["exponent_ci"])}
        if gap is not None:
            line |= {"less the class above": f"{gap['nats']:+.3f}", "its 95% interval": span(gap["nats_ci"])}
        lines.append(line)
    return lines


def likelihood() -> Lines:
    """The likelihood of held-out text along each order."""
    return [
        {
            "order": WORDS.get(row["order"]) or str(row["order"]),
            "nats a token": f"{row['nats_per_token']:.3f}",
            "95% interval": span(row["nats_per_token_ci"]),
            "less left to right": f"{row['minus_identity']:+.3f}" if "minus_identity" in row else "",
            "its 95% interval": span(row.get("minus_identity_ci")),
            "paper": str(PAPER.get(row["order"], "")),
            "paper, less left to right": _gap(row["order"]),
        }
        for row in rows("text-likelihood")
    ]


def _gap(order: str) -> str:
    gap = PAPER.get(order, PAPER["identity"]) - PAPER["identity"]
    return f"{gap:+.3f}" if gap else ""


def proxy() -> Lines:
    """A model early in its training against itself at the end."""
    return [
        {
            "order": WORDS.get(row["order"]) or str(row["order"]),
            "nats a token": f"{row['nats_per_token']:.3f}",
            "of the proxy": f"{row['proxy_nats_per_token']:.3f}",
            "squared difference (nats²)": f"{row['squared_error']:.2f}",
            "95% interval": span(row["squared_error_ci"], 2),
        }
        for row in rows("text-likelihood-early")
        if "squared_error" in row
    ]


def genppl() -> Lines:
    """Samples by order and steps, judged."""
    return [_judged(row) for row in rows("text-genppl")]


def _judged(row: Row) -> dict[str, str]:
    budget, width, k = row.get("entropy_budget"), row.get("search_width"), row.get("tokens_per_step")
    how = f"{budget:g} nats" if budget else f"width {width}" if width else f"{k} a step" if k else ""
    how = str(row.get("num_steps", row.get("remask_steps", how)))
    return {
        "order": words(row["order"]),
        "steps": how,
        "calls": f"{row['nfe']:.0f}" if "nfe" in row else "",
        "perplexity": f"{row['perplexity']:.0f}",
        "95% interval": span(row["perplexity_ci"], 0),
        "entropy": f"{row['entropy']:.2f}",
        "its 95% interval": span(row["entropy_ci"], 2),
        "distinct-2": f"{row['distinct_2']:.3f}",
        "repeated": f"{row['repeated']:.3f}",
        "overlap": f"{row['overlap']:.3f}",
    }
