"""mdm_jax: masked diffusion models and token order. Train for the worst, plan for the best.

Conventions: x_0 is clean and x_t noisy; t = 0 is clean and t = 1 all masked. Tokens are int32 [B,
L], and `is_masked` is True at masked positions. Losses are nats per sequence, [B]. Keys are typed
and consumed. Importing the package starts no device work: the module of a name is imported when the
name is first used.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mdm_jax import losses, masking, oracles, orders, sampling, schedules, selection
    from mdm_jax.autoregressive import autoregressive_sample
    from mdm_jax.cached_sampling import cached_sample
    from mdm_jax.confidence import confidence_from_hidden, confidence_from_logits
    from mdm_jax.correction import correcting_sample, remasking_sample
    from mdm_jax.errors import InputError
    from mdm_jax.generation import Generated, generate
    from mdm_jax.klass import Klass
    from mdm_jax.loading import Model, load
    from mdm_jax.logits import token_nll
    from mdm_jax.losses import causal_nll, elbo_loss, order_loss, order_nll, subset_loss
    from mdm_jax.masking import forward_mask, mask_last, reverse_posterior
    from mdm_jax.oracles import with_noise
    from mdm_jax.orders import identity_order, inverse, near_identity_order, uniform_order
    from mdm_jax.proposals import best_sample, stable_sample
    from mdm_jax.pseudo_likelihood import pseudo_log_likelihood
    from mdm_jax.sampling import SampleResult, sample, vanilla_sample
    from mdm_jax.schedules import Cosine, Linear, Polynomial, Schedule
    from mdm_jax.search import search_sample
    from mdm_jax.selection import Binomial, EntropyBudget, PerStep, Threshold, TopK
    from mdm_jax.symmetric import symmetric_average, symmetric_rank, symmetric_sample
    from mdm_jax.text.prompts import Gap
    from mdm_jax.typing import Array, Confidence, Denoiser, Features, Oracle, Params, Selector

__version__ = "0.1.0"

__all__ = [
    "Array",
    "Binomial",
    "Confidence",
    "Cosine",
    "Denoiser",
    "EntropyBudget",
    "Features",
    "Gap",
    "Generated",
    "InputError",
    "Klass",
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
    "best_sample",
    "cached_sample",
    "causal_nll",
    "confidence_from_hidden",
    "confidence_from_logits",
    "correcting_sample",
    "elbo_loss",
    "forward_mask",
    "generate",
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
    "pseudo_log_likelihood",
    "remasking_sample",
    "reverse_posterior",
    "sample",
    "sampling",
    "schedules",
    "search_sample",
    "selection",
    "stable_sample",
    "subset_loss",
    "symmetric_average",
    "symmetric_rank",
    "symmetric_sample",
    "token_nll",
    "uniform_order",
    "vanilla_sample",
    "with_noise",
]

_HOMES = {
    "autoregressive": ("autoregressive_sample",),
    "cached_sampling": ("cached_sample",),
    "confidence": ("confidence_from_hidden", "confidence_from_logits"),
    "correction": ("correcting_sample", "remasking_sample"),
    "errors": ("InputError",),
    "generation": ("Generated", "generate"),
    "klass": ("Klass",),
    "loading": ("Model", "load"),
    "logits": ("token_nll",),
    "losses": ("causal_nll", "elbo_loss", "order_loss", "order_nll", "subset_loss"),
    "masking": ("forward_mask", "mask_last", "reverse_posterior"),
    "oracles": ("with_noise",),
    "orders": ("identity_order", "inverse", "near_identity_order", "uniform_order"),
    "proposals": ("best_sample", "stable_sample"),
    "pseudo_likelihood": ("pseudo_log_likelihood",),
    "sampling": ("SampleResult", "sample", "vanilla_sample"),
    "search": ("search_sample",),
    "schedules": ("Cosine", "Linear", "Polynomial", "Schedule"),
    "selection": ("Binomial", "EntropyBudget", "PerStep", "Threshold", "TopK"),
    "symmetric": ("symmetric_average", "symmetric_rank", "symmetric_sample"),
    "text.prompts": ("Gap",),
    "typing": ("Array", "Confidence", "Denoiser", "Features", "Oracle", "Params", "Selector"),
}
"""The public names of each module, which is imported when one of them is first used."""


def __getattr__(name: str) -> Any:
    """Imports a public name or module on first use; `load` and `generate` import Flax and Orbax."""
    home = next((module for module, names in _HOMES.items() if name in names), None)
    if home is None and name not in __all__:
        raise AttributeError(f"module 'mdm_jax' has no attribute {name!r}")
    module = importlib.import_module(f"mdm_jax.{home or name}")
    value = globals()[name] = module if home is None else getattr(module, name)
    return value


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
