"""Model FLOPs utilization: the FLOPs of a step, by a named convention, over what the devices could have done in the time it took.

MFU = FLOPs / (seconds × devices × peak)   (PaLM, arXiv 2204.02311, appendix B)
"""

from . import checks

PEAKS = {  # FLOPs a second of one device in bfloat16, or float16, as its maker prints them for dense matrices
    **{"v100": 125e12, "a100": 312e12},  # NVIDIA's data sheets; V100 SXM2 in float16
    **{"h100": 989e12, "h100-nvl": 835e12, "h100-pcie": 756e12, "h200": 989e12, "b200": 2250e12},  # half of those with sparsity; SXM
    **{"mi300x": 1307e12},  # AMD's
    **{"tpu-v4": 275e12, "tpu-v5e": 197e12, "tpu-v5p": 459e12, "tpu-v6e": 918e12},  # Google Cloud's TPU pages
}


def mfu(flops: int, seconds: float, devices: int, peak: str) -> float:
    """The part of the devices' peak that a step of so many FLOPs used.

    Args:
        flops: of the whole step, of one of `Estimate.flops`; "executed" counts recomputation too, which makes it HFU.
        seconds: measured, of one step.
        peak: a name of `PEAKS`.
    Raises: ValueError where an argument is out of range.
    Example:
        >>> round(mfu(430 * 10**12, 1.0, 1, "h100"), 2)  # Llama 3 405B (arXiv 2407.21783, table 4): 430 TFLOPs a GPU, 43 %
        0.43
    """
    checks.one_of("mfu", PEAKS, peak=peak)
    checks.size("mfu", devices=devices)
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0 < seconds < float("inf"):
        raise ValueError(f"mfu: seconds is a number > 0; got {seconds!r}.")
    return flops / (seconds * devices * PEAKS[peak])
