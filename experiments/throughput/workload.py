"""What the benchmark samples: networks with random weights, and every way to sample from them."""

import functools
import itertools
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

import mdm_jax
from experiments.throughput.flags import Run
from mdm_jax import oracles
from mdm_jax.errors import InputError
from mdm_jax.models.config import TransformerConfig
from mdm_jax.models.transformer import init_params
from mdm_jax.typing import Array, Oracle, Params, Selector

T = TypeVar("T")

ORACLES: dict[str, Oracle] = {
    "random": oracles.random,
    "left_to_right": oracles.left_to_right,
    "top_prob": oracles.top_prob,
    "margin": oracles.margin,
    "neg_entropy": oracles.neg_entropy,
    "token_prob": oracles.token_prob,
}
SELECTORS: dict[str, Callable[[str], Selector]] = {
    "per_step": lambda text: mdm_jax.PerStep(int(text)),
    "top_k": lambda text: mdm_jax.TopK(int(text)),
    "binomial": lambda text: mdm_jax.Binomial(int(text)),
    "threshold": lambda text: mdm_jax.Threshold(float(text)),
    "entropy_budget": lambda text: mdm_jax.EntropyBudget(float(text)),
}


class Case(NamedTuple):
    """One way to sample."""

    oracle: str
    selector: Selector
    selector_name: str
    temperature: float


class Workload(NamedTuple):
    """What is sampled from and what is filled in, the same for every case."""

    config: TransformerConfig
    params: Params
    x_init: Array
    mask_id: int
    flags: Run

    @property
    def num_generated(self) -> int:
        """Tokens that a call generates."""
        return int((self.x_init == self.mask_id).sum())


def cases_of(flags: Run) -> Iterator[Case]:
    """Every oracle with every selector at every temperature."""
    names = list(ORACLES) if flags.oracle is None else flags.oracle.split(",")
    unknown = [name for name in names if name not in ORACLES]
    if unknown:
        raise InputError(f"unknown oracle {unknown[0]!r}; choose from {', '.join(ORACLES)}")
    if flags.turns < 1:
        raise InputError(f"--turns must be at least 1, got {flags.turns}")
    selectors = [(selector_of(word), word) for word in flags.selector.split(",")]
    temperatures = numbers("--temperature", flags.temperature, float)
    return (Case(name, *selector, t) for name, selector, t in itertools.product(names, selectors, temperatures))


def selector_of(text: str) -> Selector:
    """From what a user writes, such as top_k:16."""
    name, _, value = text.partition(":")
    try:
        return SELECTORS[name](value)
    except (KeyError, ValueError):
        known = ", ".join(f"{name}:NUMBER" for name in SELECTORS)
        raise InputError(f"--selector takes {known}, several with commas; got {text!r}") from None


def numbers(flag: str, text: str, kind: Callable[[str], T]) -> list[T]:
    """Numbers with commas between them."""
    try:
        return [kind(word) for word in text.split(",")]
    except ValueError:
        whole = "whole " if kind is int else ""
        raise InputError(f"{flag} takes {whole}numbers with commas, got {text!r}") from None


def batches_of(flags: Run) -> list[int]:
    """The batch sizes that are asked for."""
    sizes = numbers("--batch", flags.batch, int)
    if min(sizes) < 1:
        raise InputError(f"--batch must be at least 1, got {min(sizes)}")
    return sizes


def workload(flags: Run, batch: int) -> Workload:
    """Random weights, and sequences of random tokens and masks."""
    config = flags.config()
    length = flags.length or (81 if flags.model.startswith("sudoku") else min(config.max_length, 1024))
    if flags.keep is not None and flags.block_length is None:
        raise InputError("--keep is for decoding in blocks: give --block-length too")
    bounds = numbers("--prompt", flags.prompt.replace(":", ","), int)
    least, most = bounds[0], bounds[-1]
    if len(bounds) > 2 or not 0 <= least <= most < length:
        raise InputError(
            f"--prompt takes NUMBER or LEAST:MOST, below the sequences' {length} tokens; got {flags.prompt}"
        )
    mask_id = config.vocab_size - 1 + config.num_extra_tokens
    tokens = np.random.default_rng(flags.seed).integers(0, config.vocab_size - 1, (batch, length))
    given = np.linspace(least, most, batch).round()
    tokens[np.arange(length) >= given[:, None]] = mask_id
    return Workload(config, random_params(config, flags.seed), jnp.asarray(tokens, jnp.int32), mask_id, flags)


@functools.lru_cache(1)
def random_params(config: TransformerConfig, seed: int) -> Params:
    """Fresh weights: normal ones with the config's deviation, and norms that change nothing.

    They are drawn some rows at a time: one program for all of 8B takes 60 GB, and one for its head alone 6 GB.
    """
    shapes, keys = jax.eval_shape(functools.partial(init_params, config), jax.random.key(0)), itertools.count()

    def fresh(path: tuple[Any, ...], leaf: jax.ShapeDtypeStruct) -> Array:
        if leaf.ndim == 1:
            return jnp.full(leaf.shape, "scale" in jax.tree_util.keystr(path), leaf.dtype)
        return matrix(jax.random.fold_in(jax.random.key(seed), next(keys)), leaf.shape, leaf.dtype)

    @functools.partial(jax.jit, static_argnums=(1, 2))
    def matrix(key: Array, shape: tuple[int, int], dtype: jnp.dtype) -> Array:
        def row(key: Array) -> Array:
            return (config.init_std * jax.random.normal(key, shape[1:])).astype(dtype)

        rows_at_a_time = min(shape[0], -(-(1 << 22) // shape[1]))
        drawn: Array = jax.lax.map(row, jax.random.split(key, shape[0]), batch_size=rows_at_a_time)
        return drawn

    return jax.tree_util.tree_map_with_path(fresh, shapes)


def described(flags: Run) -> str:
    """The preset, and what was changed of it."""
    changed = [f"{name}={value}" for name in ("layers", "width") if (value := getattr(flags, name)) is not None]
    return f"{flags.model}({', '.join(changed)})" if changed else flags.model
