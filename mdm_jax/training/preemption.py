"""SIGTERM, which says that the machine will be taken away: noticed between steps, and agreed on by all processes."""

import signal
import threading
from types import FrameType, TracebackType

import jax
from jax.experimental import multihost_utils


class Preemption:
    """Whether the run was asked to stop. A context manager: within it SIGTERM no longer ends the process.

    Where JAX's distributed runtime runs, the processes agree on one step at which all stop, though only one of them was
    told to.
    """

    def __init__(self) -> None:
        self._asked = False
        self._former: signal.Handlers | None = None

    def requested(self, step: int) -> bool:
        """Whether to stop after `step`. All processes must ask after the same steps."""
        if jax.distributed.is_initialized():
            return multihost_utils.reached_preemption_sync_point(step)
        return self._asked

    def _ask(self, number: int, frame: FrameType | None) -> None:
        self._asked = True

    def __enter__(self) -> "Preemption":
        if not jax.distributed.is_initialized() and threading.current_thread() is threading.main_thread():
            self._former = signal.signal(signal.SIGTERM, self._ask)  # type: ignore[assignment]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._former is not None:
            signal.signal(signal.SIGTERM, self._former)
