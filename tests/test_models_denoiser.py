"""What is read off a network: only what is wanted, in chunks, on one device and where the batch is split."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding

import mdm_jax
from mdm_jax import oracles
from mdm_jax.kernels.skip_rows import SkipRows, chunk_rows
from mdm_jax.logits import map_columns
from mdm_jax.models.config import TransformerConfig
from mdm_jax.models.denoiser import make_denoiser
from mdm_jax.models.transformer import init_params
from mdm_jax.sharding import BATCH, make_mesh

LENGTH = 12
CONFIG = TransformerConfig(
    vocab_size=9,
    num_extra_tokens=1,
    max_length=LENGTH,
    num_layers=2,
    num_heads=2,
    width=16,
    mlp_width=32,
    positions="learned",
    init_std=0.3,
)
MASK = 9


@pytest.mark.thinned(2)
@pytest.mark.parametrize("size", [1, 2, 5, 6])
def test_map_columns_reads_what_is_wanted_and_little_else(size):
    rng = np.random.default_rng(0)
    values = jnp.asarray(rng.normal(size=(2, 6)), jnp.float32)
    for share in (0, 0.3, 0.6, 1):
        is_read, num_read = rng.random((2, 6)) < share, []

        def read(indices):
            jax.debug.callback(lambda: num_read.append(size))  # noqa: B023
            return {"doubled": 2 * jnp.take_along_axis(values, indices, axis=1), "index": indices + 1}

        got = map_columns(read, jnp.asarray(is_read), size)
        jax.effects_barrier()
        np.testing.assert_array_equal(got["doubled"], np.where(is_read, 2 * values, 0))
        np.testing.assert_array_equal(got["index"], np.where(is_read, np.arange(1, 7), 0))
        assert sum(num_read) == -(-is_read.sum(axis=1).max() // size) * size, "as the row that wants most needs"


def test_chunks_of_rows_keep_a_processor_busy_and_waste_few():
    assert chunk_rows(32, 81, 512) == 8  # 7 would be enough: of 5 chunks the last has 3 rows too many
    assert chunk_rows(7, 81, 512) == chunk_rows(3, 81, 512) + 4 == 7
    assert chunk_rows(17, 81, 512) == 9
    assert chunk_rows(6, 1024, 512) == 1


@pytest.mark.thinned(3)
@pytest.mark.parametrize(
    ("change", "bound"),
    [({}, 1e-5), ({"tie_head": True, "shift_logits": True}, 1e-5), ({"dtype": "bfloat16"}, 2**-6)],
    ids=["plain", "tied and shifted", "bfloat16"],
)
@pytest.mark.parametrize("rows", [1, 3])
@pytest.mark.slow
def test_skip_rows_computes_rows_that_are_read_and_few_others(monkeypatch, rows, change, bound):
    monkeypatch.setattr(jax, "device_count", lambda: 1)
    config = dataclasses.replace(CONFIG, **change)
    params, denoiser = init_params(config, jax.random.key(0)), make_denoiser(config)
    rng = np.random.default_rng(0)
    tokens = jnp.asarray(rng.integers(0, 10, (8, LENGTH)), jnp.int32)
    skipping = SkipRows(denoiser, positions=rows * LENGTH)
    size = chunk_rows(8, LENGTH, rows * LENGTH)
    features, whole = jax.jit(skipping.features), jax.jit(denoiser.features)(params, tokens)
    for asked in ([], [5], [0, 1, 2, 3], [0, 4, 7], list(range(8))):
        is_read = rng.random(tokens.shape) < 0.5
        is_read[:, 5] = True
        is_read[[row for row in range(8) if row not in asked]] = False
        got = features(params, tokens, is_read)
        np.testing.assert_array_equal(got.head, whole.head)
        made, every = np.asarray(got.hidden, np.float32), np.asarray(whole.hidden, np.float32)
        np.testing.assert_allclose(made[is_read], every[is_read], atol=bound * np.abs(every).max())
        assert made.any(axis=(1, 2)).sum() == min(-(-len(asked) // size) * size, 8)


class RowsRead:
    """Predicts, everywhere, how many rows are read."""

    def __call__(self, params, tokens):
        raise AssertionError("asked for all logits")

    def features(self, params, tokens, is_read=None):
        hidden = jnp.broadcast_to(9 * jax.nn.one_hot(is_read.any(axis=-1).sum(), 4), (*tokens.shape, 4))
        return mdm_jax.Features(hidden, jnp.eye(4))


@pytest.mark.parametrize("sampler", ["sample", "remasking"])
def test_samplers_read_no_row_that_reveals_nothing(sampler):
    x_init = np.array([[4, 4, 4], [4, 4, 0]], np.int32)
    options = {"mask_id": 4, "oracle": oracles.left_to_right, "temperature": 0.0}
    arguments = (RowsRead(), None, jax.random.key(0), x_init)
    if sampler == "sample":
        got = mdm_jax.sample(*arguments, selector=mdm_jax.TopK(4), **options)
    else:
        got = mdm_jax.remasking_sample(*arguments, num_steps=4, noise=0.0, remask=False, **options)
    # Of 3 masks, 2, 1 and 0 are left after steps 1, 2 and 3; of 2, 1, 1 and 0: in step 2 the second row has nothing.
    np.testing.assert_array_equal(got.tokens, [[2, 1, 2], [2, 2, 0]])
    np.testing.assert_array_equal(got.reveal_step, [[0, 1, 2], [0, 2, -1]])


@dataclasses.dataclass(frozen=True)
class Wide:
    """A network of one's own that has a field called features."""

    features: int = 4

    def __call__(self, params, tokens):
        return jnp.zeros((*tokens.shape, self.features))


