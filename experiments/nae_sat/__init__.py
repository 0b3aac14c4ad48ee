"""L&O-NAE-SAT: Table 1."""
