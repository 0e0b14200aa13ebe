"""Checkpoints in the layouts that people have, made with torch alone: a table of makers.

Every tensor names its parameter: the first element of a weight is -n, of `exp_avg` n, of `exp_avg_sq` 1000 + n, for the n-th of the model.
"""

import json
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch

SQUARE, ROW = (4, 4), (4,)
REPEATED = {"embed.weight": (7, 4)}
REPEATED |= {
    f"layers.{i}.{name}": shape for i in range(12) for name, shape in {"q.weight": SQUARE, "k.weight": SQUARE, "q.bias": ROW}.items()
}
REPEATED |= {"head.weight": (7, 4)}
DISTINCT = {"embed.weight": (7, 4), "norm.weight": (4,), "hidden.weight": (5, 4), "hidden.bias": (5,), "head.weight": (2, 5), "scale": ()}


def marked(shape, number, dtype=torch.float32):
    """A tensor whose elements all tell the number, and their places."""
    return (number + torch.arange(max(1, torch.Size(shape).numel())).reshape(shape) / 1024).to(dtype)


def weights(shapes=REPEATED, dtype=torch.float32) -> dict[str, torch.Tensor]:
    return {name: marked(shape, -n, dtype) for n, (name, shape) in enumerate(shapes.items(), 1)}


def adamw(shapes=REPEATED, *, groups=None, named=False, order=None, dtype=torch.float32, step: Any = None, **options) -> dict[str, Any]:
    """The `state_dict` of torch's AdamW after 3 steps, over these parameters.

    Args:
        groups: names of each group's parameters, by default all in one.
        named: whether the groups have `param_names`.
        order: names in the order of the optimizer, where it is another.
        step: in the place of torch's own.
    """
    number = {name: n for n, name in enumerate(shapes, 1)}
    parameters = {name: torch.nn.Parameter(tensor) for name, tensor in weights(shapes, dtype).items()}
    own = [
        {"params": [(name, parameters[name]) if named else parameters[name] for name in names]} for names in groups or [order or [*shapes]]
    ]
    optimizer = torch.optim.AdamW(own, **{"lr": 1e-3, **options})
    for parameter in parameters.values():
        parameter.grad = torch.ones_like(parameter)
    for _ in range(3):
        optimizer.step()
    for name, parameter in parameters.items():
        state = optimizer.state[parameter]
        state["exp_avg"], state["exp_avg_sq"] = (marked(shapes[name], n, dtype) for n in (number[name], 1000 + number[name]))
        state["step"] = state["step"] if step is None else step
    return optimizer.state_dict()


@dataclass
class Made:
    """A checkpoint as it was found.

    Attributes:
        files: name -> what `torch.save` writes, or safetensors, or JSON, by the suffix.
        source: the file, or "folder" for all of them.
        back: what comes back in a .pt.
        names: of the optimizer's parameters, in its order, as the output has them; None where they are indices.
        shapes: of the model's parameters, by the names that are theirs in `names`.
        arguments: for `optparity convert`.
        notes: what it says.
    """

    files: Mapping[str, Any]
    back: Any
    source: str = ""
    names: Sequence[str] | None = None
    shapes: Mapping[str, tuple[int, ...]] = field(default_factory=lambda: REPEATED)
    order: Sequence[str] | None = None
    arguments: Sequence[str] = ()
    notes: Sequence[str] = ()

    def write(self, folder: Path) -> Path:
        target = folder if self.source != "folder" else folder / "folder"
        target.mkdir(exist_ok=True)
        for name, content in self.files.items():
            at = folder if name.startswith("../") else target
            _written(at / name.removeprefix("../"), content)
        return target if self.source == "folder" else folder / (self.source or next(iter(self.files)))


def _written(path: Path, content: Any) -> None:
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif path.suffix == ".json":
        path.write_text(json.dumps(content))
    elif path.suffix == ".safetensors":
        safetensors.torch.save_file(content, path, {"format": "pt"})
    else:
        torch.save(content, path)


def one(name: str, saved: Any, **about: Any) -> Made:
    return Made({name: saved}, saved, **about)


def ordered(state: dict[str, Any]) -> OrderedDict:
    """As a module's `state_dict` is, with the versions of its modules."""
    found: Any = OrderedDict(state)
    found._metadata = OrderedDict({"": {"version": 1}, "norm": {"version": 2}})
    return found


def prefixed(prefix: str, state: Mapping[str, Any]) -> dict[str, Any]:
    return {prefix + name: value for name, value in state.items()}


