"""What of a tensor this process holds: of a DTensor its shard. A rule is elementwise, so that on a shard it is the rule."""

from torch import Tensor


def local(x: Tensor) -> Tensor:
    """The shard of a DTensor that lies here, sharing its memory where gradients are off; any other tensor as it is."""
    return getattr(x, "to_local", lambda: x)()


def placements(x: Tensor) -> tuple:
    """Over which devices a DTensor is spread, and how along each axis of them; () for any other tensor."""
    return (x.device_mesh, *x.placements) if hasattr(x, "to_local") else ()


def check_placed(name: str, path: str, what: str, x: Tensor, p: Tensor) -> None:
    """Raise where a parameter's gradient or state is spread otherwise than the parameter, or is a sum still to be made."""
    if placements(x) != placements(p) or any(placement.is_partial() for placement in placements(p)[1:]):
        raise ValueError(
            f"{name}: leaf {path} is {_words(p)} but its {what} is {_words(x)}; the same placements, none partial, are needed."
        )


def _words(x: Tensor) -> str:
    return f"spread as {', '.join(map(str, placements(x)[1:]))}" if placements(x) else "whole"
