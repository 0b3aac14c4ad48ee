"""Zebra puzzles against the meaning of clues in plain Python, enumeration of all grids and a plain search."""

import functools
import hashlib
import itertools

import numba
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mdm_jax.errors import InputError
from mdm_jax.tasks.zebra import clues as zebra_clues
from mdm_jax.tasks.zebra import puzzle as zebra
from mdm_jax.tasks.zebra.clues import LARGEST, SMALLEST, Size

MEANING = {
    "=": lambda last, a, b: a == b,
    "!=": lambda last, a, b: a != b,
    "left-of": lambda last, a, b: a < b,
    "immediate-left": lambda last, a, b: b == a + 1,
    "nbr": lambda last, a, b: b in (a - 1, a + 1),
    "ends": lambda last, a: a in (0, last),
    "inbetween": lambda last, a, b, c: min(b, c) < a < max(b, c),
}
"""What a clue says of the houses of its terms, by its type."""

NAMES = list(MEANING)
ARITY = {name: meaning.__code__.co_argcount - 1 for name, meaning in MEANING.items()}
SIZES = [Size(houses, attributes) for houses in range(3, 7) for attributes in range(3, 7)]


def written(clues):
    """A puzzle as a list of (type, terms)."""
    return [(NAMES[kind], terms[: ARITY[NAMES[kind]]]) for kind, *terms in clues.tolist() if kind >= 0]


def holds(name, places, houses):
    return MEANING[name](houses - 1, *places)


@functools.cache
def every_grid(size):
    """The house of each term in every grid there is: int8 `[42, grids]`."""
    orders = np.array(list(itertools.permutations(range(size.houses))), np.int8)
    choices = np.indices((len(orders),) * size.attributes).reshape(size.attributes, -1)
    places = np.full((42, choices.shape[1]), -1, np.int8)
    for attribute, choice in enumerate(choices):
        places[6 * attribute : 6 * attribute + size.houses] = orders[choice].T
    places[36:] = np.arange(6)[:, None]
    return places


def violated(size, clues):
    """Which clues each grid violates: bool `[clues, grids]`."""
    last, everywhere = size.houses - 1, every_grid(size)
    rows = []
    for name, terms in written(clues):
        places = [everywhere[term] for term in terms]
        if name == "nbr":
            rows.append(abs(places[0] - places[1]) != 1)
        elif name == "ends":
            rows.append((places[0] != 0) & (places[0] != last))
        elif name == "inbetween":
            low, high = np.minimum(*places[1:]), np.maximum(*places[1:])
            rows.append((places[0] <= low) | (places[0] >= high))
        else:
            rows.append(~MEANING[name](last, *places))
    return np.array(rows)


def count_by_search(clues, size, limit):
    """The number of solutions up to a limit, by plain backtracking with forward checking."""
    puzzle = written(clues)
    terms = [6 * attribute + value for attribute in range(size.attributes) for value in range(size.houses)]
    clues_of = {term: [clue for clue in puzzle if term in clue[1]] for term in terms}
    place = {36 + house: house for house in range(size.houses)}

    def fits(term, house):
        place[term] = house
        known = (clue for clue in clues_of[term] if all(other in place for other in clue[1]))
        is_right = all(holds(name, [place[other] for other in others], size.houses) for name, others in known)
        del place[term]
        return is_right

    def extend(open_to):
        if not open_to:
            return 1
        term = min(open_to, key=lambda term: len(open_to[term]))
        found = 0
        for house in open_to[term]:
            place[term] = house
            left = {}
            for other, houses in open_to.items():
                if other != term:
                    is_sibling = other // 6 == term // 6
                    left[other] = [h for h in houses if not (is_sibling and h == house) and fits(other, h)]
            if all(left.values()):
                found += extend(left)
            del place[term]
            if found >= limit:
                return limit
        return found

    return extend({term: [h for h in range(size.houses) if fits(term, h)] for term in terms})


def telling(size):
    """A clue that says nothing but the size: two values of one attribute are not in one house."""
    return [1, 6 * size.attributes - 6, 6 * size.attributes - 7 + size.houses, -1]


def without_each_clue(clues, size):
    """The puzzle with one clue replaced by one that says nothing, for each of its clues."""
    num = int((clues[:, 0] >= 0).sum())
    fewer = np.repeat(clues[None], num, axis=0)
    fewer[np.arange(num), np.arange(num)] = telling(size)
    return fewer


