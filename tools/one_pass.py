"""Writes one_pass/native/rules/*.cc of the kernels: `python -m tools.one_pass`; `--show adam` prints one."""

import argparse
import importlib
from pathlib import Path

from one_pass import cpp
from one_pass.library import KERNELS
from one_pass.program import programs

FOLDER = Path(cpp.__file__).parent / "native" / "rules"


def written(kernel: str) -> str:
    """The C++ of a kernel."""
    return cpp.kernel(kernel, programs(importlib.import_module(f"jaxopt_impl.{kernel}")))


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tools.one_pass", description="Write the rules as C++.")
    parser.add_argument(
        "--show", choices=KERNELS, metavar="KERNEL", help=f"print the C++ of one of {', '.join(KERNELS)}, and write nothing"
    )
    show = parser.parse_args().show
    if show:
        print(written(show), end="")
        return
    FOLDER.mkdir(exist_ok=True)
    for kernel in KERNELS:
        (FOLDER / f"{kernel}.cc").write_text(written(kernel), encoding="utf-8")


if __name__ == "__main__":
    main()
