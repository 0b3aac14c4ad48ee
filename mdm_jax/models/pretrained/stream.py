"""Tensors in a folder of safetensors files: read row by row, and written one after the other."""

import dataclasses
import itertools
import json
import math
import pathlib
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from mdm_jax.errors import InputError, shown
from mdm_jax.files import make_folder, read_json, regular_file, whole_file, write_whole

ONE, INDEX = "model.safetensors", "model.safetensors.index.json"
DTYPES = {"float32": "F32", "bfloat16": "BF16", "float16": "F16"}
MOST = 5_000_000_000
"""Bytes of a file of several; a larger model is split."""
_ALIGNED = 64
"""What the address of an array is a multiple of: such a one JAX takes over on a CPU, without copying it."""


@dataclasses.dataclass(frozen=True)
class Stored:
    """A tensor in a file.

    Attributes:
      path: of the file.
      start: its first byte there.
      shape: of the tensor.
      dtype: one of `DTYPES`, or what the file calls another one.
    """

    path: pathlib.Path
    start: int
    shape: tuple[int, ...]
    dtype: str

    def rows(self, first: int, last: int) -> np.ndarray:
        """The rows from `first` on up to `last`, along the first axis; the only ones that are read."""
        found = _empty((last - first, *self.shape[1:]), self.dtype)
        self.read_into(found, first)
        return found

    def read_into(self, rows: np.ndarray, first: int = 0) -> None:
        """Fills contiguous `rows` with those from `first` on."""
        data = rows.reshape(-1).view(np.uint8)
        try:
            with self.path.open("rb", buffering=0) as file:
                file.seek(self.start + first * math.prod(self.shape[1:]) * rows.itemsize)
                left = data.data
                while left and (count := file.readinto(left)):
                    left = left[count:]
        except OSError as error:
            raise InputError(f"{self.path} cannot be read ({error}); download it again") from error
        if left:
            raise InputError(f"{self.path} became shorter while it was read; download it again")


