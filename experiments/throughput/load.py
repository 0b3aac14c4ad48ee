"""`load` times a Hugging Face folder on its way to the device: its tensors, and the first tokens by its model.

Processes of their own write the folder and load it, so the memory is that of loading alone. Its files are dropped from
the system's cache before each reading. How fast the same files are read plainly stands beside.
"""

import contextlib
import dataclasses
import itertools
import json
import math
import os
import pathlib
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import mdm_jax
from experiments.common import Results, is_on_cpu
from experiments.throughput.flags import Load
from experiments.throughput.report import shows
from mdm_jax.errors import InputError, RunError
from mdm_jax.models import kinds
from mdm_jax.models.config import ModelConfig
from mdm_jax.models.pretrained.folder import write_folder
from mdm_jax.ranges import INT32
from mdm_jax.sharding import make_mesh
from mdm_jax.typing import Params

MEASURED = (
    "gigabytes",
    "load_s",
    "gb_per_s",
    "read_gb_per_s",
    "peak_host_gb",
    "beyond_gb",
    "largest_gb",
    "first_call_s",
)
STD = 0.02
PERIOD = (1 << 22) + 1
"""Random numbers that are drawn; tensors repeat them. It is odd, so that the rows of a matrix differ."""
BUFFER = 1 << 24
"""Bytes that are read at once where files are read plainly."""


def load(flags: Load) -> None:
    """Adds one row. The weights lie in a folder of their own, which is deleted at the end."""
    config, num = flags.config(), flags.fsdp * flags.tensor
    if flags.batch * flags.length > INT32:
        raise InputError(f"--batch {flags.batch} times --length {flags.length} must be at most {INT32} tokens")
    given = {name: getattr(flags, name) for name in ("batch", "length", "block_length", "seed", "fsdp", "tensor")}
    given |= {"mask_id": config.num_tokens - 1}
    pretended = {}
    if is_on_cpu():
        before = os.environ.get("XLA_FLAGS", "")
        pretended["XLA_FLAGS"] = f"{before} --xla_force_host_platform_device_count={num}".strip()
    elif num > 1:
        _child("devices", given)  # too few are refused before gigabytes are written
    results = Results("throughput", "load", out=flags.out, seed=flags.seed)
    folder = pathlib.Path(tempfile.mkdtemp(prefix="weights-", dir=flags.out))
    given |= {"folder": str(folder)}
    try:
        sys.stderr.write(f"{flags.model} of random weights in {flags.dtype}: writing {folder} ...\n")
        written = _child("write", given | {"config": kinds.to_json(config)}, {"JAX_PLATFORMS": "cpu"})
        sys.stderr.write("reading it plainly, loading it and sampling, and reading it again ...\n")
        first = read_plainly(folder)
        loaded = _child("load", given, pretended)
        rates = sorted([first, read_plainly(folder)])
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    results.add(
        model=flags.model,
        layers=flags.layers,
        width=flags.width,
        batch=flags.batch,
        length=flags.length,
        block_length=flags.block_length,
        dtype=flags.dtype,
        fsdp=flags.fsdp,
        tensor=flags.tensor,
        **written,
        **loaded,
        gb_per_s=written["gigabytes"] / loaded["load_s"],
        read_gb_per_s=sum(rates) / 2,
        read_gb_per_s_range=rates,
    )
    results.finish(shown=shows(*MEASURED))


def _child(name: str, given: Mapping[str, Any], environment: Mapping[str, str] | None = None) -> dict[str, float]:
    """What one of `CHILDREN` measures in a process of its own."""
    command = [sys.executable, "-m", "experiments.throughput.load", name, json.dumps(given)]
    ended = subprocess.run(command, stdout=subprocess.PIPE, text=True, env={**os.environ, **(environment or {})})
    if ended.returncode:
        raise RunError(f"the process for `{name}` ended with code {ended.returncode}")
    said: dict[str, Any] = json.loads(ended.stdout)
    for kind in (InputError, RunError):
        if kind.__name__ in said:
            raise kind(said[kind.__name__])
    return said


def devices_for(given: Mapping[str, Any]) -> list[jax.Device]:
    """The devices of the mesh; InputError if there are too few."""
    num, mine = given["fsdp"] * given["tensor"], jax.local_devices()
    if num > len(mine):
        raise InputError(
            f"--fsdp {given['fsdp']} x --tensor {given['tensor']} are {num} devices, and there are {len(mine)}"
        )
    return mine[:num]


def time_writing(given: Mapping[str, Any]) -> dict[str, float]:
    """Writes the folder, as far as the disk."""
    folder, begin = pathlib.Path(given["folder"]), time.perf_counter()
    mask = {"mask_token_id": given["mask_id"]}
    config = kinds.from_json(given["config"])
    write_folder(folder, config, drawn_params(config, given["seed"]), mask)
    drop(folder)
    gigabytes = sum(path.stat().st_size for path in folder.iterdir()) / 1e9
    return {"gigabytes": gigabytes, "write_s": time.perf_counter() - begin}


