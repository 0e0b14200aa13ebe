"""What an argument around the step may be, and what is said when it is not: who, what, rule, got.  Mirror: torch_ref/around/checks.py"""

import numbers


def number(name, at_least=None, above=None, at_most=None, below=None, **arguments):
    """Each of the arguments is a number, not NaN, in this range."""
    bounds = ((">=", at_least), (">", above), ("<=", at_most), ("<", below))
    for argument, value in arguments.items():
        rule = " and ".join(f"{argument} {sign} {bound}" for sign, bound in bounds if bound is not None) or f"{argument} is a number"
        if not isinstance(value, numbers.Real) or isinstance(value, bool):
            raise TypeError(f"Invalid {argument}: {value!r} ({name}: {argument} is a number)")
        good = (at_least is None or value >= at_least) and (above is None or value > above)
        good = good and (at_most is None or value <= at_most) and (below is None or value < below)
        if not good or value != value:
            raise ValueError(f"Invalid {argument} value: {value} ({name}: {rule})")


def whole(name, at_least=1, **arguments):
    """Each of the arguments is a whole number, so large at least."""
    for argument, value in arguments.items():
        if not isinstance(value, numbers.Integral) or isinstance(value, bool):
            raise TypeError(f"Invalid {argument}: {value!r} ({name}: {argument} is a whole number)")
        if value < at_least:
            raise ValueError(f"Invalid {argument} value: {value} ({name}: {argument} >= {at_least})")


def one_of(name, known, **arguments):
    """Each of the arguments is one of the names."""
    for argument, value in arguments.items():
        if value not in known:
            raise ValueError(f"Invalid {argument}: {value!r} ({name}: {argument} is one of {', '.join(map(repr, known))})")
