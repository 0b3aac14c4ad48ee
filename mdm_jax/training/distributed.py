"""Several processes as one run: how they connect, and how each ends when another one is gone.

The runtime is JAX's own. This module starts it only if there are several processes. A failure of
that runtime ends a process from C++, with a stack trace and SIGABRT; here it ends the process with
one line and an exit code.
"""

import contextlib
import ctypes
import itertools
import math
import os
import re
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any, NoReturn

import jax
import jax.numpy as jnp
import numpy as np
from jax._src import distributed as runtime
from jax.experimental import multihost_utils
from jax.sharding import Mesh, PartitionSpec

from mdm_jax.errors import InputError
from mdm_jax.training.cluster import find_cluster

LOST_PEER = 75
"""Exit code of a process that lost another one: EX_TEMPFAIL of sysexits.h, a temporary failure."""

PATIENCE = 24 * 60 * 60
"""Seconds to wait for living processes, which may prepare data or compile. JAX detects dead ones."""

FLAGS = ("--distributed.coordinator", "--distributed.num-processes", "--distributed.process-id")


def start(
    coordinator: str | None = None,
    num_processes: int | None = None,
    process_id: int | None = None,
    *,
    timeout: float = 300.0,
    heartbeat: int = 100,
) -> bool:
    """Connects this process with the others of its run; must be called before any computation.

    Without `coordinator`, `num_processes` and `process_id` it connects the processes of a Slurm
    step, Open MPI, a TPU slice or a Kubernetes job, and does nothing elsewhere. If the processes do
    not connect, this one ends with one line and exit code 2. A second call does nothing.

    Args:
      coordinator: HOST:PORT of process 0, the same for all.
      num_processes: number of processes.
      process_id: index of this process, from 0.
      timeout: seconds to wait for the others.
      heartbeat: seconds of silence after which a process counts as dead; 100 is JAX's default. A
        process that is paused for so long, for example by swapping, ends the run too.

    Returns:
      Whether JAX's distributed runtime is running.

    Raises:
      InputError: the arguments do not fit together, the port is taken, or JAX cannot use the
        cluster.
    """
    if jax.distributed.is_initialized():
        return True
    given = (coordinator, num_processes, process_id)
    options: dict[str, Any]
    if coordinator is not None and num_processes is not None and process_id is not None:
        _check(coordinator, num_processes, process_id)
        who, where = f"{num_processes} processes", coordinator
        advice = f"each needs the same {FLAGS[0]} and its own {FLAGS[2]} from 0 to {num_processes - 1}"
        options = {"cluster_detection_method": "deactivate"}
    elif given != (None, None, None):
        missing = [flag for flag, value in zip(FLAGS, given, strict=True) if value is None]
        raise InputError(f"{' and '.join(missing)} missing; give all of {', '.join(FLAGS)}, or none")
    else:
        cluster = find_cluster()
        if cluster is None:
            return False
        who, where = f"the {cluster.num_processes or 'several'} processes of this {cluster.name}", cluster.coordinator
        advice = "check that all of them run, and read their messages"
        num_processes = cluster.num_processes
        # Under Slurm and mpirun JAX gives a process one GPU; the only process of a node takes all.
        all_devices = cluster.one_per_node and "JAX_LOCAL_DEVICE_IDS" not in os.environ
        options = {"local_device_ids": [] if all_devices else None}
    options["initialization_timeout"] = math.ceil(timeout) + 60  # longer than `timeout`: JAX ends with SIGABRT
    options["heartbeat_timeout_seconds"] = heartbeat
    with _one_line(who, where, advice, timeout):
        try:
            jax.distributed.initialize(coordinator, num_processes, process_id, **options)
        except Exception as error:
            if coordinator is not None:
                raise
            words = " ".join(str(error).split())[:160]  # each kind of cluster raises errors of its own
            raise InputError(f"JAX cannot join {who} ({words}); give each {', '.join(FLAGS)}") from error
    _compare_numbers()
    return True


