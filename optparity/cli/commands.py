"""The console command `optparity`. The work is done elsewhere; here it is asked for and shown."""

import sys

try:
    import typer
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
    from rich.table import Table
except ImportError as error:
    print(f"optparity: {error.name} is not installed; the command needs: pip install 'optparity[cli,torch]'", file=sys.stderr)
    raise SystemExit(2) from None

import json
import os
from collections.abc import Iterable
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any, NoReturn

from .. import check as checking
from .. import doctor, drift
from .._files import replacing
from ..accounting import CONVENTIONS, PRESETS, Setup, Transformer, checks, estimate, from_dict, parallel
from ..accounting import show as costing
from ..checkpoints import convert
from ..parity import golden
from ..registry import DTYPES, OPTIMIZERS

app = typer.Typer(add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False, rich_markup_mode=None)
console = Console(width=None if sys.stdout.isatty() else 100)


@app.callback()
def _optparity() -> None:
    """The same optimizer in JAX and in PyTorch, and the proof, bit for bit, that it is the same."""


@app.command()
def check(
    names: Annotated[
        list[str] | None, typer.Argument(metavar="[NAME]...", help=f"Optimizers: {', '.join(OPTIMIZERS)}. All by default.")
    ] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="Steps (default: 100; on the digits 1000, for halves 100).")] = None,
    stream: Annotated[list[str] | None, typer.Option(help=f"{', '.join(checking.STREAM_NAMES)}. May be repeated; all by default.")] = None,
    dtype: Annotated[list[str] | None, typer.Option(help=f"{', '.join(DTYPES)}. May be repeated; all by default.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of parameters, streams and batches.")] = 0,
    jobs: Annotated[int, typer.Option(min=1, help="Processes.")] = os.cpu_count() or 1,
    json_file: Annotated[Path | None, typer.Option("--json", metavar="FILE", help="Write every step of every trial as JSON.")] = None,
    plot: Annotated[Path | None, typer.Option(metavar="FILE.png", help="Draw the distances over the steps.")] = None,
) -> None:
    """Walk each optimizer through both packages on the same gradients and compare every bit. Exit 0 only if nothing differs."""
    _need("torch", "sklearn", *(["matplotlib"] if plot else []))
    chosen = checking.trials(
        _one_of("optimizer", names, OPTIMIZERS),
        _one_of("stream", stream, checking.STREAM_NAMES),
        _one_of("dtype", dtype, DTYPES),
        steps,
        seed,
    )
    _picture(plot)
    for file in (json_file, plot):
        _writable(file)
    if not chosen:
        _fail("nothing to do: no row of these optimizers has these dtypes.")
    results: list[checking.Result] = []
    with _progress() as progress:
        task = progress.add_task("", total=len(chosen))
        for result in checking.run(chosen, jobs):
            results.append(result)
            trial = result.trial
            progress.update(task, advance=1, description=f"{trial.row} on {trial.stream}, {trial.dtype}")
    _show(results)
    if json_file:
        document = {"optparity": version("optparity"), "machine": dict(doctor.machine()), "results": [r.to_dict() for r in results]}
        _write(json_file, json.dumps(document))
    if plot:
        from ..parity.picture import plot as draw

        draw(results, plot)
    broken = [r for r in results if not r.ours.identical]
    for result in broken[:5]:
        console.print(
            f"[red]{result.trial.row} on {result.trial.stream}, {result.trial.dtype}: {result.ours.first_difference}", soft_wrap=True
        )
    compared = sum(r.ours.steps * r.ours.elements for r in results)
    verdict = f"{len(broken)} of {len(results)} trials differ" if broken else f"{len(results)} trials, no difference"
    console.print(f"{verdict}; {compared:,} elements compared between jitted jaxopt_impl and torch_ref.", highlight=False)
    raise typer.Exit(1 if broken else 0)


