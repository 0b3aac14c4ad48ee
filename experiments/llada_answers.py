"""Answers of a model to the problems of a task, and their scores."""

import concurrent.futures
import dataclasses
import os
import pathlib
from collections.abc import Sequence
from typing import NamedTuple

import jax

import mdm_jax
from experiments.common import Row
from experiments.llada import Evaluate
from experiments.llada_tasks import Asked
from mdm_jax.decoding import Network
from mdm_jax.errors import InputError
from mdm_jax.evaluation.likelihood import continuation, log_likelihoods
from mdm_jax.generation import hiding_unused
from mdm_jax.loading import run_folder
from mdm_jax.progress import Bar
from mdm_jax.sharding import make_mesh
from mdm_jax.tasks.language.benchmark import Hole, Problem, Score
from mdm_jax.tasks.language.benchmark import Prompt as Asking
from mdm_jax.text.prompts import Gap, Prompt, lay_out
from mdm_jax.text.special import check_tokenizer, mask_id_of
from mdm_jax.text.tokenizer import Tokenizer, read_tokenizer
from mdm_jax.training.distributed import is_lead
from mdm_jax.typing import Oracle


class Answer(NamedTuple):
    """An answer to a problem."""

    text: str
    nfe: float
    """network calls of its batch"""
    too_long: bool = False
    """it does not fit into the model: no answer, and wrong"""


class Given(NamedTuple):
    """A problem to answer."""

    number: int
    """among the problems of its task, which its draws depend on"""
    prompt: Asking
    problem: Problem


@dataclasses.dataclass(frozen=True)
class Student:
    """What answers: a model with its tokenizer."""

    model: Network
    tokenizer: Tokenizer
    mask_id: int

    @property
    def pad_id(self) -> int | None:
        """What stands behind a shorter sequence of a batch, if the network hides it."""
        found: int | None = getattr(self.model.config, "pad_id", None)
        return found


def load_student(
    model: str, tokenizer: pathlib.Path | None, mask_id: int | None, *, fsdp: int = 1, tensor: int = 1
) -> Student:
    """A masked model, on devices of this process, and its tokenizer.

    Args:
      model: as `mdm_jax.load` takes it.
      tokenizer: a tokenizer.json; None is the one in the model's folder.
      mask_id: the mask token's id; None is what the model's folder says.
      fsdp: devices that the parameters are sharded over.
      tensor: devices that each matrix is sharded over.

    Raises:
      InputError: one of them cannot be read, does not fit, or is causal.
    """
    num, mine = fsdp * tensor, jax.local_devices()
    if num > len(mine):
        raise InputError(f"--fsdp {fsdp} x --tensor {tensor} are {num} devices, and there are {len(mine)}")
    found = mdm_jax.load(model, mesh=make_mesh(1, fsdp, tensor, devices=mine[:num]))
    if getattr(found.config, "causal", False):
        raise InputError(f"{model} is a causal model, which has no order: give a masked one")
    words = read_tokenizer(tokenizer or run_folder(model)[0])
    check_tokenizer(words, found.config)
    mask = mask_id_of(found, mask_id, words)
    return Student(hiding_unused(found, words, mask), words, mask)


def answered(flags: Evaluate, student: Student, task: Asked, oracle: Oracle, own: Sequence[Given]) -> list[Row]:
    """Answers to problems with their scores, a dictionary of JSON values each."""
    answers = _answers(flags, student, task, oracle, own) if own else []
    scores = _scores(task, [given.problem for given in own], answers)
    return [
        {"number": given.number, "score": score.value, "why": score.why, **answer._asdict()}
        for given, answer, score in zip(own, answers, scores, strict=True)
    ]


def _answers(flags: Evaluate, student: Student, task: Asked, oracle: Oracle, own: Sequence[Given]) -> list[Answer]:
    """Answers to problems: the likeliest of their choices, or generated."""
    words, settings = student.tokenizer, task.settings
    prompts = [with_gaps(given.prompt, words) for given in own]
    choices = [settings.benchmark.choices(given.problem) for given in own]
    longest = [max((len(words.encode(choice)) for choice in each), default=settings.num_new or 0) for each in choices]
    sizes = [len(lay_out(prompt, words, num_new)) for prompt, num_new in zip(prompts, longest, strict=True)]
    kept = [i for i, size in enumerate(sizes) if size <= student.model.config.max_length]
    found = [Answer("", 0.0, too_long=True)] * len(own)
    if not kept:
        return found
    label = task.name if is_lead() else None
    if choices[0]:
        texts = _likeliest(flags, student, [(str(prompts[i]), choices[i]) for i in kept], label)
        answers = [Answer(text, 1.0) for text in texts]
    else:
        generated = mdm_jax.generate(
            student.model,
            [prompts[i] for i in kept],
            tokenizer=words,
            num_new=settings.num_new or 1,
            mask_id=student.mask_id,
            oracle=oracle,
            selector=mdm_jax.PerStep(flags.tokens_per_step),
            block_length=settings.block_length,
            temperature=flags.temperature,
            end=flags.end,
            end_ids=flags.end_ids or None,
            batch_size=flags.batch_size,
            seed=flags.seed,
            numbers=[own[i].number for i in kept],
            progress=label,
        )
        answers = [Answer(cut("".join(each.gaps or ()), settings.stop), each.nfe) for each in generated]
    for i, answer in zip(kept, answers, strict=True):
        found[i] = answer
    return found


def cut(text: str, stops: Sequence[str]) -> str:
    """The text up to the first of some texts."""
    return text[: min((place for stop in stops if (place := text.find(stop)) >= 0), default=None)]


def with_gaps(prompt: Asking, words: Tokenizer) -> Prompt:
    """A prompt with a gap in place of a hole, as long as the tokens of what is missing."""
    if isinstance(prompt, str):
        return prompt
    return [  # type: ignore[return-value]
        Gap(max(1, len(words.encode(part.text, special=False)))) if isinstance(part, Hole) else part for part in prompt
    ]


def _likeliest(
    flags: Evaluate, student: Student, asked: Sequence[tuple[str, Sequence[str]]], label: str | None
) -> list[str]:
    """Of each problem (prompt, choices) the likeliest choice."""
    model, words = student.model, student.tokenizer
    pairs = [continuation(words, prompt, choice) for prompt, choices in asked for choice in choices]
    values = iter(
        log_likelihoods(
            model.denoiser,
            model.params,
            pairs,
            mask_id=student.mask_id,
            pad_id=student.pad_id,
            max_length=model.config.max_length,
            order="left_to_right",
            batch_size=flags.batch_size,
            progress=label,
        )
    )
    of_each = [{choice: next(values) for choice in choices} for _, choices in asked]
    return [max(known, key=lambda choice: known[choice]) for known in of_each]


def _scores(task: Asked, problems: Sequence[Problem], answers: Sequence[Answer]) -> list[Score]:
    """What answers are worth: programs run on all cores."""

    def score(problem: Problem, answer: Answer) -> Score:
        return Score(0.0, "too long") if answer.too_long else task.settings.benchmark.score(problem, answer.text)

    bar = {"desc": f"{task.name} scores", "total": len(problems), "leave": False, "disable": not is_lead()}
    if task.settings.needs != "the sandbox":
        return list(Bar(map(score, problems, answers), **bar))
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        return list(Bar(pool.map(score, problems, answers), **bar))
