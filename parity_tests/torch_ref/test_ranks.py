"""Several processes: every optimizer under torch's own engines has the bits of one process."""

import re
from itertools import product

import pytest
import torch
from torch import distributed, multiprocessing
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor, Partial, Replicate, Shard

import torch_ref

from ..sampling import DEFAULTS, EXHAUSTIVE, FULL
from . import ranks


@pytest.mark.parametrize(
    ("world", "rows", "dtypes", "steps"),
    [(2, FULL, ["float32"], 5), pytest.param(4, [*FULL, *DEFAULTS], ["float32", "bfloat16"], 100, marks=EXHAUSTIVE)],
    ids=["2 ranks", "4 ranks"],
)
def test_ranks_change_no_bit(world, rows, dtypes, steps, tmp_path):
    """DDP, FSDP2 and ZeroRedundancyOptimizer: parameters and state."""
    multiprocessing.spawn(ranks.walk, (world, str(tmp_path), list(product(rows, dtypes)), steps), nprocs=world)
    assert [torch.load(tmp_path / str(rank)) for rank in range(world)] == [[]] * world


@pytest.mark.parametrize(
    ("before", "after", "rows"),
    [(2, 1, [row for row in FULL if row.optimizer in ("adam", "sgd")]), pytest.param(2, 4, FULL, marks=EXHAUSTIVE)],
    ids=["2 to 1", "2 to 4"],
)
def test_a_checkpoint_is_loaded_by_another_number_of_ranks(before, after, rows, tmp_path):
    """torch.distributed.checkpoint of model and optimizer under FSDP2; it goes on with the bits of one process."""
    cases = list(product(rows, ["float32", "bfloat16"]))
    multiprocessing.spawn(ranks.save, (before, str(tmp_path), cases, 5), nprocs=before)
    multiprocessing.spawn(ranks.load, (after, str(tmp_path), cases, 5), nprocs=after)
    assert [torch.load(tmp_path / f"loaded {rank}") for rank in range(after)] == [[]] * after


@pytest.fixture
def one_rank(tmp_path):
    distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/group", rank=0, world_size=1)
    yield init_device_mesh("cpu", (1,))
    distributed.destroy_process_group()


@pytest.mark.parametrize(
    ("of_gradient", "of_parameter", "words"),
    [
        ([Replicate()], [Shard(0)], "is spread as S(0) but its gradient is spread as R"),
        (None, [Shard(0)], "is spread as S(0) but its gradient is whole"),
        ([Partial()], [Partial()], "is spread as P(sum) but its gradient is spread as P(sum)"),
    ],
)
def test_a_gradient_that_is_spread_otherwise_is_refused(one_rank, of_gradient, of_parameter, words):
    """A partial one is a sum that is still to be made: its square would be wrong."""
    p = torch.nn.Parameter(DTensor.from_local(torch.ones(4), one_rank, of_parameter))
    optimizer = torch_ref.Adam([p], lr=0.1)
    g = DTensor.from_local(torch.ones(4), one_rank, of_gradient) if of_gradient else torch.ones(4)
    with pytest.raises(ValueError, match=re.escape(f"adam: leaf params[0] {words}; the same placements, none partial, are needed.")):
        optimizer._step_parameter("params[0]", p, g, optimizer.param_groups[0])
