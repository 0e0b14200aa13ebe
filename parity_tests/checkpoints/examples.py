"""Checkpoints of torch to convert, good and altered."""

import json
from collections import OrderedDict

import safetensors.numpy
import torch

from ..interop.states import altered

OUTPUTS = ("out", "out.safetensors")
ADAM = ("--optimizer", "Adam")
STATE = "optimizer__state__1"


def trained(make, *, dtype=torch.float32, steps=3, groups=lambda model: model.parameters()):
    """A model with buffers and its optimizer, after some steps."""
    torch.manual_seed(0)
    model = torch.nn.Sequential(OrderedDict(a=torch.nn.Linear(3, 4), norm=torch.nn.BatchNorm1d(4), b=torch.nn.Linear(4, 4))).to(dtype)
    optimizer = make(groups(model))
    for _ in range(steps):
        optimizer.zero_grad()
        model(torch.randn(5, 3, dtype=dtype)).square().sum().backward()
        optimizer.step()
    return {"model": model.state_dict(), "optimizer": optimizer.state_dict()}


def changed(**changes):
    """A good checkpoint of Adam with changes; a change to None removes."""
    return altered(trained(torch.optim.Adam, groups=lambda model: model.named_parameters()), changes)


def arrays_and_facts(path):
    arrays = safetensors.numpy.load_file(path)
    with safetensors.safe_open(path, framework="numpy") as file:
        return arrays, json.loads(file.metadata()["optparity"])
