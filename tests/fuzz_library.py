"""Misuse of the public functions, for `fuzz.py`."""


class Library:
    """One or two arguments of a public function are none that it should be given."""

    def __init__(self, root):
        import jax
        import jax.numpy as jnp
        import numpy as np

        import mdm_jax
        from mdm_jax import oracles

        network = jax.random.normal(jax.random.key(1), (6, 5))
        denoiser = lambda params, tokens: params[tokens]  # noqa: E731
        key, x = jax.random.key(0), jnp.full((2, 4), 5, jnp.int32)
        clean = jnp.asarray(np.arange(8).reshape(2, 4) % 5, jnp.int32)
        number = [None, "a", float("nan"), float("inf"), -1, 1e39, [], 1j, 10**400, jnp.nan, np.float64("nan"), (1,)]
        whole = [*number, 0, 1.5, 2**31, 2**70, True, "1", -(2**31)]
        tokens = [None, "a", [[1, 2], [3]], [], 3, clean[0], jnp.zeros((0, 4), jnp.int32), clean.astype(float), {}]
        tokens += [np.full((2, 4), 2**40 + 5), np.full((2, 4), 2**32 - 1, np.uint32), np.full((2, 4), -1), 1j * clean]
        tokens += [clean[None], clean.astype(bool), np.array([["a"] * 4] * 2), np.full((2, 4), 6), x[:, :0], object()]
        keys = [None, 3, "a", jax.random.PRNGKey(0), jax.random.split(key, 3), jnp.zeros(2), [key], key[None][None]]
        callables = [None, 3, "margin", lambda *a: None, lambda *a: "x", lambda *a: jnp.zeros(3), {}]
        selectors = [None, 3, "x", mdm_jax.PerStep, object(), []]
        schedules = [None, "x", 3, mdm_jax.Linear, object()]
        masks = [None, "a", jnp.zeros((2, 4)), jnp.zeros((2, 3), bool), jnp.zeros((3, 4), bool), [[True]], 1, {}]
        orders = [*tokens, jnp.zeros((2, 4), jnp.int32), jnp.arange(3)[None]]
        networks = [*callables, lambda p, t: p, lambda p, t: t, lambda p, t: p[t][..., :1], lambda p, t: p[t] * 1j]
        paths = [None, 3, "gs://a", "", "\0", "/dev/zero", [], "x" * 9999, b"sudoku-6m"]
        common = {"denoiser": (denoiser, networks), "params": (network, []), "key": (key, keys)}
        start = {**common, "x_init": (x, tokens), "mask_id": (5, whole)}
        choice = {"oracle": (oracles.margin, callables), "temperature": (1.0, number)}
        loss = {**common, "x_0": (clean, tokens), "mask_id": (5, whole), "is_prompt": (None, masks[1:])}
        schedule = {"schedule": (mdm_jax.Linear(), schedules)}
        once = {"selector": (mdm_jax.PerStep(1), selectors), "block_length": (None, whole[1:])}
        t = {"t": (jnp.full(2, 0.5), [*number, jnp.zeros(3), jnp.zeros((2, 1)), jnp.arange(2)])}
        exact = {name: loss[name] for name in ("denoiser", "params", "x_0")}
        order = {"order": (jnp.asarray([[0, 1, 2, 3]] * 2, jnp.int32), orders)}
        logits = (network[clean], [None, "a", network[0], clean, network[clean] * 1j, 3, [], network[clean][..., :0]])
        self.functions = {
            "sample": (mdm_jax.sample, {**start, **choice, **once}),
            "vanilla_sample": (mdm_jax.vanilla_sample, {**start, **schedule, "num_steps": (3, whole)}),
            "remasking_sample": (
                mdm_jax.remasking_sample,
                {**start, **choice, "num_steps": (3, whole), "noise": (0.0, number)},
            ),
            "elbo_loss": (mdm_jax.elbo_loss, {**loss, **schedule}),
            "subset_loss": (mdm_jax.subset_loss, loss),
            "order_loss": (mdm_jax.order_loss, {**loss, "num_orders": (1, whole)}),
            "order_nll": (mdm_jax.order_nll, {**exact, **order, "mask_id": loss["mask_id"]}),
            "causal_nll": (
                mdm_jax.causal_nll,
                {"decoder": exact["denoiser"], "params": exact["params"], "x_0": exact["x_0"], "bos_id": (5, whole)},
            ),
            "forward_mask": (
                mdm_jax.forward_mask,
                {"key": common["key"], "x_0": loss["x_0"], **t, **schedule, "mask_id": (5, whole)},
            ),
            "mask_last": (
                mdm_jax.mask_last,
                {"x_0": loss["x_0"], **order, "num_revealed": (jnp.asarray([1, 2]), whole), "mask_id": (5, whole)},
            ),
            "confidence_from_logits": (
                mdm_jax.confidence_from_logits,
                {"key": common["key"], "logits": logits, "temperature": (1.0, number), "mask_id": (None, whole[1:])},
            ),
            "uniform_order": (mdm_jax.uniform_order, {"key": common["key"], "batch": (2, whole), "length": (4, whole)}),
            "inverse": (mdm_jax.inverse, order),
            "with_noise": (mdm_jax.with_noise, {"oracle": choice["oracle"], "scale": (0.5, number)}),
            "PerStep": (mdm_jax.PerStep, {"k": (1, whole)}),
            "TopK": (mdm_jax.TopK, {"num_steps": (3, whole), **schedule}),
            "Binomial": (mdm_jax.Binomial, {"num_steps": (3, whole), **schedule}),
            "Threshold": (mdm_jax.Threshold, {"tau": (0.5, number)}),
            "EntropyBudget": (mdm_jax.EntropyBudget, {"gamma": (0.5, number)}),
            "Polynomial": (mdm_jax.Polynomial, {"power": (2.0, number)}),
            "load": (
                mdm_jax.load,
                {"path_or_name": ("sudoku-6m", paths)},
            ),
        }
        self.names = sorted(self.functions)

    def case(self, rng):
        import jax

        name = rng.choice(self.names)
        function, arguments = self.functions[name]
        given = {argument: right for argument, (right, _) in arguments.items()}
        open_to = [argument for argument, (_, bad) in arguments.items() if bad]
        wrong = rng.sample(open_to, min(len(open_to), rng.choice([1, 1, 1, 2])))
        for argument in wrong:
            given[argument] = rng.choice(arguments[argument][1])
        yield f"{name} " + ", ".join(f"{argument}={given[argument]!r:.80}" for argument in wrong)
        jax.block_until_ready(function(**given))
