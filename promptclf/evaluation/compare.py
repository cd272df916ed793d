"""The comparison: every mode, and what it must beat, on one frozen test split."""

from __future__ import annotations

import json
import logging
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

from sklearn.base import clone

from promptclf import errors
from promptclf.artifacts import write_text
from promptclf.data.dataset import Dataset
from promptclf.errors import DataError, PromptClfError
from promptclf.evaluation.measure import BASELINE, Progress, Run, measure
from promptclf.evaluation.report import Report, build_report, score_predictions, spread
from promptclf.evaluation.results import Result
from promptclf.lm.loading import model_revision
from promptclf.modes import MODES
from promptclf.prompt import PromptTemplate, default_template, packaged_templates
from promptclf.versions import versions

logger = logging.getLogger(__name__)

SEEDS = 3


def compare(
    classifiers: Mapping[str, Any] | Sequence[Any],
    dataset: Dataset,
    *,
    seed: int = 0,
    progress: Progress | None = None,
) -> Report:
    """Fit clones of classifiers on the train split and score the whole test split, in this process.

    Parameters
    ----------
    classifiers
        Name -> unfitted classifier; or a list, then their modes are the names.
    dataset
        Task and splits; it is checked that the test split has rows.
    seed
        Of the bootstrap.
    progress
        Called with a dictionary ("event", "name", …) as the work goes on.

    Returns
    -------
    A report with intervals, tests and verdicts. Peak memory is not in it, since the classifiers
    share this process: `run_comparison` measures each in its own.

    Raises
    ------
    DataError
        If there is nothing to compare or nothing to test on.
    """
    named = classifiers if isinstance(classifiers, Mapping) else {c.mode: c for c in classifiers}
    if not named or len(named) < len(classifiers):
        raise DataError("expected classifiers with names of their own; give a dictionary of them")
    _check(dataset)
    results = []
    for name, classifier in named.items():
        measured = measure(clone(classifier), dataset, _named(progress, name))
        run = Run(name, classifier.mode, seed=getattr(classifier, "seed", 0))
        results.append(_result(run, measured, dataset))
    return _report(results, [], [], dataset, seed, {})


def run_comparison(
    dataset: Dataset,
    *,
    modes: Sequence[str] = tuple(MODES),
    model: str = "embedded",
    quantizations: Sequence[str] = ("none",),
    templates: Sequence[str] = (),
    seeds: int = SEEDS,
    seed: int = 0,
    truncate: bool = False,
    config: Mapping[str, Any] | None = None,
    out: str | Path | None = None,
    resume: bool = True,
    progress: Progress | None = None,
) -> Report:
    """Compare modes and the classical baseline, each run in a process of its own.

    Parameters
    ----------
    modes
        Of `promptclf.MODES`; the baseline is always there.
    quantizations
        The first is used for the table, the others show how much they change.
    templates
        More templates to try the prompt modes with; ("all",) takes the packaged ones of the
        task template's language. They show how much the wording changes.
    seeds
        How many seeds few-shot is run with. The table shows their mean and each of them; verdicts
        and predictions are of single seeds.
    seed
        The first seed, of the bootstrap too.
    config
        Settings of `TrainConfig` that differ from the defaults.
    out
        Folder for the report; finished runs are kept there and not repeated when `resume` is on, and
        a training that was stopped goes on from its last checkpoint.

    Raises
    ------
    DataError
        If a mode is unknown, or there is nothing to test on.
    """
    _check(dataset)
    if unknown := [mode for mode in modes if mode not in MODES]:
        raise DataError(f"modes: expected some of {', '.join(MODES)}, got {unknown[0]!r}")
    if not quantizations:
        raise DataError('quantizations: expected at least one, got none; "none" is the unquantised model')
    several = _templates(dataset, templates)
    revision = model_revision(model) if modes else ""
    main = [
        Run(mode, mode, model, quantizations[0], seed=seed, truncate=truncate, revision=revision)
        for mode in dict.fromkeys(modes)
    ]
    main = [replace(run, config=dict(config or {})) if run.mode == "lora" else run for run in main]
    if seeds > 1:
        main = [replace(r, name=f"{r.name}, seed {seed}") if r.mode == "few-shot" else r for r in main]
    baseline = Run("TF-IDF + SVM", BASELINE, model="-", seed=seed)
    variants = _variants(main, quantizations, several, seeds)
    temporary = tempfile.TemporaryDirectory() if out is None else nullcontext(str(out))
    with temporary as folder:
        kept = Path(folder) / "runs"
        kept.mkdir(parents=True, exist_ok=True)
        measured = {
            run.name: _run(run, dataset, kept, resume, _named(progress, run.name), lasting=out is not None)
            for run in [baseline, *main, *(run for _, _, run in variants)]
        }
    results = [_result(run, measured[run.name], dataset) for run in [*main, baseline]]
    others = [_result(run, measured[run.name], dataset) for _, _, run in variants]
    spreads = _spreads(variants, {r.name: r for r in [*results, *others]})
    same = {run.name: [run.name] for run in main if run.mode == "few-shot" and seeds > 1}
    for run, over, varied in variants:
        if over == "seeds":
            same[run.name].append(varied.name)
    averages = {f"few-shot, mean of {len(names)} seeds": names for names in same.values()}
    report = _report(results, others, spreads, dataset, seed, averages)
    if out is not None:
        report.save(out, dataset.test)
    return report


