"""The article's model: its numbers, PyTorch's and XLA's."""

import jax
import jax.numpy as jnp
import pytest

from optparity.accounting import (
    PRESETS,
    Cruncher,
    Setup,
    estimate,
    jax_flops,
    jax_memory,
    measure_jax,
    measure_torch,
    torch_flops,
)
from optparity.models import in_torch

from .models import CRUNCHERS, assert_is_the_peak, cruncher_in_jax, held, on_meta, squared_loss


@pytest.mark.parametrize(
    ("optimizer", "article", "executed", "kept"), [("adagrad", 496, 652, 144), ("sgd", 352, 496, 0), ("adam", 640, 796, 288)]
)
def test_the_articles_numbers_and_the_executed_ones_come_of_one_call(optimizer, article, executed, kept):
    cost = estimate(PRESETS["cruncher"], batch=2, setup=Setup(optimizer))
    assert cost.parameters == 36
    assert {memory.label: memory.total for memory in cost.memory} == {"the article": article, "executed (torch)": executed}
    assert cost.flops == {"6nd": 432, "executed": 368}
    assert cost.memory[0].totals == {
        **{"parameters": 144, "gradients": 144, "activations": 64, "temporaries": 0},
        "optimizer_state": kept,
    }


@pytest.mark.parametrize(("batch", "dim", "layers"), CRUNCHERS)
def test_cruncher_in_torch(batch, dim, layers):
    config, model = Cruncher(dim, layers), on_meta(in_torch.Cruncher, dim, layers)
    assert {name: tuple(p.shape) for name, p in model.named_parameters()} == config.weights()
    loss = squared_loss(model, batch, dim)
    executed = estimate(config, batch, setup=Setup("adagrad")).memory[1]
    measured = measure_torch(model, loss, "adagrad")
    assert held(measured) == held(executed)
    assert measured.totals["activations"] == 4 * (batch * dim * layers + batch * dim + 2 * batch)
    assert torch_flops(loss) == config.flops(batch)
    requires_grad = squared_loss(model, batch, dim, inputs_require_grad=True)
    assert torch_flops(requires_grad) == config.flops(batch, inputs_require_grad=True) == 6 * batch * config.parameters


@pytest.mark.parametrize(("batch", "dim", "layers"), CRUNCHERS)
def test_cruncher_in_jax(batch, dim, layers):
    """Residuals exact; XLA's temporaries are others (see `Cruncher.activations`), its FLOPs within 1 % where rows are 8 or more."""
    config = Cruncher(dim, layers)
    params, loss = cruncher_in_jax(dim, layers)
    x, y = jax.ShapeDtypeStruct((batch, dim), jnp.float32), jax.ShapeDtypeStruct((batch,), jnp.float32)
    executed = estimate(config, batch, setup=Setup("adagrad", framework="jax", donate=True)).memory[1]
    measured = measure_jax(loss, params, x, y, optimizer="adagrad")
    for component in ("parameters", "gradients", "optimizer_state", "activations"):
        assert measured.components[component] == executed.components[component]
    assert measured.totals["activations"] == 4 * (batch * dim * layers + batch * dim + batch)
    if min(batch, dim) >= 8:
        assert jax_flops(jax.grad(loss), params, x, y) == pytest.approx(config.flops(batch), rel=0.01)


@pytest.mark.parametrize(("batch", "dim", "layers"), [(64, 32, 4), (128, 64, 2), (256, 16, 3), (1024, 64, 2), (512, 32, 6)])
def test_xlas_temporaries_of_cruncher(batch, dim, layers):
    """More rows than columns, so that no output has room for an activation: 1 or 2 activations above 4BDL, and scraps."""
    params, loss = cruncher_in_jax(dim, layers)
    x, y = jax.ShapeDtypeStruct((batch, dim), jnp.float32), jax.ShapeDtypeStruct((batch,), jnp.float32)
    above, scraps = divmod(jax_memory(jax.grad(loss), params, x, y)["temp"] - 4 * batch * dim * layers, 4 * batch * dim)
    assert above in (1, 2)
    assert scraps < 4 * batch * dim / 8


@pytest.mark.parametrize("layers", [1, 2, 3, 4, 6])
@pytest.mark.parametrize(("batch", "dim"), [(16, 64), (32, 64), (64, 128)])
def test_xlas_temporaries_where_outputs_have_room(batch, dim, layers):
    """No more rows than columns: activations lie in the gradients' buffers, at most three in temporaries; 4BDL at L = 3, by chance.

    So where the weights come layer by layer; in another order (as a dict sorts them) it is one less.
    """

    def loss(weights, x, y):
        for weight in weights:
            x = x @ weight
        return jnp.square(x.squeeze(-1) - y).mean()

    weights = [jax.ShapeDtypeStruct((dim, columns), jnp.float32) for columns in (*[dim] * layers, 1)]
    x, y = jax.ShapeDtypeStruct((batch, dim), jnp.float32), jax.ShapeDtypeStruct((batch,), jnp.float32)
    assert jax_memory(jax.grad(loss), weights, x, y)["temp"] == 4 * batch * dim * min(layers + 1, 3)


@pytest.mark.parametrize(("batch", "dim", "layers"), [*CRUNCHERS, (512, 8, 1), (4096, 16, 3), (3, 64, 2)])
def test_peak_of_cruncher_in_torch(batch, dim, layers):
    config, model = Cruncher(dim, layers), on_meta(in_torch.Cruncher, dim, layers)
    loss, data = squared_loss(model, batch, dim), 4 * (batch * dim + batch)
    assert_is_the_peak(model, loss, data, estimate(config, batch, setup=Setup("sgd")).memory[1])
