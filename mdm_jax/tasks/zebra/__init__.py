"""Zebra puzzles: clues, deduction, riddles, files, layouts."""
