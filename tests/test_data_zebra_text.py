"""The token form and English, read and written; the fish riddle."""

import itertools

import numpy as np
import pytest

from mdm_jax.errors import InputError
from mdm_jax.tasks.zebra import english as zebra_english
from mdm_jax.tasks.zebra import puzzle as zebra
from mdm_jax.tasks.zebra import riddles as zebra_riddles
from mdm_jax.tasks.zebra import text as zebra_text
from mdm_jax.tasks.zebra.clues import Size
from mdm_jax.tasks.zebra.english import NUMBERS, Attribute, describe_clues, describe_grid
from mdm_jax.tasks.zebra.formats import read_puzzles


def read(path):
    (puzzle,) = read_puzzles(path).puzzles
    return puzzle


FORMS = [
    ([0, 1, 8, -1], "= LHS c 0 1 RHS c 1 2 CLUE_END"),
    ([1, 35, 36, -1], "!= LHS c 5 5 RHS n 0 0 CLUE_END"),
    ([2, 12, 13, -1], "left-of LHS c 2 0 RHS c 2 1 CLUE_END"),
    ([3, 38, 8, -1], "immediate-left LHS n 0 2 RHS c 1 2 CLUE_END"),
    ([4, 18, 0, -1], "nbr LHS c 3 0 RHS c 0 0 CLUE_END"),
    ([5, 24, -1, -1], "ends LHS c 4 0 CLUE_END"),
    ([6, 0, 41, 30], "inbetween LHS c 0 0 RHS n 0 5 c 5 0 CLUE_END"),
]


@pytest.mark.parametrize(("clue", "text"), FORMS)
def test_token_form_of_a_clue_is_that_of_the_grammar_both_ways(clue, text):
    assert zebra_text.write_clue(clue) == text
    assert zebra_text.parse_clue(text, "here") == clue
    assert zebra_text.parse_clue(f"  {text.replace(' ', '   ')}\t", "here") == clue


