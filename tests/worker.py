"""Trains the tiny task through the command line's own `main`, as a process that a test can start, join and kill."""

import dataclasses
import pathlib
import time

import tiny

from experiments.common import main
from experiments.flags import RunFlags
from mdm_jax.training import checkpoint


@dataclasses.dataclass(frozen=True, kw_only=True)
class Train(RunFlags):
    """Train the tiny task."""

    unreadable: int = 0
    """a checkpoint that this process cannot read"""
    delay: float = 0.0
    """seconds that a batch takes to make"""
    out: pathlib.Path
    """folder of the run"""


def train(flags: Train) -> None:
    """`train`."""

    def to_batch(raw):
        time.sleep(flags.delay)
        return tiny.to_batch(raw)

    read = checkpoint._read

    def read_or_fail(folder, like):
        if folder.name == str(flags.unreadable):
            raise ValueError("a cable is loose")
        return read(folder, like)

    checkpoint._read = read_or_fail
    loop = dataclasses.asdict(flags.loop()) | {"batch_size": 8, "log_every": 1}
    state = tiny.train(flags.out, steps=flags.steps, mesh=flags.mesh.make(), loop=loop, to_batch=to_batch)
    print("done at step", int(state.step))


if __name__ == "__main__":
    main("worker", __doc__, {"train": (Train, f"{__name__}:train")})
