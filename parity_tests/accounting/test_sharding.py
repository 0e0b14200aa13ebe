"""ZeRO's stage 3 against torch's `fully_shard`, with a process group that only pretends; and what is in transit, by hand."""

import weakref

import pytest
import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
from torch.nn import functional as F
from torch.testing._internal.distributed.fake_pg import FakeStore
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from optparity.accounting import Setup, estimate
from optparity.accounting.sharding import in_transit

from ..sampling import EXHAUSTIVE
from .models import preset
from .test_llama import Llama, llama

DEVICES = 4
CASES = [  # V, h, L, a, k, d, f; b, s: weights are most, logits are most, both
    ((64, 128, 4, 4, 2, 32, 384), (1, 8)),
    ((2000, 64, 2, 4, 4, 16, 128), (2, 32)),
    pytest.param((500, 64, 3, 4, 4, 16, 256), (2, 16), marks=EXHAUSTIVE),
]


class Peak(TorchDispatchMode):
    """The most bytes of storages at a time, at their size of then: `fully_shard` frees by resizing."""

    def __init__(self):
        super().__init__()
        self.known, self.most = weakref.WeakSet(), 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for leaf in tree_leaves((args, kwargs, out)):
            if type(leaf) in (torch.Tensor, torch.nn.Parameter):
                self.known.add(leaf.untyped_storage())
        self.most = max(self.most, sum(storage.nbytes() for storage in self.known))
        return out


@pytest.fixture
def mesh():
    dist.init_process_group("fake", store=FakeStore(), rank=0, world_size=DEVICES)
    yield init_device_mesh("cpu", (DEVICES,))
    dist.destroy_process_group()


@pytest.mark.parametrize(("sizes", "data"), CASES)
def test_fully_shard(mesh, sizes, data):
    """At least what is measured, and less than twice: nothing overlaps in a group that pretends, so that fewer buffers stand at a time."""
    model, policy = Llama(*sizes), MixedPrecisionPolicy(param_dtype=torch.bfloat16, reduce_dtype=torch.float32)
    for unit in (*model.h, model):
        fully_shard(unit, mesh=mesh, mp_policy=policy)
    optimizer = torch.optim.Adam(model.parameters(), foreach=False)
    tokens, targets = torch.zeros(data, dtype=torch.int64), torch.zeros(data, dtype=torch.int64)

    def step():
        logits = model(tokens)
        F.cross_entropy(logits.float().view(-1, logits.shape[-1]), targets.view(-1)).backward()

    step()
    optimizer.step()
    state = sum(_bytes(of) for p in model.parameters() for of in optimizer.state[p].values())
    with Peak() as peak:
        step()
    measured = peak.most + state
    executed = estimate(llama(*sizes), *data, setup=Setup("adam", mixed_precision=True, zero_stage=3, data_parallel=DEVICES)).memory[1]
    assert measured <= executed.total < 2 * measured


def _bytes(tensor):
    return (tensor.to_local() if hasattr(tensor, "to_local") else tensor).nbytes


def test_by_hand():
    """A root of 100, two blocks of 20 and 30 elements."""
    weights = {"wte.weight": (10, 10), "h.0.mlp.weight": (4, 5), "h.1.mlp.weight": (5, 6)}
    how = {"mixed_precision": True, "data_parallel": 8}
    none, some = in_transit(weights, Setup(zero_stage=1, **how)), in_transit(weights, Setup(zero_stage=2, **how))
    every = in_transit(weights, Setup(zero_stage=3, **how))
    assert none == ({}, {}, {})
    assert some == ({}, every.gradients, {})
    assert every.weights == {"bfloat16": 2 * (100 + 3 * 30)}
    assert every.gradients == {"bfloat16": 2 * (100 + 30), "float32": 4 * 2 * 30}
    piped = in_transit(weights, Setup(zero_stage=3, pipeline_parallel=2, microbatches=2, **how))
    assert piped.weights == {"bfloat16": 2 * 150}
    assert piped.from_the_start == {"float32": 4 * 150}
    assert piped.gradients == {"float32": 4 * (150 + 2 * 30), "bfloat16": 2 * 30}


def test_the_unsharded_embedding_is_there():
    """Llama 3 8B: 1.05 billion elements outside the blocks and three blocks, in bfloat16; what stage 3 gathers and stage 2 has anyway."""
    model = preset("llama3-8b")
    two, three = (Setup(mixed_precision=True, attention="sdpa", recompute="full", zero_stage=stage, data_parallel=8) for stage in (2, 3))
    gathered = 2 * (2 * 128256 * 4096 + 4096 + 3 * (model.parameters - 2 * 128256 * 4096 - 4096) // 32)
    temporaries = [estimate(model, 1, 1, setup).memory[1].totals["temporaries"] for setup in (two, three)]
    assert temporaries[1] - temporaries[0] == gathered
