"""Several processes: every optimizer under torch's own engines has the bits of one process."""

import re
from itertools import product

import numpy as np
import pytest
import torch
from torch import distributed
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, Partial, Replicate, Shard

import torch_ref
from optparity import interop
from optparity.around import AROUND_ROWS, PIECES, AroundRow

from ..sampling import DEFAULTS, EXHAUSTIVE, FULL
from . import ranks

FIRST = [AroundRow(name, next(iter(piece.rows))) for name, piece in PIECES.items()]


LOOKING_EVERYWHERE = ("loss_scale", "apply_if_finite", "clip_by_global_norm")  # for infinities


@pytest.mark.parametrize(
    ("world", "cases", "steps"),
    [
        (
            2,
            [
                *((row, "float32", "normal") for row in FULL),
                *((row, row.dtypes[0], "normal") for row in FIRST),
                *((row, row.dtypes[0], "inf") for row in FIRST if row.piece in LOOKING_EVERYWHERE),
            ],
            5,
        ),
        *(
            pytest.param(world, list(product([*FULL, *DEFAULTS], ["float32", "bfloat16"], ["normal"])), 100, marks=EXHAUSTIVE)
            for world in (2, 4)
        ),
        *(
            pytest.param(4, [(row, dtype, stream) for row in AROUND_ROWS for dtype in row.dtypes], 12, marks=EXHAUSTIVE)
            for stream in ("normal", "inf", "nan")
        ),
    ],
    ids=["2 ranks", "rules, 100 steps, 2 ranks", "rules, 100 steps, 4 ranks", "pieces", "pieces, infinities", "pieces, NaN"],
)
def test_ranks_change_no_bit(world, cases, steps, tmp_path):
    """FSDP2, DDP and ZeroRedundancyOptimizer: parameters and state."""
    ranks.start(ranks.walk, world, tmp_path, cases, steps, seconds=300 + steps * len(cases))
    assert [torch.load(tmp_path / str(rank)) for rank in range(world)] == [[]] * world


@pytest.mark.parametrize(
    ("before", "after", "rows"),
    [(2, 1, [row for row in FULL if row.optimizer in ("adam", "sgd")]), pytest.param(2, 4, FULL, marks=EXHAUSTIVE)],
    ids=["2 to 1", "2 to 4"],
)
def test_a_checkpoint_is_loaded_by_another_number_of_ranks(before, after, rows, tmp_path):
    """torch.distributed.checkpoint of model and optimizer under FSDP2; it goes on with the bits of one process."""
    cases = list(product(rows, ["float32", "bfloat16"]))
    ranks.start(ranks.save, before, tmp_path, cases, 5)
    ranks.start(ranks.load, after, tmp_path, cases, 5)
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
        optimizer._next_step("params[0]", p, g, optimizer.param_groups[0])


def test_interop_refuses_what_is_spread(one_rank):
    p = torch.nn.Parameter(DTensor.from_local(torch.ones(4), one_rank, [Shard(0)]))
    p.grad = torch.ones_like(p)
    optimizer = torch_ref.Adam([p], lr=0.1)
    optimizer.step()
    with pytest.raises(TypeError, match=r"a whole tensor is needed; got a DTensor: call full_tensor\(\) in every process"):
        interop.from_torch(optimizer.state_dict(), {"w": np.ones(4, np.float32)}, optimizer="Adam")


@pytest.mark.parametrize("row", [row for row in FULL if row.optimizer in ("adam", "sgd")], ids=str)
def test_state_is_gathered_and_sent_out_again(row, one_rank):
    """`full_state_dict`, `cpu_offload` and `broadcast_from_rank0`; and FSDP2's mixed precision."""
    assert [*ranks.carried_apart(row, "bfloat16", 3), *ranks.mixed_apart(row, 3)] == []


@EXHAUSTIVE
@pytest.mark.parametrize("world", [2, 4])
def test_state_is_gathered_from_several_ranks_and_sent_out_again(world, tmp_path):
    ranks.start(ranks.carry, world, tmp_path, list(product([*FULL, *DEFAULTS], ["float32", "bfloat16"])), 5, seconds=900)
    assert [torch.load(tmp_path / str(rank)) for rank in range(world)] == [[]] * world


def test_a_recipe_and_its_average_under_fsdp2(one_rank):
    """Whose modules cannot be copied."""
    assert list(ranks.recipes_apart(6)) == []


@EXHAUSTIVE
@pytest.mark.parametrize("world", [2, 4])
def test_a_recipe_on_several_ranks(world, tmp_path):
    ranks.start(ranks.train, world, tmp_path, 20)
    assert [torch.load(tmp_path / str(rank)) for rank in range(world)] == [[]] * world


def test_an_average_under_fsdp2_says_what_it_cannot_do(one_rank):
    model = fully_shard(torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.BatchNorm1d(2)), mesh=one_rank)
    average = torch_ref.AveragedModel(model, decay=0.5)
    assert list(average.module.state_dict()) == list(model.state_dict())
    with pytest.raises(RuntimeError, match="params_ema: the averages of a model under FSDP2 do not compute; load"):
        average(torch.ones(2, 3))
    model.unshard()
    with pytest.raises(ValueError, match=r"params_ema: the averages are sharded, but the model is not now; call its reshard\(\) before\."):
        average.update_parameters(model)
    model.reshard()
    average.update_parameters(model)
    assert int(average.n_averaged) == 1
