"""The command `mdm-jax`. Nothing heavy is imported before it runs, so `--help` answers at once."""

import argparse
import functools
import json
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from mdm_jax.arguments import parser
from mdm_jax.endings import ended_well
from mdm_jax.errors import InputError, RunError, shown
from mdm_jax.files import check_place, finite, write_whole

if TYPE_CHECKING:
    from mdm_jax.generation import Generated
    from mdm_jax.text.prompts import Prompt
    from mdm_jax.text.tokenizer import Tokenizer
    from mdm_jax.typing import Oracle, Selector


def main(argv: Sequence[str] | None = None) -> None:
    """Runs a command. Bad input becomes one line on stderr and exit code 2."""
    with ended_well():
        flags = parser().parse_args(argv)
        try:
            generate(flags)
        except (InputError, RunError) as error:
            sys.stderr.write(f"error: {error}\n")
            sys.exit(2 if isinstance(error, InputError) else 1)


def generate(flags: argparse.Namespace) -> None:
    """The command of that name."""
    asked = prompts_of(flags)
    if flags.json is not None:
        check_place(flags.json)
        if flags.json.is_dir() or not flags.json.absolute().parent.is_dir():
            raise InputError(f"--json {flags.json} is no file in a folder that there is")
    is_terminal = sys.stdout.isatty()
    if flags.viewer is not None:
        check_place(flags.viewer)
    for name in ("watch", "viewer"):
        if getattr(flags, name) and len(asked) > 1:
            raise InputError(f"--{name} shows one prompt, and there are {len(asked)}")
    oracle, selector = oracle_of(flags.oracle), selector_of(flags)
    tokenizer = tokenizer_of(flags, asked)
    from mdm_jax.generation import generate
    from mdm_jax.loading import load
    from mdm_jax.report.film import Film, write_text
    from mdm_jax.text.watch import Screen, plain

    model = load(flags.model, mesh=mesh_of(flags))
    is_masked = not getattr(model.config, "causal", False)
    screen = Screen(functools.partial(piece, tokenizer)) if flags.watch and is_terminal and is_masked else None
    film = None if flags.viewer is None else Film(screen)
    found = generate(
        model,
        asked,
        tokenizer=tokenizer,
        num_new=flags.num_new,
        mask_id=flags.mask_id,
        oracle=oracle,
        selector=selector,
        block_length=flags.block_length,
        search_width=flags.search_width,
        check=flags.check,
        judge=flags.corrector,
        temperature=flags.temperature,
        top_p=flags.top_p,
        guidance=flags.guidance,
        end=flags.end,
        end_ids=flags.end_ids,
        suppressed=flags.suppress,
        batch_size=flags.batch_size,
        seed=flags.seed,
        watch=film or screen,
        progress="generate" if len(asked) > flags.batch_size else None,
    )
    if flags.json is not None:
        write_whole(flags.json, "".join(map(json_line, asked, found)))
    if film is not None:
        write_text(flags.viewer, {flags.oracle: film.trace()}, functools.partial(piece, tokenizer), title="Text")
    if screen is None:
        text = "".join(f"{shown_result(prompt, one, len(found))}\n" for prompt, one in zip(asked, found, strict=True))
        sys.stdout.write(plain(text) if is_terminal else text)


def piece(tokenizer: "Tokenizer | None", before: Sequence[int], token: int) -> str:
    """What a token is on the screen: the text that it adds, or its id."""
    return f"{token} " if tokenizer is None else tokenizer.behind(before, [token])


def prompts_of(flags: argparse.Namespace) -> "list[Prompt]":
    """The prompts of the flags, those of the file last."""
    from mdm_jax.text.prompts import gaps, read_prompts

    asked: list[Prompt] = [*flags.prompt, *map(gaps, flags.infill)]
    asked += [] if flags.prompts is None else read_prompts(flags.prompts)
    if not asked:
        raise InputError("there is no prompt: give --prompt, --infill or --prompts")
    if flags.chat:
        return [[{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt for prompt in asked]
    return asked


def oracle_of(name: str) -> "Oracle":
    """The oracle of that name."""
    from mdm_jax.oracles import ORACLES

    if name not in ORACLES:
        raise InputError(f"unknown oracle {shown(name)}; choose from {', '.join(ORACLES)}")
    return ORACLES[name]


def selector_of(flags: argparse.Namespace) -> "Selector":
    """The selector that the flags ask for; the parser sees to it that they ask for one."""
    from mdm_jax.correction import Remask, TakeBack
    from mdm_jax.klass import Klass
    from mdm_jax.selection import Binomial, EntropyBudget, PerStep, Threshold, TopK

    made: dict[str, Callable[[Any], Selector]] = {
        "tokens_per_step": PerStep,
        "num_steps": TopK,
        "remask_steps": lambda num_steps: Remask(num_steps, noise=0.0),
        "threshold": Threshold,
        "entropy_budget": EntropyBudget,
        "klass": Klass,
        "binomial_steps": Binomial,
    }
    if flags.corrector is not None:
        if flags.tokens_per_step is None or flags.tokens_per_step < 2:
            raise InputError(
                "--corrector takes back fewer tokens than a step reveals: give --tokens-per-step 2 or more"
            )
        return TakeBack(flags.tokens_per_step)
    asked = {name: value for name in made if (value := getattr(flags, name)) is not None}
    return next((made[name](value) for name, value in asked.items()), PerStep(1))


def tokenizer_of(flags: argparse.Namespace, asked: "Sequence[Prompt]") -> "Tokenizer | None":
    """The tokenizer that is named, or lies in the model's folder; None if there is none and no prompt needs it.

    For a checkpoint of a run it is the run's folder.
    """
    from mdm_jax.text.tokenizer import FILE, read_tokenizer

    if flags.tokenizer is not None:
        return read_tokenizer(flags.tokenizer)
    from mdm_jax.loading import run_folder

    place = run_folder(flags.model)[0] / FILE
    if place.exists():
        return read_tokenizer(place)
    are_ids = all(isinstance(prompt, list) and all(isinstance(part, int) for part in prompt) for prompt in asked)
    if not are_ids:
        raise InputError(f"there is no {place}: give --tokenizer, or token ids in a .jsonl file")
    return None


def mesh_of(flags: argparse.Namespace) -> Any:
    """The mesh; None for one device."""
    if flags.fsdp * flags.tensor == 1:
        return None
    import jax

    from mdm_jax.sharding import make_mesh

    return make_mesh(1, flags.fsdp, flags.tensor, devices=jax.devices()[: flags.fsdp * flags.tensor])


def shown_result(prompt: "Prompt", found: "Generated", num: int) -> str:
    """What is printed of a prompt: its result, below a line with the prompt if there are several."""
    text = " ".join(map(str, found.tokens)) if found.text is None else found.text
    return text if num == 1 else f"> {shown(prompt)}\n{text}"


def json_line(prompt: "Prompt", found: "Generated") -> str:
    """A line of `--json`."""
    asked = [part if isinstance(part, str | int | dict) else f"[{part.length}]" for part in prompt]  # type: ignore[union-attr]
    record = {"prompt": prompt if isinstance(prompt, str) else asked, **found._asdict()}
    return json.dumps(finite(record), ensure_ascii=False, allow_nan=False) + "\n"


if __name__ == "__main__":
    main()
