"""Low-rank adapters: only they are trained, saved and resumed, and the model that loads is the one that was trained."""

import functools
import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
import toy

import mdm_jax
from mdm_jax.errors import InputError
from mdm_jax.loading import Model, export
from mdm_jax.models.kinds import init_params, make_denoiser
from mdm_jax.sharding import make_mesh
from mdm_jax.training.lora import Lora
from mdm_jax.training.record import read_record

RANK = 2

quick = pytest.fixture(scope="module", autouse=True)(toy.quick_compilation)


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """A folder with a random network of the tiny task, and its parameters."""
    folder = tmp_path_factory.mktemp("base")
    params = init_params(tiny.CONFIG, jax.random.key(7))
    export(Model(tiny.CONFIG, params, make_denoiser(tiny.CONFIG)), folder, dtype="float32")
    return folder, mdm_jax.load(folder).params


def train(folder, base, **options):
    where, params = base
    usual = {"steps": 12, "ema": 0.0, "lora": Lora(str(where), RANK), "start_from": params}
    return tiny.train(folder, **usual | options)


@pytest.fixture(scope="module")
def finished(base, tmp_path_factory):
    """A run over one device, and its last state."""
    folder = tmp_path_factory.mktemp("finished")
    return folder, train(folder, base)


def assert_equal(one, other):
    jax.tree.map(np.testing.assert_array_equal, one, other)


def changed_by_hand(params, adapters, alpha):
    """W + alpha / r · a b of every matrix that has adapters."""
    found = jax.tree.map(np.asarray, params)
    for layer, parts in adapters.items():
        for part, matrices in parts.items():
            for name, own in matrices.items():
                a, b = np.asarray(own["kernel"]["a"]), np.asarray(own["kernel"]["b"])
                found[layer][part][name]["kernel"] = found[layer][part][name]["kernel"] + alpha / RANK * a @ b
    return found


@pytest.mark.slow
def test_only_adapters_of_attention_and_mlp_are_trained_and_saved_and_load_adds_their_products(base, finished):
    folder, state = finished
    assert set(state.params["layers_0"]) == {"attention", "mlp"}
    assert set(state.params["layers_0"]["attention"]) == {"query", "key", "value", "output"}
    assert all(leaf.any() for leaf in jax.tree.leaves(state.params)), "every b has left 0"
    record = read_record(folder / "checkpoints" / "12")
    saved = [name for item in ("params", "optimizer") for name in record["shapes"][item] if "layers" in name]
    assert saved
    assert all(name.endswith(("/kernel/a", "/kernel/b")) for name in saved)
    assert sum(leaf.size for leaf in jax.tree.leaves(state.params)) == sum(
        int(np.prod(shape)) for shape in record["shapes"]["params"].values()
    )
    loaded = mdm_jax.load(folder).params
    by_hand = changed_by_hand(base[1], state.params, alpha=16.0)
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, atol=1e-6), loaded, by_hand)


def test_fresh_adapters_leave_the_network_as_it_is(base):
    lora, params = Lora(str(base[0]), RANK), base[1]
    adapters = lora.init(params, jax.random.key(0))
    assert_equal(lora.merge(params, adapters), params)
    assert all(x.std() > 0 for path, x in jax.tree.leaves_with_path(adapters) if path[-1].key == "a")


def test_merging_again_compiles_nothing(base, monkeypatch):
    traces, merge = [], Lora.merge
    monkeypatch.setattr(Lora, "merge", lambda *given: traces.append(1) or merge(*given))
    lora, params = Lora(str(base[0]), RANK, alpha=3.0), base[1]
    adapters = lora.init(params, jax.random.key(0))
    for _ in range(3):
        merged = lora.merged(params, adapters)
    assert len(traces) == 1
    assert_equal(merged, params)


