"""Models of other programs: one table per family says what their settings and tensors are called here."""
