"""Facts in a file's metadata of any type: refused in one line, or carried; never another error."""

import copy
import math

import hypothesis
import hypothesis.strategies as st
import pytest
import torch

from optparity.checkpoints import arrays, convert, torch_file
from optparity.checkpoints.checkpoint import Given

from .examples import arrays_and_facts, changed

pytestmark = pytest.mark.usefixtures("as_users_have_it")
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-1, 3)
    | st.sampled_from([1 << 40, 10**400, 0.5, math.nan, math.inf, "", "x", "a.weight", "float32"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["x", "array", "list", "tuple", "dict", "empty", "slot", "OrderedDict"]), inner, max_size=2)
    ),
    max_leaves=4,
)


@pytest.fixture(scope="module")
def known(tmp_path_factory):
    """The arrays and facts of a checkpoint with a learning rate that is a tensor."""
    folder = tmp_path_factory.mktemp("facts")
    torch.save(changed(optimizer__param_groups__0__lr=torch.tensor(0.1)), folder / "in.pt")
    convert.write(convert.read(folder / "in.pt", Given("Adam")), folder / "in.safetensors")
    return arrays_and_facts(folder / "in.safetensors")


def places(document, path=()):
    """The paths of all that is in a document."""
    yield path
    items = document.items() if isinstance(document, dict) else enumerate(document) if isinstance(document, list) else ()
    for key, value in items:
        yield from places(value, (*path, key))


def replaced(document, path, value):
    if not path:
        return value
    document = copy.copy(document)
    document[path[0]] = replaced(document[path[0]], path[1:], value)
    return document


def carried(found, facts, folder):
    """Read, and written as torch's, which loads it; None where it is refused."""
    try:
        read = arrays.checkpoint(found, facts, Given())
    except (ValueError, TypeError) as error:
        return str(error)
    torch_file.write(read, folder / "out.pt")
    torch.load(folder / "out.pt", weights_only=True)
    return None


@hypothesis.settings(max_examples=200, derandomize=True, deadline=None, database=None)
@hypothesis.given(data=st.data())
def test_any_value_in_any_place_is_refused_or_carried(known, tmp_path_factory, data):
    found, facts = known
    path = data.draw(st.sampled_from(list(places(facts))))
    value = data.draw(VALUES)
    hypothesis.note(f"{path} = {value!r}")
    carried(found, replaced(facts, path, value), tmp_path_factory.getbasetemp())
