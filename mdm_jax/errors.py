"""What this library raises on purpose. Each message is one line; any other exception is a defect."""

import contextlib
from collections.abc import Iterator

LONGEST = 1000
"""Characters of a message; a longer one loses its middle."""


def one_line(text: object, longest: int = LONGEST) -> str:
    r"""`text` on one printable line: white space collapsed, control characters escaped, the middle cut if it is long.

    >>> one_line("a\nb" + chr(27) + "[31m")
    'a b\\x1b[31m'
    """
    words = " ".join(str(text).split())
    line = "".join(c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in words)
    half = (longest - 5) // 2
    return line if len(line) <= longest else f"{line[:half]} ... {line[-half:]}"


def shown(value: object, longest: int = 80) -> str:
    """`value` as a message quotes it: its `repr` on one line, cut where it is long; never an exception."""
    try:
        text = repr(value[:longest] if isinstance(value, str | bytes) and len(value) > longest else value)
    except Exception:  # of a foreign object, or an integer of more digits than Python prints
        text = f"a value of type {type(value).__name__}"
    return one_line(text, longest)


class InputError(ValueError):
    """The caller's input is wrong. The message is one line: what was got, what was wanted, how to mend it.

    The command line prints that line and exits with code 2; any other exception is a defect and keeps its traceback.
    """

    def __init__(self, message: object) -> None:
        super().__init__(one_line(message))


class MissingExtraError(InputError, ImportError):
    """A package is not installed that one of this library's extras brings."""


@contextlib.contextmanager
def of_extra(extra: str) -> Iterator[None]:
    """Around imports of packages that `pip install mdm_jax[extra]` brings: MissingExtraError where one is missing."""
    try:
        yield
    except ModuleNotFoundError as error:
        raise MissingExtraError(
            f"the package {error.name} is not installed, which this needs: pip install 'mdm_jax[{extra}]'"
        ) from None


class RunError(RuntimeError):
    """A run cannot go on. The message says why, what is safe on disk, and how to go on.

    The command line prints that line and exits with code 1.
    """

    def __init__(self, message: object) -> None:
        super().__init__(one_line(message))


class NotFiniteError(RunError):
    """A network's predictions are not finite numbers."""


class LostPeerError(RunError):
    """Another process of the run is gone, so that nothing in which all take part can be waited for any more.

    The command line ends at once, with exit code 75.
    """


class Preempted(Exception):  # noqa: N818 - it is no error
    """The run was asked to stop and saved its state. The command line says so and exits with code 0."""


class Interrupted(Preempted):
    """The same, asked by Ctrl-C. The command line exits with code 130."""
