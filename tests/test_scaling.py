"""The power laws of the scaling study, and the study at the smallest scale."""

import numpy as np
import pytest
from commands import rows, run

from experiments.scaling import LEARNERS
from experiments.scaling_curves import Best, gaps, laws, lowest

BUDGETS = np.array([1e11, 1e12, 1e13])


def curve(scale, exponent, noise=0.0, repeats=3, seed=0):
    """Losses of a power law."""
    spread = np.exp(noise * np.random.default_rng(seed).standard_normal((repeats, len(BUDGETS))))
    return Best(BUDGETS, scale * BUDGETS**-exponent * spread)


def test_lowest_loss_of_all_sizes_counts_in_each_repeat():
    losses = [(1.0, 0, 5.0), (1.0, 0, 4.0), (1.0, 1, 4.5), (2.0, 0, 3.0), (2.0, 1, 3.5), (2.0, 1, 3.6)]
    found = lowest([{"learner": "a", "budget": c, "repeat": r, "nats_per_token": x} for c, r, x in losses])
    assert found["a"].budgets.tolist() == [1, 2]
    assert found["a"].nats.tolist() == [[4.0, 3.0], [4.5, 3.5]]


def test_law_and_factor_of_compute_of_exact_power_laws_are_theirs():
    # 1.1 A C^-b is the loss of A (C / 1.1^(1/b))^-b: so much more compute is needed for an equal loss.
    first, second, far = laws({"first": curve(20, 0.05), "second": curve(22, 0.05), "far": curve(40, 0.05)})
    assert first["exponent"] == pytest.approx(0.05)
    assert second["exponent"] == pytest.approx(0.05)
    assert first["exponent_ci"] == pytest.approx([0.05, 0.05], abs=1e-9)
    assert second["compute"] == pytest.approx(1.1 ** (1 / 0.05), rel=1e-6)
    assert far["compute"] == "over 1,000", "2^20"
    assert "compute" not in first


def test_intervals_hold_the_truth_as_often_as_they_say():
    inside = []
    for seed in range(200):
        first, second = laws({"a": curve(20, 0.05, 0.01, seed=seed), "b": curve(22, 0.05, 0.01, seed=10_000 + seed)})
        inside.append(
            [
                first["exponent_ci"][0] < 0.05 < first["exponent_ci"][1],
                second["compute_ci"][0] < 1.1**20 < second["compute_ci"][1],
            ]
        )
    exponent, compute = np.mean(inside, axis=0)
    assert 0.91 < exponent < 0.99  # 95% within three standard errors of 200 trials
    assert 0.91 < compute < 0.99


def test_intervals_are_of_the_repeats_and_one_repeat_has_none():
    losses = curve(20, 0.05, 0.01)
    bent = Best(BUDGETS, losses.nats * [1.0, 1.2, 1.0])  # no power law, in every repeat alike
    assert np.ptp(laws({"bent": bent})[0]["exponent_ci"]) == pytest.approx(
        np.ptp(laws({"a": losses})[0]["exponent_ci"])
    )
    one = Best(BUDGETS, losses.nats[:1])
    first, second = laws({"first": one, "rising": Best(BUDGETS, one.nats[:, ::-1])})
    assert "exponent_ci" not in first
    assert (second["compute"], "compute_ci" in second) == ("over 1,000", False)


def test_gap_is_the_mean_difference_over_budgets():
    low, high = Best(BUDGETS, np.array([[3.0, 2.0, 1.0], [3.0, 2.0, 1.0]])), Best(BUDGETS, np.full((2, 3), 2.5))
    (row,) = gaps({"low": low, "high": high})
    assert (row["learner"], row["minus"], row["nats"], row["nats_ci"]) == ("high", "low", 0.5, [0.5, 0.5])


@pytest.mark.slow
def test_smoke_trains_every_class_and_goes_on_where_it_was(tmp_path):
    letters = np.random.default_rng(0).choice(list("abc de."), 30_000)
    for name, text in (("train", letters[:24_000]), ("test", letters[24_000:])):
        (tmp_path / f"{name}.txt").write_text("".join(text))
    flags = ["reproduce", "--scale", "smoke", "--source", tmp_path / "train.txt", "--test-source"]
    flags += [tmp_path / "test.txt", "--data", tmp_path / "data", "--out", tmp_path / "out"]
    assert "compute for equal loss" in run("scaling", *flags).stdout
    found = rows(tmp_path / "out")
    trained = [row for row in found if "steps" in row]
    assert len(trained) == len(LEARNERS) * 3 * 2
    for row in trained:
        assert 6 * row["parameters"] * row["tokens"] == pytest.approx(row["budget"], rel=0.4), "whole steps"
    assert {row["learner"] for row in found if "exponent" in row} == set(LEARNERS)
    assert (tmp_path / "out" / "scaling.png").stat().st_size > 5000
    before = (tmp_path / "out" / "units.jsonl").read_text()
    run("scaling", *flags)
    assert (tmp_path / "out" / "units.jsonl").read_text() == before
