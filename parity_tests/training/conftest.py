"""A short run that tests copy, or only look at."""

import jax
import pytest

from .runs import trained


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("train") / "run"
    with jax.numpy_rank_promotion("allow"), jax.numpy_dtype_promotion("standard"):
        trained(folder, 2, task="mlp")
    return folder
