"""`sample`: text by a masked model, in any order, for people.

    python -m experiments.text sample --checkpoint RUN --prompt "It was a dark" --number 3
    python -m experiments.text sample --checkpoint RUN --infill "It was [12] night" --oracle margin,left_to_right

It is `mdm-jax generate` with several samples of a prompt, in several orders.
"""

import functools
import sys
from collections.abc import Callable

import numpy as np

from experiments.commands.view import check_viewer
from experiments.common import Results, Row, say_written, table
from experiments.text_flags import Sample
from experiments.text_held_out import Masked, load_masked
from mdm_jax.command_line import piece
from mdm_jax.correction import Remask
from mdm_jax.errors import InputError
from mdm_jax.evaluation.order_statistics import describe
from mdm_jax.generation import Generated, generate
from mdm_jax.report.film import Film, write_text
from mdm_jax.text.prompts import Prompt, gaps
from mdm_jax.text.watch import Screen, plain
from mdm_jax.typing import Oracle, Selector


def sample(flags: Sample) -> None:
    """Prints the samples of every prompt in every order, and adds a row for each."""
    check_viewer(flags.viewer)
    results = Results("text", "sample", out=flags.out, seed=flags.seed)
    if unfit := sorted(flags.changed() & {"keep", "search_width", "check", "corrector"}):
        raise InputError(f"--{unfit[0].replace('_', '-')} is not for sample: leave it out")
    prompts: dict[str, Prompt] = {text: text for text in flags.prompt}
    prompts |= {text: gaps(text) for text in flags.infill}
    selector, oracles = _selector(flags), flags.oracles()
    ours = load_masked(flags)
    prompts = prompts or {"": ""}
    drawn = {"temperature": flags.temperature, "noise": flags.noise or None, "block_length": flags.block_length}
    for asked, prompt in prompts.items():
        for name, oracle in oracles.items():
            sys.stdout.write(f"{plain(asked) or 'from nothing'}, order {name}\n")
            for found in _printed(flags, ours, prompt, _drawing(flags, ours, oracle, selector)):
                results.add(method="mdm", prompt=asked, oracle=name, selector=repr(selector), **drawn, **_row(found))
    results.finish(shown=lambda rows: table([{k: v for k, v in row.items() if k != "text"} for row in rows]))
    if flags.viewer is not None:
        films = {name: Film() for name in oracles}
        title, prompt = next(iter(prompts.items()))
        for name, film in films.items():
            _drawing(flags, ours, oracles[name], selector)([prompt], watch=film)
        traces = {name: film.trace() for name, film in films.items()}
        write_text(flags.viewer, traces, functools.partial(piece, ours.words), title=title or "From nothing")
        say_written(flags.viewer)


def _selector(flags: Sample) -> Selector:
    return flags.selector() if flags.remask_steps is None else Remask(flags.remask_steps, noise=0.0)


def _drawing(flags: Sample, ours: Masked, oracle: Oracle, selector: Selector) -> Callable[..., list[Generated]]:
    """`generate`, with the flags as arguments."""
    return functools.partial(
        generate,
        ours.model,
        tokenizer=ours.words,
        num_new=flags.num_new,
        mask_id=ours.mask_id,
        oracle=oracle,
        selector=selector,
        block_length=flags.block_length,
        temperature=flags.temperature,
        seed=flags.seed,
        batch_size=flags.batch_size,
    )


def _printed(flags: Sample, ours: Masked, prompt: Prompt, draw: Callable[..., list[Generated]]) -> list[Generated]:
    """The samples of a prompt, which are printed: on a terminal one after the other, step by step, in colours."""
    if not sys.stdout.isatty():
        found = draw([prompt] * flags.number)
        before = prompt if isinstance(prompt, str) else ""
        sys.stdout.write("".join(f"{i}. {before}{one.text}\n" for i, one in enumerate(found, 1)))
        return found
    found = []
    for number in range(flags.number):
        sys.stdout.write(f"{number + 1}.\n")
        found += draw([prompt], numbers=[number], watch=Screen(functools.partial(piece, ours.words)))
    return found


def _row(found: Generated) -> Row:
    """The fields of a sample's row: how likely it was when it was drawn, and statistics of its order."""
    if not found.tokens:  # the text ended at once
        return {"text": found.text, "tokens": 0, "nfe": found.nfe}
    nats = -float(np.mean(found.log_prob))
    fields = {"text": found.text, "tokens": len(found.tokens), "nats_per_token": nats, "nfe": found.nfe}
    return fields | describe(found.reveal_step)
