"""Checkpoints of a model and its optimizer, from one format to another: what `optparity convert` does.

torch: {"model", "optimizer"}, both a `state_dict`, or the optimizer's alone. Orbax: {"model": {name: array}, "optimizer": {"step": count,
field: {name: array}}}, as `optparity train` writes it. safetensors: the same with dotted names. What torch has beyond arrays (groups, the
version of each module) is in the metadata of the other two, as JSON, so that the way back leads to the same bits.
"""

import base64
import contextlib
import json
import logging
import pickle
import re
import shutil
import sys
import threading
import warnings
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from .._arrays import is_tensor, to_numpy, to_torch
from ..interop import groups as torch_groups
from ..interop.groups import Group, Record
from ..interop.leaves import Leaves
from ..registry import OPTIMIZERS, TORCH_CLASSES

SUFFIXES = {".pt": "torch", ".pth": "torch", ".safetensors": "safetensors", "": "orbax"}
KEY = "optparity"  # of our metadata
ORBAXS_OWN = re.compile(
    r"_METADATA|_CHECKPOINT_METADATA|_sharding|array_metadatas|commit_success\.txt|d|manifest\.ocdbt|ocdbt\.process_\d+"
)
STEP_KINDS = (None, "int", "float", "float16", "float32", "float64", "int32", "int64")


# What comes of data that no check here has foreseen. A tensor without memory and JSON nested too deep are RuntimeErrors.
UNFORESEEN = (ValueError, TypeError, RuntimeError, AttributeError, LookupError, OverflowError)


class RefusedError(Exception):
    """A checkpoint that cannot be read, or does not carry over; in one line."""


@dataclass(frozen=True)
class Given:
    """What the command line says of an optimizer where its file does not.

    Attributes:
        optimizer: the class in torch, or its twin in JAX.
        step: how many steps were taken, where torch does not hold it.
        missing: parameters that may have no state next to others that have.
        like: a torch checkpoint of the same model and optimizer, whose groups and order of parameters hold.
    """

    optimizer: str | None = None
    step: int | None = None
    missing: Sequence[str] = ()
    like: Path | None = None


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint in NumPy.

    Attributes:
        records: the optimizer's groups and their state.
        names: of each group's parameters.
        model: the model's arrays, where they are there.
        versions: of the model's modules, as torch writes them.
        by_index: whether the names are only the places of the parameters in torch.
    """

    records: Sequence[Record]
    names: Sequence[Sequence[str]]
    model: Mapping[str, np.ndarray] | None
    versions: Mapping[str, Any] | None = None
    by_index: bool = False

    @property
    def size(self) -> int:
        """In bytes."""
        moments = (array.nbytes for record in self.records for own in record.state for array in own.values())
        return sum(moments) + sum(array.nbytes for array in (self.model or {}).values())


def form(path: Path) -> str:
    """torch, orbax or safetensors.

    Raises: RefusedError for any other suffix.
    """
    if path.is_dir():
        return "orbax"
    if path.suffix not in SUFFIXES:
        raise RefusedError(f"{path}: a name that ends in .pt, .pth or .safetensors is needed, or a folder's without a suffix.")
    return SUFFIXES[path.suffix]


def read(path: Path, given: Given) -> Checkpoint:
    """A checkpoint of any format, with everything in it accounted for.

    Raises: RefusedError.
    """
    if not path.exists():
        raise RefusedError(f"{path}: no such file or folder.")
    try:
        return {"torch": _read_torch, "orbax": _read_orbax, "safetensors": _read_safetensors}[form(path)](path, given)
    except UNFORESEEN as error:
        raise RefusedError(f"{path}: {_said(error)}") from None


def write(checkpoint: Checkpoint, path: Path, *, force: bool = False, tell: Callable[[int], None] = lambda written: None) -> None:
    """Write a checkpoint in the format of its name: under another name first, so that it is there whole or not at all.

    Args:
        force: whether what is there already is replaced: a file, or a folder that is a checkpoint of Orbax.
        tell: called a few times a second with the bytes that are on the disk.

    Raises: RefusedError.
    """
    if path.exists() and not force:
        raise RefusedError(f"{path} is there already; --force replaces it.")
    target = path.resolve()  # where a link points to
    work = target.parent / f".{target.name}.converting"
    try:
        _restore(work, target)
        _replaceable(target, path, force)
        work.mkdir(parents=True)
        with _watched(work, tell):
            {"torch": _write_torch, "orbax": _write_orbax, "safetensors": _write_safetensors}[form(path)](checkpoint, work / "new")
        _replaceable(target, path, force)
        if target.exists() and (target.is_dir() or (work / "new").is_dir()):  # no rename replaces a folder, nor a file by one
            target.rename(work / "old")
        (work / "new").replace(target)
    except RefusedError:
        raise
    except OSError as error:
        raise RefusedError(f"{path} cannot be written: {error.strerror or error}.") from None
    except Exception as error:  # whatever the libraries make of what they cannot hold
        raise RefusedError(f"{path}: {_said(error)}") from None
    finally:
        _restore(work, target)


def _replaceable(target: Path, path: Path, force: bool) -> None:
    """Refuse what is there already and not to be replaced: anything without `force`, and with it what is not a checkpoint's alone."""
    if target.exists() and not force:
        raise RefusedError(f"{path} is there already; --force replaces it.")
    if target.is_dir():
        others = sorted(entry.name for entry in target.iterdir() if not ORBAXS_OWN.fullmatch(entry.name))
        if others:
            raise RefusedError(f"{path} is a folder that holds {others[0]!r}, which is not a checkpoint's; it is left as it is.")


