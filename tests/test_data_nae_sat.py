"""L&O-NAE-SAT sequences."""

import math

import numpy as np
import pytest

from mdm_jax.data import builders
from mdm_jax.errors import InputError
from mdm_jax.tasks.nae_sat import distribution as nae_sat
from mdm_jax.tasks.nae_sat.task import NaeSat


def test_observations_are_one_unless_the_three_latents_of_their_triple_are_equal():
    tokens = nae_sat.generate(50, 7, 30, seed=3, split="train")
    triples = nae_sat.observations(7, 30, seed=3).tuples
    assert tokens.shape == (50, 37)
    for row in tokens.tolist():
        for triple, bit in zip(triples.tolist(), row[7:], strict=True):
            assert bit == (len({row[i] for i in triple}) > 1)


@pytest.mark.parametrize(("n", "p"), [(25, 275), (30, 270), (40, 260), (50, 250), (100, 200)])
def test_three_quarters_of_the_observations_are_one_in_every_row_of_table_1(n, p):
    # Triples of distinct latents: with repetition it would be 0.72 at N = 25.
    ones = nae_sat.generate(4000, n, p, split="train")[:, n:].mean()
    assert abs(ones - 0.75) < 0.006


def test_triples_are_different_of_distinct_latents_and_fixed_by_the_seed():
    triples = nae_sat.observations(25, 275, seed=1).tuples
    assert len(set(map(tuple, triples.tolist()))) == 275
    assert all(len(set(triple)) == 3 for triple in triples.tolist())
    np.testing.assert_array_equal(triples, nae_sat.observations(25, 275, seed=1).tuples)
    assert (triples != nae_sat.observations(25, 275, seed=2).tuples).any()


@pytest.mark.parametrize("split", ["validation", None])
def test_another_split_is_named(split):
    with pytest.raises(InputError, match=f"split={split!r}"):
        nae_sat.generate(1, 5, 6, split=split)


def test_splits_have_the_same_triples_and_independent_latents():
    train, test = (nae_sat.generate(2000, 60, 40, split=split) for split in ("train", "test"))
    functions = nae_sat.observations(60, 40)
    for tokens in (train, test):
        assert nae_sat.accuracy(tokens, functions, 60).min() == 1
    assert abs((train[:, :60] == test[:, :60]).mean() - 0.5) < 5 * math.sqrt(0.25 / 120_000)
    assert not {row.tobytes() for row in train[:, :60]} & {row.tobytes() for row in test[:, :60]}


def test_latents_are_uniform_whatever_the_number_of_sequences():
    tokens = nae_sat.generate(5000, 8, 4, split="train")
    assert np.abs(tokens[:, :8].mean(axis=0) - 0.5).max() < 5 * math.sqrt(0.25 / 5000)
    np.testing.assert_array_equal(nae_sat.generate(10, 8, 4, split="train"), tokens[:10])


def test_examples_are_padded_with_given_tokens_at_the_end():
    tokens = nae_sat.generate(3, 5, 6, split="train")
    padded = nae_sat.examples(tokens, length=16)
    np.testing.assert_array_equal(padded["tokens"][:, :11], tokens)
    assert (padded["tokens"][:, 11:] == nae_sat.PAD_ID).all()
    np.testing.assert_array_equal(padded["is_prompt"], np.arange(16)[None].repeat(3, 0) >= 11)
    plain = nae_sat.examples(tokens)
    assert plain["tokens"].shape == (3, 11)
    assert not plain["is_prompt"].any()


def test_start_holds_masks_and_the_padding():
    found = nae_sat.start(2, 4, length=6)
    np.testing.assert_array_equal(found, [[3, 3, 3, 3, 2, 2]] * 2)


def test_accuracy_is_the_share_of_observations_that_agree_with_their_own_latents():
    functions = nae_sat.observations(4, 8)
    tokens = nae_sat.generate(5, 4, 8, split="test")
    tokens[0, 4:7] ^= 1
    tokens[1, 11] = nae_sat.MASK_ID
    np.testing.assert_allclose(
        nae_sat.accuracy(nae_sat.examples(tokens, 20)["tokens"], functions, 4)[:3], [5 / 8, 7 / 8, 1]
    )


def test_independent_bits_agree_in_five_of_eight_cases():
    # 0.75² + 0.25²: what vanilla inference falls back to in the worst row of Table 1.
    rng, functions = np.random.default_rng(0), nae_sat.observations(25, 275)
    tokens = np.concatenate([rng.integers(2, size=(3000, 25)), rng.random((3000, 275)) < 0.75], axis=1)
    assert abs(nae_sat.accuracy(tokens, functions, 25).mean() - 0.625) < 0.01


def test_builder_writes_both_splits_and_names_every_input(tmp_path):
    options = {"num_latents": 5, "num_observations": 7, "num_train": 20, "num_test": 9, "seed": 4}
    builder = NaeSat(**options).prepare(tmp_path)
    for split, num in (("train", 20), ("test", 9)):
        tokens = builders.read_split(builder, split)["tokens"]
        np.testing.assert_array_equal(tokens, nae_sat.generate(num, 5, 7, seed=4, split=split))
    names = {NaeSat(**options).dataset}
    for name in options:
        names.add(NaeSat(**{**options, name: options[name] + 1}).dataset)
    assert len(names) == 6


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: nae_sat.observations(2, 4), "k=3 distinct latents cannot be drawn from N=2"),
        (lambda: nae_sat.observations(4, 25), "give at most 24"),
        (lambda: nae_sat.observations(4, 0), "num_observations=0"),
        (lambda: nae_sat.check_length(10, 11), "length=10 is too short for N \\+ P = 11"),
        (lambda: NaeSat(num_latents=4, num_observations=3, num_train=0, num_test=1), "num_train=0"),
    ],
)
def test_bad_parameters_are_one_line_that_names_them(call, message):
    with pytest.raises(InputError, match=message):
        call()
