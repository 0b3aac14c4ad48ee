"""Malformed inputs by the thousand: `python tests/fuzz.py FAMILY FIRST COUNT SEED FOLDER`, a line on stdout a case.

Every case is refused in one line or passes with the right result. A case is a function of its number and the seed.
`tests/test_fuzz.py` runs the families and starts this again behind a case that ends or holds up the process.
"""

import contextlib
import dataclasses
import faulthandler
import importlib
import io
import json
import os
import pathlib
import random
import resource
import shutil
import signal
import sys
import typing
import warnings

import fuzz_library

PATIENCE = 20
"""Seconds for a case; some compile."""
MEMORY = 24 << 30
"""Bytes of address space: what takes all memory fails."""
BYTES = [b"", b"\0", b"null", b"[]", b"{}", b"7", b'"x"', b"[" * 10**5, b"9" * 5000, b"\xff\xfe", b"NaN", b"\n" * 999]
VALUES = [None, True, "", "x", "\x1b[2J", -1, 0, 1.5, 10**12, 10**400, 1e308, [], {}, [[]] * 99, "9" * 5000, -(2**31)]
WORDS = ["x", "", "nan", "inf", "-inf", "1e400", "9" * 60, "-" + "9" * 60, "1.5.", "0x", "⅓", "²", "a" * 10**4]
MAY_BE_INFINITE = ("threshold", "entropy-budget")
"""Flags of which an infinity has a meaning, and any large number too: everything, or one at a time."""


class Violation(Exception):  # noqa: N818 - it is a finding
    """What must not happen."""


class Refused(Exception):  # noqa: N818 - as it should be
    """A command ended with code 2."""


