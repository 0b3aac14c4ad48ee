"""Names datasets, writes them as array_record files, and reads them into RAM. TensorFlow is never imported."""

import contextlib
import hashlib
import io
import itertools
import logging
import os
import pathlib
import sys
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mdm_jax.errors import InputError, one_line, shown
from mdm_jax.files import local_path, make_folder, read_json, regular_file

if TYPE_CHECKING:
    import tensorflow_datasets as tfds

_READ_CHUNK = 8192  # single records are slow to read
_MEND = "delete the folder and prepare the dataset again"
_INFO = "dataset_info.json"
_FILES = "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}"
_FEATURES = "tensorflow_datasets.core.features."
_DTYPES = {"int8", "uint16", "int32"}
IN_MEMORY = 1 << 30
"""The most bytes of a split that `open_split` reads into memory."""


def digest(*parts: bytes | str | int | float | None) -> str:
    """A digest of everything that a dataset is made from.

    tfds reuses prepared data of the same name, so the name must change with every input.

    Args:
      *parts: the inputs: options, the version of the generator, whole files.

    Returns:
      12 hexadecimal digits.
    """
    sha = hashlib.sha256()
    for part in parts:
        data = b"bytes" + part if isinstance(part, bytes) else repr(part).encode()
        sha.update(len(data).to_bytes(8, "little") + data)
    return sha.hexdigest()[:12]


def prepare(
    builder_class: "type[tfds.core.DatasetBuilder]",
    config: "tfds.core.BuilderConfig",
    data_dir: str | os.PathLike[str],
) -> "tfds.core.DatasetBuilder":
    """Writes a dataset as array_record files if it is not there yet. An interrupted call can be repeated.

    If several processes on a machine want the same dataset, one prepares while the others wait.

    Args:
      builder_class: the class of the builder.
      config: the configuration. Its name holds a digest of every input.
      data_dir: the folder of all datasets.

    Returns:
      The builder, prepared.

    Raises:
      InputError: the dataset on disk is damaged, or the folder cannot be written to.
    """
    parent = make_folder(data_dir) / builder_class.name
    if os.path.exists(parent / config.name / str(builder_class.VERSION)):  # tfds gives this name to what is complete
        return _prepared(builder_class, config, data_dir)
    with _alone(make_folder(parent) / f".{config.name}.lock"):
        return _prepared(builder_class, config, data_dir)


@contextlib.contextmanager
def _alone(path: pathlib.Path) -> Iterator[None]:
    """Waits until no other process of this machine holds the lock file, and holds it."""
    try:
        file = path.open("a")
    except OSError as error:
        raise InputError(f"{path.parent} cannot be written to ({error.strerror}); give another folder") from error
    with file:
        with contextlib.suppress(ImportError, OSError):  # Windows, and file systems without locks
            import fcntl

            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                sys.stderr.write(f"another process makes {path.stem[1:]} in {path.parent}: waiting for it\n")
                fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _prepared(
    builder_class: "type[tfds.core.DatasetBuilder]",
    config: "tfds.core.BuilderConfig",
    data_dir: str | os.PathLike[str],
) -> "tfds.core.DatasetBuilder":
    """`prepare`, by one process at a time."""
    import tensorflow_datasets as tfds

    tfds.disable_progress_bar()
    folder = local_path(data_dir) / builder_class.name / config.name / str(builder_class.VERSION)
    absl_log = logging.getLogger("absl")
    level = absl_log.level
    absl_log.setLevel(logging.ERROR)  # hides a warning about configurations that are not listed in the class
    try:
        with _reading(folder):
            if os.path.exists(folder):
                _check_written(folder)
            builder = builder_class(data_dir=os.fspath(data_dir), config=config, file_format="array_record")
    finally:
        absl_log.setLevel(level)
    with contextlib.redirect_stdout(io.StringIO()):  # hides the announcement of a download
        builder.download_and_prepare()
    return builder


def numbered(
    chunks: Iterable[Mapping[str, NDArray[Any]]], num: int, label: str
) -> Iterator[tuple[int, dict[str, NDArray[Any]]]]:
    """Splits chunks into single records for tfds, with a progress bar.

    Args:
      chunks: fields `[chunk, ...]`.
      num: the number of all records.
      label: the label of the progress bar.

    Yields:
      The index of a record, and its fields.
    """
    from mdm_jax.progress import Bar

    numbers = itertools.count()
    with Bar(total=num, desc=label, unit="", unit_scale=True, leave=False) as bar:
        for chunk in chunks:
            for values in zip(*chunk.values(), strict=True):
                yield next(numbers), dict(zip(chunk, values, strict=True))
                bar.update()


def read_split(
    source: "tfds.core.DatasetBuilder | str | os.PathLike[str]", split: str
) -> dict[str, NDArray[np.generic]]:
    """Reads a whole split into RAM.

    Args:
      source: a prepared builder, or the folder that it wrote (the one that holds `dataset_info.json`).
      split: "train" or "test", or a tfds expression such as "train[:1000]".

    Returns:
      For each feature, the values of all records in order, `[num, ...]`.

    Raises:
      InputError: there is no prepared dataset, it has no such split, it is damaged, or another program wrote it.
    """
    records, folder = _records_of(source, split)
    chunks: dict[str, list[NDArray[np.generic]]] = {}
    with _reading(folder):
        for start in range(0, len(records), _READ_CHUNK):
            chunk = records.__getitems__(range(start, min(start + _READ_CHUNK, len(records))))
            for name in chunk[0]:
                chunks.setdefault(name, []).append(np.stack([record[name] for record in chunk]))
        return {name: np.concatenate(arrays) for name, arrays in chunks.items()}


