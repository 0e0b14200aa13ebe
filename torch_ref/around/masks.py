"""Which parameters are decayed, or stepped, or by what, told by one function of their paths.  Mirror: jaxopt_impl/around/masks.py"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from torch import Tensor

from . import checks


def param_groups(
    named_parameters: Iterable[tuple[str, Tensor]],
    function: Callable[[str], bool | str | None],
    options: Mapping[bool | str, Mapping[str, Any]],
) -> list[dict[str, Any]]:
    """Parameter groups by a function of the parameters' names: what `jaxopt_impl.by_path` and `partition_by_path` are in JAX.

    Args:
        named_parameters: `model.named_parameters()`.
        function: of a name: a label, True and False included, or None or "frozen" for a parameter that is left out.
        options: the options of each label but "frozen".
    Returns: a group for each label, in the order of `options`, for any torch.optim optimizer; with names, so that it keeps `param_names`.
    Raises: ValueError where a label has no options, or options no parameter; TypeError where the function returns anything else.
    Example:
        >>> import torch
        >>> model = torch.nn.Linear(2, 3)
        >>> decayed = {True: {"weight_decay": 0.1}, False: {"weight_decay": 0.0}}
        >>> groups = param_groups(model.named_parameters(), lambda name: not name.endswith("bias"), decayed)
        >>> [(group["weight_decay"], [name for name, _ in group["params"]]) for group in groups]
        [(0.1, ['weight']), (0.0, ['bias'])]
    """
    checks.no_options_of_frozen("partition_by_path", options)
    named = dict(named_parameters)
    labels = {path: checks.label("partition_by_path", path, function(path)) for path in named}
    checks.labels("partition_by_path", labels, options)
    return [{"params": [(path, p) for path, p in named.items() if labels[path] == label], **options[label]} for label in options]