def _said(error: Exception) -> str:
    text = " ".join(str(error).split())
    return text if isinstance(error, ValueError | TypeError) else f"{type(error).__name__}: {text}"


def _restore(work: Path, target: Path) -> None:
    """Remove what a conversion left unfinished, and put back what it had set aside."""
    if (work / "old").exists() and not target.exists():
        (work / "old").rename(target)
    shutil.rmtree(work, ignore_errors=True)


@contextlib.contextmanager
def _watched(folder: Path, tell: Callable[[int], None]) -> Iterator[None]:
    done = threading.Event()

    def watch():
        while not done.wait(0.2):
            with contextlib.suppress(OSError):  # a file that was renamed meanwhile
                tell(sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()))

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def rows(checkpoint: Checkpoint) -> Iterator[tuple[str, ...]]:
    """What is in a checkpoint: part, parameters, fields, step, bytes."""
    if checkpoint.model is not None:
        yield "model", f"{len(checkpoint.model):,}", "", "", f"{sum(array.nbytes for array in checkpoint.model.values()):,}"
    for i, (group, step, state) in enumerate(checkpoint.records):
        fields = list(dict.fromkeys(field for own in state for field in own))
        size = sum(array.nbytes for own in state for array in own.values())
        yield f"group {i}: {group.optimizer}", f"{len(state):,}", ", ".join(fields), str(step), f"{size:,}"


def notes(checkpoint: Checkpoint, path: Path) -> Iterator[str]:
    """What somebody should know who goes on with the file."""
    if checkpoint.by_index:
        yield "Parameters are named by their index in torch: its groups have no param_names, and the model's order does not tell."
    if form(path) == "torch":
        for group, step, _ in checkpoint.records:
            if group.step_kind is None and step > 1:
                yield f"torch's {group.optimizer} holds no step: give --step {step} on the way back."
                break


# torch


def _read_torch(path: Path, given: Given) -> Checkpoint:
    if given.like is not None:
        raise ValueError("--like is for a checkpoint without torch's groups; this one has its own.")
    state_dict, model = _torch_parts(path)
    return _checked(state_dict, model, getattr(model, "_metadata", None), given)


