"""What the processes of test_ranks.py run: an optimizer under FSDP2, DDP and ZeroRedundancyOptimizer, beside one that is alone.

What stands around the step runs under FSDP2, where it has to look over all processes.
"""

import copy
import itertools
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import torch
from torch import distributed, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.multiprocessing.spawn import spawn
from torch.nn.parallel import DistributedDataParallel

import torch_ref
from optparity._arrays import to_torch
from optparity.around import AroundRow
from optparity.parity.streams import gradients, parameters
from optparity.registry import Row

SHAPES = {"bias": (5,), "embedding": (16, 6), "kernel": (7, 5), "scale": (1,)}  # of the names that `optparity.around` knows; few are even


def start(function: Callable[..., None], world: int, folder: Path, *arguments: Any, seconds: float = 300) -> None:
    """A process for each rank; all have ended after it, whatever became of one."""
    context = spawn(function, (world, str(folder), *arguments), nprocs=world, join=False)
    deadline = time.monotonic() + seconds
    try:
        while not context.join(max(deadline - time.monotonic(), 0)):
            if time.monotonic() > deadline:
                raise TimeoutError(f"{function.__name__} on {world} ranks took more than {seconds} s")
    finally:
        for process in context.processes:
            process.kill()


class Model(nn.Module):
    """Parameters that nothing computes with: they are fed gradients."""

    def __init__(self, dtype: str):
        super().__init__()
        for name, array in parameters(SHAPES, dtype).items():
            self.register_parameter(name, nn.Parameter(to_torch(array, copy=True)))

    def forward(self) -> torch.Tensor:
        return sum((p.sum() for p in self.parameters()), torch.zeros(()))


def fed(dtype: str, steps: int, stream: str = "normal") -> list[dict[str, torch.Tensor]]:
    start = parameters(SHAPES, dtype)
    return [
        {name: to_torch(g, copy=True) for name, g in gradient.items()} for gradient in itertools.islice(gradients(stream, start), steps)
    ]


def step(optimizer: torch.optim.Optimizer, model: nn.Module, gradient: dict[str, torch.Tensor]) -> None:
    for name, p in model.named_parameters():
        g = gradient[name.removeprefix("module.")].clone()
        p.grad = distribute_tensor(g, p.device_mesh, p.placements) if isinstance(p, DTensor) else g
    optimizer.step()


def whole(x: torch.Tensor) -> torch.Tensor:
    return (x.full_tensor() if isinstance(x, DTensor) else x).detach()


def differing(model: nn.Module, optimizer: torch.optim.Optimizer, alone: nn.Module, its: torch.optim.Optimizer) -> Iterator[str]:
    """The parameters and fields of state whose bits are not those of the one that is alone."""
    for (name, p), q in zip(model.named_parameters(), alone.parameters(), strict=True):
        if not same(whole(p), whole(q)):
            yield name
        for field, value in its.state.get(q, {}).items():
            if p in optimizer.state and not same(whole(optimizer.state[p][field]), value):
                yield f"{field} of {name}"


def same(a: torch.Tensor, b: torch.Tensor) -> bool:
    return a.dtype == b.dtype and torch.equal(a.view(torch.uint8) if a.ndim else a, b.view(torch.uint8) if b.ndim else b)


def sharded(row: Row | AroundRow, dtype: str) -> tuple[Any, Any]:
    model = fully_shard(Model(dtype), mesh=init_device_mesh("cpu", (distributed.get_world_size(),)))
    return model, row.torch(list(model.parameters()))


def engines(row: Row | AroundRow, dtype: str) -> Iterator[tuple[str, nn.Module, torch.optim.Optimizer]]:
    from torch.distributed.optim import ZeroRedundancyOptimizer  # which warns when it is imported

    yield "FSDP2", *sharded(row, dtype)
    if isinstance(row, AroundRow):
        return
    yield "DDP", (model := DistributedDataParallel(Model(dtype))), row.torch(list(model.parameters()))
    model = Model(dtype)
    yield "ZeRO", model, ZeroRedundancyOptimizer(model.parameters(), optimizer_class=cast(Any, row.torch))