def sizes(puzzles):
    return list(itertools.starmap(Size, np.stack(zebra_clues.sizes_of(puzzles), axis=1).tolist()))


def generate(num, size, **options):
    return zebra.generate(num, smallest=size, largest=size, **options)


def random_clues(rng, size, num, is_true):
    """Clues of every kind that the grammar has; they hold where each value v is in house v, or need not."""
    terms = [6 * attribute + value for attribute in range(size.attributes) for value in range(size.houses)]
    terms += [36 + house for house in range(size.houses)]
    clues = [telling(size)]
    while len(clues) < num:
        kind = int(rng.integers(7))
        chosen = rng.choice(terms, ARITY[NAMES[kind]], replace=False).tolist()
        if min(chosen) < 36 and (not is_true or holds(NAMES[kind], [term % 6 for term in chosen], size.houses)):
            clues.append([kind, *chosen, *[-1] * (3 - len(chosen))])
    return np.array(clues, np.int8)


@pytest.mark.parametrize("houses", [3, 4, 5, 6])
@pytest.mark.parametrize("name", MEANING)
def test_relations_are_the_meaning_of_each_type_for_all_places(name, houses):
    table = zebra_clues.relations()[houses, NAMES.index(name)]
    for places in itertools.product(range(houses), repeat=3):
        assert table[places] == holds(name, places[: ARITY[name]], houses)


@pytest.mark.parametrize("houses", [3, 4, 5, 6])
@pytest.mark.parametrize("name", MEANING)
def test_support_leaves_a_term_just_the_houses_in_which_its_clue_can_hold(name, houses):
    domains = [[house for house in range(6) if mask >> house & 1] for mask in range(1 << houses)]
    pairs = list(itertools.product(range(1 << houses), repeat=2))
    if houses > 4:
        pairs = [pairs[i] for i in np.random.default_rng(houses).choice(len(pairs), 150, replace=False)]
    true = {
        places for places in itertools.product(range(houses), repeat=3) if holds(name, places[: ARITY[name]], houses)
    }
    everywhere = set(itertools.product(range(houses), repeat=3))
    for negated, allowed in enumerate((true, everywhere - true)):
        table = zebra_clues.support()[houses, NAMES.index(name) + 7 * negated]
        for role in range(3):
            earlier_role, later_role = (other for other in range(3) if other != role)
            by_others = {}
            for places in allowed:
                by_others.setdefault((places[earlier_role], places[later_role]), set()).add(places[role])
            for earlier, later in pairs:
                found = set()
                for others in itertools.product(domains[earlier], domains[later]):
                    found |= by_others.get(others, set())
                left = int(table[role, later, earlier]) & (1 << houses) - 1
                assert left == sum(1 << house for house in found)


@pytest.mark.thinned(5)
@pytest.mark.parametrize("is_true", [True, False])
@pytest.mark.parametrize(
    ("size", "num_puzzles"), [(Size(3, 3), 60), (Size(3, 4), 40), (Size(4, 3), 40), (Size(5, 3), 5)]
)
def test_solve_counts_the_solutions_that_enumeration_finds(size, num_puzzles, is_true):
    rng = np.random.default_rng(size.houses * 10 + size.attributes)
    counts = []
    for num in rng.integers(1, 10, num_puzzles):
        clues = random_clues(rng, size, num, is_true)
        is_right = ~violated(size, clues).any(axis=0)
        expected = int(is_right.sum())
        counts.append(expected)
        for limit in (1, 2, expected + 1, 10**9):
            grids, found = zebra.solve(clues[None], limit=limit)
            assert found.tolist() == [min(expected, limit)]
            assert found.dtype == np.int32
            assert zebra.is_solved(grids, clues[None]).tolist() == [expected > 0]
        if not expected:
            assert (grids == -1).all()
    assert len(set(counts)) > 2
    assert (min(counts) > 0) == is_true


