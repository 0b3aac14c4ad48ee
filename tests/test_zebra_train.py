"""What a model of Zebra puzzles starts from."""

import dataclasses

import jax
import numpy as np
import pytest

from experiments.zebra.train import start_params
from mdm_jax.data import zebra_layouts
from mdm_jax.data.zebra_clues import Size
from mdm_jax.models import presets

SIZE = Size(4, 3)


@pytest.mark.parametrize("name", ["in-place", "triples"])
def test_positions_begin_with_how_they_lie_to_one_another(name):
    layout = zebra_layouts.get(name, SIZE)
    config = dataclasses.replace(
        presets.get("sudoku_800k"), vocab_size=21, max_length=layout.length, causal=name == "triples"
    )
    one, other = (start_params(config, layout, jax.random.key(seed)) for seed in (0, 1))
    table = np.asarray(one["position_embedding"]["embedding"], np.float64)
    products = table @ table.T
    token = np.square(np.asarray(one["token_embedding"]["embedding"])).sum(axis=1).mean()
    np.testing.assert_allclose(np.diag(products), config.init_std**2 * config.width, rtol=1e-5)
    assert token == pytest.approx(products[0, 0], rel=0.1)
    ends = SIZE.max_tokens if name == "in-place" else layout.length
    for distance in (1, 2, 7):
        alike = np.diag(products[:ends, :ends], distance)
        np.testing.assert_allclose(alike, alike[0], rtol=1e-3)
        assert alike[0] < products[0, 0]
    assert not np.array_equal(*(params["layers_0"]["attention"]["query"]["kernel"] for params in (one, other)))
    if name == "in-place":
        cells = products[ends:, ends:] / products[0, 0]
        attribute, house = np.divmod(np.arange(12), 4)
        shared = (attribute[:, None] == attribute).astype(float) + (house[:, None] == house)
        np.testing.assert_allclose(cells, shared / 2, atol=1e-5)
