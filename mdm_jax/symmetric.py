"""The symmetric forms of a row: fresh looks at the same question, without any noise.

A task with symmetries turns a row into others that ask the same, such as a Sudoku mirrored or with its digits
renamed. A network that has learned no symmetry exactly answers each anew. Form s of a row x is y with
y[i] = tokens[s, x[positions[s, i]]].
"""

import dataclasses
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from mdm_jax.checks import call, check_mask_id, check_network, check_tokens, ids_known_to, known_values
from mdm_jax.choosing import Rank, best_ranked, check_enough, decode_all, keep, proposal_keys
from mdm_jax.errors import InputError, shown
from mdm_jax.logits import float_logits
from mdm_jax.pseudo_likelihood import PseudoLikelihood, check_free
from mdm_jax.sampling import Decode, SampleResult
from mdm_jax.typing import Array, Denoiser, Params


def symmetric_sample(
    decode: Decode,
    key: Array,
    x_init: ArrayLike,
    *,
    positions: ArrayLike,
    tokens: ArrayLike,
    rank: Rank | None = None,
    enough: float | None = None,
) -> SampleResult:
    """The answer that most symmetric forms of a row lead to: a vote over whole answers.

    Every form is decoded, its answer is taken back to the row's own form, and the answer that most
    forms agree on is kept; ties go to the higher log_prob, then to the first form. A vote, not an
    average of predictions: what is kept is an answer that the model gave, and any decoder will do.
    With `rank` there is no vote: the answer that it ranks highest is kept, even one that a single form
    leads to. It costs S times what the decoder costs, and the decoder may be without chance, since the
    forms differ. With `enough` forms are decoded one after another, until each row has an answer that
    is good enough.

    Args:
      decode: fills in a batch, as for `best_sample`.
      key: a typed key, scalar or one per row [B]; consumed.
      x_init: int [B, L], as for the decoder.
      positions: int [S, L], S permutations of the positions. A task with symmetries gives them, such as
        `tasks.sudoku.layouts.Masked.symmetries`.
      tokens: int [S, T], as many permutations of the ids 0 to T - 1, among them all ids in `x_init` and
        all that the decoder writes. The mask has to keep its id.
      rank: as for `best_sample`; of the answers in the row's own form.
      enough: as for `best_sample`.

    Returns:
      SampleResult.

    Raises:
      InputError: as `best_sample`, or the arrays hold no permutations, or an id is known that `tokens` lack.

    Example:
      def denoiser(params, tokens):
          return params[tokens] + params[tokens].mean(axis=1, keepdims=True)

      def decode(keys, x_init):
          return mdm_jax.sample(denoiser, params, keys, x_init, mask_id=5, temperature=0)

      params, x_init = jax.random.normal(jax.random.key(0), (6, 5)), jnp.full((2, 3), 5)
      mirrored = jnp.array([[0, 1, 2], [2, 1, 0]])
      result = mdm_jax.symmetric_sample(
          decode, jax.random.key(1), x_init, positions=mirrored, tokens=jnp.tile(jnp.arange(6), (2, 1))
      )
      assert (result.tokens < 5).all() and result.nfe == 2 * 3
    """
    forms = _forms(positions, tokens)
    check_enough(enough, rank)
    given, keys = proposal_keys(key, x_init, len(forms.positions))
    _check_fit(forms, given, "x_init")

    def propose(rows: Array, keys: Array, numbers: slice) -> SampleResult:
        found = decode_all(decode, keys[:, numbers], _forms_of(rows, forms, numbers))
        _check_renamed("the decoder wrote", found.tokens, forms)
        return found._replace(**_own_form(found, forms, numbers))

    if rank is not None:
        return best_ranked(propose, given, keys, rank, enough)
    found = propose(given, keys, slice(None))
    return keep(found, (found.tokens[:, :, None] == found.tokens[:, None]).all(axis=-1).sum(axis=-1))


