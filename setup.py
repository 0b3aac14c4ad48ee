"""Packaging. Lower bounds are the oldest versions that the tests have run with; requirements.txt pins what CI runs."""

import pathlib
import re

from setuptools import find_packages, setup

HERE = pathlib.Path(__file__).parent
VERSION = re.search(r'__version__ = "(.+)"', (HERE / "mdm_jax/__init__.py").read_text()).group(1)

setup(
    name="mdm_jax",
    version=VERSION,
    description="Masked diffusion models in JAX, with token order as a first-class thing",
    long_description=(HERE / "README.md").read_text(),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    license_files=["LICENSE"],
    python_requires=">=3.11",
    packages=find_packages(include=["mdm_jax", "mdm_jax.*"]),
    package_data={"mdm_jax": ["py.typed", "weights/*/*"]},
    install_requires=[
        "jax>=0.10.2",
        "flax>=0.12.8",
        "optax>=0.2.8",
        "orbax-checkpoint>=0.12.8",
        "tensorflow-datasets>=4.9.10",
        "array_record>=0.8.6",
        "importlib_resources>=7.1",  # tensorflow-datasets uses it and does not say so
        "grain>=0.2.18",
        "numba>=0.68.1",
        "numpy>=2.4.6",
        "safetensors>=0.8",
        "tyro>=1.0.17",
        "tqdm>=4.70.1",
        "tensorboardX>=2.6.5",
        "matplotlib>=3.11.2",
    ],
    extras_require={
        "gpu": ["jax[cuda13]"],
        "dev": ["chex>=0.1.92", "pytest>=9.2", "pytest-xdist>=3.8", "hypothesis>=6.170", "ruff>=0.17", "mypy>=2.4"],
    },
)
