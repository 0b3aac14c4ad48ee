"""Figures, and the page of the order viewer."""
