"""Fitting one classifier on the train split and measuring it on the test split.

Run as a program (``python -m promptclf.evaluation.measure FOLDER``) it does one run of a comparison in a
process of its own, so that peak memory and times belong to that run alone.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import platform
import re
import resource
import signal
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from promptclf.artifacts import write_text
from promptclf.classifiers.baselines import TfidfSvmClassifier
from promptclf.data.dataset import Dataset
from promptclf.errors import PromptClfError
from promptclf.garbage import collect_rarely
from promptclf.modes import MODES
from promptclf.prompt import PromptTemplate, default_template
from promptclf.settings import TrainConfig
from promptclf.task import Example, Task

Progress = Callable[[dict[str, Any]], None]
BASELINE = TfidfSvmClassifier.mode
TIMED_TEXTS = 30
SAVE_STEPS = 25  # what a training that was stopped does again at most


@dataclass(frozen=True)
class Run:
    """One run of a comparison: a mode with its settings.

    `template` None is the task's own; `seed` matters to few-shot and LoRA; `config` holds the
    settings of `TrainConfig` that differ from the defaults; `revision` tells the model's weights.
    """

    name: str
    mode: str
    model: str = "embedded"
    quantization: str = "none"
    template: str | None = None
    seed: int = 0
    truncate: bool = False
    config: dict[str, Any] = field(default_factory=dict)
    revision: str = ""

    def key(self, dataset: Dataset) -> str:
        """What the result depends on, as 16 hexadecimal digits; finished runs are kept under it."""
        from promptclf.versions import versions

        template = PromptTemplate.load(self.template or default_template(dataset.task, dataset.pairs))
        parts = [
            asdict(self),
            dataset.fingerprint,
            dataset.task.fingerprint,
            template.fingerprint,
            versions(),
            os.environ.get("PROMPTCLF_DTYPE"),  # see `load_model`
        ]
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]

    def file(self, dataset: Dataset) -> str:
        """The name of the file that the finished run is kept in."""
        return f"{re.sub(r'[^a-z0-9]+', '-', self.name.lower()).strip('-')}-{self.key(dataset)}.json"

    def classifier(self, task: Task, progress: Progress | None = None, checkpoints: str | None = None) -> Any:
        """The unfitted classifier; with `checkpoints`, a folder, a training can be stopped and goes on."""
        if self.mode == BASELINE:
            return TfidfSvmClassifier(task, seed=self.seed)
        from promptclf.lm.loading import load_model

        model = load_model(self.model, quantization=self.quantization)  # type: ignore[arg-type]
        options: dict[str, Any] = {"truncate": self.truncate}
        if self.mode != "zero-shot":
            options["seed"] = self.seed
        if self.mode == "lora":
            own = {"save_steps": SAVE_STEPS, **self.config} if checkpoints else self.config
            options |= {"config": TrainConfig(**own), "callback": progress}
            options |= {"checkpoints": checkpoints, "resume": checkpoints is not None}
        return MODES[self.mode](task, model, self.template, **options)


def measure(classifier: Any, dataset: Dataset, progress: Progress | None = None) -> dict[str, Any]:
    """Fit on train (with validation), score every test row, and time single texts.

    Returns
    -------
    "proba" (n x k), "labels" (the columns), "truncated", "timing" and "provenance", all JSON values.
    """
    tell = progress or (lambda event: None)
    texts, labels = columns(dataset.train)
    test, _ = columns(dataset.test)
    tell({"event": "fit", "rows": len(texts)})
    start = time.perf_counter()
    classifier.fit(texts, labels, validation=columns(dataset.validation) if dataset.validation else None)
    fitted = time.perf_counter()
    tell({"event": "score", "rows": len(test)})
    predictions = classifier.classify(test)
    scored = time.perf_counter()
    tell({"event": "time", "rows": min(TIMED_TEXTS, len(test))})
    single = []
    # What was embedded once need not be again: without this, choosing examples by it would be free.
    forget = getattr(getattr(classifier, "model_", None), "forget_embeddings", lambda: None)
    for text in test[:1] + test[:TIMED_TEXTS]:  # the first one warms up
        forget()
        before = time.perf_counter()
        classifier.predict_proba([text])
        single.append(1000 * (time.perf_counter() - before))
    names = [str(label) for label in classifier.classes_]
    return {
        "labels": names,
        "proba": [[p.probabilities[name] for name in names] for p in predictions],
        "truncated": sum(p.truncated for p in predictions),
        "timing": {
            "p50_ms": float(np.percentile(single[1:], 50)),
            "p95_ms": float(np.percentile(single[1:], 95)),
            "seconds_per_1000": 1000 * (scored - fitted) / len(test),
            "fit_seconds": fitted - start,
        },
        "provenance": classifier.provenance(),
    }


def columns(examples: tuple[Example, ...]) -> tuple[list[Any], list[str]]:
    """Texts (or pairs) and labels of examples, as estimators take them."""
    texts = [e.text if e.pair is None else (e.text, e.pair) for e in examples]
    return texts, [e.label for e in examples]


def peak_memory_mb() -> float:
    """The largest resident size of this process so far, in MiB."""
    with suppress(OSError):  # on Linux getrusage counts what the parent held when this process began
        status = Path("/proc/self/status").read_text(encoding="ascii")
        if found := re.search(r"VmHWM:\s+(\d+) kB", status):
            return int(found[1]) / 2**10
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if platform.system() == "Darwin" else peak / 2**10


def main(folder: str, checkpoints: str | None = None) -> int:
    """Do the run described in a folder: run.json and dataset.json in, result.json out.

    Progress goes to standard output, one JSON object a line; a user's error becomes error.json.
    """
    place = Path(folder)
    run = Run(**json.loads((place / "run.json").read_text(encoding="utf-8")))
    stored = json.loads((place / "dataset.json").read_text(encoding="utf-8"))
    task = Task.from_dict(stored["task"])
    train, validation, test = (
        tuple(Example(**row) for row in stored["splits"][name]) for name in ("train", "validation", "test")
    )
    dataset = Dataset(task, train, validation, test, name=stored["name"])

    def tell(event: dict[str, Any]) -> None:
        print(json.dumps(event), flush=True)

    try:
        result = measure(run.classifier(task, tell, checkpoints), dataset, tell)
    except PromptClfError as error:
        write_text(place / "error.json", json.dumps({"kind": type(error).__name__, "text": str(error)}))
        return 2
    result["timing"]["peak_rss_mb"] = peak_memory_mb()
    write_text(place / "result.json", json.dumps(result))
    return 0


if __name__ == "__main__":
    collect_rarely()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent hears it too, and ends this process
    logging.addLevelName(logging.WARNING, "warning")
    logging.basicConfig(format="%(levelname)s: %(message)s")
    sys.exit(main(*sys.argv[1:]))
