"""Statistics of the order in which positions were revealed. NumPy in, NumPy out.

An order is a step for each position, such as `SampleResult.reveal_step`: int [..., L], negative where a position has no
place in it (a given one). Positions of one step are not ordered among themselves: no statistic compares them. A
statistic is NaN where an order has too few positions for it.
"""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mdm_jax.errors import InputError

Values = NDArray[np.float64]


def left_to_rightness(steps: ArrayLike) -> Values:
    """The share of positions that were among the leftmost masked ones when they were revealed.

    A position of a step that reveals K counts if it is one of the K leftmost that the step finds masked. 1 is the order
    of an autoregressive model. For one position a step, this is the global AR-ness at 1 of Gong et al. 2025
    (arXiv:2506.20639).

    Args:
      steps: int [..., L].

    Returns:
      float64 [...], from 0 to 1.
    """
    return _each(_left_to_rightness, _orders(steps))


def kendall_tau(steps: ArrayLike, other: ArrayLike) -> Values:
    """Kendall's τ of two orders: (concordant - discordant) / (concordant + discordant) pairs of positions.

    Only pairs count that both orders do order. Without ties this is Kendall's τ; with them, Goodman and Kruskal's γ. 1
    is the same order, 0 what a random one has on average, -1 the reverse.

    Args:
      steps: int [..., L].
      other: int [..., L] or [L]; negative where a position has no place in it.

    Returns:
      float64 [...], from -1 to 1.
    """
    first, second = _orders(steps), _orders(other)
    if second.shape not in (first.shape, first.shape[-1:]):
        raise InputError(
            f"two orders must have one shape, or the second be one order [L]; got {first.shape} and {second.shape}"
        )
    return _each(_kendall_tau, first, np.broadcast_to(second, first.shape))


def relative_jump(steps: ArrayLike, coordinates: ArrayLike | None = None) -> Values:
    """How far it is from one step's positions to the next step's, in units of what a random order has.

    The distance of two positions is the sum of |differences| of their coordinates; that of two steps the mean over
    pairs. The mean over consecutive steps is divided by the mean over all pairs of revealed positions. So 1 is a random
    order on average, and orders that move to neighbours are near 0.

    Args:
      steps: int [..., L].
      coordinates: [L] or [L, D], where the positions lie, such as row and column; None for 0..L-1.

    Returns:
      float64 [...], at least 0.
    """
    orders = _orders(steps)
    length = orders.shape[-1]
    places = np.asarray(np.arange(length) if coordinates is None else coordinates, np.float64)
    if places.ndim not in (1, 2) or places.shape[0] != length:
        raise InputError(f"coordinates must be of shape ({length},) or ({length}, D), got {places.shape}")
    places = places.reshape(length, -1)
    distances = np.abs(places[:, None] - places[None]).sum(axis=-1)
    return _each(lambda order: _relative_jump(order, distances), orders)


def relative_dependence(steps: ArrayLike, related: ArrayLike) -> Values:
    """How often one step reveals two related positions, in units of what a random order has.

    The share of related pairs among the pairs of positions of one step, divided by that among all pairs of revealed
    positions. The tokens of one step are drawn independently of each other, so related ones may contradict each other.
    1 is a random order on average, and 0 an order whose steps hold no related positions. NaN if every step reveals one
    position, or no revealed positions are related.

    Args:
      steps: int [..., L].
      related: bool [L, L], whether two positions depend on each other directly, such as two cells of one row of a
        Sudoku; symmetric.

    Returns:
      float64 [...], at least 0.
    """
    orders = _orders(steps)
    pairs = _related(related, orders.shape[-1])
    return _each(lambda order: _relative_dependence(order, pairs), orders)


def dependent_pairs(steps: ArrayLike, related: ArrayLike) -> Values:
    """How many pairs of related positions are revealed in one step: 0 where each step reveals one position.

    Args:
      steps: int [..., L].
      related: as for `relative_dependence`.

    Returns:
      float64 [...], pairs of an order.
    """
    orders = _orders(steps)
    pairs = _related(related, orders.shape[-1])
    return _each(lambda order: float((pairs & _together(order)).sum()), orders)


def mean_at_reveal(values: ArrayLike, steps: ArrayLike) -> Values:
    """The mean over revealed positions of what was read at each when it was revealed, such as its entropy.

    Args:
      values: float [..., L], as from `replay.at_reveal`.
      steps: int [..., L].

    Returns:
      float64 [...], in the unit of the values.
    """
    is_revealed, read = _orders(steps) >= 0, np.asarray(values, np.float64)
    if read.shape != is_revealed.shape:
        raise InputError(f"values must be of the order's shape {is_revealed.shape}, got {read.shape}")
    total = np.where(is_revealed, read, 0).sum(axis=-1)
    with np.errstate(invalid="ignore"):
        return np.asarray(total / is_revealed.sum(axis=-1))


