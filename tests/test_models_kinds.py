"""Kinds of network: one that reads groups of tokens, and one of a user's own, from training to the benchmark."""

import dataclasses
import json
import pathlib
import re
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from commands import ENV, ROOT, rows
from test_models_transformer import GROUPED, PAD, TINY, draw_tokens, lively_params, logits_of, relative
from tiny import grouped

import mdm_jax
import mdm_jax.loading
from mdm_jax import InputError
from mdm_jax.models import kinds, presets
from mdm_jax.models.config import ModelConfig
from mdm_jax.models.kinds import KINDS, Kind


@pytest.mark.slow
def test_transformer_groups_of_one_token_are_tokens_without_a_position():
    plain = dataclasses.replace(TINY, positions="learned")
    config, params, tokens = grouped(plain, num_groups=3, group_length=1), lively_params(plain), draw_tokens()
    table = params["position_embedding"]["embedding"]
    without = params | {"position_embedding": {"embedding": table.at[:3].set(0)}}
    behind = {"position_embedding": {"embedding": table[3:]}}
    groups = params | behind | {"group_embedding": {"embedding": params["token_embedding"]["embedding"] / np.sqrt(2)}}
    want = logits_of(plain, without, tokens)
    np.testing.assert_allclose(logits_of(config, groups, tokens), want, atol=1e-5 * np.abs(want).max())
    assert relative(logits_of(plain, params, tokens), want) > 0.01


@pytest.mark.slow
def test_transformer_groups_are_a_set_whose_tokens_have_places_and_padding_is_hidden():
    params = lively_params(GROUPED)
    tokens = jax.random.randint(jax.random.key(3), (4, 14), 0, 11, jnp.int32)
    tokens = tokens.at[:, 2].set(PAD)  # a place left empty
    want = logits_of(GROUPED, params, tokens)
    assert want.shape == (4, 14, 11)
    np.testing.assert_array_equal(want[:, 0], want[:, 2])
    assert relative(want[:, 3], want[:, 2]) > 0.05
    groups = tokens[:, :9].reshape(4, 3, 3)
    other = jnp.concatenate([groups[:, ::-1].reshape(4, 9), tokens[:, 9:]], axis=1)
    np.testing.assert_allclose(logits_of(GROUPED, params, other)[:, 9:], want[:, 9:], atol=1e-5 * np.abs(want).max())
    other = jnp.concatenate([groups[:, :, ::-1].reshape(4, 9), tokens[:, 9:]], axis=1)
    assert relative(logits_of(GROUPED, params, other)[:, 9:], want[:, 9:]) > 0.05
    fewer = dataclasses.replace(GROUPED, num_groups=2, max_length=11)
    for first in (0, 3, 6):
        others = jnp.concatenate([tokens[:, :first], tokens[:, first + 3 :]], axis=1)
        got = logits_of(GROUPED, params, tokens.at[:, first : first + 3].set(PAD))[:, 9:]
        want = logits_of(fewer, params, others)[:, 6:]
        np.testing.assert_allclose(got, want, atol=1e-5 * np.abs(want).max(), err_msg=str(first))


def test_transformer_with_groups_says_what_it_cannot_take():
    with pytest.raises(InputError, match=r"length 8 are shorter than the 3 groups of 3"):
        logits_of(GROUPED, lively_params(GROUPED), draw_tokens(length=8))
    for name, change in (
        ("positions", {"positions": "rope"}),
        ("shift_logits", {"shift_logits": True}),
        ("num_groups", {"num_groups": 5}),
        ("num_groups", {"num_groups": -1}),
        ("num_groups", {"num_groups": 1, "group_length": 1}),
        ("group_length", {"group_length": 0}),
        ("group_length", {"group_length": 2**31 - 1}),
    ):
        with pytest.raises(InputError, match=rf"GroupedTransformerConfig\.{name} must be"):
            dataclasses.replace(GROUPED, **change)


# A kind of a user's own: the module of docs/extending.md, word for word.

PAGE = (pathlib.Path(__file__).parents[1] / "docs" / "extending.md").read_text()
MODULE = next(block for block in re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL) if "class MixerConfig" in block)