def symmetric_rank(rank: Rank, *, positions: ArrayLike, tokens: ArrayLike) -> Rank:
    """Ranks an answer by the mean of what `rank` says of its symmetric forms.

    Each form is a fresh look at the answer: a wrong one that the network does not doubt in one form it
    may doubt in another. It costs S times what `rank` costs.

    Args:
      rank: as for `best_sample`.
      positions: int [S, L], as for `symmetric_sample`.
      tokens: int [S, T], as for `symmetric_sample`.

    Returns:
      A function as `rank` is, of answers int32 [N, L] and of where they were filled in, bool [N, L].

    Raises:
      InputError: the arrays hold no permutations; the function raises it if they do not fit its answers.

    Example:
      def denoiser(params, tokens):  # only the second token is told by the first
          known = jax.nn.one_hot(tokens[:, :1], 3)
          return jnp.concatenate([0 * known, params * known], axis=1)

      def rank(tokens, is_free):
          return mdm_jax.pseudo_log_likelihood(denoiser, jnp.array(9.0), tokens, is_free, mask_id=3)

      both_ways = mdm_jax.symmetric_rank(rank, positions=[[0, 1], [1, 0]], tokens=[range(4)] * 2)
      answers, is_free = jnp.array([[0, 2]]), jnp.array([[True, False]])
      assert rank(answers, is_free).log_prob > both_ways(answers, is_free).log_prob
    """
    forms = _forms(positions, tokens)

    def ranked(answers: Array, is_free: Array) -> PseudoLikelihood:
        answers = check_tokens(answers, "tokens")
        is_free = check_free(is_free, answers)
        _check_fit(forms, answers, "tokens")
        rows, free = _forms_of(answers, forms, slice(None)), is_free[:, forms.positions]
        num, length = rows.shape[1:]
        found = rank(rows.reshape(-1, length), free.reshape(-1, length))
        return PseudoLikelihood(found.log_prob.reshape(-1, num).mean(axis=1), num * found.nfe)

    return ranked


def symmetric_average(denoiser: Denoiser, *, mask_id: int, positions: ArrayLike, tokens: ArrayLike) -> Denoiser:
    """A network whose predictions are the mean of those for the symmetric forms of a row.

    Probabilities are averaged, without the mask's. Any sampler takes it in place of the network. One
    call of it is S calls of the network, and `nfe` counts its own: multiply by S.

    Args:
      denoiser: the network.
      mask_id: id of the mask.
      positions: int [S, L], as for `symmetric_sample`.
      tokens: int [S, T], as for `symmetric_sample`, with T at least V: ids below V become ids below V.

    Returns:
      (params, tokens int32 [B, L]) -> log of the mean probabilities, float32 [B, L, V].

    Raises:
      InputError: the arrays hold no permutations, or one that moves the mask; the function raises it if
        they do not fit its tokens or the network's output.

    Example:
      def denoiser(params, tokens):  # it has learned to read from the left alone
          return params[jnp.roll(tokens, 1, axis=1)]

      params = jnp.eye(4, 3)
      both_ways = mdm_jax.symmetric_average(
          denoiser, mask_id=3, positions=[[0, 1, 2], [2, 1, 0]], tokens=[range(4)] * 2
      )
      log_p = both_ways(params, jnp.array([[0, 3, 2]]))[0, 1]
      assert jnp.allclose(jnp.exp(log_p).sum(), 1) and int(log_p.argmin()) == 1  # both neighbours count
    """
    check_network(denoiser, "denoiser")
    _forms(positions, tokens)
    mask_id, names = check_mask_id(mask_id, denoiser), np.asarray(tokens)
    if mask_id >= names.shape[1] or (names[:, mask_id] != mask_id).any():
        raise InputError(f"the mask, {mask_id}, must keep its id in each of the permutations of tokens")
    return _Average(denoiser, mask_id, _as_tuples(positions), _as_tuples(tokens))


def _as_tuples(permutations: ArrayLike) -> tuple[tuple[int, ...], ...]:
    return tuple(map(tuple, np.asarray(permutations).tolist()))