def test_field_called_features_is_no_method():
    got = mdm_jax.sample(Wide(), None, jax.random.key(0), np.full((1, 3), 4, np.int32), mask_id=4)
    assert (got.tokens < 4).all()


SELECTORS = [mdm_jax.Threshold(0.2), mdm_jax.Binomial(6), mdm_jax.TopK(5), mdm_jax.PerStep(3)]


@pytest.mark.slow
@pytest.mark.parametrize("sharded", [False, True])
@pytest.mark.parametrize("selector", [*SELECTORS, None], ids=str)
def test_sample_by_features_is_that_by_all_logits(selector, sharded):
    config = dataclasses.replace(CONFIG, init_std=0.4)
    params, denoiser = init_params(config, jax.random.key(0)), make_denoiser(config)
    share = np.linspace(0, 1, 16)[:, None]
    x_init = np.where(np.random.default_rng(0).random((16, LENGTH)) < share, MASK, 3).astype(np.int32)
    options = {"mask_id": MASK, "oracle": oracles.margin, "temperature": 1.0}
    run = functools.partial(mdm_jax.sample, selector=selector, block_length=5, **options)
    if selector is None:  # the decoder that takes tokens back
        run = functools.partial(mdm_jax.remasking_sample, num_steps=4, noise=0.1, **options)
    want = run(lambda params, tokens: denoiser(params, tokens), params, jax.random.key(2), x_init)
    start = jax.device_put(x_init, NamedSharding(make_mesh(data=4, tensor=2), BATCH)) if sharded else x_init
    got = run(denoiser, params, jax.random.key(2), start)
    np.testing.assert_array_equal(got.tokens, want.tokens)
    np.testing.assert_array_equal(got.reveal_step, want.reveal_step)
    np.testing.assert_allclose(got.log_prob, want.log_prob, atol=1e-4)
    assert got.nfe == want.nfe


def test_sample_of_no_rows_is_refused():
    params = init_params(CONFIG, jax.random.key(0))
    with pytest.raises(mdm_jax.InputError, match="at least one row"):
        mdm_jax.sample(make_denoiser(CONFIG), params, jax.random.key(0), np.zeros((0, LENGTH), np.int32), mask_id=MASK)
