"""What a checkpoint says of itself, beside its arrays: data position, digests, shapes and score.

The checkpoints of a run are the folders `checkpoints/STEP/`. Two JSON files of each are read here:
`extra/metadata`, the record, and `metrics/metrics`, the score. A record holds a digest of every
array, since a flipped bit in a data file would otherwise be restored without an error.
"""

import json
import pathlib
import zlib
from typing import Any

from mdm_jax.errors import InputError
from mdm_jax.files import read_bytes
from mdm_jax.training.config import FORMAT
from mdm_jax.training.digest import digest, shapes

CHECKPOINTS = "checkpoints"
"""Name of the folder with the checkpoints of a run."""


def is_step(name: str) -> bool:
    """Whether a folder of this name can be a checkpoint."""
    return name.isascii() and name.isdecimal()


def all_steps(folder: pathlib.Path) -> list[int]:
    """The steps of a run's finished checkpoints in ascending order; some may be damaged."""
    path = folder / CHECKPOINTS
    return sorted(int(entry.name) for entry in path.iterdir() if is_step(entry.name)) if path.is_dir() else []


def read_score(folder: pathlib.Path, step: int) -> dict[str, Any] | None:
    """The metric and the score of a checkpoint; None if they cannot be read.

    The score is None if the checkpoint was saved without one.
    """
    try:
        metrics = json.loads(read_bytes(folder / CHECKPOINTS / str(step) / "metrics" / "metrics"))
        return {
            "metric": str(metrics["metric"]),
            "score": None if metrics["score"] is None else float(metrics["score"]),
        }
    except (OSError, ValueError, TypeError, KeyError):
        return None


def best_step(folder: pathlib.Path) -> int:
    """The step of the checkpoint with the highest score, by the metric of the newest score.

    Raises:
      InputError: no checkpoint has a score.
    """
    read = [(step, read_score(folder, step)) for step in all_steps(folder)]
    scored = [(step, score) for step, score in read if score is not None and score["score"] is not None]
    if not scored:
        raise InputError(f"{folder} holds no checkpoint with a score; name the one you want, or train with a metric")
    metric = scored[-1][1]["metric"]
    return max((score["score"], step) for step, score in scored if score["metric"] == metric)[1]


def make_record(items: dict[str, Any], data_state: dict[str, Any], seconds: float) -> dict[str, Any]:
    """The record of a checkpoint.

    Args:
      items: the trees of arrays that are saved, by name.
      data_state: position in the data.
      seconds: run time so far.

    Returns:
      A value for JSON, with a checksum of itself.
    """
    record = {
        "format": FORMAT,
        "digest": {name: digest(item) for name, item in items.items()},
        "shapes": {name: shapes(item) for name, item in items.items()},
        "data": data_state,
        "seconds": seconds,
    }
    return {**record, "crc32": crc32(record)}


def read_record(checkpoint: pathlib.Path) -> dict[str, Any]:
    """The record in the folder of a checkpoint.

    Raises:
      InputError: a newer version of this library wrote it.
      ValueError: the checkpoint is damaged; other exceptions of reading say the same.
    """
    irregular = [path.name for path in checkpoint.rglob("*") if not (path.is_file() or path.is_dir())]
    if irregular:  # a pipe would block a thread of Orbax for ever
        raise ValueError(f"{irregular[0]} in it is no regular file")
    record: dict[str, Any] = json.loads((checkpoint / "extra" / "metadata").read_text())
    if record["format"] > FORMAT:
        raise InputError(
            f"{checkpoint} has format {record['format']}, this version reads up to {FORMAT}; update mdm_jax"
        )
    if record.pop("crc32") != crc32(record):
        raise ValueError("the checksum of its record differs")
    return record


def crc32(record: dict[str, Any]) -> int:
    """A checksum of a record without its checksum."""
    return zlib.crc32(json.dumps(record, sort_keys=True).encode())


def check_arrays(checkpoint: pathlib.Path, like: dict[str, Any], record: dict[str, Any]) -> None:
    """InputError unless names and shapes of the arrays in `like` are those of the checkpoint."""
    for item, arrays in like.items():
        here, there = shapes(arrays), record["shapes"].get(item, {})
        differing = [name for name in here | there if here.get(name) != there.get(name) or name not in there]
        if differing:
            name = differing[0]
            old, new = (" x ".join(map(str, tree[name])) if name in tree else "not" for tree in (there, here))
            what = "optimizer" if item == "optimizer" else "network"
            raise InputError(
                f"{checkpoint} is of another {what}: {name} is {old or 'a number'} there and {new or 'a number'} here; "
                "give the one it was trained with, or another folder"
            )


def difference(items: dict[str, Any], record: dict[str, Any]) -> str:
    """Names the items whose digests differ from the record, in words; empty if none do.

    This is a computation in which all processes take part.
    """
    differing = [name for name, item in items.items() if digest(item) != record["digest"][name]]
    return f"the digest of its {' and '.join(differing)} differs" if differing else ""
