"""One rule, written twice: `State`, `Hyper` and `step` are the same text in both packages, and the rule is in the kernel."""

import ast
import importlib
import inspect
from pathlib import Path

import pytest

import jaxopt_impl
import torch_ref
from optparity.registry import OPTIMIZERS

KERNELS = sorted({entry.kernel for entry in OPTIMIZERS.values()})
ALLOWED_CALLS = {"nx.sqrt", "nx.sign", "nx.where", "nx.unless_zero", "nx.maximum", "nx.power", "State", "h._replace"}
# What is the same text around the step, by module; None is all of it.
AROUND = {
    **dict.fromkeys(("checks", "functions", "schedules")),
    "norm": ("layout",),
    "clipping": ("State", "Hyper", "torch_form", "optax_form", "by_value", "FORMS"),
    "accumulation": ("STARTS", "Hyper", "gather", "mean"),
    "loss_scale": ("LossScaleState", "Hyper", "inverse", "unscale", "adjust", "check_hyper", "count", "accepted"),
    "averages": ("FORMS", "AverageState", "Hyper", "prepare", "step", "debiased", "check_ema"),
    "master_weights": ("step",),
    "stochastic_rounding": ("DTYPES", "step"),
    "threefry": ("of_leaf", "sixteen"),
    "recipe": ("is_matrix",),
}
PUBLIC_MODULES = {"schedules", "lr_scheduler"}
ALLOWED_NODES = (
    *(ast.FunctionDef, ast.arguments, ast.arg, ast.Return, ast.If, ast.Assign, ast.IfExp, ast.BinOp, ast.UnaryOp, ast.BoolOp, ast.And),
    *(ast.Call, ast.keyword, ast.Lambda, ast.Tuple, ast.Name, ast.Load, ast.Store, ast.Attribute, ast.Constant),
    *(ast.Not, ast.USub, ast.Add, ast.Sub, ast.Mult, ast.Div),
)


def source(package, name):
    return Path(inspect.getfile(importlib.import_module(f"{package.__name__}.{name}"))).read_text()


def definitions(text):
    """The recurrence at the top, and what must be the same on both sides."""
    tree = ast.parse(text)
    nodes = {node.name: node for node in tree.body if isinstance(node, ast.ClassDef | ast.FunctionDef)}
    found = {name: ast.dump(nodes[name]) for name in ("State", "Hyper", "step", "prepare") if name != "prepare" or name in nodes}
    recurrence = ast.get_docstring(tree).split("\n", 1)[1]
    return found | {"recurrence": recurrence}


@pytest.mark.parametrize("entry", OPTIMIZERS.values(), ids=lambda entry: entry.name)
def test_both_packages_have_it_in_a_file_of_the_same_name(entry):
    assert entry.jax.__name__ == entry.name == entry.torch.name
    assert entry.torch.__module__ == f"torch_ref.{entry.kernel}"


@pytest.mark.parametrize("name", KERNELS)
def test_kernels_are_the_same_text(name):
    ours, theirs = definitions(source(jaxopt_impl, name)), definitions(source(torch_ref, name))
    for part, text in ours.items():
        assert theirs[part] == text, f"{part} of {name} is not the same in both packages"


@pytest.mark.parametrize("name", KERNELS)
def test_the_rule_is_in_the_kernel(name):
    """A kernel has operators and a few named operations, nothing that could hide arithmetic."""
    tree = ast.parse(source(jaxopt_impl, name))
    rules = {node.name: node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name in ("step", "prepare")}
    assert [arg.arg for arg in rules["step"].args.args] == ["g", "p", "s", "h"]
    assert "nx.where" not in ast.unparse(rules["step"])  # it chooses hyper-parameters
    for node in (node for rule in rules.values() for node in ast.walk(rule)):
        assert isinstance(node, ALLOWED_NODES), f"{type(node).__name__} at line {node.lineno} of {name}"
        if isinstance(node, ast.Call):
            assert ast.unparse(node.func) in ALLOWED_CALLS


