"""Clusters that this process can be part of: Slurm, mpirun, a TPU slice, a Kubernetes job."""

import contextlib
import importlib.util
import os
from typing import NamedTuple


class Cluster(NamedTuple):
    """A group of processes that a launcher started together."""

    name: str
    num_processes: int | None
    """None if only JAX can find out"""
    one_per_node: bool
    coordinator: str
    """where the coordinator runs, in words; JAX finds the address"""


def find_cluster() -> Cluster | None:
    """The cluster of this process, None if it runs alone. Order and variables are those of JAX."""
    env = os.environ
    size = int(env.get("OMPI_COMM_WORLD_SIZE", 1))  # mpirun
    if size > 1:
        return Cluster("mpirun", size, env.get("OMPI_COMM_WORLD_LOCAL_SIZE") == "1", "the node of mpirun")
    # srun. An sbatch script has no step, the shell of salloc a step of one task; SLURM_NTASKS differs.
    size = int(env.get("SLURM_STEP_NUM_TASKS", 1))
    if size > 1:
        one_per_node = env.get("SLURM_STEP_NUM_NODES") == str(size)
        return Cluster("Slurm step", size, one_per_node, f"the first node of {env.get('SLURM_STEP_NODELIST')}")
    size = _tpu_hosts()
    if size > 1:
        return Cluster("TPU slice", size, False, "worker 0")
    # An indexed job. Only the API server knows its size; JAX asks it with the package kubernetes.
    if {"KUBERNETES_SERVICE_HOST", "JOB_COMPLETION_INDEX"} <= env.keys() and importlib.util.find_spec("kubernetes"):
        return Cluster("Kubernetes job", None, False, "the pod of index 0")
    return None


def _tpu_hosts() -> int:
    """The number of hosts of a TPU slice. JAX reads it from GKE's variables or the VM's metadata."""
    with contextlib.suppress(Exception):  # no metadata server, or other names in this version: one host
        from jax._src.clusters import GceTpuCluster, GkeTpuCluster

        for cluster in (GkeTpuCluster, GceTpuCluster):
            if cluster.is_env_present():
                return int(cluster.get_process_count())
    return 1
