"""How Zebra puzzles are written as tokens, against sequences that plain Python writes from their token form."""

import functools

import numpy as np
import pytest

from mdm_jax.errors import InputError
from mdm_jax.tasks.zebra import clues as zebra_clues
from mdm_jax.tasks.zebra import layouts as zebra_layouts
from mdm_jax.tasks.zebra import puzzle as zebra
from mdm_jax.tasks.zebra import sets as zebra_sets
from mdm_jax.tasks.zebra import text as zebra_text
from mdm_jax.tasks.zebra import tokens as zebra_tokens
from mdm_jax.tasks.zebra.clues import LARGEST, SMALLEST, Size

VOCABULARY = "MASK = != left-of immediate-left nbr ends inbetween 0 1 2 3 4 5 c n LHS RHS CLUE_END ANSWER EXTRA"
IDS = {word: i for i, word in enumerate(VOCABULARY.split())}
SIZES = [SMALLEST, Size(3, 4), Size(5, 3), LARGEST]
TRIPLES = ["triples", "ordered-triples"]


@functools.cache
def records(size):
    """Puzzles of different sizes, some of which deduction does not solve."""
    found = zebra_sets.ordered(*zebra.generate(60, largest=size, seed=1))
    assert (found["order"] < 0).any()
    return found


def rows(size):
    """The puzzles in lists: (clues as token ids, houses, attributes, solution, order)."""
    numbers = zip(*zebra_clues.sizes_of(records(size)["clues"]), strict=True)
    for (houses, attributes), clues, solution, order in zip(numbers, *records(size).values(), strict=True):
        words = zebra_text.write_puzzle(clues).split()
        yield [IDS[word] for word in words], houses, attributes, solution.tolist(), order.tolist()


def test_vocabulary_is_that_of_the_source_with_its_padding():
    assert list(zebra_tokens.SYMBOLS) == list(IDS)
    assert (IDS["ANSWER"], IDS["EXTRA"]) == (19, 20)


def written_clues(clues, size):
    """Each clue in 13 places: its type, LHS and a term, RHS and two terms, CLUE_END; padding for those that lack."""
    found, clue = [], []
    for token in clues:
        clue.append(token)
        if token == IDS["CLUE_END"]:
            found += clue[:-1] + [IDS["EXTRA"]] * (13 - len(clue)) + clue[-1:]
            clue = []
    return found + [IDS["EXTRA"]] * (13 * size.max_clues - len(found))


@pytest.mark.parametrize("size", SIZES)
def test_masked_layout_writes_clues_padding_and_cells_in_place(size):
    layout = zebra_layouts.get("in-place", size)
    examples, start = layout.examples(records(size)), layout.start(records(size))
    assert examples["tokens"].dtype == start.dtype == np.int32
    assert examples["tokens"].shape == start.shape == (60, layout.length)
    for i, (clues, houses, attributes, solution, _) in enumerate(rows(size)):
        prompt = written_clues(clues, size)
        answer, asked = [], []
        for attribute in range(size.attributes):
            for value in range(size.houses):
                asked.append(attribute < attributes and value < houses)
                row = solution[6 * attribute : 6 * attribute + 6]
                answer.append(IDS[str(row.index(value))] if asked[-1] else IDS["EXTRA"])
        assert examples["tokens"][i].tolist() == prompt + answer
        assert examples["is_prompt"][i].tolist() == [True] * len(prompt) + [not ask for ask in asked]
        assert start[i].tolist() == prompt + [IDS["MASK"] if ask else IDS["EXTRA"] for ask in asked]


@pytest.mark.parametrize("size", SIZES)
def test_masked_layout_reads_back_the_answer_and_what_belongs_to_its_cells(size):
    layout = zebra_layouts.get("in-place", size)
    examples = layout.examples(records(size))
    assert layout.answers(examples["tokens"]).dtype == np.int8
    np.testing.assert_array_equal(layout.answers(examples["tokens"]), records(size)["solution"])
    places = np.where(examples["is_prompt"], -1, np.arange(layout.length))
    cells = layout.steps(places, examples["tokens"])
    np.testing.assert_array_equal(cells >= 0, records(size)["solution"] >= 0)
    expected = 13 * size.max_clues + np.arange(36) // 6 * size.houses + records(size)["solution"]
    np.testing.assert_array_equal(cells, np.where(cells >= 0, expected, -1))


