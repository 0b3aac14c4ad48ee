"""The flags of the command `mdm-jax`, without JAX, so that `--help` answers at once."""

import argparse
import functools
import importlib
import importlib.metadata
import pathlib
from collections.abc import Callable
from typing import Any, NoReturn

from mdm_jax.errors import InputError
from mdm_jax.ranges import FLOAT32, INT32, Range, check_number

COUNT = Range(1, INT32)
ORACLES = "margin, top_prob, neg_entropy, token_prob, random, left_to_right, top_log_prob, log_margin"
"""For the help, which imports no JAX."""
EXAMPLES = """examples:
  mdm-jax generate --model DIR --prompt "Once upon a time" --num-new 64 --watch
  mdm-jax generate --model DIR --infill "It was [12] night." --oracle margin --tokens-per-step 2
  mdm-jax generate --model DIR --chat --prompts questions.jsonl --block-length 32 --json answers.jsonl
"""


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
        usage="mdm-jax generate --model DIR (--prompt TEXT | --infill TEXT | --prompts FILE) [OPTIONS]",
        description="Continue prompts, or fill in their gaps, with a masked model in the order that you choose.\n"
        "A causal model continues them from left to right.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    _add_model(generate.add_argument_group("model"))
    _add_prompts(generate.add_argument_group("prompts"))
    _add_decoding(generate.add_argument_group("decoding"))
    _add_output(generate.add_argument_group("machine and output"))
    return top


def _add_prompts(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    add("--prompt", metavar="TEXT", action="append", default=[], help="a text to continue; may be repeated")
    gap = r"a text in which [20] is a gap of 20 tokens; \[ is a bracket"
    add("--infill", metavar="TEXT", action="append", default=[], help=gap)
    lines = "a prompt a line: a text, or in a .jsonl file a text or an object with prompt, tokens, messages or infill"
    add("--prompts", metavar="FILE", type=pathlib.Path, help=lines)
    add("--chat", action="store_true", help="texts are what a user says: put them into the chat template")
    add("--num-new", metavar="N", type=number(int, COUNT), default=128, help="tokens to generate behind a prompt (128)")


def _add_model(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    add("--model", required=True, metavar="DIR", help="folder of a model, or the name of shipped weights")
    words = "a tokenizer.json (default: the one in the model's folder)"
    add("--tokenizer", metavar="FILE", type=pathlib.Path, help=words)
    mask = "the mask token's id (default: as the model's folder says)"
    add("--mask-id", metavar="ID", type=number(int, Range(0, INT32)), help=mask)


def _add_decoding(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    add("--oracle", metavar="NAME", default="margin", help=f"the order: {ORACLES} (margin)")
    steps = group.add_mutually_exclusive_group()
    count = functools.partial(steps.add_argument, metavar="N", type=number(int, COUNT))
    count("--tokens-per-step", help="reveal so many tokens in a step (1)")
    count("--num-steps", help="or: reveal all (with blocks: each block) in so many steps")
    count("--remask-steps", help="or: the same, where a step may also take tokens back")
    score, budget = number(float, Range(infinite=True)), number(float, Range(0, infinite=True))
    steps.add_argument("--threshold", metavar="X", type=score, help="or: reveal all that score at least this")
    within = "or: reveal the longest prefix within this"
    steps.add_argument("--entropy-budget", metavar="NATS", type=budget, help=within)
    steady = "or: reveal all above this probability that have hardly changed for two steps (KLASS)"
    steps.add_argument("--klass", metavar="P", type=number(float, Range(0, 1)), help=steady)
    count("--binomial-steps", help="or: reveal a binomial number in each of so many steps, as vanilla does")
    likeliest = "follow the so many likeliest fillings (a beam search)"
    add("--search-width", metavar="N", type=number(int, COUNT), help=likeliest)
    fits = "of what a search ends with, keep the filling that fits itself, by N calls for each (0: the likeliest)"
    add("--check", metavar="N", type=number(int, Range(0, INT32)), default=0, help=fits)
    back = "take tokens back that look wrong by now, fewer than --tokens-per-step"
    add("--corrector", choices=("leave-one-out", "filled", "quality"), help=back)
    block = "decode in blocks of this length, from the first mask"
    add("--block-length", metavar="N", type=number(int, COUNT), help=block)
    positive = number(float, Range(0, FLOAT32))
    drawn = "of the tokens drawn; 0 takes the likeliest (0)"
    add("--temperature", metavar="T", type=positive, default=0.0, help=drawn)
    share, among = number(float, Range(above=0, most=1)), "draw among the likeliest tokens of this probability (1)"
    add("--top-p", metavar="P", type=share, default=1.0, help=among)
    twice = "classifier-free guidance, at two calls a step (0: none)"
    add("--guidance", metavar="W", type=positive, default=0.0, help=twice)
    end = "tokens that end the text: as they come, never, or revealed last (free)"
    add("--end", choices=("free", "never", "last"), default="free", help=end)
    add("--end-ids", metavar="ID,ID", type=ids, help="ids that end the text (default: as the model's folder says)")
    add("--suppress", metavar="ID,ID", type=ids, default=[], help="ids that are never predicted")
    add("--seed", metavar="N", type=number(int, Range(0, below=1 << 32)), default=0, help="of all draws (0)")


def _add_output(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    count = functools.partial(add, metavar="N", type=number(int, COUNT))
    count("--batch-size", default=8, help="prompts in a batch (8)")
    count("--fsdp", default=1, help="devices that the parameters are sharded over (1)")
    count("--tensor", default=1, help="devices that each matrix is sharded over (1)")
    add("--watch", action="store_true", help="show the order by colour while one prompt fills in, on a terminal")
    page = "write a page that plays how one prompt was filled in"
    add("--viewer", metavar="FILE.html", type=pathlib.Path, help=page)
    lines = "write a JSON line for each prompt, with what is known of each token"
    add("--json", metavar="FILE", type=pathlib.Path, help=lines)


def _version() -> str:
    return f"mdm_jax {importlib.import_module('mdm_jax').__version__}, jax {importlib.metadata.version('jax')}"
