"""What this machine does: for each operation and rewrite, whether this jax backend and this torch build keep the contract, tried now."""

from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec

import jax

from one_pass import library

from .parity import backend, canaries
from .parity.reports import Line
from .parity.subnormals import jax_flushes, torch_flushes
from .registry import HALVES


def machine() -> list[tuple[str, str]]:
    """Devices and versions."""
    rows = [("jax backend", f"{jax.default_backend()}: {', '.join(str(d) for d in jax.devices())}")]
    rows.append(("jax devices are", ", ".join(sorted({d.device_kind for d in jax.devices()}))))
    for package in ("jax", "jaxlib", "optax", "numpy", "torch"):
        try:
            rows.append((package, version(package)))
        except PackageNotFoundError:
            rows.append((package, "not installed"))
    rows.append(("one pass on the CPU", library.described()))
    if find_spec("torch"):
        import torch

        rows.append(("torch devices", ", ".join(["cpu", *(torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count()))])))
        rows.append(("torch CPU capability", torch.backends.cpu.get_cpu_capability()))
    return rows


def examine(elements: int = canaries.ELEMENTS) -> Iterator[Line]:
    """Each line as it is found."""
    dtypes = backend.dtypes()
    for dtype in dtypes:
        for canary in canaries.CANARIES:
            if dtype in HALVES and not canary.halves:
                continue
            plain, fenced = canaries.plain_and_fenced(canary, dtype, elements)
            found = f"plain {_share(plain)}, fenced {_share(fenced)} differ"
            if fenced:
                yield Line(f"jax: {canary.name}", dtype, found, "THE FENCE DOES NOT HOLD", False)
            else:
                verdict = _rewritten(canary, dtype) if plain else "as written"
                yield Line(f"jax: {canary.name}", dtype, found, verdict, True)
    for dtype in (dtype for dtype in dtypes if dtype not in HALVES):
        flushes = jax_flushes(dtype)
        verdict = "torch must flush too, and `compare` makes it" if flushes else "as IEEE 754 has it"
        yield Line("jax: subnormals", dtype, "flushed to zero" if flushes else "kept", verdict, None)
    if find_spec("torch"):
        yield from _examine_torch(elements)


def _examine_torch(elements: int) -> Iterator[Line]:
    import torch

    from .parity.subnormals import torch_flushing_like_jax

    devices = ["cpu", *(f"cuda:{i}" for i in range(torch.cuda.device_count()))]
    for device in devices:
        for dtype in ("float32", "float64"):
            for canary in canaries.TORCH:
                differ = canaries.torch_differing(canary, dtype, device, elements)
                if canary.used:
                    verdict = "NOT ROUNDED ONCE" if differ else "rounded once"
                    yield Line(f"{device}: {canary.name}", dtype, f"{_share(differ)} differ", verdict, not differ)
                else:
                    verdict = "torch_ref avoids it" if differ else "rounded once here"
                    yield Line(f"{device}: {canary.name}", dtype, f"{_share(differ)} differ", verdict, None)
    for dtype in ("float32", "float64"):
        with torch_flushing_like_jax():
            flushed = torch_flushes(elements, dtype)
        same = flushed == jax_flushes(dtype)
        found = "flushed to zero" if flushed else "kept"
        yield Line("torch: subnormals within `compare`", dtype, found, "as jax does" if same else "NOT AS JAX DOES", same)


def _rewritten(canary: canaries.Canary, dtype: str) -> str:
    if dtype in HALVES:
        return "not rounded after each operation; ours are"
    return f"rewritten as {canary.becomes}; the fence holds"


def _share(share: float) -> str:
    return f"{100 * share:.2g} %"
