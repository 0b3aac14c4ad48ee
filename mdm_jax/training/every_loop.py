"""The loss of a looped network, at every loop: so that each loop's prediction is as good as it can be."""

import dataclasses
from typing import Any

import jax

from mdm_jax.checks import check_takes, gives_features
from mdm_jax.draws import Masked, Subset
from mdm_jax.logits import scored_nll
from mdm_jax.masking import mask_where
from mdm_jax.typing import Array, Features, Params


@dataclasses.dataclass(frozen=True)
class EveryLoop:
    """The mean over loops of the ordinary loss; each bounds the likelihood. The network is a `looped_transformer`.

        1/R · Σ_r L' / |M| · Σ_{i in M} -log p_r(x_0^i | x_t)

    x_t has the masks M of `Subset`. Source: R-MDM (arXiv:2606.18022).

    Example: `make_train_step(..., masked_loss(mask_id, EveryLoop()), ...)`, or `--num-loops 4`.
    """

    def __call__(self, key: Array, x_0: Array, is_prompt: Array | None = None) -> Masked:
        """Draws the masks; the key is consumed."""
        return Subset()(key, x_0, is_prompt)

    def nll(self, denoiser: Any, params: Params, masked: Masked, *, mask_id: int, paired: bool) -> Array:
        """The loss of drawn rows, float32 [B], nats; InputError for a network that cannot give every loop."""
        x_t = mask_where(masked.x_0, masked.is_masked, mask_id)
        # A training step gives the method itself.
        network: Any = denoiser.features if gives_features(denoiser) else denoiser
        check_takes(network, "every_loop")
        hidden, head = network(params, x_t, every_loop=True)

        rows, budget = Subset().most_scored(*masked.x_0.shape) if paired and len(x_t) % 2 == 0 else (1, None)

        def at(hidden: Array) -> Array:
            output, given = Features(hidden, head), (masked.x_0, masked.is_scored)
            return scored_nll(output, *given, mask_id=mask_id, rows=rows, budget=budget).sum(axis=-1)

        return masked.weight * jax.lax.map(at, hidden).mean(axis=0)
