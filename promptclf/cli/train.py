"""``promptclf train``: fit a LoRA adapter and save it as a classifier."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_type_hints

import typer

from promptclf.cli import common
from promptclf.cli.frame import emit, emit_json, is_main_process, say
from promptclf.errors import ArtifactError, PromptClfError
from promptclf.settings import TrainConfig

if TYPE_CHECKING:
    from promptclf.classifiers.lora import LoraClassifier
    from promptclf.data.dataset import Dataset

#: What each setting of training is; `TrainConfig` has the whole story.
SETTINGS = {
    "rank": "Of the adapter.",
    "alpha": "The adapter counts alpha / rank times.",
    "dropout": "Share of the adapter's inputs left out in training.",
    "target_modules": "all-linear, or names of modules: A,B.",
    "learning_rate": "At its highest.",
    "warmup": "Share of all steps in which the rate rises.",
    "weight_decay": "Of the adapter's weights.",
    "max_grad_norm": "Longer gradients are cut to this length.",
    "optimizer": "adamw, sgd or adamw8bit.",
    "batch_size": "Rows a step, over all processes.",
    "accumulation": "Parts that a batch is cut into, to save memory.",
    "epochs": "Passes over the training rows; a number given here is the most there are (see --patience).",
    "min_steps": "Steps at least: few rows get more epochs. Default: 150 or 8 a label, without --epochs.",
    "patience": "Stop after this many epochs without a better macro-F1.",
    "loss": "vocabulary, or labels: only the labels' words compete.",
    "class_weights": "none or balanced.",
    "validation_fraction": "Held out where there are no validation rows.",
    "save_steps": "Checkpoints also after this many steps.",
    "layers": "Tune the last so many layers only, which is quicker; default: all.",
    "refit": "In the end train afresh on all rows, validation included: twice the work, for few rows.",
}


def _with_settings(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command one option for each field of TrainConfig; it gets them as keywords."""
    types = get_type_hints(TrainConfig)
    options = []
    for setting in fields(TrainConfig):
        kind = str if setting.name == "target_modules" else types[setting.name]
        option = typer.Option(f"--{setting.name.replace('_', '-')}", help=SETTINGS.get(setting.name))
        options.append(
            inspect.Parameter(
                setting.name,
                inspect.Parameter.KEYWORD_ONLY,
                default=setting.default,
                annotation=Annotated[kind, option],
            )
        )
    signature = inspect.signature(command, eval_str=True)
    own = [p for p in signature.parameters.values() if p.kind is not inspect.Parameter.VAR_KEYWORD]
    both = [*own, *options]
    command.__signature__ = signature.replace(parameters=both)  # type: ignore[attr-defined]
    command.__annotations__ = {parameter.name: parameter.annotation for parameter in both}
    return command


@_with_settings
def run(
    context: typer.Context,
    out: Annotated[str, typer.Option("--out", metavar="DIR", help="Save the classifier to this folder.")],
    task: common.TaskName = None,
    data: common.Data = None,
    columns: common.Columns = None,
    model: common.Model = None,
    quantization: common.Quantized = None,
    template: common.Template = None,
    rows: Annotated[
        int | None,
        typer.Option(
            "--rows",
            min=2,
            metavar="N",
            help="Learn from N labelled rows; validation rows are among them, unless the data has its own.",
        ),
    ] = None,
    truncate: common.Truncate = False,
    seed: common.Seed = 0,
    checkpoints: Annotated[
        str | None,
        typer.Option("--checkpoints", metavar="DIR", help="Save the state after every epoch there."),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on from the newest checkpoint in --checkpoints.")
    ] = False,
    as_json: common.Json = False,
    verbose: common.Verbose = 0,
    **settings: Any,
) -> None:
    """Train a LoRA classifier and save it.

    The test split is not looked at.

    Example: promptclf train --task support --out support-lora

    In several processes: torchrun --nproc_per_node 2 -m promptclf train ...
    """
    if resume and checkpoints is None:
        raise PromptClfError("--resume: expected --checkpoints with the folder to go on from, got none")
    source = context.get_parameter_source("epochs")
    if source is not None and source.name == "COMMANDLINE" and settings["min_steps"] is None:
        settings["min_steps"] = 0  # no more epochs than were asked for
    modules = common.split_list(settings["target_modules"])
    config = TrainConfig(
        **{**settings, "target_modules": modules[0] if len(modules) == 1 else tuple(modules)}
    )
    common.check_folder(out, replaces=True)
    _check_apart(Path(out), checkpoints)
    dataset = common.load_data(data, task, columns).limit(rows=rows, seed=seed)
    from promptclf.classifiers.lora import LoraClassifier
    from promptclf.cli.progress import Progress
    from promptclf.evaluation.measure import columns as in_columns

    progress = Progress()
    classifier = LoraClassifier(
        dataset.task,
        template=template,
        truncate=truncate,
        config=config,
        seed=seed,
        callback=progress,
        checkpoints=checkpoints,
        resume=resume,
    )
    classifier.check_options()
    classifier.set_params(model=common.open_model(model, quantization, to_train=True))
    validation = in_columns(dataset.validation) if dataset.validation else None
    try:
        classifier.fit(*in_columns(dataset.train), validation=validation)
    except KeyboardInterrupt:
        say("nothing was saved" + (f"; --resume goes on from {checkpoints}" if checkpoints else ""))
        raise
    finally:
        progress.close()
        _leave_processes()
    if is_main_process():
        if Path(out).exists():
            say(f"{out}: the classifier that was there is replaced")
        classifier.save_pretrained(out)
        _show(classifier, dataset, out, as_json)


def _show(classifier: LoraClassifier, dataset: Dataset, out: str, as_json: bool) -> None:
    training: dict[str, Any] = classifier.training_
    best = next(row for row in training["history"] if row["epoch"] == training["best_epoch"])
    if as_json:
        found = {
            "path": out,
            "task": dataset.task.name,
            "validation": best,
            "temperature": classifier.temperature_,
            "training": training,
            "model": classifier.model_.info.to_dict(),
            "dataset": dataset.describe(),
        }
        emit_json(found)
        return
    emit("epoch  macro-F1  accuracy  log-loss   (validation)")
    for row in training["history"]:
        mark = "  best" if row is best else ""
        emit(
            f"{row['epoch']:5}  {row['macro_f1']:8.3f}  {row['accuracy']:8.3f}  {row['log_loss']:8.3f}{mark}"
        )
    emit(
        f"{training['rows']} training and {training['validation_rows']} validation rows,"
        f" {training['steps']} steps, {training['minutes']:.1f} min;"
        f" temperature {classifier.temperature_:.2f}"
    )
    if "refit_rows" in training:
        emit(f"then trained afresh on all {training['refit_rows']} rows, which leaves none to measure it on")
    emit(f"saved to {out}")


def _check_apart(out: Path, checkpoints: str | None) -> None:
    """Saving replaces the whole folder, so nothing else may lie in it."""
    if checkpoints is None:
        return
    place, other = out.resolve(), Path(checkpoints).resolve()
    if place == other or place in other.parents or other in place.parents:
        raise ArtifactError("--checkpoints: expected a folder apart from --out; choose another place")


def _leave_processes() -> None:
    """Say goodbye to the other processes of a ``torchrun``, or torch complains."""
    import torch.distributed as processes

    if processes.is_available() and processes.is_initialized():
        processes.destroy_process_group()
