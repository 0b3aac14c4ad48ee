"""For tools that still ask for this file; the packaging is in pyproject.toml."""

from setuptools import setup

setup()
