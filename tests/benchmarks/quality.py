"""How accurate the shipped defaults are: every mode on whole public test sets.

    python tests/benchmarks/quality.py --data DIR        # DIR/<name>/{train,dev,test}.csv
    python tests/benchmarks/quality.py --hub             # the same sets from the Hugging Face Hub
    python tests/benchmarks/quality.py --table           # print the table of what is there

The task files beside this program fix label words and template, chosen on train rows; all else is a
default. A finished cell is a JSON file under results/quality/ and is not computed again as long as data,
task, template and settings are the same; a training that was stopped goes on from its last checkpoint
(under PROMPTCLF_HOME). So the program can be stopped at any time. The Hub's ag_news has 7,600 test rows,
the sample that README's table was made on 2,000.
What bfloat16 and tuning the upper layers alone cost in accuracy, and what training on the validation rows
too in the end brings, are columns of a second table.
A seed of few-shot that chooses the same examples as an earlier one takes over its scores, so that its
seconds count only what was new. The labelled budget of "few rows" includes the rows held out for choosing
epoch and temperature, except where the data set has its own validation file (sst2, ag_news), which is then
used whole.
"""

from __future__ import annotations

import argparse
import functools
import hashlib
import json
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from promptclf import (
    Dataset,
    FewShotClassifier,
    LoraClassifier,
    PromptTemplate,
    Task,
    TrainConfig,
    ZeroShotClassifier,
    load_dataset,
    load_model,
)
from promptclf.classifiers.base import versions
from promptclf.classifiers.baselines import TfidfSvmClassifier
from promptclf.data.dataset import HELD_OUT, read_rows, split_examples
from promptclf.evaluation.metrics import encode, scores
from promptclf.lm.embedded import home
from promptclf.lm.model import HFModel
from promptclf.prompt import Prompt

HERE = Path(__file__).parent
RESULTS = HERE / "results" / "quality"
FEW_ROWS = {"sst2": 300, "trec": 500, "ag_news": 240, "banking77": 768, "support": 670}
ALL_ROWS = ("sst2", "banking77")
HUB = {  # source and label column
    "sst2": ("hub:SetFit/sst2", "label_text"),
    "trec": ("hub:CogComp/trec@refs/convert/parquet", "coarse_label"),
    "ag_news": ("hub:fancyzhx/ag_news", "label"),
    "banking77": ("hub:mteb/banking77", "label_text"),
}
HUB_LABELS = {
    "ABBR": "abbreviation",
    "DESC": "description",
    "ENTY": "entity",
    "HUM": "human",
    "LOC": "location",
    "NUM": "number",
}
COLUMNS = ("zero-shot", "few-shot", "lora-few", "lora-few-nf4", "lora-all", "tfidf-svm")
OTHER = {  # settings that are not the default, and on what they are measured
    "zero-shot-bfloat16": ("sst2", "trec"),
    "lora-few-bfloat16": ("sst2", "trec"),
    "lora-few-upper": ("sst2", "trec"),
    "lora-few-refit": ("trec", "banking77"),  # the others have validation rows beside the budget
}
UPPER = 15  # layers: half of them
SEEDS = (0, 1, 2)


@dataclass(frozen=True)
class Cell:
    """One figure of the table."""

    data: str
    column: str
    seed: int = 0

    @property
    def path(self) -> Path:
        return RESULTS / f"{self.data}.{self.column}.{self.seed}.json"


def cells(names: list[str], columns: list[str], seeds: int = 1) -> Iterator[Cell]:
    """The cells of the table, the quick ones first; `seeds` of those that learn from few rows by LoRA."""
    only = {"lora-all": ALL_ROWS, **OTHER}
    several = {"few-shot": len(SEEDS), "lora-few": seeds, "lora-few-nf4": seeds}
    for column in columns:
        for name in names:
            if name not in only.get(column, names):
                continue
            for seed in SEEDS[: several.get(column, 1)]:
                yield Cell(name, column, seed)


def load(name: str, folder: Path | None, column: str) -> Dataset:
    """The data of a cell: its whole test split, and the rows that the column may learn from."""
    if name == "support":
        return load_dataset("support")
    task = Task.load(HERE / "tasks" / f"{name}.yaml")
    data = from_hub(name, task) if folder is None else load_dataset(folder / name, task=task)
    if not column.startswith("lora-few"):
        return data
    if name == "banking77" and folder is not None:  # its own published ten rows a class
        rows = read_rows(folder / name / "train_10shot.csv")
        train, held = split_examples(rows, fractions=(1 - HELD_OUT, HELD_OUT), seed=0)
        return replace(data, train=tuple(train), validation=tuple(held))
    return data.limit(rows=FEW_ROWS[name])


