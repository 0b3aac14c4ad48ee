"""`prepare` writes the data of a task to disk. Other commands read them into memory."""

import pathlib

from experiments.commands.flags import DataFlags
from experiments.common import Results, say
from mdm_jax.data.checks import Split
from mdm_jax.tasks.base import Records, Task
from mdm_jax.training.distributed import barrier, is_lead

SPLITS: tuple[Split, ...] = ("train", "test")


def prepare(flags: DataFlags) -> None:
    """Adds a row for each split."""
    results = Results(flags.experiment, "prepare", out=flags.out, seed=flags.seed)
    task = flags.task()
    for split, records in load_splits(task, flags.data).items():
        num = len(next(iter(records.values())))
        results.add(dataset=task.title, split=split, n=num, **task.statistics(records))
    results.finish()


def load_splits(task: Task, data_dir: pathlib.Path) -> dict[Split, Records]:
    """Reads both splits into memory. The first process writes them if they are not on disk yet."""
    numbers = "" if task.num_train is None else f"{task.num_train} + {task.num_test} of "
    say(f"{task.name}: {numbers}{task.title} in {data_dir} ...")
    if is_lead():
        task.prepare(data_dir, say=say)
    barrier("the data are prepared")
    builder = task.prepare(data_dir)
    return {split: task.read(builder, split) for split in SPLITS}
