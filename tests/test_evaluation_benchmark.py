"""The benchmark of any denoiser: what its rows say. No time is tested."""

import os

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mdm_jax import Features, InputError, PerStep, Threshold, oracles, sample
from mdm_jax.evaluation.benchmark import benchmark, network_calls

LENGTH, VOCAB, MASK = 6, 5, 4


def plain(params, tokens):
    """A network of one table: logits by position, and nothing else."""
    return jnp.broadcast_to(params, (*tokens.shape, VOCAB))


def as_features(params, tokens):
    return Features(jnp.broadcast_to(params, (*tokens.shape, VOCAB)), jnp.eye(VOCAB))


def peaked(key, confidence):
    return confidence.top_prob**2 - confidence.entropy


PARAMS = jnp.asarray(np.random.default_rng(0).normal(0, 3, (LENGTH, VOCAB)), jnp.float32)
X_INIT = np.array([[1, MASK, MASK, MASK, MASK, MASK], [1, 2, MASK, MASK, MASK, MASK]])


@pytest.mark.slow
@pytest.mark.thinned(2)
@pytest.mark.parametrize("denoiser", [plain, as_features])
def test_benchmark_has_a_row_for_every_way_to_sample_in_which_the_numbers_agree(denoiser, monkeypatch):
    monkeypatch.setattr(os, "getloadavg", lambda: (0.0, 0.0, 0.0))
    selectors = {"two": PerStep(2), "sure": Threshold(0.9)}
    rows = benchmark(
        denoiser,
        PARAMS,
        X_INIT,
        mask_id=MASK,
        oracles={"margin": oracles.margin, "mine": peaked},
        selectors=selectors,
        temperatures=(0.0,),
        turns=3,
    )
    assert [(row["oracle"], row["selector"]) for row in rows] == [(o, s) for o in ("margin", "mine") for s in selectors]
    for row in rows:
        oracle = {"margin": oracles.margin, "mine": peaked}[row["oracle"]]
        options = {"oracle": oracle, "selector": selectors[row["selector"]], "temperature": 0.0}
        assert row["nfe"] == sample(denoiser, PARAMS, jax.random.key(0), X_INIT, mask_id=MASK, **options).nfe
        assert (row["batch"], row["length"], row["temperature"]) == (2, LENGTH, 0.0)
        assert row["tokens_per_s"] == pytest.approx(row["sequences_per_s"] * 9 / 2), "given tokens never count"
        assert row["sequences_per_s"] == pytest.approx(2 / (row["nfe"] * row["ms_per_nfe"] / 1000))
        for name in ("overhead", "ms_per_nfe"):
            low, high = row[f"{name}_range"]
            assert low <= row[name] <= high
        assert "warning" not in row


def test_benchmark_on_a_busy_machine_says_so_in_every_row(monkeypatch):
    monkeypatch.setattr(os, "getloadavg", lambda: (os.cpu_count() * 0.6, 0.0, 0.0))
    options = {"oracles": {"margin": oracles.margin}, "temperatures": (0.0,), "turns": 1}
    (row,) = benchmark(plain, PARAMS, X_INIT, mask_id=MASK, **options)
    assert row["warning"].startswith("the machine was busy before: load ")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"x_init": np.zeros((1, LENGTH), int)}, r"x_init holds no mask \(id 4\)"),
        ({"x_init": np.zeros(LENGTH, int)}, "x_init must be tokens"),
        ({"mask_id": -1}, "mask_id must be at least 0"),
        ({"turns": 0}, "turns must be a whole number, at least 1"),
        ({"seed": 2**32}, "seed must be a whole number"),
        ({"temperatures": (0.0, float("nan"))}, "temperature must be at least 0"),
        ({"temperatures": 1.0}, "temperatures must be a sequence"),
        ({"temperatures": ()}, "nothing to measure"),
        ({"oracles": oracles.margin}, "oracles must be a mapping by name"),
        ({"oracles": {"margin": "margin"}}, "oracle must be a function"),
        ({"selectors": PerStep(1)}, "selectors must be a mapping by name"),
        ({"block_length": 0}, "block_length must be"),
        ({"denoiser": lambda params, tokens: tokens}, "the denoiser must give float logits"),
    ],
)
def test_benchmark_refuses_what_it_cannot_measure(options, message):
    given = {"denoiser": plain, "params": PARAMS, "x_init": X_INIT, "mask_id": MASK, **options}
    with pytest.raises(InputError, match=message):
        benchmark(**given)


@pytest.mark.parametrize("denoiser", [plain, as_features])
def test_network_is_called_as_often_as_asked_and_its_logits_are_made(denoiser):
    seen = []

    def counted(params, tokens):
        jax.debug.callback(lambda: seen.append(1))
        return denoiser(params, tokens)

    tokens = jnp.asarray(X_INIT, jnp.int32)
    lowered = jax.jit(lambda params, tokens, count: network_calls(counted, params, tokens, count))
    after = lowered(PARAMS, tokens, 4)
    jax.effects_barrier()
    assert len(seen) == 4
    np.testing.assert_array_equal(after, tokens)
