"""Compile programs for a device that is not here, in processes that do nothing else.

`compile_programs` starts them: `python -m optparity.accelerators.compiling TARGET FOLDER`, with pickled `(number, Program)` pairs on
standard input. What a compiler needs to be told by the environment is told there, and a process that compiles for one backend and runs
on another dies now and then.
"""

import json
import os
import pickle
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

from .programs import Program
from .targets import TARGETS

WORKERS = 2
_ERROR, _LOWERED, _HLO, _NUMBERS = "error.txt", "lowered.txt", "hlo.txt", "numbers.json"
_PTX, _LAUNCHES, _BUFFERS = "kernels.ptx", "launches.txt", "buffers.txt"
_KEPT = {".ptx": _PTX, ".thunk_sequence.txt": _LAUNCHES, "-buffer-assignment.txt": _BUFFERS}  # of what XLA dumps, by the end of its name


@dataclass(frozen=True)
class Compiled:
    """What the compiler made of a program.

    Attributes:
        program: what was compiled.
        folder: where its files are.
    """

    program: Program
    folder: Path

    @cached_property
    def error(self) -> str | None:
        """Why it did not compile, in one line."""
        file = self.folder / _ERROR
        return file.read_text(encoding="utf-8") if file.exists() else None

    @cached_property
    def lowered(self) -> str:
        """The program as the compiler was given it, as HLO, but for what nothing depends on."""
        return (self.folder / _LOWERED).read_text(encoding="utf-8")

    @cached_property
    def hlo(self) -> str:
        """The optimized program."""
        return (self.folder / _HLO).read_text(encoding="utf-8")

    @cached_property
    def ptx(self) -> str:
        """CUDA: the text of its kernels."""
        return (self.folder / _PTX).read_text(encoding="utf-8")

    @cached_property
    def launches(self) -> str:
        """CUDA: XLA's list of the kernels that are started, in order."""
        return (self.folder / _LAUNCHES).read_text(encoding="utf-8")

    @cached_property
    def buffers(self) -> str:
        """CUDA: XLA's plan of the memory."""
        return (self.folder / _BUFFERS).read_text(encoding="utf-8")

    @cached_property
    def numbers(self) -> dict:
        """What the compiler says of its costs and of its memory."""
        return json.loads((self.folder / _NUMBERS).read_text(encoding="utf-8"))


def compile_programs(
    target: str,
    programs: Iterable[Program],
    folder: Path,
    workers: int = WORKERS,
    advance: Callable[[], None] = lambda: None,
    flags: str = "",
) -> list[Compiled]:
    """Compile each program for a target, in processes of their own, into an empty folder.

    Args:
        advance: is called after each.
        flags: further `XLA_FLAGS`; those of this process are left aside.

    Raises: RuntimeError where what is needed is not installed, or where a process dies.
    """
    missing = TARGETS[target].missing()
    if missing:
        raise RuntimeError(missing)
    numbered = list(enumerate(programs))
    shares = filter(None, (numbered[i::workers] for i in range(workers)))
    with ThreadPoolExecutor(workers) as pool, ExitStack() as stack:
        started = [stack.enter_context(_started(target, share, folder, f"worker{i}", flags)) for i, share in enumerate(shares)]
        for done in [pool.submit(_follow, process, advance) for process in started]:
            done.result()
    return [Compiled(program, _place(folder, number)) for number, program in numbered]


def _place(folder: Path, number: int) -> Path:
    return folder / f"{number:04d}"


class _Process(NamedTuple):
    """One that compiles, and what it says on standard error."""

    process: subprocess.Popen
    log: Path


@contextmanager
def _started(target: str, share: list[tuple[int, Program]], folder: Path, worker: str, flags: str) -> Iterator[_Process]:
    """A process for a share of the programs. It does not outlive the block, however that ends."""
    dump, given, log = folder / worker, folder / f"{worker}.programs", folder / f"{worker}.log"
    dump.mkdir(parents=True)
    given.write_bytes(pickle.dumps(share))
    command = [sys.executable, "-m", __spec__.name, target, str(folder), str(dump)]
    environment = _environment(target, dump, flags)
    with (
        given.open("rb") as programs,
        log.open("wb") as errors,
        subprocess.Popen(command, stdin=programs, stdout=subprocess.PIPE, stderr=errors, env=environment) as process,
    ):
        try:
            yield _Process(process, log)
        finally:
            process.kill()


