"""L&O-NAE-SAT as a tfds dataset. Importing this imports tfds; `nae_sat` alone does not."""

import os
from collections.abc import Iterator

import numpy as np
import tensorflow_datasets as tfds
from numpy.typing import NDArray

from mdm_jax.data import builders, nae_sat
from mdm_jax.errors import InputError


class NaeSatConfig(tfds.core.BuilderConfig):
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
        if num_train < 1 or num_test < 1:
            raise InputError(f"num_train={num_train} and num_test={num_test}: give each at least 1")
        self.num_latents, self.num_observations, self.seed = num_latents, num_observations, seed
        self.num_train, self.num_test = num_train, num_test
        name = builders.digest(nae_sat.VERSION, num_latents, num_observations, num_train, num_test, seed)
        super().__init__(name=f"{num_latents}-{num_observations}-{name}")


class NaeSat(tfds.core.GeneratorBasedBuilder, skip_registration=True):  # type: ignore[call-arg]
    """Sequences of latents and observations."""

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES = {"1.0.0": "tokens"}  # noqa: RUF012

    def _info(self) -> tfds.core.DatasetInfo:
        shape = (self.builder_config.num_latents + self.builder_config.num_observations,)
        return tfds.core.DatasetInfo(
            builder=self,
            description="Latent bits, then for each fixed triple of them whether they are not all equal.",
            features=tfds.features.FeaturesDict(
                {"tokens": tfds.features.Tensor(shape=shape, dtype=np.int8, encoding="bytes")}
            ),
            disable_shuffling=True,
        )

    def _split_generators(
        self, dl_manager: tfds.download.DownloadManager
    ) -> dict[str, Iterator[tuple[int, dict[str, NDArray[np.int8]]]]]:
        del dl_manager  # nothing is downloaded
        config = self.builder_config
        return {
            "train": self._generate_examples("train", config.num_train),
            "test": self._generate_examples("test", config.num_test),
        }

    def _generate_examples(self, split: nae_sat.Split, num: int) -> Iterator[tuple[int, dict[str, NDArray[np.int8]]]]:
        config = self.builder_config
        rows = nae_sat.generate(num, config.num_latents, config.num_observations, seed=config.seed, split=split)
        for number, tokens in enumerate(rows):
            yield number, {"tokens": tokens}


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
