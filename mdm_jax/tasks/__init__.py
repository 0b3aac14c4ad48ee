"""Tasks: generators of records, layouts as tokens, and scores of answers. NumPy in, NumPy out."""
