"""Training runs of the same model in PyTorch, in JAX, or in both side by side: what `optparity train` does."""
