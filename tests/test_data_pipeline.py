"""Batches: each record once an epoch, the same batches after a resume and under any number of processes."""

import itertools
import json
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mdm_jax.data.pipeline import Batches
from mdm_jax.errors import InputError


def records(num):
    """Records that carry their own number in both fields."""
    numbers = np.arange(num)
    return {"number": numbers, "cells": np.stack([numbers, -numbers], axis=1).astype(np.int16)}


def take(batches, count):
    return list(itertools.islice(batches, count))


def numbers(batches, count):
    return np.concatenate([batch["number"] for batch in take(batches, count)])


def assert_same(got, expected):
    assert len(got) == len(expected)
    for one, other in zip(got, expected, strict=True):
        assert set(one) == set(other)
        for name, array in one.items():
            np.testing.assert_array_equal(array, other[name])


def test_batches_hold_every_field_of_the_same_records():
    for batch in take(Batches(records(50), batch_size=7, seed=1), 20):
        assert batch["number"].shape == (7,)
        assert batch["cells"].dtype == np.int16
        np.testing.assert_array_equal(batch["cells"], np.stack([batch["number"], -batch["number"]], axis=1))


@settings(max_examples=15, deadline=None)
@given(data=st.data(), num=st.integers(1, 40), seed=st.integers(0, 2**32 - 1))
def test_batches_each_epoch_covers_every_record_once(data, num, seed):
    batch_size = data.draw(st.integers(1, num))
    epochs = 3
    seen = numbers(Batches(records(num), batch_size=batch_size, seed=seed), -(-epochs * num // batch_size))
    for epoch in range(epochs):
        np.testing.assert_array_equal(np.sort(seen[epoch * num : (epoch + 1) * num]), np.arange(num))


def test_batches_epochs_and_seeds_have_different_orders():
    orders = [numbers(Batches(records(60), batch_size=20, seed=seed), 9).reshape(3, 60) for seed in (0, 1)]
    distinct = {tuple(epoch) for order in orders for epoch in order.tolist()}
    assert len(distinct) == 6
    assert tuple(range(60)) not in distinct


def test_batches_same_seed_gives_the_same_batches():
    assert_same(*(take(Batches(records(30), batch_size=4, seed=9), 20) for _ in range(2)))


@pytest.mark.parametrize("steps", [0, 1, 5, 13])
def test_batches_resumed_go_on_as_if_never_stopped(steps):
    never_stopped = take(Batches(records(30), batch_size=4, seed=3), steps + 12)
    stopped = Batches(records(30), batch_size=4, seed=3)
    take(stopped, steps)
    state = json.loads(json.dumps(stopped.get_state()))
    resumed = Batches(records(30), batch_size=4, seed=3)
    take(resumed, 2)  # wherever it was
    resumed.set_state(state)
    assert resumed.get_state() == state
    assert_same(take(resumed, 12), never_stopped[steps:])


@pytest.mark.thinned(3)
@pytest.mark.parametrize("count", [2, 3, 6])
def test_batches_of_all_processes_together_are_the_batch_of_one(count):
    whole = take(Batches(records(40), batch_size=12, seed=5), 8)
    parts = [take(Batches(records(40), batch_size=12, seed=5, rows=part), 8) for part in np.split(np.arange(12), count)]
    joined = [
        {name: np.concatenate([part[name] for part in step]) for name in step[0]} for step in zip(*parts, strict=True)
    ]
    assert_same(joined, whole)


@pytest.mark.thinned(3)
@pytest.mark.parametrize(("before", "after"), [(1, 2), (2, 1), (2, 4)])
def test_batches_state_moves_to_another_number_of_processes(before, after):
    def start(index, count):
        return Batches(records(40), batch_size=8, seed=6, rows=np.split(np.arange(8), count)[index])

    states = []
    for index in range(before):
        stopped = start(index, before)
        take(stopped, 7)
        states.append(stopped.get_state())
    assert all(state == states[0] for state in states)
    resumed = [start(index, after) for index in range(after)]
    for one in resumed:
        one.set_state(states[0])
    joined = [
        np.concatenate([part["number"] for part in step])
        for step in zip(*(take(one, 5) for one in resumed), strict=True)
    ]
    np.testing.assert_array_equal(np.concatenate(joined), numbers(start(0, 1), 12)[7 * 8 :])


def draw(batch, rng):
    """What augments here: a number drawn for each record, and how many records there are."""
    num = len(batch["number"])
    return {**batch, "drawn": rng.integers(1 << 62, size=num), "whole": np.full(num, num)}


def augmented(*, seed=4, rows=None, batch_size=4, num=12):
    return Batches(records(num), batch_size=batch_size, seed=seed, rows=rows, augment=draw)


def test_batches_augmented_are_the_same_records_each_changed_in_its_own_way():
    batches, plain = take(augmented(), 9), take(Batches(records(12), batch_size=4, seed=4), 9)
    assert_same([{name: batch[name] for name in ("number", "cells")} for batch in batches], plain)
    drawn = np.concatenate([batch["drawn"] for batch in batches])
    assert len(set(drawn.tolist())) == 36, "another change for each record, batch and epoch"
    assert_same(take(augmented(), 9), batches)
    assert not set(drawn.tolist()) & set(np.concatenate([batch["drawn"] for batch in take(augmented(seed=5), 9)]))


@pytest.mark.parametrize("steps", [0, 2, 7])
def test_batches_augmented_and_resumed_go_on_as_if_never_stopped(steps):
    never_stopped = take(augmented(), steps + 8)
    stopped = augmented()
    take(stopped, steps)
    state = json.loads(json.dumps(stopped.get_state()))
    resumed = augmented()
    take(resumed, 3)
    resumed.set_state(state)
    assert_same(take(resumed, 8), never_stopped[steps:])


def test_batches_augmented_rows_are_those_of_the_whole_augmented_batch():
    whole = take(augmented(), 8)
    for rows in ([0, 1], [2, 3], [3, 0], [1]):
        part = take(augmented(rows=rows), 8)
        assert_same(part, [{name: array[rows] for name, array in batch.items()} for batch in whole])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"arrays": {}}, "at least one; got none"),
        ({"arrays": {"a": np.zeros(9), "b": np.zeros(8)}}, "'a': 9, 'b': 8"),
        ({"batch_size": 0}, "batch_size=0: choose 1 to 20"),
        ({"batch_size": 21}, "batch_size=21: choose 1 to 20"),
        ({"rows": [0, 8]}, r"rows=\[0, 8\]: choose from 0 to 7"),
        ({"rows": [-1]}, r"rows=\[-1\]"),
        ({"seed": -1}, "seed=-1"),
        ({"seed": 2**32}, "seed=4294967296"),
    ],
)
def test_batches_bad_argument_raises_one_line_that_names_it(change, words):
    options = {"arrays": records(20), "batch_size": 8, "seed": 0, **change}
    with pytest.raises(InputError, match=words) as caught:
        Batches(options.pop("arrays"), **options)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("change", [{"batch_size": 4}, {"seed": 1}, {"num": 24}])
def test_batches_state_of_other_batches_is_refused(change):
    options = {"num": 20, "batch_size": 8, "seed": 0, **change}
    other = Batches(records(options.pop("num")), **options)
    with pytest.raises(InputError, match="the state is of batches with"):
        other.set_state(Batches(records(20), batch_size=8, seed=0).get_state())


def test_pipeline_module_imports_without_grain():
    code = "import sys, mdm_jax.data.pipeline; assert 'grain' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
