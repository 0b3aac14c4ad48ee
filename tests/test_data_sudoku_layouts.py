"""How puzzles are written as tokens, against sequences that plain Python writes by hand."""

import functools

import numpy as np
import pytest

from mdm_jax.errors import InputError
from mdm_jax.tasks.sudoku import layouts as sudoku_layouts
from mdm_jax.tasks.sudoku import puzzle as sudoku
from mdm_jax.tasks.sudoku import rules as sudoku_rules
from mdm_jax.tasks.sudoku import sets as sudoku_sets

SIZES = [4, 6, 9]
MASKED = ["in-place", "question-answer", "shifted"]
TRIPLES = ["triples", "ordered-triples"]

SYMBOLS = ["[PAD]", "[SEP]", "[MASK]", "[EOS]", "[UNK]", *"0123456789*+-/=,abcdefghij"]
"""The vocabulary of Ye et al.'s tokenizer; a token's id is its place."""


@functools.cache
def records(size):
    """Puzzles that the rules solve, with different numbers of givens."""
    found = sudoku_sets.rated(*sudoku.generate(40, size=size, seed=1))
    kept = np.flatnonzero(sudoku_rules.rate(found["puzzle"]).is_solved)[:12]
    assert len(kept) == 12
    assert len(set((found["puzzle"][kept] != 0).sum(axis=1))) > 1
    return {name: rows[kept] for name, rows in found.items()}


def pairs(size):
    return list(zip(records(size)["puzzle"].tolist(), records(size)["solution"].tolist(), strict=True))


def in_place(puzzle, solution):
    """Tokens, and which of them are asked for."""
    return solution, [digit == 0 for digit in puzzle]


def question_answer(puzzle, solution):
    return puzzle + solution, [False] * len(puzzle) + [True] * len(solution)


def shifted(puzzle, solution):
    text = [*map(str, puzzle), "[SEP]", *map(str, solution), "[EOS]"]
    return [SYMBOLS.index(symbol) for symbol in text], [False] * (len(puzzle) + 1) + [True] * (len(solution) + 1)


BY_HAND = {"in-place": (in_place, 0), "question-answer": (question_answer, 10), "shifted": (shifted, 2)}
"""How the sequence is written, and the mask token."""


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", MASKED)
def test_masked_layout_writes_the_sequence_and_masks_what_is_asked_for(name, size):
    layout, (write, mask_id) = sudoku_layouts.get(name, size), BY_HAND[name]
    examples, start = layout.examples(records(size)), layout.start(records(size))
    assert layout.mask_id == mask_id
    assert examples["tokens"].dtype == start.dtype == np.int32
    for i, (puzzle, solution) in enumerate(pairs(size)):
        tokens, is_asked = write(puzzle, solution)
        assert examples["tokens"][i].tolist() == tokens
        assert examples["is_prompt"][i].tolist() == [not asked for asked in is_asked]
        masked = [mask_id if asked else token for token, asked in zip(tokens, is_asked, strict=True)]
        assert start[i].tolist() == masked
        assert [token == mask_id for token in masked] == is_asked, "the mask token stands nowhere else"


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", MASKED)
def test_masked_layout_reads_back_the_answer_and_what_belongs_to_its_cells(name, size):
    layout = sudoku_layouts.get(name, size)
    tokens = layout.examples(records(size))["tokens"]
    np.testing.assert_array_equal(layout.answers(tokens), records(size)["solution"])
    assert layout.answers(tokens).dtype == np.int8
    places = np.broadcast_to(np.arange(layout.length), tokens.shape)
    first = {"in-place": 0, "question-answer": size**2, "shifted": size**2 + 1}[name]
    expected = np.broadcast_to(np.arange(first, first + size**2), (len(tokens), size**2))
    np.testing.assert_array_equal(layout.steps(places, places), expected)


@pytest.mark.parametrize(
    ("name", "length", "num_tokens"),
    [
        ("in-place", 81, 10),
        ("question-answer", 162, 11),
        ("shifted", 164, len(SYMBOLS)),
        ("triples", 243, 11),
        ("ordered-triples", 243, 11),
    ],
)
def test_layout_9x9_has_the_length_and_the_vocabulary_of_its_source(name, length, num_tokens):
    layout = sudoku_layouts.get(name, 9)
    assert (layout.name, layout.length, layout.num_tokens) == (name, length, num_tokens)
    assert layout.method == {"triples": "arm", "ordered-triples": "arm_ordered"}.get(name, "mdm")


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", MASKED + TRIPLES)
def test_layout_tokens_have_the_length_it_says_and_lie_in_its_vocabulary(name, size):
    layout = sudoku_layouts.get(name, size)
    tokens = layout.examples(records(size))["tokens"]
    assert tokens.shape == (12, layout.length)
    assert tokens.min() >= 0
    assert max(tokens.max(), layout.mask_id or 0) < layout.num_tokens


