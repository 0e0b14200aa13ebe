"""The benchmark itself: that it times what it says, counts what is moved, sees what is worse, and that its page is made of its runs."""

import json
from pathlib import Path

import jax
import numpy as np
import pytest
import torch
import typer
from typer.testing import CliRunner

import torch_ref
from benchmarks import __main__ as command
from benchmarks import clipping, compiled, packing, page, report, runs
from benchmarks import measure as measuring
from benchmarks.sides import COPY, InJax, by_rule, serve, unfenced
from benchmarks.traffic import Traffic
from optparity.accelerators.compiling import Compiled
from optparity.accelerators.programs import Built, Program
from optparity.registry import OPTIMIZERS, ROWS, Row

ROOT = Path(__file__).parents[2]
ADAM = Row("adam", "default")


@pytest.fixture(autouse=True)
def promotion_as_users_have_it():
    """optax does not take the strict settings of our own tests."""
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        yield


def test_a_case_is_timed_in_both_processes(monkeypatch):
    """Every implementation in every round; ours and torch_ref end in the same bits, and nobody else does."""
    monkeypatch.setitem(measuring.WORKLOADS, "tiny", [(3000,)])
    monkeypatch.setitem(measuring.WORKLOADS, "few", [(10,), (2, 5), ()])
    one, few = measuring.measure([(ADAM, "tiny"), (ADAM, "few")], "float32", 4, 2, compiled=False)
    ours = ["jaxopt_impl", "update_and_apply", "by rule"]
    names = [*ours, "unfenced", "optax", "torch_ref", "torch for-loop", "torch foreach", "torch fused"]
    for case, rounds in ((one, 4), (few, 5)):
        assert list(case["implementations"]) == names
        assert case["least_bytes"] == 28
        for implementation in case["implementations"].values():
            assert len(implementation["seconds"]) == rounds
            assert min(implementation["seconds"]) > 0
            ratios = np.divide(case["implementations"]["jaxopt_impl"]["seconds"], implementation["seconds"])
            np.testing.assert_allclose(implementation["ours_over_this"], ratios)
    assert [name for name in names if one["implementations"][name]["ulp"] == 0] == [*ours, "torch_ref"]
    assert (one["leaves"], one["elements"], few["leaves"], few["elements"]) == (1, 3000, 3, 21)
    assert one["implementations"]["torch fused"]["traffic_bytes"] == pytest.approx(28, rel=0.01)


@pytest.mark.parametrize("start", [0.0, 0.0005, 0.02])
@pytest.mark.parametrize("step", [0.00007, 0.003])
def test_a_take_lasts(step, start):
    """Whatever the first step costs: else a take of few steps is compared with one of many."""
    take = lambda steps: (start + steps * step) / steps  # noqa: E731
    steps = measuring.lasting(take)
    assert steps * take(steps) >= measuring.LEAST
    assert steps == 1 or steps // 2 * take(steps // 2) < 2 * measuring.LEAST


def dies(connection, side, threads, compiled):
    """In the place of `serve`: torch's process ends at its first request."""
    serve(connection, side, threads, compiled) if side == "jax" else connection.recv()


def test_a_process_that_ends_is_one_line(monkeypatch, capsys):
    monkeypatch.setitem(measuring.WORKLOADS, "tiny", [(3000,)])
    monkeypatch.setattr(measuring, "serve", dies)
    with pytest.raises(typer.Exit) as stopped:
        measuring.measure([(ADAM, "tiny")], "float32", 3, 2, compiled=False)
    assert stopped.value.exit_code == 2
    assert "benchmarks: the process of torch ended while it was asked to prepare; above" in capsys.readouterr().err


