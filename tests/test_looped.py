"""A looped Transformer: one loop is the Transformer, more are a plain loop; the loss is the mean over loops."""

import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
import toy
from commands import rows, run
from test_training_objectives import as_drawn

import mdm_jax
from experiments.commands.losses import losses
from mdm_jax.errors import InputError
from mdm_jax.logits import scored_nll
from mdm_jax.masking import mask_where
from mdm_jax.models import kinds
from mdm_jax.models.looped import with_loops
from mdm_jax.training.every_loop import EveryLoop
from mdm_jax.training.objectives import masked_loss

quick = pytest.fixture(scope="module", autouse=True)(toy.quick_compilation)

CONFIGS = {r: kinds.adapted(tiny.CONFIG, {"kind": "looped_transformer", "num_loops": r}) for r in (1, 3)}
PARAMS = kinds.init_params(CONFIGS[3], jax.random.key(0))
RNG = np.random.default_rng(0)
TOKENS = jnp.asarray(RNG.integers(1, tiny.CONFIG.vocab_size, (2, 6)), jnp.int32)


def states():
    """The features of three loops, by plain calls of the Transformer."""
    plain, found, state = kinds.make_denoiser(tiny.CONFIG), [], jnp.zeros((*TOKENS.shape, tiny.CONFIG.width))
    for _ in range(3):
        found.append(plain._apply("features", PARAMS, TOKENS, None, None, state))
        state = found[-1].hidden
    return found


def test_loops_are_calls_that_go_on_from_the_last_states_and_their_number_may_be_traced():
    looped, once = kinds.make_denoiser(CONFIGS[3]), kinds.make_denoiser(CONFIGS[1])
    want = states()
    np.testing.assert_allclose(once(PARAMS, TOKENS), kinds.make_denoiser(tiny.CONFIG)(PARAMS, TOKENS), atol=1e-6)
    assert not np.allclose(want[1].hidden, want[0].hidden, atol=0.01)
    every = looped.features(PARAMS, TOKENS, every_loop=True)
    np.testing.assert_allclose(every.hidden, [one.hidden for one in want], atol=1e-5)
    number = jax.jit(lambda r: once.features(with_loops(PARAMS, r), TOKENS).hidden)
    for r in (1, 2, 3):
        np.testing.assert_allclose(number(r), want[r - 1].hidden, atol=1e-5)
    assert number._cache_size() == 1
    is_read = jnp.asarray(RNG.random(TOKENS.shape) < 0.2)
    read = looped.features(PARAMS, TOKENS, is_read).hidden
    np.testing.assert_allclose(read[is_read], want[2].hidden[is_read], atol=1e-5)


def test_loss_is_the_mean_over_loops_of_the_ordinary_one_and_its_gradient_flows_through_all():
    is_masked = RNG.random(TOKENS.shape) < 0.5
    drawn = as_drawn(np.asarray(TOKENS), is_masked, np.array([1.0, 2.0]))
    looped, mask_id = kinds.make_denoiser(CONFIGS[3]), tiny.MASK

    def by_hand(params):
        x_t = mask_where(drawn.x_0, drawn.is_masked, mask_id)
        every = looped.features(params, x_t, every_loop=True)
        nats = [scored_nll(every._replace(hidden=h), drawn.x_0, drawn.is_scored, mask_id=mask_id) for h in every.hidden]
        return (drawn.weight[None] * jnp.stack(nats).sum(axis=-1)).mean(axis=0).sum()

    def loss(params):
        own = functools.partial(masked_loss(mask_id, EveryLoop()).nll, looped.features, paired=False)
        return own(params, drawn).sum()

    (value, gradient), want = jax.value_and_grad(loss)(PARAMS), jax.value_and_grad(by_hand)(PARAMS)
    np.testing.assert_allclose(value, want[0], rtol=1e-5)
    jax.tree.map(functools.partial(np.testing.assert_allclose, atol=1e-4), gradient, want[1])
    assert all(jnp.abs(leaf).max() > 0 for leaf in jax.tree.leaves(gradient))


def test_config_counts_the_loops_and_refuses_shifted_logits():
    plain, looped = tiny.CONFIG.forward_flops(6, 4), CONFIGS[3].forward_flops(6, 4)
    head = tiny.CONFIG.forward_flops(6, 4) - tiny.CONFIG.forward_flops(6, 0)
    assert looped - head == pytest.approx(3 * (plain - head))
    assert kinds.from_json(kinds.to_json(CONFIGS[3])) == CONFIGS[3]
    assert kinds.num_params(CONFIGS[3]) == kinds.num_params(tiny.CONFIG)
    with pytest.raises(InputError, match="shift_logits must be False"):
        kinds.adapted(CONFIGS[3], {"shift_logits": True})


@pytest.mark.slow
def test_sampler_takes_loops_from_the_parameters():
    denoiser, x_init = kinds.make_denoiser(CONFIGS[3]), jnp.full((2, 6), tiny.MASK)
    sample = functools.partial(mdm_jax.sample, denoiser, mask_id=tiny.MASK, temperature=0)
    three, same = (sample(params, jax.random.key(0), x_init) for params in (PARAMS, with_loops(PARAMS, 3)))
    assert (three.tokens == same.tokens).all()


def test_loops_are_refused_with_another_loss_or_an_autoregressive_model():
    for name, mask_id in (("skewed", 0), ("plain", None)):
        with pytest.raises(InputError, match="--num-loops 2 is for masked models and --loss plain"):
            losses(name, mask_id, "it", num_loops=2)


@pytest.mark.slow
def test_smoke_trains_with_loops_and_without_and_counts_passes(tmp_path):
    run("loops", "reproduce", "--scale", "smoke", "--data", tmp_path / "data", "--out", tmp_path / "out")
    found = [row for row in rows(tmp_path / "out") if "passes" in row]
    assert [(row["network"], row["num_loops"]) for row in found] == [
        ("looped", 1),
        ("looped", 3),
        ("once, as many steps", 1),
        ("once, as much compute", 1),
    ]
    assert all(row["passes"] == row["num_loops"] * row["nfe"] for row in found)
    assert json.loads((tmp_path / "out" / "looped" / "config.json").read_text())["model"]["num_loops"] == 2
    assert (tmp_path / "out" / "loops.png").stat().st_size > 5000