def walk(rank: int, world: int, folder: str, cases: list[tuple[Row | AroundRow, str, str]], steps: int) -> None:
    """Every case on every engine; what differs is written into the folder."""
    distributed.init_process_group("gloo", init_method=f"file://{folder}/group", rank=rank, world_size=world)
    torch.set_num_threads(1)
    found = []
    for row, dtype, stream in cases:
        alone = Model(dtype)
        its = row.torch(list(alone.parameters()))
        given = fed(dtype, steps, stream)
        for gradient in given:
            step(its, alone, gradient)
        for engine, model, optimizer in engines(row, dtype):
            for gradient in given:
                step(optimizer, model, gradient)
            found += [f"{row}, {dtype}, {stream}, {engine}: {what}" for what in differing(model, optimizer, alone, its)]
    torch.save(found, f"{folder}/{rank}")
    distributed.destroy_process_group()


def save(rank: int, world: int, folder: str, cases: list[tuple[Row, str]], steps: int) -> None:
    """Under FSDP2, some steps and a torch.distributed checkpoint of each case."""
    from torch.distributed.checkpoint.state_dict import get_state_dict
    from torch.distributed.checkpoint.state_dict_saver import save as save_checkpoint

    distributed.init_process_group("gloo", init_method=f"file://{folder}/save", rank=rank, world_size=world)
    for i, (row, dtype) in enumerate(cases):
        model, optimizer = sharded(row, dtype)
        for gradient in fed(dtype, steps):
            step(optimizer, model, gradient)
        weights, state = get_state_dict(model, optimizer)
        save_checkpoint({"model": weights, "optimizer": state}, checkpoint_id=f"{folder}/{i}")
    distributed.destroy_process_group()


def load(rank: int, world: int, folder: str, cases: list[tuple[Row, str]], steps: int) -> None:
    """On another number of ranks: the checkpoint, and as many steps again; what differs from one that went all the way alone."""
    from torch.distributed.checkpoint.state_dict import get_state_dict, set_state_dict
    from torch.distributed.checkpoint.state_dict_loader import load as load_checkpoint

    distributed.init_process_group("gloo", init_method=f"file://{folder}/load", rank=rank, world_size=world)
    found = []
    for i, (row, dtype) in enumerate(cases):
        model, optimizer = sharded(row, dtype)
        weights, state = get_state_dict(model, optimizer)
        load_checkpoint({"model": weights, "optimizer": state}, checkpoint_id=f"{folder}/{i}")
        set_state_dict(model, optimizer, model_state_dict=weights, optim_state_dict=state)
        alone = Model(dtype)
        its = row.torch(list(alone.parameters()))
        given = fed(dtype, 2 * steps)
        for gradient in given:
            step(its, alone, gradient)
        for gradient in given[steps:]:
            step(optimizer, model, gradient)
        found += [f"{row}, {dtype}: {what}" for what in differing(model, optimizer, alone, its)]
    torch.save(found, f"{folder}/loaded {rank}")
    distributed.destroy_process_group()


def carry(rank: int, world: int, folder: str, cases: list[tuple[Row, str]], steps: int) -> None:
    """State that is gathered into one process and sent out again, and FSDP2's mixed precision."""
    distributed.init_process_group("gloo", init_method=f"file://{folder}/carry", rank=rank, world_size=world)
    torch.set_num_threads(1)
    found = [what for row, dtype in cases for what in (*carried_apart(row, dtype, steps), *mixed_apart(row, steps))]
    torch.save(found, f"{folder}/{rank}")
    distributed.destroy_process_group()