@pytest.mark.parametrize("size", [Size(3, 3), Size(3, 4), Size(4, 3), Size(4, 4)])
def test_generate_1000_puzzles_have_one_solution_and_need_each_clue_by_enumeration(size):
    puzzles, solutions = generate(250, size, seed=3)
    house = every_grid(size)
    for clues, solution in zip(puzzles, solutions, strict=True):
        is_violated = violated(size, clues)
        num_violated = is_violated.sum(axis=0, dtype=np.int8)
        (only,) = np.flatnonzero(num_violated == 0)
        for term, value in enumerate(solution.tolist()):  # the cell of attribute a, house h is term 6 a + h
            assert (value < 0) == (term % 6 >= size.houses or term // 6 >= size.attributes)
            assert value < 0 or house[term - term % 6 + value, only] == term % 6
        assert is_violated[:, num_violated == 1].any(axis=1).all(), "without a clue there is a second solution"


@pytest.mark.parametrize(("size", "num"), [(Size(5, 5), 4), (Size(6, 6), 2), (Size(6, 3), 6), (Size(3, 6), 6)])
def test_generate_larger_puzzles_have_one_solution_by_a_plain_search(size, num):
    puzzles, solutions = generate(num, size, seed=4)
    assert [count_by_search(clues, size, 2) for clues in puzzles] == [1] * num
    assert zebra.is_solved(solutions, puzzles).all()


@pytest.mark.slow
def test_generate_1000_puzzles_of_all_sizes_have_one_solution_and_need_each_clue_by_a_plain_search():
    puzzles, _ = zebra.generate(1000, seed=5)
    of_size = sizes(puzzles)
    assert len(set(of_size)) == 16
    assert {count_by_search(clues, size, 2) for clues, size in zip(puzzles, of_size, strict=True)} == {1}
    for clues, size in zip(puzzles[:50], of_size, strict=False):
        assert {count_by_search(fewer, size, 2) for fewer in without_each_clue(clues, size)} == {2}


def test_generate_puzzles_of_all_sizes_are_minimal_and_unique():
    puzzles, solutions = zebra.generate(400, seed=6)
    grids, counts = zebra.solve(puzzles)
    np.testing.assert_array_equal(counts, 1)
    np.testing.assert_array_equal(grids, solutions)
    fewer = np.concatenate(
        [without_each_clue(clues, size) for clues, size in zip(puzzles, sizes(puzzles), strict=True)]
    )
    assert len(fewer) > 5000
    np.testing.assert_array_equal(zebra.solve(fewer)[1], 2)


def sizes_named(clues):
    terms = clues[:, 1:][clues[:, 1:] >= 0]
    return terms.max(initial=-1, where=terms < 36) // 6 + 1, (terms % 6).max(initial=-1) + 1


def test_generate_draws_every_size_evenly_and_its_clues_tell_it():
    num = 8000
    puzzles, solutions = zebra.generate(num, seed=7)
    assert puzzles.shape == (num, 36, 4)
    assert solutions.shape == (num, 36)
    assert puzzles.dtype == solutions.dtype == np.int8
    named = np.array([sizes_named(clues)[::-1] for clues in puzzles])
    np.testing.assert_array_equal(np.stack(zebra_clues.sizes_of(puzzles), axis=1), named)
    is_there = (solutions >= 0).reshape(-1, 6, 6)
    np.testing.assert_array_equal(is_there.any(axis=2).sum(axis=1), named[:, 1])
    np.testing.assert_array_equal(is_there.any(axis=1).sum(axis=1), named[:, 0])
    drawn, counts = np.unique(named, axis=0, return_counts=True)
    assert [Size(*size) for size in drawn.tolist()] == SIZES
    assert (abs(counts - num / 16) < 5 * np.sqrt(num / 16)).all()


def test_generate_stays_within_the_clues_and_tokens_that_its_size_says():
    lengths = {"ends": 6, "inbetween": 13}
    puzzles, _ = zebra.generate(4000, seed=8)
    for clues, size in zip(puzzles, sizes(puzzles), strict=True):
        assert len(written(clues)) <= size.max_clues
        assert sum(lengths.get(name, 10) for name, _ in written(clues)) <= size.max_tokens
    assert LARGEST.max_tokens == 348


def test_generate_uses_every_type_and_no_clue_that_goes_without_saying():
    puzzles, _ = generate(400, LARGEST, seed=9)
    clues = [clue for puzzle in puzzles for clue in written(puzzle)]
    for name in NAMES:
        terms = [terms for kind, terms in clues if kind == name]
        assert len(terms) > 0.03 * len(clues)
        assert all(sum(term >= 36 for term in some) <= min(1, len(some) - 1) for some in terms)
        if name != "ends":
            assert any(max(some) >= 36 for some in terms), "house numbers come in all"
        if name in ("=", "!="):
            assert all(a // 6 != b // 6 for a, b in terms)


def test_generate_solutions_are_even_at_3x3():
    num = 20_000
    _, solutions = generate(num, SMALLEST, seed=10)
    counts = np.unique(solutions, axis=0, return_counts=True)[1]
    assert len(counts) == 216
    chi_square = ((counts - num / 216) ** 2 / (num / 216)).sum()
    assert chi_square < 215 + 5 * np.sqrt(2 * 215)


@settings(max_examples=20, deadline=None)
@given(
    split=st.sampled_from(["train", "test", None]),
    seed=st.integers(0, 2**63 - 1),
    first=st.integers(0, 2**40),
    skipped=st.integers(0, 8),
    num=st.integers(0, 8),
)
def test_generate_first_skips_into_the_same_sequence(split, seed, first, skipped, num):
    options = {"largest": Size(4, 5), "seed": seed, "split": split}
    whole = zebra.generate(skipped + num, first=first, **options)
    part = zebra.generate(num, first=first + skipped, **options)
    for all_rows, rows in zip(whole, part, strict=True):
        np.testing.assert_array_equal(rows, all_rows[skipped:])


def test_generate_many_puzzles_are_those_made_in_small_parts():
    whole = generate(2500, SMALLEST)[0]
    parts = [generate(min(700, 2500 - i), SMALLEST, first=i)[0] for i in range(0, 2500, 700)]
    np.testing.assert_array_equal(whole, np.concatenate(parts))


def test_generate_any_number_of_threads_gives_the_same_puzzles():
    before = numba.get_num_threads()
    results = []
    try:
        for threads in range(1, min(numba.config.NUMBA_NUM_THREADS, 4) + 1):
            numba.set_num_threads(threads)
            results.append(zebra.generate(60, seed=11))
    finally:
        numba.set_num_threads(before)
    for puzzles, solutions in results:
        np.testing.assert_array_equal(puzzles, results[0][0])
        np.testing.assert_array_equal(solutions, results[0][1])


def test_generate_other_seeds_and_numbers_give_other_puzzles():
    puzzles = [zebra.generate(300, seed=seed)[0] for seed in range(3)]
    assert len(np.unique(np.concatenate(puzzles), axis=0)) == 900


def test_generate_same_version_gives_the_puzzles_it_always_gave():
    made = [zebra.generate(40, seed=1, split=split) for split in ("train", "test", None)]
    content = hashlib.sha256(b"".join(array.tobytes() for pair in made for array in pair)).hexdigest()
    # When this fails on purpose, raise GENERATOR_VERSION: prepared datasets are found again by it.
    assert (zebra.GENERATOR_VERSION, content[:16]) == (1, "177e4120c616a037")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"smallest": Size(2, 3)}, "2 to 6 houses.* 3 to 6"),
        ({"largest": Size(6, 7)}, "3 to 7 attributes"),
        ({"smallest": Size(5, 3), "largest": Size(4, 6)}, "5 to 4 houses.*smaller first"),
        ({"largest": Size(4.5, 6)}, "3 to 4.5 houses.*whole"),
        ({"seed": -1}, "seed=-1"),
        ({"seed": 2**63}, "seed=9223372036854775808"),
        ({"first": -2}, "first=-2"),
        ({"num": -3}, "num=-3"),
        ({"num": "many"}, "num='many' is not an integer"),
        ({"split": "valid"}, "split='valid' .*'train', 'test' or None"),
    ],
)
def test_generate_bad_argument_raises_one_line_that_names_it(options, words):
    with pytest.raises(InputError, match=words) as caught:
        zebra.generate(**{"num": 2, **options})
    assert "\n" not in str(caught.value)


