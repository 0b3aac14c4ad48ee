"""Throughput and memory, measured here and now."""
