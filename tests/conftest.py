"""Every test runs on CPU with eight host devices, whatever the machine has."""

import logging
import os

os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["XLA_FLAGS"] = (
    "--xla_force_host_platform_device_count=8"
    + " --xla_backend_optimization_level=0 "  # compiling is most of the time
    + os.environ.get("XLA_FLAGS", "")
)

import jax
import pytest

jax.config.update("jax_numpy_rank_promotion", "raise")
logging.getLogger("asyncio").setLevel(logging.CRITICAL)  # what a failed Orbax restore leaves behind


def pytest_collection_modifyitems(items):
    """Files of whole commands come first: of two workers, none may be left with the longest at the end."""
    items.sort(key=lambda item: "end_to_end" not in item.path.name)


@pytest.fixture(scope="session", autouse=True)
def compilation_cache(tmp_path_factory):
    """Compiles each program once per session, however many tests build it anew."""
    jax.config.update("jax_compilation_cache_dir", str(tmp_path_factory.mktemp("compiled")))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)


@pytest.fixture(scope="module", autouse=True)
def programs_are_freed():
    """Frees a file's compiled programs: each takes memory maps, and beyond Linux's 65,530 of them a process crashes."""
    yield
    jax.clear_caches()
