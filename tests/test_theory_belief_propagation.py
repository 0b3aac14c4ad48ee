"""Belief propagation: exact on trees, and at its thresholds."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.hardness import numpy_sweep
from mdm_jax.errors import InputError
from mdm_jax.theory import belief_propagation as bp
from mdm_jax.theory import predicates
from mdm_jax.theory.planted import planted_csp
from mdm_jax.theory.predicates import Predicate

ANY = Predicate("any", 3, 2, tuple(np.random.default_rng(0).random(8).tolist()))
TREE = np.array([[0, 1, 2], [2, 4, 3], [5, 2, 6], [7, 8, 0], [9, 10, 3]])


def exact_marginals(predicate, clauses, answers, num_variables, known=None):
    """By the weight of every assignment."""
    found = np.zeros((num_variables, predicate.num_values))
    for values in itertools.product(range(predicate.num_values), repeat=num_variables):
        weight = 1.0 if known is None else float(((known < 0) | (known == values)).all())
        for clause, answer in zip(clauses, answers, strict=True):
            p = predicate.table[tuple(values[i] for i in clause)]
            weight *= {1: p, 0: 1 - p, -1: 1.0}[answer]
        found[range(num_variables), values] += weight
    return found / found.sum(axis=1, keepdims=True)


@pytest.mark.thinned(3)
@pytest.mark.parametrize(
    ("predicate", "answers"),
    [
        (predicates.nae(3, 2), [1, 1, 1, 1, 1]),
        (predicates.nae(3, 2), [0, 1, -1, 0, 1]),
        (predicates.noisy_parity(3, 0.1), [1, 0, 0, 1, 1]),
        (ANY, [1, 0, 1, 0, 0]),
        (ANY, [1, -1, 1, 0, -1]),
    ],
)
@pytest.mark.parametrize("damping", [0.0, 0.4])
def test_marginals_on_a_tree_are_exact_from_any_start(predicate, answers, damping):
    graph = bp.factor_graph(TREE, 12, answers=np.array(answers))
    start = bp.random_messages(jax.random.key(1), predicate, graph)
    found = bp.propagate(predicate, graph, start, damping=damping, max_sweeps=200, tolerance=1e-7)
    np.testing.assert_allclose(found.marginals, exact_marginals(predicate, TREE, answers, 12), atol=2e-6)
    assert found.sweeps < 200


def test_marginals_on_a_tree_of_edges_with_three_colours_are_exact():
    edges, answers = np.array([[0, 1], [2, 1], [2, 3], [4, 2]]), np.array([0, 1, 0, 1])
    graph = bp.factor_graph(edges, 5, answers=answers)
    start = bp.random_messages(jax.random.key(2), predicates.coloring(3), graph)
    found = bp.propagate(predicates.coloring(3), graph, start, tolerance=1e-7)
    np.testing.assert_allclose(found.marginals, exact_marginals(predicates.coloring(3), edges, answers, 5), atol=2e-6)


def test_marginals_given_the_values_of_some_variables_are_exact_on_a_tree():
    known = np.full(12, -1)
    known[[0, 6]] = 1, 0
    graph = bp.factor_graph(TREE, 12, answers=np.array([1, 0, 1, 1, 0]), known=known)
    found = bp.propagate(ANY, graph, bp.random_messages(jax.random.key(1), ANY, graph), tolerance=1e-7)
    wanted = exact_marginals(ANY, TREE, [1, 0, 1, 1, 0], 12, known=known)
    np.testing.assert_allclose(found.marginals, wanted, atol=2e-6)


@pytest.mark.thinned(2)
@pytest.mark.parametrize("predicate", [predicates.nae(3, 3), predicates.coloring(4), ANY])
def test_sweep_equals_the_plain_numpy_one(predicate):
    drawn = predicates.random_tuples(np.random.default_rng(3), 300, 40, predicate.k)
    graph = bp.factor_graph(drawn, 40)
    messages = bp.random_messages(jax.random.key(3), predicate, graph)
    new, _ = bp.sweep(predicate, graph, messages)
    np.testing.assert_allclose(new, numpy_sweep(predicate, drawn.T, np.asarray(messages), 40), atol=1e-5)


@pytest.mark.slow
def test_instances_of_a_batch_end_each_for_itself_as_if_alone():
    predicate, rng = predicates.nae(3, 2), np.random.default_rng(4)
    instances = [planted_csp(rng, predicate, 200, degree) for degree in (3.0, 9.0, 6.0)]
    graphs = [bp.factor_graph(instance.clauses, 200) for instance in instances]
    assert len({graph.clauses.shape for graph in graphs}) == 3
    batch = bp.stack(graphs)
    assignments = jnp.stack([jnp.asarray(instance.assignment) for instance in instances])
    together = bp.propagate(predicate, batch, bp.planted_messages(predicate, batch, assignments))
    assert len(set(together.sweeps.tolist())) > 1
    for i, (graph, instance) in enumerate(zip(graphs, instances, strict=True)):
        start = bp.planted_messages(predicate, graph, jnp.asarray(instance.assignment))
        alone = bp.propagate(predicate, graph, start)
        np.testing.assert_allclose(together.marginals[i], alone.marginals, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize(("degree", "found"), [(2.5, False), (8.0, True)])
def test_random_start_finds_the_planted_assignment_above_the_kesten_stigum_threshold_alone(degree, found):
    predicate = predicates.nae(3, 2)  # threshold 4.5
    instance = planted_csp(np.random.default_rng(5), predicate, 3000, degree)
    graph = bp.factor_graph(instance.clauses, 3000)
    start = bp.random_messages(jax.random.key(5), predicate, graph)
    beliefs = bp.propagate(predicate, graph, start, damping=0.85, max_sweeps=600)
    score = bp.overlap(np.asarray(beliefs.marginals.argmax(-1)), instance.assignment, 2)
    assert score > 0.85 if found else score < 0.6


@pytest.mark.slow
def test_planted_start_stays_where_a_random_one_finds_nothing():
    # Between condensation (26.2) and Kesten-Stigum (32) of nae(3, 3): hard, but not impossible.
    predicate = predicates.nae(3, 3)
    instance = planted_csp(np.random.default_rng(6), predicate, 2000, 27.5)
    graph = bp.factor_graph(instance.clauses, 2000)
    scores = {}
    for name, start in {
        "planted": bp.planted_messages(predicate, graph, jnp.asarray(instance.assignment)),
        "random": bp.random_messages(jax.random.key(6), predicate, graph),
    }.items():
        beliefs = bp.propagate(predicate, graph, start, damping=0.88, max_sweeps=400)
        scores[name] = bp.overlap(np.asarray(beliefs.marginals.argmax(-1)), instance.assignment, 3)
    assert scores["planted"] > 0.9
    assert scores["random"] < 0.5


@pytest.mark.slow
def test_observations_that_came_out_as_zero_give_away_what_the_ones_alone_do_not():
    # Proposition 3.3 looks at the ones, here 28.1 clauses per variable, between the thresholds 26.2 and 32. Revealed
    # tuples hold zeros too, one in nine, and a zero says that three latents are equal.
    predicate, num, rng = predicates.nae(3, 3), 1500, np.random.default_rng(8)
    assignment = rng.integers(3, size=num)
    tuples = predicates.random_tuples(rng, round(28.1 * num / 3 / predicate.satisfied), num, 3)
    values = assignment[tuples]
    answers = (values != values[:, :1]).any(axis=1).astype(np.int32)
    assert 27.5 < 3 * answers.sum() / num < 28.7
    scores = {}
    for name, seen in (("ones", np.where(answers == 1, 1, -1)), ("both", answers)):
        graph = bp.factor_graph(tuples, num, answers=seen)
        start = bp.random_messages(jax.random.key(8), predicate, graph)
        beliefs = bp.propagate(predicate, graph, start, damping=0.88, max_sweeps=400)
        scores[name] = bp.overlap(np.asarray(beliefs.marginals.argmax(-1)), assignment, 3)
    assert scores["ones"] < 0.6
    assert scores["both"] > 0.95


def test_overlap_takes_the_renaming_of_values_that_suits_best():
    rng = np.random.default_rng(7)
    assignment, values = rng.integers(4, size=50), rng.integers(4, size=50)
    best = max((np.array(names)[values] == assignment).mean() for names in itertools.permutations(range(4)))
    assert bp.overlap(values, assignment, 4) == pytest.approx(best)
    assert bp.overlap((assignment + 1) % 4, assignment, 4) == 1


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: bp.factor_graph(np.array([[0, 1, 1]]), 2), "names one variable twice"),
        (lambda: bp.factor_graph(np.array([[0, 1, 4]]), 4), "name variables 0 to 4: give 0 to 3"),
        (lambda: bp.factor_graph(np.arange(3), 4), r"clauses are \[P, k\], got shape \(3,\)"),
        (lambda: bp.factor_graph(TREE, 12, answers=np.array([7, 1, 1, 1, 1])), "answers are 0, 1 or -1"),
        (lambda: bp.factor_graph(TREE, 12, known=np.zeros(3)), "known has a value or -1 for each of 12"),
        (lambda: run(known=[2] + [-1] * 11), "known holds 2, and .* has values up to 1"),
        (lambda: bp.stack([]), "give at least one"),
        (lambda: run(predicate=predicates.nae(3, 3)), r"messages are \(3, 3, 5\) here, got \(2, 3, 5\)"),
        (lambda: run(damping=1.0), "damping=1.0"),
        (lambda: run(max_sweeps=0), "at least one sweep"),
        (lambda: run(predicate=predicates.coloring(2)), r"clauses of 3 variables, and coloring\(2\) takes 2"),
    ],
)
def test_bad_parameters_are_one_line_that_names_them(call, message):
    with pytest.raises(InputError, match=message):
        call()


def run(predicate=ANY, known=None, **options):
    graph = bp.factor_graph(TREE, 12, known=known)
    return bp.propagate(predicate, graph, bp.random_messages(jax.random.key(0), ANY, graph), **options)
