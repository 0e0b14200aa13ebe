"""The harness: identical gradients to any optax transform and any torch optimizer, and every bit of what they do compared."""
