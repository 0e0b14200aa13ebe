"""The TPU's own instructions, below HLO: one for each operation of a rule, and no FMA. Its compiler writes them down when it is asked to.

How they round is in no text. A quotient or a root becomes an estimate and, on most, a Newton step; so the rule that is read has none.
"""

import re
from collections import Counter
from pathlib import Path

import pytest

from optparity.accelerators import hlo, programs
from optparity.accelerators.compiling import Compiled, compile_programs
from optparity.registry import Row

pytestmark = pytest.mark.accelerators

INSTRUCTIONS = {"add": "vadd.f32", "subtract": "vsub.f32", "multiply": "vmul.f32", "and": "vand.u32"}  # `and` takes the sign of a fence
OTHERS = {"vxor.u32"}  # negates, or joins two signs


@pytest.fixture
def made(tmp_path, monkeypatch):
    """`made(generation, row)`: a float32 step, and how often its kernels have each vector instruction: `%v1_v2 = vadd.f32 %v3, %v4`."""

    def make(generation: str, row: Row) -> tuple[Compiled, Counter[str]]:
        dump = tmp_path / "dump"
        monkeypatch.setenv("LIBTPU_INIT_ARGS", f"--xla_jf_dump_to={dump} --xla_jf_dump_llo_text=true")
        (found,) = compile_programs(generation, programs.train_steps(["float32"], [row]), tmp_path / "compiled", workers=1)
        return found, Counter(name for file in _kernels(dump) for name in re.findall(r"= (v[a-z0-9.]+)", file.read_text(encoding="utf-8")))

    return make


@pytest.mark.parametrize("generation", ["v4", "v5e", "v5p", "v6e"])
def test_each_operation_of_a_rule_is_one_instruction(generation, made):
    found, instructions = made(generation, Row("sgd", "all"))
    assert len(registers(found, instructions)) == 1
    assert {name for name in instructions if re.search(r"f32|u32|fma|mac|mad", name)} == {*INSTRUCTIONS.values(), *OTHERS}


def test_more_instructions_than_operations_are_seen(made):
    assert len(registers(*made("v5e", Row("adagrad", "default")))) > 1  # the Newton steps of its estimates


def registers(found: Compiled, instructions: Counter[str]) -> set[float]:
    """How many instructions there are for each operation on the whole leaf: as many as it has vector registers, if one for each."""
    operations = Counter(i.opcode for body in hlo.computations(found.hlo).values() for i in body if i.results and i.results[0].shape)
    return {instructions[name] / operations[opcode] for opcode, name in INSTRUCTIONS.items()}


def _kernels(dump: Path) -> list[Path]:
    """The last pass of each kernel, and not of what is around them."""
    return [file for file in dump.glob("*-final_bundles.txt") if not re.search(r"schedule-analysis|TLP|<late", file.name)]
