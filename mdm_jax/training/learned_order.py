"""A learned order: a linear head on the last hidden state and the confidence of a frozen network.

The head is trained to rank the masks of a row by the log-probability that the network gives the truth there, in states
that its own order meets. It needs no reinforcement learning, and the network stays what it is; `tune_denoiser` then
trains the network in the same states. Before training the head is the order of the margin. Sources: after Gt-Margin
(arXiv:2602.09501), which ranks by the margin of the truth, its probability less the largest other one; the loss is that
of ListNet (Cao et al. 2007), the pool of states that of PUMA (arXiv:2602.10314).
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import optax

from mdm_jax import oracles
from mdm_jax.checks import call, check_mask_id, gives_features
from mdm_jax.confidence import read_confidence
from mdm_jax.errors import InputError
from mdm_jax.logits import scored_nll
from mdm_jax.masking import mask_where
from mdm_jax.progress import Bar
from mdm_jax.randomness import row_keys
from mdm_jax.ranges import INT32, Range, check_number
from mdm_jax.training.aligned import Aligned, Pool
from mdm_jax.typing import Array, Confidence, Denoiser, Features, Oracle, Params


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class LearnedOrder:
    """An oracle: the score of a position is w · h + v · c.

    h is the network's last hidden state there, and c its margin, its largest probability and its entropy in nats. It is
    a pytree, so that other weights compile nothing. The network must give Features.

    Attributes:
      kernel: w, float32 [D].
      weights: v, float32 [3].
    """

    kernel: Array
    weights: Array

    wants_hidden: ClassVar[bool] = True

    def __call__(self, key: Array, confidence: Confidence, hidden: Array) -> Array:
        """The scores, float32 [B, L]."""
        c = jnp.stack([oracles.margin(key, confidence), confidence.top_prob, confidence.entropy], axis=-1)
        parts = ((hidden.astype(jnp.float32), self.kernel), (c, self.weights))
        of_hidden, of_confidence = (jnp.einsum("bld,d->bl", x, w, precision="highest") for x, w in parts)
        return of_hidden + of_confidence


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
    """Trains the head in states that its own order meets, with true tokens; the network does not change.

    A pool of examples is revealed by the current order, as `Aligned` does by another, from the same network call.

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
      InputError: the network gives logits in place of Features, or there are no examples, or an option is out of
        range.
    """
    mask_id = _check_options(denoiser, mask_id, examples, num_steps, batch_size, learning_rate, seed)
    schedule = optax.cosine_decay_schedule(learning_rate, num_steps)
    optimizer = optax.adam(schedule)

    @jax.jit
    def step(params: Params, learned: LearnedOrder, state: Any, key: Array, pool: Pool, fresh: Any) -> Any:
        key_draw, key_score, key_advance = jax.random.split(key, 3)
        masked, pool = Aligned()(key_draw, fresh[0], fresh[1], pool)
        output = call(denoiser, params, mask_where(masked.x_0, masked.is_masked, mask_id))
        assert isinstance(output, Features)
        log_p = -scored_nll(output, masked.x_0, masked.is_masked, mask_id=mask_id)
        keys = row_keys(key_score, len(log_p))  # tokens are the likeliest, so none is drawn with
        confidence = read_confidence(keys, output, None, mask_id, masked.is_masked)

        def loss(learned: LearnedOrder) -> tuple[Array, Array]:
            scores = learned(key_score, confidence, output.hidden)
            return ranking_loss(scores, log_p, masked.is_masked).mean(), scores

        (value, scores), gradient = jax.value_and_grad(loss, has_aux=True)(learned)
        updates, state = optimizer.update(gradient, state)
        least = ranking_loss(log_p, log_p, masked.is_masked).mean()
        pool = Aligned(oracle=lambda key, confidence: scores).advance(key_advance, pool, confidence)
        return optax.apply_updates(learned, updates), state, pool, value - least

    output: Any = jax.eval_shape(lambda: call(denoiser, params, jnp.zeros(examples["tokens"][:1].shape, jnp.int32)))
    learned = LearnedOrder(jnp.zeros(output.hidden.shape[-1]), jnp.array([1.0, 0.0, 0.0]))
    state = optimizer.init(learned)
    fitted: tuple[LearnedOrder, np.ndarray] = _steps(
        functools.partial(step, params), learned, state, examples, num_steps, batch_size, seed, progress
    )
    return fitted


def tune_denoiser(
    denoiser: Denoiser,
    params: Params,
    oracle: Oracle,
    examples: Mapping[str, np.ndarray],
    *,
    mask_id: int,
    num_steps: int = 500,
    batch_size: int = 32,
    learning_rate: float = 1e-4,
    seed: int = 0,
    progress: str | None = None,
) -> tuple[Params, np.ndarray]:
    """Fine-tunes the network in the states that an order meets, such as a learned one; the order does not change.

    The loss and the pool are those of `Aligned`; the order is computed from the same network call. In random order
    the states are those of the plain loss, and so the control.

    Args:
      denoiser: the network, which gives Features.
      params: its parameters, which are left as they are.
      oracle: the order; a LearnedOrder keeps its weights.
      examples: `tokens` int [N, L] and `is_prompt` bool [N, L].
      mask_id: id of the mask token.
      num_steps: steps of Adam, with a cosine to 0.
      batch_size: examples in a step, drawn with replacement.
      learning_rate: the first one.
      seed: of the batches and the masks.
      progress: the label of a progress bar; None shows none.

    Returns:
      The parameters, and the loss of each step per free token, nats [num_steps].

    Raises:
      InputError: the network gives logits in place of Features, or there are no examples, or an option is out of
        range.
    """
    mask_id = _check_options(denoiser, mask_id, examples, num_steps, batch_size, learning_rate, seed)
    schedule = optax.cosine_decay_schedule(learning_rate, num_steps)
    optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(schedule))

    @jax.jit
    def step(params: Params, state: Any, key: Array, pool: Pool, fresh: Any) -> Any:
        key_draw, key_score, key_advance = jax.random.split(key, 3)
        masked, pool = Aligned()(key_draw, fresh[0], fresh[1], pool)

        def loss(params: Params) -> tuple[Array, Features]:
            output = call(denoiser, params, mask_where(masked.x_0, masked.is_masked, mask_id))
            assert isinstance(output, Features)
            nats = scored_nll(output, masked.x_0, masked.is_masked, mask_id=mask_id).sum(axis=-1)
            return (masked.weight * nats).sum() / (~pool.is_prompt).sum(), output

        (value, output), gradient = jax.value_and_grad(loss, has_aux=True)(params)
        updates, state = optimizer.update(gradient, state, params)
        keys = row_keys(key_score, len(masked.x_0))
        confidence = read_confidence(keys, output, None, mask_id, masked.is_masked)
        scores = oracles.score_rows(oracle, keys, confidence, output.hidden)
        pool = Aligned(oracle=lambda key, confidence: scores).advance(key_advance, pool, confidence)
        return optax.apply_updates(params, updates), state, pool, value

    tuned: tuple[Params, np.ndarray] = _steps(
        step, params, optimizer.init(params), examples, num_steps, batch_size, seed, progress
    )
    return tuned


def _check_options(
    denoiser: Denoiser,
    mask_id: int,
    examples: Mapping[str, np.ndarray],
    num_steps: int,
    batch_size: int,
    learning_rate: float,
    seed: int,
) -> int:
    """The id of the mask; InputError for what cannot be trained with."""
    if not gives_features(denoiser):
        raise InputError("a learned order reads hidden states, but the network gives logits: it must give Features")
    if not len(examples["tokens"]):
        raise InputError("no examples to train on: give at least one")
    check_number("num_steps", num_steps, Range(1, INT32), whole=True)
    check_number("batch_size", batch_size, Range(1, INT32), whole=True)
    check_number("learning_rate", learning_rate, Range(above=0))
    check_number("seed", seed, Range(0, INT32), whole=True)
    return check_mask_id(mask_id, denoiser)


def _steps(
    step: Callable[..., Any],
    trained: Any,
    state: Any,
    examples: Mapping[str, np.ndarray],
    num_steps: int,
    batch_size: int,
    seed: int,
    progress: str | None,
) -> tuple[Any, np.ndarray]:
    """Trains on batches drawn from the examples: what is trained, and the loss of each step."""
    rng, key = np.random.default_rng(seed), jax.random.key(seed)
    losses, pool = [], None
    for number in Bar(range(num_steps), desc=progress or "", disable=progress is None):
        rows = rng.integers(len(examples["tokens"]), size=batch_size)
        fresh = [jnp.asarray(examples[name][rows]) for name in ("tokens", "is_prompt")]
        pool = pool or Aligned().init(*fresh)
        trained, state, pool, value = step(trained, state, jax.random.fold_in(key, number), pool, fresh)
        losses.append(value)
    return trained, np.asarray(losses)
