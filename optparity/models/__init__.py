"""The models of the training runs, once in PyTorch (`in_torch`) and once in Flax NNX (`in_flax`), with the same names and shapes.

`weights` carries parameters between them by name.
"""
