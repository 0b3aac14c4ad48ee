"""What `parity` compares."""

import dataclasses
import functools
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

import mdm_jax
from experiments.common import Results, Row, say
from experiments.parity import Check
from mdm_jax.errors import RunError
from mdm_jax.models import presets
from mdm_jax.models.config import DType, TransformerConfig
from mdm_jax.models.kinds import init_params, make_denoiser
from mdm_jax.progress import Bar
from mdm_jax.sharding import make_mesh, place
from mdm_jax.tasks.base import held_out
from mdm_jax.training.objectives import masked_loss
from mdm_jax.training.state import OptimizerConfig, init_state
from mdm_jax.training.step import make_train_step
from mdm_jax.typing import Array, Params

BOUNDS: dict[DType, float] = {"float32": 1e-4, "bfloat16": 3e-2}
"""The largest relative error, ||x - reference|| / ||reference||, of logits and gradients, by the dtype of products."""
SHARE = 0.99
"""The share of tokens or puzzles that have to agree where rounding may decide between two near equals."""

CASES = {
    "Sudoku's 6M: 81 tokens, heads of 32": dataclasses.replace(presets.sudoku_6m_deep, num_layers=3),
    "padding: 127 tokens, heads of 64": TransformerConfig(
        vocab_size=99,
        num_extra_tokens=2,
        pad_id=100,
        max_length=127,
        num_layers=3,
        num_heads=4,
        width=256,
        mlp_width=512,
    ),
    "causal: 64 tokens, 2 key heads for 8, of 128": TransformerConfig(
        vocab_size=99,
        max_length=64,
        num_layers=2,
        num_heads=8,
        num_kv_heads=2,
        width=1024,
        mlp_width=1024,
        causal=True,
    ),
}


def check(flags: Check) -> None:
    """Adds a row for each comparison; RunError if one does not hold."""
    results = Results("parity", "check", out=flags.out, seed=flags.seed)
    checks: list[Callable[[Check], Iterator[Row]]] = [networks, rows_alone, plain_loop, shipped, repeated_step]
    for compare in Bar(checks, unit="check"):
        for row in compare(flags):
            results.add(**row)
            say(f"{row['what']}: {row['found']:.3g}, bound {row['bound']:g}")
    results.finish()
    wrong = [row["what"] for row in results.rows if not row["holds"]]
    if wrong:
        raise RunError(f"{len(wrong)} of {len(results.rows)} comparisons do not hold: {'; '.join(wrong)}")


def at_most(what: str, found: float, bound: float) -> Row:
    """A row that holds if what was found is no larger than the bound."""
    return {"what": what, "found": found, "bound": bound, "holds": bool(found <= bound)}


def at_least(what: str, found: float, bound: float) -> Row:
    """A row that holds if what was found is no smaller than the bound."""
    return {"what": what, "found": found, "bound": bound, "holds": bool(found >= bound)}


def relative_error(found: Any, reference: Any) -> float:
    """||found - reference|| / ||reference|| over all leaves, in float64; not-a-number stays what it is."""
    pairs = zip(jax.tree.leaves(found), jax.tree.leaves(reference), strict=True)
    arrays = [(np.asarray(one, np.float64), np.asarray(other, np.float64)) for one, other in pairs]
    return float(
        np.sqrt(sum(((one - other) ** 2).sum() for one, other in arrays) / sum((other**2).sum() for _, other in arrays))
    )


def on_cpu(work: Callable[..., Any], *arguments: Any) -> Any:
    """Runs a function on the CPU; arrays come back as NumPy's."""
    cpu = jax.devices("cpu")[0]
    with jax.default_device(cpu):
        return jax.tree.map(np.asarray, work(*jax.device_put(arguments, cpu)))


def networks(flags: Check) -> Iterator[Row]:
    """Logits and gradients of random networks, in both dtypes, against the CPU's in float32."""
    rng = np.random.default_rng(flags.seed)
    for name, config in CASES.items():
        if flags.scale == "smoke":
            config = dataclasses.replace(config, num_layers=1, width=64, mlp_width=64)
        params = init_params(dataclasses.replace(config, init_std=0.05), jax.random.key(flags.seed))
        tokens = rng.integers(0, config.vocab_size, (5, config.max_length)).astype(np.int32)
        is_real = np.ones(tokens.shape, bool)
        if config.pad_id is not None:
            is_real[1, 90:] = is_real[2, :40] = False
            tokens = np.where(is_real, tokens, config.pad_id)
        reference = on_cpu(functools.partial(_logits_and_gradient, config), params, tokens, is_real)
        for dtype, bound in BOUNDS.items():
            found = _logits_and_gradient(dataclasses.replace(config, dtype=dtype), params, tokens, is_real)
            for part, one, other in zip(("logits", "gradient"), found, reference, strict=True):
                yield at_most(f"{part} in {dtype}, {name}", relative_error(one, other), bound)