def describe(
    steps: ArrayLike,
    *,
    others: Mapping[str, ArrayLike] | None = None,
    coordinates: ArrayLike | None = None,
    related: ArrayLike | None = None,
) -> dict[str, float]:
    """The statistics of one order, without those that it is too short for.

    Args:
      steps: int [L].
      others: orders to compare with, [L], by name; the reading order 0..L-1 is always among them.
      coordinates: as for `relative_jump`.
      related: as for `relative_dependence`; None leaves it out.

    Returns:
      `left_to_rightness`, `tau_NAME` for each order to compare with, `relative_jump`, `relative_dependence`,
      `dependent_pairs`.
    """
    order = _orders(steps)
    found = {"left_to_rightness": left_to_rightness(order)}
    for name, other in {"reading": np.arange(len(order)), **(others or {})}.items():
        found[f"tau_{name}"] = kendall_tau(order, other)
    found["relative_jump"] = relative_jump(order, coordinates)
    if related is not None:
        found["relative_dependence"] = relative_dependence(order, related)
        found["dependent_pairs"] = dependent_pairs(order, related)
    return {name: float(value) for name, value in found.items() if not np.isnan(value)}


def mean_of(described: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """The fields of a table's row: the mean of each statistic over the orders that have it."""
    names = dict.fromkeys(name for one in described for name in one)
    return {name: float(np.mean([one[name] for one in described if name in one])) for name in names}


def _orders(steps: ArrayLike) -> NDArray[np.integer]:
    orders = np.asarray(steps)
    if orders.ndim < 1 or not np.issubdtype(orders.dtype, np.integer):
        raise InputError(f"an order must be int [..., L], got {orders.dtype} {orders.shape}")
    return orders


def _each(statistic: Callable[..., float], *orders: NDArray[np.integer]) -> Values:
    """The statistic of each row."""
    shape = orders[0].shape
    rows = zip(*(order.reshape(-1, shape[-1]) for order in orders), strict=True)
    return np.array([statistic(*row) for row in rows], np.float64).reshape(shape[:-1])


def _left_to_rightness(steps: NDArray[np.integer]) -> float:
    steps = steps[steps >= 0]
    if not len(steps):
        return np.nan
    is_masked = steps[None] >= steps[:, None]  # [i, j]: j, when i is revealed
    place = np.tril(is_masked, -1).sum(axis=1)
    num_now = (steps[None] == steps[:, None]).sum(axis=1)
    return float((place < num_now).mean())


def _kendall_tau(steps: NDArray[np.integer], other: NDArray[np.integer]) -> float:
    has_place = (steps >= 0) & (other >= 0)
    signs = [np.sign(np.subtract.outer(order, order)) for order in (steps[has_place], other[has_place])]
    agreement = signs[0].astype(np.int64) * signs[1]
    counted = np.abs(agreement).sum()
    return float(agreement.sum() / counted) if counted else np.nan


def _relative_jump(steps: NDArray[np.integer], distances: Values) -> float:
    by_step = np.argsort(steps, kind="stable")[(steps < 0).sum() :]
    _, starts, counts = np.unique(steps[by_step], return_index=True, return_counts=True)
    if len(starts) < 2:
        return np.nan
    sums = distances[np.ix_(by_step, by_step)]
    for axis in (0, 1):  # over pairs of positions of two steps
        sums = np.add.reduceat(sums, starts, axis=axis)
    everyone = sums.sum() / (len(by_step) * (len(by_step) - 1))
    jump = float((np.diagonal(sums, 1) / (counts[:-1] * counts[1:])).mean())
    return jump / everyone if everyone else np.nan


def _related(related: ArrayLike, length: int) -> NDArray[np.bool_]:
    pairs = np.asarray(related, bool)
    if pairs.shape != (length, length):
        raise InputError(f"related must be bool ({length}, {length}), got {pairs.shape}")
    if (pairs != pairs.T).any():
        raise InputError("related must be symmetric: two positions depend on each other or do not")
    return pairs


def _together(steps: NDArray[np.integer]) -> NDArray[np.bool_]:
    """[i, j], i < j: whether one step reveals both."""
    return np.triu((steps >= 0)[:, None] & (steps[:, None] == steps), 1)


def _relative_dependence(steps: NDArray[np.integer], related: NDArray[np.bool_]) -> float:
    is_revealed, together = steps >= 0, _together(steps)
    is_pair = np.triu(is_revealed[:, None] & is_revealed, 1)
    if not (together.any() and related[is_pair].any()):
        return np.nan
    return float(related[together].mean() / related[is_pair].mean())