class Stored:
    """A field of a split on disk, `[num, ...]`, as `pipeline.Batches` takes it: rows are read when they are taken."""

    def __init__(self, records: Any, folder: pathlib.Path, name: str) -> None:
        self._records, self._folder, self._name = records, folder, name

    def __len__(self) -> int:
        return len(self._records)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        """All rows, in memory."""
        del copy
        return self[:].astype(dtype, copy=False) if dtype is not None else self[:]

    def __getitem__(self, rows: slice | NDArray[np.integer]) -> NDArray[Any]:
        numbers = range(len(self))[rows] if isinstance(rows, slice) else rows.tolist()
        with _reading(self._folder):
            return np.stack([record[self._name] for record in self._records.__getitems__(numbers)])


def open_split(source: "tfds.core.DatasetBuilder | str | os.PathLike[str]", split: str) -> dict[str, Any]:
    """Opens a split: arrays in memory if they have up to `IN_MEMORY` bytes, else each field as `Stored`.

    Args:
      source: as for `read_split`.
      split: as for `read_split`.

    Returns:
      For each feature, its values `[num, ...]`.

    Raises:
      InputError: as `read_split`.
    """
    records, folder = _records_of(source, split)
    with _reading(folder):
        sizes = {name: value.nbytes for name, value in records[0].items()}
    if len(records) * sum(sizes.values()) <= IN_MEMORY:
        return read_split(source, split)
    return {name: Stored(records, folder, name) for name in sizes}


def _records_of(source: "tfds.core.DatasetBuilder | str | os.PathLike[str]", split: str) -> tuple[Any, pathlib.Path]:
    """The records of a split, at least one, which are read when asked for, and their folder; errors as `read_split`."""
    import tensorflow_datasets as tfds

    if isinstance(source, str | os.PathLike):
        folder = local_path(source)
        if not os.path.exists(folder / _INFO):
            raise InputError(f"{folder} holds no prepared dataset (no {_INFO}): prepare it first")
        with _reading(folder):
            _check_written(folder)
            builder = tfds.builder_from_directory(os.fspath(folder))
    else:
        builder, folder = source, pathlib.Path(source.data_dir)
        if not builder.is_prepared():
            raise InputError(f"dataset {builder.info.full_name} is not in {folder} yet: prepare it first")
    with _reading(folder):
        _check_records(builder)
    try:
        records = builder.as_data_source(split=split)
    except (ValueError, TypeError, AttributeError) as error:
        known = ", ".join(f"{name} ({info.num_examples})" for name, info in builder.info.splits.items())
        raise InputError(f"split {shown(split)} cannot be read from {folder}: it holds {known}") from error
    if not len(records):
        raise InputError(f"split {shown(split)} of {folder} is empty")
    return records, folder


@contextlib.contextmanager
def _reading(folder: pathlib.Path) -> Iterator[None]:
    """Raises InputError for every failure to read the files of a dataset."""
    try:
        yield
    except InputError as error:
        raise InputError(f"{error}; {_MEND}") from None
    except MemoryError:
        raise
    except Exception as error:  # tfds, protobuf and array_record may raise anything
        reason = one_line(f"{type(error).__name__}: {error}", 200)
        raise InputError(f"{folder} is damaged ({reason}); {_MEND}") from error


def _check_written(folder: pathlib.Path) -> None:
    """Raises InputError unless the JSON files of a dataset have the form that our builder writes.

    tfds imports the Python classes in `features.json` and opens the files in `dataset_info.json`, so no other names
    may be there.
    """
    info, features = (read_json(folder / name, "what was prepared") for name in (_INFO, "features.json"))
    templates = [split["filepathTemplate"] for split in info["splits"]]
    fields = features["featuresDict"]["features"].values()
    kinds = [(field["pythonClassName"], field["tensor"]["encoding"]) for field in fields]
    is_ours = info["fileFormat"] == "array_record" and set(templates) == {_FILES}
    is_ours &= features["pythonClassName"] == f"{_FEATURES}features_dict.FeaturesDict" and len(features) == 2
    is_ours &= set(kinds) == {(f"{_FEATURES}tensor_feature.Tensor", "bytes")}
    is_ours &= all(len(field) == 2 and field["tensor"]["dtype"] in _DTYPES for field in fields)
    if not is_ours:
        raise InputError(f"{folder} holds a dataset that another program wrote, or is damaged")


def _check_records(builder: "tfds.core.DatasetBuilder") -> None:
    """Raises InputError unless the files of records exist and hold the number of records that was written."""
    from array_record.python.array_record_module import ArrayRecordReader

    for split in builder.info.splits.values():
        if not split.num_examples:
            raise InputError(f"{builder.data_dir} holds no {split.name} records")
        for path, num in zip(split.filepaths, split.shard_lengths, strict=True):
            reader = ArrayRecordReader(os.fspath(regular_file(path)))
            if reader.num_records() != num:
                raise InputError(f"{path} holds {reader.num_records()} records, not {num}")
            reader.close()
