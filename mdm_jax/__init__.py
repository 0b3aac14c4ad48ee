"""mdm_jax: masked diffusion models whose subject is token order. Train for the worst, plan for the best.

Conventions: x_0 clean, x_t noisy, t = 0 clean and t = 1 all masked; tokens int32 [B, L]; `is_masked` is True where
masked; losses are nats per sequence [B]; keys are typed and consumed. Importing this starts no device work.
"""

from typing import TYPE_CHECKING, Any

from mdm_jax import losses, masking, oracles, orders, sampling, schedules, selection
from mdm_jax.autoregressive import autoregressive_sample
from mdm_jax.cached_sampling import cached_sample
from mdm_jax.confidence import confidence_from_hidden, confidence_from_logits
from mdm_jax.errors import InputError
from mdm_jax.losses import causal_nll, elbo_loss, order_loss, order_nll, subset_loss
from mdm_jax.masking import forward_mask, mask_last, reverse_posterior
from mdm_jax.oracles import with_noise
from mdm_jax.orders import identity_order, inverse, near_identity_order, uniform_order
from mdm_jax.remasking import remasking_sample
from mdm_jax.sampling import SampleResult, sample, vanilla_sample
from mdm_jax.schedules import Cosine, Linear, Polynomial, Schedule
from mdm_jax.scoring import token_nll
from mdm_jax.selection import Binomial, EntropyBudget, PerStep, Threshold, TopK
from mdm_jax.typing import Array, Confidence, Denoiser, Features, Oracle, Params, Selector

if TYPE_CHECKING:
    from mdm_jax.loading import Model, load

__version__ = "0.1.0"

__all__ = [
    "Array",
    "Binomial",
    "Confidence",
    "Cosine",
    "Denoiser",
    "EntropyBudget",
    "Features",
    "InputError",
    "Linear",
    "Model",
    "Oracle",
    "Params",
    "PerStep",
    "Polynomial",
    "SampleResult",
    "Schedule",
    "Selector",
    "Threshold",
    "TopK",
    "autoregressive_sample",
    "cached_sample",
    "causal_nll",
    "confidence_from_hidden",
    "confidence_from_logits",
    "elbo_loss",
    "forward_mask",
    "identity_order",
    "inverse",
    "load",
    "losses",
    "mask_last",
    "masking",
    "near_identity_order",
    "oracles",
    "order_loss",
    "order_nll",
    "orders",
    "remasking_sample",
    "reverse_posterior",
    "sample",
    "sampling",
    "schedules",
    "selection",
    "subset_loss",
    "token_nll",
    "uniform_order",
    "vanilla_sample",
    "with_noise",
]


def __getattr__(name: str) -> Any:
    """`load` and `Model` need Flax and Orbax, which are imported when one of them is first asked for."""
    if name in ("load", "Model"):
        from mdm_jax import loading

        return getattr(loading, name)
    raise AttributeError(f"module 'mdm_jax' has no attribute {name!r}")