@pytest.mark.slow
def test_run_goes_on_bit_for_bit_and_what_is_evaluated_is_the_whole_network(base, finished, tmp_path):
    seen = []
    with pytest.raises(tiny.CrashError):
        train(tmp_path, base, stop=8)
    state = train(
        tmp_path,
        base,
        evaluate=lambda params: seen.append(params) or {"found": 0.0},
        start_from=lambda: base[1],
    )
    assert_equal(state.params, finished[1].params)
    assert_equal(seen[-1], mdm_jax.load(tmp_path).params)


@pytest.mark.eight_devices
@pytest.mark.slow
def test_adapters_over_a_mesh_learn_what_they_learn_on_one_device(base, finished, tmp_path):
    mesh = make_mesh(2, 2, 2)
    start = mdm_jax.load(base[0], mesh=mesh).params
    state = train(tmp_path, base, mesh=mesh, start_from=start)
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, atol=1e-4), state.params, finished[1].params)
    up = state.params["layers_0"]["mlp"]["up"]["kernel"]
    assert up["a"].addressable_shards[0].data.shape == (8, RANK)
    assert up["b"].addressable_shards[0].data.shape == (RANK, 16)
    on_mesh, on_one = (mdm_jax.load(tmp_path, mesh=where).params for where in (mesh, None))
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, atol=1e-6), on_mesh, on_one)
    assert jax.tree.map(lambda x: x.sharding, on_mesh) == jax.tree.map(lambda x: x.sharding, start)


def test_adapters_of_a_bfloat16_network_give_bfloat16_parameters():
    params = jax.tree.map(lambda x: x.astype(jnp.bfloat16), init_params(tiny.CONFIG, jax.random.key(7)))
    lora = Lora("base", RANK)
    adapters = lora.init(params, jax.random.key(0))
    assert {leaf.dtype for leaf in jax.tree.leaves(adapters)} == {jnp.dtype("float32")}
    merged = lora.merge(params, adapters)
    assert {leaf.dtype for leaf in jax.tree.leaves(merged)} == {jnp.dtype("bfloat16")}


def edited(folder, tmp_path, **fields):
    """A copy of a run whose config.json says something else of the adapters."""
    copy = tmp_path / "copy"
    copy.mkdir()
    (copy / "checkpoints").symlink_to(pathlib.Path(folder, "checkpoints").absolute())
    config = json.loads((folder / "config.json").read_text())
    config["lora"] |= fields
    (copy / "config.json").write_text(json.dumps(config))
    return copy


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"base": "/no/such/folder"}, "config.json names a base that cannot be taken: there is no folder /no/such/f"),
        ({"digest": 1}, "has other parameters than those that the adapters were trained on: put the old ones there"),
        ({"rank": 3}, "is of another network: layers_0/attention/key/kernel/a is 16 x 2 there and 16 x 3 here"),
        ({"rank": 0}, "rank must be a whole number, at least 1"),
        ({"more": 1}, "adapters are described by base, rank, alpha and digest; got"),
        ({"base": 5}, "adapters are described by base, rank, alpha and digest; got"),
    ],
)
def test_run_whose_base_is_gone_or_another_is_not_loaded(finished, tmp_path, fields, words):
    with pytest.raises(InputError, match=words):
        mdm_jax.load(edited(finished[0], tmp_path, **fields))


def test_adapters_without_a_base_or_without_a_matrix_to_change_are_refused(base, tmp_path):
    with pytest.raises(InputError, match="give fit start_from"):
        train(tmp_path, base, start_from=None)
    with pytest.raises(InputError, match="no parameter of this network can be adapted"):
        train(tmp_path, base, start_from={"table": jnp.zeros((8, 8))})


def test_another_base_in_the_folder_of_a_run_is_refused(base, finished):
    other = functools.partial(jax.tree.map, lambda leaf: leaf * 2)
    with pytest.raises(InputError, match=r"holds a run with another config .lora: digest"):
        train(finished[0], base, start_from=other(base[1]))
