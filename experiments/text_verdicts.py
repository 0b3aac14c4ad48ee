"""What the rows of `genppl` say of each order beside the vanilla one: which axis it wins, by intervals."""

import math
from collections.abc import Sequence

from experiments.common import Row

VANILLA = "vanilla"
QUALITY, DIVERSITY = "nats_per_token", "entropy"
"""The two axes of the figure: less is better of the first, more of the second."""


def verdicts(rows: Sequence[Row]) -> list[str]:
    """A line for each row of another order than the vanilla one, and a last one that names what is better.

    An order is called better only if it wins on both axes: at lower perplexity with lower entropy the samples may but
    repeat themselves. Each is compared with the vanilla row of as many steps, or of the nearest number of calls.
    """
    base = [row for row in rows if row["order"] == VANILLA]
    lines, better = [], []
    for row in rows:
        if not base or row["order"] == VANILLA or "nfe" not in row:
            continue
        other = min(base, key=lambda one: (one["num_steps"] != row.get("num_steps"), _distance(one, row)))
        quality, diversity = -difference(row, other, QUALITY), difference(row, other, DIVERSITY)
        name = f"{row['order']}, {row['nfe']:.4g} calls"
        lines.append(
            f"{name}: perplexity {row['perplexity']:.4g} against {other['perplexity']:.4g} of {VANILLA} in "
            f"{other['nfe']:.4g}, entropy {row['entropy']:.4g} against {other['entropy']:.4g}: "
            f"{_verdict(quality, diversity)}"
        )
        better += [name] if min(quality, diversity) > 0 else []
    if lines:
        lines.append(f"better than {VANILLA}, on both axes: {'; '.join(better) or 'none'}")
    return lines


def difference(row: Row, other: Row, field: str) -> int:
    """The sign of the difference of two independent means; 0 if its 95% interval holds 0."""
    halves = [(one[f"{field}_ci"][1] - one[f"{field}_ci"][0]) / 2 for one in (row, other)]
    between = row[field] - other[field]
    return 0 if abs(between) <= math.hypot(*halves) else int(math.copysign(1, between))


def _distance(one: Row, row: Row) -> float:
    return abs(math.log(one["nfe"] / row["nfe"]))


def _verdict(quality: int, diversity: int) -> str:
    """What two signs say, each 1 for a win and -1 for a loss."""
    if quality == diversity:
        return {1: "better, on both axes", 0: "no difference is shown", -1: "worse, on both axes"}[quality]
    won = {"perplexity": quality, "entropy": diversity}
    words = {1: "wins in", 0: "no difference is shown in", -1: "loses in"}
    parts = [f"{words[sign]} {axis}" for axis, sign in sorted(won.items(), key=lambda item: -item[1])]
    return f"{' and '.join(parts)}: not better" if max(quality, diversity) > 0 else f"{' and '.join(parts)}: worse"
