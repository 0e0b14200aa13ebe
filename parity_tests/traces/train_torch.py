"""A training script in PyTorch, with the lines that record it: `python -m parity_tests.traces.train_torch FOLDER [MISTAKE ...]`.

A mistake is made from step BEGINS on; each trains into a folder of its name.
"""

import sys
from pathlib import Path

import torch
from torch.nn import functional as F

import torch_ref
from optparity import record_torch
from optparity.parity.subnormals import torch_flushing_like_jax

from .digits_run import BEGINS, HIDDEN, MAX_NORM, STEPS, batch, rates, start

MISTAKES = ("none", "order", "loss", "gradient", "clip", "optimizer", "schedule")


class Model(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.hidden, self.output = torch.nn.Linear(64, HIDDEN), torch.nn.Linear(HIDDEN, 10)
        with torch.no_grad():
            for name, leaves in start().items():
                getattr(self, name).weight.copy_(torch.tensor(leaves["kernel"]).T)
                getattr(self, name).bias.copy_(torch.tensor(leaves["bias"]))

    def forward(self, images):
        return self.output(torch.tanh(self.hidden(images)))


def train(folder: Path, mistake: str) -> None:
    model = Model()
    optimizer = torch_ref.Adam(model.parameters())
    making = ["none"]
    model.output.weight.register_hook(lambda gradient: gradient * 1.02 if making == ["gradient"] else gradient)
    recorder = record_torch(optimizer, folder, model=model, tensors="all")
    for step in range(1, STEPS + 1):
        made = making[0] = mistake if step >= BEGINS else "none"
        images, labels = map(torch.tensor, batch(step, seed=1 if made == "order" else 0))
        optimizer.param_groups[0]["lr"] = float(rates()[step - 2 if made == "schedule" else step - 1])
        optimizer.param_groups[0]["betas"] = (0.9, 0.99 if made == "optimizer" else 0.999)
        optimizer.zero_grad()
        loss = F.cross_entropy(model(images), labels.long(), label_smoothing=0.1 if made == "loss" else 0.0)
        loss.backward()
        torch_ref.clip_grad_norm_(model.parameters(), 1.1 * MAX_NORM if made == "clip" else MAX_NORM)
        recorder.note(loss=loss, batch=(images, labels))
        optimizer.step()
    recorder.close()


def main(folder: str, *mistakes: str) -> None:
    with torch_flushing_like_jax():
        for mistake in mistakes or MISTAKES[:1]:
            train(Path(folder) / mistake, mistake)


if __name__ == "__main__":
    main(*sys.argv[1:])
