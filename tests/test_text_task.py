"""Rows of text as sequences of masked and of causal models: orders, starts, padding, and rows of any length."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.text import Train, fixed_order, num_swaps
from mdm_jax import InputError
from mdm_jax.losses import causal_nll
from mdm_jax.models.config import TransformerConfig
from mdm_jax.models.denoiser import make_denoiser
from mdm_jax.models.transformer import init_params
from mdm_jax.tasks.text.layouts import Causal, Masked
from mdm_jax.training.objectives import causal_loss, masked_loss

V, L = 11, 12
PAD = V + 1


def network(layout):
    sizes = {"num_layers": 1, "num_heads": 2, "width": 16, "mlp_width": 32, "positions": "learned", "init_std": 0.5}
    config = TransformerConfig(**sizes, **layout.network)
    return make_denoiser(config), init_params(config, jax.random.key(0))


def rows(number=4, length=L, seed=0):
    return np.random.default_rng(seed).integers(0, V, (number, length)).astype(np.uint16)


def causal_nats(layout, model, tokens):
    """Nats of each row by the loss that training uses."""
    loss, batch = causal_loss(), layout.examples({"tokens": tokens})
    return np.asarray(loss.nll(*model, loss.draw(jax.random.key(0), jax.tree.map(jnp.asarray, batch)), paired=True))


@pytest.mark.thinned(4)
@pytest.mark.parametrize("name", ["identity", "much-closer", "closer", "uniform"])
def test_pi_learner_is_a_causal_model_of_the_permuted_row(name):
    order = fixed_order(name, L, seed=3)
    layout = Causal(L, V, order=order)
    model = network(layout)
    by_loss = causal_nats(layout, model, rows())
    pi = np.arange(L) if order is None else np.array(order)
    by_hand = causal_nats(Causal(L, V), model, rows()[:, pi])
    np.testing.assert_array_equal(by_loss, by_hand)
    whole = causal_nll(*model, jnp.asarray(rows(), jnp.int32), bos_id=V, order=jnp.broadcast_to(pi, (4, L)))
    np.testing.assert_allclose(by_loss, whole, rtol=1e-6)


@pytest.mark.parametrize(("name", "swaps"), [("identity", 0), ("much-closer", 45), ("closer", 204), ("uniform", None)])
def test_orders_have_the_swaps_of_the_paper_at_its_length(name, swaps):
    assert num_swaps(name, 2048) == swaps
    order, other = (fixed_order(name, 2048, seed) for seed in (0, 1))
    if name == "identity":
        assert order is other is None
        return
    assert sorted(order) == list(range(2048))
    assert order != other
    moved = sum(i != j for i, j in enumerate(order))
    assert moved > 2000 if swaps is None else swaps <= moved <= 2 * swaps


def test_answers_of_a_permuted_layout_are_the_rows():
    layout = Causal(L, V, order=fixed_order("uniform", L, 1))
    tokens = layout.examples({"tokens": rows()})["tokens"]
    assert (tokens[:, 0] == V).all()
    np.testing.assert_array_equal(layout.answers(tokens), rows())


@pytest.mark.parametrize("kind", [Masked, Causal])
def test_row_alone_is_as_in_a_batch_with_padding_behind_it(kind):
    layout = kind(L, V, pads=True)
    denoiser, params = network(layout)
    lengths = np.array([L, 5, 5, 1])
    batch = np.where(np.arange(L) < lengths[:, None], rows(), PAD)
    tokens, is_prompt = layout.examples({"tokens": batch}).values()
    start = tokens.shape[1] - L
    assert (is_prompt[:, start:] == (batch == PAD)).all()
    if kind is Masked:
        tokens = np.where((np.arange(L) % 2 == 0) & ~is_prompt, V, tokens)
    together = denoiser(params, jnp.asarray(tokens))
    alone = denoiser(params, jnp.asarray(tokens[1:3, : start + 5]))
    np.testing.assert_allclose(alone, together[1:3, : start + 5], atol=1e-5)


@pytest.mark.thinned(2)
@pytest.mark.parametrize("kind", [Masked, Causal])
def test_padding_is_neither_masked_nor_scored(kind):
    layout = kind(L, V, pads=True)
    batch = np.where(np.arange(L) < 6, rows(), PAD)
    examples = jax.tree.map(jnp.asarray, layout.examples({"tokens": batch}))
    if kind is Masked:
        drawn = masked_loss(V).draw(jax.random.key(0), examples)
        assert not np.asarray(drawn.is_masked | drawn.is_scored)[:, 6:].any()
        return
    model = network(layout)
    np.testing.assert_allclose(
        causal_nats(layout, model, batch), causal_nats(Causal(6, V, True), model, batch[:, :6]), rtol=1e-5
    )


def flags(**changes):
    return Train(source="x.txt", length=64, vocab=300, **changes)


def test_loss_of_an_order_without_orders_is_refused_and_defaults_are_those_of_the_paper():
    with pytest.raises(InputError, match="--loss subset is over all orders"):
        _ = flags(order="closer").order_class
    assert [flags(loss=loss).order_class for loss in ("subset", "order", "causal")] == [
        "uniform",
        "uniform",
        "identity",
    ]
    optimizer = flags().optimizer_config()
    assert (optimizer.beta1, optimizer.beta2, optimizer.weight_decay, optimizer.clip_norm) == (0.9, 0.95, 0.1, 1)
    assert optimizer.learning_rate * optimizer.final_fraction == pytest.approx(4e-5)


@pytest.mark.thinned(4)
@pytest.mark.parametrize("loss", ["subset", "elbo", "order", "causal"])
def test_every_loss_starts_at_the_entropy_of_a_guess(loss):
    chosen = flags(loss=loss)
    task = chosen.task()
    layout = chosen.layout_of(task)
    trained, plain = chosen.losses(layout)
    tokens = {"tokens": np.random.default_rng(0).integers(0, 300, (64, 64))}
    batch = jax.tree.map(jnp.asarray, layout.examples(tokens))
    uniform = lambda params, x: params + jnp.zeros((*x.shape, 300))  # noqa: E731
    for one in (trained, plain):
        nats = one.nll(uniform, jnp.zeros(()), one.draw(jax.random.key(2), batch), paired=True)
        assert float(nats.mean()) / 64 == pytest.approx(np.log(300), rel=0.05)


def test_order_near_the_identity_is_measured_by_its_own_loss_and_the_uniform_one_by_the_bound():
    for order, masks in (("much-closer", 1), ("uniform", 64)):
        chosen = flags(loss="order", order=order)
        layout = chosen.layout_of(chosen.task())
        _, plain = chosen.losses(layout)
        batch = jax.tree.map(jnp.asarray, layout.examples({"tokens": np.zeros((64, 64), int)}))
        drawn = plain.draw(jax.random.key(0), batch)
        assert int(drawn.is_scored.sum(axis=-1).max()) in ((1,) if masks == 1 else range(50, 65))


def test_network_has_the_layers_width_and_heads_of_the_flags():
    from experiments.commands.train import network as made

    small = made(chosen := flags(layers=2, width=96, heads=3), chosen.task())
    assert (small.num_layers, small.width, small.num_heads, small.mlp_width) == (2, 96, 3, 384)
    assert (small.vocab_size, small.num_tokens, small.max_length, small.positions) == (300, 301, 64, "learned")
    preset = made(chosen := flags(model="smdm_19m", loss="causal"), chosen.task())
    assert (preset.num_layers, preset.width, preset.causal, preset.max_length) == (8, 384, True, 65)
    assert dataclasses.replace(preset, init_std=0.02).init_std != preset.init_std == pytest.approx((2 / 1920) ** 0.5)
