"""torch.optim's optimizers with each operation rounded once, bit-equal to their twins in `jaxopt_impl`."""

from .adagrad import AdaGrad
from .momentum import Momentum
from .sgd import SGD

OPTIMIZERS = {"sgd": SGD, "momentum": Momentum, "adagrad": AdaGrad}

__all__ = ["OPTIMIZERS", "SGD", "AdaGrad", "Momentum"]
