"""Real processes on this machine, four host devices each: how they start as one run, and how they end."""

import json
import os
import pathlib
import re
import socket
import subprocess
import sys

import jax
import pytest

from mdm_jax.errors import InputError
from mdm_jax.training import distributed
from mdm_jax.training.cluster import find_cluster

ROOT = pathlib.Path(__file__).parents[1]

TOGETHER = """
import json
from mdm_jax.training import distributed
import jax
from jax.sharding import NamedSharding, PartitionSpec

assert distributed.start(*ARGUMENTS)
assert distributed.start(*ARGUMENTS), "a second call"
mesh = jax.make_mesh((jax.device_count(),), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
here = [1.0 + jax.process_index()] * jax.local_device_count()
rows = jax.make_array_from_process_local_data(NamedSharding(mesh, PartitionSpec("data")), jax.numpy.array(here))
total = jax.jit(jax.shard_map(
    lambda x: jax.lax.psum(x, "data"), mesh=mesh, in_specs=PartitionSpec("data"), out_specs=PartitionSpec()))(rows)
distributed.barrier("all are done")
print(json.dumps({"lead": distributed.is_lead(), "processes": jax.process_count(), "devices": jax.device_count(),
                  "sum": float(total[0]), "gpus": jax.config.read("jax_cuda_visible_devices")}), flush=True)
"""

ALONE = """
from mdm_jax.training import distributed
distributed.start(*ARGUMENTS, timeout=2)
"""

LOSE = """
import os, signal, time
from mdm_jax.training import distributed
import jax

distributed.start(*ARGUMENTS, heartbeat=5)
distributed.barrier("both are here")
if jax.process_index() == VICTIM:
    os.kill(os.getpid(), signal.SIGKILL)
try:
    if WAY == "barrier":
        distributed.barrier("never")
    elif WAY == "step":
        mesh = jax.make_mesh((jax.device_count(),), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
        rows = jax.device_put(jax.numpy.ones(8), jax.sharding.NamedSharding(mesh, jax.P("data")))
        float(jax.jit(jax.numpy.sum)(rows))
    else:
        time.sleep(60)
except Exception as error:
    assert distributed.lost_peer(error), repr(error)
    distributed.leave("error: a peer is gone", distributed.LOST_PEER)
"""


def free_port():
    with socket.create_server(("", 0)) as server:
        return server.getsockname()[1]


