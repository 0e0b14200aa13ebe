"""What an argument may be, and what is said when it is not: who, what, rule, got.  Mirror: jaxopt_impl/checks.py

Messages begin with torch.optim's own text where it has one. Hyper-parameters are checked when an optimizer is made; one that only
the run will tell (`nx.static_value` gives None) is left alone. Leaves are checked by name, shape and dtype, never by element.
"""

import warnings

from . import numerics as nx

_LEAST_NORMAL = 2.0**-14  # of float16
_ADVICE = "say accumulator_dtype='float32'; with a state in float16, eps near 1e-4 is what works."
_TORCH_WORDS = {"lr": "learning rate", "eps": "epsilon value"}


def at_least_zero(name, **hyper):
    for argument, value in hyper.items():
        number = _static_value(name, argument, value)
        if number is not None and not number >= 0:
            word = _TORCH_WORDS.get(argument, f"{argument} value")
            raise ValueError(f"Invalid {word}: {number} ({name}: {argument} >= 0)")


def not_nan(name, **hyper):
    for argument, value in hyper.items():
        number = _static_value(name, argument, value)
        if number is not None and number != number:
            raise ValueError(f"Invalid {argument} value: {number} ({name}: {argument} is a number)")


def nesterov(name, nesterov, momentum, dampening):
    momentum, dampening = _static_value(name, "momentum", momentum), _static_value(name, "dampening", dampening)
    if nesterov and (momentum == 0 or dampening not in (None, 0)):
        raise ValueError(
            f"Nesterov momentum requires a momentum and zero dampening ({name}: momentum > 0, dampening = 0; "
            f"got momentum {momentum}, dampening {dampening})"
        )


def _static_value(name, argument, value):
    try:
        return nx.static_value(value)
    except TypeError as error:
        raise TypeError(f"Invalid {argument}: {error} ({name}: {argument} is a number)") from None


def beta(name, index, argument, value):
    number = _static_value(name, argument, value)
    if number is not None and not 0 <= number < 1:
        raise ValueError(f"Invalid beta parameter at index {index}: {number} ({name}: 0 <= {argument} < 1)")


def accumulator(name, dtype):
    return _kept_in(name, "accumulator_dtype", dtype, "float32")


def first_moment(name, dtype):
    return _kept_in(name, "mu_dtype", dtype, "bfloat16")


def _kept_in(name, argument, dtype, supported):
    if dtype is None:
        return None
    try:
        dtype = nx.dtype_name(dtype)
    except TypeError:
        dtype = str(dtype)
    if dtype != supported:
        raise ValueError(f"{name}: {argument} {dtype} is not supported; {supported} or None is needed.")
    return dtype


def not_half(name, argument, dtype):
    if dtype is not None and nx.dtype_name(dtype) in nx.HALVES:
        warnings.warn(
            f"{name}: {argument} arrives in {nx.dtype_name(dtype)}, which rounds it: say hyperparam_dtype=jnp.float32 to "
            "optax.inject_hyperparams.",
            stacklevel=5,
        )


def schedule(name, argument, count, value):
    if value != value:
        raise ValueError(f"{name}: the schedule of {argument} is NaN at count {count}; a number is needed.")


def eps_survives(name, path, dtype, eps, in_sqrt):
    number = None if eps is None else nx.static_value(eps)
    if not number:
        return
    advice = _ADVICE if dtype == "float16" else "a larger eps is needed."
    if not nx.rounded_to(number, dtype):
        warnings.warn(f"{name}: eps={number:g} is 0 in {dtype} (leaf {path}), so that a zero gradient gives NaN: {advice}", stacklevel=3)
    elif dtype == "float16" and number < _LEAST_NORMAL and not in_sqrt:
        warnings.warn(
            f"{name}: eps={number:g} is small where the square of a gradient is 0 in {dtype} (leaf {path}), so that updates are many times "
            f"the learning rate: {advice}",
            stacklevel=3,
        )


def floating(name, path, dtype):
    if dtype not in nx.DTYPES:
        raise TypeError(f"{name}: leaf {path} has dtype {dtype}; a floating-point dtype ({', '.join(nx.DTYPES)}) is needed.")


def gradient(name, path, dtype, leaf_dtype, accumulator):
    if dtype not in (leaf_dtype, nx.state_dtype(leaf_dtype, accumulator)):
        wide = ", or float32 with accumulator_dtype='float32'" if leaf_dtype in nx.HALVES else ""
        raise TypeError(f"{name}: leaf {path} has dtype {leaf_dtype} but its gradient has {dtype}; {leaf_dtype} is needed{wide}.")


def dense(name, path, kind):
    if kind != "strided":
        raise TypeError(f"{name}: the gradient of leaf {path} is {kind}; a dense gradient is needed.")


def present(name, path, what, there):
    if not there:
        raise ValueError(f"{name}: leaf {path} has no {what}; gradients, parameters and state must have the same leaves.")


def alike(name, path, what, shape, dtype, leaf_shape, leaf_dtype):
    if tuple(shape) != tuple(leaf_shape):
        raise ValueError(f"{name}: leaf {path} has shape {tuple(leaf_shape)} but its {what} has {tuple(shape)}.")
    if dtype != leaf_dtype:
        raise TypeError(f"{name}: leaf {path} has dtype {leaf_dtype} but its {what} has {dtype}.")