@pytest.mark.parametrize("label", ["default", "all"])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_xla_steps_in_turn_on_the_same_arrays(name, label):
    """The state of optax may have more arrays than ours, or fewer; none is lost, and all are donated."""
    side, row = InJax(), Row(name, label)
    found = side.prepare(row, [(64,), (3, 5)], "float32")
    assert list(found) == ["jaxopt_impl", "update_and_apply", "by rule", "unfenced", "optax", COPY]
    before = list(side.arrays)
    for key in [*found, *found]:
        assert side.time(key, 2) > 0
        assert [a.shape for a in side.arrays] == [a.shape for a in before]
    assert [a.shape for a in before] == [(64,), (3, 5)] * (len(before) // 2)
    assert all(a.is_deleted() for a in before)


def test_unfenced_is_unfenced_only_inside():
    x = np.linspace(0.1, 1, 512, dtype="float32")

    def text():
        state = jax.eval_shape(ADAM.tx.init, x)
        return jax.jit(lambda *given: ADAM.tx.update(*given)).lower(x, state, x).as_text()

    with unfenced():
        inside = text()
    for sign in ("512xui32", "512xf64", "optimization_barrier"):
        assert sign not in inside
        with by_rule():
            assert sign in text()


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (lambda p: torch.optim.SGD(p, lr=0.1, foreach=False), 12),  # θ ← θ − ηg
        (lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, foreach=False), 12 + 8 + 12),  # b ← μb, b ← b + g, θ ← θ − ηb
        (lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, fused=True), 20),
        (lambda p: torch.optim.Adam(p, fused=True), 28),
        (lambda p: torch.optim.Adagrad(p, fused=True), 20),
        (lambda p: torch_ref.SGD(p, lr=0.1, foreach=False), 8 + 12),  # u = −ηg, θ ← θ + u
    ],
)
def test_traffic_is_counted_by_operation(make, expected):
    parameters = [torch.nn.Parameter(torch.ones(1000)) for _ in range(3)]
    for p in parameters:
        p.grad = torch.ones_like(p)
    optimizer = make(parameters)
    optimizer.step()
    with Traffic() as traffic:
        optimizer.step()
    assert traffic.bytes / 3000 == pytest.approx(expected, rel=0.01)
    assert traffic.operations > 0


def test_what_is_written_only_is_not_read():
    x, y = torch.ones(10), torch.zeros(10)
    with Traffic() as traffic:
        x.copy_(y)
        x.zero_()
        x.view(2, 5)
        torch._foreach_mul([x, y], 2.0)  # pyright: ignore[reportPrivateImportUsage]
    assert (traffic.bytes, traffic.operations) == (80 + 40 + 160, 3)


def run_of(ours: list[float]) -> dict:
    """A run of one case, with these ratios to optax."""
    facts = {"bytes_per_s": 1e9, "share_of_copy": 0.5}
    implementations = {
        "jaxopt_impl": {**facts, "seconds": ours, "ours_over_this": [1.0] * len(ours), "ulp": 0, "differing": 0.0},
        "optax": {**facts, "seconds": [1.0] * len(ours), "ours_over_this": ours, "ulp": 12, "differing": 0.25, "compile_s": 0.5},
    }
    case = {"row": "adam: default", "workload": "1M", "elements": 2**20, "leaves": 1, "least_bytes": 28, "copy_bytes_per_s": 2e9}
    return {**runs.about("float32", 2), "cases": [{**case, "implementations": implementations}]}


def test_a_spread_has_the_digits_that_count():
    assert [report.spread([x, x, x]) for x in (0.0312, 0.2, 1.0, 31.25, 1094.4)] == [
        *("0.0312 (0.031 to 0.031)", "0.200 (0.20 to 0.20)", "1.000 (1.00 to 1.00)", "31.25 (31.2 to 31.2)", "1094.4 (1094 to 1094)")
    ]


BEFORE = [0.99, 1.0, 1.0, 1.01, 1.02]


