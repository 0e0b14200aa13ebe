"""What a training step costs: memory by component and dtype, in bytes, and FLOPs by convention.

    estimate(PRESETS["gpt2"], batch=8, seq=1024, setup=Setup("adam"))

`estimate` counts by formula, once as the textbooks do and once as it is executed; `measure_torch` and `measure_jax` measure any
`nn.Module` and any pytree. The optimizer's state is that of `optparity.OPTIMIZERS` itself.
"""

from .cruncher import Cruncher
from .estimate import Estimate, estimate
from .measured import jax_flops, jax_memory, measure_jax, measure_torch, torch_flops, torch_peak
from .memory import COMPONENTS, Memory
from .parallel import Setup
from .presets import PRESETS, from_dict
from .search import Fitting, search
from .state import state
from .transformer import CONVENTIONS, Transformer
from .utilization import PEAKS, mfu

__all__ = [
    "COMPONENTS",
    "CONVENTIONS",
    "PEAKS",
    "PRESETS",
    "Cruncher",
    "Estimate",
    "Fitting",
    "Memory",
    "Setup",
    "Transformer",
    "estimate",
    "from_dict",
    "jax_flops",
    "jax_memory",
    "measure_jax",
    "measure_torch",
    "mfu",
    "search",
    "state",
    "torch_flops",
    "torch_peak",
]
