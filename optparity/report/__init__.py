"""What comparisons found, as one HTML file that needs nothing else."""

from .page import Entry, write

__all__ = ["Entry", "write"]
