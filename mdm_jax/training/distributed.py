"""Several processes as one run: how they find each other, and how each of them ends when another one is gone.

All of it is JAX's own runtime. Added is that it starts only where there are several processes, and that its failures,
which end a process from C++ with a stack trace and SIGABRT, end it with one line and an exit code.
"""

import contextlib
import ctypes
import importlib.util
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
from typing import Any, NamedTuple, NoReturn

import jax
import jax.numpy as jnp
from jax._src import distributed as runtime
from jax.experimental import multihost_utils
from jax.sharding import Mesh, PartitionSpec

from mdm_jax.errors import InputError

LOST_PEER = 75
"""Exit code of a process that lost another one; sysexits.h calls it a passing failure, to be tried again."""

PATIENCE = 24 * 60 * 60
"""Seconds to wait for processes that live: they may have data to prepare, or to compile. The dead are found by JAX."""

FLAGS = ("--distributed.coordinator", "--distributed.num-processes", "--distributed.process-id")


def start(
    coordinator: str | None = None,
    num_processes: int | None = None,
    process_id: int | None = None,
    *,
    timeout: float = 300.0,
    heartbeat: int = 100,
) -> bool:
    """Joins this process with the others of its run; to be called before any computation.

    Without the first three it joins those that Slurm, Open MPI, a TPU slice or a Kubernetes job runs together, and does
    nothing elsewhere. If they do not come together, the process ends with one line and exit code 2. A second call does
    nothing.

    Args:
      coordinator: HOST:PORT where process 0 runs, the same for all.
      num_processes: how many there are.
      process_id: which one this is, from 0.
      timeout: seconds to wait for the others.
      heartbeat: seconds of silence after which a process counts as dead; 100 is JAX's default. One that stands still
        for so long (its machine swaps, say) ends the run too.

    Returns:
      Whether JAX's runtime for several processes runs.

    Raises:
      InputError: the arguments do not fit together, or the port is taken, or JAX cannot use the cluster it is in.
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
        advice = "see whether all of them run, and what they say"
        num_processes = cluster.num_processes
        # Under Slurm and mpirun JAX shows a process one GPU. One that has its node for itself shall drive all of them.
        all_devices = cluster.one_per_node and "JAX_LOCAL_DEVICE_IDS" not in os.environ
        options = {"local_device_ids": [] if all_devices else None}
    options["initialization_timeout"] = math.ceil(timeout) + 60  # longer than ours, since it ends with SIGABRT
    options["heartbeat_timeout_seconds"] = heartbeat
    with _one_line(who, where, advice, timeout):
        try:
            jax.distributed.initialize(coordinator, num_processes, process_id, **options)
        except Exception as error:
            if coordinator is not None:
                raise
            words = " ".join(str(error).split())[:160]  # of what each kind of cluster raises
            raise InputError(f"JAX cannot join {who} ({words}); give each {', '.join(FLAGS)}") from error
    _compare_numbers()
    return True


def _compare_numbers() -> None:
    """Ends the process in one line if another was told of another number of processes: all would wait in vain."""
    me, number = runtime.global_state.process_id, runtime.global_state.num_processes
    client = _client()
    client.key_value_set(f"mdm_jax/num_processes/{me}", str(number))
    for other in range(number) if me == 0 else (0,):
        theirs = int(client.blocking_key_value_get(f"mdm_jax/num_processes/{other}", 1000 * PATIENCE))
        if theirs != number:
            time.sleep(2.0 if me == 0 else 0.0)  # it holds what the others have to read
            line = f"error: process {me} was told of {number} processes, and process {other} of {theirs}"
            leave(f"{line}: give all of them the same {FLAGS[1]}", 2)


def _check(coordinator: str, num_processes: int, process_id: int) -> None:
    """InputError where JAX would wait in vain or, on a port that is taken, end with a segmentation fault."""
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
            raise InputError(f"port {port} of {FLAGS[0]} cannot be used ({error.strerror}); take another one") from None


class Cluster(NamedTuple):
    """What is known of the processes that run together."""

    name: str
    num_processes: int | None
    """None where only JAX can find out"""
    one_per_node: bool
    coordinator: str
    """where it runs, in words; JAX finds the address"""


def find_cluster() -> Cluster | None:
    """Where this process is one of several, what it is part of. The order and the variables are those of JAX."""
    env = os.environ
    size = int(env.get("OMPI_COMM_WORLD_SIZE", 1))  # mpirun
    if size > 1:
        return Cluster("mpirun", size, env.get("OMPI_COMM_WORLD_LOCAL_SIZE") == "1", "the node of mpirun")
    # srun. The sbatch script is in no step, and the shell of salloc in a step of one task, whatever SLURM_NTASKS says.
    size = int(env.get("SLURM_STEP_NUM_TASKS", 1))
    if size > 1:
        one_per_node = env.get("SLURM_STEP_NUM_NODES") == str(size)
        return Cluster("Slurm step", size, one_per_node, f"the first node of {env.get('SLURM_STEP_NODELIST')}")
    size = _tpu_hosts()
    if size > 1:
        return Cluster("TPU slice", size, False, "worker 0")
    # An indexed job. How large it is only the API server knows, whom JAX asks with the package kubernetes.
    if {"KUBERNETES_SERVICE_HOST", "JOB_COMPLETION_INDEX"} <= env.keys() and importlib.util.find_spec("kubernetes"):
        return Cluster("Kubernetes job", None, False, "the pod of index 0")
    return None


def _tpu_hosts() -> int:
    """Hosts of a TPU slice; where they are listed (GKE's variables, the VM's metadata) is left to JAX."""
    with contextlib.suppress(Exception):  # no metadata server, or another version's names: one host
        from jax._src.clusters import GceTpuCluster, GkeTpuCluster

        for cluster in (GkeTpuCluster, GceTpuCluster):
            if cluster.is_env_present():
                return int(cluster.get_process_count())
    return 1


@contextlib.contextmanager
def _one_line(who: str, where: str, advice: str, timeout: float) -> Iterator[None]:
    """Ends the process in one line if the runtime that starts in its body does not, or fails later on."""
    line = f"error: {who} did not come together at {where}"
    advice = f"{advice}; check that process 0 runs there and that the others can reach its port"
    watch = threading.Timer(timeout, leave, (f"{line} within {timeout:g} s: {advice}", 2))
    watch.daemon = True
    _on_abort(f"{line}: {advice}", 2)
    interrupt = signal.signal(signal.SIGINT, signal.SIG_DFL)  # Python's would be heard after the wait
    watch.start()
    try:
        yield
    finally:
        watch.cancel()
        signal.signal(signal.SIGINT, interrupt)
    _on_abort(
        "error: JAX ended this process (its message is above), most likely because another process of the run died or "
        "cannot be reached; start all of them again with the same command",
        LOST_PEER,
    )


_handler: Any = None
"""What SIGABRT calls; C keeps no reference of its own."""

_leaving = threading.Lock()
"""Taken once, by the thread that ends the process."""


def _on_abort(line: str, code: int) -> None:
    """Makes SIGABRT `leave`.

    JAX aborts when process 0 is gone or another process is silent for too long: the only sign where a computation hangs
    that waits for a dead one. `signal.signal` would not do: abort() does not wait for a handler in Python.
    """
    global _handler
    handler = ctypes.CFUNCTYPE(None, ctypes.c_int)(lambda _: leave(line, code))
    ctypes.CDLL(None).signal(signal.SIGABRT, handler)
    _handler = handler


def leave(line: str, code: int) -> NoReturn:
    """Writes `line` to stderr and ends the process at once.

    After a lost peer this is the way out: an orderly exit waits in JAX's shutdown barrier until the heartbeat of the
    dead process times out, and aborts then.
    """
    _leaving.acquire()
    with contextlib.suppress(Exception):
        sys.stdout.flush()
        sys.stderr.flush()
    os.write(2, f"{line}\n".encode())
    os._exit(code)


def leave_after(seconds: float, code: int) -> None:
    """Sees to it that a process which fails alone is gone in a while, and not held by the others until all time out."""
    if jax.distributed.is_initialized():
        watch = threading.Timer(seconds, os._exit, (code,))
        watch.daemon = True
        watch.start()


def is_lead() -> bool:
    """Whether this is process 0, which prints and writes what is written once."""
    return jax.process_index() == 0


def barrier(name: str) -> None:
    """Waits until all processes are here, however long that takes while they live; nothing with one."""
    if jax.process_count() > 1:
        where = f"mdm_jax/{next(_barriers)}/{name}"
        _client().wait_at_barrier(where, 1000 * PATIENCE)


def _client() -> Any:
    """Of the coordination service, which does without devices."""
    return runtime.global_state.client


_barriers = itertools.count()
"""Each has a name of its own, since all processes come to the same ones in the same order."""


def meet(mesh: Mesh) -> None:
    """Connects all devices of a run along all axes of its mesh; nothing with one process.

    On CPUs, those that compute together are connected when they first do, and one that is not there within 30 seconds
    counts as lost (Gloo). But a process may have to compile for minutes what another one reads from its cache. So they
    are connected here, where all have come to a barrier and nothing is left to compile; from then on they wait.
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
    """In words, for an `error` that `lost_peer` knows."""
    if "context initialization failed" in str(error):
        return "another process did not answer for 30 s when it was to be connected: it is gone, or its machine busy"
    return "another process of the run is gone"


def lost_peer(error: BaseException) -> bool:
    """Whether `error`, or what caused it, says that another process of the run is gone; False with one process.

    It goes by the words and the status. Those of CPU, barriers and Orbax were seen; those of NCCL are documented.
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
