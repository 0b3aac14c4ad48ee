"""SIGTERM, sent before a machine is taken away, and Ctrl-C: one stops a run, a second ends it."""

import ctypes
import os
import signal
import sys
import threading
from types import FrameType, TracebackType
from typing import Any

import jax
from jax.experimental import multihost_utils

from mdm_jax.training.distributed import leave

SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Preemption:
    """Whether the run was asked to stop. A context manager, inside which signals are handled.

    The first signal asks the run to stop after a step; the second ends the process. A thread
    receives them, since the main thread may be in a long computation. With JAX's distributed
    runtime all processes agree on one step after which they stop, even if only one of them was
    signalled.
    """

    def __init__(self) -> None:
        self._asked: int | None = None
        self._num_signals = 0
        self._former: dict[signal.Signals, Any] = {}
        self._notify_runtime: Any = None
        """the handler of SIGTERM of JAX's runtime; None with one process"""

    @property
    def asked(self) -> bool:
        """Whether this process was asked to stop."""
        return self._asked is not None

    @property
    def by_hand(self) -> bool:
        """Whether this process was asked to stop by Ctrl-C."""
        return self._asked == signal.SIGINT

    def requested(self, step: int) -> bool:
        """Whether to stop after `step`. All processes must call it after the same steps."""
        if jax.distributed.is_initialized():
            return multihost_utils.reached_preemption_sync_point(step)
        return self._asked is not None

    def _interrupt(self, number: int, frame: FrameType | None) -> None:
        """Handles a signal in the main thread; in a notebook the second raises KeyboardInterrupt."""
        self._num_signals += 1
        if self._num_signals > 1 and _in_notebook():
            raise KeyboardInterrupt

    def _listen(self) -> None:
        while received := os.read(self._read_end, 1):
            if received[0] not in SIGNALS:
                continue
            if self._asked is not None and not _in_notebook():
                name = signal.Signals(received[0]).name
                leave(f"ended at once by a second signal ({name}); what was saved is good", 128 + received[0])
            self._asked = received[0]
            if self._notify_runtime is not None:
                self._notify_runtime(signal.SIGTERM)

    def __enter__(self) -> "Preemption":
        if threading.current_thread() is not threading.main_thread():
            return self  # only the main thread may handle signals
        if jax.distributed.is_initialized():
            self._runtime_handler = _c_signal(signal.SIGTERM, None)
            if self._runtime_handler is not None:
                self._notify_runtime = ctypes.CFUNCTYPE(None, ctypes.c_int)(self._runtime_handler)
        # nohup ignores signals, and they stay ignored.
        handled = [number for number in SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]
        self._former = {number: signal.signal(number, self._interrupt) for number in handled}
        self._read_end, self._write_end = os.pipe()
        os.set_blocking(self._write_end, False)
        self._former_write_end = signal.set_wakeup_fd(self._write_end, warn_on_full_buffer=False)
        self._listener = threading.Thread(target=self._listen, name="signals", daemon=True)
        self._listener.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not hasattr(self, "_read_end"):
            return
        signal.set_wakeup_fd(self._former_write_end)
        for number, former in self._former.items():
            signal.signal(number, former)
        if self._notify_runtime is not None:
            _c_signal(signal.SIGTERM, self._runtime_handler)
        os.close(self._write_end)
        self._listener.join()
        os.close(self._read_end)


def _in_notebook() -> bool:
    """Whether the process is a notebook or IPython session, whose variables must survive."""
    return "IPython" in sys.modules


def _c_signal(number: int, handler: int | None) -> int | None:
    """Installs a C handler, None for the default, and returns the former one in the same form."""
    function = ctypes.CDLL(None).signal
    function.restype, function.argtypes = ctypes.c_void_p, (ctypes.c_int, ctypes.c_void_p)
    former: int | None = function(number, handler)
    return former
