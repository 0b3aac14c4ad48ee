"""Sudoku: one masked diffusion model, solved in different orders (Kim et al. 2025, Tables 2 and 5)."""