def from_hub(name: str, task: Task) -> Dataset:
    """The set as the Hub has it, with our names for its labels."""
    source, column = HUB[name]
    found = load_dataset(source, text="text", label=column)
    splits = {
        split: tuple(replace(row, label=HUB_LABELS.get(row.label, row.label)) for row in rows)
        for split, rows in found.splits.items()
    }
    return replace(found, task=task, **splits)


def classifier(cell: Cell, task: Task, checkpoints: Path) -> Any:
    """The shipped defaults of a cell's mode."""
    if cell.column == "tfidf-svm":
        return TfidfSvmClassifier(task)
    # The same on every machine; "auto" is bfloat16 where that is quicker.
    model = load_model(
        quantization="nf4" if cell.column.endswith("nf4") else "none",
        dtype="bfloat16" if cell.column.endswith("bfloat16") else "float32",
    )
    if cell.column.startswith("zero-shot"):
        return ZeroShotClassifier(task, model)
    if cell.column == "few-shot":
        return FewShotClassifier(task, remembering(model), seed=cell.seed)
    return LoraClassifier(
        task,
        model,
        config=TrainConfig(
            save_steps=100,
            layers=UPPER if cell.column.endswith("upper") else None,
            refit=cell.column.endswith("refit"),
        ),
        seed=cell.seed,
        callback=progress,
        checkpoints=checkpoints,
        resume=True,
    )


class Remembering:
    """A model that keeps its scores: a seed that chooses the same examples need not score them again."""

    def __init__(self, model: HFModel) -> None:
        self.model = model
        self.kept: dict[Any, NDArray[np.float64]] = {}

    def __getattr__(self, name: str) -> Any:
        return getattr(self.model, name)

    def __deepcopy__(self, memo: dict[int, Any]) -> Remembering:
        return self

    def score(self, prompts: Sequence[Prompt], answers: Sequence[str], **options: Any) -> NDArray[np.float64]:
        """See `LanguageModel.score`."""
        keys = [(prompt, tuple(answers), *sorted(options.items())) for prompt in prompts]
        new = dict(zip(keys, prompts, strict=True))
        new = {key: prompt for key, prompt in new.items() if key not in self.kept}
        if new:
            scores = self.model.score(list(new.values()), answers, **options)
            self.kept.update(zip(new, scores, strict=True))
        return np.stack([self.kept[key] for key in keys])


remembering = functools.cache(Remembering)


def progress(event: dict[str, Any]) -> None:
    if event["event"] == "epoch":
        print(f"    epoch {event['epoch']}/{event['epochs']}: macro-F1 {event['macro_f1']:.4f}", flush=True)
    elif event["event"] == "refit":
        print(f"    training afresh on all {event['rows']} rows for {event['epochs']} epochs", flush=True)
    elif event["step"] % 50 == 0:
        print(f"    step {event['step']}/{event['steps']}: loss {event['loss']:.4f}", flush=True)


def key(cell: Cell, data: Dataset) -> str:
    """What the figure depends on; a finished cell with another key is computed again."""
    template = PromptTemplate.load(data.task.template or "completion").fingerprint
    # A new setting that is off by default changes no figure.
    values = asdict(TrainConfig()).items()
    config = {name: value for name, value in values if value is not None and value is not False}
    parts = [asdict(cell), data.fingerprint, data.task.fingerprint, template, config]
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()[:16]


def run(cell: Cell, data: Dataset) -> dict[str, Any]:
    """Fit on train, score the whole test split."""
    texts, labels = split(data, "train")
    test, truth = split(data, "test")
    checkpoints = home() / "benchmarks" / f"{cell.path.stem}.{key(cell, data)}"
    resumed = checkpoints.is_dir()  # then minutes count from the last start, but for "training"
    model = classifier(cell, data.task, checkpoints)
    start = time.monotonic()
    cpu = time.process_time()
    model.fit(texts, labels, validation=split(data, "validation"))
    fit_minutes, fit_cpu = (time.monotonic() - start) / 60, (time.process_time() - cpu) / 60
    start = time.monotonic()
    proba = model.predict_proba(test)
    seconds = time.monotonic() - start
    names = [str(label) for label in model.classes_]
    provenance = model.provenance()
    shutil.rmtree(checkpoints, ignore_errors=True)
    return {
        "rows": len(texts),
        "validation_rows": len(data.validation),
        "test_rows": len(test),
        **scores(encode(truth, names), np.asarray(proba)),
        "fit_minutes": round(fit_minutes, 2),
        "fit_cpu_minutes": round(fit_cpu, 2),
        "resumed": resumed,
        "seconds_per_1000": round(1000 * seconds / len(test), 1),
        "data_fingerprint": data.fingerprint,
        "provenance": provenance,
        "versions": versions(),
    }


