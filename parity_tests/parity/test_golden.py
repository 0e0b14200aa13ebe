"""The golden hashes: the oracle's, whether subnormals are flushed or kept; and which of them depend on that."""

import itertools

import numpy as np
import pytest
import torch

from optparity.around import PIECES, AroundRow
from optparity.parity import golden
from optparity.parity.streams import STREAMS
from optparity.registry import ROWS

from .. import oracle
from ..sampling import DEFAULTS, FULL, sampled

SMALL = golden.CONFIGURATION | {"elements": 5, "steps": 2, "every": 1, "streams": ["subnormal"], "dtypes": ["float32", "bfloat16"]}
# Every trajectory whose hashes depend on the backend, and a sample of the others.
CASES = [
    (row, stream, dtype)
    for row, stream in itertools.product(ROWS, STREAMS)
    for dtype in row.dtypes
    if stream == "subnormal" or (row in DEFAULTS and dtype == "float32")
]


@pytest.fixture
def few_rows(monkeypatch):
    monkeypatch.setattr(golden, "ROWS", DEFAULTS)


@pytest.fixture(scope="module")
def hashes():
    return golden.hashes(golden.read())


def walk_oracle(row, start, gradients):
    """The rule in arbitrary precision, subnormals kept, as a walker that knows neither package."""
    start, gradients = start["w"], [gradient["w"].ravel() for gradient in gradients]
    fields = row.tx.init(np.float32(0))._fields
    for params, state in oracle.walk(oracle.Gradual, row.optimizer, row.arguments, start.ravel(), gradients):
        wide = row.arguments.get("accumulator_dtype", start.dtype)
        arrays = [oracle.to_numpy(params, start.dtype), *(oracle.to_numpy(state[name], wide) for name in fields if name in state)]
        yield [array.reshape(start.shape) for array in arrays]


@pytest.mark.parametrize(
    ("row", "stream", "dtype"),
    sampled(
        CASES, lambda row, stream, dtype: stream == "subnormal" and dtype == "float32" and row in FULL and row.optimizer in ("adam", "lion")
    ),
    ids=str,
)
def test_the_kept_hashes_are_the_oracles(row, stream, dtype, hashes):
    """All elements and all steps, hashed."""
    walked = golden.walk(walk_oracle, row, dtype, golden.CONFIGURATION | {"streams": [stream]})
    assert walked == {stream: hashes["kept"][f"{row} | {stream} | {dtype}"]}


def test_which_hashes_depend_on_subnormals(hashes):
    """The stream of subnormals; not in float16, which is computed in float32, where its subnormals are normal numbers."""
    keys = {key for key, _, stream, dtype in golden.keys(golden.CONFIGURATION) if stream == "subnormal" and dtype != "float16"}
    assert golden.read()["kept"].keys() == keys
    assert {key for key, kept in hashes["kept"].items() if kept != hashes["flushed"][key]} == keys


@pytest.mark.usefixtures("few_rows")
def test_torch_is_walked_both_ways_whatever_was_set():
    documents = []
    for flushed in (False, True):
        torch.set_flush_denormal(flushed)
        try:
            documents.append(golden.write("torch", SMALL))
        finally:
            torch.set_flush_denormal(False)
    assert documents[0] == documents[1]
    assert documents[0]["kept"]


@pytest.mark.parametrize(("flushes", "what"), [(True, "keep"), (False, "flush")])
def test_torch_that_cannot_be_set_is_not_hashed(monkeypatch, flushes, what):
    """Flushed hashes are never written as kept ones, nor kept ones as flushed."""
    torch.set_flush_denormal(flushes)
    set_flush_denormal = torch.set_flush_denormal
    monkeypatch.setattr(torch, "set_flush_denormal", lambda _: False)
    try:
        with pytest.raises(RuntimeError, match=f"torch cannot {what} subnormals: torch.set_flush_denormal has no effect here"):
            golden.write("torch", SMALL)
    finally:
        set_flush_denormal(False)


@pytest.mark.usefixtures("few_rows")
def test_a_document_knows_the_ways_that_it_was_written_in():
    jax, both = golden.write("jax", SMALL), golden.write("torch", SMALL)
    assert golden.hashes(jax).keys() == set(golden.ways("jax"))
    assert golden.hashes(both).keys() == {"flushed", "kept"}
    assert golden.differences(jax, both) == golden.differences(both, jax) == []
    kept = {**both, "flushes": False, "hashes": golden.hashes(both)["kept"]}
    del kept["kept"]
    assert golden.hashes(kept) == {"kept": golden.hashes(both)["kept"]}
    assert golden.differences(kept, both) == []


@pytest.mark.usefixtures("few_rows")
def test_a_wrong_hash_is_one_difference_in_each_way_that_has_it():
    document = golden.write("torch", SMALL)
    key = next(iter(document["kept"]))
    wrong = document | {"kept": document["kept"] | {key: ["0" * 16] * 2}}
    assert golden.differences(wrong, document) == [f"kept {key}: {document['kept'][key]} is not {['0' * 16] * 2}"]
    wrong = document | {"hashes": document["hashes"] | {key: ["0" * 16] * 2}}
    assert golden.differences(wrong, document) == [f"flushed {key}: {document['hashes'][key]} is not {['0' * 16] * 2}"]


def test_the_walker_is_given_all_streams_at_once():
    seen = []

    def walk(row, start, gradients):
        for gradient in gradients:
            seen.append((start["w"].shape, gradient["w"].shape))
            yield [start["w"], gradient["w"]]

    configuration = SMALL | {"streams": ["normal", "wide"], "every": 2}
    walked = golden.walk(walk, ROWS[0], "float32", configuration)
    assert seen == [((2, 5), (2, 5))] * 2
    assert [len(hashes) for hashes in walked.values()] == [1, 1]
    assert walked["normal"] != walked["wide"]
    assert walked["wide"] == golden.walk(walk, ROWS[0], "float32", configuration | {"streams": ["wide"]})["wide"]


@pytest.mark.parametrize("row", FULL, ids=str)
def test_full_rows_walk_as_committed_in_jax(row):
    """In float32; every row and dtype are in `make newest`, and in make exhaustive."""
    document = golden.read()
    for stream, found in golden.walk(golden._walker("jax", "flushed"), row, "float32", golden.CONFIGURATION).items():
        assert found == document["hashes"][f"{row} | {stream} | float32"], stream


@pytest.mark.usefixtures("with_one_pass")
@pytest.mark.parametrize("row", FULL, ids=str)
def test_applied_full_rows_keep_subnormals(row, hashes):
    """Within the compiled pass, whatever XLA does: the oracle's hashes. `optparity golden check --side applied` has every row and dtype."""
    for stream, found in golden.walk(golden._walker("applied", "kept"), row, "float32", golden.CONFIGURATION).items():
        assert found == hashes["kept"][f"{row} | {stream} | float32"], stream


@pytest.mark.parametrize("side", ["jax", "torch"])
@pytest.mark.parametrize("piece", PIECES)
def test_the_first_row_of_each_piece_walks_as_committed(piece, side):
    """What stands around the step, in the first row of each piece; make exhaustive has every row."""
    document, row = golden.read(golden.PACKAGED_AROUND), AroundRow(piece, next(iter(PIECES[piece].rows)))
    dtype = next(dtype for dtype in golden.AROUND["dtypes"] if dtype in row.dtypes)
    for stream, found in golden.walk(golden._walker(side, "flushed"), row, dtype, golden.AROUND).items():
        assert found == document["hashes"][f"{row} | {stream} | {dtype}"], stream