def mutated(rng, data):
    """Bytes that are nearly `data`, or nothing of it."""
    i, j = sorted(rng.randrange(len(data) + 1) for _ in range(2))
    flipped = bytearray(data)
    for _ in range(rng.choice([1, 1, 1, 3])):
        flipped[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    written = [place for place, byte in enumerate(data) if byte]
    data = bytes(data)
    small = bytearray(data)
    small[rng.choice(written)] ^= 1 << rng.randrange(8)
    ways = [data[:i], data[i:], data[:i] + data[j:], data[:i] + rng.randbytes(9) + data[i:], data + data[i:j], data * 2]
    ways += [bytes(flipped), bytes(small), bytes(small), rng.randbytes(len(data)), rng.choice(BYTES)]
    ways += [data[:i] + rng.choice(BYTES) + data[j:]]
    if data[:1] in b"{[":
        ways += [json_mutated(rng, data) for _ in range(6)]
    return rng.choice(ways)


def json_mutated(rng, data):
    """JSON (or the first line of it) with another value somewhere."""
    head, _, rest = data.partition(b"\n") if data.count(b"\n{") else (data, b"", b"")
    try:
        inner = value = json.loads(head)
    except ValueError:  # it was damaged before
        return data + b"{"
    while inner:
        key = rng.choice(list(inner) if isinstance(inner, dict) else range(len(inner)))
        if isinstance(inner[key], dict | list) and inner[key] and rng.random() < 0.8:
            inner = inner[key]
            continue
        inner[key] = rng.choice(VALUES)
        return json.dumps(value).encode() + (b"\n" + rest if rest else b"")
    return b"[]"


def damage(rng, path):
    """Changes a file, or puts something else in its place; what was done."""
    way = rng.choices(["bytes", "gone", "folder", "pipe", "device", "dangling"], [30, 1, 1, 1, 1, 1])[0]
    data = path.read_bytes()
    if way == "bytes":
        path.write_bytes(mutated(rng, data or b"\0"))
        return way
    path.unlink()
    if way != "gone":
        {
            "folder": path.mkdir,
            "pipe": lambda: os.mkfifo(path),
            "device": lambda: path.symlink_to("/dev/zero"),
            "dangling": lambda: path.symlink_to(path.with_name("nothing")),
        }[way]()
    return way


def same(one, other):
    """Whether two trees of arrays are equal."""
    import jax
    import numpy as np

    equal = jax.tree.map(lambda a, b: np.array_equal(np.asarray(a), np.asarray(b)), one, other)
    return all(jax.tree.leaves(equal))


@contextlib.contextmanager
def copy_of(folder):
    """A copy to damage."""
    copy = folder.parent / "copy"
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(folder, copy)
    yield copy


class Files:
    """One file of a reader is damaged."""

    def __init__(self, root):
        import tiny

        from experiments.journal import Journal
        from experiments.zebra import GivenFlags
        from mdm_jax import loading
        from mdm_jax.data import builders
        from mdm_jax.models.transformer import init_params
        from mdm_jax.models.weights import save_weights
        from mdm_jax.tasks.nae_sat.task import NaeSat
        from mdm_jax.tasks.sudoku import files as sudoku_files
        from mdm_jax.tasks.sudoku import puzzle as sudoku
        from mdm_jax.training.config import write_config
        from mdm_jax.training.metrics import read_metrics

        import jax  # isort: skip

        def journal(folder):
            return Journal(folder, {"seed": 0}, None).rows("a", lambda: [{"n": 1, "solved": 0.5}])

        for name in ("weights", "journal", "puzzles", "metrics"):
            (root / name).mkdir(parents=True)
        write_config(root / "weights", {"model": tiny.CONFIG.to_json(), "task": {"name": "digits"}})
        save_weights(root / "weights", init_params(tiny.CONFIG, jax.random.key(0)))
        journal(root / "journal")
        task = NaeSat(num_latents=5, num_observations=8, num_train=50, num_test=10, seed=0)
        data = pathlib.Path(task.prepare(root / "data").data_dir)
        puzzles, solutions = (["".join(map(str, row)) for row in grid] for grid in sudoku.generate(4, size=4))
        text = "".join(f"{a},{b}\n" for a, b in zip(puzzles, solutions, strict=True))
        (root / "puzzles" / "a.csv").write_text("quizzes,solutions\n" + text)
        (root / "puzzles" / "a.txt").write_text("# easy\n" + "\n".join(puzzles))
        head = "{'descr': '|i1', 'fortran_order': False, 'shape': (2, 325), }"
        npy = b"\x93NUMPY\x01\0" + (118).to_bytes(2, "little") + head.ljust(117).encode() + b"\n" + bytes(650)
        (root / "puzzles" / "a.npy").write_bytes(npy)
        (root / "puzzles" / "zebra.txt").write_text("= LHS c 0 1 RHS n 0 2 CLUE_END\n!= LHS c 0 2 RHS c 2 2 CLUE_END")
        (root / "metrics" / "metrics.jsonl").write_text('{"step": 1, "loss": 0.5}\n{"step": 2, "loss": 0.25}\n')

        def any_result(read):
            return lambda folder: (read(folder), None)[1]

        readers = [
            ("weights", "config.json", lambda folder: loading.load(folder).params),
            ("weights", "model.safetensors", lambda folder: loading.load(folder).params),
            ("journal", "units.jsonl", journal),
            ("metrics", "metrics.jsonl", any_result(read_metrics)),
            ("puzzles", "zebra.txt", any_result(lambda f: GivenFlags(puzzles=(f / "zebra.txt",)).given())),
        ]
        readers += [
            ("puzzles", name, any_result(lambda f, name=name: sudoku_files.read_puzzles(f / name)))
            for name in ("a.csv", "a.txt", "a.npy")
        ]
        data = data.rename(root / "prepared")
        names = sorted(path.name for path in data.iterdir())
        readers += [(data.name, name, lambda folder: builders.read_split(folder, "train")) for name in names]
        self.root, self.readers = root, readers
        self.right = {}
        for folder, name, read in readers:
            with contextlib.suppress(ValueError):  # the puzzles of some are none
                self.right[folder, name] = read(root / folder)

    def case(self, rng):
        folder, name, read = rng.choice(self.readers)
        with copy_of(self.root / folder) as copy:
            way = damage(rng, copy / name)
            yield f"{folder}/{name} {way}"
            found = read(copy)
        is_json = name.endswith(".json")  # what it holds may be another right thing
        if found is not None and not is_json and not same(found, self.right[folder, name]):
            raise Violation("read as something else without a word")


class Folders:
    """Something in a run's folder is damaged, or stands there that does not belong."""

    def __init__(self, root):
        import tiny

        from mdm_jax import loading
        from mdm_jax.training.config import write_config

        self.load = loading.load
        tiny.train(root / "run", steps=4, loop={"checkpoint_every": 2})
        self.run = root / "run"
        if not (self.run / "config.json").exists():
            write_config(self.run, {"model": tiny.CONFIG.to_json()})
        self.right = [self.load(self.run / "checkpoints" / str(step)).params for step in (2, 4)]

    def case(self, rng):
        names = ["²", "01", "9" * 30, "-1", "best", "4.orbax-checkpoint-tmp-1", "x\x1b[2J", " 4", "٣"]
        with copy_of(self.run) as copy:
            files = sorted(path for path in (copy / "checkpoints").rglob("*") if path.is_file())
            done = []
            for _ in range(rng.choice([1, 1, 2, 5])):
                path = rng.choice(files)
                if path.is_file() and not path.is_symlink():
                    done.append(f"{path.relative_to(copy)} {damage(rng, path)}")
            if rng.random() < 0.3:
                name = rng.choice(names)
                done.append(f"a folder {name!r}")
                (copy / "checkpoints" / name).mkdir(exist_ok=True)
            step = rng.choice(
                ["", "checkpoints/4", "checkpoints/best", "checkpoints", f"checkpoints/{rng.choice(names)}"]
            )
            yield f"{step}: " + "; ".join(done)
            found = self.load(copy / step).params
        if not any(same(found, right) for right in self.right):
            raise Violation("other parameters were loaded")


class Flags:
    """One flag of a command has a value that no flag should have; nothing but the checks is run."""

    def __init__(self, root):
        from experiments import common

        self.main, self.root = common.main, root
        root.mkdir(parents=True)
        os.mkfifo(root / "pipe")
        os.environ["JAX_COMPILATION_CACHE_DIR"] = str(root)
        modules = ["sudoku", "zebra", "nae_sat", "imbalance", "hardness", "throughput.__main__"]
        self.flags = []
        for module in modules:
            commands = importlib.import_module(f"experiments.{module}").COMMANDS
            for command, (kind, _) in commands.items():
                needed = [f"--{name.replace('_', '-')}=x" for name in required(kind)]
                for path, hint in hints_of(kind):
                    self.flags.append((module.split(".")[0], command, kind, needed, path, hint))

    def case(self, rng):
        experiment, command, kind, needed, path, hint = rng.choice(self.flags)
        parts = {hint, *typing.get_args(hint)}
        word, wanted = rng.choice(WORDS), {0, 2}
        if parts & {int, float} and not (path in MAY_BE_INFINITE and word.strip("-") in ("inf", "1e400", "9" * 60)):
            wanted = {2}
        if pathlib.Path in parts:
            word = rng.choice(["gs://bucket/x", "s3://x", str(self.root / "pipe"), "/dev/zero", "https://a/b"])
            wanted = {2}
        if typing.get_origin(hint) is typing.Literal:
            wanted = {2}
        argv = [command, *(flag for flag in needed if not flag.startswith(f"--{path}=")), f"--{path}={word}"]
        yield f"{experiment} {argv}"[:300]
        said, status = io.StringIO(), 0
        with contextlib.redirect_stderr(said), contextlib.redirect_stdout(io.StringIO()):
            try:
                self.main(experiment, "", {command: (kind, f"{__name__}:nothing")}, argv)
            except SystemExit as stop:
                status = stop.code
        lines = [line for line in said.getvalue().splitlines() if line.strip()]
        if status not in wanted:
            raise Violation(f"code {status}: {lines[-1:]}")
        if status == 2 and (len(lines) != 1 or not lines[0].startswith("error: ") or not lines[0].isprintable()):
            raise Violation(f"{len(lines)} lines: {lines[:3]}"[:500])
        if status == 2:
            raise Refused(lines[0])


def nothing(flags):
    """The work of a command."""


def required(kind):
    fields = [field for field in dataclasses.fields(kind) if field.default is dataclasses.MISSING]
    return [field.name for field in fields if field.default_factory is dataclasses.MISSING]


def hints_of(kind, prefix=""):
    for name, hint in typing.get_type_hints(kind).items():
        if dataclasses.is_dataclass(hint):
            yield from hints_of(hint, f"{prefix}{name}.")
        elif hint is not bool and name not in ("coordinator", "num_processes", "process_id", "puzzle"):
            yield (prefix + name).replace("_", "-"), hint


FAMILIES = {"files": Files, "folders": Folders, "flags": Flags, "library": fuzz_library.Library}


def hang(number, frame):
    raise Violation(f"it took {PATIENCE} seconds")


def main(family, first, count, seed, folder):
    """Runs cases `first` to `count`, one line each: its number, verdict and name, by tabs."""
    warnings.simplefilter("ignore")
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    out = os.fdopen(os.dup(1), "w")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # what is printed by the way
    shutil.rmtree(folder, ignore_errors=True)
    cases = FAMILIES[family](pathlib.Path(folder) / family)
    signal.signal(signal.SIGALRM, hang)
    from mdm_jax import InputError

    for number in range(first, count):
        case = cases.case(random.Random(f"{family} {seed} {number}"))
        faulthandler.dump_traceback_later(2 * PATIENCE, exit=True)  # where no signal is seen to, as in XLA
        signal.setitimer(signal.ITIMER_REAL, PATIENCE)
        verdict, name = "passed", "?"
        try:
            name = next(case)
            out.write(f"{number}\tbegun\t{name!r}\n")
            out.flush()
            next(case, None)
        except (InputError, Refused) as error:
            text = str(error)
            verdict = "refused" if text.isprintable() and 0 < len(text) <= 1100 else f"the message is {text[:200]!r}"
        except BaseException as error:  # whatever it is, it is a finding
            verdict = f"{type(error).__name__}: {error}"
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            faulthandler.cancel_dump_traceback_later()
        out.write(f"{number}\t{' '.join(verdict.split())[:400]}\t{name!r}\n")
        out.flush()


if __name__ == "__main__":
    sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))
    main(sys.argv[1], *map(int, sys.argv[2:5]), sys.argv[5])
