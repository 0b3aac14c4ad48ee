"""Figure 4: the degrees at which belief propagation finds a planted assignment, and at which it keeps one.

Claim (Kim et al. 2025, section 3 and appendix B; NAE of k = 3 latents with m = 3 values, N = 10,000): belief
propagation that starts at the planted assignment stays there from about 50 neighbours on. From a random start it finds
nothing below 64 neighbours, the Kesten-Stigum threshold. No efficient algorithm is believed to fill in the masks
between the two. `small` takes about three minutes on two CPU cores.

    python -m experiments.hardness reproduce --scale smoke
    python -m experiments.hardness reproduce
    python -m experiments.hardness reproduce --scale paper
"""

import dataclasses
import pathlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

from experiments.common import Results, Row, run, say_written
from mdm_jax.ranges import Seed

if TYPE_CHECKING:
    import numpy as np

    from mdm_jax.theory.predicates import Predicate

PAPER = {"kesten_stigum": 64.0, "condensation": 50.0}
"""Neighbours at the two lines of Figure 4. The second is read off the figure."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Reproduce:
    """Measure the overlap of belief propagation with the planted assignment by neighbours, from two starts."""

    scale: Literal["smoke", "small", "paper"] = "small"
    """smoke: two values, 300 latents; small: the paper's problem, one instance per point; paper: three instances per
    point, more points"""
    seed: Seed = 0
    """of the instances and all draws"""
    out: pathlib.Path = pathlib.Path("runs/hardness")
    """folder of the picture and results.json"""


@dataclasses.dataclass(frozen=True)
class Scale:
    """The size of the problem, and the points of the figure."""

    num_values: int
    num_latents: int
    neighbours: tuple[float, ...]
    instances: int
    max_sweeps: int


SCALES = {
    "smoke": Scale(2, 300, (4.0, 20.0), 2, 100),
    "small": Scale(3, 10_000, (44, 48, 50, 52, 56, 60, 62, 66, 68, 72), 1, 2000),
    "paper": Scale(3, 10_000, tuple(range(44, 74, 2)), 3, 2000),
}
DAMPING = {"planted": 0.5, "random": 0.88}


def reproduce(flags: Reproduce) -> None:
    """`reproduce`: measures thresholds, overlaps and the time of a sweep, and draws the picture."""
    import jax
    import jax.numpy as jnp
    import numpy as np

    from mdm_jax.progress import Bar
    from mdm_jax.theory import belief_propagation as bp
    from mdm_jax.theory import predicates, thresholds
    from mdm_jax.theory.planted import planted_csp

    results = Results("hardness", "reproduce", out=flags.out, seed=flags.seed, scale=flags.scale)
    scale = SCALES[flags.scale]
    predicate, num = predicates.nae(3, scale.num_values), scale.num_latents
    key_condensation, key_starts = jax.random.split(jax.random.key(flags.seed))
    lines = {
        "kesten_stigum": thresholds.kesten_stigum(predicate),
        "condensation": thresholds.condensation(predicate, key_condensation, progress="condensation"),
    }
    for name, degree in lines.items():
        paper = PAPER[name] if scale.num_values == 3 else None
        results.add(predicate=predicate.name, threshold=name, degree=degree, neighbours=2 * degree, paper=paper)
    for number, neighbours in enumerate(Bar(scale.neighbours, desc="neighbours", leave=False)):
        rng = np.random.default_rng([flags.seed, number])
        instances = [planted_csp(rng, predicate, num, neighbours / 2) for _ in range(scale.instances)]
        graph = bp.stack([bp.factor_graph(instance.clauses, num) for instance in instances])
        starts = {
            "planted": bp.planted_messages(predicate, graph, jnp.stack([jnp.asarray(i.assignment) for i in instances])),
            "random": bp.random_messages(jax.random.fold_in(key_starts, number), predicate, graph),
        }
        for name, start in starts.items():
            options: dict[str, Any] = {"damping": DAMPING[name], "max_sweeps": scale.max_sweeps}
            beliefs = bp.propagate(predicate, graph, start, **options)
            values = np.asarray(beliefs.marginals.argmax(axis=-1))
            scores = [bp.overlap(v, i.assignment, scale.num_values) for v, i in zip(values, instances, strict=True)]
            results.add(
                predicate=predicate.name,
                start=name,
                neighbours=neighbours,
                degree=neighbours / 2,
                num_latents=num,
                n=len(scores),
                overlap=float(np.mean(scores)),
                overlap_range=[min(scores), max(scores)],
                sweeps=int(beliefs.sweeps.max()),
                converged=bool((beliefs.change < 1e-4).all()),
            )
    results.add(predicate=predicate.name, num_latents=num, **sweep_times(predicate, num, scale.neighbours[-1] / 2))
    results.finish()
    plot(flags.out / "hardness.png", results.rows)
    say_written(flags.out / "hardness.png")


def plot(path: pathlib.Path, rows: Sequence[Row]) -> None:
    """Draws the overlap from both starts against the neighbours, with the thresholds."""
    from experiments.commands.curves import grouped
    from mdm_jax.report import plots

    lines = {}
    for row in rows:
        if "threshold" in row:
            paper = f" (paper {row['paper']:g})" if "paper" in row else ""
            name = row["threshold"].replace("_", "-").title()
            lines[f"{name}\n{row['neighbours']:.3g}{paper}"] = row["neighbours"]
    measured = [row | {"from": f"from a {row['start']} start"} for row in rows if "start" in row]
    plots.curves(
        path,
        grouped(measured, "neighbours", "overlap", by="from"),
        x_label="neighbours of a latent, (k - 1) d = 6 P / N",
        y_label="overlap with the planted values (%)",
        title=f"Belief propagation, {measured[0]['predicate']}, N = {measured[0]['num_latents']:,}",
        lines=lines,
    )


def sweep_times(
    predicate: "Predicate", num_latents: int, degree: float, *, turns: int = 11, sweeps: int = 40
) -> dict[str, Any]:
    """Times a sweep in alternating turns with NumPy's on the same instance; gives medians."""
    import time

    import jax
    import numpy as np

    from mdm_jax.theory import belief_propagation as bp
    from mdm_jax.theory.planted import planted_csp

    clauses = planted_csp(np.random.default_rng(0), predicate, num_latents, degree).clauses
    graph = bp.factor_graph(clauses, num_latents)
    messages = bp.random_messages(jax.random.key(0), predicate, graph)
    plain, indices = np.asarray(messages), np.ascontiguousarray(clauses.T)

    def ours() -> None:
        jax.block_until_ready(bp.propagate(predicate, graph, messages, damping=0.88, max_sweeps=sweeps, tolerance=0.0))

    def theirs() -> None:
        state = plain
        for _ in range(sweeps):
            state = state + np.float32(0.12) * (numpy_sweep(predicate, indices, state, num_latents) - state)

    ours()  # compiles
    times: dict[str, list[float]] = {"sweep_ms": [], "numpy_ms": []}
    for _ in range(turns):
        for name, work in (("sweep_ms", ours), ("numpy_ms", theirs)):
            begin = time.perf_counter()
            work()
            times[name].append(1000 * (time.perf_counter() - begin) / sweeps)
    medians = {name: float(np.median(values)) for name, values in times.items()}
    return {**medians, "times_as_fast": medians["numpy_ms"] / medians["sweep_ms"], "clauses": len(clauses)}