def test_shifted_layout_9x9_is_the_sequence_of_the_paper():
    quiz = "530070000600195000098000060800060003400803001700020006060000280000419005000080079"
    answer = "534678912672195348198342567859761423426853791713924856961537284287419635345286179"
    puzzle, solution = (np.array([[int(digit) for digit in text]], np.int8) for text in (quiz, answer))
    layout = sudoku_layouts.get("shifted")
    examples = layout.examples({"puzzle": puzzle, "solution": solution})
    tokens = examples["tokens"][0].tolist()
    assert tokens[:10] == [10, 8, 5, 5, 12, 5, 5, 5, 5, 11]
    assert tokens[79:91] == [12, 14, 1, 10, 8, 9, 11, 12, 13, 14, 6, 7]
    assert tokens[-3:] == [12, 14, 3]
    assert np.flatnonzero(~examples["is_prompt"][0]).tolist() == list(range(82, 164)), "81 digits and the end"
    assert layout.start({"puzzle": puzzle})[0].tolist() == tokens[:82] + 82 * [2]
    assert layout.shift_logits
    assert not any(sudoku_layouts.get(name, 9).shift_logits for name in ("in-place", "question-answer"))


@pytest.mark.parametrize(
    ("name", "digits", "others"),
    [
        ("in-place", {1: 1, 4: 4}, [0, 5]),
        ("question-answer", {1: 1, 4: 4}, [0, 5, 9, 10]),
        ("shifted", {6: 1, 9: 4}, [0, 1, 2, 3, 4, 5, 10, 14, 15, 30]),
    ],
)
def test_masked_layout_tokens_that_are_no_digits_of_the_size_are_read_as_blanks(name, digits, others):
    layout = sudoku_layouts.get(name, 4)
    tokens = np.zeros((1, layout.length), np.int32)
    written = [*digits, *others]
    first = {"in-place": 0, "question-answer": 16, "shifted": 17}[name]
    tokens[0, first : first + len(written)] = written
    tokens[0, first + len(written) :] = others[0]
    assert layout.answers(tokens)[0].tolist() == [*digits.values(), *[0] * (16 - len(digits))]


