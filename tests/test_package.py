"""The package as a whole: what importing it does, what it offers, and which module may import which."""

import ast
import functools
import os
import pathlib
import re
import subprocess
import sys

import pytest

import mdm_jax

ROOT = pathlib.Path(mdm_jax.__file__).parents[1]
FILES = sorted((ROOT / "mdm_jax").rglob("*.py")) + sorted((ROOT / "experiments").rglob("*.py"))
HEAVY = ["flax", "orbax", "grain", "tensorflow", "tensorflow_datasets", "numba", "matplotlib", "tokenizers", "jinja2"]
CONTRACT = [
    "Array",
    "Params",
    "Denoiser",
    "Features",
    "Oracle",
    "Selector",
    "Confidence",
    "Linear",
    "Cosine",
    "Polynomial",
    "forward_mask",
    "mask_last",
    "reverse_posterior",
    "uniform_order",
    "identity_order",
    "near_identity_order",
    "inverse",
    "elbo_loss",
    "subset_loss",
    "order_loss",
    "order_nll",
    "causal_nll",
    "token_nll",
    "confidence_from_logits",
    "oracles",
    "with_noise",
    "PerStep",
    "TopK",
    "Binomial",
    "Threshold",
    "EntropyBudget",
    "sample",
    "SampleResult",
    "vanilla_sample",
    "load",
    "Model",
]
ORACLES = [
    "random",
    "left_to_right",
    "top_prob",
    "margin",
    "neg_entropy",
    "token_prob",
    "with_noise",
]


def run(program, **environment):
    return subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
        capture_output=True,
        text=True,
        check=False,
    )


def test_import_of_the_package_starts_no_device_work_and_nothing_heavy():
    # No such platform exists, so the first operation on a device would raise.
    program = f"import sys, mdm_jax; print([name for name in {HEAVY} if name in sys.modules])"
    done = run(program, JAX_PLATFORMS="no_such_platform")
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[]"
    check = run("import mdm_jax, jax; jax.numpy.zeros(1)", JAX_PLATFORMS="no_such_platform")
    assert check.returncode != 0, "the check above would notice device work"


def test_contract_names_are_attributes_of_the_package_and_all_lists_what_there_is():
    names = mdm_jax.__all__
    assert set(CONTRACT) <= set(names)
    assert len(set(names)) == len(names)
    for name in names:
        assert getattr(mdm_jax, name) is not None, name
    for name in ORACLES:
        assert callable(getattr(mdm_jax.oracles, name)), name


def test_package_attribute_that_does_not_exist_raises_attribute_error():
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = mdm_jax.no_such_name


def module_name(path):
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(path): path for path in FILES}


@functools.cache
def imported(path, *, at_import_only=False):
    """Absolute names of all modules that a file imports, `from x import y` as x, and as x.y where that is a module."""
    tree = ast.parse(path.read_text())
    package = module_name(path).split(".") if path.name == "__init__.py" else module_name(path).split(".")[:-1]
    deferred = set()
    for node in ast.walk(tree):
        is_type_checking = isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING")
        if is_type_checking or isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
            deferred.update(id(child) for child in ast.walk(node))
    names = set()
    for node in ast.walk(tree):
        if at_import_only and id(node) in deferred:
            continue
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = ".".join([*package[: len(package) - node.level + 1], *([node.module] if node.module else [])])
            base = node.module if node.level == 0 else base
            inner = {f"{base}.{alias.name}" for alias in node.names} & set(MODULES)
            names.update(inner if inner and len(inner) == len(node.names) else inner | {base})
    return names


def ours(names):
    return {name for name in names if name.split(".")[0] in ("mdm_jax", "experiments")}


