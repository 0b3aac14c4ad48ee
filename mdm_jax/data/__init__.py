"""Data: generators and readers (numpy in, numpy out), tfds builders that keep their output, and one grain pipeline."""