def run(program, *processes, timeout=60, **names):
    """Runs `program` once per element of `processes` (arguments of `start`, environment), all at once."""
    started = []
    for arguments, variables in processes:
        unwanted = re.compile("SLURM_|OMPI_|JAX_|.*_proxy", re.IGNORECASE)  # of proxies JAX warns
        env = {name: value for name, value in os.environ.items() if not unwanted.match(name)}
        env |= {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": "--xla_force_host_platform_device_count=4", **variables}
        head = "".join(f"{name} = {value!r}\n" for name, value in {"ARGUMENTS": arguments, **names}.items())
        started.append(
            subprocess.Popen(
                [sys.executable, "-c", head + program],
                env=env,
                cwd=ROOT,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
        )
    try:
        return [(*process.communicate(timeout=timeout), process.returncode) for process in started]
    finally:
        for process in started:
            process.kill()


def report(stdout):
    return json.loads(next(line for line in stdout.splitlines() if line.startswith("{")))


def check_together(results, gpus):
    for number, (stdout, stderr, code) in enumerate(results):
        assert code == 0, stderr
        expected = {"lead": number == 0, "processes": 2, "devices": 8, "sum": 4 * 1.0 + 4 * 2.0, "gpus": gpus}
        assert report(stdout) == expected


def slurm(process_id, port, *, size=2, nodes=1):
    return {
        "SLURM_JOB_ID": "7",
        "SLURM_NTASKS": str(size),
        "SLURM_PROCID": str(process_id),
        "SLURM_LOCALID": str(process_id if nodes == 1 else 0),
        "SLURM_STEP_NODELIST": "127.0.0.1",
        "SLURM_STEP_NUM_TASKS": str(size),
        "SLURM_STEP_NUM_NODES": str(nodes),
        "JAX_COORDINATOR_PORT": str(port),
    }


@pytest.mark.slow
def test_start_two_processes_by_flags_are_one_run():
    address = f"127.0.0.1:{free_port()}"
    check_together(run(TOGETHER, *[((address, 2, i), {}) for i in range(2)]), gpus="all")


@pytest.mark.slow
def test_start_two_slurm_nodes_are_one_run_and_drive_all_gpus():
    port = free_port()
    check_together(run(TOGETHER, *[((), slurm(i, port, nodes=2)) for i in range(2)]), gpus="all")


@pytest.mark.slow
def test_start_missing_peer_ends_both_roles_with_one_line():
    ports = [free_port() for _ in range(3)]
    lead, other, task = run(
        ALONE,
        ((f"127.0.0.1:{ports[0]}", 2, 0), {}),
        ((f"127.0.0.1:{ports[1]}", 2, 1), {}),
        ((), slurm(1, ports[2])),
    )
    for _, stderr, code in (lead, other, task):
        assert code == 2
        assert stderr.startswith("error: ")
        assert stderr.count("\n") == 1
        assert "within 2 s" in stderr
    for (_, stderr, _), port in zip((lead, other), ports, strict=False):
        assert f"2 processes did not come together at 127.0.0.1:{port}" in stderr
        assert "--distributed.process-id from 0 to 1" in stderr
    assert "the 2 processes of this Slurm step did not come together at the first node of 127.0.0.1" in task[1]


@pytest.mark.slow
def test_start_processes_that_were_told_of_different_numbers_end_soon_with_one_line():
    address = f"127.0.0.1:{free_port()}"
    program = "from mdm_jax.training import distributed\ndistributed.start(*ARGUMENTS)"
    for (_, stderr, code), (me, mine, other, theirs) in zip(
        run(program, ((address, 2, 0), {}), ((address, 3, 1), {})), ((0, 2, 1, 3), (1, 3, 0, 2)), strict=True
    ):
        line = f"error: process {me} was started as one of {mine}, process {other} as one of {theirs}: give all"
        assert code == 2
        assert stderr == f"{line} the same --distributed.num-processes\n"


def test_start_cluster_that_jax_cannot_read_raises_input_error():
    ((_, stderr, code),) = run(ALONE, ((), {"OMPI_COMM_WORLD_SIZE": "2", "OMPI_COMM_WORLD_RANK": "0"}))
    assert code == 1
    assert re.search(r"InputError: JAX cannot join the 2 processes of this mpirun .*--distributed\.coordinator", stderr)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("way", "victim"),
    [
        pytest.param("barrier", 1, marks=pytest.mark.slow),
        ("step", 1),
        pytest.param("sleep", 1, marks=pytest.mark.slow),
        pytest.param("sleep", 0, marks=pytest.mark.slow),
    ],
)
def test_lost_peer_ends_the_survivor_with_a_line(way, victim):
    address = f"127.0.0.1:{free_port()}"
    results = run(LOSE, *[((address, 2, i), {}) for i in range(2)], WAY=way, VICTIM=victim)
    _, stderr, code = results[1 - victim]
    assert code == distributed.LOST_PEER, stderr
    assert stderr.splitlines()[-1].startswith("error: "), stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((None, 2, 0), "--distributed.coordinator missing"),
        (("h:1", None, 0), "--distributed.num-processes missing"),
        (("h:1", 2, None), "--distributed.process-id missing"),
        (("h:1", None, None), "--distributed.num-processes and --distributed.process-id missing"),
        (("h:1", 2, 2), r"--distributed.process-id must lie in \[0, 2\), got 2"),
        (("h:1", 2, -1), r"--distributed.process-id must lie in \[0, 2\), got -1"),
        (("h:1", 0, 0), "--distributed.num-processes must be at least 1, got 0"),
        (("host", 2, 0), "--distributed.coordinator must be HOST:PORT"),
        ((":1", 2, 0), "--distributed.coordinator must be HOST:PORT"),
        (("host:http", 2, 1), "--distributed.coordinator must be HOST:PORT"),
        (("host:65536", 2, 1), "--distributed.coordinator must be HOST:PORT"),
    ],
)
def test_start_bad_arguments_raise_input_error(arguments, words):
    with pytest.raises(InputError, match=words):
        distributed.start(*arguments)


def test_start_port_in_use_raises_input_error():
    with socket.create_server(("", 0)) as server:
        port = server.getsockname()[1]
        with pytest.raises(InputError, match=f"port {port} .* cannot be used"):
            distributed.start(f"127.0.0.1:{port}", 2, 0)


@pytest.fixture
def environment(monkeypatch):
    """Sets variables, and nothing else of a cluster."""
    for name in list(os.environ):
        if name.startswith(("SLURM_", "OMPI_", "TPU_", "MEGASCALE_", "KUBERNETES_", "JOB_COMPLETION")):
            monkeypatch.delenv(name)

    def set_variables(variables):
        for name, value in variables.items():
            monkeypatch.setenv(name, value)

    return set_variables


