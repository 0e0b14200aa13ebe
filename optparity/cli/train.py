"""`optparity train`."""

import inspect
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

import jaxopt_impl

from ..registry import OPTIMIZERS
from ..training.tasks import TASKS
from ._console import console, need, progress, refusing, table
from ._errors import INTERRUPTED, BadInputError, importing
from ._options import ArgumentOption, Optimizer, arguments_of, assignments

if TYPE_CHECKING:  # it needs flax and orbax, --help does not
    from ..training.run import Training

Task = StrEnum("Task", list(TASKS))
Framework = StrEnum("Framework", ["torch", "jax", "both"])
Gradients = StrEnum("Gradients", ["shared", "own"])

What = Annotated[Task, typer.Argument(help="The cruncher and the mlp learn the digits, the gpt a text, by character.")]
Out = Annotated[Path | None, typer.Option(metavar="DIR", help="Folder of the run. Default: out/train/TASK-OPTIMIZER.")]
InFramework = Annotated[Framework, typer.Option(help="With both, they go side by side.")]
WhoseGradients = Annotated[Gradients | None, typer.Option(help="With both: PyTorch's for both sides (the default), or each side its own.")]
Setting = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="A size of the model, as n_layer=4. May be repeated.")
]
OptimizerOption = Annotated[Optimizer | None, typer.Option("--optimizer", metavar="NAME", help=f"{', '.join(OPTIMIZERS)}. Default: adam.")]
LearningRate = Annotated[float | None, typer.Option("--learning-rate", "--lr", help="Default: the documented one.")]
BatchSize = Annotated[int | None, typer.Option(min=1, help="Examples per step.")]
Steps = Annotated[int | None, typer.Option(min=1, help="Steps in all, those before --resume included.")]
Seed = Annotated[int, typer.Option(min=0, max=2**32 - 1, help="Seed of the parameters and of the order of examples.")]
EvalEvery = Annotated[int, typer.Option(min=1, help="Steps between evaluations on what is held out.")]
CheckpointEvery = Annotated[int, typer.Option(min=1, help="Steps between checkpoints; the last step is saved as well.")]
RecipeFlag = Annotated[
    bool,
    typer.Option(
        "--recipe", help="AdamW with everything around it: accumulation, clip, decay mask, warm-up and cosine, average. --option every=2."
    ),
]
Resume = Annotated[bool, typer.Option("--resume", help="Go on from the latest checkpoint of the folder.")]


def train(
    task: What,
    out: Out = None,
    framework: InFramework = Framework("both"),
    gradients: WhoseGradients = None,
    optimizer: OptimizerOption = None,
    option: ArgumentOption = None,
    recipe: RecipeFlag = False,
    setting: Setting = None,
    learning_rate: LearningRate = None,
    batch_size: BatchSize = None,
    steps: Steps = None,
    seed: Seed = 0,
    eval_every: EvalEvery = 100,
    checkpoint_every: CheckpointEvery = 100,
    resume: Resume = False,
) -> None:
    """Train a model in PyTorch, in JAX, or in both side by side.

    On real data. The folder of the run gets log.csv, result.json, curves.png and checkpoints. Exit 1 if gradients were shared and a bit
    differs. Ctrl-C saves and exits with 130.
    """
    need("flax", "orbax", "sklearn", "matplotlib", *([] if framework == "jax" else ["torch"]), extras="cli,torch,train")
    with importing():
        from ..training.run import Run
    if gradients == "shared" and framework != "both":
        raise BadInputError("--gradients shared: PyTorch's gradients need --framework both.")
    if recipe and optimizer:
        raise BadInputError(f"--recipe has its own optimizer, AdamW; got --optimizer {optimizer}.")
    optimizer = optimizer or Optimizer("adam")
    run = Run(
        task=str(task),
        settings=assignments("--set", setting, TASKS[task].settings),
        framework=str(framework),
        gradients=str(gradients or "shared") if framework == "both" else "own",
        optimizer="recipe" if recipe else str(optimizer),
        options=_recipe_options(task, option) if recipe else arguments_of(optimizer, option),
        learning_rate=learning_rate,
        batch_size=batch_size,
        seed=seed,
    )
    training = _begin(run, out or Path("out/train") / f"{task}-{run.optimizer}", resume)
    _go(training, steps or TASKS[task].steps, eval_every, checkpoint_every)


def _recipe_options(task: Task, option: list[str] | None) -> dict[str, Any]:
    """The arguments of the recipe; its cosine ends with the task's steps, where it is not told to end elsewhere."""
    known = [name for name in inspect.signature(jaxopt_impl.recipe).parameters if name not in ("learning_rate", "decayed")]
    options = assignments("--option", option, known)
    every = options.get("every", 1)
    steps = TASKS[task].steps // (every if type(every) is int and every > 0 else 1)  # else the recipe says what is wrong
    return {"warmup_steps": steps // 20, "decay_steps": steps - steps // 20, **options}


def _begin(run: Any, folder: Path, resume: bool) -> "Training":
    from ..training.checkpoint import DamagedError
    from ..training.run import Training

    with refusing(ValueError, TypeError, DamagedError, RuntimeError, MemoryError):  # the last two where a model is too large
        training = Training(run, folder, resume=resume)
    if resume:
        console.print(f"Going on from step {training.step}." if training.step else "No checkpoint yet: from the start.")
    return training


def _go(training: "Training", last: int, eval_every: int, checkpoint_every: int) -> None:
    """Train up to the last step, and say what has come of it."""
    from ..training.curves import draw

    per_step, unit = training.batch_size * training.data.targets[0].size, training.task.unit
    with training, progress() as bar:
        shown = bar.add_task("", total=last, completed=training.step)
        for line in training.go(last, eval_every=eval_every, checkpoint_every=checkpoint_every):
            losses = ", ".join(f"{side} {loss:.4f}" for side, loss in line.loss.items())
            speed = (bar.tasks[shown].speed or 0) * per_step
            bar.update(shown, completed=line.step, description=f"loss {losses}; {speed:,.0f} {unit}/s")
        result = training.result()
        draw(training.lines, result, training.folder / "curves.png")
    _show(result)
    if training.step < last:
        console.print(f"Stopped at step {training.step} of {last}, and saved; --resume goes on.")
        raise typer.Exit(INTERRUPTED)
    raise typer.Exit(1 if training.run.gradients == "shared" and result["differing"] else 0)


def _show(result: dict[str, Any]) -> None:
    score = "accuracy" if "accuracy" in result else "r2"
    shown = table("side", "steps", "held-out loss", f"held-out {score}", "hash of the parameters")
    for side in result["parameters"]:
        numbers = ("not finite" if result[key][side] is None else f"{result[key][side]:.4f}" for key in ("held_out", score))
        shown.add_row(side, str(result["steps"]), *numbers, result["parameters"][side])
    console.print(shown)
    if "unigram_entropy" in result:
        console.print(f"Guessing by frequency alone costs {result['unigram_entropy']:.4f} nats a character.")
    if "differing" in result:
        elements = result["elements"] * result["steps"]
        console.print(f"{result['differing']:,} of {elements:,} elements differ between the sides, all steps.")
