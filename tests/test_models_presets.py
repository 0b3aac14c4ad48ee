"""The named configurations have exactly the sizes that their sources state. Nothing is allocated."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import pytest

from mdm_jax import InputError
from mdm_jax.models import presets
from mdm_jax.models.denoiser import make_denoiser
from mdm_jax.models.kinds import num_params
from mdm_jax.models.transformer import TransformerConfig, init_params

COUNTS = {
    "sudoku_6m": (5_532_672, True),
    "sudoku_6m_deep": (5_534_720, True),
    "sudoku_8x256": (6_825_728, True),
    "sudoku_800k": (800_512, True),
    "smdm_6m": (6_294_784, False),
    "smdm_19m": (18_880_896, False),
    "smdm_34m": (33_563_136, False),
    "smdm_48m": (47_786_688, False),
    "smdm_66m": (65_549_440, False),
    "smdm_85m": (85_214_080, False),
    "smdm_113m": (113_265_408, False),
    "smdm_142m": (141_581_568, False),
    "smdm_170m": (169_897_728, False),
    "smdm_206m": (205_550_464, False),
    "smdm_231m": (231_244_160, False),
    "smdm_268m": (268_469_248, False),
    "smdm_302m": (302_027_776, False),
    "smdm_336m": (335_586_304, False),
    "smdm_472m": (471_906_560, False),
    "smdm_1028m": (1_027_677_952, False),
    "arm_42m": (42_629_760, True),
    "llada_8b": (8_015_581_184, True),
    "llama2_7b": (6_738_415_616, True),
    "gpt2": (124_439_808, True),
}


@pytest.mark.thinned(4)
@pytest.mark.parametrize("name", COUNTS)
def test_preset_has_exactly_its_number_of_parameters(name):
    count, embedding = COUNTS[name]
    assert num_params(presets.get(name), embedding=embedding) == count


def test_preset_every_one_has_its_name_and_its_count_tested():
    assert set(presets.PRESETS) == set(COUNTS)
    assert all(presets.get(name) is getattr(presets, name) for name in COUNTS if hasattr(presets, name))


def test_preset_arm_is_within_a_tenth_of_a_percent_of_its_source():
    assert num_params(presets.arm_42m) == pytest.approx(42_654_528, rel=1e-3)


@pytest.mark.thinned(4)
@pytest.mark.parametrize("name", COUNTS)
def test_preset_traces_at_its_full_length(name):
    # One layer tells as much about shapes and dtypes as thirty-two.
    config = dataclasses.replace(presets.get(name), num_layers=1)
    tokens = jax.ShapeDtypeStruct((2, config.max_length), jnp.int32)
    denoiser = make_denoiser(config)

    def logits(key, tokens):
        return denoiser(init_params(config, key), tokens)

    key = jax.eval_shape(lambda: jax.random.key(0))
    assert jax.eval_shape(logits, key, tokens) == jax.ShapeDtypeStruct(
        (2, config.max_length, config.vocab_size), jnp.float32
    )


@pytest.mark.parametrize("name", COUNTS)
def test_preset_json_round_trip_is_equal(name):
    config = presets.get(name)
    assert TransformerConfig.from_json(json.loads(json.dumps(config.to_json()))) == config


def test_preset_unknown_name_lists_the_known_ones():
    with pytest.raises(InputError, match=r"unknown preset 'gpt3'; choose one of sudoku_6m, .*smdm_19m, .*gpt2"):
        presets.get("gpt3")
