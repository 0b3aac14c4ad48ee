"""SIGTERM, which says that the machine will be taken away, and Ctrl-C: the first asks, the second ends at once."""

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
    """Whether the run was asked to stop. A context manager: within it the first signal asks, and the second ends.

    A thread hears them, since the main one may stand in a long computation. Where JAX's distributed runtime runs, the
    processes agree on one step at which all stop, though only one of them was told to.
    """

    def __init__(self) -> None:
        self._asked: int | None = None
        self._heard = 0
        self._former: dict[signal.Signals, Any] = {}
        self._tell_peers: Any = None
        """what JAX's runtime has installed for SIGTERM; None with one process"""

    @property
    def asked(self) -> bool:
        """Whether this process was asked."""
        return self._asked is not None

    @property
    def by_hand(self) -> bool:
        """Whether it was Ctrl-C that asked this process."""
        return self._asked == signal.SIGINT

    def requested(self, step: int) -> bool:
        """Whether to stop after `step`. All processes must ask after the same steps."""
        if jax.distributed.is_initialized():
            return multihost_utils.reached_preemption_sync_point(step)
        return self._asked is not None

    def _interrupt(self, number: int, frame: FrameType | None) -> None:
        """What the main thread does with a signal that the listener hears too: in a notebook the second interrupts."""
        self._heard += 1
        if self._heard > 1 and _in_notebook():
            raise KeyboardInterrupt

    def _listen(self) -> None:
        while heard := os.read(self._ear, 1):
            if heard[0] not in SIGNALS:
                continue
            if self._asked is not None and not _in_notebook():
                name = signal.Signals(heard[0]).name
                leave(f"ended at once by a second signal ({name}); what was saved is good", 128 + heard[0])
            self._asked = heard[0]
            if self._tell_peers is not None:
                self._tell_peers(signal.SIGTERM)

    def __enter__(self) -> "Preemption":
        if threading.current_thread() is not threading.main_thread():
            return self  # only the main thread may handle signals
        if jax.distributed.is_initialized():
            self._runtimes = _c_signal(signal.SIGTERM, None)
            if self._runtimes is not None:
                self._tell_peers = ctypes.CFUNCTYPE(None, ctypes.c_int)(self._runtimes)
        heard = [number for number in SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]  # as nohup wants it
        self._former = {number: signal.signal(number, self._interrupt) for number in heard}
        self._ear, self._mouth = os.pipe()
        os.set_blocking(self._mouth, False)
        self._former_mouth = signal.set_wakeup_fd(self._mouth, warn_on_full_buffer=False)
        self._listener = threading.Thread(target=self._listen, name="signals", daemon=True)
        self._listener.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not hasattr(self, "_ear"):
            return
        signal.set_wakeup_fd(self._former_mouth)
        for number, former in self._former.items():
            signal.signal(number, former)
        if self._tell_peers is not None:
            _c_signal(signal.SIGTERM, self._runtimes)
        os.close(self._mouth)
        self._listener.join()
        os.close(self._ear)


def _in_notebook() -> bool:
    """Whether the process is somebody's session, whose variables must not go with it."""
    return "IPython" in sys.modules


def _c_signal(number: int, handler: int | None) -> int | None:
    """Installs a handler of C, None for the default; what was installed before, None if that was the default."""
    function = ctypes.CDLL(None).signal
    function.restype, function.argtypes = ctypes.c_void_p, (ctypes.c_int, ctypes.c_void_p)
    former: int | None = function(number, handler)
    return former
