"""What can be trained: for each task its model, its data, its loss, and how large."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from ..datasets import Data, characters, digits


@dataclass(frozen=True)
class Task:
    """One model on its data.

    Attributes:
        model: the name of the class in `models.in_torch` and in `models.in_flax`.
        loss: "cross_entropy" or "mean_squared_error", a mean over everything that is predicted.
        load: from `settings` the data, and the rest of the model's arguments, which the data determines.
        settings: the model's arguments that one may choose, with what they are otherwise.
        batch_size, steps: what they are by default.
        unit: what is counted as throughput.
    """

    model: str
    loss: str
    load: Callable[[Mapping[str, int]], tuple[Data, dict[str, int]]]
    settings: dict[str, int]
    batch_size: int
    steps: int
    unit: str = "examples"

    @property
    def score(self) -> str:
        """What is right of what is held out: "accuracy", or "r2", the share of the targets' variance that is explained."""
        return "accuracy" if self.loss == "cross_entropy" else "r2"

    def arguments(self, chosen: Mapping[str, int]) -> tuple[Data, dict[str, int]]:
        """The data, and the model's arguments, with these of `settings` chosen.

        Raises: ValueError where a name is none of `settings` or a size is not positive.
        """
        for name, value in chosen.items():
            if name not in self.settings:
                raise ValueError(f"{self.model}: unknown setting {name!r}; one of {', '.join(self.settings)} is needed.")
            if type(value) is not int or value < 1:
                raise ValueError(f"{self.model}: {name} is a positive integer; got {value}.")
        settings = {**self.settings, **chosen}
        data, determined = self.load(settings)
        return data, {**settings, **determined}


def _labels(settings) -> tuple[Data, dict[str, int]]:
    data = digits()
    inputs, held_out = (images.astype(np.float32) for images in (data.inputs, data.held_out_inputs))
    return data._replace(inputs=inputs, held_out_inputs=held_out), {"in_features": inputs.shape[1], "out_features": 10}


def _label_as_a_number(settings) -> tuple[Data, dict[str, int]]:
    """Pixels around their mean, and the label as a number of mean 0 and deviation 1."""
    data = digits()
    mean, deviation = data.inputs.mean(0), data.inputs.std()
    center, spread = data.targets.mean(), data.targets.std()
    inputs, held_out = (((images - mean) / deviation).astype(np.float32) for images in (data.inputs, data.held_out_inputs))
    targets, held_out_targets = (((labels - center) / spread).astype(np.float32) for labels in (data.targets, data.held_out_targets))
    return Data(inputs, targets, held_out, held_out_targets), {"dim": inputs.shape[1]}


def _next_character(settings) -> tuple[Data, dict[str, int]]:
    data, alphabet = characters(settings["block_size"])
    return data, {"vocab_size": len(alphabet)}


TASKS = {
    "cruncher": Task(
        "Cruncher",
        "mean_squared_error",
        _label_as_a_number,
        {"num_layers": 2},
        batch_size=64,
        steps=300,
    ),
    "mlp": Task("MLP", "cross_entropy", _labels, {"hidden_features": 32}, batch_size=64, steps=1000),
    "gpt": Task(
        "GPT",
        "cross_entropy",
        _next_character,
        {"block_size": 64, "n_layer": 2, "n_head": 4, "n_embd": 64},
        batch_size=16,
        steps=1000,
        unit="characters",
    ),
}