@dataclasses.dataclass(frozen=True)
class Drawn:
    """A parameter whose numbers are made when they are written, and not kept: what `write_folder` asks of an array.

    Attributes:
      shape: of it.
      dtype: of it.
      numbers: [N] float32, those that it repeats.
      start: the first of them.
    """

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    numbers: np.ndarray
    start: int
    is_fully_addressable = True

    def __getitem__(self, index: int) -> "Drawn":
        """One of a stack."""
        return Drawn(self.shape[1:], self.dtype, self.numbers, self.start + index)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        """The numbers, in Fortran's order: Hugging Face's files hold most matrices transposed."""
        repeated = np.resize(np.roll(self.numbers, -self.start).astype(self.dtype), math.prod(self.shape))
        return repeated.reshape(self.shape[::-1]).T


def drawn_params(config: ModelConfig, seed: int) -> Params:
    """Random weights: normal matrices, norms with scale 1, biases 0."""
    numbers, starts = STD * np.random.default_rng(seed).standard_normal(PERIOD, np.float32), itertools.count(0, 1009)

    def fresh(path: tuple[Any, ...], leaf: jax.ShapeDtypeStruct) -> Drawn:
        same = np.full(1, "scale" in jax.tree_util.keystr(path), np.float32)
        return Drawn(leaf.shape, leaf.dtype, same if leaf.ndim == 1 else numbers, next(starts))

    return jax.tree_util.tree_map_with_path(fresh, kinds.param_shapes(config))


def drop(folder: pathlib.Path) -> None:
    """Writes the files to the disk, and has the system forget what it holds of them in memory, where it lets us."""
    for path in folder.iterdir():
        with path.open("rb") as file:
            os.fsync(file.fileno())
            if hasattr(os, "posix_fadvise"):
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def read_plainly(folder: pathlib.Path) -> float:
    """Gigabytes a second at which the files are read from the disk, one after the other, into one buffer."""
    drop(folder)
    buffer, num_bytes, begin = bytearray(BUFFER), 0, time.perf_counter()
    for path in sorted(folder.iterdir()):
        with path.open("rb", buffering=0) as file:
            while count := file.readinto(buffer):
                num_bytes += count
    rate = num_bytes / 1e9 / (time.perf_counter() - begin)
    drop(folder)
    return rate


def time_loading(given: Mapping[str, Any]) -> dict[str, float]:
    """Loads the folder and samples."""
    devices = devices_for(given)
    mesh = None if len(devices) == 1 else make_mesh(1, given["fsdp"], given["tensor"], devices=devices)
    before, from_disk, cpu, begin = peak_bytes(), bytes_from_disk(), time.process_time(), time.perf_counter()
    model = mdm_jax.load(given["folder"], mesh=mesh)
    jax.block_until_ready(model.params)
    found = {"load_s": time.perf_counter() - begin, "load_cpu_s": time.process_time() - cpu}
    peak = peak_bytes()
    if from_disk is not None:
        found["disk_gb"] = ((bytes_from_disk() or 0) - from_disk) / 1e9
    leaves = jax.tree.leaves(model.params)
    on_each = sum(math.prod(leaf.sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize for leaf in leaves)
    on_host = on_each * len(devices) if devices[0].platform == "cpu" else 0
    times, x_init = [], jnp.full((given["batch"], given["length"]), given["mask_id"])
    for seed in (0, 1):
        begin = time.perf_counter()
        result = mdm_jax.sample(
            model.denoiser,
            model.params,
            jax.random.key(given["seed"] + seed),
            x_init,
            mask_id=given["mask_id"],
            selector=mdm_jax.PerStep(2),
            block_length=given["block_length"],
        )
        jax.block_until_ready(result)
        times.append(time.perf_counter() - begin)
    return found | {
        "device_gb": on_each / 1e9,
        "process_gb": before / 1e9,
        "peak_host_gb": peak / 1e9,
        "beyond_gb": (peak - before - on_host) / 1e9,
        "largest_gb": max(leaf.nbytes for leaf in leaves) / 1e9,
        "first_call_s": times[0],
        "tokens_per_s": x_init.size / times[1],
    }


def peak_bytes() -> int:
    """The most memory that this process has held.

    Linux counts what the parent held in a child's ru_maxrss, but not in VmHWM.
    """
    with contextlib.suppress(OSError, StopIteration):
        lines = pathlib.Path("/proc/self/status").read_text().splitlines()
        return 1024 * int(next(line for line in lines if line.startswith("VmHWM:")).split()[1])
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak


def bytes_from_disk() -> int | None:
    """What this process has read from disks, and not from memory; None where the system does not say."""
    with contextlib.suppress(OSError, StopIteration):
        lines = pathlib.Path("/proc/self/io").read_text().splitlines()
        return int(next(line for line in lines if line.startswith("read_bytes:")).split()[1])
    return None


CHILDREN: dict[str, Callable[[Mapping[str, Any]], dict[str, float]]] = {
    "devices": lambda given: {"devices": len(devices_for(given))},
    "write": time_writing,
    "load": time_loading,
}

if __name__ == "__main__":
    said: dict[str, Any] = {}
    try:
        said |= CHILDREN[sys.argv[1]](json.loads(sys.argv[2]))
    except InputError as error:
        said[InputError.__name__] = str(error)
    except RunError as error:
        said[RunError.__name__] = str(error)
    sys.stdout.write(json.dumps(said))
