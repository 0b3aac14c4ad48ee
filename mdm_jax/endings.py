"""Ends a command that is stopped, or whose reader is gone, in at most one line, with an exit code that says which."""

import contextlib
import os
import select
import signal
import sys
from collections.abc import Iterator

NO_READER = 128 + 13
"""The exit code when the reader of the output is gone: that of a program that SIGPIPE ends."""


@contextlib.contextmanager
def ended_well() -> Iterator[None]:
    """A context in which Ctrl-C ends the process with one line, and a broken pipe (`| head`) without a line."""
    try:
        try:
            yield
        finally:
            sys.stdout.flush()  # otherwise the interpreter complains at its end
    except BrokenPipeError:
        if not _reader_is_gone():
            raise
        nowhere = os.open(os.devnull, os.O_WRONLY)
        for stream in (1, 2):
            os.dup2(nowhere, stream)
        sys.exit(NO_READER)
    except KeyboardInterrupt:
        with contextlib.suppress(ValueError):  # in another thread than the main one
            signal.signal(signal.SIGINT, signal.SIG_DFL)  # a second Ctrl-C ends the process at once
        sys.stderr.write("stopped by Ctrl-C; the same command starts again\n")
        sys.stderr.flush()
        os._exit(128 + signal.SIGINT)  # an orderly exit would wait for threads


def _reader_is_gone() -> bool:
    poll = select.poll()
    for stream in (1, 2):
        poll.register(stream, select.POLLERR)
    return bool(poll.poll(0))
