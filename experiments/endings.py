"""Failures of a command: whose they are, and how those of libraries are kept to one line."""

import os
import pathlib
import sys
import threading
import types
from typing import Any


def of_the_user(error: BaseException, flags: Any) -> bool:
    """Whether an OSError concerns a path that the flags name, a folder above it, or no access to a file below it."""
    if not isinstance(error, OSError) or not isinstance(error.filename, str | os.PathLike):
        return False
    found = pathlib.Path(error.filename).absolute()
    values = [v for value in vars(flags).values() for v in (value if isinstance(value, tuple) else (value,))]
    named = [value.absolute() for value in values if isinstance(value, pathlib.Path)]
    is_barred = isinstance(error, NotADirectoryError | PermissionError)
    return any(found == path or found in path.parents or (is_barred and path in found.parents) for path in named)


WRITERS = {"orbax", "tensorboardX"}
"""Libraries that write the files of a run from their own threads."""


def silence_writers() -> None:
    """Hides the dozens of tracebacks that threads, coroutines and exit handlers of WRITERS print.

    When a disk is full or a folder is gone, the main thread meets the same failure and reports it in one line. The
    tracebacks of other threads are printed as before.
    """
    thread_hook, unraisable_hook = threading.excepthook, sys.unraisablehook

    def hook_of_threads(failure: Any) -> None:
        if not _is_of_a_writer(failure.exc_traceback):
            thread_hook(failure)

    def hook_of_unraisables(failure: Any) -> None:
        if not _is_of_a_writer(failure.exc_traceback, failure.object):
            unraisable_hook(failure)

    threading.excepthook, sys.unraisablehook = hook_of_threads, hook_of_unraisables


def _is_of_a_writer(trace: types.TracebackType | None, culprit: Any = None) -> bool:
    """Whether code of a writer ran, or an event loop, which only Orbax sets up here."""
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