def split(data: Dataset, name: str) -> tuple[list[Any], list[str]]:
    rows = data.splits[name]
    return [r.text if r.pair is None else (r.text, r.pair) for r in rows], [r.label for r in rows]


def finished(cell: Cell) -> dict[str, Any] | None:
    return json.loads(cell.path.read_text(encoding="utf-8")) if cell.path.is_file() else None


def table() -> str:
    """The finished cells as a Markdown table: accuracy in per cent."""
    lines = [
        "| data (test rows) | zero-shot | few-shot, 3 seeds | LoRA, few rows | the same, NF4 "
        "| LoRA, all rows | TF-IDF + SVM, all rows |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for name in ("sst2", "trec", "ag_news", "banking77", "support"):
        found = {c: [r for s in SEEDS if (r := finished(Cell(name, c, s)))] for c in COLUMNS}
        some = next((rows[0] for rows in found.values() if rows), None)
        if some is None:
            continue
        entries = [entry(found[column]) for column in COLUMNS]
        lines.append(f"| {name} ({some['test_rows']:,}) | " + " | ".join(entries) + " |")
    return "\n".join(lines)


def others() -> str:
    """What other settings cost or bring, beside the defaults: accuracy in per cent."""
    columns = ("zero-shot", "zero-shot-bfloat16", "lora-few", *list(OTHER)[1:])
    head = ["data", "zero-shot", "in bfloat16", "LoRA, few rows", "in bfloat16"]
    head += [f"upper {UPPER} layers only", "trained afresh on all rows"]
    lines = [f"| {' | '.join(head)} |", "| --- |" + " ---: |" * len(columns)]
    for name in dict.fromkeys(name for names in OTHER.values() for name in names):
        found = [finished(Cell(name, column)) for column in columns]
        entries = [f"{100 * row['accuracy']:.1f}" if row else "-" for row in found]
        lines.append(f"| {name} | {' | '.join(entries)} |")
    return "\n".join(lines)


def tables() -> str:
    """Both."""
    return f"{table()}\n\n{others()}"


def entry(rows: list[dict[str, Any]]) -> str:
    if not rows:
        return "-"
    values = [100 * row["accuracy"] for row in rows]
    text = f"{np.mean(values):.1f}"
    if len(values) > 1:
        text += f" ({min(values):.1f} to {max(values):.1f})"
    first = rows[0]
    if first["provenance"]["mode"] == "few-shot" and len(rows) < len(SEEDS):
        text += f" ({len(rows)} of {len(SEEDS)} seeds)"
    if training := first["provenance"]["learned"].get("training"):
        # Of a training that was stopped and went on, the processor's time is known only since then.
        minutes = training["minutes"] if first.get("resumed") else first["fit_cpu_minutes"]
        budget = f"{first['rows']:,} + {first['validation_rows']:,} rows"
        text += f" ({budget}, {minutes:.0f} min, ECE {first['ece']:.3f})"
    return text


def main(argv: list[str] | None = None, note: Callable[[str], None] = print) -> int:
    layout = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=layout)
    parser.add_argument("--data", type=Path, help="folder with one folder per data set")
    parser.add_argument("--hub", action="store_true", help="read the data sets from the Hub")
    parser.add_argument("--only", nargs="*", default=[*FEW_ROWS], help="data sets")
    parser.add_argument("--columns", nargs="*", default=[*COLUMNS, *OTHER], choices=[*COLUMNS, *OTHER])
    parser.add_argument(
        "--seeds", type=int, default=1, choices=(1, 2, 3), help="of LoRA on few rows, NF4 or not"
    )
    parser.add_argument("--table", action="store_true", help="print the table and stop")
    args = parser.parse_args(argv)
    if args.table:
        note(tables())
        return 0
    if (args.data is None) == (not args.hub):
        parser.error("give either --data DIR or --hub")
    RESULTS.mkdir(parents=True, exist_ok=True)
    for cell in cells(args.only, args.columns, args.seeds):
        data = load(cell.data, None if args.hub else args.data, cell.column)
        done = finished(cell)
        if done and done["key"] == key(cell, data):
            continue
        sizes = f"{len(data.train)} rows, {len(data.test)} test rows"
        note(f"{cell.data} {cell.column} seed {cell.seed}: {sizes}")
        sys.stdout.flush()
        result = {"key": key(cell, data), **run(cell, data)}
        partial = cell.path.with_suffix(f".{os.getpid()}")
        partial.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        partial.replace(cell.path)
        note(f"  accuracy {100 * result['accuracy']:.2f}, ECE {result['ece']:.3f}")
        sys.stdout.flush()
    note(tables())
    return 0


if __name__ == "__main__":
    sys.exit(main())