def _compare_numbers() -> None:
    """Ends the process with one line if another one has a different number of processes.

    Otherwise all would wait for ever.
    """
    me, number = runtime.global_state.process_id, runtime.global_state.num_processes
    client = _client()
    client.key_value_set(f"mdm_jax/num_processes/{me}", str(number))
    for other in range(number) if me == 0 else (0,):
        theirs = int(client.blocking_key_value_get(f"mdm_jax/num_processes/{other}", 1000 * PATIENCE))
        if theirs != number:
            time.sleep(2.0 if me == 0 else 0.0)  # process 0 holds the numbers that the others read
            line = f"error: process {me} was started as one of {number}, process {other} as one of {theirs}"
            leave(f"{line}: give all the same {FLAGS[1]}", 2)


def _check(coordinator: str, num_processes: int, process_id: int) -> None:
    """InputError where JAX would wait for ever or, on a port that is taken, crash."""
    host, _, port = coordinator.rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 1 << 16:
        raise InputError(f"{FLAGS[0]} must be HOST:PORT, the machine of process 0 and a free port, got {coordinator!r}")
    if num_processes < 1:
        raise InputError(f"{FLAGS[1]} must be at least 1, got {num_processes}")
    if not 0 <= process_id < num_processes:
        raise InputError(f"{FLAGS[2]} must lie in [0, {num_processes}), got {process_id}")
    if process_id == 0:
        both = socket.has_dualstack_ipv6()
        try:
            family = socket.AF_INET6 if both else socket.AF_INET
            socket.create_server(("", int(port)), family=family, dualstack_ipv6=both).close()
        except OSError as error:
            raise InputError(
                f"port {port} of {FLAGS[0]} cannot be used ({error.strerror}); choose another port"
            ) from None


@contextlib.contextmanager
def _one_line(who: str, where: str, advice: str, timeout: float) -> Iterator[None]:
    """Ends the process with one line if JAX's runtime does not start in its body, or fails later."""
    line = f"error: {who} did not come together at {where}"
    advice = f"{advice}; check that process 0 runs there and that the others can reach its port"
    watch = threading.Timer(timeout, leave, (f"{line} within {timeout:g} s: {advice}", 2))
    watch.daemon = True
    _on_abort(f"{line}: {advice}", 2)
    interrupt = signal.signal(signal.SIGINT, signal.SIG_DFL)  # Python's would run only after the wait
    watch.start()
    try:
        yield
    finally:
        watch.cancel()
        signal.signal(signal.SIGINT, interrupt)
    _on_abort(
        "error: JAX ended this process (see its message above), probably because another process of the run died or "
        "cannot be reached; start all processes again with the same command",
        LOST_PEER,
    )


_handler: Any = None
"""The handler of SIGABRT; C keeps no reference to it."""

_leaving = threading.Lock()
"""Acquired once, by the thread that ends the process."""


def _on_abort(line: str, code: int) -> None:
    """Installs `leave` as the handler of SIGABRT.

    JAX aborts if process 0 is gone or another process is silent for too long. If a computation
    waits for a dead process, this is the only sign. A handler of `signal.signal` would not run:
    abort() does not wait for Python.
    """
    global _handler
    handler = ctypes.CFUNCTYPE(None, ctypes.c_int)(lambda _: leave(line, code))
    ctypes.CDLL(None).signal(signal.SIGABRT, handler)
    _handler = handler


def leave(line: str, code: int) -> NoReturn:
    """Writes `line` to stderr and ends the process at once.

    This is the exit after a lost process. A normal exit waits in JAX's shutdown barrier until the
    heartbeat of the dead process times out, and then aborts.
    """
    _leaving.acquire()
    with contextlib.suppress(Exception):
        sys.stdout.flush()
        sys.stderr.flush()
    os.write(2, f"{line}\n".encode())
    os._exit(code)


def leave_after(seconds: float, code: int) -> None:
    """Ends the process after `seconds` if it is one of several, whatever its shutdown waits for.

    A process that fails alone would otherwise wait for the others until they time out.
    """
    if jax.distributed.is_initialized():
        watch = threading.Timer(seconds, os._exit, (code,))
        watch.daemon = True
        watch.start()


