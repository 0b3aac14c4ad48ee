"""The problems that flags name; `show` prints how they are asked."""

import dataclasses
import pathlib
import sys
from collections.abc import Sequence

from experiments.common import Results, Row
from experiments.llada import Show, TaskFlags
from mdm_jax.errors import InputError
from mdm_jax.tasks.language.benchmark import Hole, Problem, Prompt, find_file
from mdm_jax.tasks.language.settings import Settings, settings_of
from mdm_jax.text.watch import plain


@dataclasses.dataclass(frozen=True)
class Asked:
    """The problems of a task."""

    name: str
    settings: Settings
    problems: Sequence[Problem]
    shots: Sequence[Problem]

    def prompt(self, problem: Problem) -> Prompt:
        """That of a problem."""
        return self.settings.benchmark.prompt(problem, self.shots, self.settings.shots)

    @property
    def fields(self) -> Row:
        """The fields of a row that say how it is asked."""
        settings = self.settings
        return {"num_new": settings.num_new, "block_length": settings.block_length, "shots": settings.shots or None}


def read_tasks(flags: TaskFlags, limit: int | None = None) -> list[Asked]:
    """The tasks that the flags name, and their problems; InputError for names and files that are not there."""
    names = list(dict.fromkeys(flags.task.split(",")))
    settings = [flags.settings(name) for name in names]
    for flag in ("shots", "num_new"):
        if getattr(flags, flag) is not None and not any(getattr(settings_of(name), flag) for name in names):
            raise InputError(f"--{flag.replace('_', '-')} is of none of these tasks ({', '.join(names)}): leave it out")
    if len(names) > 1 and not flags.data.is_dir():
        raise InputError(f"--data {flags.data} is one file, and there are {len(names)} tasks: give a folder")
    return [_read(name, own, flags.data, limit) for name, own in zip(names, settings, strict=True)]


def _read(name: str, settings: Settings, data: pathlib.Path, limit: int | None) -> Asked:
    """The problems of a task, and its examples, which lie beside them."""
    benchmark = settings.benchmark
    folder = data if data.is_dir() else data.parent
    problems = benchmark.read(find_file(data, benchmark.files, name) if data.is_dir() else data)[:limit]
    has_shots = settings.shots and benchmark.shot_files
    shots = benchmark.read(find_file(folder, benchmark.shot_files, name)) if has_shots else ()
    return Asked(name, settings, problems, shots)


def shown_prompt(prompt: Prompt) -> str:
    """A prompt as text: what a hole hides is in brackets, a message has its role above it."""
    if isinstance(prompt, str):
        return prompt
    parts = []
    for part in prompt:
        if isinstance(part, Hole):
            parts.append(f"⟦{part.text}⟧")
        else:
            parts.append(part if isinstance(part, str) else f"<{part['role']}>\n{part['content']}\n")
    return "".join(parts)


def show(flags: Show) -> None:
    """`show`: prints the prompt and the reference of a problem of each task, and a table of the settings."""
    results = Results("llada", "show", out=flags.out, seed=flags.seed)
    for asked in read_tasks(flags):
        if flags.number >= len(asked.problems):
            raise InputError(f"--number {flags.number} is none of the {len(asked.problems)} problems of {asked.name}")
        problem, settings = asked.problems[flags.number], asked.settings
        sys.stdout.write(f"--- {asked.name}, problem {flags.number}\n{plain(shown_prompt(asked.prompt(problem)))}\n")
        sys.stdout.write(f"--- a right answer\n{plain(settings.benchmark.reference(problem))}\n\n")
        results.add(dataset=asked.name, problems=len(asked.problems), **asked.fields, source=settings.source)
    results.finish()