def _torch_parts(path: Path) -> tuple[Any, Any]:
    """The optimizer's `state_dict`, and the model's or None."""
    saved = _torch_load(path)
    if isinstance(saved, Mapping) and "param_groups" in saved:
        return saved, None
    if not isinstance(saved, Mapping) or set(saved) != {"model", "optimizer"}:
        keys = ", ".join(map(str, saved)) if isinstance(saved, Mapping) else type(saved).__name__
        raise ValueError(f'a dict of "model" and "optimizer" is needed, or the state_dict of an optimizer; got {keys[:200] or "nothing"}.')
    if not isinstance(saved["model"], Mapping):
        raise ValueError(f'"model" is a state_dict; got {type(saved["model"]).__name__}.')
    for name, value in saved["model"].items():
        if not is_tensor(value):
            raise ValueError(f'"model" has {name!r}, which is no tensor; got {type(value).__name__}.')
    return saved["optimizer"], saved["model"]


def _torch_load(path: Path) -> Any:
    """What is in the file, in its own memory where it can be; nothing in it is executed."""
    import torch

    try:
        with path.open("rb") as file:
            zipped = file.read(2) == b"PK"  # the format before torch 1.6 is another
    except OSError as error:
        raise ValueError(f"it cannot be read: {error.strerror}.") from None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of other pickles than torch's, which are refused anyhow
            return torch.load(path, map_location="cpu", weights_only=True, mmap=zipped)
    except pickle.UnpicklingError as error:
        found = re.search(r"GLOBAL (\S+)", str(error))
        what = f" ({found[1]})" if found else ""
        raise ValueError(f"it holds pickled code or objects{what}, or is damaged; nothing but tensors and plain data is read.") from None
    except Exception as error:  # whatever else torch makes of a damaged file
        raise ValueError(f"it is no torch checkpoint, or a damaged one: {type(error).__name__}: {str(error)[:200]}") from None


def _write_torch(checkpoint: Checkpoint, path: Path) -> None:
    import torch

    state_dict: Any = torch_groups.write(checkpoint.records)
    if checkpoint.model is None:
        torch.save(state_dict, path)
        return
    model: Any = {name: to_torch(array) for name, array in checkpoint.model.items()}
    if checkpoint.versions is not None:  # as a module's state_dict has them
        model = OrderedDict(model)
        model._metadata = OrderedDict(checkpoint.versions)
    torch.save({"model": model, "optimizer": state_dict}, path)


def _checked(state_dict: Any, model: Any, versions: Any, given: Given) -> Checkpoint:
    """A torch optimizer's and a model's `state_dict`, held against each other."""
    if given.optimizer is None:
        raise ValueError(f"the file does not tell the optimizer's class; --optimizer is needed, one of {', '.join(TORCH_CLASSES)}.")
    groups = torch_groups.read_groups(state_dict, _torch_class(given.optimizer))
    arrays = None if model is None else {name: _array(name, value) for name, value in model.items()}
    names, by_index = _names(groups, arrays)
    for name in (*(name for own in names for name in own), *(arrays or {})):
        if not isinstance(name, str) or not name:
            raise ValueError(f"parameters and tensors have names, which are strings and not empty; got {name!r}.")
    index_of = {name: index for group, own in zip(groups, names, strict=True) for index, name in zip(group.indices, own, strict=True)}
    for name in given.missing:
        if name not in index_of:
            raise ValueError(f"--missing {name}: no parameter has this name; one of {', '.join(index_of)} is needed.")
    records = torch_groups.read(state_dict, groups, step=given.step, missing=[index_of[name] for name in given.missing])
    checkpoint = Checkpoint(records, names, arrays, versions, by_index)
    _fits(checkpoint)
    return checkpoint


def _torch_class(optimizer: str) -> str:
    return OPTIMIZERS[optimizer].torch_name if optimizer in OPTIMIZERS else optimizer


def _array(name: str, value: Any) -> np.ndarray:
    try:
        return to_numpy(value)
    except (TypeError, RuntimeError) as error:
        raise TypeError(f"{name} of the model: {error}.") from None