NOT_CORE = ("__init__", "loading", "arguments", "command_line", "progress")
CORE = {module_name(path): path for path in FILES if path.parent == ROOT / "mdm_jax" and path.stem not in NOT_CORE}
BELOW = {
    "errors": set(),
    "ranges": {"errors"},
    "files": {"errors"},
    "endings": set(),
    "typing": set(),
    "blocks": {"typing"},
    "randomness": {"errors", "typing"},
    "checks": {"errors", "ranges", "typing"},
    "schedules": {"errors", "ranges", "typing"},
    "orders": {"errors", "ranges", "typing", "randomness", "checks"},
    "logits": {"errors", "typing", "checks", "orders", "kernels.matmul"},
    "masking": {"errors", "typing", "randomness", "checks", "schedules", "orders", "logits"},
    "draws": {"errors", "typing", "randomness", "schedules", "orders", "masking"},
    "confidence": {"errors", "typing", "randomness", "checks", "logits"},
    "oracles": {"errors", "ranges", "typing", "randomness", "checks", "confidence"},
    "selection": {"errors", "ranges", "typing", "randomness", "checks", "confidence", "schedules"},
    "sharding": {"errors", "typing"},
}
BELOW["losses"] = BELOW["draws"] | {"draws", "ranges", "checks", "logits"}
BELOW["klass"] = {*BELOW["selection"], "selection"}
BELOW["waiting"] = {"typing"}
BELOW["loop"] = {*BELOW["selection"], "selection", "oracles", "checks", "blocks", "waiting"}
BELOW["sampling"] = {*BELOW["loop"], "loop"}
BELOW["judges"] = BELOW["sampling"] | {"sampling", "logits"}
BELOW["correction"] = BELOW["judges"] | {"judges"}
BELOW["pseudo_likelihood"] = {"errors", "ranges", "typing", "checks", "logits", "masking"}
BELOW["choosing"] = BELOW["sampling"] | {"sampling", "pseudo_likelihood"}
BELOW["proposals"] = BELOW["choosing"] | {"choosing"}
BELOW["symmetric"] = BELOW["choosing"] | {"choosing", "logits"}
BELOW["autoregressive"] = {"errors", "ranges", "typing", "randomness", "checks", "confidence", "orders"}
BELOW["edits"] = {"errors", "ranges", "typing", "checks", "loop"}
BELOW["search"] = BELOW["sampling"] | {"sampling", "edits", "pseudo_likelihood"}
BELOW["decoding"] = BELOW["search"] | {"search", "judges", "autoregressive", "models.kinds", "text.prompts"}
BELOW["generation"] = BELOW["decoding"] | {"decoding", "evaluation.prompts", "text.tokenizer", "text.special"}
BELOW["cached_sampling"] = BELOW["sampling"] | {"sampling", "autoregressive"}


@pytest.mark.parametrize("name", CORE)
def test_core_module_imports_only_what_lies_below_it(name):
    allowed = BELOW[name.removeprefix("mdm_jax.")]
    assert ours(imported(CORE[name])) <= {f"mdm_jax.{below}" for below in allowed}


@pytest.mark.parametrize("name", CORE)
def test_core_module_imports_no_library_but_jax_optax_and_numpy(name):
    roots = {module.split(".")[0] for module in imported(CORE[name])}
    assert roots - set(sys.stdlib_module_names) - {"mdm_jax"} <= {"jax", "optax", "numpy"}


ONLY_IN = {
    "flax": [
        "mdm_jax/models/transformer.py",
        "mdm_jax/models/grouped.py",
        "mdm_jax/models/bert.py",
        "mdm_jax/models/routed.py",
        "mdm_jax/training/state.py",
    ],
    "orbax": ["mdm_jax/training/checkpoint.py"],
    "grain": ["mdm_jax/data/pipeline.py"],
    "tensorflow_datasets": ["mdm_jax/data/", "mdm_jax/tasks/"],
    "tensorflow": [],
    "numba": ["mdm_jax/data/compiled.py"],
    "matplotlib": [f"mdm_jax/report/{name}.py" for name in ("bars", "heat", "labels", "plots", "puzzle_pictures")],
    "PIL": ["mdm_jax/report/puzzle_pictures.py"],
    "tensorboardX": ["mdm_jax/training/metrics.py"],
    "tqdm": ["mdm_jax/progress.py"],
    "tyro": ["experiments/"],
    "tokenizers": ["mdm_jax/text/tokenizer.py", "mdm_jax/text/bpe.py"],
    "jinja2": ["mdm_jax/text/tokenizer.py"],
    "math_verify": ["mdm_jax/tasks/language/verify.py"],
    "lm_eval": ["experiments/harness.py"],
    "pyarrow": ["mdm_jax/tasks/text/documents.py"],
    "datasets": ["mdm_jax/tasks/text/documents.py"],
}