def carried_apart(row: Row, dtype: str, steps: int) -> Iterator[str]:
    """Some steps under FSDP2; the whole of it in process 0, as files want it; from there into a new one, which goes on."""
    from torch.distributed.checkpoint.state_dict import StateDictOptions, get_state_dict, set_model_state_dict, set_optimizer_state_dict

    given = fed(dtype, 2 * steps)
    model, optimizer = sharded(row, dtype)
    alone = Model(dtype)
    its = row.torch(list(alone.parameters()))
    for gradient in given[:steps]:
        step(optimizer, model, gradient)
        step(its, alone, gradient)
    gathered = StateDictOptions(full_state_dict=True, cpu_offload=True)
    weights, state = cast(Any, get_state_dict(model, optimizer, options=gathered))
    if distributed.get_rank():
        if weights or state:
            yield f"{row}, {dtype}: another process than 0 has {[*weights, *state]}"
    else:
        for name, p in alone.named_parameters():
            pairs = {"": (weights[name], p.detach())} | {field: (state["state"][name][field], x) for field, x in its.state[p].items()}
            yield from (f"{row}, {dtype}: gathered {field} of {name}" for field, (a, b) in pairs.items() if not same(a, b))
    model, optimizer = sharded(row, dtype)
    for p in model.parameters():
        p.data.zero_()
    sent = StateDictOptions(full_state_dict=True, broadcast_from_rank0=True)
    set_model_state_dict(model, weights, options=sent)  # set_state_dict takes an empty dict for none: the others would not wait
    set_optimizer_state_dict(model, optimizer, state, options=sent)
    for gradient in given[steps:]:
        step(optimizer, model, gradient)
        step(its, alone, gradient)
    yield from (f"{row}, {dtype}: {what}" for what in differing(model, optimizer, alone, its))


def mixed_apart(row: Row, steps: int) -> Iterator[str]:
    """Computed in bfloat16, summed and stepped in float32: beside a process that is given the same gradients."""
    torch.manual_seed(0)
    alone: Any = nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 3))
    model: Any = copy.deepcopy(alone)
    mesh = init_device_mesh("cpu", (distributed.get_world_size(),))
    model = fully_shard(model, mesh=mesh, mp_policy=MixedPrecisionPolicy(torch.bfloat16, torch.float32))
    optimizer, its = row.torch(list(model.parameters())), row.torch(list(alone.parameters()))
    for i in range(steps):
        out = model(torch.randn(4, 6, generator=torch.Generator().manual_seed(8 * i + distributed.get_rank())))
        out.square().sum().backward()
        for p, q in zip(model.parameters(), alone.parameters(), strict=True):
            q.grad = p.grad.full_tensor()
        optimizer.step()
        its.step()
        optimizer.zero_grad()
        if out.dtype != torch.bfloat16 or any(q.grad.dtype != torch.float32 for q in alone.parameters()):
            yield f"{row}: not in mixed precision"
    yield from (f"{row}, mixed: {what}" for what in differing(model, optimizer, alone, its))


def train(rank: int, world: int, folder: str, steps: int) -> None:
    """A whole recipe under FSDP2: its parameters, moments and averages beside those of one that is alone."""
    distributed.init_process_group("gloo", init_method=f"file://{folder}/recipe", rank=rank, world_size=world)
    found = list(recipes_apart(steps))
    torch.save(found, f"{folder}/{rank}")
    distributed.destroy_process_group()


def recipes_apart(steps: int) -> Iterator[str]:
    models: Any = fully_shard(Model("float32"), mesh=init_device_mesh("cpu", (distributed.get_world_size(),))), Model("float32")
    spread, alone = (torch_ref.Recipe(model, 0.1, steps, every=2, ema_decay=0.75) for model in models)
    for gradient in fed("float32", steps):
        for recipe, model in zip((spread, alone), models, strict=True):
            step(cast(Any, recipe), model, gradient)
    yield from differing(models[0], spread.optimizer, models[1], alone.optimizer)
    for (name, a), b in zip(spread.average.averaged().items(), alone.average.averaged().values(), strict=True):
        if not isinstance(a, DTensor) or not same(whole(a), b):
            yield f"average of {name}"