def _names(groups: Sequence[Group], model: Mapping[str, np.ndarray] | None) -> tuple[list[tuple[str, ...]], bool]:
    """The names of each group's parameters; and whether they are only their indices.

    A model tells the names of one group that has as many parameters as the model has tensors; buffers, and several groups, have
    another order than the model. Groups of several models may have a name twice, and then go by index.
    """
    if all("param_names" in group.options for group in groups):
        names = [tuple(group.options["param_names"]) for group in groups]
        if len({name for own in names for name in own}) == sum(map(len, names)):
            return names, False
        return [tuple(map(str, group.indices)) for group in groups], True
    if model is not None and len(groups) == 1 and len(model) == len(groups[0].indices):
        return [tuple(model)], False
    if model is not None and len(model) < sum(len(group.indices) for group in groups):
        raise ValueError(f"the model has {len(model)} tensors, the optimizer {sum(len(group.indices) for group in groups)} parameters.")
    return [tuple(map(str, group.indices)) for group in groups], True


def _fits(checkpoint: Checkpoint) -> None:
    """Whether every moment has the shape of its parameter, and its dtype, or float32 for halves."""
    for (group, _, state), names in zip(checkpoint.records, checkpoint.names, strict=True):
        for position, (own, name) in enumerate(zip(state, names, strict=True)):
            if not own:
                continue
            like = ({} if checkpoint.by_index else checkpoint.model or {}).get(name, next(iter(own.values())))
            for field, array in own.items():
                if array.shape != like.shape:
                    raise ValueError(
                        f"{group.optimizer}: {field} of {group.name(position)} has shape {array.shape}, the parameter {name} {like.shape}."
                    )
                wide = like.dtype.itemsize == 2 and array.dtype == np.float32
                if array.dtype != like.dtype and not wide:
                    raise ValueError(
                        f"{group.optimizer}: {field} of {group.name(position)} has dtype {array.dtype}, the parameter {name} {like.dtype}."
                    )


# Orbax and safetensors: a tree of arrays, and facts as JSON


def _tree(checkpoint: Checkpoint) -> dict[str, Any]:
    steps = [record.step for record in checkpoint.records]
    optimizer: dict[str, Any] = {"step": np.asarray(steps[0] if len(set(steps)) == 1 else steps, np.int32)}
    for record, names in zip(checkpoint.records, checkpoint.names, strict=True):
        for name, own in zip(names, record.state, strict=True):
            for field, array in own.items():
                optimizer.setdefault(field, {})[name] = array
    return {"optimizer": optimizer} if checkpoint.model is None else {"model": dict(checkpoint.model), "optimizer": optimizer}


def _facts(checkpoint: Checkpoint) -> dict[str, Any]:
    """What torch has beyond arrays, as JSON."""
    groups = []
    for (group, step, state), names in zip(checkpoint.records, checkpoint.names, strict=True):
        missing = [index for index, own in zip(group.indices, state, strict=True) if not own]
        groups.append(
            {
                "optimizer": group.optimizer,
                "options": {key: _encoded(value) for key, value in group.options.items()},
                "params": list(group.indices),
                "names": list(names),
                "step_kind": group.step_kind,
                "missing": missing if step or len(missing) < len(state) else [],
            }
        )
    order = None if checkpoint.model is None else list(checkpoint.model)
    return {"version": 1, "groups": groups, "model": order, "versions": checkpoint.versions, "by_index": checkpoint.by_index}


def _encoded(value: Any) -> Any:
    """An option of a group as JSON; what JSON does not know is under the name of its kind."""
    if is_tensor(value):
        array = to_numpy(value)
        return {"tensor": array.dtype.name, "shape": list(array.shape), "bytes": base64.b64encode(array.tobytes()).decode()}
    if isinstance(value, list | tuple):
        return {type(value).__name__: [_encoded(item) for item in value]}
    if isinstance(value, dict):
        return {"dict": [[_encoded(key), _encoded(item)] for key, item in value.items()]}
    return value