def flat(state_dict: Mapping[str, Any], names: Sequence[str], *, groups: bool = True) -> dict[str, Any]:
    """As torch.distributed.checkpoint has it with `flatten_optimizer_state_dict`."""
    found = {f"state.{names[i]}.{key}": value for i, own in state_dict["state"].items() for key, value in own.items()}
    for group in state_dict["param_groups"] if groups else ():
        found |= {f"param_groups.{names[i]}.{key}": value for i in group["params"] for key, value in group.items() if key != "params"}
    return found


def by_name(state_dict: Mapping[str, Any], names: Sequence[str]) -> dict[str, Any]:
    """As torch.distributed.checkpoint.state_dict has it: names in the place of indices."""
    groups = [{**group, "params": [names[i] for i in group["params"]]} for group in state_dict["param_groups"]]
    return {"state": {names[i]: own for i, own in state_dict["state"].items()}, "param_groups": groups}


def gan() -> dict[str, Any]:
    """Two models of the same names and shapes."""
    other = {name: tensor + 0.5 for name, tensor in weights().items()}
    return {"generator": weights(), "discriminator": other, "opt_g": adamw(named=True), "opt_d": adamw(named=True, weight_decay=0.5)}


def lightning(**changes: Any) -> dict[str, Any]:
    progress = {"total": {"ready": 8, "completed": 8}, "current": {"ready": 4, "completed": 4}}
    return {
        "epoch": 1,
        "global_step": 8,
        "pytorch-lightning_version": "2.6.6",
        "state_dict": ordered(prefixed("model.", weights())),
        "loops": {"fit_loop": {"state_dict": {}, "epoch_loop.batch_progress": {**progress, "is_last_batch": True}}},
        "callbacks": {"ModelCheckpoint{'monitor': None}": {"best_model_score": torch.tensor(0.25), "kth_value": float("inf")}},
        "optimizer_states": [adamw()],
        "lr_schedulers": [{"step_size": 1, "gamma": 0.1, "base_lrs": [1e-3], "_last_lr": [1e-5]}],
        "hparams_name": "kwargs",
        "hyper_parameters": {"width": 8},
        **changes,
    }


SCHEDULER = {"base_lrs": [1e-3], "last_epoch": 3, "_last_lr": [2e-4], "lr_lambdas": [None]}
DECAYED, REST = [[name for name, shape in REPEATED.items() if (len(shape) > 1) == matrix] for matrix in (True, False)]
TRAINER = adamw(groups=[DECAYED, REST])  # as Hugging Face's Trainer groups them
TRAINER["param_groups"][1]["weight_decay"] = 0.0
PLAIN, NAMED = adamw(), adamw(named=True)
LAYERS = [[name for name in REPEATED if name.startswith(layer)] for layer in ("embed", *(f"layers.{i}." for i in range(12)), "head")]


def layer_decay() -> dict[str, Any]:
    state_dict = adamw(groups=LAYERS, named=True)
    for depth, group in enumerate(state_dict["param_groups"]):
        group |= {"lr_scale": 0.75**depth, "group_name": f"depth {depth}", "initial_lr": 1e-3}
    return state_dict


