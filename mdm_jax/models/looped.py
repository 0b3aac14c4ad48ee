"""A Transformer whose layers are applied several times: compute in depth, without more parameters.

With e the embeddings of the tokens and F all layers and the final norm, the hidden states are

    s_r = F(e + s_(r-1)),   s_0 = 0,   r = 1..R

and s_R goes to the head. With R = 1 it is the Transformer. Parameters are those of a Transformer, so that each can
start from the other's. `training.every_loop` trains the predictions of all loops; then R may be another at inference,
by `with_loops`. After R-MDM (arXiv:2606.18022); that a loop hands on its normalised states is our own choice.
"""

import dataclasses

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

        def once(r: Array | int, state: Array, is_read: Array | None = None) -> Features:
            key = None if dropout_key is None else jax.random.fold_in(dropout_key, r)
            features: Features = self._apply("features", params, tokens, key, is_read, state)
            return features

        state = jnp.zeros((*tokens.shape, config.width), config.dtype)
        if every_loop:
            _, states = jax.lax.scan(
                lambda state, r: (once(r, state).hidden,) * 2, state, jnp.arange(config.num_loops - 1)
            )
            last, head = once(config.num_loops - 1, states[-1] if len(states) else state)
            return Features(jnp.concatenate([states, last[None]]), head)
        state = jax.lax.fori_loop(0, num - 1, lambda r, state: once(r, state).hidden, state)
        return once(num - 1, state, None if config.causal else is_read)


def with_loops(params: Params, num_loops: Array | int) -> Params:
    """The parameters, with another number of loops at inference.

    It is a number like the parameters: under jit, as in all samplers, another one compiles nothing. Such parameters are
    for the denoiser alone; a model is saved with the number of its config.

    Args:
      params: of a looped network.
      num_loops: R, at least 1; may be traced.

    Raises:
      InputError: it is no number of loops.
    """
    check_setting("num_loops", num_loops, Range(1, 1 << 20), whole=True)
    return {**params, LOOPS: jnp.asarray(num_loops, jnp.int32)}