def _decoded(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    if "tensor" in value:
        array = np.frombuffer(base64.b64decode(value["bytes"]), jnp.dtype(value["tensor"])).reshape(value["shape"])
        return to_torch(array.copy())
    if "dict" in value:
        return {_decoded(key): _decoded(item) for key, item in value["dict"]}
    ((kind, items),) = value.items()
    return {"list": list, "tuple": tuple}[kind](_decoded(item) for item in items)


def _from_tree(arrays: Mapping[str, np.ndarray], facts: Any, given: Given) -> Checkpoint:
    """A checkpoint from its arrays by dotted name, and its facts, or those of `given.like`."""
    model, optimizer = ({}, {})
    for name, array in arrays.items():
        part, _, rest = name.partition(".")
        if part not in ("model", "optimizer") or not rest:
            raise ValueError(f"arrays are named model.NAME, optimizer.step and optimizer.FIELD.NAME; got {name}.")
        (model if part == "model" else optimizer)[rest] = array
    if facts is None:
        facts = _facts_like(given)
    elif given.like is not None:
        raise ValueError("--like: this checkpoint has groups of its own.")
    try:
        groups = [
            Group(
                each["optimizer"],
                {key: _decoded(value) for key, value in each["options"].items()},
                tuple(each["params"]),
                each["step_kind"],
            )
            for each in facts["groups"]
        ]
        names, missing = [tuple(each["names"]) for each in facts["groups"]], [each["missing"] for each in facts["groups"]]
        order, versions, by_index = facts["model"], facts["versions"], facts["by_index"]
        for group in groups:
            if group.step_kind not in STEP_KINDS or not isinstance(group.optimizer, str):
                raise ValueError(f"step_kind {group.step_kind!r} of {group.optimizer!r}")
        if not groups or not isinstance(versions, dict | None):
            raise ValueError("no groups, or versions that are none")
        if facts["version"] != 1 or any(len(group.indices) != len(own) for group, own in zip(groups, names, strict=True)):
            raise ValueError("another version, or names that are not those of the parameters")
    except (AttributeError, KeyError, LookupError, TypeError, ValueError) as error:
        raise ValueError(f"its {KEY} metadata is damaged: {type(error).__name__}: {error}.") from None
    if sorted(order or []) != sorted(model):
        raise ValueError(f"the model's tensors are not those that were saved: {', '.join(sorted({*(order or [])} ^ model.keys()))}.")
    if given.optimizer not in (None, *(name for group in groups for name in (group.optimizer, group.optimizer.lower()))):
        raise ValueError(f"--optimizer {given.optimizer}: the file says {groups[0].optimizer}.")
    for name in given.missing:
        if all(name not in own for own in names):
            raise ValueError(f"--missing {name}: no parameter has this name.")
    records = _records(optimizer, groups, names, missing, given)
    whole = Checkpoint(records, names, None if order is None else {name: model[name] for name in order}, versions, by_index)
    _fits(whole)
    return whole


def _facts_like(given: Given) -> dict[str, Any]:
    """Those that a conversion of `given.like` would have."""
    if given.like is None:
        raise ValueError(
            "it does not hold torch's parameter groups; --like FILE.pt is needed, a torch checkpoint of the same model and optimizer "
            "(a new one will do), and --optimizer."
        )
    try:
        state_dict, model = _torch_parts(given.like)
        without_state = {**state_dict, "state": {}} if isinstance(state_dict, Mapping) else state_dict
        return _facts(_checked(without_state, model, getattr(model, "_metadata", None), replace(given, step=0, missing=())))
    except UNFORESEEN as error:
        raise ValueError(f"--like {given.like}: {_said(error)}") from None


def _records(
    optimizer: dict[str, np.ndarray],
    groups: Sequence[Group],
    names: Sequence[Sequence[str]],
    missing: Sequence[Sequence[int]],
    given: Given,
) -> list[Record]:
    """The groups' state, read as torch's is, so that the same is refused."""
    steps = optimizer.pop("step", None)
    if steps is None or steps.dtype.kind != "i" or steps.shape not in ((), (len(groups),)):
        raise ValueError(f"optimizer.step is a count, or one for each group; got {'none' if steps is None else steps}.")
    by_name: dict[str, dict[str, np.ndarray]] = {}
    for key, array in optimizer.items():
        field, _, name = key.partition(".")
        by_name.setdefault(name, {})[field] = array
    records = []
    for group, own, absent, step in zip(groups, names, missing, np.broadcast_to(steps, len(groups)), strict=True):
        counts = {"step": step} if group.optimizer in TORCH_CLASSES and TORCH_CLASSES[group.optimizer].has_step else {}
        there = [(index, by_name.pop(name)) for index, name in zip(group.indices, own, strict=True) if name in by_name]
        state_dict = {
            "state": {index: {**counts, **fields} for index, fields in there},
            "param_groups": [{**group.options, "params": list(group.indices)}],
        }
        (parsed,) = torch_groups.read_groups(state_dict, group.optimizer)
        absent = [*absent, *(index for index, name in zip(group.indices, own, strict=True) if name in given.missing)]
        counted = int(step) if given.step is None else given.step
        (record,) = torch_groups.read(state_dict, [parsed], step=counted, missing=absent)
        records.append(record._replace(group=replace(record.group, step_kind=group.step_kind)))
    if by_name:
        raise ValueError(f"there is state of {', '.join(sorted(by_name)[:5])}, in no group.")
    return records


def _read_orbax(path: Path, given: Given) -> Checkpoint:
    import jax
    import orbax.checkpoint as ocp

    with _quiet(), ocp.PyTreeCheckpointer() as checkpointer:
        try:
            metadata = checkpointer.metadata(path.absolute())
            if metadata.item_metadata is None:
                raise FileNotFoundError("it has no tree of arrays")
            whole = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), metadata.item_metadata.tree)
            tree = checkpointer.restore(path.absolute(), restore_args=whole)
            facts = (metadata.custom_metadata or {}).get(KEY)
        except Exception as error:  # whatever Orbax makes of a damaged folder
            said = " ".join(str(error).split())
            raise ValueError(f"it is no Orbax checkpoint, or a damaged one: {type(error).__name__}: {said[:200]}") from None
    return _from_tree(Leaves(tree).by_path, facts, given)


