"""Orders: that they are permutations, how they are distributed, and what belongs to a row alone."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import toy

import mdm_jax

quick = pytest.fixture(scope="module", autouse=True)(toy.quick_compilation)


def parity(order):
    """0 for an even permutation, 1 for an odd one, by counting its inversions."""
    return sum(a > b for a, b in itertools.combinations(order, 2)) % 2


def orders_of(key, batch, length, num_swaps):
    return np.asarray(mdm_jax.near_identity_order(key, batch, length, num_swaps))


def test_uniform_order_of_many_rows_gives_permutations():
    order = mdm_jax.uniform_order(jax.random.key(0), 50, 17)
    assert order.dtype == jnp.int32
    np.testing.assert_array_equal(np.sort(order, axis=-1), np.broadcast_to(np.arange(17), (50, 17)))


def test_uniform_order_of_length_four_draws_all_24_orders_equally_often():
    order = np.asarray(mdm_jax.uniform_order(jax.random.key(1), 24_000, 4))
    index = {p: i for i, p in enumerate(itertools.permutations(range(4)))}
    toy.assert_frequencies([index[tuple(row)] for row in order.tolist()], np.full(24, 1 / 24))


def test_uniform_order_of_neighbouring_rows_is_independent():
    first, second = np.asarray(mdm_jax.uniform_order(jax.random.key(2), 18_000, 3)).reshape(-1, 2, 3).swapaxes(0, 1)
    index = {p: i for i, p in enumerate(itertools.permutations(range(3)))}
    pairs = [6 * index[tuple(a)] + index[tuple(b)] for a, b in zip(first.tolist(), second.tolist(), strict=True)]
    toy.assert_frequencies(pairs, np.full(36, 1 / 36))


@pytest.mark.thinned(2)
@pytest.mark.parametrize(
    "draw",
    [mdm_jax.uniform_order, functools.partial(mdm_jax.near_identity_order, num_swaps=3)],
    ids=["uniform", "near"],
)
def test_random_orders_of_a_row_do_not_depend_on_the_batch(draw):
    key = jax.random.key(3)
    few, together = draw(key, 3, 6), draw(key, 5, 6)
    np.testing.assert_array_equal(few, together[:3])
    keys = jax.vmap(jax.random.fold_in, (None, 0))(key, jnp.arange(5))
    np.testing.assert_array_equal(draw(keys[::-1], 5, 6), together[::-1])
    assert len(np.unique(np.asarray(together), axis=0)) > 1


def test_identity_order_is_left_to_right():
    np.testing.assert_array_equal(mdm_jax.identity_order(2, 4), [[0, 1, 2, 3], [0, 1, 2, 3]])


def test_near_identity_order_without_swaps_is_the_identity():
    np.testing.assert_array_equal(orders_of(jax.random.key(0), 3, 5, 0), mdm_jax.identity_order(3, 5))
    np.testing.assert_array_equal(orders_of(jax.random.key(0), 2, 1, 0), [[0], [0]])


@pytest.mark.thinned(3)
@pytest.mark.parametrize("num_swaps", [1, 2, 5])
def test_near_identity_order_has_the_parity_of_its_swaps(num_swaps):
    # Each swap of two distinct positions flips the parity; a swap of a position with itself would not.
    orders = orders_of(jax.random.key(num_swaps), 300, 4, num_swaps)
    np.testing.assert_array_equal(np.sort(orders, axis=-1), np.broadcast_to(np.arange(4), (300, 4)))
    assert {parity(row) for row in orders.tolist()} == {num_swaps % 2}


@pytest.mark.slow
def test_near_identity_order_with_one_swap_exchanges_every_pair_equally_often():
    orders = orders_of(jax.random.key(5), 15_000, 6, 1)
    moved = [tuple(np.flatnonzero(row != np.arange(6))) for row in orders]
    index = {pair: i for i, pair in enumerate(itertools.combinations(range(6), 2))}
    toy.assert_frequencies([index[pair] for pair in moved], np.full(15, 1 / 15))


def test_near_identity_order_after_two_swaps_follows_the_exact_law_of_two_transpositions():
    law = {}
    for a, b in itertools.product(itertools.combinations(range(4), 2), repeat=2):
        row = list(range(4))
        for i, j in (a, b):
            row[i], row[j] = row[j], row[i]
        law[tuple(row)] = law.get(tuple(row), 0) + 1 / 36
    index = {order: i for i, order in enumerate(sorted(law))}
    drawn = [index[tuple(row)] for row in orders_of(jax.random.key(6), 12_000, 4, 2).tolist()]
    toy.assert_frequencies(drawn, [law[order] for order in sorted(law)])


@pytest.mark.slow
def test_near_identity_order_of_many_swaps_moves_more_than_few():
    def moved(swaps):
        return (orders_of(jax.random.key(7), 200, 32, swaps) != np.arange(32)).sum(axis=-1).mean()

    # One swap moves exactly 2; s swaps move at most 2 s, and 100 of them leave about one position in place.
    assert moved(1) == 2
    assert 29 < moved(100) < 32


@pytest.mark.parametrize(("length", "num_swaps"), [(4, -1), (1, 1)])
def test_near_identity_order_with_impossible_swaps_is_refused(length, num_swaps):
    with pytest.raises(mdm_jax.InputError, match="num_swaps"):
        mdm_jax.near_identity_order(jax.random.key(0), 2, length, num_swaps)


def test_inverse_of_all_orders_of_length_four_undoes_them():
    orders = np.array(list(itertools.permutations(range(4))))
    rank = np.asarray(mdm_jax.inverse(jnp.asarray(orders)))
    assert rank.dtype == np.int32
    expected = [[row.index(position) for position in range(4)] for row in orders.tolist()]
    np.testing.assert_array_equal(rank, expected)


@pytest.mark.parametrize("draw", [mdm_jax.uniform_order, functools.partial(mdm_jax.near_identity_order, num_swaps=1)])
def test_random_orders_with_a_raw_key_are_refused(draw):
    with pytest.raises(mdm_jax.InputError, match="typed key"):
        draw(jax.random.PRNGKey(0), 2, 4)