GOOD = [[0, 0, 12, -1], [1, 2, 38, -1], [5, 6, -1, -1], [6, 1, 7, 14], [-1, -1, -1, -1]]


@pytest.mark.parametrize(
    ("clues", "words"),
    [
        (np.zeros((3, 4), np.int8), r"int8 of shape \(3, 4\).*\[num, clues, 4\]"),
        (np.zeros((1, 3, 4)), "float64"),
        ([[*GOOD, [7, 0, 6, -1]]], r"clues\[0, 5\] is \[7, 0, 6, -1\]: types are 0 to 6"),
        ([GOOD, [[-2, -1, -1, -1], *GOOD[1:]]], r"clues\[1, 0\] is \[-2"),
        ([[*GOOD, [0, 0, -1, -1]]], "ends takes 1 term, inbetween 3, others 2"),
        ([[*GOOD, [5, 0, 6, -1]]], "ends takes 1"),
        ([[*GOOD, [-1, 0, -1, -1]]], "ends takes 1"),
        ([[*GOOD, [0, 0, 42, -1]]], "terms are 0 to 41"),
        ([[*GOOD, [0, 36, 37, -1]]], "name one value at least"),
        ([[*GOOD, [5, 36, -1, -1]]], "name one value at least"),
        ([[*GOOD, [4, 6, 6, -1]]], "must differ"),
        ([[*GOOD, [6, 6, 7, 6]]], "must differ"),
        ([GOOD, [[0, 0, 13, -1]] * 5], "puzzle 1 names 2 houses: 3 to 6"),
        ([[[0, 0, 8, -1]]], "puzzle 0 names 2 attributes"),
        ([[[-1] * 4]], "puzzle 0 names 0 houses"),
    ],
)
def test_solve_bad_clues_raise_one_line_that_names_them(clues, words):
    zebra.solve([GOOD])
    for function in (zebra.solve, lambda clues: zebra.is_solved(np.zeros((len(clues), 36), int), clues)):
        with pytest.raises(InputError, match=words) as caught:
            function(clues)
        assert "\n" not in str(caught.value)