@app.command("doctor")
def examine(elements: Annotated[int, typer.Option(min=1024, help="Random elements per line.")] = 2**20) -> None:
    """Try on this machine, now, each rewrite that could break the contract. Exit 1 if one is not stopped."""
    for what, found in doctor.machine():
        console.print(f"{what:22s}{found}", highlight=False, soft_wrap=True)
    table = _table("operation", "dtype", "found", "verdict")
    failed = 0
    with _progress() as progress:
        task = progress.add_task("", total=None)
        for line in doctor.examine(elements):
            failed += line.ok is False
            color = {True: "green", False: "red", None: "default"}[line.ok]
            table.add_row(line.what, line.dtype, line.found, f"[{color}]{line.verdict}")
            progress.update(task, description=line.what)
    console.print(table)
    if not find_spec("torch"):
        console.print("torch is not installed: its operations were not tried.")
    console.print("The contract is kept here." if not failed else f"[red]{failed} lines break the contract here.")
    raise typer.Exit(1 if failed else 0)


@app.command("golden")
def golden_(
    action: Annotated[str, typer.Argument(help="write the hashes of this machine, or check them against a file.")],
    file: Annotated[Path, typer.Argument(help="The golden file, JSON; it carries its own configuration.")],
    side: Annotated[str, typer.Option(help="Which package to run: jax or torch.")] = "jax",
) -> None:
    """Hash every trajectory of one package, for machines that have one framework only. Exit 1 where a hash is not that of the file."""
    _one_of("action", [action], ["write", "check"])
    _one_of("side", [side], golden.SIDES)
    if side == "torch":
        _need("torch")
    if action == "write":
        _writable(file)
    expected = _read_golden(file) if action == "check" else {"configuration": golden.CONFIGURATION}
    configuration = expected["configuration"]
    if action == "check" and expected["flushes"] != golden.jax_flushes():
        configuration = golden.without_subnormals(expected)
        console.print("This backend treats subnormals otherwise than the file's: the stream of subnormals is left out.")
    with _progress() as progress:
        task = progress.add_task("", total=len(list(golden.keys(configuration))))
        got = golden.write(side, configuration, lambda: progress.update(task, advance=1))
    if action == "write":
        _write(file, json.dumps(got, indent=1))
        console.print(f"{len(got['hashes'])} trajectories written to {file}", highlight=False, soft_wrap=True)
        return
    wrong = golden.differences(expected, got)
    for line in wrong[:5]:
        console.print(line, style="red", soft_wrap=True)
    console.print(f"{len(got['hashes'])} trajectories, {len(wrong)} differences.", highlight=False)
    raise typer.Exit(1 if wrong else 0)


@app.command("drift")
def drift_(
    file: Annotated[Path, typer.Argument(help="The page to write, Markdown.")],
    steps: Annotated[int, typer.Option(min=1, help="Steps of normal gradients.")] = 1000,
) -> None:
    """Measure how far torch.optim (for-loop, foreach, fused) and optax are from the contract, and write the page that says so."""
    _need("torch")
    _writable(file)
    rows = []
    with _progress() as progress:
        task = progress.add_task("", total=len(OPTIMIZERS) * len(DTYPES))
        for row in drift.measure(steps):
            rows.append(row)
            progress.update(task, advance=1, description=f"{row.optimizer}, {row.dtype}")
    _write(file, drift.page(rows, steps))
    console.print(f"{len(rows)} lines written to {file}", highlight=False, soft_wrap=True)


