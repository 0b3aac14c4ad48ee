"""The formats in which Zebra puzzles circulate: each read back, told to the user, and damaged in every place."""

import gzip
import os
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mdm_jax.errors import InputError
from mdm_jax.tasks.zebra import puzzle as zebra
from mdm_jax.tasks.zebra import riddles as zebra_riddles
from mdm_jax.tasks.zebra.clues import Size, sizes_of
from mdm_jax.tasks.zebra.english import NAMES
from mdm_jax.tasks.zebra.formats import FORMATS, read_puzzles
from mdm_jax.tasks.zebra.text import write_puzzle

WORDS = ("{} = {}", "{} != {}", "{} left of {}", "{} directly left of {}", "{} next to {}", "{} at an end")
WORDS += ("{} between {} and {}",)


def as_riddle(clues, names=NAMES):
    """A riddle in words, in the form that docs/zebra.md gives."""
    (houses,), (attributes,) = sizes_of(clues[None])
    lines = [f"{names[a].name}: {', '.join(names[a].values[:houses])}" for a in range(attributes)]
    for kind, *terms in clues:
        called = [names[t // 6].values[t % 6] if t < 36 else f"house {t - 35}" for t in terms if t >= 0]
        lines.append(WORDS[kind].format(*called))
    return "\n".join(lines) + "\n"


def whole(clues):
    return write_puzzle(clues).replace("\n", " ") + "\n"


PER_LINE, WHOLE, RIDDLE = (form.name for form in FORMATS)
RENDERED = {
    "tokens": (PER_LINE, write_puzzle),
    "tokens-tabs": (PER_LINE, lambda clues: write_puzzle(clues).replace(" ", "\t ")),
    "tokens-close": (PER_LINE, lambda clues: re.sub(r"(c|n) (\d)", r"\1\2", write_puzzle(clues)).replace("= ", "=")),
    "tokens-loose": (PER_LINE, lambda clues: "\n\n".join(write_puzzle(clues).splitlines())),
    "whole": (WHOLE, whole),
    "whole-close": (WHOLE, lambda clues: re.sub(r"(\d) ([RC])", r"\1\2", whole(clues))),
    "riddle": (RIDDLE, as_riddle),
    "riddle-close": (RIDDLE, lambda clues: re.sub(" ?([=:,]) ", r"\1", as_riddle(clues))),
    "riddle-shouted": (RIDDLE, lambda clues: as_riddle(clues).upper().replace(" ", "  ")),
}


def made(data):
    size = Size(data.draw(st.integers(3, 5)), data.draw(st.integers(3, 4)))
    clues, solutions = zebra.generate(1, smallest=size, largest=size, seed=data.draw(st.integers(0, 99)))
    return clues[0][clues[0, :, 0] >= 0], solutions[0], size


def test_every_format_of_the_table_is_rendered_here():
    assert {name for name, _ in RENDERED.values()} == {form.name for form in FORMATS}


@pytest.mark.parametrize("form", RENDERED)
@settings(max_examples=8, deadline=None)
@given(data=st.data())
def test_puzzle_in_any_format_reads_back_to_itself_and_the_user_is_told_how(tmp_path_factory, form, data):
    clues, _, size = made(data)
    name, render = RENDERED[form]
    text = data.draw(st.sampled_from(["", "# first\n\n"])) + render(clues)
    text = text.replace("\n", data.draw(st.sampled_from(["\n", "\r\n"])))
    content = text.encode(data.draw(st.sampled_from(["utf-8", "utf-8-sig"])))
    path = tmp_path_factory.mktemp("puzzles") / "a"
    path.write_bytes(gzip.compress(content) if data.draw(st.booleans()) else content)
    (puzzle,), how = read_puzzles(path)
    np.testing.assert_array_equal(puzzle.clues, clues)
    assert how == (
        f"{path}: read as {name}, 1 of {size.houses}x{size.attributes} (houses x attributes), {len(clues)} clues"
    )


DAMAGE = ["", "\n", " ", "?", "é", "\0", "#", "-", ":", ",", "=", "c", "LHS", "CLUE_END", "\ud800"]


@pytest.mark.parametrize("form", RENDERED)
@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_damaged_file_gives_its_solution_or_is_refused_with_its_line(tmp_path_factory, form, data):
    clues, solution, size = made(data)
    text = RENDERED[form][1](clues)
    at = data.draw(st.sampled_from([i for i, character in enumerate(text) if character != "!"]))
    length = data.draw(st.integers(0, 1))
    text = text[:at] + data.draw(st.sampled_from(DAMAGE)) + text[at + length :]
    path = tmp_path_factory.mktemp("puzzles") / "a.txt"
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    try:
        puzzles, _ = read_puzzles(path)  # two of them, where a line end cuts one in two
    except InputError as error:
        said = str(error)
    else:
        said = ""
        for puzzle in puzzles:
            grids, counts = zebra.solve(puzzle.clues[None])
            if counts[0] == 1 and tuple(int(n[0]) for n in sizes_of(puzzle.clues[None])) == size:
                np.testing.assert_array_equal(grids[0], solution)
    assert said == "" or re.match(rf"{path}(:\d+|:? (holds no|its clues name|names \d))", said), said


@settings(max_examples=100, deadline=None)
@given(data=st.binary(max_size=60) | st.text("=!cn013 LHSR\n:,#ab", max_size=80).map(str.encode))
def test_any_bytes_at_all_are_an_error_that_names_the_file(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("puzzles") / "a.txt"
    path.write_bytes(data)
    with pytest.raises(InputError, match=f"^{path}[: ]"):
        read_puzzles(path)


def test_several_puzzles_are_named_by_their_lines_and_limited(tmp_path):
    sizes = (Size(3, 4), Size(3, 3), Size(4, 3))
    clues = [zebra.generate(1, smallest=size, largest=size)[0][0] for size in sizes]
    path = tmp_path / "some.txt"
    path.write_text("# three\n" + "".join(whole(puzzle) for puzzle in clues))
    found = read_puzzles(path).puzzles
    assert [puzzle.name for puzzle in found] == [f"{path}:{line}" for line in (2, 3, 4)]
    for puzzle, expected in zip(found, clues, strict=True):
        np.testing.assert_array_equal(puzzle.clues, expected[expected[:, 0] >= 0])
    with path.open("a") as file:
        file.write("nonsense\n")
    assert len(read_puzzles(path, limit=3).puzzles) == 3
    assert ": read as a puzzle per line, the first 2 of 3x3 to 3x4 (" in read_puzzles(path, limit=2).how
    with pytest.raises(InputError, match=r"some\.txt:5: 'nonsense' behind the last CLUE_END"):
        read_puzzles(path)


FISH = """
# Einstein's
nationality: Brit, Swede, Dane, Norwegian, German
colour: red, green, white, yellow, blue
drink: tea, coffee, milk, beer, water
smoke: Pall Mall, Dunhill, Blend, Blue Master, Prince
pet: dogs, birds, cats, horses, fish
question: Who keeps the fish?

Brit = red
Swede = dogs
Dane = tea
green directly left of white
green = coffee
Pall Mall = birds
yellow = Dunhill
house 3 = milk
Norwegian = house 1
Blend next to cats
horses next to Dunhill
Blue Master = beer
German = Prince
Norwegian next to blue
Blend next to water
"""


def test_einsteins_riddle_in_words_is_the_riddle(tmp_path):
    (tmp_path / "fish.txt").write_text(FISH)
    ((_, clues, names, question),), _ = read_puzzles(tmp_path / "fish.txt")
    np.testing.assert_array_equal(clues, zebra_riddles.FISH.clues)
    assert [(a.name, a.values) for a in names] == [(a.name, a.values) for a in zebra_riddles.FISH.names]
    assert question == zebra_riddles.FISH.question


THREE = "colour: red, green, white\ndrink: tea, gin and tonic, milk\npet: dog, cat, Red\n"


def clues_of(tmp_path, text):
    (tmp_path / "a.txt").write_text(THREE + text)
    (puzzle,), _ = read_puzzles(tmp_path / "a.txt")
    return puzzle.clues.tolist()


def test_riddle_says_right_as_left_and_names_a_value_by_its_attribute_where_two_have_it(tmp_path):
    found = clues_of(
        tmp_path,
        "tea right of dog\ntea directly right of house 3\ncolour red = PET red\n"
        "cat between gin and tonic and milk\nmilk between tea and gin and tonic\nwhite  at an end\n",
    )
    assert found[:6] == [[2, 12, 6, -1], [3, 38, 6, -1], [0, 0, 14, -1], [6, 13, 7, 8], [6, 8, 6, 7], [5, 2, -1, -1]]


def test_riddle_whose_clues_do_not_name_the_last_value_keeps_its_size(tmp_path):
    found = clues_of(tmp_path, "green = tea\n")
    assert found == [[0, 1, 6, -1], [1, 12, 14, -1]], "what is added says that two values of one attribute differ"
    assert [int(number[0]) for number in sizes_of(np.array([found]))] == [3, 3]
    assert clues_of(tmp_path, "green = cat\nmilk = tea\n") == [[0, 1, 13, -1], [0, 8, 6, -1]]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (THREE + "green is tea\n", r":4: 'green is tea' is no clue: !=, =, directly left of, .* between its terms"),
        (THREE + "green = house 4\n", r":4: 'house 4' is neither a value nor one of house 1 to house 3"),
        (THREE + "mauve = tea\n", r":4: 'mauve' is neither a value nor"),
        (THREE + "red = tea\n", r":4: 'red' is a value of two attributes: put the attribute before it"),
        (THREE + "tea between milk\n", r":4: 'tea between milk' has 2 terms: between takes 3"),
        (THREE + "tea at an end milk\n", r":4: .* has 2 terms: at an end takes 1"),
        (THREE + "tea = drink tea\n", r":4: names the same twice"),
        (THREE + "house 1 left of house 2\n", r":4: names no value, just houses"),
        (THREE, " holds no clue: write one on each line, such as red = tea"),
        (THREE.replace("pet", "Drink"), r":3: 'Drink' comes twice"),
        (THREE.replace("dog, ", ""), r":3: 'pet' has 2 values: 3 are wanted"),
        (THREE.replace("dog", "CAT"), r":3: 'pet' has a value twice, or an empty one"),
        (THREE.replace("dog", ""), r":3: 'pet' has a value twice, or an empty one"),
        (THREE.replace("dog", "house 2"), r":3: 'house 2' holds words that clues are made of"),
        (THREE.replace("dog", "cat next to nobody"), r":3: .* holds words that clues are made of"),
        ("a: b, c\n", r":1: 'a' has 2 values: 3 to 6 are wanted"),
        ("\n".join(THREE.splitlines()[:2]) + "\ntea = green\n", " names 2 attributes with their values: 3 to 6"),
        ("# x\nBrit = red\n", r":2: 'Brit = red' begins no known format; known are: a clue per line "),
    ],
)
def test_bad_riddle_is_one_line_that_names_the_line(tmp_path, text, words):
    path = tmp_path / "a.txt"
    path.write_text(text)
    with pytest.raises(InputError, match=rf"^{path}{words}") as caught:
        read_puzzles(path)
    if "known format" in words:
        assert all(form.name in str(caught.value) for form in FORMATS)


def test_pipe_is_refused_rather_than_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(InputError, match="pipe is a pipe: give a regular file"):
        read_puzzles(tmp_path / "pipe")