def is_lead() -> bool:
    """Whether this is process 0, which prints, and writes the files that are written once."""
    return jax.process_index() == 0


def barrier(name: str) -> None:
    """Waits until all processes are here, as long as they live; returns at once with one process."""
    if jax.process_count() > 1:
        where = f"mdm_jax/{next(_barriers)}/{name}"
        _client().wait_at_barrier(where, 1000 * PATIENCE)


def _client() -> Any:
    """The client of the coordination service, which needs no devices."""
    return runtime.global_state.client


_barriers = itertools.count()
"""The number in a barrier's name. All processes come to the same barriers in the same order."""


def any_process(flag: bool) -> bool:
    """Whether `flag` is true in any process of the run."""
    if jax.process_count() == 1:
        return flag
    return bool(multihost_utils.process_allgather(jnp.asarray(flag)).any())


def gather_text(text: str) -> list[str]:
    """The texts of all processes, in their order, in every process."""
    if jax.process_count() == 1:
        return [text]
    data = np.frombuffer(text.encode(), np.uint8)
    sizes = np.asarray(multihost_utils.process_allgather(np.asarray([data.size]))).ravel().tolist()
    rows = np.asarray(multihost_utils.process_allgather(np.pad(data, (0, max(sizes) - data.size))))
    return [row[:size].tobytes().decode() for row, size in zip(rows, sizes, strict=True)]


def meet(mesh: Mesh) -> None:
    """Connects all devices of a run along all axes of its mesh; does nothing with one process.

    On CPUs, devices connect in their first common computation, and a process that does not arrive
    within 30 seconds counts as lost (Gloo). A process may compile for minutes what another one
    reads from its cache. So the devices connect here, after a barrier and with nothing left to
    compile. Later computations wait.
    """
    if jax.process_count() == 1:
        return
    names = mesh.axis_names
    groups = [group for size in range(1, len(names) + 1) for group in itertools.combinations(names, size)]

    def sums() -> jax.Array:
        here = sum(jax.lax.axis_index(name) for name in names)
        return jax.lax.psum(jnp.stack([jax.lax.psum(here, group) for group in groups]), names)

    compiled = jax.jit(jax.shard_map(sums, mesh=mesh, in_specs=(), out_specs=PartitionSpec())).lower().compile()
    barrier("ready to be connected")
    jax.block_until_ready(compiled())
    multihost_utils.process_allgather(jnp.zeros(()))


_LOST = re.compile(
    r"Gloo .* failed"  # collectives on CPU
    r"|NCCL.*(remote process exited|network error|remote error|unhandled system error|aborted)"  # and on GPU
    r"|heartbeat timeout|tasks are unhealthy|another task died|coordination service|Barrier (failed|timed out)"
    r"|async_write_complete barrier",  # Orbax
    re.DOTALL,
)
_LOST_STATUS = re.compile(r"\s*(UNAVAILABLE|DEADLINE_EXCEEDED|ABORTED)\b")


def what_was_lost(error: BaseException) -> str:
    """A phrase for an `error` for which `lost_peer` is true."""
    if "context initialization failed" in str(error):
        return "another process did not answer within 30 s while connecting: it is gone, or its machine is busy"
    return "another process of the run is gone"


def lost_peer(error: BaseException) -> bool:
    """Whether `error` or a cause of it says that another process is gone; False with one process.

    It matches messages and status codes. Those of CPU collectives, barriers and Orbax were
    observed; those of NCCL are from its documentation.
    """
    if not jax.distributed.is_initialized() or jax.process_count() == 1:
        return False
    cause: BaseException | None = error
    while cause is not None:
        text = str(cause)
        if _LOST.search(text) or (isinstance(cause, jax.errors.JaxRuntimeError) and _LOST_STATUS.match(text)):
            return True
        cause = cause.__cause__ or cause.__context__
    return False