def _write_orbax(checkpoint: Checkpoint, path: Path) -> None:
    import orbax.checkpoint as ocp

    tree = _tree(checkpoint)
    for name, array in Leaves(tree).by_path.items():
        if not array.size:
            raise ValueError(f"{name} has shape {array.shape}; Orbax holds no arrays without elements, safetensors does.")
    # Nothing changes the arrays while they are written, so that Orbax need not copy them first: less memory by the checkpoint's size.
    registry = ocp.type_handlers.create_type_handler_registry((np.ndarray, ocp.type_handlers.NumpyHandler(deepcopy_host_arrays=False)))
    with _quiet(), ocp.Checkpointer(ocp.PyTreeCheckpointHandler(type_handler_registry=registry)) as checkpointer:
        checkpointer.save(path.absolute(), tree, custom_metadata={KEY: _facts(checkpoint)})


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without what Orbax logs on its way to an error that is told in one line.

    When a read fails, those still under way come to an event loop that is closed, each with a traceback, at any later time.
    """
    before, hook = logging.root.manager.disable, sys.unraisablehook
    logging.disable(logging.CRITICAL)
    sys.unraisablehook = lambda late: None if "Event loop is closed" in str(late.exc_value) else hook(late)
    try:
        yield
        sys.unraisablehook = hook
    finally:
        logging.disable(before)


def _read_safetensors(path: Path, given: Given) -> Checkpoint:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as file:
            facts = (file.metadata() or {}).get(KEY)
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, TypeError, KeyError) as error:
        raise ValueError(f"it is no safetensors file, or a damaged one: {error}.") from None
    try:
        return _from_tree(arrays, None if facts is None else json.loads(facts), given)
    except (json.JSONDecodeError, RecursionError) as error:
        raise ValueError(f"its {KEY} metadata is damaged: {error}.") from None


def _write_safetensors(checkpoint: Checkpoint, path: Path) -> None:
    from safetensors.numpy import save_file

    arrays = {name: np.asarray(array, order="C") for name, array in Leaves(_tree(checkpoint)).by_path.items()}
    save_file(arrays, path, {KEY: json.dumps(_facts(checkpoint))})
