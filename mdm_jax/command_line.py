"""The command `mdm-jax`. Nothing heavy is imported before it runs, so `--help` answers at once."""

import argparse
import functools
import importlib
import importlib.metadata
import json
import pathlib
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NoReturn

from mdm_jax.endings import ended_well
from mdm_jax.errors import InputError, RunError, shown
from mdm_jax.files import check_place, finite, write_whole
from mdm_jax.ranges import FLOAT32, INT32, Range, check_number

if TYPE_CHECKING:
    from mdm_jax.generation import Generated
    from mdm_jax.text.prompts import Prompt
    from mdm_jax.text.tokenizer import Tokenizer
    from mdm_jax.typing import Oracle, Selector

COUNT = Range(1, INT32)
ORACLES = "margin, top_prob, neg_entropy, token_prob, random, left_to_right, top_log_prob, log_margin"
"""For the help, which imports no JAX."""


class Parser(argparse.ArgumentParser):
    """argparse, which says what is wrong in one line."""

    def error(self, message: str) -> NoReturn:
        """Ends with exit code 2."""
        self.exit(2, f"error: {InputError(message)}; see {self.prog} --help\n")


def number(kind: type, range: Range) -> Callable[[str], Any]:
    """Reads a number of a flag, within its range."""

    def read(text: str) -> Any:
        try:
            value = kind(text)
        except ValueError:
            value = text
        try:
            check_number("it", value, range, whole=kind is int)
        except InputError as error:
            raise argparse.ArgumentTypeError(str(error)) from None
        return value

    return read


def ids(text: str) -> list[int]:
    """Reads token ids, with commas."""
    return [number(int, Range(0, INT32))(part) for part in text.split(",")]


def parser() -> Parser:
    """The flags of every command."""
    top = Parser(prog="mdm-jax", description="Masked diffusion models: text in any order.", allow_abbrev=False)
    top.add_argument("--version", action="version", version=_version())
    generate = top.add_subparsers(dest="command", required=True, parser_class=Parser).add_parser(
        "generate",
        allow_abbrev=False,
        help="continue prompts, or fill in their gaps",
        description="Continue prompts, or fill in their gaps, with a masked model in the order that you choose. "
        "A causal model continues them from left to right.",
    )
    add = generate.add_argument
    add("--model", required=True, metavar="DIR", help="folder of a model, or the name of shipped weights")
    add(
        "--tokenizer",
        metavar="FILE",
        type=pathlib.Path,
        help="a tokenizer.json (default: the one in the model's folder)",
    )
    add("--prompt", metavar="TEXT", action="append", default=[], help="a text to continue; may be repeated")
    add(
        "--infill",
        metavar="TEXT",
        action="append",
        default=[],
        help=r"a text in which [20] is a gap of 20 tokens; \[ is a bracket",
    )
    add(
        "--prompts",
        metavar="FILE",
        type=pathlib.Path,
        help="a prompt a line: a text, or in a .jsonl file a text or an object with prompt, tokens, messages or infill",
    )
    add("--chat", action="store_true", help="texts are what a user says: put them into the chat template")
    add("--num-new", metavar="N", type=number(int, COUNT), default=128, help="tokens to generate behind a prompt (128)")
    add("--oracle", metavar="NAME", default="margin", help=f"the order: {ORACLES} (margin)")
    steps = generate.add_mutually_exclusive_group()
    count = functools.partial(steps.add_argument, metavar="N", type=number(int, COUNT))
    count("--tokens-per-step", help="reveal so many tokens in a step (1)")
    count("--num-steps", help="or: reveal all (with blocks: each block) in so many steps")
    count("--remask-steps", help="or: the same, where a step may also take tokens back")
    score, budget = number(float, Range(infinite=True)), number(float, Range(0, infinite=True))
    steps.add_argument("--threshold", metavar="X", type=score, help="or: reveal all that score at least this")
    steps.add_argument(
        "--entropy-budget", metavar="NATS", type=budget, help="or: reveal the longest prefix within this"
    )
    count("--search-width", help="or: one token a step, following the so many likeliest fillings (a beam search)")
    add(
        "--block-length",
        metavar="N",
        type=number(int, COUNT),
        help="decode in blocks of this length, from the first mask",
    )
    add(
        "--temperature",
        metavar="T",
        type=number(float, Range(0, FLOAT32)),
        default=0.0,
        help="of the tokens drawn; 0 takes the likeliest (0)",
    )
    add(
        "--top-p",
        metavar="P",
        type=number(float, Range(above=0, most=1)),
        default=1.0,
        help="draw among the likeliest tokens of this probability (1)",
    )
    add(
        "--guidance",
        metavar="W",
        type=number(float, Range(0, FLOAT32)),
        default=0.0,
        help="classifier-free guidance, at two calls a step (0: none)",
    )
    add(
        "--end",
        choices=("free", "never", "last"),
        default="free",
        help="tokens that end the text: as they come, never, or revealed last (free)",
    )
    add("--end-ids", metavar="ID,ID", type=ids, help="ids that end the text (default: as the model's folder says)")
    add("--suppress", metavar="ID,ID", type=ids, default=[], help="ids that are never predicted")
    add(
        "--mask-id",
        metavar="ID",
        type=number(int, Range(0, INT32)),
        help="the mask token's id (default: as the model's folder says)",
    )
    add("--batch-size", metavar="N", type=number(int, COUNT), default=8, help="prompts in a batch (8)")
    add("--seed", metavar="N", type=number(int, Range(0, below=1 << 32)), default=0, help="of all draws (0)")
    add(
        "--fsdp",
        metavar="N",
        type=number(int, COUNT),
        default=1,
        help="devices that the parameters are sharded over (1)",
    )
    add(
        "--tensor", metavar="N", type=number(int, COUNT), default=1, help="devices that each matrix is sharded over (1)"
    )
    add("--watch", action="store_true", help="show the order by colour while one prompt fills in, on a terminal")
    add(
        "--viewer",
        metavar="FILE.html",
        type=pathlib.Path,
        help="write a page that plays how one prompt was filled in",
    )
    add(
        "--json",
        metavar="FILE",
        type=pathlib.Path,
        help="write a JSON line for each prompt, with what is known of each token",
    )
    return top


def _version() -> str:
    return f"mdm_jax {importlib.import_module('mdm_jax').__version__}, jax {importlib.metadata.version('jax')}"


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
    from mdm_jax.correction import Remask
    from mdm_jax.selection import EntropyBudget, PerStep, Threshold, TopK

    made: dict[str, Callable[[Any], Selector]] = {
        "tokens_per_step": PerStep,
        "num_steps": TopK,
        "remask_steps": lambda num_steps: Remask(num_steps, noise=0.0),
        "threshold": Threshold,
        "entropy_budget": EntropyBudget,
    }
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
