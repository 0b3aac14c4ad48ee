import os
import subprocess
import sys

import pytest

from mdm_jax.data.caches import find_numba_cache
from mdm_jax.errors import InputError


@pytest.fixture(autouse=True)
def no_choice(monkeypatch):
    monkeypatch.setenv("NUMBA_CACHE_DIR", "")
    monkeypatch.delenv("NUMBA_CACHE_DIR")


def test_cache_stays_where_it_can_be_written(tmp_path):
    find_numba_cache([tmp_path / "deep" / "cache"])
    assert "NUMBA_CACHE_DIR" not in os.environ


def test_kernels_are_compiled_where_neither_the_installation_nor_the_home_can_be_written_to(tmp_path):
    (tmp_path / "file").touch()
    program = (
        "import pathlib, os, sys\n"
        "from mdm_jax.data.caches import find_numba_cache\n"
        "find_numba_cache([pathlib.Path(sys.argv[1])])\n"
        "from mdm_jax.data import splitmix\n"
        "import numba\n"
        "assert numba.config.CACHE_DIR == os.environ['NUMBA_CACHE_DIR']\n"
        "print(os.environ['NUMBA_CACHE_DIR'])"
    )
    command = [sys.executable, "-c", program, str(tmp_path / "file" / "cache")]
    folder = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    assert folder
    assert not os.path.exists(folder), "it goes with the process"


def test_no_place_at_all_is_one_line_that_names_the_variables(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "file"))
    with pytest.raises(InputError, match="NUMBA_CACHE_DIR and JAX_COMPILATION_CACHE_DIR"):
        find_numba_cache([tmp_path / "file" / "cache"])