@pytest.mark.parametrize(
    ("now", "worse", "verdict"),
    [
        ([1.19, 1.2, 1.2, 1.21, 1.22], True, "WORSE"),
        ([0.9, 1.0, 1.2, 1.3, 1.4], False, "within the spread"),
        ([1.07, 1.08, 1.08, 1.09, 1.1], False, ""),  # apart, but not past the threshold
        ([0.79, 0.8, 0.8, 0.81, 0.82], False, ""),
    ],
)
def test_worse_is_past_the_threshold_and_past_the_spread(now, worse, verdict, monkeypatch, tmp_path):
    old, new = run_of(BEFORE), run_of(now)
    shown, found = report.compared(old, new, 1.1)
    assert found == worse
    assert [next(iter(column.cells)) for column in shown.columns][-1] == verdict
    (tmp_path / "old.json").write_text(json.dumps(old))
    monkeypatch.setattr(command, "measure", lambda *args, **kwargs: new["cases"])
    arguments = ["--quick", "--row", "adam: default", "--out", str(tmp_path), "--compare", str(tmp_path / "old.json")]
    done = CliRunner().invoke(typer_app(command.main), arguments)
    assert done.exit_code == (1 if worse else 0), done.output
    assert "1.000 (1.00 to 1.01)" in done.output
    assert (tmp_path / "bench.png").stat().st_size > 10_000
    assert json.loads((tmp_path / "bench.json").read_text())["cases"] == new["cases"]


def typer_app(main):
    app = typer.Typer()
    app.command()(main)
    return app


