"""Orbax folders: {"model": {name: array}, "optimizer": {"step": count, field: {name: array}}}, as `optparity train` writes them too."""

import asyncio
import contextlib
import logging
import math
import os
from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from ..interop.leaves import Leaves
from ..registry import OPTIMIZERS
from . import arrays, jax_run, optax_types, orbax_layout
from .checkpoint import Checkpoint, Given

TASK = "a read or write of optparity"  # its name


def read(path: Path, given: Given) -> Checkpoint:
    """The checkpoint in a folder.

    Raises: ValueError or TypeError for what cannot be read, or has no meaning here.
    """
    try:
        place = orbax_layout.locate(path)
    except OSError as error:
        raise ValueError(f"it cannot be read: {error.strerror}.") from None
    trees, metadata = {}, {}
    for name, folder in place.trees.items():
        trees[name], metadata = read_tree(folder)
    tree = trees[""] if list(trees) == [""] else trees
    facts = metadata.get(arrays.KEY)
    if facts is None:
        like = arrays.like(replace(given, model_key=None, optimizer_key=None))
        if not _named_as_torch(tree, like.model.tensors or ()):
            return jax_run.checkpoint(tree, like, given, place.others)
    return arrays.checkpoint(Leaves(tree).by_path, facts, given)


def _named_as_torch(tree: Any, names: Collection[str]) -> bool:
    """Whether a tree is laid out as this module writes it, under the names of torch's parameters."""
    if not isinstance(tree, dict) or not set(tree) <= {*arrays.PARTS} or not isinstance(tree.get("optimizer"), dict):
        return False
    fields = {field for name in OPTIMIZERS for field in optax_types.own_state(name)._fields}
    return set(tree["optimizer"]) <= fields and ("model" not in tree or set(Leaves(tree["model"]).paths) == set(names))


def read_tree(folder: Path) -> tuple[Any, dict[str, Any]]:
    """The tree of NumPy arrays in a folder, and the metadata that the writer gave.

    Raises: ValueError for what cannot be read.
    """
    try:
        with _quiet():
            return _restored(folder)
    except Exception as error:  # whatever Orbax makes of a damaged folder
        said = " ".join(str(error).split())
        raise ValueError(f"it is no Orbax checkpoint, or a damaged one: {type(error).__name__}: {said[:200]}") from None


def write(checkpoint: Checkpoint, path: Path) -> None:
    """Write a folder.

    Raises: ValueError for an array without elements, which Orbax does not hold.
    """
    tree = arrays.tree(checkpoint)
    for name, array in Leaves(tree).by_path.items():
        if not array.size:
            raise ValueError(f"{name} has shape {array.shape}; Orbax holds no arrays without elements, safetensors does.")
    with _quiet(), _checkpointer() as checkpointer:
        checkpointer.save(path.absolute(), tree, custom_metadata={arrays.KEY: arrays.facts(checkpoint)})


def _restored(path: Path) -> tuple[Any, dict[str, Any]]:
    """The tree of arrays, and the metadata that the writer gave."""
    import jax

    with _checkpointer() as checkpointer:
        metadata = checkpointer.metadata(path.absolute())
        if metadata.item_metadata is None:
            raise FileNotFoundError("it has no tree of arrays")
        _check_memory(jax.tree.leaves(metadata.item_metadata.tree))
        whole = jax.tree.map(_restore_as, metadata.item_metadata.tree)
        return checkpointer.restore(path.absolute(), restore_args=whole), metadata.custom_metadata or {}


def _check_memory(leaves: Sequence[Any]) -> None:
    """Raise where the arrays, or the chunks that they are read in, are larger than this machine's memory: it would end the process."""
    size = sum(_bytes(leaf) for leaf in leaves if hasattr(leaf, "shape"))
    there = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if size > there:
        raise ValueError(f"its arrays are {size:,} bytes, this machine's memory {there:,}")


def _bytes(leaf: Any) -> int:
    chunk = leaf.storage.chunk_shape if leaf.storage else None
    return max(math.prod(leaf.shape), math.prod(chunk or ())) * np.dtype(leaf.dtype).itemsize


def _restore_as(metadata: Any) -> Any:
    """An array of NumPy's, whatever was saved; a string as it is."""
    import orbax.checkpoint as ocp

    return ocp.RestoreArgs(restore_type=str if type(metadata).__name__ == "StringMetadata" else np.ndarray)


def _checkpointer() -> Any:
    import jax
    import orbax.checkpoint as ocp

    kinds = {np.ndarray: "np.ndarray", jax.Array: "jax.Array", int: "scalar"}  # Orbax's own names of what a folder may hold
    handlers = [(kind, _handler()(name)) for kind, name in kinds.items()]
    registry = ocp.type_handlers.create_type_handler_registry(*handlers, (str, ocp.type_handlers.StringHandler()))
    return ocp.Checkpointer(ocp.PyTreeCheckpointHandler(type_handler_registry=registry))


@cache
def _handler() -> Any:
    """Orbax's handler of NumPy arrays, for any kind of array, which waits for all reads and writes before it says that one has failed.

    Else those that are still under way would end after their event loop, each with a traceback. And nothing changes the arrays while
    they are written, so that it need not copy them first: less memory by the checkpoint's size.
    """
    import orbax.checkpoint as ocp

    class Waiting(ocp.type_handlers.NumpyHandler):
        def __init__(self, kind: str):
            super().__init__(deepcopy_host_arrays=False)
            self._kind = kind

        def typestr(self) -> str:
            return self._kind

        async def metadata(self, infos: Any) -> Any:
            one = super().metadata
            return await _all([one([info]) for info in infos])

        async def deserialize(self, infos: Any, args: Any = None) -> Any:
            one = super().deserialize
            return await _all([one([info], args and [args[i]]) for i, info in enumerate(infos)])

        async def _open_and_write(self, *array: Any) -> None:
            await _all([_alone(super()._open_and_write(*array))])

    return Waiting


async def _alone(write: Any) -> tuple[Any]:
    return (await write,)


async def _all(tasks: list[Any]) -> list[Any]:
    """The only result of each, when all have ended, and those of the other kinds of array too."""
    results: list[Any] = await asyncio.gather(*(asyncio.create_task(each, name=TASK) for each in tasks), return_exceptions=True)
    await asyncio.gather(*(task for task in asyncio.all_tasks() if task.get_name() == TASK), return_exceptions=True)
    for result in results:
        if isinstance(result, BaseException):
            raise result
    return [result for (result,) in results]


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without what Orbax logs on its way to an error that is told in one line."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        yield
    finally:
        logging.disable(before)