def by_hand_triples(puzzle, solution, key):
    """The givens' triples and the blanks', each a flat list; blanks sorted by `key(cell)`."""
    size = sudoku.size_of(len(puzzle))
    givens = [cell for cell in range(size**2) if puzzle[cell]]
    blanks = sorted((cell for cell in range(size**2) if not puzzle[cell]), key=key)
    return [
        [number for cell in cells for number in (cell // size, cell % size, solution[cell])]
        for cells in (givens, blanks)
    ]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", TRIPLES)
def test_triples_are_the_givens_and_then_the_blanks_in_their_order(name, size):
    layout = sudoku_layouts.get(name, size)
    examples, start = layout.examples(records(size)), layout.start(records(size))
    assert examples["tokens"].dtype == start.dtype == np.int32
    widest = 0
    for i, (puzzle, solution) in enumerate(pairs(size)):
        order = records(size)["order"][i].tolist()
        key = order.__getitem__ if name == "ordered-triples" else None
        givens, blanks = by_hand_triples(puzzle, solution, key)
        assert examples["tokens"][i].tolist() == givens + blanks
        assert examples["is_prompt"][i].tolist() == [True] * len(givens) + [False] * len(blanks)
        assert start[i].tolist() == givens + [-1] * (start.shape[1] - len(givens))
        widest = max(widest, len(givens))
    assert start.shape == (12, widest)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", TRIPLES)
def test_triples_read_back_are_the_answer_and_values_move_with_their_digits(name, size):
    layout = sudoku_layouts.get(name, size)
    examples = layout.examples(records(size))
    np.testing.assert_array_equal(layout.answers(examples["tokens"]), records(size)["solution"])
    # 1, 2, ... at the digits of the blanks is the order itself, where blanks stand in it.
    digit = np.cumsum(~examples["is_prompt"][:, 2::3], axis=1) * ~examples["is_prompt"][:, 2::3]
    values = np.full(examples["tokens"].shape, 99)
    values[:, 2::3] = digit
    if name == "ordered-triples":
        expected = records(size)["order"]
    else:
        is_blank = records(size)["puzzle"] == 0
        expected = np.cumsum(is_blank, axis=1) * is_blank
    np.testing.assert_array_equal(layout.steps(values, examples["tokens"]), expected)


def test_triples_that_are_none_are_left_out_and_later_ones_overwrite():
    written = [
        (0, 0, 1),
        (0, 1, 2),
        (0, 0, 3),  # in place of the 1
        (4, 0, 1),  # no such row
        (0, 4, 1),  # no such column, and not row 1
        (2, 2, 5),  # no digit of this size
        (2, 3, 0),
        (0, 1, 5),  # no digit: the 2 stays
        (-1, 0, 4),  # nothing comes from behind
        (3, -1, 4),
        (3, 3, -1),
        (3, 2, 4),
    ]
    expected = np.zeros((4, 4), int)
    expected[0, 0], expected[0, 1], expected[3, 2] = 3, 2, 4
    tokens = np.array([written + 4 * [(5, 5, 5)], 16 * [(1, 1, 1)]], np.int32).reshape(2, 48)
    layout = sudoku_layouts.get("triples")
    np.testing.assert_array_equal(layout.answers(tokens)[0].reshape(4, 4), expected)
    assert layout.answers(tokens)[1].tolist() == [0] * 5 + [1] + [0] * 10, "rows do not leak"


@pytest.mark.parametrize("size", [4, 9])
def test_triples_of_any_tokens_are_read_as_one_after_the_other(size):
    layout = sudoku_layouts.get("ordered-triples", size)
    tokens = np.random.default_rng(0).integers(-1, layout.num_tokens, (50, layout.length), np.int32)
    values = np.arange(tokens.size).reshape(tokens.shape)
    for i, row in enumerate(tokens.tolist()):
        grid, moved = [0] * size**2, [-1] * size**2
        for place in range(0, len(row), 3):
            line, column, digit = row[place : place + 3]
            if line in range(size) and column in range(size) and 1 <= digit <= size:
                grid[line * size + column] = digit
                moved[line * size + column] = values[i, place + 2]
        assert layout.answers(tokens)[i].tolist() == grid
        assert layout.steps(values, tokens)[i].tolist() == moved


def test_triples_of_hard_puzzles_have_no_order_of_the_rules():
    found = sudoku_sets.rated(*sudoku.generate(40, size=9, seed=2))
    hard = {name: rows[(found["order"] < 0).any(axis=1)][:1] for name, rows in found.items()}
    assert len(hard["puzzle"]) == 1
    mixed = {name: np.concatenate([rows, hard[name]]) for name, rows in records(9).items()}
    with pytest.raises(InputError, match=r"the rules do not solve every puzzle.*normal set") as caught:
        sudoku_layouts.get("ordered-triples").examples(mixed)
    assert "\n" not in str(caught.value)
    tokens = sudoku_layouts.get("triples").examples(mixed)["tokens"]
    np.testing.assert_array_equal(sudoku_layouts.get("triples").answers(tokens), mixed["solution"])
    start = sudoku_layouts.get("ordered-triples").start(mixed)
    assert (start[-1] >= 0).sum() == 3 * (hard["puzzle"] != 0).sum(), "they can be asked for all the same"


def test_get_unknown_layout_lists_the_known_ones():
    with pytest.raises(InputError, match=r"unknown layout 'rows'.*in-place, question-answer, shifted, triples, ord"):
        sudoku_layouts.get("rows")


@pytest.mark.parametrize("name", MASKED)
def test_symmetries_of_a_masked_layout_move_puzzle_and_answer_as_those_of_grids(name):
    layout, num = sudoku_layouts.get(name, 9), 12
    positions, ids = layout.symmetries(num, seed=5)
    tokens, start = layout.examples(records(9))["tokens"], layout.start(records(9))
    for sequences in (tokens, start):
        forms = np.stack([ids[s][x[positions[s]]] for s, x in enumerate(sequences)])
        np.testing.assert_array_equal(forms[0], sequences[0])
        np.testing.assert_array_equal(np.sort(positions, axis=1), np.arange(sequences.shape[1])[None].repeat(num, 0))
        if sequences is tokens:
            answers = layout.answers(forms)
            assert (answers[1:] != layout.answers(tokens)[1:]).any(axis=1).all()
        else:
            puzzles = layout.answers(forms) if layout.in_place else forms[:, :81] - layout.zero
    assert sudoku.is_solved(answers, puzzles).all()
    assert (ids[:, layout.mask_id] == layout.mask_id).all()
