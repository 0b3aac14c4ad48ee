"""Every test runs on CPU, whatever the machine has: with eight host devices and quick compilation, or as users run it.

MDM_JAX_LANE=user runs the files of `AS_USERS` on one device with XLA's defaults, the program that users run.
"""

import collections
import gc
import importlib.metadata
import logging
import os

os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["XLA_FLAGS"] = (
    ""
    if os.environ.get("MDM_JAX_LANE") == "user"
    else "--xla_force_host_platform_device_count=8"
    # Compiling is most of the time, and half of that the fusion emitters, which only jax 0.10 has a flag for.
    + " --xla_backend_optimization_level=0 --xla_cpu_parallel_codegen_split_count=1 "
    + "--xla_cpu_use_fusion_emitters=false " * importlib.metadata.version("jaxlib").startswith("0.10.")
) + os.environ.get("XLA_FLAGS", "")

import commands
import jax
import pytest

jax.config.update("jax_numpy_rank_promotion", "raise")
gc.set_threshold(100_000, 20, 100)  # a search for cycles among all that JAX keeps takes a second
logging.getLogger("asyncio").setLevel(logging.CRITICAL)  # what a failed Orbax restore leaves behind


IS_USER = os.environ.get("MDM_JAX_LANE") == "user"
AS_USERS = (
    "test_autoregressive.py",
    "test_confidence.py",
    "test_kernels.py",
    "test_losses.py",
    "test_models_transformer.py",
    "test_sampling.py",
    "test_training_step.py",
)


def pytest_ignore_collect(collection_path):
    """With MDM_JAX_LANE=user all files but those of `AS_USERS` are left out."""
    is_test = collection_path.name.startswith("test_")
    return True if IS_USER and is_test and collection_path.name not in AS_USERS else None


def pytest_runtest_setup(item):
    """Skips tests over eight devices where there are fewer."""
    if item.get_closest_marker("eight_devices") and jax.device_count() < 8:
        pytest.skip("over eight devices")


@pytest.hookimpl(tryfirst=True)  # before -m leaves out what is slow
def pytest_collection_modifyitems(items):
    """Makes all but every n-th case of a test that is `thinned(n)` slow, and takes files of whole commands first.

    Of two workers, none may be left with the longest file at the end.
    """
    cases = collections.Counter()
    for item in items:
        thinned = item.get_closest_marker("thinned")
        if thinned is not None:
            if cases[item.path, item.originalname] % thinned.args[0]:
                item.add_marker(pytest.mark.slow)
            cases[item.path, item.originalname] += 1
    items.sort(key=lambda item: "end_to_end" not in item.path.name)


@pytest.fixture(scope="session", autouse=True)
def compilation_cache(tmp_path_factory):
    """Compiles each program once per session, however many tests and processes of theirs build it anew.

    The process that runs commands, which is started once too, ends with the session.
    """
    folder = str(tmp_path_factory.mktemp("compiled"))
    os.environ["JAX_COMPILATION_CACHE_DIR"] = commands.ENV["JAX_COMPILATION_CACHE_DIR"] = folder
    jax.config.update("jax_compilation_cache_dir", folder)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)
    yield
    commands.close()


@pytest.fixture(scope="module", autouse=True)
def programs_are_freed():
    """Frees the compiled programs once they are many; till then the next file finds those of the last."""
    yield
    commands.free()
    if commands.is_crowded():
        jax.clear_caches()