def test_token_form_of_puzzles_read_back_is_the_puzzle(tmp_path):
    puzzles, _ = zebra.generate(60, seed=1)
    for clues in puzzles:
        path = tmp_path / "puzzle.txt"
        path.write_text("# a comment\n\n" + zebra_text.write_puzzle(clues))
        np.testing.assert_array_equal(read(path).clues, clues[clues[:, 0] >= 0])


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("same LHS c 0 1 RHS c 1 2 CLUE_END", "'same' is no type of clue: choose one of =, !=, left-of"),
        ("= RHS c 0 1 RHS c 1 2 CLUE_END", "token 2 is 'RHS': LHS is wanted in = LHS"),
        ("= LHS d 0 1 RHS c 1 2 CLUE_END", r"token 3 is 'd': c \(a value\) or n \(a house\) is wanted"),
        ("= LHS c 6 1 RHS c 1 2 CLUE_END", "token 4 is '6': 6 attributes with 6 values have attr 0 to 5"),
        ("= LHS c x 1 RHS c 1 2 CLUE_END", "token 4 is 'x'"),
        ("= LHS c 0 -1 RHS c 1 2 CLUE_END", "token 5 is '-1': .* val 0 to 5"),
        ("= LHS c 0 01 RHS c 1 2 CLUE_END", "token 5 is '01'"),
        ("= LHS n 1 1 RHS c 1 2 CLUE_END", "token 4 is '1': a house has attr 0"),
        ("= LHS n 0 6 RHS c 1 2 CLUE_END", "token 5 is '6': a house has val 0 to 5"),
        ("= LHS c 0 1 RHS c 1 2", "9 tokens, but 10 are wanted: = LHS"),
        ("= LHS c 0 1 RHS c 1 2 CLUE_END more", "11 tokens, but 10"),
        ("= LHS c 0 1 CLUE_END", "token 6 is 'CLUE_END': RHS is wanted"),
        ("ends LHS c 0 1 RHS c 1 2 CLUE_END", "token 6 is 'RHS': CLUE_END is wanted in ends LHS"),
        ("inbetween LHS c 0 1 RHS c 1 2 RHS c 2 0 CLUE_END", "token 10 is 'RHS': c .* in inbetween LHS"),
        ("nbr LHS c 0 1 RHS c 0 1 CLUE_END", "names the same twice"),
        ("left-of LHS n 0 1 RHS n 0 2 CLUE_END", "names no value, just houses"),
        ("ends LHS n 0 0 CLUE_END", "names no value"),
    ],
)
def test_read_puzzle_bad_line_is_named_with_what_is_wrong(tmp_path, text, words):
    path = tmp_path / "puzzle.txt"
    path.write_text(f"# first\n{FORMS[0][1]}\n\n{text}\n")
    with pytest.raises(InputError, match=rf"puzzle\.txt:4: .*{words}") as caught:
        read(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("place", range(10))
def test_parse_clue_any_token_spoilt_or_missing_is_one_line(place):
    words = FORMS[0][1].split()
    for spoilt in ([*words[:place], "?", *words[place + 1 :]], words[:place], [*words[:place], *words[place + 1 :]]):
        with pytest.raises(InputError, match=r"^here: ") as caught:
            zebra_text.parse_clue(" ".join(spoilt), "here")
        assert "\n" not in str(caught.value)


def test_read_puzzle_size_that_is_wanted_is_held_against_every_line():
    lines = ["= LHS c 0 1 RHS c 1 2 CLUE_END", "= LHS c 2 3 RHS c 1 1 CLUE_END", "ends LHS c 0 4 CLUE_END"]
    assert len(zebra_text.parse_puzzle(lines, "p", Size(5, 3))) == 3
    for size, words in (
        (Size(4, 3), "p:3: token 5 is '4': 3 attributes with 4 values have val 0 to 3"),
        (Size(6, 3), "p: its clues name 5 houses, not 6: add one"),
        (Size(5, 4), "p: its clues name 3 attributes, not 4"),
    ):
        with pytest.raises(InputError, match=words):
            zebra_text.parse_puzzle(lines, "p", size)


def test_read_puzzle_file_that_holds_none_is_one_line(tmp_path):
    path = tmp_path / "puzzle.txt"
    for content, words in (
        (b"", "holds no clue: write one on each line"),
        (b"# nothing\n", "holds no clue"),
        (FORMS[0][1].encode(), "name 2 attributes, not 3 to 6: .* such as != LHS c 2 0 RHS n 0 0 CLUE_END"),
        (b"= LHS c 0 1 RHS c 2 1 CLUE_END", "name 2 houses, not 3 to 6: .* such as != LHS c 0 2 RHS n 0 0 CLUE_END"),
        (b"\xff", "not UTF-8"),
    ):
        path.write_bytes(content)
        with pytest.raises(InputError, match=words) as caught:
            read(path)
        assert "\n" not in str(caught.value)
    with pytest.raises(InputError, match=r"none\.txt cannot be read"):
        read(tmp_path / "none.txt")


def test_english_says_each_type_with_values_and_with_houses():
    clues = [
        ([0, 0, 6, -1], "The Brit is the one whose colour is red."),
        ([0, 0, 36, -1], "The Brit lives in the first house."),
        ([0, 37, 12, -1], "The one who drinks tea lives in the second house."),
        ([1, 0, 6, -1], "The Brit is not the one whose colour is red."),
        ([1, 41, 18, -1], "The owner of the dog does not live in the sixth house."),
        ([2, 6, 19, -1], "The one whose colour is red lives somewhere to the left of the owner of the bird."),
        ([2, 38, 19, -1], "The third house is somewhere to the left of the owner of the bird."),
        ([3, 24, 30, -1], "The one who plays the piano lives directly to the left of the baker."),
        ([4, 1, 39, -1], "The Swede lives next to the fourth house."),
        ([5, 35, -1, -1], "The cook lives in the first or the last house."),
        ([6, 3, 40, 4], "The Norwegian lives somewhere between the fifth house and the German."),
    ]
    assert describe_clues(np.array([clue for clue, _ in clues])) == [text for _, text in clues]


def test_english_numbers_and_own_names():
    clues = np.array([[1, 0, 14, -1], [-1] * 4, [2, 1, 36, -1]])
    assert describe_clues(clues, NUMBERS) == [
        "The one whose attribute 0 is 0 is not the one whose attribute 2 is 2.",
        "The one whose attribute 0 is 1 lives somewhere to the left of the first house.",
    ]
    own = [Attribute("hat", ("big", "small", "no"), "who wears the {value} {name}")] * 3
    assert describe_clues(clues, own)[0] == "Who wears the big hat is not who wears the no hat."
    with pytest.raises(InputError, match="2 attributes, and the puzzle has 3"):
        describe_clues(clues, own[:2])
    with pytest.raises(InputError, match="hat has 2 names of values, not 3"):
        describe_clues(clues, [Attribute("hat", ("big", "small"))] * 3)


def test_english_tells_all_clues_of_the_grammar_apart():
    terms = [0, 1, 6, 7, 12, 36, 41]
    size = [1, 12, 14, -1]
    said = set()
    count = 0
    for kind, arity in enumerate((2, 2, 2, 2, 2, 1, 3)):
        for chosen in itertools.permutations(terms, arity):
            if min(chosen) < 36 and not (kind < 2 and chosen[0] >= 36):  # that is said as from the other end
                said.add(describe_clues(np.array([[kind, *chosen, *[-1] * (3 - arity)], size]))[0])
                count += 1
    assert len(said) == count


def test_english_default_names_are_all_different():
    values = [value for attribute in zebra_english.NAMES for value in attribute.values]
    assert len(set(values)) == 36
    assert all(len(attribute.values) == 6 for attribute in (*zebra_english.NAMES, *NUMBERS))


def test_describe_grid_says_who_lives_where():
    grid = np.full((6, 6), -1)
    grid[:3, :4] = [[3, 1, 2, 0], [0, 1, -1, 3], [2, 0, 1, -1]]
    assert describe_grid(grid.reshape(-1)) == [
        "house 1: Norwegian, red, milk",
        "house 2: Swede, green, tea",
        "house 3: Dane, ?, coffee",
        "house 4: Brit, yellow, ?",
    ]
    assert describe_grid(np.full(36, -1)) == []


def test_fish_riddle_has_one_solution_in_which_the_german_keeps_the_fish():
    riddle = zebra_riddles.get("fish")
    assert len(riddle.clues) == 15
    (grid,), counts = zebra.solve(riddle.clues[None], limit=100)
    assert counts.tolist() == [1]
    assert describe_grid(grid, riddle.names) == [
        "house 1: Norwegian, yellow, water, Dunhill, cats",
        "house 2: Dane, blue, tea, Blend, horses",
        "house 3: Brit, red, milk, Pall Mall, birds",
        "house 4: German, green, coffee, Prince, fish",
        "house 5: Swede, white, beer, Blue Master, dogs",
    ]


def test_fish_riddle_in_english_is_the_riddle():
    assert describe_clues(zebra_riddles.FISH.clues, zebra_riddles.FISH.names)[:4] == [
        "The Brit is the one in the red house.",
        "The Swede is the one who keeps dogs.",
        "The Dane is the one who drinks tea.",
        "The one in the green house lives directly to the left of the one in the white house.",
    ]


def test_get_unknown_riddle_lists_the_known_ones():
    with pytest.raises(InputError, match="unknown riddle 'cat'; choose one of fish"):
        zebra_riddles.get("cat")
