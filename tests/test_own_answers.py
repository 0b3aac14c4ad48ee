"""Losses on the network's own answers against their formulas in NumPy; a quality head from training to `load`."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
import toy
from test_training_objectives import as_drawn, drawn

import mdm_jax
from mdm_jax.judges import HEAD
from mdm_jax.loading import export
from mdm_jax.models import kinds
from mdm_jax.training.objectives import masked_loss
from mdm_jax.training.own_answers import Answered, Filled, Guesses, Quality, guesses

quick = pytest.fixture(scope="module", autouse=True)(toy.quick_compilation)

KEY = jax.random.key(2)
WEIGHTS = np.random.default_rng(3).normal(size=6)
PARAMS = toy.net_params(0) | {HEAD: {"kernel": jnp.asarray(WEIGHTS, jnp.float32), "bias": jnp.asarray([0.3])}}
JUDGED = kinds.adapted(tiny.CONFIG, {"kind": "judged_transformer"})


def log_p_of(tokens):
    return toy.log_softmax(toy.context_net(PARAMS, jnp.asarray(tokens, jnp.int32)), toy.MASK)


def nats_of(tokens, x_0):
    return -np.take_along_axis(log_p_of(tokens), x_0[..., None], axis=-1)[..., 0]


def test_filled_loss_is_that_of_the_masks_and_that_of_all_free_tokens_given_the_networks_own():
    x_0, is_masked, _ = drawn(4, 5)
    is_free = is_masked | (np.random.default_rng(1).random(x_0.shape) < 0.5)
    z = np.where(is_masked, toy.MASK, x_0)
    y = np.where(is_masked, log_p_of(z).argmax(axis=-1), x_0)
    assert (y != x_0).any()
    weight = np.linspace(1, 3, len(x_0))
    want = weight * (nats_of(z, x_0) * is_masked).sum(axis=1) + (nats_of(y, x_0) * is_free).sum(axis=1)
    given = Answered(as_drawn(x_0, is_masked, weight), jnp.asarray(is_free))
    for net in (toy.context_net, toy.features_net):
        got = jax.jit(functools.partial(Filled().nll, net, mask_id=toy.MASK, paired=True))(PARAMS, given)
        np.testing.assert_allclose(got, want, rtol=1e-5)


def test_quality_loss_is_that_of_the_masks_and_the_cross_entropy_of_the_head_at_the_guesses():
    x_0, is_masked, _ = drawn(4, 5)
    is_guessed = is_masked & (np.random.default_rng(2).random(x_0.shape) < 0.7) & (is_masked.cumsum(axis=1) <= 3)
    uniform, num_free = np.random.default_rng(4).random(x_0.shape).astype(np.float32), 5
    weight = num_free / np.maximum(is_masked.sum(axis=1), 1)
    z = np.where(is_masked, toy.MASK, x_0)
    below = np.exp(log_p_of(z)).cumsum(axis=-1) <= uniform[..., None]
    x_s = np.where(is_guessed, below.sum(axis=-1), z)
    hidden = np.asarray(toy.features_net(PARAMS, jnp.asarray(x_s, jnp.int32)).hidden, np.float64)
    logits = hidden @ WEIGHTS + 0.3
    entropy = np.logaddexp(0, np.where(x_s == x_0, -logits, logits)) * is_guessed
    assert 0 < (x_s == x_0)[is_guessed].mean() < 1
    judged = num_free * entropy.sum(axis=1) / np.maximum(is_guessed.sum(axis=1), 1)
    want = 2.0 * weight * (nats_of(z, x_0) * is_masked).sum(axis=1) + judged * is_masked.any(axis=1)
    given = Guesses(as_drawn(x_0, is_masked, weight), jnp.asarray(is_guessed), jnp.asarray(uniform))
    got = Quality(num_guessed=3, ordinary=2.0).nll(toy.features_net, PARAMS, given, mask_id=toy.MASK, paired=True)
    np.testing.assert_allclose(got, want, rtol=1e-5)
    with pytest.raises(mdm_jax.InputError, match="has no quality head: train one with --loss quality"):
        Quality().nll(toy.features_net, toy.net_params(0), given, mask_id=toy.MASK, paired=True)


@pytest.mark.slow
def test_guesses_have_the_law_of_the_network_and_never_are_the_mask():
    logits = jnp.log(jnp.asarray([0.1, 0.3, 0.2, 0.4]))
    output = jnp.broadcast_to(logits, (20_000, 3, 4))
    is_guessed = jnp.broadcast_to(jnp.asarray([False, True, True]), output.shape[:2])
    got = guesses(output, is_guessed, jax.random.uniform(KEY, output.shape[:2]), 2, mask_id=3)
    assert (got[:, 0] == 0).all()
    for column in (1, 2):
        toy.assert_frequencies(got[:, column], np.array([1, 3, 2]) / 6)


@pytest.mark.slow
def test_draws_guess_as_many_masks_as_they_say_and_know_what_is_free():
    x_0 = jnp.asarray(np.random.default_rng(0).integers(0, 5, (64, 9)), jnp.int32)
    is_prompt = jnp.asarray(np.random.default_rng(1).random(x_0.shape) < 0.4)
    found = jax.jit(Quality(num_guessed=3))(KEY, x_0, is_prompt)
    is_masked, is_guessed = np.asarray(found.masked.is_masked), np.asarray(found.is_guessed)
    assert not (is_guessed & ~is_masked).any()
    np.testing.assert_array_equal(is_guessed.sum(axis=1), np.minimum(is_masked.sum(axis=1), 3))
    assert (is_guessed.sum(axis=0) > 0).all()
    whole = jax.jit(Filled())(KEY, x_0, is_prompt)
    np.testing.assert_array_equal(whole.masked.x_0, x_0[whole.masked.example])
    np.testing.assert_array_equal(whole.is_free, ~is_prompt[whole.masked.example])


@pytest.mark.slow
def test_quality_head_of_a_run_is_saved_loaded_and_exported_with_the_weights(tmp_path):
    loss = masked_loss(tiny.MASK, Quality())
    state = tiny.train(tmp_path / "run", steps=3, loss=loss, config=JUDGED, loop={"checkpoint_every": 3})
    assert (np.asarray(state.eval_params[HEAD]["kernel"]) != 0).any(), "it was trained"
    export(tmp_path / "run", tmp_path / "file", dtype="float32")
    for folder in ("run", "file"):
        model = mdm_jax.load(tmp_path / folder)
        assert model.config == JUDGED
        jax.tree.map(np.testing.assert_array_equal, model.params, jax.device_get(state.eval_params))
    given = (model.denoiser, model.params, KEY, tiny.to_batch({"tokens": tiny.data()["tokens"][:7]})["tokens"] * 0)
    got = mdm_jax.correcting_sample(*given, mask_id=tiny.MASK, judge="quality", k=3, tau=1.0)
    assert (got.tokens != tiny.MASK).all()
    plain = dataclasses.replace(tiny.CONFIG)
    without = {name: value for name, value in model.params.items() if name != HEAD}
    logits = kinds.make_denoiser(plain)(without, given[-1])
    np.testing.assert_array_equal(model.denoiser(model.params, given[-1]), logits)


@pytest.mark.slow
@pytest.mark.parametrize("draw", [Filled(), Quality()], ids=["filled", "quality"])
def test_network_that_learned_on_its_own_answers_decodes_with_its_judge(tmp_path, draw):
    config = JUDGED if isinstance(draw, Quality) else tiny.CONFIG
    state = tiny.train(tmp_path, steps=300, loss=masked_loss(tiny.MASK, draw), config=config)
    judge = "quality" if isinstance(draw, Quality) else "filled"
    given = (kinds.make_denoiser(config), state.eval_params, KEY)
    x_init = jnp.asarray(tiny.data()["tokens"][:7]).at[:, 1:].set(tiny.MASK)
    got = mdm_jax.correcting_sample(*given, x_init, mask_id=tiny.MASK, judge=judge, k=3)
    assert (got.tokens == x_init[:, :1]).all()
