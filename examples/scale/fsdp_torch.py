"""A GPT in PyTorch in several processes, under FSDP2 or DDP, stepped by torch_ref.

torchrun --nproc-per-node 2 examples/scale/fsdp_torch.py
torchrun --nproc-per-node 4 examples/scale/fsdp_torch.py --engine ddp
torchrun --nproc-per-node 2 examples/scale/fsdp_torch.py --checkpoints out/run  # the same again goes on from the newest
"""

import argparse
from datetime import timedelta
from pathlib import Path

import numpy as np
import torch
from torch import distributed
from torch.distributed.checkpoint.state_dict import get_state_dict, set_state_dict
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import save
from torch.distributed.checkpoint.stateful import Stateful
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.nn.functional import cross_entropy
from torch.nn.parallel import DistributedDataParallel

from optparity.datasets import characters
from optparity.models.in_torch import GPT
from torch_ref import AdamW, clip_grad_norm_

parser = argparse.ArgumentParser()
parser.add_argument("--engine", choices=["fsdp", "ddp"], default="fsdp")
parser.add_argument("--steps", type=int, default=60)
parser.add_argument("--checkpoints", type=Path, help="a folder that all processes see")
parser.add_argument("--every", type=int, default=20, help="steps between checkpoints")
parser.add_argument("--timeout", type=int, default=60, help="seconds until a process that is silent counts as lost")
options = parser.parse_args()

distributed.init_process_group("gloo", timeout=timedelta(seconds=options.timeout))
rank, world = distributed.get_rank(), distributed.get_world_size()
data, alphabet = characters(block_size=32)
torch.manual_seed(0)
model = GPT(len(alphabet), 32, n_layer=2, n_head=2, n_embd=32)
if options.engine == "fsdp":
    mesh = init_device_mesh("cpu", (world,))
    for block in model.h:
        fully_shard(block, mesh=mesh)
    fully_shard(model, mesh=mesh)
else:
    model = DistributedDataParallel(model)
optimizer = AdamW(model.parameters(), lr=1e-2)


class Run(Stateful):
    """The model and its optimizer, as torch.distributed.checkpoint takes them."""

    def state_dict(self):
        return dict(zip(("model", "optimizer"), get_state_dict(model, optimizer), strict=True))

    def load_state_dict(self, state_dict):
        set_state_dict(model, optimizer, model_state_dict=state_dict["model"], optim_state_dict=state_dict["optimizer"])


def newest() -> int:
    """The step of the newest whole checkpoint: .metadata is written last. It is the one that process 0 sees."""
    whole = options.checkpoints.glob("*/.metadata") if options.checkpoints else ()
    step = torch.tensor(max((int(file.parent.name) for file in whole), default=0))
    distributed.broadcast(step, 0)
    return int(step)


def train(i: int) -> float:
    """A step on this process' rows of a batch that all draw; the loss of the whole batch."""
    rows = np.array_split(np.random.default_rng(i).integers(len(data.inputs), size=32), world)[rank]
    tokens, targets = (torch.from_numpy(array[rows]) for array in (data.inputs, data.targets))
    loss = cross_entropy(model(tokens).flatten(0, 1), targets.flatten())
    loss.backward()
    clip_grad_norm_(model.parameters(), 1.0)  # of DTensors the norm over all processes
    optimizer.step()
    optimizer.zero_grad()
    distributed.all_reduce(mean := loss.detach() / world)
    return mean.item()


losses, done = [], 0
try:
    if done := newest():
        load({"run": Run()}, checkpoint_id=options.checkpoints / str(done))
    while done < options.steps:
        losses.append(train(done))
        done += 1
        if options.checkpoints and (done % options.every == 0 or done == options.steps):
            save({"run": Run()}, checkpoint_id=options.checkpoints / str(done))
except RuntimeError as error:  # gloo's, where another process has ended or is silent
    error.add_note(f"Process {rank} of {world} had taken {done} steps. Start all again: they go on from the newest checkpoint.")
    raise

spread = [x for fields in optimizer.state.values() for x in fields.values() if x.ndim]
own = [getattr(x, "to_local", lambda x=x: x)() for x in spread]  # of a DTensor what lies here
if rank == 0:
    print(f"{world} processes under {options.engine}")
    if losses:
        print(f"loss {losses[0]:.2f}, after {options.steps} steps {losses[-1]:.2f}")
    print(f"optimizer state: {sum(x.nbytes for x in own):,} of {sum(x.nbytes for x in spread):,} bytes in this process")
distributed.destroy_process_group()