def _variants(
    main: Sequence[Run], quantizations: Sequence[str], templates: Sequence[str], seeds: int
) -> list[tuple[Run, str, Run]]:
    """(run of the table, what varies, the varied run)."""
    found: list[tuple[Run, str, Run]] = []

    def vary(run: Run, over: str, shown: str, **change: Any) -> None:
        name = run.mode if over == "seeds" else run.name
        found.append((run, over, replace(run, name=f"{name}, {shown}", **change)))

    for run in main:
        if run.mode == "few-shot":
            for seed in range(run.seed + 1, run.seed + seeds):
                vary(run, "seeds", f"seed {seed}", seed=seed)
        if run.mode != "lora":
            for template in templates:
                vary(run, "templates", template, template=template)
        for quantization in quantizations[1:]:
            vary(run, "quantization", quantization, quantization=quantization)
    return found


def _spreads(variants: Sequence[tuple[Run, str, Run]], results: Mapping[str, Result]) -> list[dict[str, Any]]:
    grouped: dict[tuple[str, str], dict[str, float]] = {}
    for run, over, varied in variants:
        attribute = {"seeds": "seed", "templates": "template", "quantization": "quantization"}[over]
        values = grouped.setdefault((run.mode if over == "seeds" else run.name, over), {})
        for one in (run, varied):
            shown = getattr(one, attribute)
            values[str("task's own" if shown is None else shown)] = results[one.name].metrics["accuracy"]
    return [spread(name, over, values) for (name, over), values in grouped.items()]


def _templates(dataset: Dataset, names: Sequence[str]) -> list[str]:
    if list(names) != ["all"]:
        for name in names:  # a wrong one is told now, not after hours
            PromptTemplate.load(name)
        return list(dict.fromkeys(names))
    own = PromptTemplate.load(default_template(dataset.task, dataset.pairs))
    pairs = "{pair}" in own.user
    every = [PromptTemplate.load(name) for name in packaged_templates()]
    return [
        t.name
        for t in every
        if t.language == own.language and ("{pair}" in t.user) == pairs and t.fingerprint != own.fingerprint
    ]


def _run(
    run: Run, dataset: Dataset, kept: Path, resume: bool, tell: Progress, *, lasting: bool
) -> dict[str, Any]:
    """A finished run's result, or that of a new process; `lasting` says that `kept` outlives this one."""
    file = kept / run.file(dataset)
    checkpoints = file.with_suffix(".checkpoints")
    if not resume:
        shutil.rmtree(checkpoints, ignore_errors=True)
    if resume and file.is_file():
        tell({"event": "kept"})
        found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        return found
    tell({"event": "start"})
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        (place / "run.json").write_text(json.dumps(run.__dict__), encoding="utf-8")
        splits = {name: [e.to_dict() for e in rows] for name, rows in dataset.splits.items()}
        stored = {"task": dataset.task.to_dict(), "name": dataset.name, "splits": splits}
        (place / "dataset.json").write_text(json.dumps(stored), encoding="utf-8")
        command = [sys.executable, "-m", "promptclf.evaluation.measure", folder]
        if lasting and run.mode == "lora":
            command.append(str(checkpoints))
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, encoding="utf-8") as process:
            assert process.stdout is not None
            try:
                for line in process.stdout:
                    if line.startswith("{"):
                        tell(json.loads(line))
            except BaseException:
                process.kill()
                raise
        if (place / "error.json").is_file():
            failed = json.loads((place / "error.json").read_text(encoding="utf-8"))
            kind = getattr(errors, failed["kind"], PromptClfError)
            raise kind(f"{run.name}: {failed['text']}")
        if process.returncode or not (place / "result.json").is_file():
            raise PromptClfError(
                f"{run.name}: the process ended with status {process.returncode}; "
                "finished runs are kept, run the command again to go on"
            )
        text = (place / "result.json").read_text(encoding="utf-8")
    write_text(file, text)
    shutil.rmtree(checkpoints, ignore_errors=True)
    tell({"event": "done"})
    result: dict[str, Any] = json.loads(text)
    return result


def _result(run: Run, measured: Mapping[str, Any], dataset: Dataset) -> Result:
    origin = measured["provenance"]
    model = origin.get("model") or {}
    return score_predictions(
        run.name,
        [example.label for example in dataset.test],
        measured["proba"],
        measured["labels"],
        mode=run.mode,
        template=origin.get("template"),
        quantization=model.get("quantization"),
        seeds=[run.seed],
        truncated=measured["truncated"],
        timing=measured["timing"],
        provenance=origin,
    )


def _report(
    results: Sequence[Result],
    variants: Sequence[Result],
    spreads: Sequence[Mapping[str, Any]],
    dataset: Dataset,
    seed: int,
    averages: Mapping[str, Sequence[str]],
) -> Report:
    return build_report(
        results,
        [example.label for example in dataset.test],
        sorted(dataset.task.labels),
        task=dataset.task.name,
        dataset=dataset.describe(),
        variants=variants,
        averages=averages,
        spreads=spreads,
        provenance={"versions": versions(), "task_fingerprint": dataset.task.fingerprint},
        seed=seed,
    )


def _check(dataset: Dataset) -> None:
    if not dataset.test or not dataset.train:
        counts = f"{len(dataset.train)} and {len(dataset.test)}"
        raise DataError(f"{dataset.name}: expected train and test rows, got {counts}")


def _named(progress: Progress | None, name: str) -> Progress:
    def tell(event: dict[str, Any]) -> None:
        if progress:
            progress({"name": name, **event})

    return tell
