"""Figures and progress bars."""
