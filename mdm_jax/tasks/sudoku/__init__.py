"""Sudoku: puzzles, rules, files, layouts."""
