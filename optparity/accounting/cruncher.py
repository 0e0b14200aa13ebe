"""The article's model: `num_layers` products with (dim, dim) matrices, then one number for each row.

D the width, L the layers, B the batch; P = D²L + D parameters.
"""

from dataclasses import dataclass

from . import checks
from .memory import Bytes, itemsize, total


@dataclass(frozen=True)
class Cruncher:
    """Linear(dim, dim) `num_layers` times without bias or nonlinearity, then Linear(dim, 1), trained on the mean squared error.

    Source: Stanford CS336, lecture 2 (spring2025-lectures, lecture_02.py).
    Raises: ValueError where a size is not an integer in range.
    """

    dim: int
    num_layers: int

    conventions = ("6nd", "executed")

    def __post_init__(self) -> None:
        checks.size("cruncher", dim=self.dim)
        checks.size("cruncher", 0, num_layers=self.num_layers)

    def weights(self) -> dict[str, tuple[int, ...]]:
        """Name -> shape, as in `optparity.models`."""
        layers = {f"layers.{i}.weight": (self.dim, self.dim) for i in range(self.num_layers)}
        return {**layers, "final.weight": (self.dim, 1)}

    @property
    def parameters(self) -> int:
        return self.dim * self.dim * self.num_layers + self.dim

    def flops(self, batch: int, convention: str = "executed", *, inputs_require_grad: bool = False) -> int:
        """FLOPs of a training step.

        `6nd`, the article's: 6BP.  `executed`, exact: the first matrix needs no gradient of its input, 6BP − 2BD² (4BD for L = 0), unless
        the inputs require one. Element-wise operations and the optimizer's are not counted.
        """
        checks.size("cruncher", batch=batch)
        checks.one_of("cruncher", self.conventions, convention=convention)
        not_done = 0 if convention == "6nd" or inputs_require_grad else 2 * batch * self.dim * (self.dim if self.num_layers else 1)
        return 6 * batch * self.parameters - not_done

    def activations(self, batch: int, by: str = "torch", dtype: str = "float32") -> Bytes:
        """Bytes that the forward pass keeps, parameters excluded; the inputs are kept too.

        By the article B·D·L numbers; by torch's autograd B·D·L + B·D + 2B (prediction and target), by JAX's B·D·L + B·D + B (their
        difference). XLA's `temp_size` is another thing: it also holds gradients of activations, and lets results lie in output buffers
        (B·D·min(L + 1, 3) numbers where B <= D and the weights come in order; jax 0.10.2, CPU).
        """
        checks.size("cruncher", batch=batch)
        checks.one_of("cruncher", ("the article", "torch", "jax"), by=by)
        checks.dtype("cruncher", dtype)
        b, width = batch, self.dim
        numbers = b * width * self.num_layers + {"the article": 0, "torch": b * width + 2 * b, "jax": b * width + b}[by]
        return total([(dtype, numbers * itemsize(dtype))])

    def temporaries(self, batch: int, dtype: str = "float32") -> dict[str, Bytes]:
        """What PyTorch's backward pass holds beyond `activations`, bytes at each of its places; the step needs the largest of them.

        Gradients of activations, and of the weight at work before it is added to one that stands already, less what is freed by then.
        """
        checks.size("cruncher", batch=batch)
        checks.dtype("cruncher", dtype)
        b, d, layers = batch, self.dim, self.num_layers
        kept = b * d * (layers + 1) + 2 * b
        target = b  # stays, since the caller has it
        needed = {"loss": kept + b, "final": target + b * d * (layers + 1) + b + d + (b * d if layers else 0)}
        if layers:
            needed["last layer"] = target + b * d * layers + b * d + d * d + (b * d if layers > 1 else 0)
        loss = 2  # itself and its gradient
        return {name: total([(dtype, max(numbers + loss - kept, 0) * itemsize(dtype))]) for name, numbers in needed.items()}
