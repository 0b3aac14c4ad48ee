"""Prompts of different lengths in few shapes."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import mdm_jax
from mdm_jax.evaluation.prompts import fill_sequences, padded_length
from mdm_jax.models.config import TransformerConfig
from mdm_jax.models.denoiser import make_denoiser
from mdm_jax.models.transformer import init_params

CONFIG = TransformerConfig(
    vocab_size=20,
    num_extra_tokens=2,
    max_length=256,
    num_layers=1,
    num_heads=2,
    width=16,
    mlp_width=32,
    positions="learned",
    pad_id=21,
    init_std=0.3,
)
MASK, PAD = 20, 21


def test_shapes_are_few_and_waste_less_than_half():
    shapes = {padded_length(length) for length in range(1, 2049)}
    assert sorted(shapes) == [64, 96, 128, 192, 256, 384, 512, 768, 1024, 1536, 2048]
    for length in range(64, 2049):
        assert length <= padded_length(length) < 1.5 * length


@pytest.mark.slow
def test_each_sequence_is_decoded_as_if_alone_at_its_own_length():
    params = init_params(CONFIG, jax.random.key(0))
    rng = np.random.default_rng(0)
    sequences = [[*rng.integers(0, 20, length).tolist(), *[MASK] * 5] for length in (3, 90, 3)]
    options = {"mask_id": MASK, "selector": mdm_jax.TopK(4), "temperature": 1.0}
    decode = functools.partial(mdm_jax.sample, make_denoiser(CONFIG), params, **options)
    got = fill_sequences(decode, sequences, pad_id=PAD, batch_size=2, seed=7)
    assert got.shapes == [(2, 64), (2, 96)]
    assert got.nfe == 4
    for number, sequence in enumerate(sequences):
        key = jax.random.fold_in(jax.random.key(7), number)
        alone = decode(key[None], jnp.asarray([sequence], jnp.int32)).tokens[0]
        np.testing.assert_array_equal(got.rows[number].tokens, alone, err_msg=str(number))


def test_shapes_end_where_the_network_does_and_have_no_more_rows_than_sequences():
    def decode(keys, x_init):
        return mdm_jax.SampleResult(jnp.where(x_init == MASK, 3, x_init), x_init, jnp.zeros(len(x_init)), jnp.ones(()))

    got = fill_sequences(decode, [[*[1] * 70, *[MASK] * 8]], pad_id=PAD, max_length=81)
    assert got.shapes == [(1, 81)]
    assert got.rows[0].tokens.tolist() == [*[1] * 70, *[3] * 8]