@app.command()
def cost(
    model: Annotated[str, typer.Argument(metavar="CONFIG|PRESET", help=f"A JSON file, or one of {', '.join(PRESETS)}.")],
    optimizer: Annotated[str, typer.Option(help=", ".join(OPTIMIZERS))] = "adam",
    option: Annotated[
        list[str] | None, typer.Option(metavar="KEY=VALUE", help="An argument of the optimizer, as amsgrad=true. May be repeated.")
    ] = None,
    setting: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="A field of the configuration. May be repeated.")
    ] = None,
    batch: Annotated[int, typer.Option(min=1, help="Sequences on one data-parallel device.")] = 1,
    seq: Annotated[int | None, typer.Option(min=1, help="Tokens of a sequence (default: max_position_embeddings).")] = None,
    dtype: Annotated[str | None, typer.Option(help=f"{', '.join(DTYPES)} (default: float32; bfloat16 with --mixed-precision).")] = None,
    framework: Annotated[str, typer.Option(help=f"{', '.join(parallel.FRAMEWORKS)}.")] = "torch",
    attention: Annotated[str, typer.Option(help=f"{', '.join(parallel.ATTENTION)}.")] = "written-out",
    recompute: Annotated[str, typer.Option(help=f"{', '.join(parallel.RECOMPUTE)}.")] = "none",
    tensor_parallel: Annotated[int, typer.Option(min=1, help="Devices that share heads, MLP and vocabulary.")] = 1,
    sequence_parallel: Annotated[bool, typer.Option("--sequence-parallel", help="They share the rest along the sequence.")] = False,
    zero_stage: Annotated[int, typer.Option(min=0, max=3, help="What is sharded over --data-parallel.")] = 0,
    data_parallel: Annotated[int, typer.Option(min=1, help="Devices with batches of their own.")] = 1,
    mixed_precision: Annotated[bool, typer.Option("--mixed-precision", help="Half weights, float32 master copy and state.")] = False,
    donate: Annotated[bool, typer.Option("--donate/--no-donate", help="In JAX, outputs take the place of inputs.")] = False,
    convention: Annotated[list[str] | None, typer.Option(help=f"{', '.join(CONVENTIONS)}. May be repeated; all by default.")] = None,
    fits: Annotated[float | None, typer.Option(metavar="GB", help="Whether the executed total fits; exit 1 if not.")] = None,
    json_file: Annotated[Path | None, typer.Option("--json", metavar="FILE", help="Write the estimate as JSON.")] = None,
    plot: Annotated[Path | None, typer.Option(metavar="FILE.png", help="Draw the components.")] = None,
) -> None:
    """Memory and FLOPs of a training step, from the configuration alone: by the textbooks' formulas, and as executed."""
    _need(*(["matplotlib"] if plot else []))
    _picture(plot)
    if fits is not None and not fits > 0:
        _fail(f"--fits {fits:g}: more than 0 GB is needed.")
    try:
        document = costing.read(model) | _assignments("--set", setting, costing.KEYS)
        _one_of("optimizer", [optimizer], OPTIMIZERS)
        options = _options(optimizer, option)
        setup = Setup(
            *(optimizer, options, framework, dtype or "", attention, recompute),
            *(tensor_parallel, sequence_parallel, zero_stage, data_parallel),
            mixed_precision=mixed_precision,
            donate=donate,
        )
        configuration = from_dict(document)
        seq = seq or vars(configuration).get("max_position_embeddings")
        estimated = estimate(configuration, batch, seq, setup, conventions=convention)
    except (ValueError, TypeError) as error:
        _fail(" ".join(str(error).split()))
    for file in (json_file, plot):
        _writable(file)
    console.print(f"{model}: {estimated.parameters:,} parameters", highlight=False, soft_wrap=True)
    for headers, numbers, rows in costing.tables(estimated, configuration):
        table = _table(*headers, right=numbers)
        for row in rows:
            table.add_row(*row)
        console.print(table)
    if framework == "jax" and isinstance(configuration, Transformer):
        console.print("activations: what PyTorch's autograd would keep; XLA decides for itself.", highlight=False)
    if json_file:
        given = {"model": model, "configuration": document, "batch": batch, "seq": seq, "setup": vars(setup)}
        _write(json_file, json.dumps({"optparity": version("optparity"), **given, **estimated.to_dict()}, indent=1))
    if plot:
        tokens = f" of {seq:,} tokens" if seq else ""
        costing.plot(estimated, f"Memory of a training step: {Path(model).stem}, {optimizer}, batch {batch}{tokens}", plot, fits)
    if fits is not None:
        executed = estimated.memory[-1]
        answer = "yes" if executed.fits(fits) else "no"
        console.print(f"fits in {fits:g} GB per device: {answer} ({costing.in_bytes(executed.total)}, {executed.label})", highlight=False)
        raise typer.Exit(0 if answer == "yes" else 1)