def test_solve_limit_below_one_raises():
    with pytest.raises(InputError, match="limit=0"):
        zebra.solve([GOOD], limit=0)


def test_solve_leaves_its_input_alone_and_takes_any_integers():
    puzzles, solutions = zebra.generate(5, seed=2)
    for given_as in (puzzles.astype(np.int64), puzzles.tolist(), np.asfortranarray(puzzles), puzzles[:, ::-1]):
        np.testing.assert_array_equal(zebra.solve(given_as)[0], solutions)
    frozen = puzzles.copy()
    frozen.flags.writeable = False
    np.testing.assert_array_equal(zebra.solve(frozen)[0], solutions)
    np.testing.assert_array_equal(frozen, puzzles)


@pytest.mark.parametrize("size", [Size(3, 3), Size(4, 6), Size(6, 6)])
def test_is_solved_any_single_wrong_cell_is_noticed_and_others_do_not_matter(size):
    (clues,), (grid,) = generate(1, size, seed=8)
    cells = np.flatnonzero(grid >= 0)
    for change in (-1, 6, 127, *range(size.houses)):
        spoilt = np.repeat(grid[None].astype(np.int32), len(cells), axis=0)
        spoilt[np.arange(len(cells)), cells] = change
        expected = grid[cells] == change
        np.testing.assert_array_equal(zebra.is_solved(spoilt, np.repeat(clues[None], len(cells), axis=0)), expected)
    elsewhere = np.where(grid < 0, 3, grid)
    assert zebra.is_solved([elsewhere], [clues]).all()


def test_is_solved_full_grids_are_right_just_where_all_clues_hold():
    size = Size(4, 3)
    (clues,), _ = generate(1, size, seed=9)
    kept = clues[:4]
    rng = np.random.default_rng(0)
    chosen = rng.choice(every_grid(size).shape[1], 2000, replace=False)
    grids = np.full((2000, 36), -1)
    for term in (6 * attribute + value for attribute in range(3) for value in range(4)):
        grids[np.arange(2000), term - term % 6 + every_grid(size)[term, chosen]] = term % 6
    told = np.concatenate([kept, [telling(size)]])
    expected = ~violated(size, told).any(axis=0)[chosen]
    assert 5 < expected.sum() < 1000
    np.testing.assert_array_equal(zebra.is_solved(grids, np.repeat(told[None], 2000, axis=0)), expected)


def test_is_solved_other_shape_raises():
    with pytest.raises(InputError, match=r"\(1, 35\).*\(1, 36\)"):
        zebra.is_solved(np.zeros((1, 35), int), [GOOD])


def mirrored(clues, solution, houses):
    """The puzzle with houses counted from the other end."""
    other = clues.copy()
    for clue in other:
        clue[1:] = [36 + houses - 1 - (term - 36) if term >= 36 else term for term in clue[1:]]
        if clue[0] in (2, 3):
            clue[1], clue[2] = clue[2], clue[1]
    grid = solution.reshape(6, 6).copy()
    grid[:, :houses] = grid[:, :houses][:, ::-1]
    return other, grid.reshape(-1)


