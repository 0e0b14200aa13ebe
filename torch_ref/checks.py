"""What an argument may be, and what is said when it is not: who, what, rule, got.  Mirror: jaxopt_impl/checks.py

Messages begin with torch.optim's own text where it has one. Hyper-parameters are checked when an optimizer is made; one that only
the run will tell (`nx.known` gives None) is left alone. Leaves are checked by name, shape and dtype, never by element.
"""

import warnings

from . import numerics as nx

_TORCH_WORDS = {"lr": "learning rate", "eps": "epsilon value"}


def at_least_zero(who, **hyper):
    for name, value in hyper.items():
        number = _known(who, name, value)
        if number is not None and not number >= 0:
            word = _TORCH_WORDS.get(name, f"{name} value")
            raise ValueError(f"Invalid {word}: {number} ({who}: {name} >= 0)")


def not_nan(who, **hyper):
    for name, value in hyper.items():
        number = _known(who, name, value)
        if number is not None and number != number:
            raise ValueError(f"Invalid {name} value: {number} ({who}: {name} is a number)")


def nesterov(who, nesterov, momentum, dampening):
    momentum, dampening = _known(who, "momentum", momentum), _known(who, "dampening", dampening)
    if nesterov and (momentum == 0 or dampening not in (None, 0)):
        raise ValueError(
            f"Nesterov momentum requires a momentum and zero dampening ({who}: momentum > 0, dampening = 0; "
            f"got momentum {momentum}, dampening {dampening})"
        )


def _known(who, name, value):
    try:
        return nx.known(value)
    except TypeError as error:
        raise TypeError(f"Invalid {name}: {error} ({who}: {name} is a number)") from None


def beta(who, index, name, value):
    number = _known(who, name, value)
    if number is not None and not 0 <= number < 1:
        raise ValueError(f"Invalid beta parameter at index {index}: {number} ({who}: 0 <= {name} < 1)")


def accumulator(who, dtype):
    if dtype is None:
        return None
    try:
        name = nx.dtype_name(dtype)
    except TypeError:
        name = str(dtype)
    if name != "float32":
        raise ValueError(f"{who}: accumulator_dtype {name} is not supported; float32 or None is needed.")
    return name


def not_half(who, name, dtype):
    if dtype is not None and nx.dtype_name(dtype) in nx.HALVES:
        warnings.warn(
            f"{who}: {name} arrives in {nx.dtype_name(dtype)}, which rounds it: say hyperparam_dtype=jnp.float32 to "
            "optax.inject_hyperparams.",
            stacklevel=3,
        )


def eps_survives(who, path, dtype, eps):
    number = None if eps is None else nx.known(eps)
    if number and not nx.rounded_to(number, dtype):
        warnings.warn(
            f"{who}: eps={number:g} is 0 in {dtype} (leaf {path}), so that a zero gradient gives NaN: set eps >= "
            "6e-08, or accumulator_dtype='float32'.",
            stacklevel=3,
        )


def floating(who, path, dtype):
    if dtype not in nx.DTYPES:
        raise TypeError(f"{who}: leaf {path} has dtype {dtype}; a floating-point dtype ({', '.join(nx.DTYPES)}) is needed.")


def dense(who, path, kind):
    if kind != "strided":
        raise TypeError(f"{who}: the gradient of leaf {path} is {kind}; a dense gradient is needed.")


def present(who, path, what, there):
    if not there:
        raise ValueError(f"{who}: leaf {path} has no {what}; gradients, parameters and state must have the same leaves.")


def alike(who, path, what, shape, dtype, leaf_shape, leaf_dtype):
    if tuple(shape) != tuple(leaf_shape):
        raise ValueError(f"{who}: leaf {path} has shape {tuple(leaf_shape)} but its {what} has {tuple(shape)}.")
    if dtype != leaf_dtype:
        raise TypeError(f"{who}: leaf {path} has dtype {leaf_dtype} but its {what} has {dtype}.")
