"""The head and the loss: which tensors of b s V elements there are, by how the cross-entropy is computed.

V words of a large vocabulary make these the largest tensors of many steps: 128,256 words and 32,768 tokens are 16.8 GB in float32.

    as-is     log-softmax in the logits' own dtype. 3 of them at the peak: log-probabilities, two gradients. 4 where the vocabulary
              is divided by tensor parallelism.
    float32   logits cast first, as trainers do under mixed precision. The caller holds the logits too (`out = model(x)`), so that
              a half dtype has 2 + 3 × 4 bytes for each logit, divided 2 + 4 × 4. The cast copy is gone when the gradients come.
    chunked   head and loss for some tokens at a time, gradients made at once (fused linear cross-entropy): b s V never exists. The forward
              pass keeps the gradients of the head and of its input.
"""

from .kept import InFlight, Kept, Saved
from .saved import Tensors

LOSSES = ("as-is", "float32", "chunked")
CHUNK = 1024  # tokens at a time, unless it is said


def after(tensors: Tensors, loss: str, chunk: int) -> Kept:
    """What is kept after the blocks, in order: the final norm, the head and the loss."""
    yield from tensors.norm("ln_f", tensors.waiting)
    yield Saved("logits", tensors.tokens * tensors.vocab_size, "float32", only="korthikanti")
    yield from {"as-is": _as_is, "float32": _float32}[loss](tensors) if loss != "chunked" else _chunked(tensors, chunk)


def scalar_dtype(loss: str, dtype: str) -> str:
    """Of the loss itself."""
    return dtype if loss == "as-is" else "float32"


def _as_is(tensors: Tensors) -> Kept:
    logits = tensors.tokens * tensors.vocab_size
    yield from _head(tensors)
    yield from _capped(tensors)
    yield Saved("log-probabilities", logits, tensors.dtype, only="executed")
    yield from _targets(tensors, tensors.dtype)
    yield InFlight("log-softmax", _gradients(tensors) * logits)


def _float32(tensors: Tensors) -> Kept:
    logits = tensors.tokens * tensors.vocab_size
    yield Saved("logits of the caller", logits, tensors.dtype, only="held")
    yield from _head(tensors)
    yield from _capped(tensors)
    yield Saved("log-probabilities", logits, "float32", only="executed")
    yield from _targets(tensors, "float32")
    yield InFlight("log-softmax", 0, float32=_gradients(tensors) * logits)


def _chunked(tensors: Tensors, chunk: int) -> Kept:
    """The gradients are made with the loss; the backward pass multiplies them by the loss's own."""
    rows = min(chunk, tensors.tokens)
    logits = rows * tensors.vocab_size
    yield Saved("target indices of the caller", tensors.tokens, "int64", only="held")
    yield InFlight("head", tensors.stream + tensors.table)
    yield Saved("gradient of the head input", tensors.stream, tensors.dtype, only="executed")
    yield Saved("gradient of the head", tensors.table, tensors.dtype, only="executed")
    if tensors.model.head_bias:
        yield Saved("gradient of the head's bias", _bias(tensors), tensors.dtype, only="executed")
    of_chunk, capped = rows * tensors.model.hidden_size, logits if tensors.model.logit_softcap else 0
    yield InFlight(
        "log-softmax", tensors.stream + logits + capped, float32=(1 + _gradients(tensors)) * logits + 1
    )  # going forward: the head's input, a chunk's, the sum
    yield InFlight("head of a chunk", tensors.stream + 2 * logits + tensors.table + of_chunk + _bias(tensors))


def _gradients(tensors: Tensors) -> int:
    """Of the size of the logits beside the log-probabilities.

    The gradients of nll_loss and of log_softmax; or, where the vocabulary is divided, one gradient, the softmax and their sum (torch,
    distributed/tensor/parallel/loss.py).
    """
    return 2 if tensors.tensor_parallel == 1 else 3


def _head(tensors: Tensors) -> Kept:
    yield Saved("head input", tensors.stream, tensors.dtype)
    yield InFlight("head", tensors.tokens * tensors.vocab_size + tensors.table + tensors.stream + _bias(tensors))


def _bias(tensors: Tensors) -> int:
    return tensors.vocab_size if tensors.model.head_bias else 0


def _capped(tensors: Tensors) -> Kept:
    """The tanh of the logits, which is multiplied by the cap."""
    if tensors.model.logit_softcap:
        yield Saved("capped logits", tensors.tokens * tensors.vocab_size, tensors.dtype, only="executed")


def _targets(tensors: Tensors, dtype: str) -> Kept:
    yield Saved("target indices", tensors.tokens, "int64", only="executed")
    yield Saved("weight of the targets", 1, dtype, only="executed")
