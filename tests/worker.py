"""Trains the tiny task through the command line's own `main`, as a process that a test can start, join and kill."""

import dataclasses
import pathlib
import time

import jax
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
    late: float = 0.0
    """and the first one more"""
    endless: int = 0
    """evaluate after so many steps, which never ends"""
    out: pathlib.Path
    """folder of the run"""


def train(flags: Train) -> None:
    """`train`."""

    late = [flags.late]

    def to_batch(raw):
        time.sleep(flags.delay + (late.pop() if late else 0.0))
        return tiny.to_batch(raw)

    def evaluate(params):
        turns = jax.lax.while_loop(lambda turn: turn >= 0, lambda turn: (turn + 1) % 7, jax.numpy.zeros((), int))
        return {"turns": float(turns)}

    read = checkpoint._read

    def read_or_fail(folder, like):
        if folder.name == str(flags.unreadable):
            raise ValueError("a cable is loose")
        return read(folder, like)

    checkpoint._read = read_or_fail
    loop = dataclasses.asdict(flags.loop()) | {"batch_size": 8, "log_every": 1}
    loop |= {"evaluate_every": flags.endless} if flags.endless else {}
    options = {"evaluate": evaluate} if flags.endless else {}
    state = tiny.train(flags.out, steps=flags.steps, mesh=flags.mesh.make(), loop=loop, to_batch=to_batch, **options)
    print("done at step", int(state.step))


if __name__ == "__main__":
    main("worker", __doc__, {"train": (Train, f"{__name__}:train")})
