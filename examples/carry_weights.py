"""A small GPT's weights from PyTorch to Flax NNX and back: the same function in both, and not a bit lost."""

import jax.numpy as jnp
import numpy as np
import torch
from flax import nnx

from optparity.models import in_flax, in_torch, weights

sizes = {"vocab_size": 92, "block_size": 64, "n_layer": 2, "n_head": 4, "n_embd": 64}
module = in_torch.GPT(**sizes)
twin = in_flax.GPT(**sizes, rngs=nnx.Rngs(0))
weights.into_flax(twin, weights.from_torch(module))

tokens = np.arange(64)[None]
with torch.no_grad():
    logits = module(torch.from_numpy(tokens)).numpy()
print("largest difference of the logits", abs(np.asarray(twin(jnp.asarray(tokens))) - logits).max(), "of", abs(logits).max())

back = weights.from_flax(twin)
print("same bits after there and back:", all((back[name] == array).all() for name, array in weights.from_torch(module).items()))
