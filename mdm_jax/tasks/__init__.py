"""Tasks: what is generated, how it becomes tokens, and when it is solved. NumPy in, NumPy out."""
