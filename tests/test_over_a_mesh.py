"""Samplers that correct, propose, search or remember: over eight devices, with padding, in other company.

So are losses on the network's own answers, over eight devices.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
import toy
from toy import MASK, PAD, context_net, features_net, net_params

import mdm_jax
from mdm_jax.judges import HEAD
from mdm_jax.models import kinds
from mdm_jax.models.looped import with_loops
from mdm_jax.sharding import make_mesh, place
from mdm_jax.training.every_loop import EveryLoop
from mdm_jax.training.learned_order import LearnedOrder
from mdm_jax.training.objectives import masked_loss
from mdm_jax.training.own_answers import Filled, Quality
from mdm_jax.training.state import OptimizerConfig, init_state
from mdm_jax.training.step import make_train_step

pytestmark = [pytest.mark.slow, pytest.mark.eight_devices]
quick = pytest.fixture(scope="module", autouse=True)(toy.quick_compilation)

B, L = 16, 6
LOOPED = kinds.adapted(
    tiny.CONFIG,
    {
        "kind": "looped_transformer",
        "num_loops": 9,
        "vocab_size": MASK,
        "num_extra_tokens": PAD + 1 - MASK,
        "max_length": L + 2,
        "pad_id": PAD,
    },
)
PARAMS = net_params(1) | {HEAD: {"kernel": jnp.linspace(-1, 1, 6), "bias": jnp.zeros(1)}}
PARAMS["looped"] = jax.tree.map(
    lambda leaf: 12 * leaf if leaf.ndim == 2 else leaf, kinds.init_params(LOOPED, jax.random.key(0))
)
LEARNED = LearnedOrder(jnp.linspace(-1, 1, 6), jnp.array([1.0, 0.5, -0.5]))


class Net:
    """The context net with Features."""

    def __call__(self, params, tokens):
        return context_net(params, tokens)

    def features(self, params, tokens, is_read=None):
        del is_read
        return features_net(params, tokens)


def forms(length):
    """A sequence and its mirror image; what lies behind its L positions is padding, and stays."""
    mirrored = [*range(L)[::-1], *range(L, length)]
    return {"positions": np.array([range(length), mirrored]), "tokens": np.tile(np.arange(PAD + 1), (2, 1))}


def proposing(choose, **options):
    def sampled(net, params, keys, x_init, *, mask_id):
        decode = functools.partial(mdm_jax.sample, net, params, mask_id=mask_id)
        return choose(decode, keys, x_init, **options)

    return sampled


def voting(net, params, keys, x_init, *, mask_id):
    return proposing(mdm_jax.symmetric_sample, **forms(x_init.shape[1]))(net, params, keys, x_init, mask_id=mask_id)


def averaging(net, params, keys, x_init, *, mask_id):
    average = mdm_jax.symmetric_average(net, mask_id=mask_id, **forms(x_init.shape[1]))
    return mdm_jax.sample(average, params, keys, x_init, mask_id=mask_id)


def settling(net, params, keys, x_init, *, mask_id):
    """A network whose rows go through as many loops as each needs."""
    params = with_loops(params["looped"], 9, settled=0.3)
    return mdm_jax.sample(kinds.make_denoiser(LOOPED), params, keys, x_init, mask_id=mask_id)


def one_after_another(net, params, keys, x_init, *, mask_id):
    """Forms of a row until one is good enough: for some rows the first, for others none."""
    rank = functools.partial(mdm_jax.pseudo_log_likelihood, net, params, mask_id=mask_id, num_calls=2)
    both = forms(x_init.shape[1])
    options = {"rank": mdm_jax.symmetric_rank(rank, **both), "enough": -6.0}
    return proposing(mdm_jax.symmetric_sample, **both, **options)(net, params, keys, x_init, mask_id=mask_id)


WAYS = {
    "klass": functools.partial(mdm_jax.sample, selector=mdm_jax.Klass(0.5, 0.1)),
    "learned": functools.partial(mdm_jax.sample, oracle=LEARNED),
    "remasking": functools.partial(mdm_jax.remasking_sample, num_steps=5),
    "leave-one-out": functools.partial(mdm_jax.correcting_sample, judge="leave-one-out", k=3),
    "filled": functools.partial(mdm_jax.correcting_sample, judge="filled", k=3),
    "quality": functools.partial(mdm_jax.correcting_sample, judge="quality", k=3),
    "search": functools.partial(mdm_jax.search_sample, width=3),
    "checked search": functools.partial(
        mdm_jax.search_sample, width=3, doubt=0, selector=mdm_jax.Threshold(0.3), check=2
    ),
    "best": proposing(mdm_jax.best_sample, num=3),
    "stable": proposing(mdm_jax.stable_sample, num=3),
    "symmetric": voting,
    "average": averaging,
    "settled loops": settling,
    "one after another": one_after_another,
}


def questions():
    """Rows with masks, and their keys."""
    rng = np.random.default_rng(0)
    x_init = np.where(rng.random((B, L)) < 0.7, MASK, rng.integers(0, MASK, (B, L)))
    return jnp.asarray(x_init, jnp.int32), jax.random.split(jax.random.key(3), B)


@pytest.mark.parametrize("way", WAYS)
def test_row_is_the_same_with_padding_and_in_other_company(way):
    x_init, keys = questions()
    got = WAYS[way](Net(), PARAMS, keys, x_init, mask_id=MASK)
    assert (got.tokens < MASK).all()
    padded = WAYS[way](Net(), PARAMS, keys, jnp.pad(x_init, ((0, 0), (0, 2)), constant_values=PAD), mask_id=MASK)
    np.testing.assert_array_equal(padded.tokens[:, :L], got.tokens)
    np.testing.assert_array_equal(padded.tokens[:, L:], PAD)
    np.testing.assert_array_equal(padded.reveal_step[:, :L], got.reveal_step)
    few = np.array([11, 2, 7])
    alone = WAYS[way](Net(), PARAMS, keys[few], x_init[few], mask_id=MASK)
    np.testing.assert_array_equal(alone.tokens, got.tokens[few])
    np.testing.assert_array_equal(alone.reveal_step, got.reveal_step[few])


@pytest.mark.parametrize("way", WAYS)
def test_sample_over_eight_devices_is_that_of_one(way):
    x_init, keys = questions()
    one = WAYS[way](Net(), PARAMS, keys, x_init, mask_id=MASK)
    mesh = make_mesh(data=8)
    rows, everywhere = (jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec(*axes)) for axes in (["data"], []))
    given = (jax.device_put(PARAMS, everywhere), jax.device_put(keys, rows), jax.device_put(x_init, rows))
    eight = WAYS[way](Net(), *given, mask_id=MASK)
    assert len(eight.tokens.sharding.device_set) == 8
    np.testing.assert_array_equal(eight.tokens, one.tokens)
    np.testing.assert_array_equal(eight.reveal_step, one.reveal_step)
    assert int(eight.nfe) == int(one.nfe)


LOSSES = {
    "filled": (Filled(), {}),
    "quality": (Quality(), {"kind": "judged_transformer"}),
    "loops": (EveryLoop(), {"kind": "looped_transformer", "num_loops": 2}),
}


def trained(name, mesh):
    """The loss of three steps."""
    draw, changes = LOSSES[name]
    config = kinds.adapted(tiny.CONFIG, changes)
    optimizer = OptimizerConfig(num_steps=40, warmup_steps=2, learning_rate=1e-2)
    loss, init = masked_loss(tiny.MASK, draw), functools.partial(kinds.init_params, config)
    batch = tiny.to_batch({"tokens": tiny.data()["tokens"][:32]})
    state = init_state(mesh, init, 0, optimizer)
    step, losses = make_train_step(kinds.make_denoiser(config), init, loss, optimizer, mesh), []
    for _ in range(3):
        state, metrics = step(state, place(mesh, batch))
        losses.append(float(metrics["loss_per_token"]))
    return losses


@pytest.mark.parametrize("name", LOSSES)
def test_training_on_own_answers_gives_the_same_losses_over_a_mesh(name):
    want = trained(name, tiny.one_device())
    for mesh in (make_mesh(2, 2, 2), make_mesh(4, 2, 1)):
        np.testing.assert_allclose(trained(name, mesh), want, rtol=1e-4)  # the optimizer's steps on rounding
