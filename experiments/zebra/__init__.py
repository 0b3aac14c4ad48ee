"""Zebra puzzles: Table 3."""
