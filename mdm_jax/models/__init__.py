"""The networks: attention as pure functions, one Flax transformer, and its named configurations."""
