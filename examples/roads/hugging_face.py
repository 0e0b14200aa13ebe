"""A run of Hugging Face's Trainer goes on in JAX and comes back: a checkpoint folder, every bit of the weights and of AdamW."""

import json
import shutil
import tempfile
from pathlib import Path

import jax
import numpy as np
import optax
import torch
from flax import nnx
from flax_gpt import GPT
from safetensors.torch import load_file
from transformers import GPT2Config, GPT2LMHeadModel, Trainer, TrainingArguments, set_seed

from optparity import interop

rng = np.random.default_rng(0)  # rows that count on by 1, 2 or 3
rows = (rng.integers(64, size=(400, 1)) + rng.integers(1, 4, (400, 1)) * np.arange(16)) % 64
dataset = [{"input_ids": row, "labels": row} for row in rows]
folder = Path(tempfile.mkdtemp())


def trainer_of(model):  # 100 steps, a checkpoint after 50
    training = {"max_steps": 100, "save_steps": 50, "per_device_train_batch_size": 8, "learning_rate": 1e-2, "weight_decay": 0.1}
    quiet = {"use_cpu": True, "report_to": [], "disable_tqdm": True, "logging_steps": 25}
    arguments = TrainingArguments(str(folder), **training, **quiet)
    return Trainer(model, arguments, train_dataset=dataset)


# What the Trainer does
set_seed(0)
sizes = {"n_layer": 2, "n_head": 2, "n_embd": 32}
no_dropout = {"resid_pdrop": 0, "embd_pdrop": 0, "attn_pdrop": 0}
config = GPT2Config(vocab_size=64, n_positions=16, bos_token_id=0, eos_token_id=0, **sizes, **no_dropout)
trainer_of(GPT2LMHeadModel(config)).train()

# Read its checkpoint: the Trainer makes the optimizer, so that its groups are in the right order
checkpoint = folder / "checkpoint-50"
model = GPT2LMHeadModel.from_pretrained(checkpoint)
optimizer = trainer_of(model).create_optimizer()
optimizer.load_state_dict(torch.load(checkpoint / "optimizer.pt", weights_only=True))

# Move to JAX: one adamw with a mask, in the place of two groups, and the Trainer's linear schedule
schedule = optax.linear_schedule(1e-2, 0.0, 100)
graph, start = nnx.split(GPT(64, 16, **sizes, approximate=True, rngs=nnx.Rngs(0)), nnx.Param)
matching = interop.Matching(start, model)
print(*str(matching).splitlines()[:5], sep="\n")
params = interop.weights_from_torch(model, start, matching=matching)
imported = interop.from_torch(optimizer, params, matching=matching, learning_rate=schedule)
imported = interop.with_mask(imported, params, learning_rate=schedule)
tx = optax.chain(optax.clip_by_global_norm(1.0), imported.tx)  # the Trainer's max_grad_norm
state = interop.wrapped(imported.state, tx.init(params))


@jax.jit
def train_step(params, state, tokens):
    def loss_of(params):
        logits = nnx.merge(graph, params)(tokens)[:, :-1]
        return optax.softmax_cross_entropy_with_integer_labels(logits, tokens[:, 1:]).mean()

    loss, gradients = jax.value_and_grad(loss_of)(params)
    updates, state = tx.update(gradients, state, params)
    return optax.apply_updates(params, updates), state, loss


def write(target, step):  # a copy of the checkpoint with these weights and moments, which the Trainer takes for one of this step
    shutil.copytree(checkpoint, target, dirs_exist_ok=True)
    model.load_state_dict(interop.weights_to_torch(params, matching=matching), strict=False)  # lm_head.weight is wte's
    model.save_pretrained(target)
    torch.save(interop.to_torch_state_dict(state, imported.groups, learning_rate=schedule), target / "optimizer.pt")
    scheduler = torch.load(checkpoint / "scheduler.pt", weights_only=True)
    torch.save({**scheduler, "last_epoch": step, "_step_count": step + 1}, target / "scheduler.pt")
    trainer_state = json.loads((checkpoint / "trainer_state.json").read_text())
    (target / "trainer_state.json").write_text(json.dumps({**trainer_state, "global_step": step}))


def tensors(folder):  # of the model, and of each parameter's moments
    moments = torch.load(folder / "optimizer.pt", weights_only=True)["state"].values()
    return [*load_file(folder / "model.safetensors").values(), *(tensor for state in moments for tensor in state.values())]


write(folder / "returned", 50)
same = [torch.equal(a, b) for a, b in zip(tensors(checkpoint), tensors(folder / "returned"), strict=True)]
print(f"same bits after there and back: {all(same)}, of {len(same)} tensors")

# On in JAX from step 50, and back: the Trainer goes on from there
for step in range(50, 75):
    params, state, loss = train_step(params, state, rows[step % 50 * 8 :][:8])
    if step in (50, 74):
        print(f"step {step} in JAX: loss {loss:.4f}")
write(folder / "checkpoint-75", 75)
trainer = trainer_of(GPT2LMHeadModel(config))
trainer.train(resume_from_checkpoint=str(folder / "checkpoint-75"))
print(f"steps 75 to {trainer.state.global_step - 1} in PyTorch: loss {trainer.state.log_history[-2]['loss']:.4f}")