def renamed(rng, clues, solution, size):
    """The puzzle with other names, another order of clues, and equal terms exchanged."""
    attributes = rng.permutation(size.attributes)
    values = [rng.permutation(size.houses) for _ in attributes]
    other = clues[rng.permutation(len(clues))]
    for clue in other:
        clue[1:] = [
            6 * attributes[term // 6] + values[term // 6][term % 6] if 0 <= term < 36 else term for term in clue[1:]
        ]
        if clue[0] in (0, 1, 4) and rng.integers(2):
            clue[1], clue[2] = clue[2], clue[1]
        if clue[0] == 6 and rng.integers(2):
            clue[2], clue[3] = clue[3], clue[2]
    grid = np.full((6, 6), -1, np.int8)
    for attribute, name in enumerate(attributes):
        grid[name, : size.houses] = values[attribute][solution.reshape(6, 6)[attribute, : size.houses]]
    return other, grid.reshape(-1)


def test_split_no_renaming_or_mirror_takes_a_puzzle_to_the_other_side():
    puzzles, solutions = zebra.generate(1500, seed=12)
    sides = zebra.in_test_split(puzzles, solutions)
    rng = np.random.default_rng(12)
    relatives = []
    for clues, solution, size in zip(puzzles, solutions, sizes(puzzles), strict=True):
        relative = renamed(rng, clues, solution, size)
        relatives.append(mirrored(*relative, size.houses) if rng.integers(2) else relative)
    other_puzzles, other_solutions = (np.stack(arrays) for arrays in zip(*relatives, strict=True))
    assert (other_puzzles != puzzles).any(axis=(1, 2)).all()
    # A renamed puzzle can lose the last value's name, and then is another one.
    is_told = np.all(np.equal(zebra_clues.sizes_of(other_puzzles), zebra_clues.sizes_of(puzzles)), axis=0)
    assert is_told.mean() > 0.98
    np.testing.assert_array_equal(zebra.in_test_split(other_puzzles[is_told], other_solutions[is_told]), sides[is_told])


def test_split_tells_near_relatives_apart():
    # A hash of too little of the puzzle could pass the test above.
    (clues,), (solution,) = generate(1, LARGEST, seed=13)
    pairs = list(itertools.combinations(range(36), 2))
    more = np.array([[1, a, b, -1] for a, b in pairs if a // 6 != b // 6], np.int8)
    house = np.argsort(solution.reshape(6, 6), axis=1).reshape(-1)
    more = more[house[more[:, 1]] != house[more[:, 2]]]
    puzzles = np.stack([np.concatenate([clues, [clue]]) for clue in more])
    share = zebra.in_test_split(puzzles, np.repeat(solution[None], len(more), axis=0)).mean()
    assert abs(share - 1 / 8) < 4 * np.sqrt(7 / 64 / len(more))


@pytest.mark.parametrize("size", [SMALLEST, Size(4, 4), LARGEST])
def test_split_generated_sides_are_those_of_the_hash_and_share_nothing(size):
    train, test = (generate(300, size, split=split) for split in ("train", "test"))
    assert not zebra.in_test_split(*train).any()
    assert zebra.in_test_split(*test).all()

    def sets(puzzles):
        return {frozenset(map(tuple, clues.tolist())) for clues in puzzles}

    assert not sets(train[0]) & sets(test[0])


def test_split_puts_one_puzzle_in_eight_into_test():
    num = 8000
    share = zebra.in_test_split(*zebra.generate(num, largest=Size(4, 4))).mean()
    assert abs(share - 1 / 8) < 5 * np.sqrt(7 / 64 / num)


def test_split_is_what_it_always_was():
    sides = zebra.in_test_split(*zebra.generate(64, seed=14))
    assert np.packbits(sides).tobytes().hex() == "0050202040020a30", (
        "never to be changed: puzzles would move between the sides"
    )


def test_split_wrong_solution_raises():
    puzzles, solutions = zebra.generate(3)
    with pytest.raises(InputError, match=r"solutions\[0\] does not solve"):
        zebra.in_test_split(puzzles, solutions[[1, 0, 2]])