@pytest.mark.parametrize("library", ONLY_IN)
def test_library_with_one_home_is_imported_nowhere_else(library):
    for path in FILES:
        if any(name.split(".")[0] == library for name in imported(path)):
            place = path.relative_to(ROOT).as_posix()
            assert any(place.startswith(home) for home in ONLY_IN[library]), place


def test_library_imports_nothing_of_the_experiments():
    for name, path in MODULES.items():
        if name.startswith("mdm_jax"):
            assert not [m for m in imported(path) if m.split(".")[0] == "experiments"], name


def test_kernels_stand_on_nothing_of_ours_but_types():
    for name, path in MODULES.items():
        if name.startswith("mdm_jax.kernels"):
            others = {m for m in ours(imported(path)) if not m.startswith("mdm_jax.kernels")}
            assert others <= {"mdm_jax.typing"}, name


def test_only_kernels_name_a_backend_or_count_devices():
    # `training/metrics` and the experiments say what a run ran on; nothing that is traced asks.
    words = re.compile(r"default_backend|device_count\(|platform_dependent|compute_capability|\bpallas\b|cudnn")
    reports = {"mdm_jax/training/progress.py"}
    for name, path in MODULES.items():
        place = path.relative_to(ROOT).as_posix()
        if name.startswith("mdm_jax.") and not name.startswith("mdm_jax.kernels") and place not in reports:
            assert not words.search(path.read_text()), place


def test_loading_is_imported_by_nobody_but_the_lazy_doors():
    for name, path in MODULES.items():
        if name.startswith("mdm_jax"):
            if "mdm_jax.loading" in imported(path):
                assert name in ("mdm_jax", "mdm_jax.command_line"), name
            assert "mdm_jax.loading" not in imported(path, at_import_only=True), name


TASKS = ("sudoku", "zebra", "nae_sat", "language", "text")


def test_data_and_tasks_import_nothing_of_ours_but_errors_and_the_predicates_and_no_other_task():
    names = ("errors", "files", "ranges", "progress", "report.board", "theory.predicates")
    foundation = {f"mdm_jax.{name}" for name in names}
    for name, path in MODULES.items():
        task = next((task for task in TASKS if name.startswith(f"mdm_jax.tasks.{task}")), None)
        if task or name.startswith(("mdm_jax.data", "mdm_jax.tasks.base")):
            rooms = ("mdm_jax.data", *([f"mdm_jax.tasks.{task}", "mdm_jax.tasks.base"] if task else []))
            rooms += ("mdm_jax.text",) if task == "text" else ()  # tokenizers
            others = {
                m for m in ours(imported(path)) if not any(m == room or m.startswith(f"{room}.") for room in rooms)
            }
            assert others <= foundation, name


def test_data_tasks_and_predicates_import_no_jax():
    for name, path in MODULES.items():
        if name.startswith(("mdm_jax.data", "mdm_jax.tasks")) or name == "mdm_jax.theory.predicates":
            assert "jax" not in {m.split(".")[0] for m in imported(path)}, name


def test_library_modules_import_one_another_without_circles():
    # Imports inside functions count too: a circle hidden there is still one. The package's own doors are left out.
    library = {name: path for name, path in MODULES.items() if name.startswith("mdm_jax.")}
    edges = {name: ours(imported(path)) & set(library) for name, path in library.items()}
    done, open_ = set(), []

    def visit(name):
        assert name not in open_, " -> ".join([*open_[open_.index(name) :], name])
        if name not in done:
            open_.append(name)
            for below in sorted(edges.get(name, ())):
                visit(below)
            done.add(open_.pop())

    for name in sorted(edges):
        visit(name)


def test_no_module_inside_the_package_imports_through_its_front_door():
    # `from mdm_jax import sample` inside the package would tie every module to all others.
    for name, path in MODULES.items():
        if name.startswith("mdm_jax."):
            assert "mdm_jax" not in imported(path), name
