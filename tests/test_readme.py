"""Every share and every ratio in the README's prose comes from a results file or is the paper's."""

import pathlib
import re

import pytest

from experiments import sudoku
from experiments.measured import duration, percent, record, rows, value
from experiments.report.tables import AT_ONE, NOISE

README = (pathlib.Path(__file__).parents[1] / "README.md").read_text()


def shipped(order):
    return value("sudoku-6m", "solved", dataset="normal", oracle=order, **AT_ONE)


def noisy(order):
    return value("sudoku-readings", "solved", oracle=order, **NOISE)


def times_as_fast(name):
    where = {"peer": "torch compiled, float32", "oracle": "margin", "temperature": 0.0}
    return f"{value(name, 'ours_is_faster', **where):.2f} times"


HARDEST = "sudoku-6m-hard-trained-se11-wide", "sudoku-6m-hard-trained-se11-wide-more"


def solved_of(*names, **where):
    found = [row for name in names for row in rows(name, **where)]
    assert len(found) == len(names)
    return f"{round(sum(row['solved'] * row['n'] for row in found))} of {sum(row['n'] for row in found)}"


def small(method):
    return percent(value("sudoku-small", "solved", method=method, dataset="6x6-normal", examples=None))


CLAIMS = {
    "the paper, top probability": percent(sudoku.PAPER["mdm", "normal", "top_prob"], 2),
    "the paper, margin": percent(sudoku.PAPER["mdm", "normal", "margin"], 2),
    "ours, margin": percent(shipped("margin")),
    "ours, top probability": percent(shipped("top_prob")),
    "noise, top probability": percent(noisy("top_prob"), 0),
    "noise, margin": percent(noisy("margin"), 0),
    "the demo's time": f"{duration(record('sudoku-demo')['seconds'])} when",
    "the highest cost of an order": percent(max(row["overhead"] for row in rows("throughput-6m"))),
    "autoregressive, no order": f"{small('arm')} without it",
    "autoregressive, the rules' order": f"{small('arm_ordered')} with",
    "forms until one fits itself": f"solve {solved_of('sudoku-6m-enough', dataset='hard')} hard",
    "loops": f"{percent(value('sudoku-6m-looped-settled', 'solved', dataset='hard', oracle='margin'))} of the hard set",
    "the hardest list": f"solves {solved_of(*HARDEST)}, each",
    "PyTorch, 6M": f"{times_as_fast('throughput-6m-torch-bf16')} as fast at 6M parameters in bfloat16",
    "PyTorch, 170M": f"{times_as_fast('throughput-170m-torch')} at 170M",
    "PyTorch, older": f"{times_as_fast('throughput-6m-torch-before')} with an older version",
}
AIMS = {"1.2"}
"""Numbers that are not measured."""


def prose():
    """The README without code, tables, addresses, and versions of Python."""
    text = re.sub(r"```.*?```|<!-- table.*?<!-- end -->|`[^`]*`", " ", README, flags=re.DOTALL)
    text = re.sub(r"\]\([^)]*\)|arXiv:\S+|Python \d\.\d+|Apache-2\.0", " ", text)
    return " ".join(text.split())


@pytest.mark.parametrize("claim", CLAIMS)
def test_claim_is_in_the_readme_as_it_was_measured(claim):
    assert CLAIMS[claim] in prose()


def test_every_share_and_ratio_is_one_of_the_claims():
    known = " ".join(CLAIMS.values())
    found = set(re.findall(r"\d+(?:\.\d+)?%|\d+\.\d+", prose()))
    assert found - AIMS <= set(re.findall(r"\d+(?:\.\d+)?%|\d+\.\d+", known))


def test_orders_of_the_library_are_as_many_as_the_comparison_says():
    from mdm_jax.oracles import ORACLES

    assert f"| {len(ORACLES)} and your own function" in README


def test_citation_has_the_version_and_the_paper():
    import mdm_jax

    citation = (pathlib.Path(__file__).parents[1] / "CITATION.cff").read_text()
    assert f"version: {mdm_jax.__version__}\n" in citation
    assert f"version = {{{mdm_jax.__version__}}}" in README
    assert "arxiv.org/abs/2502.06768" in citation
