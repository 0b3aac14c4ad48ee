"""Benchmarks of language models: local files in their published formats become prompts, and answers get scores."""
