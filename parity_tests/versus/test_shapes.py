"""Parameters from a file of shapes."""

import json

import numpy as np
import pytest

from optparity.versus import shapes


def test_names_may_be_nested_and_a_leaf_may_have_a_dtype(tmp_path):
    file = tmp_path / "shapes.json"
    file.write_text(json.dumps({"layer": {"w": [2, 3], "b": {"shape": [3], "dtype": "bfloat16"}}, "s": [], "empty": [0, 2]}))
    drawn = shapes.drawn(shapes.read(file), None)
    assert {name: (x.shape, x.dtype.name) for name, x in {**drawn["layer"], **drawn}.items() if name != "layer"} == {
        "w": ((2, 3), "float32"),
        "b": ((3,), "bfloat16"),
        "s": ((), "float32"),
        "empty": ((0, 2), "float32"),
    }
    assert shapes.drawn(shapes.read(file), "float64")["layer"]["b"].dtype == np.float64
    assert not np.array_equal(drawn["layer"]["w"], shapes.drawn(shapes.read(file), None, seed=1)["layer"]["w"])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "it is not JSON: Expecting property name"),
        ("\xff", "it is not JSON: "),
        ("[2, 3]", "it has no parameter"),
        ("{}", "it has no parameter"),
        ('{"a": {}}', "it has no parameter"),
        ('{"a": {"w": 3}}', r"a\.w is 3; a shape as \[24, 17\] is needed, or names of such\."),
        ('{"a": [2, -1]}', r"a is \[2, -1\]; a shape"),
        ('{"a": [2, true]}', r"a is \[2, true\]; a shape"),
        ('{"a": {"shape": [2], "dtype": "int8"}}', "a has dtype 'int8'; one of float32, float64, bfloat16, float16 is needed"),
        ('{"a": {"shape": [2.5], "dtype": "float32"}}', r"a is \[2.5\]; a shape"),
    ],
)
def test_what_is_no_tree_of_shapes_is_refused(text, message, tmp_path):
    (tmp_path / "shapes.json").write_text(text, encoding="latin-1")
    with pytest.raises(ValueError, match=message):
        shapes.read(tmp_path / "shapes.json")
