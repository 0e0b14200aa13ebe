"""A library that is built wrong is found by the checks of test_steps.py, each kind of mistake by the one that is for it."""

import pytest

from one_pass import cpp
from optparity.registry import Row

from . import checks
from .libraries import FUSED, Change, built, in_use

ADAM = Row("adam", "default")
UNDONE = Change("library.cc", "~Subnormals() { write(before_); }", "~Subnormals() {}")
DEAF = Change("library.cc", "step.flushed = Subnormals::flushed()", "step.flushed = false")
NO_TAIL = Change("library.cc", "std::min(BLOCK, last - i)", "std::min(BLOCK, last - i) / 8 * 8")
LATE = Change("library.cc", "step.run(j ? end_of(j - 1, k, elements) : 0, end", "step.run(j ? end_of(j - 1, k, elements) + 16 : 0, end")
CUT_OFF = Change("rounded.h", "size + 0xfff + (size >> 13 & 1)", "size")
TIES_UP = Change("rounded.h", "b + 0x7fff + (b >> 16 & 1)", "b + 0x8000")
FINITE = Change("library.cc", "size >= 0x7c00 ?", "size > 0x7c00 ?")
SMALL = Change("rounded.h", "size < 0x38800000 ?", "size < 0x38000000 ?")


def steps():
    checks.steps_are_the_rules(ADAM, "float32")


def alone():
    checks.each_size_alone(ADAM, "float32")


def words():
    for word in checks.WORDS.values():
        checks.the_word_is_put_back(word)


CHECKS = (steps, alone, words, checks.subnormals_are_flushed_as_torch_says, checks.rounding_is_the_others, checks.halves_are_widened)


@pytest.mark.exhaustive
def test_a_sound_library_that_is_built_so_passes(tmp_path):
    with in_use(built(tmp_path)):
        for check in CHECKS:
            check()


def test_fused_multiply_add_is_found(tmp_path):
    with in_use(built(tmp_path, flags=FUSED)), pytest.raises(AssertionError, match=r"\d+ elements differ"):
        steps()


@pytest.mark.exhaustive
@pytest.mark.parametrize(("operation", "written"), [("/", "{1} / {0}"), ("+", "{0} - {1}"), ("sqrt", "{0}")])
def test_a_wrong_operation_of_the_generator_is_found(operation, written, tmp_path, monkeypatch):
    line = cpp._line
    monkeypatch.setattr(cpp, "_line", lambda said, *operands: written.format(*operands) if said == operation else line(said, *operands))
    with in_use(built(tmp_path)), pytest.raises(AssertionError, match=r"\d+ elements differ"):
        steps()


@pytest.mark.exhaustive
@pytest.mark.parametrize(
    ("change", "check", "said"),
    [
        (UNDONE, words, r"MXCSR was 0x9f80 and is 0x9fc0"),
        (DEAF, checks.subnormals_are_flushed_as_torch_says, r"1 threads, flushed=True: 0 of \d+ are 0"),
        (NO_TAIL, steps, r"\d+ elements differ"),
        (NO_TAIL, alone, r"\d+ elements differ"),
        (LATE, steps, r"\d+ elements differ"),
        (CUT_OFF, checks.rounding_is_the_others, r"float16 of 0x\S+"),
        (TIES_UP, checks.rounding_is_the_others, r"bfloat16 of 0x\S+"),
        (FINITE, checks.halves_are_widened, r"float16 to float32"),
        (SMALL, checks.rounding_is_the_others, r"float16 of 0x\S+"),
    ],
)
def test_a_change_is_found(change, check, said, tmp_path):
    with in_use(built(tmp_path, changes=(change,))), pytest.raises(AssertionError, match=said):
        check()
