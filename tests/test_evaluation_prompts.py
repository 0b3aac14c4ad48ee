"""Prompts of different lengths in few shapes."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import mdm_jax
from mdm_jax.evaluation.prompts import continue_prompts, padded_length
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
def test_each_prompt_is_continued_as_if_alone_in_a_sequence_of_its_own_length():
    params = init_params(CONFIG, jax.random.key(0))
    rng = np.random.default_rng(0)
    prompts = [rng.integers(0, 20, length).tolist() for length in (3, 90, 3)]
    options = {"mask_id": MASK, "selector": mdm_jax.TopK(4), "temperature": 1.0}
    decode = functools.partial(mdm_jax.sample, make_denoiser(CONFIG), params, **options)
    got = continue_prompts(decode, prompts, num_new=5, mask_id=MASK, pad_id=PAD, batch_size=2, seed=7)
    assert got.shapes == [(2, 64), (2, 96)]
    assert got.nfe == 4
    for number, prompt in enumerate(prompts):
        key = jax.random.fold_in(jax.random.key(7), number)
        x_init = jnp.asarray([[*prompt, *[MASK] * 5]], jnp.int32)
        np.testing.assert_array_equal(got.tokens[number], decode(key[None], x_init).tokens[0, -5:], err_msg=str(number))


def test_shapes_end_where_the_network_does_and_have_no_more_rows_than_prompts():
    def decode(keys, x_init):
        return mdm_jax.SampleResult(jnp.where(x_init == MASK, 3, x_init), x_init, jnp.zeros(len(x_init)), jnp.ones(()))

    options = {"num_new": 8, "mask_id": MASK, "pad_id": PAD, "max_length": 81}
    got = continue_prompts(decode, [[1] * 70], **options)
    assert got.shapes == [(1, 81)]
    assert [tokens.tolist() for tokens in got.tokens] == [[3] * 8]
    with pytest.raises(mdm_jax.InputError, match="are 82 tokens, more than 81"):
        continue_prompts(decode, [[1] * 74], **options)


@pytest.mark.parametrize(("prompts", "num_new"), [([], 1), ([[1], []], 1)])
def test_unusable_prompts_are_refused(prompts, num_new):
    with pytest.raises(mdm_jax.InputError, match="at least one prompt"):
        continue_prompts(lambda key, x: None, prompts, num_new=num_new, mask_id=MASK, pad_id=PAD)
