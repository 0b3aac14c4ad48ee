"""What a model of Zebra puzzles starts from."""

import jax
import numpy as np
import pytest

from experiments.commands.train import network
from experiments.fresh_params import zebra_params as start_params
from experiments.zebra import Train
from mdm_jax.tasks.zebra import layouts as zebra_layouts
from mdm_jax.tasks.zebra.clues import Size

SIZE = Size(4, 3)


def model_config(layout):
    size = {"max_houses": SIZE.houses, "max_attributes": SIZE.attributes}
    flags = Train(layout=layout, model="sudoku_800k", dtype="float32", **size)
    return network(flags, flags.task())


@pytest.mark.parametrize(("name", "before", "pad_id"), [("in-place", 0, 20), ("triples", 1, None)])
def test_model_reads_each_clue_as_one_position(name, before, pad_id):
    layout, config = zebra_layouts.get(name, SIZE), model_config(name)
    assert (config.num_groups, config.group_length, config.num_grouped) == (12, 13, layout.num_prompt - before)
    assert (config.positions, config.pad_id, config.causal) == ("learned", pad_id, name == "triples")
    assert config.init_std == 128**-0.5


@pytest.mark.slow
def test_positions_of_cells_begin_with_how_they_lie_to_one_another():
    layout, config = zebra_layouts.get("in-place", SIZE), model_config("in-place")
    one, other = (start_params(config, layout, jax.random.key(seed)) for seed in (0, 1))
    table = np.asarray(one["position_embedding"]["embedding"], np.float64)
    products = table @ table.T
    token = np.square(np.asarray(one["token_embedding"]["embedding"])).sum(axis=1).mean()
    np.testing.assert_allclose(np.diag(products), config.init_std**2 * config.width, rtol=1e-5)
    assert token == pytest.approx(products[0, 0], rel=0.1)
    assert not np.array_equal(*(params["layers_0"]["attention"]["query"]["kernel"] for params in (one, other)))
    attribute, house = np.divmod(np.arange(12), 4)
    shared = (attribute[:, None] == attribute).astype(float) + (house[:, None] == house)
    np.testing.assert_allclose(products / products[0, 0], shared / 2, atol=1e-5)
