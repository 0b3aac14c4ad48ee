"""The table of order-aligned training: its comparison over seeds, and its parts by the guesses that puzzles need."""

import numpy as np
import pytest

from experiments.aligned_table import by_guesses, compared
from mdm_jax.evaluation.intervals import paired_interval


def test_parts_hold_puzzles_that_need_as_many_guesses_but_for_doublings(monkeypatch):
    needed = np.array([0, 0, 1, 2, 3, 4, 7, 8, 100])
    monkeypatch.setattr("experiments.aligned_table.guesses", lambda puzzles: needed[puzzles])
    is_solved = np.array([1, 1, 1, 1, 0, 1, 0, 0, 0], bool)
    found = {row["guesses"]: (row["n"], row["solved"]) for row in by_guesses(np.arange(9), is_solved)}
    assert found == {
        "0": (2, 1.0),
        "1": (1, 1.0),
        "2 to 3": (2, 0.5),
        "4 to 7": (2, 0.5),
        "8 to 15": (1, 0.0),
        "64 to 127": (1, 0.0),
    }
    parts = by_guesses(np.arange(9), is_solved)
    assert [part["is_solved"] for part in parts] == [[0, 1], [2], [3], [5], [], []]


def test_guesses_are_those_of_our_solver():
    singles = [0 if cell == "." else int(cell) for cell in "1.3434.22.4343.1"]
    [easy] = by_guesses(np.array([singles], np.int8), np.array([True]))
    assert (easy["guesses"], easy["n"], easy["solved"]) == ("0", 1, 1.0)
    [hard] = by_guesses(np.zeros((1, 16), np.int8), np.array([False]))
    assert hard["guesses"] != "0", "an empty grid has many solutions, and takes guesses"


def test_comparison_pairs_seeds_and_puzzles_of_sets_and_of_their_parts():
    way = {"dataset": "hard", "oracle": "margin", "tokens_per_step": 1, "n": 4}
    rows = [
        {**way, "loss": "plain", "repeat": 0, "is_solved": [0, 1]},
        {**way, "loss": "plain", "repeat": 1, "is_solved": [0, 1, 2]},
        {**way, "loss": "aligned", "repeat": 1, "is_solved": [0, 1]},
        {**way, "loss": "aligned", "repeat": 0, "is_solved": [0, 1]},
    ]
    part = {**way, "n": 3, "guesses": "2 to 3"}
    rows += [{**part, "loss": loss, "repeat": i, "is_solved": [2]} for i in (0, 1) for loss in ("plain", "aligned")]
    rows[-1]["is_solved"] = []
    line, of_part = compared(rows)
    assert (of_part["guesses"], of_part["n"]) == ("2 to 3", 3)
    assert (of_part["plain"], of_part["aligned"]) == pytest.approx((1 / 3, 1 / 6))
    assert of_part["puzzles_ci"] == paired_interval([0, 0, -0.5])
    assert (line["plain"], line["aligned"], line["minus_plain"]) == (0.625, 0.5, -0.125)
    low, high = line["minus_plain_ci"]
    assert low + high == pytest.approx(-0.25)
    assert high == pytest.approx(-0.125 + 12.706 * 0.125, rel=1e-3), "Student's t with one degree of freedom"
