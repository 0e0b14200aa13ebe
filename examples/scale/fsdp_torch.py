"""A GPT in PyTorch in several processes, under FSDP2 or DDP, stepped by torch_ref.

torchrun --nproc-per-node 2 examples/scale/fsdp_torch.py
torchrun --nproc-per-node 4 examples/scale/fsdp_torch.py --engine ddp
"""

import argparse

import numpy as np
import torch
from torch import distributed
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
options = parser.parse_args()

distributed.init_process_group("gloo")
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

losses = []
for i in range(options.steps):
    rows = np.array_split(np.random.default_rng(i).integers(len(data.inputs), size=32), world)[rank]
    tokens, targets = (torch.from_numpy(array[rows]) for array in (data.inputs, data.targets))
    loss = cross_entropy(model(tokens).flatten(0, 1), targets.flatten())
    loss.backward()
    clip_grad_norm_(model.parameters(), 1.0)  # of DTensors the norm over all processes
    optimizer.step()
    optimizer.zero_grad()
    distributed.all_reduce(mean := loss.detach() / world)
    losses.append(mean.item())

spread = [x for fields in optimizer.state.values() for x in fields.values() if x.ndim]
own = [getattr(x, "to_local", lambda x=x: x)() for x in spread]  # of a DTensor what lies here
if rank == 0:
    print(f"{world} processes under {options.engine}")
    print(f"loss {losses[0]:.2f}, after {options.steps} steps {losses[-1]:.2f}")
    print(f"optimizer state: {sum(x.nbytes for x in own):,} of {sum(x.nbytes for x in spread):,} bytes in this process")
distributed.destroy_process_group()
