"""Training: the state, one jitted step over a mesh, the loop around it, checkpoints and metrics."""
