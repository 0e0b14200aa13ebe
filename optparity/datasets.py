"""Real data that needs no download: scikit-learn's handwritten digits, and the descriptions of its data sets as a text."""

from functools import cache, lru_cache
from importlib.resources import files
from typing import NamedTuple

import numpy as np


class Data(NamedTuple):
    """Examples to learn from, and held out: inputs and targets, one example per row."""

    inputs: np.ndarray
    targets: np.ndarray
    held_out_inputs: np.ndarray
    held_out_targets: np.ndarray

    def rows(self, step: int, size: int, seed: int) -> np.ndarray:
        """Which examples step 1, 2, ... learns from: each epoch is another permutation, what does not fill a batch left out.

        A function of its arguments alone, so that a run can go on anywhere.
        """
        epoch, batch = divmod(step - 1, len(self.inputs) // size)
        return _order(len(self.inputs), seed, epoch)[batch * size : (batch + 1) * size]

    def batch(self, step: int, size: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
        """Inputs and targets of a step."""
        rows = self.rows(step, size, seed)
        return self.inputs[rows], self.targets[rows]


@lru_cache(maxsize=8)
def _order(count: int, seed: int, epoch: int) -> np.ndarray:
    return np.random.default_rng([seed, epoch]).permutation(count)


@cache
def digits() -> Data:
    """1,797 images of 8 x 8, brightness from 0 to 1, as float64 [_, 64], with labels 0 to 9 as int64; a quarter of them held out."""
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    images, labels = load_digits(return_X_y=True)
    split = train_test_split(images / 16, labels, test_size=0.25, random_state=0, stratify=labels)
    train, held_out, train_labels, held_out_labels = map(np.asarray, split)
    return Data(train, train_labels, held_out, held_out_labels)


def text() -> str:
    """The descriptions of scikit-learn's data sets, 43,000 characters."""
    pages = files("sklearn.datasets.descr").iterdir()
    return "".join(page.read_text(encoding="utf-8") for page in sorted(pages, key=lambda page: page.name) if page.name.endswith(".rst"))


def characters(block_size: int) -> tuple[Data, str]:
    """The text in windows of `block_size` characters, each target the next character, and the alphabet; the last tenth is held out.

    Raises: ValueError where the text held out is shorter than a window.
    """
    whole = text()
    alphabet = "".join(sorted(set(whole)))
    code = {character: i for i, character in enumerate(alphabet)}
    tokens = np.array([code[character] for character in whole])
    train, held_out = np.split(tokens, [len(tokens) * 9 // 10])
    if len(held_out) <= block_size:
        raise ValueError(f"gpt: block_size < {len(held_out)}, the length of the text held out; got {block_size}.")
    windows, held_out_windows = (np.lib.stride_tricks.sliding_window_view(part, block_size + 1) for part in (train, held_out))
    held_out_windows = held_out_windows[::block_size]  # without overlap
    return Data(windows[:, :-1], windows[:, 1:], held_out_windows[:, :-1], held_out_windows[:, 1:]), alphabet


def unigram_entropy(tokens: np.ndarray) -> float:
    """What guessing each character by its frequency alone costs, in nats: the loss that a language model must end below."""
    share = np.bincount(tokens.ravel()) / tokens.size
    return float(-sum(p * np.log(p) for p in share if p))