@app.command()
def train(
    task: Annotated[str, typer.Argument(help="What to train: cruncher, mlp (both on the digits), or gpt (on text, by character).")],
    out: Annotated[Path | None, typer.Option(metavar="DIR", help="Folder of the run (default: out/train/TASK-OPTIMIZER).")] = None,
    framework: Annotated[str, typer.Option(help="torch, jax, or both side by side.")] = "both",
    gradients: Annotated[
        str | None, typer.Option(help="With both: shared (PyTorch's, fed to both; the default), or own (each side computes its own).")
    ] = None,
    optimizer: Annotated[str, typer.Option(help=", ".join(OPTIMIZERS))] = "adam",
    option: Annotated[
        list[str] | None, typer.Option(metavar="KEY=VALUE", help="An argument of the optimizer, as nesterov=true. May be repeated.")
    ] = None,
    setting: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="A size of the model, as n_layer=4. May be repeated.")
    ] = None,
    learning_rate: Annotated[float | None, typer.Option("--learning-rate", "--lr", help="Default: the documented one.")] = None,
    batch_size: Annotated[int | None, typer.Option(min=1, help="Examples per step.")] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="Steps in all, those before --resume included.")] = None,
    seed: Annotated[int, typer.Option(min=0, max=2**32 - 1, help="Seed of the parameters and of the order of examples.")] = 0,
    eval_every: Annotated[int, typer.Option(min=1, help="Steps between evaluations on what is held out.")] = 100,
    checkpoint_every: Annotated[int, typer.Option(min=1, help="Steps between checkpoints; the last step is saved as well.")] = 100,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the latest checkpoint of the folder.")] = False,
) -> None:
    """Train a model on real data in PyTorch, in JAX, or in both at once: log.csv, result.json, curves.png, checkpoints.

    Exit 1 if gradients were shared and a bit differs; Ctrl-C saves and exits with 130.
    """
    _need("flax", "orbax", "sklearn", "matplotlib", extras="cli,torch,train")
    from ..training.checkpoint import DamagedError
    from ..training.curves import draw
    from ..training.run import FRAMEWORKS, GRADIENTS, Run, Training
    from ..training.tasks import TASKS

    _one_of("task", [task], TASKS)
    _one_of("framework", [framework], FRAMEWORKS)
    _one_of("gradients", [gradients or GRADIENTS[0]], GRADIENTS)
    _one_of("optimizer", [optimizer], OPTIMIZERS)
    if framework != "jax":
        _need("torch")
    if gradients == "shared" and framework != "both":
        _fail("--gradients shared: PyTorch's gradients need --framework both.")
    source = (gradients or "shared") if framework == "both" else "own"
    settings, options = _assignments("--set", setting, TASKS[task].settings), _options(optimizer, option)
    run = Run(task, settings, framework, source, optimizer, options, learning_rate, batch_size, seed)
    folder, last = out or Path("out/train") / f"{task}-{optimizer}", steps or TASKS[task].steps
    try:
        training = Training(run, folder, resume=resume)
    except (ValueError, TypeError, DamagedError, RuntimeError, MemoryError) as error:  # the last two where a model is too large
        _fail(" ".join(str(error).split()))
    if resume:
        begun = f"Going on from step {training.step}." if training.step else "No checkpoint yet: from the start."
        console.print(begun, highlight=False)
    per_step = training.batch_size * training.data.targets[0].size
    with training, _progress() as progress:
        bar = progress.add_task("", total=last, completed=training.step)
        for line in training.go(last, eval_every=eval_every, checkpoint_every=checkpoint_every):
            losses = ", ".join(f"{side} {loss:.4f}" for side, loss in line.loss.items())
            speed = (progress.tasks[bar].speed or 0) * per_step
            progress.update(bar, completed=line.step, description=f"loss {losses}; {speed:,.0f} {TASKS[task].unit}/s")
        result = training.result()
        draw(training.lines, result, folder / "curves.png")
    _show_training(result)
    if training.step < last:
        console.print(f"Stopped at step {training.step} of {last}, and saved; --resume goes on.", highlight=False)
        raise typer.Exit(130)
    raise typer.Exit(1 if run.gradients == "shared" and result["differing"] else 0)


