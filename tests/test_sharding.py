import dataclasses
import functools
import math
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

import mdm_jax
from mdm_jax.draws import Subset
from mdm_jax.errors import InputError
from mdm_jax.losses import nll
from mdm_jax.models import kinds, presets
from mdm_jax.models.denoiser import make_denoiser
from mdm_jax.models.transformer import init_params
from mdm_jax.sharding import BATCH, abstract, check_batch, gathered, make_mesh, shardings, spec_for
from mdm_jax.training.metrics import read_metrics
from mdm_jax.training.objectives import masked_loss
from mdm_jax.training.state import OptimizerConfig, abstract_state
from mdm_jax.training.step import make_train_step


def test_mesh_data_left_open_takes_the_remaining_devices():
    assert dict(make_mesh(fsdp=2, tensor=2).shape) == {"data": 2, "fsdp": 2, "tensor": 2}


@pytest.mark.parametrize("sizes", [(3, 1, 1), (-1, 3, 1), (8, 2, 1), (-1, 0, 1), (-1, 1, 16)])
def test_mesh_sizes_that_do_not_multiply_to_the_devices_are_named(sizes):
    with pytest.raises(InputError, match=rf"data={sizes[0]} x fsdp={sizes[1]} x tensor={sizes[2]}.*8 devices"):
        make_mesh(*sizes)


def test_spec_axes_that_do_not_divide_a_dimension_are_left_out():
    mesh = make_mesh(data=1, fsdp=4, tensor=2)
    assert spec_for("token_embedding/embedding", (10, 16), mesh) == P("tensor", "fsdp")
    assert spec_for("token_embedding/embedding", (31, 16), mesh) == P(None, "fsdp")
    assert spec_for("group_embedding/embedding", (26, 16), mesh) == P(None, "fsdp")
    assert spec_for("layers_0/attention/query/kernel", (18, 16), mesh) == P(None, "tensor")


def test_rules_every_large_parameter_of_every_preset_is_split_eight_ways():
    mesh = make_mesh(data=1, fsdp=4, tensor=2)
    for preset in (presets.smdm_170m, presets.llada_8b, presets.llama2_7b):
        config = dataclasses.replace(preset, num_layers=1)
        shapes = jax.eval_shape(lambda config=config: init_params(config, jax.random.key(0)))
        for leaf in jax.tree.leaves(abstract(mesh, shapes)):
            if math.prod(leaf.shape) >= 1 << 16 and all(size % 8 == 0 for size in leaf.shape):
                local = leaf.sharding.shard_shape(leaf.shape)
                assert math.prod(local) * 8 == math.prod(leaf.shape), leaf


def test_rules_optimizer_state_lies_where_its_parameter_lies():
    mesh = make_mesh(data=1, fsdp=4, tensor=2)
    shape = jax.ShapeDtypeStruct((16, 16), "float32")
    name = {"layers_0": {"mlp": {"down": {"kernel": shape}}}}
    tree = {"params": name, "opt_state": (None, [name, name])}
    assert {s.spec for s in jax.tree.leaves(shardings(mesh, tree))} == {P("tensor", "fsdp")}


def test_batch_that_does_not_split_over_the_mesh_is_named():
    with pytest.raises(InputError, match="batch size 12 does not split over 8 devices"):
        check_batch(12, make_mesh(data=4, fsdp=2))


@pytest.mark.parametrize(
    ("optimizer", "meshes"),
    [
        ("adamw", [(2, 2, 2)]),
        pytest.param("adamw", [(8, 1, 1), (4, 2, 1)], marks=pytest.mark.slow),
        pytest.param("muon", [(2, 2, 2)], marks=pytest.mark.slow),
    ],
)
def test_training_gives_the_same_losses_on_every_mesh(tmp_path, optimizer, meshes):
    """Masks are drawn for the global batch, so that only the order of float32 sums differs between meshes."""
    losses, config = {}, dataclasses.replace(tiny.CONFIG, dropout=0.1)
    for sizes in [(1, 1, 1), *meshes]:
        mesh = make_mesh(*sizes, devices=jax.devices()[: math.prod(sizes)])
        folder = tmp_path / "x".join(map(str, sizes))
        tiny.train(folder, steps=8, mesh=mesh, config=config, optimizer=optimizer)
        lines = read_metrics(folder)
        losses[sizes] = [line["loss_per_token"] for line in lines]
    reference = losses.pop((1, 1, 1))
    assert len(reference) == 8
    for sizes, values in losses.items():
        assert values == pytest.approx(reference, rel=2e-5), sizes