def shards(suffix: str, count: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """A model in several files, and the index of them."""
    stem, names = ("model" if suffix == "safetensors" else "pytorch_model"), list(REPEATED)
    name_of = {name: f"{stem}-{1 + i % count:05d}-of-{count:05d}.{suffix}" for i, name in enumerate(names)}
    files = {file: {name: weights()[name] for name in names if name_of[name] == file} for file in sorted(set(name_of.values()))}
    return files, {f"{stem}.{suffix}.index.json": {"metadata": {"total_size": 1}, "weight_map": name_of}}


def tied() -> dict[str, torch.Tensor]:
    model = weights(DISTINCT)
    return {**model, "lm_head.weight": model["embed.weight"]}


def with_buffers() -> dict[str, torch.Tensor]:
    """As of BatchNorm, each behind its layer's parameters; of the shape of a bias."""
    model: dict[str, Any] = {}
    for name, tensor in weights().items():
        model[name] = tensor
        if name.endswith("bias"):
            layer = name.removesuffix("q.bias")
            model |= {f"{layer}running_mean": marked(ROW, 50), f"{layer}running_var": marked(ROW, 60)}
            model |= {f"{layer}num_batches_tracked": torch.tensor(3), f"{layer}mask": torch.ones(ROW, dtype=torch.bool)}
    return model


def ema() -> dict[str, Any]:
    return {"model": weights(), "model_ema": {name: tensor / 2 for name, tensor in weights().items()}, "optimizer": NAMED}


def steps(step: Any) -> dict[str, Any]:
    return {"model": weights(), "optimizer": adamw(named=True, step=step)}


BY_INDEX = "Parameters are named by their index"
EXTRA_STATE = {"recipe": {"amax": torch.ones(2), "scale": 0.5}, "none": None}
SHARDED, SHARD_INDEX = shards("safetensors", 3)
BINS, BIN_INDEX = shards("bin", 2)
HUGGING = {"config.json": {"n_layer": 12}, "trainer_state.json": {"global_step": 3}, "training_args.bin": b"\x80\x04pickled"}
FOLDER_BACK = {"model": weights(), "optimizer": TRAINER, "scheduler": SCHEDULER}
LEFT = "Left behind: config.json, trainer_state.json, training_args.bin."
NAME_LISTS = ("--names", "names.json")
CASES: dict[str, Made] = {
    "tutorial": one("a.pt", {"epoch": 3, "model_state_dict": weights(), "optimizer_state_dict": NAMED, "loss": 0.4}, names=[*REPEATED]),
    "loss is a tensor": one("a.pth", {"net": weights(), "optim": NAMED, "loss": torch.tensor(0.4), "acc": [0.1, 0.2]}, names=[*REPEATED]),
    "numbers of NumPy": one(
        "a.pt",
        {
            "model": weights(),
            "optimizer": NAMED,
            "best": np.float64(0.1),
            "count": np.int64(3),
            "flags": [np.bool_(True), np.float32("inf")],
        },
        names=[*REPEATED],
    ),
    "amp": one(
        "a.pt",
        {"model": ordered(weights()), "optimizer": NAMED, "scaler": {"scale": 65536.0, "growth_factor": 2.0, "_growth_tracker": 0}},
        names=[*REPEATED],
        notes=["Carried beside: scaler."],
    ),
    "nanoGPT, compiled": one(
        "ckpt.pt",
        {
            "model": ordered(prefixed("_orig_mod.", weights())),
            "optimizer": TRAINER,
            "model_args": {"n_layer": 12, "bias": None},
            "iter_num": 1,
            "best_val_loss": torch.tensor(2.0),
            "config": {"dtype": "bfloat16", "betas": (0.9, 0.95)},
        },
        order=DECAYED + REST,
        notes=[BY_INDEX, "Carried beside: model_args, iter_num, best_val_loss, config."],
    ),
    "nanoGPT of 2023, fused": one("a.pt", steps(torch.tensor([3.0])), names=[*REPEATED]),
    "a step that is an int": one("a.pt", steps(3), names=[*REPEATED]),
    "a step that is a float": one("a.pt", steps(3.0), names=[*REPEATED]),
    "a step in bfloat16": one("a.pt", steps(torch.tensor(3, dtype=torch.bfloat16)), names=[*REPEATED]),
    "timm": one(
        "model_best.pth.tar",
        {"epoch": 3, "arch": "vit", "state_dict": weights(), "optimizer": layer_decay(), "version": 2, "metric": 71.5},
        names=[*REPEATED],
        notes=["Kept as data, as torch does: lr_scale, group_name of the groups."],
    ),
    "EMA beside the model": one("a.pt", ema(), names=[*REPEATED], notes=["The model is what is at model; model_ema is carried as it is."]),
    "Lightning": one("last.ckpt", lightning(), notes=[BY_INDEX]),
    "Lightning, named without the module's prefix": one(
        *("last.ckpt", lightning(optimizer_states=[NAMED])),
        names=[f"model.{name}" for name in REPEATED],
    ),
    "Lightning, the second of two optimizers": one(
        *("last.ckpt", lightning(optimizer_states=[adamw(weight_decay=0.25), NAMED])),
        names=[f"model.{name}" for name in REPEATED],
        arguments=["--optimizer-key", "optimizer_states.1"],
    ),
    "an optimizer alone": one("optimizer.bin", PLAIN, notes=[BY_INDEX]),
    "an optimizer alone, named": one("optimizer.pt", NAMED, names=[*REPEATED]),
    "a GAN, its generator": one(
        *("gan.pt", gan()),
        names=[*REPEATED],
        arguments=["--optimizer-key", "opt_g", "--model-key", "generator"],
    ),
    "optimizers in a list": one(
        *("gan.pt", {"model": weights(), "optimizer": [adamw(named=True, weight_decay=0.5), NAMED]}),
        names=[*REPEATED],
        arguments=["--optimizer-key", "optimizer.1"],
    ),
    "in a train state": one(
        *("step-3", {"app": {"train_state": {"step": 3, "tokens": torch.tensor(5)}, "model": weights(), "optim": NAMED}}),
        names=[*REPEATED],
    ),
    "flat keys": one("dcp.pt", {"model": weights(), "optim": flat(TRAINER, DECAYED + REST)}, names=DECAYED + REST),
    "flat keys without groups": Made(
        {"dcp.pt": {"model": weights(), "optimizer": flat(PLAIN, [*REPEATED], groups=False)}, "like.pt": NAMED},
        {"model": weights(), "optimizer": flat(PLAIN, [*REPEATED], groups=False)},
        names=[*REPEATED],
        arguments=["--like", "like.pt"],
    ),
    "names in the place of indices": one(
        *("dcp.pt", {"model": weights(), "optimizer": by_name(TRAINER, DECAYED + REST)}), names=DECAYED + REST
    ),
    "DDP's prefix in the model": one(
        "a.pt", {"state_dict": prefixed("module.", weights()), "optimizer": NAMED}, names=[f"module.{name}" for name in REPEATED]
    ),
    "compile's prefix in the optimizer": one(
        *("a.pt", {"model": weights(), "optimizer": adamw({f"_orig_mod.{name}": shape for name, shape in REPEATED.items()}, named=True)}),
        names=[*REPEATED],
    ),
    "names by shapes": one(
        "a.pt",
        {"model": weights(DISTINCT), "optimizer": adamw(DISTINCT, order=[*DISTINCT][::-1])},
        names=[*DISTINCT][::-1],
        shapes=DISTINCT,
    ),
    "tied tensors": one(
        *("a.pt", {"model": tied(), "optimizer": adamw(DISTINCT)}),
        names=[*DISTINCT],
        shapes=DISTINCT,
        notes=["Tied tensors of the model have their moments under the first name: lm_head.weight is embed.weight."],
    ),
    "buffers, in the model's order": one(
        *("a.pt", {"model": ordered(with_buffers()), "optimizer": PLAIN}), names=[*REPEATED], arguments=["--names", "model"]
    ),
    "buffers": one("a.pt", {"model": ordered(with_buffers()), "optimizer": PLAIN}, notes=[BY_INDEX]),
    "extra state that is None": one("a.pt", {"model": {**weights(), "0._extra_state": None}, "optimizer": NAMED}, names=[*REPEATED]),
    "extra state": one("a.pt", {"model": {"a._extra_state": EXTRA_STATE, **weights()}, "optimizer": NAMED}, names=[*REPEATED]),
    "states of generators": one(
        "a.pt",
        {"model": weights(), "optimizer": NAMED, "rng": {"cpu": torch.arange(9, dtype=torch.uint8), "cuda": [], "none": torch.ones(0, 3)}},
        names=[*REPEATED],
    ),
    "bfloat16 and float32 moments": one(
        *("a.pt", {"model": weights(dtype=torch.bfloat16), "optimizer": NAMED}),
        names=[*REPEATED],
    ),
    "Trainer": Made(
        {"model.safetensors": weights(), "optimizer.pt": TRAINER, "scheduler.pt": SCHEDULER, **HUGGING},
        FOLDER_BACK,
        source="folder",
        order=DECAYED + REST,
        notes=[BY_INDEX, LEFT],
    ),
    "Trainer, with names": Made(
        {"model.safetensors": weights(), "optimizer.pt": TRAINER, "scheduler.pt": SCHEDULER, "../names.json": [DECAYED, REST]},
        FOLDER_BACK,
        source="folder",
        names=DECAYED + REST,
        arguments=NAME_LISTS,
    ),
    "Trainer, in shards": Made(
        {**SHARDED, **SHARD_INDEX, "optimizer.pt": TRAINER, "scheduler.pt": SCHEDULER, "../names.json": DECAYED + REST},
        FOLDER_BACK,
        source="folder",
        names=DECAYED + REST,
        arguments=NAME_LISTS,
    ),
    "accelerate, in shards of pickles": Made(
        {**BINS, **BIN_INDEX, "optimizer.bin": PLAIN, "scheduler.bin": SCHEDULER, "random_states_0.pkl": b"\x80\x04pickled"},
        {"model": weights(), "optimizer": PLAIN, "scheduler": SCHEDULER},
        source="folder",
        notes=[BY_INDEX, "Left behind: random_states_0.pkl."],
    ),
    "accelerate, with tied tensors": Made(
        {"pytorch_model.bin": tied(), "optimizer.bin": adamw(DISTINCT), "scaler.pt": {"scale": 1.0}},
        {"model": tied(), "optimizer": adamw(DISTINCT), "scaler": {"scale": 1.0}},
        source="folder",
        names=[*DISTINCT],
        shapes=DISTINCT,
    ),
    "accelerate, the second of two": Made(
        {
            f"{part}{i}.{end}": own
            for part, end, own in [("model", "safetensors", weights()), ("optimizer", "bin", NAMED)]
            for i in ("", "_1")
        },
        {"model": weights(), "model_1": weights(), "optimizer": NAMED, "optimizer_1": NAMED},
        source="folder",
        names=[*REPEATED],
        arguments=["--optimizer-key", "optimizer_1", "--model-key", "model_1"],
    ),
}
