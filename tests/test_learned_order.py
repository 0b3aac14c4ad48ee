"""A head that ranks masked positions: its loss, what it learns, and the command that compares its order."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from commands import assert_refused, rows, run

import mdm_jax
from mdm_jax import oracles
from mdm_jax.errors import InputError
from mdm_jax.training.learned_order import LearnedOrder, fit_order, ranking_loss, tune_denoiser

MASK, L = 4, 8


@dataclasses.dataclass(frozen=True)
class Half:
    """A network that knows the truth, 1, at the positions whose hidden state says so, and is as sure of 2 elsewhere."""

    def features(self, params, tokens, is_read=None):
        del is_read
        knows = jnp.broadcast_to(params, tokens.shape)
        return mdm_jax.Features(jnp.stack([knows, 1 - knows], axis=-1), jnp.array([[-5.0, 5, -5, -5], [-5, -5, 5, -5]]))

    def __call__(self, params, tokens):
        hidden, head = self.features(params, tokens)
        return hidden @ head


KNOWS = jnp.array([0.0, 1, 0, 1, 1, 0, 0, 1])
EXAMPLES = {"tokens": np.ones((6, L), np.int32), "is_prompt": np.zeros((6, L), bool)}


def test_loss_is_least_for_the_scores_that_it_ranks_by_and_nothing_without_masks():
    log_p = jnp.log(jnp.array([[0.9, 0.05, 0.5, 0.2], [0.1, 0.2, 0.3, 0.4]]))
    is_masked = jnp.array([[True, True, False, True], [False] * 4])
    shares = np.exp(np.array(log_p[0])[[0, 1, 3]])
    shares /= shares.sum()
    least = ranking_loss(log_p, log_p, is_masked)
    np.testing.assert_allclose(least, [-(shares * np.log(shares)).sum(), 0], rtol=1e-6)  # float32
    for i in range(4):
        assert (ranking_loss(log_p.at[0, i].add(0.5), log_p, is_masked)[0] > least[0]) == bool(is_masked[0, i])
    assert jnp.isfinite(jax.grad(lambda scores: ranking_loss(scores, log_p, is_masked).sum())(log_p)).all()


def test_head_learns_where_the_network_is_right_though_it_is_as_sure_elsewhere():
    learned, losses = fit_order(Half(), KNOWS, EXAMPLES, mask_id=MASK, num_steps=60, batch_size=4, learning_rate=0.3)
    assert losses[-5:].mean() < 0.1 * losses[:5].mean()
    found = mdm_jax.sample(
        Half(), KNOWS, jax.random.key(0), jnp.full((2, L), MASK), mask_id=MASK, oracle=learned, temperature=0.0
    )
    np.testing.assert_array_equal(np.argsort(found.reveal_step[0])[:4], np.flatnonzero(KNOWS))
    with pytest.raises(InputError, match="must give Features"):
        fit_order(lambda params, tokens: Half()(params, tokens), KNOWS, EXAMPLES, mask_id=MASK)


class Unsure(Half):
    """Its hidden state is its logits: sure and wrong, or where the parameters say so, unsure and right."""

    def features(self, params, tokens, is_read=None):
        del is_read
        logits = jnp.where(params[:, None] > 0, jnp.array([[0.0, 0.5, 0, 0]]), jnp.array([[-5.0, -5, 5, -5]]))
        return mdm_jax.Features(jnp.broadcast_to(logits[None], (*tokens.shape, 4)), jnp.eye(4))


@pytest.mark.slow
def test_head_begins_as_the_margin_and_learns_from_the_confidence_alone():
    first, learned = (
        fit_order(Unsure(), KNOWS, EXAMPLES, mask_id=MASK, num_steps=n, batch_size=4, learning_rate=rate)[0]
        for n, rate in ((1, 1e-9), (60, 0.3))
    )
    only = dataclasses.replace(learned, kernel=jnp.zeros_like(learned.kernel))
    margin, begun, unsure = (
        mdm_jax.sample(
            Unsure(), KNOWS, jax.random.key(0), jnp.full((1, L), MASK), mask_id=MASK, oracle=oracle, temperature=0.0
        ).reveal_step[0]
        for oracle in (mdm_jax.oracles.margin, first, only)
    )
    np.testing.assert_array_equal(begun, margin)
    np.testing.assert_array_equal(np.sort(np.argsort(margin)[:4]), np.flatnonzero(KNOWS == 0))
    np.testing.assert_array_equal(np.sort(np.argsort(unsure)[:4]), np.flatnonzero(KNOWS))


class PerPlace:
    """Its parameters, [L], are the logits of the truth, 1, beside a 0 at 0; nothing else can be."""

    def features(self, params, tokens, is_read=None):
        del is_read
        never = jnp.full_like(params, -99.0)
        hidden = jnp.stack([0 * params, params, never, never], axis=-1)
        return mdm_jax.Features(jnp.broadcast_to(hidden[None], (*tokens.shape, 4)), jnp.eye(4))

    def __call__(self, params, tokens):
        hidden, head = self.features(params, tokens)
        return hidden @ head


def test_network_is_trained_where_the_order_leaves_masks_and_the_given_parameters_stay():
    params, options = jnp.full(L, -1.0), {"mask_id": MASK, "num_steps": 12, "batch_size": 4, "learning_rate": 0.01}
    one_by_one = LearnedOrder(jnp.array([0.0, 0, 0, 0]), jnp.zeros(3))  # ties go to the lowest index
    tuned = {}
    for name, oracle in (("forwards", one_by_one), ("backwards", lambda key, c: jnp.arange(L)[None] + 0 * c.top_prob)):
        tuned[name], losses = tune_denoiser(PerPlace(), params, oracle, EXAMPLES, **options)
        assert losses[0] == pytest.approx(np.log(1 + np.e), rel=1e-5), "softplus(1), for each token"
    np.testing.assert_array_equal(params, -1.0)
    assert tuned["forwards"][-1] > tuned["forwards"][0]
    assert tuned["backwards"][0] > tuned["backwards"][-1]
    with pytest.raises(InputError, match="must give Features"):
        tune_denoiser(lambda params, tokens: PerPlace()(params, tokens), params, one_by_one, EXAMPLES, **options)


@pytest.mark.slow
def test_command_compares_orders_and_the_truths_solves_most(tmp_path):
    flags = ["--difficulty", "hard", "--num-train", 8, "--steps", 3, "--limit", 6, "--tokens-per-step", 1]
    flags += ["--finetune-steps", 2]
    run("learned_order", "reproduce", *flags, "--out", tmp_path)
    found = {row["oracle"]: row for row in rows(tmp_path)}
    orders = ["random", "margin", "learned"]
    ends = ("", ", fine-tuned", ", fine-tuned at random")
    assert list(found) == [*(order + end for end in ends for order in orders), "truth"]
    assert found["truth"]["solved"] >= max(row["solved"] for row in found.values())
    assert found["truth"]["minus_margin"] == pytest.approx(found["truth"]["solved"] - found["margin"]["solved"])
    assert np.load(tmp_path / "order.npz")["kernel"].ndim == 1


@pytest.mark.slow
def test_command_draws_sequences_of_a_task_that_has_no_answers_and_bounds_nothing(tmp_path):
    sizes = ["--num-latents", 4, "--num-observations", 6, "--num-train", 64, "--num-test", 32]
    train = ["--model", "sudoku_800k", "--steps", 2, "--batch-size", 8, "--evaluate-limit", 2]
    run("nae_sat", "train", *sizes, *train, "--data", tmp_path / "data", "--out", tmp_path / "run")
    flags = ["--task", "nae_sat", "--checkpoint", tmp_path / "run", "--num-train", 8, "--steps", 2, "--limit", 32]
    run("learned_order", "reproduce", *flags, "--tokens-per-step", 5, "--out", tmp_path / "out")
    found = {row["oracle"]: row for row in rows(tmp_path / "out")}
    assert list(found) == ["random", "margin", "learned"]
    assert all(row["accuracy_ci"][0] < row["accuracy_ci"][1] for row in found.values()), "the sequences differ"


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"num_steps": 0}, "num_steps must be a whole number, at least 1"),
        ({"batch_size": 2.5}, "batch_size must be a whole number"),
        ({"mask_id": -1}, "mask_id must be at least 0"),
        ({"examples": {"tokens": np.zeros((0, 4), np.int32), "is_prompt": np.zeros((0, 4), bool)}}, "no examples"),
    ],
)
@pytest.mark.parametrize("fit", [fit_order, functools.partial(tune_denoiser, oracle=oracles.margin)])
def test_training_that_cannot_be_is_refused_in_one_line(fit, changes, said):
    given = {"examples": EXAMPLES, "mask_id": MASK, "num_steps": 2, "batch_size": 2} | changes
    with pytest.raises(InputError, match=said):
        fit(Half(), KNOWS, **given)


def test_bad_input_is_one_line(tmp_path):
    assert_refused(
        "learned_order",
        [
            (["reproduce", "--steps", 0], "--steps"),
            (["reproduce", "--tokens-per-step"], "--tokens-per-step wants at least one number"),
            (["reproduce", "--checkpoint", tmp_path], str(tmp_path)),
            (["reproduce", "--task", "zebra"], "is a run of sudoku, not of zebra"),
            (["reproduce", "--difficulty", "easy", "--limit", 1], "easy"),
        ],
    )