@app.command("convert")
def convert_(
    source: Annotated[Path, typer.Argument(metavar="IN", help="A torch checkpoint (.pt, .pth), a .safetensors file, or an Orbax folder.")],
    target: Annotated[Path, typer.Argument(metavar="OUT", help="Likewise; a name without a suffix is an Orbax folder's.")],
    optimizer: Annotated[str | None, typer.Option(metavar="CLASS", help="Adam, SGD, ...: needed where the file does not tell.")] = None,
    step: Annotated[int | None, typer.Option(min=0, help="Steps taken, where torch does not hold it: SGD, Momentum.")] = None,
    missing: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="A parameter that may have no state where others have. May be repeated.")
    ] = None,
    like: Annotated[
        Path | None, typer.Option(metavar="FILE.pt", help="Whose groups to take, where IN has none: the same model and optimizer in torch.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace OUT if it is there.")] = False,
) -> None:
    """Convert a checkpoint of a model and its optimizer between PyTorch, Orbax and safetensors, every bit of it, both ways."""
    try:
        forms = [convert.form(path) for path in (source, target)]
        packages = {"torch": "torch", "orbax": "orbax", "safetensors": "safetensors"}
        _need(*dict.fromkeys(packages[form] for form in [*forms, *(["torch"] if like else [])]), extras="cli,torch,convert")
        if target.exists() and not force:
            _fail(f"{target} is there already; --force replaces it.")
        if source.resolve().is_relative_to(target.resolve()):
            _fail(f"{source} is in {target}, which would be replaced.")
        if forms[0] == forms[1]:
            _fail(f"{source} and {target} have one format, {forms[0]}; there is nothing to convert.")
        checkpoint = convert.read(source, convert.Given(optimizer, step, missing or (), like))
        table = _table("part", "tensors", "state", "step", "bytes", right=("tensors", "step", "bytes"))
        for row in convert.rows(checkpoint):
            table.add_row(*row)
        console.print(table)
        with _progress() as progress:
            bar = progress.add_task(str(target), total=checkpoint.size)
            convert.write(checkpoint, target, force=force, tell=lambda written: progress.update(bar, completed=written))
    except convert.RefusedError as error:
        _fail(str(error))
    for note in convert.notes(checkpoint, target):
        console.print(note, highlight=False, soft_wrap=True)
    console.print(f"{checkpoint.size:,} bytes of tensors written to {target}", highlight=False, soft_wrap=True)


def _show_training(result: dict) -> None:
    score = "accuracy" if "accuracy" in result else "r2"
    table = _table("side", "steps", "held-out loss", f"held-out {score}", "hash of the parameters")
    for side in result["parameters"]:
        numbers = [f"{number:.4f}" if (number := result[key][side]) is not None else "not finite" for key in ("held_out", score)]
        table.add_row(side, str(result["steps"]), *numbers, result["parameters"][side])
    console.print(table)
    if "unigram_entropy" in result:
        console.print(f"Guessing by frequency alone costs {result['unigram_entropy']:.4f} nats a character.", highlight=False)
    if "differing" in result:
        elements = result["elements"] * result["steps"]
        console.print(f"{result['differing']:,} of {elements:,} elements differ between the sides, all steps.", highlight=False)


def _options(optimizer: str, given: list[str] | None) -> dict[str, Any]:
    """Arguments of an optimizer but the learning rate."""
    known = [name for name in OPTIMIZERS[optimizer].defaults if name != "learning_rate"]
    found = _assignments("--option", given, known)
    try:
        checks.options(optimizer, found)
    except ValueError as error:
        _fail(str(error))
    return found


def _assignments(flag: str, given: list[str] | None, known: Iterable[str]) -> dict[str, Any]:
    """{"KEY": value} of KEY=VALUE, values being JSON: numbers, true, false; what is not JSON is a string."""
    found = {}
    for assignment in given or []:
        key, equals, text = assignment.partition("=")
        if not equals:
            _fail(f"{flag} {assignment}: KEY=VALUE is needed.")
        _one_of(f"{flag} key", [key], known)
        try:
            found[key] = json.loads(text)
        except ValueError:
            found[key] = text
    return found