@dataclasses.dataclass(frozen=True)
class Stack:
    """Tensors of one shape and dtype as one with an axis more, in front.

    Attributes:
      tensors: at least one.
    """

    tensors: tuple[Stored, ...]

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the stack."""
        return (len(self.tensors), *self.tensors[0].shape)

    @property
    def dtype(self) -> str:
        """Of each."""
        return self.tensors[0].dtype

    def rows(self, first: int, last: int) -> np.ndarray:
        """The tensors from `first` on up to `last`; the only ones that are read."""
        found = _empty((last - first, *self.tensors[0].shape), self.dtype)
        for rows, tensor in zip(found, self.tensors[first:last], strict=True):
            tensor.read_into(rows)
        return found


def _empty(shape: tuple[int, ...], dtype: str) -> np.ndarray:
    """An array that JAX takes over."""
    size = math.prod(shape) * jnp.dtype(dtype).itemsize
    data = np.empty(size + _ALIGNED, np.uint8)
    return data[-data.ctypes.data % _ALIGNED :][:size].view(jnp.dtype(dtype)).reshape(shape)


def stored_tensors(folder: pathlib.Path) -> dict[str, Stored]:
    """The tensors of a folder, in the order in which they lie in its files.

    Raises:
      InputError: there are no such files, or one is missing, truncated or damaged, or one tensor is in two of them.
    """
    from safetensors import SafetensorError, safe_open

    tensors: dict[str, Stored] = {}
    for path in map(regular_file, _files(folder)):
        try:
            with safe_open(path, "numpy") as file:  # compares the header with the file
                names = file.offset_keys()
            with path.open("rb") as file:
                size = int.from_bytes(file.read(8), "little")
                header = json.loads(file.read(size))
        except (OSError, ValueError, SafetensorError) as error:
            raise InputError(f"{path} cannot be read ({error}); download it again") from error
        for name in names:
            if name in tensors:
                raise InputError(f"{path} holds {name}, as another file of {folder} does; download them again")
            entry = header[name]
            start, shape = 8 + size + entry["data_offsets"][0], tuple(entry["shape"])
            dtype = next((dtype for dtype, kind in DTYPES.items() if kind == entry["dtype"]), entry["dtype"])
            tensors[name] = Stored(path, start, shape, dtype)
    return tensors


def _files(folder: pathlib.Path) -> list[pathlib.Path]:
    if (folder / INDEX).exists():
        index = read_json(folder / INDEX, "an index of safetensors files")
        weight_map = index.get("weight_map") if isinstance(index, dict) else None
        names: list[Any] = list(weight_map.values()) if isinstance(weight_map, dict) else [None]
        for name in names:
            if not isinstance(name, str) or pathlib.PurePath(name).name != name:
                raise InputError(f"{folder / INDEX} names {shown(name)}, no file of the folder; download it again")
        return [folder / name for name in sorted(set(names))]
    found = [folder / ONE] if (folder / ONE).exists() else sorted(folder.glob("*.safetensors"))
    if len(found) == 1:
        return found
    if found:
        raise InputError(f"{folder} holds {len(found)} safetensors files and no {INDEX} that names those of the model")
    pickles = any(folder.glob("*.bin")) or any(folder.glob("*.pt*"))
    mend = (
        "convert its pickles with transformers' save_pretrained, as this reads none" if pickles else "download it again"
    )
    raise InputError(f"{folder} holds no safetensors file: {mend}")


class Written(NamedTuple):
    """A tensor that is to be written.

    Attributes:
      shape: of it.
      dtype: one of `DTYPES`.
      read: gives it whole.
    """

    shape: tuple[int, ...]
    dtype: str
    read: Callable[[], np.ndarray]

    @property
    def num_bytes(self) -> int:
        """Of its numbers."""
        return math.prod(self.shape) * (4 if self.dtype == "float32" else 2)


def write_tensors(folder: pathlib.Path, tensors: Mapping[str, Written], *, most: int = MOST) -> pathlib.Path:
    """Writes model.safetensors or, where it would have more than `most` bytes, several files and their index.

    Of the tensors, one at a time is in memory.

    Args:
      folder: made if it is not there.
      tensors: by name.
      most: bytes of one file; a single larger tensor has a file of its own.

    Returns:
      The file, or the first of several.

    Raises:
      InputError: a file cannot be written.
    """
    make_folder(folder)
    parts: list[dict[str, Written]] = [{}]
    for name, tensor in tensors.items():
        size = sum(other.num_bytes for other in parts[-1].values())
        if parts[-1] and size + tensor.num_bytes > most:
            parts.append({})
        parts[-1][name] = tensor
    names = [f"model-{i:05}-of-{len(parts):05}.safetensors" for i in range(1, len(parts) + 1)]
    names = [ONE] if len(parts) == 1 else names
    for name, part in zip(names, parts, strict=True):
        write_file(folder / name, part, {"format": "pt"})
    if len(parts) > 1:
        total = sum(tensor.num_bytes for tensor in tensors.values())
        weight_map = {name: file for file, part in zip(names, parts, strict=True) for name in part}
        index = {"metadata": {"total_size": total}, "weight_map": weight_map}
        write_whole(folder / INDEX, json.dumps(index, indent=2) + "\n")
    (folder / (INDEX if len(parts) == 1 else ONE)).unlink(missing_ok=True)  # or an older model would be read
    return folder / names[0]


def write_file(path: pathlib.Path, tensors: Mapping[str, Written], metadata: Mapping[str, str]) -> None:
    """Writes one file, as the format's description has it: the header's length, the header, the numbers."""
    tensors = dict(sorted(tensors.items(), key=lambda item: item[1].dtype != "float32"))  # so that all are aligned
    ends = list(itertools.accumulate(tensor.num_bytes for tensor in tensors.values()))
    header: dict[str, Any] = {"__metadata__": metadata}
    for (name, tensor), start, end in zip(tensors.items(), [0, *ends], ends, strict=False):
        header[name] = {"dtype": DTYPES[tensor.dtype], "shape": tensor.shape, "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with whole_file(path) as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for tensor in tensors.values():
            file.write(np.ascontiguousarray(tensor.read()).reshape(-1).view(np.uint8).data)
