"""The exceptions that this library raises on purpose, each with a message of one line."""

import contextlib
from collections.abc import Iterator

LONGEST = 1000
"""The most characters of a message; a longer one is cut in the middle."""


def one_line(text: object, longest: int = LONGEST) -> str:
    r"""`text` as one printable line: white space is collapsed, control characters are escaped.

    The middle is cut if the line is longer than `longest`.

    >>> one_line("a\nb" + chr(27) + "[31m") 'a b\\x1b[31m'
    """
    words = " ".join(str(text).split())
    line = "".join(c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in words)
    half = (longest - 5) // 2
    return line if len(line) <= longest else f"{line[:half]} ... {line[-half:]}"


def shown(value: object, longest: int = 80) -> str:
    """The `repr` of a value for a message, on one line and cut if it is long; never raises."""
    try:
        text = repr(value[:longest] if isinstance(value, str | bytes) and len(value) > longest else value)
    except Exception:  # a foreign object, or an integer with more digits than Python prints
        text = f"a value of type {type(value).__name__}"
    return one_line(text, longest)


class InputError(ValueError):
    """The caller's input is wrong. The message says what was given, what is needed, and what to do.

    The command line prints it and exits with code 2. An exception of any other class than those of
    this module is a defect and keeps its traceback.
    """

    def __init__(self, message: object) -> None:
        super().__init__(one_line(message))


class MissingExtraError(InputError, ImportError):
    """A package of one of this library's extras is not installed."""


@contextlib.contextmanager
def of_extra(extra: str) -> Iterator[None]:
    """A context for imports of an extra's packages; MissingExtraError if one is not installed."""
    try:
        yield
    except ModuleNotFoundError as error:
        raise MissingExtraError(
            f"this needs the package {error.name}, which is not installed: pip install 'mdm_jax[{extra}]'"
        ) from None


class RunError(RuntimeError):
    """A run cannot go on. The message says why, what is saved, and how to go on.

    The command line prints it and exits with code 1.
    """

    def __init__(self, message: object) -> None:
        super().__init__(one_line(message))


class NotFiniteError(RunError):
    """A network's predictions are not finite numbers."""


class LostPeerError(RunError):
    """Another process of the run is gone, so that operations of all processes would never end.

    The command line ends at once, with exit code 75.
    """


class Preempted(Exception):  # noqa: N818 - it is no error
    """The run was asked to stop and has saved its state. The command line exits with code 0."""


class Interrupted(Preempted):
    """The run was asked to stop by Ctrl-C and has saved its state. The exit code is 130."""