@pytest.mark.parametrize(
    ("variables", "size", "one_per_node"),
    [
        (slurm(0, 1, size=16, nodes=2), 16, False),
        (slurm(0, 1, size=2, nodes=2), 2, True),
        ({"OMPI_COMM_WORLD_SIZE": "4", "OMPI_COMM_WORLD_LOCAL_SIZE": "2"}, 4, False),
        ({"OMPI_COMM_WORLD_SIZE": "4", "OMPI_COMM_WORLD_LOCAL_SIZE": "1"}, 4, True),
    ],
)
def test_find_cluster_several_processes_are_found(environment, variables, size, one_per_node):
    environment(variables)
    cluster = find_cluster()
    assert (cluster.num_processes, cluster.one_per_node) == (size, one_per_node)


@pytest.mark.parametrize(
    "variables",
    [
        {},
        slurm(0, 1, size=1),
        {**slurm(0, 1, size=1), "SLURM_NTASKS": "8"},  # the shell that salloc opens
        {"SLURM_JOB_ID": "7", "SLURM_NTASKS": "8", "SLURM_PROCID": "0", "SLURM_LOCALID": "0"},  # the sbatch script
        {"OMPI_COMM_WORLD_SIZE": "1"},
        {"TPU_WORKER_HOSTNAMES": "a,b"},  # without TPU chips
        {"KUBERNETES_SERVICE_HOST": "10.0.0.1"},  # any pod
    ],
)
def test_start_lone_process_stays_alone(environment, variables):
    environment(variables)
    assert find_cluster() is None
    assert not distributed.start()
    assert not jax.distributed.is_initialized()


@pytest.mark.parametrize(
    ("variables", "size"),
    [
        ({"TPU_WORKER_HOSTNAMES": "localhost"}, None),
        ({"TPU_WORKER_HOSTNAMES": "a,b,c,d"}, 4),
        ({"TPU_WORKER_HOSTNAMES": "a,b", "MEGASCALE_NUM_SLICES": "2"}, 4),
        ({"TPU_SKIP_MDS_QUERY": "1"}, None),
    ],
)
def test_find_cluster_tpu_counts_its_hosts(environment, monkeypatch, variables, size):
    from jax._src.clusters import cloud_tpu_cluster

    monkeypatch.setattr(cloud_tpu_cluster, "running_in_cloud_tpu_vm", True)
    environment({"MEGASCALE_NUM_SLICES": "1"} | variables)
    cluster = find_cluster()
    assert (cluster and cluster.num_processes) == size


JAX_ERROR = jax.errors.JaxRuntimeError
LOST = [
    JAX_ERROR("UNKNOWN: Gloo all-reduce failed: [gloo/transport/tcp/pair.cc:538] Read error: Connection reset by peer"),
    ValueError("UNKNOWN: Gloo AllGather failed: [gloo/transport/tcp/pair.cc:547] Connection closed by peer"),
    JAX_ERROR("INTERNAL: Barrier failed because: task is set to ERROR: UNAVAILABLE: Task 1 heartbeat timeout."),
    JAX_ERROR("DEADLINE_EXCEEDED: Barrier timed out. Id: b::0."),
    JAX_ERROR("UNKNOWN: Gloo context initialization failed: DEADLINE_EXCEEDED: GetKeyValue() timed out with key: cpu"),
    JAX_ERROR("UNAVAILABLE: Failed to send RPC to coordination service."),
    TimeoutError("Timed out while waiting for async_write_complete barrier."),
    JAX_ERROR("INTERNAL: NCCL operation ncclGroupEnd() failed: remote process exited or there was a network error."),
]
OTHER = [
    JAX_ERROR("RESOURCE_EXHAUSTED: Out of memory allocating 4096 bytes."),
    JAX_ERROR("INTERNAL: NCCL operation ncclGroupEnd() failed: unhandled cuda error (run with NCCL_DEBUG=INFO)."),
    ValueError("UNAVAILABLE: Error reading gs://bucket/checkpoints/1"),
    ValueError("Incompatible shapes for broadcasting: (2,) and (3,)"),
    FileNotFoundError("No such file"),
]


@pytest.mark.parametrize("error", LOST + OTHER, ids=lambda error: str(error)[:40])
def test_lost_peer_is_told_by_the_words_and_only_among_several(monkeypatch, error):
    assert not distributed.lost_peer(error)
    monkeypatch.setattr(jax.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    assert distributed.lost_peer(error) == (error in LOST)
    outer = RuntimeError("could not save")
    outer.__cause__ = error
    assert distributed.lost_peer(outer) == (error in LOST)
