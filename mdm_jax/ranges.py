"""Ranges of settings, written at the field: `beta2: Annotated[float, Range(0, below=1)] = 0.98`.

A dataclass of settings calls `check_ranges(self)` when it is made. The command line does so for its
flags, with the names of the flags. Importing this module imports nothing heavy.
"""

import dataclasses
import inspect
import math
import numbers
import operator
import types
import typing
from typing import Annotated, Any

from mdm_jax.errors import InputError, shown

INT32 = 2**31 - 1
"""The largest number of tokens, steps or rows: JAX's integers are int32."""
FLOAT32 = 3.4028234663852886e38
"""The largest finite float32, in which JAX computes."""


@dataclasses.dataclass(frozen=True)
class Range:
    """A range of numbers, never with NaN, and with infinities only if `infinite`.

    Attributes:
      least: the smallest value.
      most: the largest value.
      above: an exclusive lower bound.
      below: an exclusive upper bound.
      infinite: whether infinities are in the range.
    """

    least: float = -math.inf
    most: float = math.inf
    above: float = -math.inf
    below: float = math.inf
    infinite: bool = False

    def holds(self, value: float) -> bool:
        """Whether `value` is in the range."""
        if math.isnan(value) or (math.isinf(value) and not self.infinite):
            return False
        if not self.least <= value <= self.most:
            return False
        return (self.above < value or math.isinf(self.above)) and (value < self.below or math.isinf(self.below))

    def __str__(self) -> str:
        words = [
            f"{word} {bound:.10g}"
            for word, bound in (
                ("at least", self.least),
                ("above", self.above),
                ("at most", self.most),
                ("below", self.below),
            )
            if not math.isinf(bound)
        ]
        return " and ".join(words) or ("" if self.infinite else "finite")


def check_number(name: str, value: Any, range: Range, *, whole: bool = False) -> None:
    """InputError unless `value` is a number in `range`, and an integer if `whole`."""
    kind = "a whole number" if whole else "a number"
    try:
        if isinstance(value, bool):
            raise TypeError
        number = operator.index(value) if whole else value
        fits = isinstance(number, numbers.Real) and range.holds(float(number))
    except (TypeError, ValueError):
        fits = False
    except OverflowError:  # an integer beyond the range of floats
        fits = False
    if not fits:
        wanted = ", ".join(filter(None, (kind, str(range))))
        raise InputError(f"{name} must be {wanted}; got {shown(value)}")


def check_ranges(settings: Any, *, name_of: Any = lambda path: path.replace(".", " ")) -> None:
    """InputError for the first number in a dataclass of settings that is outside its range.

    Args:
      settings: a dataclass; nested dataclasses are checked too. None is valid if the type allows
        it. A tuple is checked entry by entry.
      name_of: turns the path of a setting, such as "mesh.data", into its name in messages.
    """
    for path, value, hint, range, whole in _ranged(settings):
        kinds = {typing.get_origin(kind) or kind for kind in (hint, *typing.get_args(hint))}
        if value is None and types.NoneType in kinds:
            continue
        for entry in value if isinstance(value, tuple) and tuple in kinds else (value,):
            check_number(name_of(path), entry, range, whole=whole)


def _ranged(settings: Any, prefix: str = "") -> typing.Iterator[tuple[str, Any, Any, Range, bool]]:
    hints = _hints(type(settings))
    for field in dataclasses.fields(settings):
        value, path = getattr(settings, field.name), prefix + field.name
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            yield from _ranged(value, f"{path}.")
        range, whole = _range_of(hints[field.name])
        if range is not None:
            yield path, value, hints[field.name], range, whole


def _hints(kind: type) -> dict[str, Any]:
    return {
        name: hint
        for cls in reversed(kind.__mro__)
        if dataclasses.is_dataclass(cls)
        for name, hint in _annotations(cls).items()
    }


def _annotations(cls: type) -> dict[str, Any]:
    """The annotations of a class, without strings, which name types for type checking only."""
    return {name: hint for name, hint in inspect.get_annotations(cls).items() if not isinstance(hint, str)}


def _range_of(hint: Any) -> tuple[Range | None, bool]:
    """The range in a type, and whether its numbers are integers.

    The type may be `Annotated[int, Range(1)]`, `Annotated[float, Range(0)] | None`, or a tuple of
    such.
    """
    if typing.get_origin(hint) is typing.Annotated:
        found = [extra for extra in hint.__metadata__ if isinstance(extra, Range)]
        return (found[0] if found else None), _is_whole(hint.__origin__)
    if isinstance(hint, types.UnionType) or typing.get_origin(hint) in (typing.Union, tuple):
        for part in typing.get_args(hint):
            range, whole = _range_of(part)
            if range is not None:
                return range, whole
    return None, False


def _is_whole(kind: Any) -> bool:
    return kind is int or int in typing.get_args(kind)


Count = Annotated[int, Range(1, INT32)]
NumLoops = Annotated[int, Range(1, 1 << 20)]
"""Times that a looped network applies its layers."""
Seed = Annotated[int, Range(0, below=1 << 32)]
Positive = Annotated[float, Range(above=0, most=FLOAT32)]
NotNegative = Annotated[float, Range(0, FLOAT32)]
Share = Annotated[float, Range(0, 1)]
Decay = Annotated[float, Range(0, below=1)]
"""Ranges that several settings share; Decay is the range of the decay of a moving average."""
