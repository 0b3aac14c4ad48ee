"""`sample`: text by a masked model in any order, for people. It is `mdm-jax generate` with several samples of a prompt.

python -m experiments.text sample --checkpoint RUN --prompt "It was a dark" --number 3
python -m experiments.text sample --checkpoint RUN --infill "It was [12] night" --oracle margin,left_to_right
"""

import dataclasses
import functools
import pathlib
import sys
from typing import TYPE_CHECKING, Any

from experiments.common import Results, Row, table
from experiments.flags import DecodeFlags
from experiments.text_flags import MaskedModelFlags
from mdm_jax.errors import InputError
from mdm_jax.ranges import Count, NotNegative, Seed

if TYPE_CHECKING:
    from experiments.text_held_out import Masked
    from mdm_jax.generation import Generated
    from mdm_jax.text.prompts import Prompt
    from mdm_jax.typing import Oracle, Selector


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sample(DecodeFlags, MaskedModelFlags):
    """Continue prompts or fill in their gaps, several times each; on a terminal the order shows by colour."""

    prompt: tuple[str, ...] = ()
    """texts to continue (without any, and without --infill: one from nothing)"""
    infill: tuple[str, ...] = ()
    """texts in which [12] is a gap of 12 tokens, such as "It was [12] night"; a bracket of the text is \\["""
    number: Count = 3
    """samples of each, in every order"""
    num_new: Count = 48
    """tokens behind a prompt"""
    temperature: NotNegative = 1.0
    """sampling temperature of the tokens; 0 takes the likeliest, the same in each sample"""
    batch_size: Count = 8
    """samples in a batch, where there is no terminal"""
    seed: Seed = 0
    """of all draws"""
    out: pathlib.Path = pathlib.Path("runs/text-sample")
    """folder of results.json, with the samples"""


def sample(flags: Sample) -> None:
    """Prints the samples of every prompt in every order, and adds a row for each."""
    from experiments.text_held_out import load_masked
    from mdm_jax.text.prompts import gaps
    from mdm_jax.text.watch import plain

    results = Results("text", "sample", out=flags.out, seed=flags.seed)
    if unfit := sorted(flags.changed() & {"keep", "search_width"}):
        raise InputError(f"--{unfit[0].replace('_', '-')} is not for sample: leave it out")
    prompts: dict[str, Prompt] = {text: text for text in flags.prompt}
    prompts |= {text: gaps(text) for text in flags.infill}
    selector, oracles = _selector(flags), flags.oracles()
    ours = load_masked(flags)
    for asked, prompt in (prompts or {"": ""}).items():
        for name, oracle in oracles.items():
            sys.stdout.write(f"{plain(asked) or 'from nothing'}, order {name}\n")
            for found in _generated(flags, ours, prompt, oracle, selector):
                results.add(method="mdm", prompt=asked, oracle=name, selector=repr(selector), **_row(found))
    results.finish(shown=lambda rows: table([{k: v for k, v in row.items() if k != "text"} for row in rows]))


def _selector(flags: Sample) -> "Selector":
    from mdm_jax.correction import Remask

    return flags.selector() if flags.remask_steps is None else Remask(flags.remask_steps, noise=0.0)


def _generated(
    flags: Sample, ours: "Masked", prompt: "Prompt", oracle: "Oracle", selector: "Selector"
) -> "list[Generated]":
    """The samples of a prompt, which are printed: on a terminal one after the other, step by step, in colours."""
    from mdm_jax.command_line import piece
    from mdm_jax.generation import generate
    from mdm_jax.text.watch import Screen

    draw = functools.partial(
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


def _row(found: "Generated") -> Row:
    """The fields of a sample's row: how likely it was when it was drawn, and statistics of its order."""
    import numpy as np

    from mdm_jax.evaluation.order_statistics import describe

    nats: dict[str, Any] = {"nats_per_token": -float(np.mean(found.log_prob))} if found.tokens else {}
    order = describe(found.reveal_step) if found.tokens else {}
    return {"text": found.text, "tokens": len(found.tokens), **nats, "nfe": found.nfe, **order}