def test_masked_layout_tokens_that_are_no_houses_are_left_out_and_later_ones_overwrite():
    layout = zebra_layouts.get("in-place", Size(4, 4))
    puzzles, _ = zebra.generate(1, largest=Size(3, 3), seed=2)
    tokens = layout.start({"clues": puzzles})
    written = [
        "0",
        "5",
        "MASK",
        "3",
        "1",
        "1",
        "c",
        "0",
        "n",
        "3",
        "2",
        "1",
        "0",
        "1",
        "2",
        "3",
    ]  # 3 x 3 of 4 x 4 count
    tokens[0, -16:] = [IDS[word] for word in written]
    grid = layout.answers(tokens).reshape(6, 6)
    steps = layout.steps(np.arange(layout.length)[None], tokens) - layout.num_prompt
    np.testing.assert_array_equal(steps.reshape(6, 6)[:3, :3] >= 0, grid[:3, :3] >= 0)
    assert steps.max() == 10
    assert grid[:3, :3].tolist() == [[0, -1, -1], [-1, 1, -1], [-1, -1, 2]]
    assert (grid[3:] == -1).all()
    assert (grid[:, 3:] == -1).all()


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", TRIPLES)
def test_triples_are_clues_answer_and_the_cells_in_their_order(name, size):
    layout = zebra_layouts.get(name, size)
    examples, start = layout.examples(records(size)), layout.start(records(size))
    assert examples["tokens"].dtype == start.dtype == np.int32
    assert examples["tokens"].shape == (60, layout.length)
    for i, (clues, houses, attributes, solution, order) in enumerate(rows(size)):
        cells = [6 * attribute + house for attribute in range(attributes) for house in range(houses)]
        keys = order if name == "ordered-triples" else [6 * (cell // 6) + solution[cell] for cell in range(36)]
        cells.sort(key=lambda cell: abs(keys[cell]))
        question = [*written_clues(clues, size), IDS["ANSWER"]]
        answer = [IDS[str(number)] for cell in cells for number in (cell // 6, solution[cell], cell % 6)]
        padding = [IDS["EXTRA"]] * (layout.length - len(question) - len(answer))
        assert examples["tokens"][i].tolist() == question + answer + padding
        is_prompt = [True] * len(question) + [False] * len(answer) + [True] * len(padding)
        assert examples["is_prompt"][i].tolist() == is_prompt
        assert start[i].tolist() == question


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", TRIPLES)
def test_triples_read_back_are_the_answer_and_values_move_with_them(name, size):
    layout = zebra_layouts.get(name, size)
    tokens = layout.examples(records(size))["tokens"]
    behind = np.arange(layout.length) >= layout.num_prompt
    junk = np.random.default_rng(0).integers(0, 21, tokens.shape)  # what comes behind the answer does not matter
    tokens = np.where(behind & (tokens == IDS["EXTRA"]), junk, tokens)
    np.testing.assert_array_equal(layout.answers(tokens), records(size)["solution"])
    rank = layout.steps(np.broadcast_to(np.arange(layout.length) - layout.num_prompt, tokens.shape), tokens)
    is_cell = records(size)["solution"] >= 0
    if name == "ordered-triples":
        expected = 3 * np.abs(records(size)["order"].astype(int)) - 1
    else:
        first = np.cumsum(is_cell, axis=1).reshape(60, 6, 6)[:, :, :1] - 1  # the cells before those of an attribute
        expected = 3 * (first + records(size)["solution"].reshape(60, 6, 6)).reshape(60, 36) + 2
    np.testing.assert_array_equal(rank, np.where(is_cell, expected, -1))


def test_triples_that_are_none_are_left_out_and_later_ones_overwrite():
    layout = zebra_layouts.get("triples", Size(4, 4))
    clues = "!= LHS c 2 0 RHS c 2 2 CLUE_END = LHS c 0 1 RHS n 0 1 CLUE_END"  # 3 x 3
    triples = ["0 1 0", "0 2 1", "0 2 0", "3 1 0", "0 1 3", "1 3 1", "c 1 1", "2 MASK 2", "2 0 2", "1 0 0"]
    question = [*written_clues([IDS[word] for word in clues.split()], layout.size), IDS["ANSWER"]]
    answer = [IDS[word] for word in " ".join(triples).split()]
    tokens = np.full((2, layout.length), IDS["1"], np.int32)
    tokens[:, : len(question)] = question
    tokens[0, len(question) : len(question) + len(answer)] = answer
    grids = layout.answers(tokens).reshape(2, 6, 6)
    assert grids[0, :3, :3].tolist() == [[2, 2, -1], [-1, -1, -1], [-1, -1, 0]], "nine triples count, the tenth not"
    assert (grids[:, 3:] == -1).all()
    assert (grids[:, :, 3:] == -1).all()
    assert grids[1, :3, :3].tolist() == [[-1] * 3, [-1, 1, -1], [-1] * 3], "rows do not leak"


@pytest.mark.parametrize("name", TRIPLES)
def test_triples_of_any_tokens_are_read_as_one_after_the_other(name):
    size = Size(5, 3)
    layout = zebra_layouts.get(name, size)
    start = layout.start(records(size))
    rng = np.random.default_rng(1)
    tokens = np.concatenate([start, rng.integers(7, 15, (60, 3 * size.num_cells), np.int32)], axis=1)
    values = np.arange(tokens.size).reshape(tokens.shape)
    grids, moved = layout.answers(tokens), layout.steps(values, tokens)
    for i, (_, houses, attributes, _, _) in enumerate(rows(size)):
        grid, places = [-1] * 36, [-1] * 36
        for k in range(houses * attributes):
            at = start.shape[1] + 3 * k
            attribute, value, house = (int(token) - IDS["0"] for token in tokens[i, at : at + 3])
            if attribute in range(attributes) and house in range(houses) and value in range(houses):
                grid[6 * attribute + house], places[6 * attribute + house] = value, values[i, at + 2]
        assert grids[i].tolist() == grid
        assert moved[i].tolist() == places


@pytest.mark.parametrize(
    ("name", "length", "small"),
    [("in-place", 504, 9 * 13 + 9), ("triples", 577, 9 * 13 + 28), ("ordered-triples", 577, 9 * 13 + 28)],
)
def test_layout_has_the_length_and_the_vocabulary_that_it_says(name, length, small):
    layout = zebra_layouts.get(name)
    assert (layout.name, layout.size, layout.length, layout.num_tokens) == (name, LARGEST, length, 21)
    assert zebra_layouts.get(name, SMALLEST).length == small
    assert layout.method == {"triples": "arm", "ordered-triples": "arm_ordered"}.get(name, "mdm")
    assert layout.pad_id == IDS["EXTRA"]


@pytest.mark.parametrize("name", zebra_layouts.LAYOUTS)
def test_layout_puzzle_that_does_not_fit_raises_one_line(name):
    puzzles, _ = zebra.generate(2, smallest=Size(4, 3), largest=Size(4, 3))
    for size, words in (
        (Size(3, 3), r"puzzle 0 has 4 houses, and 3 is the most"),
        (Size(4, 3), r"puzzle [01] has \d+ clues, and 12 "),
    ):
        layout = zebra_layouts.get(name, size)
        too_many = np.concatenate([puzzles, puzzles, puzzles], axis=1)
        with pytest.raises(InputError, match=words) as caught:
            layout.start({"clues": too_many})
        assert "\n" not in str(caught.value)
    with pytest.raises(InputError, match="names 0 houses"):
        zebra_layouts.get(name).start({"clues": np.full((1, 2, 4), -1)})


def test_get_unknown_layout_or_size_is_one_line():
    with pytest.raises(InputError, match=r"unknown layout 'rows'.*in-place, triples, ordered-triples"):
        zebra_layouts.get("rows")
    with pytest.raises(InputError, match=r"3 to 7 houses"):
        zebra_layouts.get("triples", Size(7, 3))
