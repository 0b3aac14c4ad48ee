"""The slices of `accelerator`: which commands, for how long, and what they are at toy size."""

import dataclasses
import json
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from experiments.common import Row

Flags = Mapping[str, Any]
"""Flags of a command without dashes in front. True is a flag without a value; None leaves the flag out."""
LEAST, MOST = 100, 60_000
"""Training steps of a slice, whatever a step takes."""


@dataclasses.dataclass(frozen=True)
class Command:
    """A command of the experiments.

    Attributes:
      name: of its folder and its rows.
      words: experiment and verb, such as "throughput run".
      seconds: its limit.
      flags: its flags, or a function that makes them of the slice's rows so far.
      toy: the flags that replace some of them in a rehearsal; None leaves the command out there.
    """

    name: str
    words: str
    seconds: float
    flags: Flags | Callable[[Sequence[Row]], Flags]
    toy: Flags | None

    def argv(self, rows: Sequence[Row], *, is_toy: bool, out: str) -> list[str]:
        """The words behind `python -m experiments.`; {out} in a flag is the slice's folder."""
        flags = dict(self.flags(rows) if callable(self.flags) else self.flags)
        flags |= (self.toy or {}) if is_toy else {}
        begun = pathlib.Path(out, self.name, "config.json")
        if "steps" in flags and begun.exists():  # a training that was cut off goes on to where it was going
            flags["steps"] = json.loads(begun.read_text())["optimizer"]["num_steps"]
        argv = [*self.words.split(), "--out", f"{out}/{self.name}"]
        for name, value in flags.items():
            if value is not None:
                argv += [f"--{name}", *([] if value is True else [str(value).replace("{out}", out)])]
        return argv


@dataclasses.dataclass(frozen=True)
class Slice:
    """Commands that belong together.

    Attributes:
      commands: one after the other. What fails or is cut off does not stop the next.
      takes_source: whether they need a corpus.
    """

    commands: tuple[Command, ...]
    takes_source: bool = False

    @property
    def seconds(self) -> float:
        """What all commands take at most."""
        return sum(command.seconds for command in self.commands)


def steps_in(seconds: float, rows: Sequence[Row]) -> int:
    """As many training steps as fit, by the time of a step that the slice's `loop` measured; the least without one."""
    times = [row["loop_ms"] for row in rows if "loop_ms" in row]
    return LEAST if not times else int(min(max(1000 * seconds / times[-1], LEAST), MOST))


# Batches of 8, so that a rehearsal also runs on 8 devices.
TOY_STEPS = {"steps": 2, "batch-size": 8, "evaluate-limit": 2, "warmup-steps": 1}
TOY_PUZZLES = {"num-train": 16, "num-test": 4}


def throughput(name: str, seconds: float, model: str, toy: Flags | None, **flags: Any) -> Command:
    """Sampling, timed against the bare network."""
    flags = {"model": model, "selector": "top_k:16", "temperature": 0, "turns": 5} | flags
    small = {"model": "sudoku_800k", "layers": 1, "batch": 2, "oracle": "margin", "selector": "top_k:2", "turns": 1}
    toy = None if toy is None else {**small, "length": None, "block-length": None, "compare": None, **toy}
    return Command(name, "throughput run", seconds, flags, toy)


def loop(name: str, seconds: float, toy: Flags | None, **flags: Any) -> Command:
    """The training loop, timed against the bare step."""
    small = {"model": "sudoku_800k", "batch": 8, "length": 16, "steps": 2, "turns": 1}
    return Command(name, "throughput loop", seconds, {"steps": 40, "turns": 3} | flags, None if toy is None else small)


