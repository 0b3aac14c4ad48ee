"""How datasets are named, written as array_record files, and read into RAM.

TensorFlow is not needed and never imported.
"""

import contextlib
import hashlib
import io
import itertools
import logging
import os
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mdm_jax.errors import InputError

if TYPE_CHECKING:
    import tensorflow_datasets as tfds

_READ_CHUNK = 8192  # array_record is slow one record at a time


def digest(*parts: bytes | str | int | float | None) -> str:
    """Names everything that a dataset was made from, in order.

    tfds takes prepared data to be right when its name is right, so the name has to change with every input.

    Args:
        *parts: The inputs: options, the version of the generator, whole files.

    Returns:
        12 hexadecimal digits.
    """
    sha = hashlib.sha256()
    for part in parts:
        data = b"bytes" + part if isinstance(part, bytes) else repr(part).encode()
        sha.update(len(data).to_bytes(8, "little") + data)
    return sha.hexdigest()[:12]


def prepare(
    builder_class: "type[tfds.core.GeneratorBasedBuilder]",
    config: "tfds.core.BuilderConfig",
    data_dir: str | os.PathLike[str],
) -> "tfds.core.GeneratorBasedBuilder":
    """Writes a dataset as array_record files unless it is there already; takes up again after an interruption.

    With several processes on one file system only one may prepare while the others wait.

    Args:
        builder_class: The builder.
        config: Its configuration, whose name holds a digest of every input.
        data_dir: The folder of all datasets.

    Returns:
        The builder, prepared.
    """
    import tensorflow_datasets as tfds

    tfds.disable_progress_bar()
    absl_log = logging.getLogger("absl")
    level = absl_log.level
    absl_log.setLevel(logging.ERROR)  # it warns of every configuration that is not listed in the class
    try:
        builder = builder_class(data_dir=os.fspath(data_dir), config=config, file_format="array_record")
    finally:
        absl_log.setLevel(level)
    with contextlib.redirect_stdout(io.StringIO()):  # it announces a download
        builder.download_and_prepare()
    return builder


def numbered(
    chunks: Iterable[Mapping[str, NDArray[Any]]], num: int, label: str
) -> Iterator[tuple[int, dict[str, NDArray[Any]]]]:
    """Records one by one out of chunks of them, as tfds wants them, with a progress bar.

    Args:
        chunks: Fields `[some, ...]`.
        num: How many records there are in all.
        label: Of the bar.

    Yields:
        The number of a record, and its fields.
    """
    import tqdm

    numbers = itertools.count()
    with tqdm.tqdm(total=num, desc=label, unit="", unit_scale=True, leave=False, dynamic_ncols=True) as bar:
        for chunk in chunks:
            for values in zip(*chunk.values(), strict=True):
                yield next(numbers), dict(zip(chunk, values, strict=True))
                bar.update()


def read_split(
    source: "tfds.core.DatasetBuilder | str | os.PathLike[str]", split: str
) -> dict[str, NDArray[np.generic]]:
    """Reads a whole split into RAM.

    Args:
        source: A prepared builder, or the folder that it wrote (the one that holds `dataset_info.json`).
        split: "train" or "test", or a tfds expression such as "train[:1000]".

    Returns:
        For each feature, the values of all records in their order, `[num, ...]`.

    Raises:
        InputError: There is no prepared dataset, or no such split in it.
    """
    import tensorflow_datasets as tfds

    if isinstance(source, str | os.PathLike):
        folder = os.fspath(source)
        if not os.path.isfile(os.path.join(folder, "dataset_info.json")):
            raise InputError(f"{folder} holds no prepared dataset (no dataset_info.json): prepare it first")
        builder = tfds.builder_from_directory(folder)
    else:
        builder = source
    if not builder.is_prepared():
        raise InputError(f"dataset {builder.info.full_name} is not in {builder.data_dir} yet: prepare it first")
    try:
        records = builder.as_data_source(split=split)
    except ValueError as error:
        known = ", ".join(f"{name} ({info.num_examples})" for name, info in builder.info.splits.items())
        raise InputError(f"split {split!r} cannot be read from {builder.data_dir}: it holds {known}") from error
    chunks: dict[str, list[NDArray[np.generic]]] = {name: [] for name in builder.info.features}
    for start in range(0, len(records), _READ_CHUNK):
        chunk = records.__getitems__(range(start, min(start + _READ_CHUNK, len(records))))
        for name, arrays in chunks.items():
            arrays.append(np.stack([record[name] for record in chunk]))
    return {name: np.concatenate(arrays) for name, arrays in chunks.items()}
