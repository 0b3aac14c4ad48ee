"""L&O-NAE-SAT: latents, and observations of triples of them."""
