import dataclasses
import math
from typing import Annotated

import pytest

from mdm_jax.errors import InputError, one_line, shown
from mdm_jax.ranges import INT32, Range, check_ranges


@dataclasses.dataclass(frozen=True)
class Inner:
    ways: Annotated[int, Range(-1)] = -1


@dataclasses.dataclass(frozen=True)
class Outer:
    share: Annotated[float, Range(0, below=1)] = 0.5
    rate: Annotated[float, Range(above=0)] = 1.0
    number: Annotated[int, Range(1, INT32)] | None = None
    inner: Inner = Inner()
    several: tuple[Annotated[int, Range(1)], ...] = (1, 2)
    score: Annotated[float, Range(infinite=True)] = 0.0
    offset: Annotated[float, Range()] = 0.0


@pytest.mark.parametrize(
    "good",
    [{}, {"share": 0}, {"number": INT32}, {"number": None}, {"several": ()}, {"inner": Inner(0)}, {"score": -math.inf}],
)
def test_setting_within_its_range_passes(good):
    check_ranges(Outer(**good))


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        ({"share": 1}, "--share must be a number, at least 0 and below 1; got 1"),
        ({"share": math.nan}, "--share must be a number, at least 0 and below 1; got nan"),
        ({"share": True}, "--share"),
        ({"rate": math.inf}, "--rate must be a number, above 0; got inf"),
        ({"rate": 0}, "--rate"),
        ({"number": 0}, "--number must be a whole number, at least 1 and at most 2147483647; got 0"),
        ({"number": 1.5}, "--number"),
        ({"number": "x"}, "--number"),
        ({"number": 10**6000}, "--number"),
        ({"inner": Inner(-2)}, "--inner.ways"),
        ({"several": (1, 0)}, "--several"),
        ({"several": None}, "--several"),
        ({"share": None}, "--share must be a number, at least 0 and below 1; got None"),
        ({"score": "abc"}, "--score must be a number; got 'abc'"),
        ({"score": math.nan}, "--score must be a number; got nan"),
        ({"offset": math.inf}, "--offset must be a number, finite; got inf"),
        ({"rate": (1.0,)}, "--rate"),
        ({"number": (1,)}, "--number"),
    ],
)
def test_setting_out_of_its_range_is_refused_in_one_line(bad, words):
    with pytest.raises(InputError) as caught:
        check_ranges(Outer(**bad), name_of=lambda path: f"--{path}")
    assert words in str(caught.value)
    assert len(str(caught.value)) < 200


def test_message_is_one_printable_line_of_bounded_length():
    message = str(InputError("a\nb \x1b[31m " + "x" * 100_000 + " the end"))
    assert message.startswith("a b \\x1b[31m x")
    assert message.endswith("x the end")
    assert message.isprintable()
    assert len(message) <= 1000
    assert one_line("kept as it is, Θ(1) too") == "kept as it is, Θ(1) too"
    assert len(shown("y" * 10**6)) <= 80
    assert len(shown(b"y" * 10**6)) <= 80
    assert shown(10**6000) == "a value of type int"
    assert shown("\x1b[2J") == "'\\x1b[2J'"
