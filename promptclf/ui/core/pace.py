"""How long a training will take: by an earlier run on the same rows, or by a few steps that are timed.

Run as a program (``python -m promptclf.ui.core.pace``) it times those steps under a worker's conditions: in a
process of its own, with the worker's threads and priority.
"""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from promptclf.data.dataset import Dataset
from promptclf.data.splitting import draw_examples
from promptclf.errors import PromptClfError
from promptclf.garbage import collect_rarely
from promptclf.jobs.scheduler import environment
from promptclf.jobs.store import Job
from promptclf.jobs.worker import NICENESS
from promptclf.schema import TrainRequest
from promptclf.settings import TrainConfig
from promptclf.task import Task

STEPS, CHECKED = 3, 8  # steps, the first of which warms up, and validation rows
PATIENCE = 180.0  # seconds
KEPT = 32  # measured data sets


@dataclass(frozen=True, slots=True)
class Plan:
    """What a training will do: rows, and passes over them in whole epochs."""

    train: int
    validation: int
    batch_size: int
    epochs: int
    steps: int


@dataclass(frozen=True, slots=True)
class Pace:
    """Seconds that a row takes in a step, and in validation.

    `timed`: by a few steps, else by a whole run, in which validation counts as part of the steps.
    """

    row: float
    check: float = 0.0
    timed: bool = False

    def seconds(self, plan: Plan) -> float:
        """How long a plan will take."""
        return self.row * plan.steps * plan.batch_size + self.check * plan.epochs * plan.validation


def make_plan(data: Dataset, asked: TrainRequest) -> Plan:
    """What a request means for some data; few rows get more epochs, as in `promptclf.training.trainer`."""
    data = data.limit(rows=asked.rows, seed=asked.seed)
    per_epoch = math.ceil(len(data.train) / asked.batch_size)
    wanted = TrainConfig(epochs=asked.epochs).steps_wanted(len(data.task.labels))
    epochs = max(asked.epochs, math.ceil(wanted / per_epoch))
    return Plan(len(data.train), len(data.validation), asked.batch_size, epochs, epochs * per_epoch)


def pace_of(job: Job, events: Sequence[Mapping[str, Any]]) -> Pace | None:
    """How fast a run was, as far as it came; None if it made no step."""
    steps = [event for event in events if event.get("event") == "step"]
    if not steps:
        return None
    last = steps[-1]
    return Pace(last["seconds"] / (last["step"] * job.request["batch_size"]))


class Stopwatch:
    """Times steps on data, once for each data set; for use by many threads."""

    def __init__(self, model: str, quantization: str) -> None:
        self._model, self._quantization = model, quantization
        self._measured: OrderedDict[str, Pace] = OrderedDict()
        self._one = threading.Lock()

    def known(self, data: Dataset) -> Pace | None:
        """What was measured on this data."""
        return self._measured.get(data.fingerprint)

    def measure(self, data: Dataset, asked: TrainRequest) -> Pace:
        """Time a few steps: half a minute or so, most of it to load the model.

        Raises
        ------
        PromptClfError
            If another measurement is under way, or this one fails.
        """
        if not self._one.acquire(blocking=False):
            raise PromptClfError("time: another measurement is under way; try again in a minute")
        try:
            pace = self._run(data, asked)
        finally:
            self._one.release()
        self._measured[data.fingerprint] = pace
        while len(self._measured) > KEPT:
            self._measured.popitem(last=False)
        return pace

    def _run(self, data: Dataset, asked: TrainRequest) -> Pace:
        rows = draw_examples(data.train, STEPS * asked.batch_size, asked.seed)
        checked = draw_examples(data.validation or data.train, CHECKED, asked.seed)
        order = {
            "model": self._model,
            "quantization": self._quantization,
            "task": data.task.to_dict(),
            "rows": [[row.text, row.pair, row.label] for row in rows],
            "checked": [[row.text, row.pair, row.label] for row in checked],
            "batch_size": min(asked.batch_size, len(rows)),
            "rank": asked.rank,
        }
        with tempfile.TemporaryDirectory() as folder:
            try:
                done = subprocess.run(
                    [sys.executable, "-m", "promptclf.ui.core.pace"],
                    input=json.dumps(order),
                    capture_output=True,
                    text=True,
                    encoding="utf-8",
                    env=environment(Path(folder)),
                    timeout=PATIENCE,
                    check=True,
                )
                found = json.loads(done.stdout.splitlines()[-1])
            except (subprocess.SubprocessError, OSError, ValueError, IndexError) as error:
                text = "time: it could not be measured here; you can train all the same"
                raise PromptClfError(text) from error
        return Pace(found["row"], found["check"], timed=True)


def main() -> None:
    """Time the steps that standard input describes, and print seconds a row."""
    os.nice(NICENESS)
    asked = json.load(sys.stdin)
    from promptclf.classifiers.lora import LoraClassifier
    from promptclf.lm.loading import load_model

    times: list[tuple[str, float]] = []
    classifier = LoraClassifier(
        Task.from_dict(asked["task"]),
        load_model(asked["model"], quantization=asked["quantization"]),
        truncate=True,
        calibration="none",
        config=TrainConfig(rank=asked["rank"], batch_size=asked["batch_size"], epochs=1, min_steps=1),
        callback=lambda event: times.append((event["event"], time.perf_counter())),
    )
    texts, labels = _columns(asked["rows"])
    checked = _columns(asked["checked"])
    classifier.fit(texts, labels, validation=checked)
    steps = [moment for event, moment in times if event == "step"]
    over = next(moment for event, moment in times if event == "epoch")
    # The first step warms up; where it is the only one, it has to do.
    row = (steps[-1] - steps[0]) / max(1, (len(steps) - 1) * asked["batch_size"])
    check = (over - steps[-1]) / len(checked[0])
    print(json.dumps({"row": row or check, "check": check}))


def _columns(rows: Sequence[Sequence[Any]]) -> tuple[list[Any], list[str]]:
    texts = [text if pair is None else (text, pair) for text, pair, _ in rows]
    return texts, [label for _, _, label in rows]


if __name__ == "__main__":
    collect_rarely()
    main()
