"""A run in its file: on what it was made, and what was measured."""

import json
import os
import platform
import subprocess
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NoReturn

import jax
import typer

from optparity._files import replacing
from optparity.doctor import machine

ABOUT = ("device", "threads", "dtype", "commit", "load", "when", "versions")


def about(dtype: str, threads: int) -> dict[str, Any]:
    """On what a run was made, and when."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    models = [line.split(":")[1].strip() for line in lines if line.startswith("model name")] or [platform.processor()]
    commit = subprocess.run(["git", "describe", "--always", "--dirty"], capture_output=True, text=True, check=False).stdout.strip()
    device = f"{os.cpu_count()} x {models[0]}" if jax.default_backend() == "cpu" else jax.devices()[0].device_kind
    about = {"device": device, "threads": threads, "dtype": dtype, "commit": commit, "load": os.getloadavg()[0]}
    return {**about, "when": datetime.now(UTC).isoformat(timespec="seconds"), "versions": dict(machine())}


def resident(what: str) -> int:
    """Bytes of this process in memory: "VmRSS", now; "VmHWM", the most so far. (`ru_maxrss` may be that of the process before `exec`.)"""
    status = Path("/proc/self/status").read_text()
    return 1024 * int(status.split(f"{what}:")[1].split()[0])


def folder(path: Path) -> None:
    """There, or made."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        fail(f"--out {path} cannot be a folder: {error.strerror}.")


def write(path: Path, result: dict[str, Any]) -> None:
    """The whole file or none."""
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(result, indent=1) + "\n")


def read(path: Path, keys: Iterable[str]) -> dict[str, Any]:
    """What a run says under these keys."""
    try:
        document = json.loads(path.read_text())
        return {key: document[key] for key in keys}
    except (OSError, ValueError, KeyError, TypeError) as error:
        fail(f"{path} cannot be read as a run of this benchmark: {' '.join(str(error).split())}")


def fail(message: str) -> NoReturn:
    """One line, and the exit status of bad input."""
    typer.echo(f"benchmarks: {message}", err=True)
    raise typer.Exit(2)