@pytest.mark.parametrize(
    ("main", "arguments", "line"),
    [
        (command.main, ["--row", "adam"], "benchmarks: --row 'adam': one of sgd: default; "),
        (command.main, ["--workload", "2M"], "benchmarks: --workload '2M': one of 32M; 1M; "),
        (command.main, ["--dtype", "int8"], "benchmarks: --dtype 'int8': one of float32; "),
        (command.main, ["--compare", "nowhere.json"], "benchmarks: nowhere.json cannot be read as a run of this benchmark: "),
        (command.main, ["--compare", "list.json"], "benchmarks: list.json cannot be read as a run of this benchmark: "),
        (command.main, ["--compare", "numbers.json"], "benchmarks: numbers.json cannot be read as a run of this benchmark: "),
        (command.main, ["--compare", "empty.json"], "benchmarks: empty.json has no row and workload of this run; "),
        (command.main, ["--out", "list.json"], "benchmarks: --out list.json cannot be a folder: "),
        (packing.main, ["--optimizer", "adamax"], "benchmarks: --optimizer adamax: one of sgd, "),
        (packing.main, ["--out", "list.json/packing.json"], "benchmarks: --out list.json cannot be a folder: "),
        (compiled.main, ["--target", "h200"], "benchmarks: --target h200: one of h100, "),
        (page.main, ["nowhere"], "benchmarks: nowhere.json cannot be read as a run"),
    ],
)
def test_bad_input_is_one_line(main, arguments, line, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    head = {"device": "1 x none", "threads": 1, "dtype": "float32"}
    for name, content in {"list": [], "numbers": {**head, "cases": [1]}, "empty": {**head, "cases": []}}.items():
        Path(f"{name}.json").write_text(json.dumps(content))
    before = {path: path.read_text() for path in tmp_path.iterdir()}
    done = CliRunner().invoke(typer_app(main), arguments)
    assert done.exit_code == 2
    assert done.stderr.startswith(line)
    assert done.stderr.count("\n") == 1
    assert {path: path.read_text() for path in tmp_path.iterdir()} == before


@pytest.mark.parametrize("loss", [False, True])
def test_packing_is_timed_on_every_side(loss):
    case = packing.measured(ADAM, 3, 8, loss, 3)
    assert list(case["sides"]) == ["optax", "jaxopt_impl", "packed"]
    assert all(len(side[which]) == 3 for side in case["sides"].values() for which in packing.MEASURED)
    assert all(len(line) == len(packing.HEADERS) for line in packing.lines(case))


@pytest.mark.parametrize("loss", [False, True])
def test_a_packed_step_of_the_benchmark_has_the_same_bits(loss):
    runs = [packing.Run(ADAM.tx, 3, 8, packed, loss) for packed in (False, True)]
    start = np.stack(runs[0].carry[0])
    for run in runs:
        run.compile()
        run.warm()
    leaves, packed = (packing.unpack(run.carry[0]) for run in runs)
    np.testing.assert_array_equal(np.stack(leaves), np.stack(packed))
    assert (np.stack(leaves) != start).all()


def test_each_compilation_is_traced_anew():
    run, traced = packing.Run(ADAM.tx, 3, 8, packed=False, with_loss=False), []
    step, steps = run.functions
    run.functions = (lambda *given: traced.append(given) or step(*given), steps)
    run.compile()
    run.compile()
    assert len(traced) == 2


def test_the_page_says_how_far_two_runs_agree():
    first, second = run_of(BEFORE), run_of([1.3, 1.4, 1.4, 1.4, 1.5])
    assert page.agreement(first, first) == (1, 1)
    assert page.agreement(first, second) == (1, 0)
    assert page.summary(first, "1M") == "| optimizer | optax |\n| --- | --- |\n| adam | 1.00 |\n"


COPIED_IN_ADVANCE = """\
ENTRY main (p: f32[64], q: f32[64], s: f32[]) -> (f32[64], f32[64]) {
  %p = f32[64]{0:T(1024)} parameter(0)
  %q = f32[64]{0:T(1024)} parameter(1)
  %s = f32[]{:T(128)S(6)} parameter(2)
  %copy-start = (f32[64]{0:T(1024)S(1)}, f32[64]{0:T(1024)}, u32[]{:S(2)}) copy-start(%q)
  %copy-done = f32[64]{0:T(1024)S(1)} copy-done(%copy-start)
  ROOT %fusion = (f32[64]{0:T(1024)}, f32[64]{0:T(1024)}) fusion(%p, %copy-done, %s), kind=kLoop, calls=%fused
}
"""


def test_an_array_that_a_tpu_copies_to_its_chip_in_advance_is_read_once(tmp_path):
    (tmp_path / "hlo.txt").write_text(COPIED_IN_ADVANCE)
    (tmp_path / "numbers.json").write_text('{"cost": null, "memory": {"temp_size_in_bytes": 5}}')
    found = compiled.counted(Compiled(Program("", lambda of, dtype: Built(len, ()), None, "float32"), tmp_path), 64)
    assert found == {"array_kernels": 1, "results": 2, "bytes": 16, "cost_analysis": None, "estimated_cycles": None, "temporary_bytes": 5}


def test_the_page_is_made_of_the_committed_runs():
    """docs/performance.md is what `benchmarks.page` makes of docs/results."""
    loaded = page.load()
    assert page.page(loaded) == (ROOT / "docs" / "performance.md").read_text(), "not current: python -m benchmarks.page"
    assert {case["row"] for case in loaded.first["cases"]} <= {str(row) for row in ROWS}


def test_the_picture_has_a_mark_for_each_implementation(tmp_path):
    page.draw(page.load().first, tmp_path / "page.svg")
    picture = (tmp_path / "page.svg").read_text()
    assert picture.count("PathCollection") >= len(page.MARKS)


def test_clipping_is_timed_on_every_side():
    """A small run; each step really clips, and goes on where the last one ended."""
    seconds = clipping.measured(64, 2, "float32", 3)
    assert seconds.keys() == clipping.PEERS.keys() | set(clipping.PEERS.values())
    assert all(len(taken) == 3 for taken in seconds.values())
    table = clipping.markdown({"size": 64, "dtype": "float32", "seconds": seconds})
    assert table.count("\n") == 1 + len(clipping.PEERS)
    with pytest.raises(typer.Exit):
        clipping.main(64, 2, "float8", 3)
