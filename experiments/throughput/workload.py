"""What `run` measures: a network, the sequences that it fills in, and the cases of sampling."""

import dataclasses
import functools
import itertools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import mdm_jax
from experiments.oracles import oracle_named
from experiments.throughput.flags import Run, model_called
from mdm_jax.checks import gives_features
from mdm_jax.errors import InputError, shown
from mdm_jax.evaluation.benchmark import Bench, Case, cases_of
from mdm_jax.kernels.matmul import linear
from mdm_jax.kernels.skip_rows import SkipRows
from mdm_jax.models.config import ModelConfig, TransformerConfig
from mdm_jax.models.kinds import init_params, make_decoder, make_denoiser, param_shapes
from mdm_jax.oracles import ORACLES
from mdm_jax.ranges import FLOAT32, INT32, Range, check_number
from mdm_jax.typing import Array, Params, Selector


class Number(NamedTuple):
    """A selector, and the number that it takes."""

    selector: Callable[[Any], Selector]
    kind: Callable[[str], float]
    range: Range


SELECTORS: Mapping[str, Number] = {
    "per_step": Number(mdm_jax.PerStep, int, Range(1, INT32)),
    "top_k": Number(mdm_jax.TopK, int, Range(1, INT32)),
    "binomial": Number(mdm_jax.Binomial, int, Range(1, INT32)),
    "threshold": Number(mdm_jax.Threshold, float, Range(-FLOAT32, FLOAT32)),
    "entropy_budget": Number(mdm_jax.EntropyBudget, float, Range(0, FLOAT32)),
}


class Workload(NamedTuple):
    """A network, and the sequences that it fills in."""

    config: Any
    """a ModelConfig"""
    params: Params
    x_init: Array
    mask_id: int
    flags: Run

    def bench(self) -> Bench:
        """The samplers and the network to time."""
        flags = self.flags
        options: dict[str, Any] = {"block_length": flags.block_length, "turns": flags.turns, "seed": flags.seed}
        denoiser = make_denoiser(self.config)
        given = (self.params, self.x_init, self.mask_id, denoiser)
        if flags.keep is not None:
            return Bench(make_decoder(self.config), *given, sampler=mdm_jax.cached_sample, **options)
        if not gives_features(denoiser):
            return Bench(denoiser, *given, **options)
        network: Any = Network(self.config, flags.compute == "open", flags.logits == "open")
        if flags.compute == "open" and flags.logits == "open":
            network = SkipRows(network)
        return Bench(network, *given, **options)


@dataclasses.dataclass(frozen=True)
class Network:
    """The model's denoiser, with its two savings switched on or off.

    Attributes:
      config: the config of the model.
      computes_open: whether the last layer computes open positions only.
      reads_open: whether logits are made of open positions only.
    """

    config: ModelConfig
    computes_open: bool
    reads_open: bool

    @property
    def num_tokens(self) -> int:
        """Rows of the embedding."""
        return self.config.num_tokens

    def __call__(self, params: Params, tokens: Array) -> Array:
        """All logits."""
        return make_denoiser(self.config)(params, tokens)

    def features(self, params: Params, tokens: Array, is_read: Array | None = None) -> Any:
        """Features, or all logits."""
        features = make_denoiser(self.config).features(params, tokens, is_read if self.computes_open else None)
        return features if self.reads_open else linear(features.hidden, features.head, self.config.dtype)


def cases(flags: Run) -> list[Case]:
    """Every oracle with every selector at every temperature."""
    names = list(ORACLES) if flags.oracle is None else flags.oracle.split(",")
    chosen = {name: oracle_named(name) for name in names}
    return list(
        cases_of(chosen, {word: selector_of(word) for word in flags.selector.split(",")}, flags.numbers("temperature"))
    )


def selector_of(text: str) -> Selector:
    """Parses a selector, such as top_k:16."""
    name, _, value = text.partition(":")
    try:
        selector, kind, range = SELECTORS[name]
        number = kind(value)
    except (KeyError, ValueError):
        known = ", ".join(f"{name}:NUMBER" for name in SELECTORS)
        raise InputError(f"--selector takes {known}, several with commas; got {shown(text)}") from None
    check_number(f"--selector {name}", number, range, whole=kind is int)
    return selector(number)


def workload(flags: Run, batch: int) -> Workload:
    """Makes the network, and sequences of random tokens and masks."""
    config = flags.config()
    length = flags.length or (81 if flags.model.startswith("sudoku_") else min(config.max_length, 1024))
    if flags.keep is not None and flags.block_length is None:
        raise InputError("--keep is for decoding in blocks: give --block-length too")
    bounds = flags.numbers("prompt")
    least, most = bounds[0], bounds[-1]
    if len(bounds) > 2 or not least <= most < length:
        raise InputError(
            f"--prompt takes NUMBER or LEAST:MOST, below the sequences' {length} tokens; got {shown(flags.prompt)}"
        )
    if batch * length > INT32:
        raise InputError(f"--batch {batch} times --length {length} must be at most {INT32} tokens; give fewer")
    rows = config.num_tokens
    mask_id = rows - 1 if flags.mask_id is None else flags.mask_id
    if mask_id >= rows:
        raise InputError(f"--mask-id must be below {rows}, the rows of the embedding; got {mask_id}")
    tokens = np.random.default_rng(flags.seed).integers(0, config.vocab_size - 1, (batch, length))
    tokens += tokens >= mask_id  # any token but the mask
    given = np.linspace(least, most, batch).round()
    tokens[np.arange(length) >= given[:, None]] = mask_id
    return Workload(config, params_of(flags.model, config, flags.seed), jnp.asarray(tokens, jnp.int32), mask_id, flags)


@functools.lru_cache(1)
def params_of(model: str, config: ModelConfig, seed: int) -> Params:
    """Random weights for a preset; a trained model's own, in the config's dtype."""
    if model_called(model)[1] is None:
        if isinstance(config, TransformerConfig):
            return random_params(config, seed)
        return init_params(config, jax.random.key(seed))
    return jax.tree.map(lambda leaf: leaf.astype(config.param_dtype), mdm_jax.load(model).params)


def random_params(config: TransformerConfig, seed: int) -> Params:
    """Random weights: normal matrices with the config's standard deviation, norms with scale 1, biases 0.

    Matrices are drawn in chunks of rows: one program for all weights of 8B takes 60 GB, and one for its head 6 GB.
    """
    shapes, keys = param_shapes(config), itertools.count()

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
    """The name of the model, with the changes to it."""
    changed = [f"{name}={value}" for name in ("layers", "width") if (value := getattr(flags, name)) is not None]
    return f"{flags.model}({', '.join(changed)})" if changed else flags.model