def numpy_sweep(
    predicate: "Predicate", clauses: "np.ndarray", messages: "np.ndarray", num_variables: int
) -> "np.ndarray":
    """One parallel update in NumPy, for comparison. All clauses are satisfied.

    Args:
      predicate: the predicate of every clause.
      clauses: int [k, P].
      messages: float32 [m, k, P].
      num_variables: N.
    """
    import numpy as np

    from mdm_jax.theory.belief_propagation import FLOOR

    m, k, num = messages.shape
    letters, table = "abcdefgh"[:k], predicate.table.astype(np.float32)
    to_variables = np.empty((k, m, num), np.float32)
    for i in range(k):
        others = [j for j in range(k) if j != i]
        terms = ",".join(f"{letters[j]}z" for j in others)
        factors = [messages[:, j] for j in others]
        to_variables[i] = np.einsum(f"{letters},{terms}->{letters[i]}z", table, *factors, optimize=True)
    logs = np.log(np.maximum(to_variables, FLOOR))
    flat = clauses.reshape(-1)
    sums = [np.bincount(flat, weights=logs[:, c].reshape(-1), minlength=num_variables) for c in range(m)]
    fields, new = np.stack(sums).astype(np.float32), np.empty_like(messages)
    for i in range(k):
        cavity = fields[:, clauses[i]] - logs[i]
        cavity = np.exp(cavity - cavity.max(axis=0))
        new[:, i] = cavity / cavity.sum(axis=0)
    return new


COMMANDS = {"reproduce": (Reproduce, "experiments.hardness:reproduce")}

if __name__ == "__main__":
    run("hardness")