@pytest.mark.parametrize("name", KERNELS)
def test_a_number_that_switches_a_term_off_does_so_when_injected(name):
    """What `step` asks for in an `if`, and is no flag, it asks for by `nx.unless_zero` too, and of a number as it was given."""
    nodes = {node.name: node for node in ast.parse(source(jaxopt_impl, name)).body if isinstance(node, ast.ClassDef | ast.FunctionDef)}
    fields = [node for node in nodes["Hyper"].body if isinstance(node, ast.AnnAssign)]
    given = {f"h.{node.target.id}" for node in fields if ast.unparse(node.annotation) == "nx.Number" and node.value is None}
    tests = [node.test for node in ast.walk(nodes["step"]) if isinstance(node, ast.If | ast.IfExp)]
    asked = {ast.unparse(node) for test in tests for node in ast.walk(test) if isinstance(node, ast.Attribute)}
    calls = [node for node in ast.walk(nodes["step"]) if isinstance(node, ast.Call) and ast.unparse(node.func) == "nx.unless_zero"]
    assert {ast.unparse(call.args[0]) for call in calls} == asked & given


def test_checks_are_the_same_text():
    ours, theirs = (ast.parse(source(package, "checks")) for package in (jaxopt_impl, torch_ref))
    assert [ast.dump(node) for node in ours.body[1:]] == [ast.dump(node) for node in theirs.body[1:]]


def named(text):
    """Each definition and assignment at the top of a module, by its name."""
    found = {}
    for node in ast.parse(text).body:
        names = [node.name] if isinstance(node, ast.ClassDef | ast.FunctionDef) else []
        if isinstance(node, ast.Assign):
            names = [ast.unparse(target) for target in node.targets]
        found |= {name: ast.dump(node) for name in names}
    return found


@pytest.mark.parametrize("name", AROUND)
def test_rules_around_the_step_are_the_same_text(name):
    ours, theirs = (named(source(package, f"around.{name}")) for package in (jaxopt_impl, torch_ref))
    for part in AROUND[name] or ours.keys() | theirs.keys():
        assert ours[part] == theirs[part], f"{part} of around/{name} is not the same in both packages"


def test_every_file_around_the_step_is_there_twice():
    folders = [Path(inspect.getfile(package)).parent / "around" for package in (jaxopt_impl, torch_ref)]
    ours, theirs = ({path.stem for path in folder.glob("*.py")} for folder in folders)
    assert ours == theirs
    assert ours - AROUND.keys() == {"__init__", "counted", "masks", "widening", "wrapping"}  # they hold no rule


def test_numerics_offer_kernels_the_same_names():
    for name in {call.removeprefix("nx.") for call in ALLOWED_CALLS if call.startswith("nx.")} | {
        "Rounded",
        "Number",
        "Count",
        "DTYPES",
        "static_value",
    }:
        sides = [hasattr(importlib.import_module(f"{package.__name__}.numerics"), name) for package in (jaxopt_impl, torch_ref)]
        assert sides[0] == sides[1], name


@pytest.mark.parametrize("package", [jaxopt_impl, torch_ref], ids=lambda p: p.__name__)
def test_all_is_what_is_public(package):
    names = {name for name in vars(package) if not name.startswith("_")}
    public = {name for name in names if name in PUBLIC_MODULES or not inspect.ismodule(getattr(package, name))}
    assert set(package.__all__) == public
    known = {entry.name for entry in OPTIMIZERS.values()} | {entry.torch_name for entry in OPTIMIZERS.values()}
    around = {name for name in public if getattr(getattr(package, name), "__module__", "").startswith(f"{package.__name__}.around.")}
    assert public - known - around <= PUBLIC_MODULES | {"ScheduleLR", "pack", "unpack", "update_and_apply", "zero_shardings"}, (
        "an optimizer that the registry does not know"
    )
