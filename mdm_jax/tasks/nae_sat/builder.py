"""L&O-NAE-SAT as a tfds dataset. Importing this imports tfds; `nae_sat` alone does not."""

import os
from collections.abc import Iterator

import tensorflow_datasets as tfds

from mdm_jax.data import builders
from mdm_jax.data.base import DataConfig, Generated, Records
from mdm_jax.data.checks import Split
from mdm_jax.tasks.nae_sat import puzzle as nae_sat


class NaeSatConfig(DataConfig):
    """One distribution and how much of it; the name, such as `25-275-0123456789ab`, changes with every part of it.

    Attributes:
        num_latents: N.
        num_observations: P.
        num_train: Sequences to train on.
        num_test: Sequences held out.
        seed: The seed of the triples and the sequences.
    """

    def __init__(
        self, *, num_latents: int, num_observations: int, num_train: int, num_test: int, seed: int = 0
    ) -> None:
        nae_sat.observations(num_latents, num_observations, seed)
        self.num_latents, self.num_observations, self.seed = num_latents, num_observations, seed
        super().__init__(
            num_latents,
            num_observations,
            inputs=(nae_sat.VERSION, num_latents, num_observations, seed),
            num_train=num_train,
            num_test=num_test,
        )


class NaeSat(Generated, skip_registration=True):  # type: ignore[call-arg]
    """Latent bits, then for each fixed triple of them whether they are not all equal."""

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES = {"1.0.0": "tokens"}  # noqa: RUF012

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Of the one field."""
        return {"tokens": (self.builder_config.num_latents + self.builder_config.num_observations,)}

    def chunks(self, split: Split, num: int) -> Iterator[Records]:
        """The records of a split, all at once."""
        config = self.builder_config
        latents, observations = config.num_latents, config.num_observations
        yield {"tokens": nae_sat.generate(num, latents, observations, seed=config.seed, split=split)}


def prepare_nae_sat(
    data_dir: str | os.PathLike[str],
    *,
    num_latents: int,
    num_observations: int,
    num_train: int,
    num_test: int,
    seed: int = 0,
) -> NaeSat:
    """Writes a dataset of sequences unless it is there already.

    Args:
        data_dir: The folder of all datasets.
        num_latents: N.
        num_observations: P.
        num_train: Sequences to train on.
        num_test: Sequences held out.
        seed: The seed.

    Returns:
        The prepared builder, with splits "train" and "test" of `tokens` int8 `[N + P]`, for `builders.read_split`.

    Raises:
        InputError: An argument is out of its range; see `nae_sat.observations`.
    """
    config = NaeSatConfig(
        num_latents=num_latents,
        num_observations=num_observations,
        num_train=num_train,
        num_test=num_test,
        seed=seed,
    )
    return builders.prepare(NaeSat, config, data_dir)