def _read_golden(file: Path) -> dict:
    try:
        document = json.loads(file.read_text())
        golden.validate(document)
    except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:
        _fail(f"{file} cannot be read as a golden file: {' '.join(str(error).split())}")
    return document


def _show(results: list[checking.Result]) -> None:
    """A line for each row and dtype: ours over all streams, the stock implementations at the end of the last."""
    table = _table("optimizer: row", "dtype", "streams", "differing", "torch.optim", "optax", "accuracy")
    rows: dict = {}
    for result in results:
        rows.setdefault((str(result.trial.row), result.trial.dtype), []).append(result)
    for (row, dtype), group in rows.items():
        differing = sum(sum(r.ours.differing) for r in group)
        same = sum(r.ours.identical for r in group)
        (last,) = [result for result in group if result.trial.with_stock]
        stock = [_drift(last.reports.get(name)) for name in checking.STOCK]
        accuracy = "" if last.accuracy is None else f"{100 * last.accuracy:.1f} %"
        color = "green" if same == len(group) else "red"
        table.add_row(row, dtype, f"[{color}]{same}/{len(group)} same", f"[{color}]{differing}", *stock, accuracy)
    console.print(table)
    console.print(
        "differing: elements of parameters and state, jaxopt_impl against torch_ref, all steps. torch.optim, optax: nearest stock "
        f"configuration on '{last.trial.stream}', share of parameters whose bits differ, "
        "largest distance in ulp. accuracy: held-out digits (float16 with eps = 1e-8, which is 0 there, is NaN on both sides).",
        highlight=False,
    )


def _drift(report) -> str:
    if report is None:
        return "none"
    return "same" if report.identical else f"{100 * report.share:.0f} %, {report.ulp[-1]:.0e} ulp"


def _table(*headers: str, right: Iterable[str] = ()) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for header in headers:
        table.add_column(header, overflow="fold", justify="right" if header in right else "left")
    return table


def _progress() -> Progress:
    columns = (BarColumn(20), MofNCompleteColumn(), TimeRemainingColumn(), TextColumn("{task.description}"))
    return Progress(*columns, console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty())


def _need(*packages: str, extras: str = "cli,torch") -> None:
    for package in packages:
        if not find_spec(package):
            _fail(f"{package} is not installed; this command needs: pip install 'optparity[{extras}]'")


def _one_of(what: str, given: list[str] | None, known: Iterable[str]) -> list[str]:
    known = list(known)
    for name in given or []:
        if name not in known:
            _fail(f"unknown {what} {name!r}; one of {', '.join(known)} is needed.")
    return list(dict.fromkeys(given or known))


def _picture(plot: Path | None) -> None:
    if plot and plot.suffix not in (".png", ".svg", ".pdf"):
        _fail(f"--plot {plot}: a file name that ends in .png, .svg or .pdf is needed.")


def _writable(file: Path | None) -> None:
    if file is None:
        return
    try:
        if file.is_dir():
            _fail(f"{file} is a folder; a file name is needed.")
        file.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        _fail(f"{file} cannot be written: {error.strerror}.")
    if not os.access(file.parent, os.W_OK):
        _fail(f"{file} cannot be written: its folder is read-only.")


def _write(file: Path, text: str) -> None:
    with replacing(file) as temporary:
        temporary.write_text(text)


def _fail(message: str) -> NoReturn:
    typer.echo(f"optparity: {message}", err=True)
    raise typer.Exit(2)


def main() -> None:
    """Entry point: what is wrong with the arguments is said in one line."""
    try:
        status = app(standalone_mode=False)
    except (typer.Abort, KeyboardInterrupt):
        typer.echo("optparity: interrupted", err=True)
        sys.exit(130)
    except OSError as error:
        what = f"{error.filename} cannot be used: {error.strerror}." if error.filename else str(error)
        typer.echo(f"optparity: {' '.join(what.split())}", err=True)
        sys.exit(2)
    except Exception as error:
        if not hasattr(error, "format_message"):
            raise
        _one_line(error)
    sys.exit(status or 0)


def _one_line(error) -> None:
    typer.echo(f"optparity: {' '.join(error.format_message().split())}", err=True)
    sys.exit(2)