def _follow(started: _Process, advance: Callable[[], None]) -> None:
    """Wait until it is done."""
    process, log = started
    assert process.stdout
    for _ in process.stdout:
        advance()
    if process.wait():
        last = log.read_text(encoding="utf-8", errors="replace").strip().rpartition("\n")[2]
        raise RuntimeError(f"the process that compiles ended with status {process.returncode}: {last}")


def _environment(target: str, dump: Path, flags: str) -> dict[str, str]:
    # the kernels as PTX, and the order in which they are started; with the platform "cuda" jax would ask for cuDNN
    dumping = f"--xla_dump_to={dump} --xla_dump_hlo_as_text --xla_dump_emitter_re=ptx" if TARGETS[target].platform == "cuda" else ""
    ours = {
        "JAX_PLATFORMS": "cpu",
        "JAX_ENABLE_COMPILATION_CACHE": "false",  # each program is compiled anew, and of use to nobody else
        "XLA_FLAGS": f"{flags} {dumping}".strip(),
        "TMPDIR": str(dump.parent),
    }
    return {**os.environ, **ours, **TARGETS[target].environment}


def _compile_here(target: str, folder: Path, dump: Path) -> None:
    """What the process does: a folder for each program, and a line on standard output when it is done."""
    share: list[tuple[int, Program]] = pickle.load(sys.stdin.buffer)
    devices = TARGETS[target].devices()
    for number, program in share:
        place = _place(folder, number)
        place.mkdir(parents=True, exist_ok=True)
        try:
            _compile(program, f"p{number}", devices, place)
        except Exception as error:  # a compiler's errors have no common class
            (place / _ERROR).write_text(" ".join(f"{type(error).__name__}: {error}".split()), encoding="utf-8")
        _keep(dump, place)
        print(number, flush=True)


def _keep(dump: Path, place: Path) -> None:
    """Add what is read of a dump to the program's folder, the kernels as one text, and leave the dump empty."""
    for file in sorted(dump.iterdir()):
        for ending, name in _KEPT.items():
            if file.name.endswith(ending):
                with (place / name).open("a", encoding="utf-8") as kept:
                    kept.write(file.read_text(encoding="utf-8"))
    shutil.rmtree(dump)
    dump.mkdir()


def _compile(program: Program, name: str, devices: list, place: Path) -> None:
    import jax

    with jax.enable_x64(program.dtype == "float64"):
        built = program.build(program.of, program.dtype)

        def function(*arguments):
            return built.function(*arguments)

        function.__name__ = name
        arguments = _placed(built.arguments, devices if program.sharded else devices[:1])
        lowered = jax.jit(function, donate_argnums=built.donated, keep_unused=True).lower(*arguments)
        compiled = lowered.compile()
    if not {device for sharding in jax.tree.leaves(compiled.output_shardings) for device in sharding.device_set} <= set(devices):
        raise ValueError(f"{program.name}: jax compiled it for another device; it needs an argument.")
    (place / _LOWERED).write_text(lowered.as_text(dialect="hlo"), encoding="utf-8")
    (place / _HLO).write_text(compiled.as_text() or "", encoding="utf-8")
    memory = compiled.memory_analysis()
    sizes = {field: getattr(memory, field) for field in dir(memory) if field.endswith("_in_bytes")}
    (place / _NUMBERS).write_text(json.dumps({"cost": compiled.cost_analysis(), "memory": sizes}), encoding="utf-8")


def _placed(arguments, devices: list):
    """The shapes, on one device, or spread over several by their first axis."""
    import jax
    import numpy as np
    from jax.sharding import Mesh, NamedSharding, PartitionSpec

    mesh = Mesh(np.array(devices), ("data",))

    def place(x):
        spec = PartitionSpec("data") if x.ndim else PartitionSpec()
        return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=NamedSharding(mesh, spec))

    return jax.tree.map(place, arguments)


if __name__ == "__main__":
    _compile_here(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]))