def _logits_and_gradient(
    config: TransformerConfig, params: Params, tokens: ArrayLike, is_real: ArrayLike
) -> tuple[Array, Params]:
    denoiser = make_denoiser(config)

    def objective(params: Params) -> tuple[Array, Array]:
        logits = jnp.where(jnp.expand_dims(is_real, -1), denoiser(params, jnp.asarray(tokens)), 0)
        nll = -jax.nn.log_softmax(logits)[..., 0]
        return jnp.where(is_real, nll, 0).mean(), logits

    gradient, logits = jax.jit(jax.grad(objective, has_aux=True))(params)
    return logits, gradient


def rows_alone(flags: Check) -> Iterator[Row]:
    """Tokens of three rows by the shipped weights: alone, and in a batch whose other rows take longer."""
    model, puzzles = _model(flags), _puzzles(8)
    puzzles[1::2] *= np.random.default_rng(flags.seed).random(puzzles[1::2].shape) < 0.5
    solve = functools.partial(_solve, model)
    together = solve(puzzles)
    same = [(solve(puzzles[i : i + 1]) == together[i]).mean() for i in (0, 4, 7)]
    yield at_least("tokens of rows alone and in a batch", float(np.mean(same)), SHARE)


def plain_loop(flags: Check) -> Iterator[Row]:
    """Tokens by `sample`, and by the loop that a reader would write: all margins, the best one revealed."""
    model, puzzles = _model(flags), _puzzles(8)
    denoiser = jax.jit(model.denoiser)
    x = puzzles.copy()
    while (x == 0).any():
        logits = np.array(denoiser(model.params, x), np.float32)
        logits[..., 0] = -np.inf  # a mask is never written
        likely = np.sort(np.asarray(jax.nn.softmax(logits)), axis=-1)
        margin = np.where(x == 0, likely[..., -1] - likely[..., -2], -1)
        rows = np.flatnonzero((x == 0).any(axis=1))
        best = margin.argmax(axis=1)[rows]
        x[rows, best] = logits[rows, best].argmax(axis=-1)
    yield at_least("tokens of sample and of the plain loop", float((_solve(model, puzzles) == x).mean()), SHARE)


def shipped(flags: Check) -> Iterator[Row]:
    """Puzzles that the shipped weights solve, here and on the CPU."""
    model, puzzles = _model(flags), _puzzles(flags.limit)
    here, there = _solve(model, puzzles), on_cpu(functools.partial(_solve_by, model), model.params, puzzles)
    yield at_least(f"grids of {flags.limit} puzzles as on the CPU", float((here == there).all(axis=1).mean()), 0.95)


def repeated_step(flags: Check) -> Iterator[Row]:
    """Parameters after three training steps, twice: the largest difference, 0 where the device repeats its bits."""
    preset, num_layers = (presets.sudoku_800k, 1) if flags.scale == "smoke" else (presets.sudoku_6m_deep, 3)
    config = dataclasses.replace(preset, num_layers=num_layers, num_extra_tokens=1)
    optimizer, mesh = OptimizerConfig(num_steps=3), make_mesh()
    init = functools.partial(init_params, config)
    step = make_train_step(make_denoiser(config), init, masked_loss(config.vocab_size), optimizer, mesh)
    tokens = np.random.default_rng(flags.seed).integers(0, config.vocab_size, (8 * mesh.size, 81)).astype(np.int32)
    batch = place(mesh, {"tokens": tokens, "is_prompt": np.zeros(tokens.shape, bool)})

    def trained() -> Params:
        state = init_state(mesh, init, flags.seed, optimizer)
        for _ in range(3):
            state, _ = step(state, batch)
        return jax.tree.map(np.asarray, state.params)

    pairs = zip(jax.tree.leaves(trained()), jax.tree.leaves(trained()), strict=True)
    yield at_most(
        "parameters of three steps, twice", float(max(np.abs(one - other).max() for one, other in pairs)), 0.0
    )


def _model(flags: Check) -> mdm_jax.Model:
    """The shipped weights; at smoke scale a random network of one layer."""
    if flags.scale == "small":
        return mdm_jax.load("sudoku-6m")
    config = dataclasses.replace(presets.sudoku_800k, num_layers=1)
    return mdm_jax.Model(config, init_params(config, jax.random.key(flags.seed)), make_denoiser(config))


def _puzzles(number: int) -> np.ndarray:
    """The first held-out normal puzzles, int32 [number, 81], 0 for blanks."""
    from mdm_jax.tasks.sudoku.task import Sudoku

    task = Sudoku(difficulty="normal", num_train=1, num_test=number)
    return np.array(held_out(task, number)["puzzle"], np.int32)


def _solve(model: mdm_jax.Model, puzzles: np.ndarray) -> np.ndarray:
    return np.asarray(_solve_by(model, model.params, puzzles))


def _solve_by(model: mdm_jax.Model, params: Params, puzzles: ArrayLike) -> Array:
    tokens: Array = mdm_jax.sample(
        model.denoiser, params, jax.random.key(0), puzzles, mask_id=0, oracle=mdm_jax.oracles.margin, temperature=0.0
    ).tokens
    return tokens
