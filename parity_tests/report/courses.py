"""Courses as comparisons find them: with a difference that grows, without one, of hashes, with NaN, in one step, with many leaves."""

import numpy as np

from optparity.report import Entry
from optparity.versus.course import Course, Place
from optparity.versus.modes import BITS, Mode
from optparity.versus.rounding import Verdict

LONG = "['transformer']['h']['11']['attention']['query_key_value']['kernel']"
HOSTILE = "<script>alert(1)</script> & \"quotes\" 'too'"


def growing(steps: int = 300, leaves: int = 3, mode: Mode = BITS, from_step: int = 20, dtype: str = "float32") -> Course:
    """Parameters part after `from_step` steps, each leaf so many later; gradients and state are the same."""
    rng = np.random.default_rng(0)
    course = Course("optax.adam(learning_rate=0.1, eps=1e-08)", "torch.optim.Adam(lr=0.1, eps=1e-08)", mode)
    for step in range(1, steps + 1):
        for leaf in range(leaves):
            g, p = rng.standard_normal((2, 5, 4)).astype(dtype)
            error = 1e-6 * step if step > from_step * (leaf + 1) else 0
            course.note(step, Place("gradients", f"['{leaf}']{LONG}"), g, g)
            course.note(step, Place("state", f"['{leaf}']{LONG}", "exp_avg"), g, g)
            course.note(step, Place("params", f"['{leaf}']{LONG}"), p, (p * (1 + error)).astype(dtype))
    return course


def of_hashes(steps: int = 40, leaves: int = 60) -> Course:
    """Every other leaf parts, one step after the other."""
    course = Course("runs/torch", "runs/jax")
    for step in range(1, steps + 1):
        for leaf in range(leaves):
            course.note_hashes(step, Place("gradients", f"['{leaf}']"), 10, "a" * 64, "b" * 64 if leaf % 2 and step > leaf else "a" * 64)
    return course


def of_values(first: list[float], second: list[float], mode: Mode = BITS) -> Course:
    """One step of one leaf."""
    course = Course("first", "second", mode)
    course.note(1, Place("params", "['w']"), np.array(first, np.float32), np.array(second, np.float32))
    return course


def entries() -> list[Entry]:
    """What a page has to show."""
    command = f"optparity check --jax optax:adam --torch torch.optim:Adam --set learning_rate=0.1 --params {'/long' * 30}/shapes.json"
    rounding = {
        Place("params", f"['0']{LONG}"): Verdict("another formula", 21, 0.5),
        Place("params", HOSTILE): Verdict("rounding", 3, 29.5),
    }
    return [
        Entry(
            growing(), f"epsilon is inside the root on one side: set eps_root=0 {HOSTILE}", rounding, command, ["compared: params", HOSTILE]
        ),
        Entry(growing(steps=1)),
        Entry(of_hashes()),
        Entry(of_values([1, np.nan], [1, 2])),
        Entry(growing(steps=3, mode=Mode(rtol=1e-3), from_step=0)),
        Entry(Course("nothing", "compared")),
    ]
