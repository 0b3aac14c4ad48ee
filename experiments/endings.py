"""How a command ends: in one line and with a code that says how, whatever ends it."""

import contextlib
import os
import pathlib
import select
import signal
import sys
import threading
import types
from collections.abc import Iterator
from typing import Any

NO_READER = 128 + 13
"""Exit code where nobody reads what is printed any more: that of SIGPIPE, by which the system ends other programs."""


@contextlib.contextmanager
def ended_well() -> Iterator[None]:
    """Within it Ctrl-C ends the process in one line, and a reader that is gone (`| head`) in none."""
    try:
        try:
            yield
        finally:
            sys.stdout.flush()  # or the interpreter complains, at its end
    except BrokenPipeError:
        if not _reader_is_gone():
            raise
        nowhere = os.open(os.devnull, os.O_WRONLY)
        for stream in (1, 2):
            os.dup2(nowhere, stream)
        sys.exit(NO_READER)
    except KeyboardInterrupt:
        with contextlib.suppress(ValueError):  # in another thread than the main one
            signal.signal(signal.SIGINT, signal.SIG_DFL)  # the next one is the end whatever happens here
        sys.stderr.write("stopped by Ctrl-C; the same command starts again\n")
        sys.stderr.flush()
        os._exit(128 + signal.SIGINT)  # an orderly exit would wait for threads


def _reader_is_gone() -> bool:
    poll = select.poll()
    for stream in (1, 2):
        poll.register(stream, select.POLLERR)
    return bool(poll.poll(0))


def of_the_user(error: BaseException, flags: Any) -> bool:
    """Whether an OSError is about a file or a folder that the flags name, or one above it; or about getting into it."""
    if not isinstance(error, OSError) or not isinstance(error.filename, str | os.PathLike):
        return False
    found = pathlib.Path(error.filename).absolute()
    values = [v for value in vars(flags).values() for v in (value if isinstance(value, tuple) else (value,))]
    named = [value.absolute() for value in values if isinstance(value, pathlib.Path)]
    is_barred = isinstance(error, NotADirectoryError | PermissionError)
    return any(found == path or found in path.parents or (is_barred and path in found.parents) for path in named)


WRITERS = {"orbax", "tensorboardX"}
"""Libraries that write a run's files from threads of their own."""


def silence_writers() -> None:
    """Keeps off the terminal what the threads, coroutines and exit handlers of WRITERS say, in dozens of tracebacks.

    Where a disk is full or a folder is gone, the main thread meets the same failure and says it in one line. All other
    threads are heard.
    """
    of_threads, of_the_rest = threading.excepthook, sys.unraisablehook

    def in_thread(failure: Any) -> None:
        if not _is_of_a_writer(failure.exc_traceback):
            of_threads(failure)

    def elsewhere(failure: Any) -> None:
        if not _is_of_a_writer(failure.exc_traceback, failure.object):
            of_the_rest(failure)

    threading.excepthook, sys.unraisablehook = in_thread, elsewhere


def _is_of_a_writer(trace: types.TracebackType | None, culprit: Any = None) -> bool:
    """Whether code of a writer ran, or that of an event loop, which nobody but Orbax has set up."""
    code = getattr(culprit, "cr_code", None)
    files = [] if code is None else [code.co_filename]
    modules = [getattr(culprit, "__module__", None) or ""]
    while trace is not None:
        modules.append(trace.tb_frame.f_globals.get("__name__", ""))
        trace = trace.tb_next
    roots = {name.partition(".")[0] for name in modules if name}
    if roots & WRITERS or any(f"{os.sep}orbax{os.sep}" in name for name in files):
        return True
    return "asyncio" in roots and roots <= sys.stdlib_module_names
