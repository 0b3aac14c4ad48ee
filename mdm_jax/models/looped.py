"""A Transformer whose layers are applied several times: compute in depth, without more parameters.

With e the embeddings of the tokens and F all layers and the final norm, the hidden states are

    s_r = F(e + s_(r-1)),   s_0 = 0,   r = 1..R

and s_R goes to the head. With R = 1 it is the Transformer. Parameters are those of a Transformer, so that each can
start from the other's. `training.every_loop` trains the predictions of all loops; then R may be another at inference,
by `with_loops`, or as many as a row needs until its states settle. After R-MDM (arXiv:2606.18022); that a loop hands on
its normalised states is our own choice.
"""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp

from mdm_jax.kernels.matmul import linear
from mdm_jax.models.config import TransformerConfig
from mdm_jax.models.denoiser import TransformerDenoiser
from mdm_jax.ranges import NumLoops, Range
from mdm_jax.selection import check_setting
from mdm_jax.typing import Array, Features, Params

LOOPS = "num_loops"
"""Where parameters hold a number of loops that replaces the config's: int32, no parameter that is trained."""
SETTLED = "settled"
"""Where parameters hold the change of a row's states, float32, at which it goes through no more loops."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class LoopedTransformerConfig(TransformerConfig):
    """A TransformerConfig, and how often its layers are applied.

    Attributes:
      num_loops: R.
    """

    num_loops: NumLoops = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check("shift_logits", not self.shift_logits, "False: a loop goes on from states that are not shifted")

    def forward_flops(self, length: int, num_logits: int | float) -> float:
        """Floating-point operations of one forward pass over one sequence; see ModelConfig."""
        one, layers = (super(LoopedTransformerConfig, self).forward_flops(length, n) for n in (num_logits, 0))
        return one + (self.num_loops - 1) * layers


@dataclasses.dataclass(frozen=True)
class LoopedDenoiser(TransformerDenoiser):
    """The looped Transformer as a Denoiser, with Features."""

    config: LoopedTransformerConfig

    def __call__(self, params: Params, tokens: Array, *, dropout_key: Array | None = None) -> Array:
        """All logits after the last loop: arguments and result as for a TransformerDenoiser."""
        hidden, head = self.features(params, tokens, dropout_key=dropout_key)
        return linear(hidden, head, self.config.dtype)

    def features(
        self,
        params: Params,
        tokens: Array,
        is_read: Array | None = None,
        *,
        dropout_key: Array | None = None,
        every_loop: bool = False,
    ) -> Features:
        """What logits are made of.

        Args:
          params: as from `init_params`, or from `with_loops`.
          tokens: int32 [B, L].
          is_read: as for a TransformerDenoiser; read in the last loop.
          dropout_key: as for the call; each loop drops others.
          every_loop: gives the states of all loops of the config, whatever `with_loops` says.

        Returns:
          Features: hidden [B, L, D] after the last loop, or with `every_loop` [R, B, L, D], in the config's dtype. The
          gradient flows through all loops, but there is none where `with_loops` says how many under jit.
        """
        config = self.config
        num = params.get(LOOPS, config.num_loops)
        once, state = self._start(params, tokens, dropout_key)
        if every_loop:
            _, states = jax.lax.scan(
                lambda state, r: (once(r, state).hidden,) * 2, state, jnp.arange(config.num_loops - 1)
            )
            last, head = once(config.num_loops - 1, states[-1] if len(states) else state)
            return Features(jnp.concatenate([states, last[None]]), head)
        if SETTLED in params:
            return self._until_settled(params, tokens, dropout_key)[0]
        state = jax.lax.fori_loop(0, num - 1, lambda r, state: once(r, state).hidden, state)
        return once(num - 1, state, None if config.causal else is_read)

    def loops(self, params: Params, tokens: Array) -> Array:
        """How many loops each row of tokens int32 [B, L] goes through, int32 [B]."""
        if SETTLED not in params:
            return jnp.full(len(tokens), params.get(LOOPS, self.config.num_loops), jnp.int32)
        return self._until_settled(params, tokens, None)[1]

    def _start(self, params: Params, tokens: Array, dropout_key: Array | None) -> tuple[Callable[..., Features], Array]:
        """A loop as a function of its number and the states before it, and the states before the first one."""

        def once(r: Array | int, state: Array, is_read: Array | None = None) -> Features:
            key = None if dropout_key is None else jax.random.fold_in(dropout_key, r)
            features: Features = self._apply("features", params, tokens, key, is_read, state)
            return features

        return once, jnp.zeros((*tokens.shape, self.config.width), self.config.dtype)

    def _until_settled(self, params: Params, tokens: Array, dropout_key: Array | None) -> tuple[Features, Array]:
        """Features after as many loops as each row needs, and that number, int32 [B]. Rows do not depend on others."""
        once, state = self._start(params, tokens, dropout_key)
        first, num = once(0, state), params.get(LOOPS, self.config.num_loops)
        is_real = jnp.ones(tokens.shape, bool) if self.config.pad_id is None else tokens != self.config.pad_id

        def body_fun(carry: tuple[Array, Array, Array, Array]) -> tuple[Array, Array, Array, Array]:
            r, state, is_open, loops = carry
            new = once(r, state).hidden
            moved, size = (jnp.linalg.norm(x.astype(jnp.float32), axis=-1) for x in (new - state, new))
            is_moving = (is_real & (moved > params[SETTLED] * size)).any(axis=-1)
            return r + 1, jnp.where(is_open[:, None, None], new, state), is_open & is_moving, loops + is_open

        def cond_fun(carry: tuple[Array, Array, Array, Array]) -> Array:
            r, _, is_open, _ = carry
            return (r < num) & is_open.any()

        is_open, loops = jnp.ones(len(tokens), bool), jnp.ones(len(tokens), jnp.int32)
        _, state, _, loops = jax.lax.while_loop(cond_fun, body_fun, (jnp.int32(1), first.hidden, is_open, loops))
        return Features(state, first.head), loops


def with_loops(params: Params, num_loops: Array | int, settled: Array | float | None = None) -> Params:
    """The parameters, with another number of loops at inference.

    The numbers are like the parameters: under jit, as in all samplers, others compile nothing. Such parameters are
    for the denoiser alone; a model is saved with the number of its config.

    Args:
      params: of a looped network.
      num_loops: R, at least 1; may be traced.
      settled: a row goes through no more loops once one has changed the state of none of its positions by more than
        this share of the state's length (Euclidean), at least 0; may be traced. Then `num_loops` is the most. 0 stops
        where nothing changes any more; None never stops.

    Raises:
      InputError: it is no number of loops, or no share.
    """
    check_setting("num_loops", num_loops, Range(1, 1 << 20), whole=True)
    params = {**params, LOOPS: jnp.asarray(num_loops, jnp.int32)}
    if settled is None:
        return params
    check_setting("settled", settled, Range(0))
    return {**params, SETTLED: jnp.asarray(settled, jnp.float32)}
