"""One experiment per table or figure of the paper: `python -m experiments.NAME COMMAND`."""