@dataclasses.dataclass(frozen=True)
class _Average:
    """What `symmetric_average` returns; hashable, as a static argument of jit must be."""

    denoiser: Denoiser
    mask_id: int
    positions: tuple[tuple[int, ...], ...]
    tokens: tuple[tuple[int, ...], ...]

    @property
    def num_tokens(self) -> int:
        """It takes the ids 0 to num_tokens - 1."""
        return min(len(self.tokens[0]), ids_known_to(self.denoiser))

    def __call__(self, params: Params, tokens: Array) -> Array:
        """Log of the mean probabilities, float32 [B, L, V], of tokens int32 [B, L]."""
        forms = _forms(np.asarray(self.positions), np.asarray(self.tokens))
        tokens = check_tokens(tokens, "tokens", self)
        _check_fit(forms, tokens, "tokens")
        rows = _forms_of(tokens, forms, slice(None))
        batch, num, length = rows.shape
        logits = float_logits(call(self.denoiser, params, rows.reshape(-1, length)), self.mask_id)
        names = np.asarray(self.tokens)[:, : logits.shape[-1]]
        if names.shape[1] < logits.shape[-1] or names.max() >= logits.shape[-1]:
            raise InputError(
                f"the network predicts the ids 0 to {logits.shape[-1] - 1}: tokens must permute these among themselves"
            )
        log_p = jax.nn.log_softmax(logits, axis=-1).reshape(batch, num, length, -1)
        log_p = jnp.take_along_axis(log_p, forms.places[None, :, :, None], axis=2)
        log_p = jnp.take_along_axis(log_p, jnp.asarray(names)[None, :, None], axis=3)
        never = jnp.isneginf(log_p).all(axis=1)  # such as the mask; logsumexp has no gradient there
        mean = jax.nn.logsumexp(jnp.where(never[:, None], 0, log_p), axis=1) - math.log(num)
        return jnp.where(never, -jnp.inf, mean)


class _Forms(NamedTuple):
    """S permutations of positions and of tokens, and the permutations that undo them."""

    positions: Array
    """int32 [S, L]"""
    tokens: Array
    """int32 [S, T]"""
    places: Array
    """int32 [S, L]"""
    names: Array
    """int32 [S, T]"""


def _forms(positions: ArrayLike, tokens: ArrayLike) -> _Forms:
    """Checks the permutations, and undoes them."""
    num = _check_permutations("positions", positions)
    if _check_permutations("tokens", tokens) != num:
        raise InputError(f"positions hold {num} forms and tokens {len(np.asarray(tokens))}: give as many")
    there = (np.asarray(positions), np.asarray(tokens))
    back = (np.argsort(permutations, axis=1) for permutations in there)
    return _Forms(*(jnp.asarray(permutations, jnp.int32) for permutations in (*there, *back)))


def _check_fit(forms: _Forms, rows: Array, name: str) -> None:
    """InputError if rows [B, L] are of another length, or hold a known id that has no new name."""
    length = forms.positions.shape[1]
    if length != rows.shape[1]:
        raise InputError(f"positions are for {length} tokens; the rows of {name} have {rows.shape[1]}")
    _check_renamed(f"{name} holds", rows, forms)


def _forms_of(rows: Array, forms: _Forms, numbers: slice) -> Array:
    """The forms of these numbers of each row [B, L], int32 [B, N, L]."""
    moved = rows[:, forms.positions[numbers]]
    return jnp.take_along_axis(forms.tokens[None, numbers], moved, axis=2)


def _own_form(found: SampleResult, forms: _Forms, numbers: slice) -> dict[str, Array]:
    """Tokens and steps of answers to these forms, [B, N, L], in the rows' own form."""
    places = forms.places[None, numbers]
    tokens = jnp.take_along_axis(forms.names[None, numbers], found.tokens, axis=2)
    fields = {"tokens": tokens, "reveal_step": found.reveal_step}
    return {name: jnp.take_along_axis(field, places, axis=2) for name, field in fields.items()}


def _check_permutations(name: str, array: ArrayLike) -> int:
    """The number of permutations [S, n] in the array; InputError if it holds something else."""
    try:
        values = np.asarray(array)
    except ValueError:  # rows of different lengths
        values = np.asarray(None)
    is_whole = values.ndim == 2 and values.size > 0 and np.issubdtype(values.dtype, np.integer)
    if not is_whole or (np.sort(values, axis=1) != np.arange(values.shape[1])).any():
        raise InputError(f"{name} must be permutations of 0 to n - 1, [forms, n]; got {shown(array)}")
    return len(values)


def _check_renamed(who: str, ids: Array, forms: _Forms) -> None:
    """InputError for an id without a new name, if the ids are known: jit would take another in its place."""
    values, num = known_values(ids), forms.tokens.shape[1]
    if values is not None and values.max() >= num:
        raise InputError(f"{who} the id {values.max()}, and tokens are permutations of the ids 0 to {num - 1} alone")
