"""torch.optim's optimizers with each operation rounded once, bit-equal to their twins in `jaxopt_impl`."""

from .adagrad import AdaGrad
from .adam import Adam, AdamW
from .around.master_weights import MasterWeights
from .around.stochastic_rounding import StochasticRounding
from .lion import Lion
from .momentum import Momentum
from .rmsprop import RMSprop
from .schedule import ScheduleLR
from .sgd import SGD

__all__ = ["SGD", "AdaGrad", "Adam", "AdamW", "Lion", "MasterWeights", "Momentum", "RMSprop", "ScheduleLR", "StochasticRounding"]