@pytest.mark.slow
@pytest.mark.parametrize(
    ("sizes", "batch_size"),
    [
        pytest.param((8, 1, 1), 16, marks=pytest.mark.slow),
        pytest.param((8, 1, 1), 8, marks=pytest.mark.slow),
        pytest.param((4, 2, 1), 16, marks=pytest.mark.slow),
        ((2, 2, 2), 12),
    ],
)
def test_train_step_brings_no_activations_to_all_devices(capfd, sizes, batch_size):
    config = dataclasses.replace(presets.smdm_19m, num_layers=1, vocab_size=512)
    mesh, init, optimizer = make_mesh(*sizes), functools.partial(init_params, config), OptimizerConfig()
    step = make_train_step(make_denoiser(config), init, masked_loss(512), optimizer, mesh)
    shape = (batch_size, 16 * 512 // batch_size)
    batch = {"tokens": jax.ShapeDtypeStruct(shape, "int32"), "is_prompt": jax.ShapeDtypeStruct(shape, "bool")}
    compiled = step.lower(abstract_state(mesh, init, optimizer), batch).compile().as_text()
    assert "Involuntary full rematerialization" not in capfd.readouterr().err, "XLA's last resort"
    gathered = re.findall(r"= \w+\[([\d,]*)\]\S* all-gather\(", compiled)
    assert gathered, "tokens at least, since pairs of rows are brought together"
    largest_parameter = config.width * config.mlp_width
    assert math.prod(shape) * config.width / 8 * 2 > largest_parameter, "the activations of two devices are larger"
    assert max(math.prod(int(n) for n in found.split(",") if n) for found in gathered) <= largest_parameter


@pytest.mark.slow
def test_model_that_reads_groups_gives_the_same_over_a_mesh():
    config = tiny.grouped(
        presets.sudoku_800k, num_layers=1, max_length=20, num_groups=4, group_length=4, pad_id=9, init_std=0.1
    )
    mesh, denoiser = make_mesh(2, 2, 2), kinds.make_denoiser(config)
    params = kinds.init_params(config, jax.random.key(0))
    tokens = jax.random.randint(jax.random.key(1), (8, 20), 0, 10, "int32")
    want = jax.jit(denoiser)(params, tokens)
    placed = jax.device_put(params, shardings(mesh, params))
    assert placed["group_embedding"]["embedding"].sharding.spec == P(None, "fsdp")
    got = jax.jit(lambda params: denoiser(gathered(mesh, params), tokens))(placed)
    np.testing.assert_allclose(got, want, atol=1e-5 * np.abs(want).max())


@pytest.mark.slow
def test_gradients_of_jit_over_a_mesh_equal_those_of_pmap():
    """pmap, which nothing else here uses, works on each device's rows by itself and adds up."""
    denoiser, params = make_denoiser(tiny.CONFIG), init_params(tiny.CONFIG, jax.random.key(0))
    batch = tiny.to_batch({"tokens": tiny.data()["tokens"][:16]})
    drawn = Subset()(jax.random.key(1), jnp.asarray(batch["tokens"]), jnp.asarray(batch["is_prompt"]))

    def gradient(params, drawn):
        return jax.grad(lambda params: nll(denoiser, params, drawn, mask_id=0, draw=Subset()).sum())(params)

    mesh = make_mesh(data=2, fsdp=2, tensor=2)
    over_mesh = jax.jit(gradient, in_shardings=(shardings(mesh, params), NamedSharding(mesh, BATCH)))(params, drawn)

    def summed(params, drawn):
        return jax.lax.psum(gradient(params, drawn), "devices")

    rows = jax.tree.map(lambda x: x.reshape(8, 2, *x.shape[1:]), drawn)
    over_devices = jax.pmap(summed, axis_name="devices", in_axes=(None, 0))(params, rows)
    for name, leaf in jax.tree_util.tree_leaves_with_path(over_mesh):
        other = functools.reduce(lambda tree, key: tree[key.key], name, over_devices)
        np.testing.assert_allclose(leaf, other[0], rtol=1e-4, atol=1e-5, err_msg=str(name))


def test_masks_do_not_depend_on_the_number_of_devices_unlike_draws_made_per_device():
    key, t = jax.random.key(4), jnp.full(16, 0.5)
    x_0 = jnp.ones((16, 9), jnp.int32)

    def mask(key, x_0, t):
        return mdm_jax.forward_mask(key, x_0, t, schedule=mdm_jax.Linear(), mask_id=0)[1]

    alone = jax.jit(mask)(key, x_0, t)
    mesh = make_mesh()
    rows = NamedSharding(mesh, BATCH)
    spread = jax.jit(mask, in_shardings=(None, rows, rows), out_shardings=rows)(key, x_0, t)
    np.testing.assert_array_equal(alone, spread)

    def per_device(key, x_0, t):
        return mask(jax.random.fold_in(key, jax.lax.axis_index("data")), x_0, t)

    naive = jax.shard_map(per_device, mesh=mesh, in_specs=(P(), BATCH, BATCH), out_specs=BATCH)(key, x_0, t)
    assert (np.asarray(naive) != np.asarray(alone)).any(), "the trap is there for who draws per device"
