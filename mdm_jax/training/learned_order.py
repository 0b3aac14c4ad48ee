"""A learned order: a linear head on the last hidden state of a frozen network, which scores the masked positions.

The head is trained to rank the masks of a row by the log-probability that the network gives the truth there. It needs
no reinforcement learning, and the network stays what it is. Sources: the rank by the truth is that of Gt-Margin
(arXiv:2602.09501), the loss that of ListNet (Cao et al. 2007).
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import optax

from mdm_jax.checks import call, gives_features
from mdm_jax.draws import Subset
from mdm_jax.errors import InputError
from mdm_jax.logits import scored_nll
from mdm_jax.masking import mask_where
from mdm_jax.progress import Bar
from mdm_jax.typing import Array, Confidence, Denoiser, Features, Params


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class LearnedOrder:
    """An oracle: the score of a position is w · h, with h the network's last hidden state there.

    It is a pytree, so that other weights compile nothing. The network must give Features.

    Attributes:
      kernel: w, float32 [D].
    """

    kernel: Array

    wants_hidden: ClassVar[bool] = True

    def __call__(self, key: Array, confidence: Confidence, hidden: Array) -> Array:
        """The scores, float32 [B, L]."""
        del key, confidence
        return jnp.einsum("bld,d->bl", hidden.astype(jnp.float32), self.kernel, precision="highest")


def ranking_loss(scores: Array, log_p: Array, is_masked: Array) -> Array:
    """The cross-entropy of softmax(scores) with softmax(log_p), both over the masks of a row.

    Args:
      scores: float32 [B, L].
      log_p: float32 [B, L], the log-probability of the truth, nats.
      is_masked: bool [B, L].

    Returns:
      float32 [B], nats; 0 for a row without masks. The least is the entropy of softmax(log_p).

    Example:
      log_p, is_masked = jnp.log(jnp.array([[0.9, 0.1, 0.5]])), jnp.array([[True, True, False]])
      right, wrong = (ranking_loss(jnp.array([s]), log_p, is_masked) for s in ([2.0, 0, 0], [0, 2.0, 0]))
      assert right < wrong
    """
    target = jax.nn.softmax(jnp.where(is_masked, log_p, -jnp.inf), axis=-1)
    log_share = jax.nn.log_softmax(jnp.where(is_masked, scores, -jnp.inf), axis=-1)
    return -jnp.where(is_masked, target * log_share, 0).sum(axis=-1, where=is_masked)


def fit_order(
    denoiser: Denoiser,
    params: Params,
    examples: Mapping[str, np.ndarray],
    *,
    mask_id: int,
    num_steps: int = 500,
    batch_size: int = 32,
    learning_rate: float = 0.01,
    seed: int = 0,
    progress: str | None = None,
) -> tuple[LearnedOrder, np.ndarray]:
    """Trains the head on subsets of random size of the examples; the network does not change.

    Args:
      denoiser: the network, which gives Features.
      params: its parameters.
      examples: `tokens` int [N, L] and `is_prompt` bool [N, L].
      mask_id: id of the mask token.
      num_steps: steps of Adam, with a cosine to 0.
      batch_size: examples in a step, drawn with replacement.
      learning_rate: the first one.
      seed: of the batches and the masks.
      progress: the label of a progress bar; None shows none.

    Returns:
      The oracle, and the loss of each step above its least value, nats [num_steps].

    Raises:
      InputError: the network gives logits in place of Features.
    """
    schedule = optax.cosine_decay_schedule(learning_rate, num_steps)
    optimizer = optax.adam(schedule)

    @jax.jit
    def step(kernel: Array, state: Any, key: Array, x_0: Array, is_prompt: Array) -> tuple[Array, Any, Array]:
        masked = Subset()(key, x_0, is_prompt)
        output = call(denoiser, params, mask_where(masked.x_0, masked.is_masked, mask_id))
        assert isinstance(output, Features)
        log_p = -scored_nll(output, masked.x_0, masked.is_masked, mask_id=mask_id)

        def loss(kernel: Array) -> Array:
            scores = LearnedOrder(kernel)(key, None, output.hidden)  # type: ignore[arg-type]
            return ranking_loss(scores, log_p, masked.is_masked).mean()

        value, gradient = jax.value_and_grad(loss)(kernel)
        updates, state = optimizer.update(gradient, state)
        least = ranking_loss(log_p, log_p, masked.is_masked).mean()
        return optax.apply_updates(kernel, updates), state, value - least

    if not gives_features(denoiser):
        raise InputError("a learned order reads hidden states, but the network gives logits: it must give Features")
    rng, key = np.random.default_rng(seed), jax.random.key(seed)
    output: Any = jax.eval_shape(lambda: call(denoiser, params, jnp.zeros(examples["tokens"][:1].shape, jnp.int32)))
    kernel = jnp.zeros(output.hidden.shape[-1], jnp.float32)
    state = optimizer.init(kernel)
    losses = []
    for number in Bar(range(num_steps), desc=progress or "", disable=progress is None):
        rows = rng.integers(len(examples["tokens"]), size=batch_size)
        batch = (jnp.asarray(examples[name][rows]) for name in ("tokens", "is_prompt"))
        kernel, state, value = step(kernel, state, jax.random.fold_in(key, number), *batch)
        losses.append(value)
    return LearnedOrder(kernel), np.asarray(losses)
