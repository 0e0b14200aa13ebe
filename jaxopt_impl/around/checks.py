"""What an argument around the step may be, and what is said when it is not: who, what, rule, got.  Mirror: torch_ref/around/checks.py"""

import math
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


def finite(name, at_least=None, above=None, **arguments):
    """Each of the arguments is a number in this range, and not infinite; they are returned as floats."""
    number(name, at_least=at_least, above=above, **arguments)
    for argument, value in arguments.items():
        if not math.isfinite(value):
            raise ValueError(f"Invalid {argument} value: {value} ({name}: {argument} is finite)")
    return [float(value) for value in arguments.values()]


def whole(name, at_least=1, at_most=None, **arguments):
    """Each of the arguments is a whole number in this range."""
    for argument, value in arguments.items():
        if not isinstance(value, numbers.Integral) or isinstance(value, bool):
            raise TypeError(f"Invalid {argument}: {value!r} ({name}: {argument} is a whole number)")
        if value < at_least or (at_most is not None and value > at_most):
            rule = f"{argument} >= {at_least}" + ("" if at_most is None else f" and {argument} <= {at_most}")
            raise ValueError(f"Invalid {argument} value: {value} ({name}: {rule})")


def one_of(name, known, **arguments):
    """Each of the arguments is one of the names."""
    for argument, value in arguments.items():
        if value not in known:
            raise ValueError(f"Invalid {argument}: {value!r} ({name}: {argument} is one of {', '.join(map(repr, known))})")


FROZEN = "frozen"  # the label of what is not stepped


def label(name, path, value):
    """What a function of paths says of one, None being "frozen"."""
    if value is None:
        return FROZEN
    if not isinstance(value, bool | str):
        raise TypeError(f"{name}: the function of paths gives {value!r} for {path}; True, False, a label (str) or None is needed.")
    return value


def no_options_of_frozen(name, options):
    """No options are given for what is not stepped."""
    if FROZEN in options or None in options:
        raise ValueError(f"{name}: label {FROZEN!r} has no options: what has it is not stepped.")


def labels(name, label_of, options):
    """Each label has options, and the options have leaves."""
    there, known = (", ".join(map(repr, names)) for names in (dict.fromkeys(label_of.values()), options))
    for path, found in label_of.items():
        if found != FROZEN and found not in options:
            raise ValueError(f"{name}: leaf {path} has label {found!r}; one of {known} or None is needed.")
    for option in options:
        if option not in label_of.values():
            raise ValueError(f"{name}: no leaf has label {option!r}; the labels are {there}.")


def half_gradient(name, path, dtype, leaf_dtype):
    """The gradient of a half is one too, or float32."""
    if dtype not in (leaf_dtype, "float32"):
        raise TypeError(f"{name}: leaf {path} has dtype {leaf_dtype} but its gradient has {dtype}; {leaf_dtype} or float32 is needed.")


def no_float16(name, path, dtype):
    """bfloat16 is float32 without its lower half; float16 is not."""
    if dtype == "float16":
        raise TypeError(f"{name}: leaf {path} has dtype float16; bfloat16 is rounded so, and master_weights is there for float16.")


def counted(name, path, size):
    """A word of 32 bits numbers the elements."""
    if size > 2**32:
        raise ValueError(f"{name}: leaf {path} has {size} elements; no more than {2**32} are numbered.")
