"""The paper's Tables 2 and 5 and what belongs to them, at three scales. Started again, it goes on where it was."""

import pathlib
import sys
from typing import Any

import jax
import numpy as np

import mdm_jax
from experiments.common import Results, table
from experiments.journal import Journal
from experiments.sudoku.data import dataset_name, first, test_set
from experiments.sudoku.decode import ORACLES, autoregressive, masked, measure, order_fields
from experiments.sudoku.evaluate import load_model
from experiments.sudoku.flags import Reproduce, Train
from experiments.sudoku.scales import ARM, LAYOUTS, PAPER, SCALES, Scale
from experiments.sudoku.train import model_config, plot_sudoku_training, sudoku_training, train_model
from mdm_jax.data import sudoku, sudoku_layouts
from mdm_jax.data.builders import digest
from mdm_jax.data.sudoku_layouts import Masked
from mdm_jax.data.sudoku_rules import Rule
from mdm_jax.data.sudoku_sets import DIFFICULTIES, Records
from mdm_jax.errors import InputError
from mdm_jax.evaluation.intervals import wilson
from mdm_jax.evaluation.puzzles import Decode, Filled
from mdm_jax.loading import Model
from mdm_jax.models.transformer import make_denoiser
from mdm_jax.report import plots


def reproduce(flags: Reproduce) -> None:
    """`reproduce`: trains what is not trained, measures what is not measured, and prints and draws all of it."""
    results = Results("sudoku", "reproduce", out=flags.out, seed=flags.seed, scale=flags.scale)
    scale, methods = SCALES[flags.scale], flags.methods.split(",")
    unknown = [method for method in methods if method not in LAYOUTS]
    if unknown:
        raise InputError(f"unknown method {unknown[0]!r}; choose from {', '.join(LAYOUTS)}")
    given = None if flags.checkpoint is None else load_model(flags.checkpoint, scale.size)
    weights = [] if given is None else jax.tree.leaves(given[0].params)
    head = {"scale": flags.scale, "seed": flags.seed, "limit": flags.limit, "checkpoint": str(flags.checkpoint)}
    head |= {"weights": digest(*(np.asarray(leaf).tobytes() for leaf in weights))} if given else {}
    journal = Journal(flags.out, head, flags.minutes)
    sets = {
        difficulty: test_set(
            {"size": scale.size, "clues": None, "source": None, "seed": flags.seed, "num_test": scale.num_test},
            difficulty,
        )
        for difficulty in DIFFICULTIES
    }
    for method in methods:
        run = Run(flags, scale, method, journal, given if method == "mdm" else None)
        for difficulty, records in sets.items():
            for row in run.table(difficulty, first(flags.limit, records)):
                results.add(**row)
        for row in sudoku_training(flags.out / method):
            results.add(**row)
    results.finish(seconds=journal.seconds)
    for number, difficulty in (("2", "normal"), ("5", "hard")):
        lines = beside_the_paper(results.rows, dataset_name(scale.size, difficulty))
        sys.stdout.write(f"\nTable {number}, {difficulty} puzzles\n{table(lines)}\n")
    draw(flags.out, results.rows)


def beside_the_paper(rows: list[dict[str, Any]], dataset: str) -> list[dict[str, Any]]:
    """Table 2 or 5: a line for each method and order."""
    names = {"method": "method", "oracle": "order", "paper": "paper", "solved": "ours", "solved_ci": "95% interval"}
    names |= {"nfe": "NFE", "per_second": "puzzles/s"}
    wanted = [row for row in measured(rows) if row["dataset"] == dataset]
    wanted = [row for row in wanted if row.get("tokens_per_step", 1) == 1]
    return [{to: row.get(name) for name, to in names.items()} for row in wanted]


