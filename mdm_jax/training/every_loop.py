"""The loss of a looped network, at every loop: so that each loop's prediction is as good as it can be."""

import dataclasses
from typing import Any

import jax

from mdm_jax.checks import check_takes, gives_features
from mdm_jax.draws import Draw, Masked, Subset
from mdm_jax.losses import nll_of
from mdm_jax.masking import mask_where
from mdm_jax.typing import Array, Features, Params


@dataclasses.dataclass(frozen=True)
class EveryLoop:
    """The mean over loops of the loss of a draw. The network is a `looped_transformer`.

        1/R · Σ_r L' / |M| · Σ_{i in M} -log p_r(x_0^i | x_t)

    With the draw `Subset` each loop's loss bounds the likelihood. Source: R-MDM (arXiv:2606.18022).

    Example: `make_train_step(..., masked_loss(mask_id, EveryLoop()), ...)`, or `--num-loops 4`.

    Attributes:
      draw: draws the masks M.
    """

    draw: Draw = dataclasses.field(default_factory=Subset)

    def __call__(self, key: Array, x_0: Array, is_prompt: Array | None = None) -> Masked:
        """Draws the masks; the key is consumed."""
        return self.draw(key, x_0, is_prompt)

    def nll(self, denoiser: Any, params: Params, masked: Masked, *, mask_id: int, paired: bool) -> Array:
        """The loss of drawn rows, float32 [B], nats; InputError for a network that cannot give every loop."""
        x_t = mask_where(masked.x_0, masked.is_masked, mask_id)
        # A training step gives the method itself.
        network: Any = denoiser.features if gives_features(denoiser) else denoiser
        check_takes(network, "every_loop")
        hidden, head = network(params, x_t, every_loop=True)

        def at(hidden: Array) -> Array:
            return nll_of(Features(hidden, head), masked, mask_id=mask_id, draw=self.draw, paired=paired)

        losses: Array = jax.lax.map(at, hidden)
        return losses.mean(axis=0)
