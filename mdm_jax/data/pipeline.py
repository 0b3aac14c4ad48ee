"""Shuffled batches of arrays in RAM, split over processes and resumable. This is the one file that uses grain.

grain shuffles and batches the indices of records, equally on every process. Each process then gathers its own rows. So
the position is one number that does not depend on the number of processes, and no record is read alone, which is slow.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mdm_jax.errors import InputError, of_extra

Batch = dict[str, NDArray[Any]]


class Batches(Iterator[Batch]):
    """Endless batches of records, in a new order each epoch.

    The order depends on (seed, number of records, batch_size) only. An epoch may end in the middle of a batch, so no
    record is left out.
    """

    def __init__(
        self,
        arrays: Mapping[str, NDArray[Any]],
        *,
        batch_size: int,
        seed: int,
        rows: Sequence[int] | None = None,
        augment: Callable[[Batch, np.random.Generator], Batch] | None = None,
    ) -> None:
        """Starts at the first batch.

        Args:
          arrays: the fields of all records, each `[num, ...]`. They are not copied.
          batch_size: records in a batch, over all processes.
          seed: the seed of the order, from 0 to 2^32 - 1.
          rows: the rows of each batch to return, such as those on this process's devices; None returns all.
          augment: changes a whole batch at random. Its random generator depends on the seed and the index of the batch,
            so epochs differ and a resumed run does not.

        Raises:
          InputError: there are no arrays, or they have different lengths; an argument is out of its range; or grain is
            not installed.
        """
        lengths = {name: len(array) for name, array in arrays.items()}
        if len(set(lengths.values())) != 1:
            raise InputError(f"arrays of one length are wanted, at least one; got {lengths or 'none'}")
        num_records = next(iter(lengths.values()))
        if not 1 <= batch_size <= num_records:
            raise InputError(f"batch_size={batch_size}: choose 1 to {num_records}, the number of records")
        mine = np.arange(batch_size) if rows is None else np.asarray(rows)
        if not set(mine.tolist()) <= set(range(batch_size)):
            raise InputError(f"rows={mine.tolist()}: choose from 0 to {batch_size - 1}, the rows of a batch")
        if not 0 <= seed < 1 << 32:
            raise InputError(f"seed={seed}: give an integer from 0 to 2^32 - 1")
        with of_extra("experiments"):
            import grain  # imports jax and orbax, which takes over a second

        def gather(numbers: NDArray[np.int64]) -> Batch:
            return {name: array[numbers] for name, array in arrays.items()}

        def gather_and_augment(numbers: NDArray[np.int64], rng: np.random.Generator) -> Batch:
            assert augment is not None
            return {name: array[mine] for name, array in augment(gather(numbers), rng).items()}

        order = grain.MapDataset.range(num_records).seed(seed).shuffle().repeat()
        numbers = order.batch(batch_size, drop_remainder=True)
        if augment is None:
            batches = numbers.map(lambda batch: gather(batch[mine]))
        else:
            batches = numbers.random_map(gather_and_augment)
        self._batches = iter(batches.to_iter_dataset(grain.ReadOptions(num_threads=1, prefetch_buffer_size=4)))
        self._origin = {"num_records": num_records, "batch_size": batch_size, "seed": seed}

    def __next__(self) -> Batch:
        return next(self._batches)

    def get_state(self) -> dict[str, int]:
        """Returns the position as a JSON value. At the same step it is the same in every process."""
        return {**self._origin, **self._batches.get_state()}

    def set_state(self, state: Mapping[str, int]) -> None:
        """Moves to a position from `get_state` of a run with any number of processes.

        Args:
          state: the position.

        Raises:
          InputError: the position belongs to another seed, batch size or number of records.
        """
        position = dict(state)
        origin = {name: position.pop(name, None) for name in self._origin}
        if origin != self._origin:
            raise InputError(f"the state is of batches with {origin}, these have {self._origin}: use the same again")
        self._batches.set_state(position)