@pytest.fixture
def mixer(tmp_path, monkeypatch):
    """The module, imported; its kind is known while a test runs."""
    (tmp_path / "my_mixer.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path)
    known, named = dict(KINDS), dict(presets.PRESETS)
    import my_mixer

    yield my_mixer
    sys.modules.pop("my_mixer")
    for table, before in ((KINDS, known), (presets.PRESETS, named)):
        table.clear()
        table.update(before)


def test_network_of_a_kind_of_ones_own_trains_and_loads_and_samples(mixer, tmp_path):
    config = mixer.MixerConfig(vocab_size=8, max_length=6, width=16)
    state = tiny.train(tmp_path / "run", steps=3, config=config)
    assert json.loads((tmp_path / "run" / "config.json").read_text())["model"] == kinds.to_json(config)
    model = mdm_jax.load(tmp_path / "run")
    assert (model.config, model.denoiser) == (config, mixer.MixerDenoiser(config))
    jax.tree.map(np.testing.assert_array_equal, model.params, state.eval_params)
    assert f"{kinds.num_params(model.params):,} parameters" in repr(model)
    tokens = jnp.full((2, 6), tiny.MASK, jnp.int32)
    result = mdm_jax.sample(model.denoiser, model.params, jax.random.key(0), tokens, mask_id=tiny.MASK)
    assert result.nfe == 6
    weights = mdm_jax.loading.export(tmp_path / "run", tmp_path / "weights", dtype="float32").parent
    jax.tree.map(np.testing.assert_array_equal, mdm_jax.load(weights).params, model.params)
    KINDS.pop("mixer")
    with pytest.raises(InputError, match=r"of the kind 'mixer', and known are transformer, .*--plugin"):
        mdm_jax.load(tmp_path / "run")


@pytest.mark.slow
def test_network_of_a_kind_of_ones_own_is_trained_evaluated_and_timed_by_commands(tmp_path):
    (tmp_path / "my_mixer.py").write_text(MODULE)

    def run(experiment, *argv, code=0):
        command = [sys.executable, "-m", f"experiments.{experiment}", *map(str, argv)]
        environment = ENV | {"PYTHONPATH": str(tmp_path)}
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == code, done.stderr[-2000:]
        return done.stderr

    by, out = ("--plugin", "my_mixer"), tmp_path / "run"
    data = ("--size", 4, "--num-train", 20, "--num-test", 8, "--data", tmp_path / "data")
    train = ("--model", "mixer_small", "--steps", 2, "--batch-size", 4, "--evaluate-limit", 4, "--out", out)
    run("sudoku", "train", *by, *data, *train)
    run("sudoku", "evaluate", *by, "--checkpoint", out, "--limit", 4, "--out", tmp_path / "evaluate")
    assert [row["n"] for row in rows(tmp_path / "evaluate")] == [4]
    small = ("--batch", 1, "--turns", 1, "--oracle", "margin", "--temperature", 0, "--selector", "per_step:40")
    for model in ("mixer_small", out):
        run("throughput", "run", *by, "--model", model, *small, "--out", tmp_path / "timed")
        (row,) = rows(tmp_path / "timed")
        assert "roofline_share" not in row
    assert "--plugin" in run("sudoku", "evaluate", "--checkpoint", out, "--out", tmp_path / "evaluate", code=2)


def test_kind_that_cannot_be_is_refused():
    @dataclasses.dataclass(frozen=True, kw_only=True)
    class Config(ModelConfig):
        width: int = 3

    kind = Kind(Config, lambda config, key: {}, lambda config: None)
    for name, wrong, words in (
        ("transformer", kind, "the kind transformer is the library's own"),
        ("mine", kind._replace(config=dict), "must be a frozen dataclass derived from ModelConfig"),
        ("mine", kind._replace(config=type("Bare", (Config,), {})), "must be a frozen dataclass"),
    ):
        with pytest.raises(InputError, match=words):
            kinds.register(name, wrong)
    with pytest.raises(InputError, match="a Config is of no kind that is registered"):
        kinds.to_json(Config(vocab_size=3, max_length=4))
    with pytest.raises(InputError, match=r"Config\.max_length must be"):
        Config(vocab_size=3, max_length=0)
    with pytest.raises(InputError, match="unknown keys in a TransformerConfig: depth"):
        kinds.adapted(TINY, {"depth": 3})


def test_config_with_fields_that_its_kind_lacks_is_refused_unless_they_ask_for_nothing(mixer):
    config = mixer.MixerConfig(vocab_size=8, max_length=6)
    assert kinds.adapted(config, {"causal": False, "max_length": 9}).max_length == 9
    with pytest.raises(InputError, match="unknown keys in a MixerConfig: causal"):
        kinds.adapted(config, {"causal": True})
    with pytest.raises(InputError, match="the kind mixer reads whole sequences"):
        kinds.make_decoder(config)
