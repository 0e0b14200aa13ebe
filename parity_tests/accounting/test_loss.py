"""The head and the loss against torch, to the byte: cast explicitly, by autocast, in chunks."""

from math import prod

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from optparity.accounting import Setup, estimate, measure_torch, torch_peak
from optparity.models import in_torch

from .models import GPTS, assert_is_the_peak, held, on_meta, preset, transformer

SIZES = [(500, 16, 64), (1000, 8, 48), (3001, 24, 31), (1000, 200, 20)]  # V, h, tokens


class Head(nn.Module):
    """A model that is nothing but a head: everything after ln_f."""

    def __init__(self, width, vocab):
        super().__init__()
        self.head = nn.Linear(width, vocab, bias=False)

    def forward(self, x):
        return self.head(x)


def explicit(model, x, targets):
    logits = model(x)
    return F.cross_entropy(logits.float(), targets), logits


def autocast(model, x, targets):
    with torch.autocast("cpu", torch.bfloat16):
        logits = model(x)
        return F.cross_entropy(logits, targets), logits


class InChunks(torch.autograd.Function):
    """Fused linear cross-entropy as anybody would write it: the gradients of some rows at a time, made with the loss."""

    @staticmethod
    def forward(ctx, x, weight, targets, rows):
        of_x, of_weight, total = torch.empty_like(x), torch.zeros_like(weight), 0.0
        for start in range(0, len(x), rows):
            some = slice(start, start + rows)
            own = torch.autograd.graph.saved_tensors_hooks(lambda tensor: tensor, lambda tensor: tensor)  # gone before the backward pass
            with torch.enable_grad(), own:
                part, w = x[some].detach().requires_grad_(), weight.detach().requires_grad_()
                logits = part @ w.T
                loss = F.cross_entropy(logits.float(), targets[some], reduction="sum") / len(x)
            one, another = torch.autograd.grad(loss, (part, w))
            of_x[some] = one
            of_weight += another
            total = total + loss.detach()
            del logits, loss, one, another, part, w
        ctx.save_for_backward(of_x, of_weight)
        return total

    @staticmethod
    def backward(ctx, *of_loss):
        of_x, of_weight = ctx.saved_tensors
        return of_x * of_loss[0], of_weight * of_loss[0], None, None


def last_hidden(model, tokens):
    """The head's input."""
    x = model.wte(tokens) + model.wpe(torch.arange(tokens.shape[-1], device=tokens.device))
    for block in model.h:
        x = block(x)
    return model.ln_f(x)


def model_and_data(vocab, width, tokens, device):
    model = Head(width, vocab).to(torch.bfloat16).to(device)
    x = torch.zeros(tokens, width, dtype=torch.bfloat16, device=device, requires_grad=True)
    targets = torch.zeros(tokens, dtype=torch.int64, device=device)
    for leaf in (x, *model.parameters()):
        leaf.grad = torch.zeros_like(leaf)
    return model, x, targets


@pytest.mark.parametrize("way", [explicit, autocast])
@pytest.mark.parametrize(("vocab", "width", "tokens"), SIZES)
def test_the_loss_in_float32(way, vocab, width, tokens):
    """2 + 3 × 4 bytes for each logit at the peak: held by the caller, log-probabilities, two gradients. Or a wide head's gradients."""
    model, x, targets = model_and_data(vocab, width, tokens, "cpu")
    kept = measure_torch(model, lambda: way(model, x, targets)[0]).activations
    logits = vocab * tokens
    assert kept == {"bfloat16": 2 * tokens * width, "float32": 4 * logits + 4, "int64": 8 * tokens}
    keep = []

    def loss():
        value, logits = way(model, x, targets)
        keep.append(logits)
        return value

    at_the_head = 2 * (2 * logits + vocab * width + tokens * width)  # held, and three gradients
    assert torch_peak(loss) == max(14 * logits, at_the_head) + 2 * 4  # and the loss, and its gradient


@pytest.mark.parametrize(("sizes", "data"), GPTS)
@pytest.mark.parametrize("kind", ["as-is", "float32", "chunked"])
def test_a_whole_model(sizes, data, kind):
    """What autograd keeps, and the peak."""
    config, model = transformer(*sizes), on_meta(in_torch.GPT, *sizes).to(torch.bfloat16)
    tokens, targets = (torch.zeros(*data, dtype=torch.int64, device="meta") for _ in range(2))
    keep = []

    def loss():
        keep.clear()
        if kind == "chunked":
            x = last_hidden(model, tokens)
            return InChunks.apply(x.view(-1, x.shape[-1]), model.wte.weight, targets.view(-1), 16)
        logits = model(tokens)
        if kind == "float32":
            keep.append(logits)
            logits = logits.float()
        return F.cross_entropy(logits.view(-1, logits.shape[-1]), targets.view(-1))

    executed = estimate(config, *data, setup=Setup(dtype="bfloat16", loss=kind, loss_chunk=16)).memory[1]
    assert held(measure_torch(model, loss)) == held(executed)
    keep.clear()
    assert_is_the_peak(model, loss, 2 * 8 * prod(data), executed)


def test_the_estimators_loss_is_that():
    """Of one block and no other: the place of the loss has what was measured above."""
    config = transformer(3001, 31, 1, 1, 24)
    places = config.temporaries(1, 31, dtype="bfloat16", loss="float32")
    kept = config.activations(1, 31, dtype="bfloat16", loss="float32")
    logits = 3001 * 31
    assert kept["float32"] - config.activations(1, 31, dtype="bfloat16").get("float32", 0) == 4 * logits + 4
    assert places["log-softmax"] == {"bfloat16": 2 * logits, "float32": 8 * logits + 2 * 4}


def test_chunks_need_no_logits():
    """Whatever the tokens, there is one chunk."""
    few, many = (preset("llama3-8b").temporaries(1, seq, loss="chunked", loss_chunk=100)["log-softmax"] for seq in (8192, 16384))
    stream = 4 * 4096 * 8192
    assert many["float32"] - few["float32"] == stream
    assert few["float32"] == stream + 4 * (4 * 100 * 128256 + 1) + 2 * 4


@pytest.mark.parametrize("mixed", [True, False])
def test_the_default_is_what_trainers_do(mixed):
    assert Setup(mixed_precision=mixed).loss == ("float32" if mixed else "as-is")
