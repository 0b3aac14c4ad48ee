"""What this library raises on purpose. Each message is one line; any other exception is a defect."""


class InputError(ValueError):
    """The caller's input is wrong. The message is one line: what was got, what was wanted, how to mend it.

    The command line prints that line and exits with code 2; any other exception is a defect and keeps its traceback.
    """


class RunError(RuntimeError):
    """A run cannot go on. The message says why, what is safe on disk, and how to go on.

    The command line prints that line and exits with code 1.
    """


class LostPeerError(RunError):
    """Another process of the run is gone, so that nothing in which all take part can be waited for any more.

    The command line ends at once, with exit code 75.
    """


class Preempted(Exception):  # noqa: N818 - it is no error
    """The run was asked to stop and saved its state. The command line says so and exits with code 0."""