def training(
    experiment: str,
    data: Flags,
    toy_data: Flags,
    *,
    model: str,
    batch: int,
    length: int,
    seconds: float,
    prepare: float,
    timed: str | None = None,
    **flags: Any,
) -> tuple[Command, ...]:
    """Makes the data, times a step, and trains for as many steps as fit; the learning rate falls to their end.

    The step that is timed is of the network `timed`, if the flags make another one of `model`.
    """
    data = {**data, "data": "{out}/data"}

    def chosen(rows: Sequence[Row]) -> Flags:
        steps = steps_in(0.85 * seconds, rows)
        often = {name: max(steps // 4, 1) for name in ("evaluate-every", "checkpoint-every")}
        return {
            **data,
            "model": model,
            "batch-size": batch,
            "optimizer": "muon",
            "learning-rate": 3e-3,
            "final-fraction": 0.02,
            **often,
            **flags,
            "steps": steps,
        }

    toy = {
        **toy_data,
        "model": "sudoku_800k",
        **TOY_STEPS,
        "evaluate-every": 2,
        "checkpoint-every": 2,
        "init-from": None,
    }
    return (
        Command("prepare", f"{experiment} prepare", prepare, data, None),
        loop("loop", 25, None, model=timed or model, batch=batch, length=length, turns=1),
        Command("training", f"{experiment} train", seconds, chosen, toy),
    )


def sudoku(
    difficulty: str | None, ladder: pathlib.Path | None, *, batch: int = 1_024, looped: str | None = None
) -> Slice:
    """The paper's 6M on 9x9: tables 2 and 5, and the weights; or looped weights, trained further with four loops.

    The public lists of puzzles are solved too if their folder is given.
    """
    loops: dict[str, Any] = {}
    if looped is not None:
        loops = {"timed": looped, "init-from": looped, "num-loops": 4, "learning-rate": 2e-3}
    data = {"difficulty": difficulty, "size": 9, "num-train": 400_000, "num-test": 1_000}
    toy = {"difficulty": None, "size": 4, **TOY_PUZZLES}
    orders = {"oracle": "random,top_prob,margin", "difficulty": "normal,hard", "limit": 1_000, "batch-size": 500}
    return Slice(
        (
            *training(
                "sudoku",
                data,
                toy,
                model="sudoku_6m_deep",
                batch=batch,
                length=81,
                seconds=215,
                prepare=60,
                augment=True,
                loss="skewed",
                **loops,
            ),
            Command("export", "sudoku export", 15, {"checkpoint": "{out}/training"}, {}),
            Command(
                "evaluate",
                "sudoku evaluate",
                60,
                {"checkpoint": "{out}/training", **orders},
                {"oracle": "margin", "difficulty": None, "limit": 2},
            ),
            *([] if ladder is None else [ladder_of(ladder)]),
        )
    )


def ladder_of(folder: pathlib.Path) -> Command:
    """The sets of the ladder, by margin."""
    flags = {"checkpoint": "{out}/training", "ladder": folder, "limit": 500, "batch-size": 500}
    return Command("ladder", "sudoku evaluate", 40, flags, None)


def nae_sat(num_latents: int, num_observations: int) -> Slice:
    """A row of Table 1."""
    data = {"num-latents": num_latents, "num-observations": num_observations, "num-train": 500_000}
    toy = {"num-latents": 4, "num-observations": 6, **TOY_PUZZLES}
    train: dict[str, Any] = {"batch": 256, "length": 512, "seconds": 45, "prepare": 15}
    evaluate = {"checkpoint": "{out}/training", "oracle": "random,margin", "limit": 1_000, "batch-size": 500}
    return Slice(
        (
            *training("nae_sat", data, toy, model="smdm_19m", **train),
            Command("evaluate", "nae_sat evaluate", 30, evaluate, {"oracle": "margin", "limit": 2, "batch-size": 2}),
        )
    )


def zebra(layout: str, model: str, seconds: float) -> Slice:
    """A row of Table 3."""
    data = {"num-train": 500_000, "num-test": 1_000}
    toy = {"max-houses": 3, "max-attributes": 3, **TOY_PUZZLES}
    masked = {"oracle": "random,top_prob,margin"} if layout == "in-place" else {}
    evaluate = {"checkpoint": "{out}/training", "limit": 1_000, "batch-size": 500, **masked}
    return Slice(
        (
            *training(
                "zebra", data, toy, model=model, batch=256, length=512, seconds=seconds, prepare=90, layout=layout
            ),
            Command(
                "evaluate",
                "zebra evaluate",
                45,
                evaluate,
                {"limit": 2, "batch-size": 2, **({"oracle": "margin"} if masked else {})},
            ),
        )
    )


def slices(source: str | None = None, ladder: pathlib.Path | None = None) -> dict[str, Slice]:
    """All slices by name, in order of worth, with a corpus and a folder of public Sudokus if there are any."""
    orders = {"oracle": "random,top_prob,margin,neg_entropy"}
    text = {"source": source, "data": "{out}/data"}
    blocks: dict[str, Any] = {"batch": "1,8", "length": 192, "prompt": 64, "block-length": 32, "turns": 3}
    blocks |= {"oracle": "token_prob", "selector": "per_step:2", "compare": "torch"}
    return {
        "right": Slice((Command("parity", "parity check", 90, {"limit": 200}, {"scale": "smoke", "limit": 2}),)),
        "cost": Slice(
            (
                throughput("6m", 60, "sudoku_6m", {}, batch="32,256,1024", **orders),
                throughput("170m", 45, "smdm_170m", None, batch=8, length=1024, **orders),
                throughput("170m-all", 25, "smdm_170m", None, batch=8, length=1024, oracle="margin", compute="all"),
                throughput("170m-logits", 25, "smdm_170m", None, batch=8, length=1024, oracle="margin", logits="all"),
                throughput(
                    "8b",
                    90,
                    "llada_8b",
                    {"block-length": 27},
                    batch="1,8",
                    length=1024,
                    oracle="margin",
                    turns=3,
                    **{"block-length": 32},
                ),
            )
        ),
        "peers": Slice(
            (
                throughput("6m", 60, "sudoku_6m", None, batch=32, oracle="margin", compare="torch"),
                throughput("170m", 90, "smdm_170m", None, batch=8, length=1024, oracle="margin", compare="torch"),
                throughput("8b-blocks", 75, "llada_8b", None, **blocks),  # LLaDA's settings
                throughput("8b-kept", 75, "llada_8b", None, keep="dual", **blocks),  # Fast-dLLM's
            )
        ),
        "train": Slice(
            (
                loop("6m", 25, {}, model="sudoku_6m", batch=1_024, length=81),
                loop("19m", 25, None, model="smdm_19m", batch=256, length=512),
                loop("170m", 30, None, model="smdm_170m", batch=16, length=2_048),
                loop(
                    "losses", 60, None, model="sudoku_6m", batch=1_024, length=81, loss="plain,aligned,filled,quality"
                ),
            )
        ),
        "sudoku": sudoku("normal", ladder),
        "sudoku-looped": sudoku("normal", ladder, batch=512, looped="sudoku-6m-looped"),
        "sudoku-hard": sudoku(None, ladder),
        **{f"nae_sat-{n}-{p}": nae_sat(n, p) for n, p in ((25, 275), (30, 270), (40, 260), (50, 250), (100, 200))},
        "zebra": zebra("in-place", "smdm_19m", 180),
        "arm": zebra("triples", "arm_42m", 240),
        "arm_ordered": zebra("ordered-triples", "arm_42m", 240),
        "load": Slice(
            (
                Command(
                    "8b",
                    "throughput load",
                    240,
                    {"model": "llada_8b"},
                    {"layers": 1, "width": 64, "length": 8, "block-length": 4},
                ),
            )
        ),
        "scaling": Slice(
            (
                Command(
                    "curves",
                    "scaling reproduce",
                    190,
                    {**text, "scale": "paper", "minutes": 3},
                    {"scale": "smoke", "minutes": None, "held-out": 0.5},
                ),
            ),
            takes_source=True,
        ),
        "text": Slice(
            (
                Command(
                    "training",
                    "text train",
                    300,
                    {**text, "model": "smdm_170m", "length": 1_024, "batch-size": 64, "steps": 1_000},
                    {
                        "model": "smdm_6m",
                        "length": 16,
                        "vocab": 300,
                        "held-out": 0.5,
                        "layers": 1,
                        "width": 16,
                        "steps": 2,
                        "batch-size": 8,
                    },
                ),
            ),
            takes_source=True,
        ),
    }
