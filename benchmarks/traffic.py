"""What a step in eager PyTorch moves, counted from the operations that it dispatches."""

import torch
from torch.utils._python_dispatch import TorchDispatchMode

WRITES_ONLY = {"copy_", "fill_", "zero_"}  # they do not read what they write


class Traffic(TorchDispatchMode):
    """Operations and bytes inside the `with`: each operation reads the tensors that it is given and writes those that it changes or makes.

    Views move nothing, and are not counted; nor is what caches hold between two operations taken off.
    """

    def __init__(self):
        super().__init__()
        self.operations = self.bytes = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        """Count, and let it be done."""
        made = func(*args, **(kwargs or {}))
        if func.is_view:
            return made
        self.operations += 1
        schema, name = func._schema, func._schema.name.split("::")[1]
        given = dict(zip((argument.name for argument in schema.arguments), args, strict=False)) | (kwargs or {})
        for argument in schema.arguments:
            size = _bytes(given.get(argument.name))
            written = argument.alias_info is not None and argument.alias_info.is_write
            if name.startswith("_fused") and argument.name == "grads":
                written = False  # only where GradScaler's scale is taken out of them
            self.bytes += size * written + size * (not written or name not in WRITES_ONLY)
        for value, returned in zip(made if len(schema.returns) > 1 else [made], schema.returns, strict=False):
            self.bytes += _bytes(value) * (returned.alias_info is None)
        return made


def _bytes(value) -> int:
    if isinstance(value, torch.Tensor):
        return value.nbytes
    return sum(map(_bytes, value)) if isinstance(value, (tuple, list)) else 0