def measured(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows about a whole set of puzzles at the end of training."""
    return [row for row in rows if "hardest_rule" not in row and "examples" not in row]


class Run:
    """One method: its model, trained when it is first needed."""

    def __init__(
        self,
        flags: Reproduce,
        scale: Scale,
        method: str,
        journal: Journal,
        given: tuple[Model, dict[str, Any]] | None = None,
    ) -> None:
        self._flags, self._scale, self._method, self._journal = flags, scale, method, journal
        self._layout = sudoku_layouts.get(LAYOUTS[method])
        self._trained: Model | None = None
        if given is not None:
            self._trained, task = given
            self._layout = sudoku_layouts.get(task["layout"])
            if not isinstance(self._layout, Masked):
                raise InputError(f"{flags.checkpoint} is autoregressive: give a masked model")

    def model(self) -> Model:
        """The trained model."""
        if self._trained is None:
            self._trained = self._train()
        return self._trained

    def _train(self) -> Model:
        scale, method = self._scale, self._method
        steps = scale.steps[method]
        flags = Train(
            size=scale.size,
            difficulty="normal",
            num_train=scale.num_train,
            num_test=scale.num_test,
            data=self._flags.data,
            seed=self._flags.seed,
            model=scale.model[method],
            layout=LAYOUTS[method],  # type: ignore[arg-type]
            augment=method == "mdm",  # a symmetry changes the order in which the rules fill in the blanks
            dtype="bfloat16" if jax.default_backend() in ("gpu", "tpu") else "float32",
            steps=steps,
            batch_size=scale.batch_size[method],
            optimizer=scale.optimizer[method],
            learning_rate=scale.learning_rate[method],
            loss=scale.loss[method],
            warmup_steps=min(1000, steps // 10),
            checkpoint_every=max(steps // 24, 1),
            evaluate_every=max(steps // 12, 1),
            evaluate_limit=min(128, scale.num_test),
            out=self._flags.out / method,
            **({} if method == "mdm" else ARM),
        )
        config = model_config(flags)
        state, _ = train_model(flags, config, {name: ORACLES[name] for name in ("random", "margin")})
        return Model(config, state.best_params, make_denoiser(config))

    def _decode(self, oracle: str | None, k: int = 1) -> Decode:
        model = self.model()
        if oracle is None or not isinstance(self._layout, Masked):
            return autoregressive(model.config, model.params)
        return masked(model.denoiser, model.params, self._layout, ORACLES[oracle], mdm_jax.PerStep(k))

    def rows(self, difficulty: str, records: Records, oracle: str | None, k: int = 1) -> list[dict[str, Any]]:
        """One row for an order and a number of cells per step; with one, also a row for each hardest rule."""
        dataset = dataset_name(self._scale.size, difficulty)
        name = f"{self._method} {dataset} {oracle or 'greedy'} {k}"
        fields = {"method": self._method, "dataset": dataset}
        fields |= order_fields(oracle, mdm_jax.PerStep(k)) if oracle else {}

        def work() -> list[dict[str, Any]]:
            options = {"seed": self._flags.seed, "progress": name}
            row, filled = measure(self._layout, self._decode(oracle, k), records, **options)
            paper = PAPER.get((self._method, dataset, oracle)) if k == 1 else None
            rows = [fields | row | {"paper": paper}]
            if oracle and k == 1 and difficulty == "normal":
                rows += [fields | row for row in by_hardest_rule(records, filled)]
            return rows

        return self._journal.rows(name, work)

    def table(self, difficulty: str, records: Records) -> list[dict[str, Any]]:
        """The rows of all orders; of a masked model on the normal set also those of several cells per step."""
        if not isinstance(self._layout, Masked):
            return self.rows(difficulty, records, None)
        rows = [row for oracle in ORACLES for row in self.rows(difficulty, records, oracle)]
        if difficulty == "normal":
            few = first(self._scale.num_curve, records)
            for k in self._scale.tokens_per_step[1:]:
                rows += [row for oracle in ORACLES for row in self.rows(difficulty, few, oracle, k)]
        return rows


def by_hardest_rule(records: Records, filled: Filled) -> list[dict[str, Any]]:
    """How many are solved of the puzzles for which a person needs a rule, but none that is harder."""
    is_solved, hardest = sudoku.is_solved(filled.tokens, records["puzzle"]), records["rule"].max(axis=1)
    rows = []
    for rule in sorted(set(hardest.tolist())):
        n, solved = int((hardest == rule).sum()), int(is_solved[hardest == rule].sum())
        name, interval = Rule(rule).name.lower(), list(wilson(solved, n))
        rows.append({"hardest_rule": name, "n": n, "solved": solved / n, "solved_ci": interval})
    return rows


def draw(folder: pathlib.Path, rows: list[dict[str, Any]]) -> None:
    """The pictures: against tokens per step, against training examples, by hardest rule."""
    pictures = []
    series: dict[str, tuple[list[float], list[float]]] = {name: ([], []) for name in ORACLES}
    by_order = [row for row in measured(rows) if row["method"] == "mdm"]
    for row in sorted(by_order, key=lambda row: row["tokens_per_step"]):
        if row["dataset"].endswith("normal"):
            series[row["oracle"]][0].append(row["tokens_per_step"])
            series[row["oracle"]][1].append(row["solved"])
    if any(x for x, _ in series.values()):
        pictures.append(folder / "tokens-per-step.png")
        plots.curves(
            pictures[-1],
            series,
            x_label="cells revealed per step",
            y_label="puzzles of the normal set solved (%)",
            title="One model, four orders",
            log_x=True,
        )
    by_rule: dict[str, tuple[list[str], list[float]]] = {}
    for row in rows:
        if "hardest_rule" in row:
            names, shares = by_rule.setdefault(row["oracle"], ([], []))
            names.append(row["hardest_rule"].replace("_", " "))
            shares.append(row["solved"])
    if by_rule:
        pictures.append(folder / "hardest-rule.png")
        plots.bars(pictures[-1], by_rule, y_label="solved (%)", title="By the hardest rule that a person would need")
    if sudoku_training(folder / "mdm"):
        pictures.append(folder / "examples.png")
        plot_sudoku_training(pictures[-1], folder / "mdm")
    sys.stdout.write("".join(f"{picture}\n" for picture in pictures))
