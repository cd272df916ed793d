"""Train a tiny model, whole and resumed; test_trainer.py runs it in one process and in two.

torchrun --nproc_per_node 2 tests/two_processes.py MODEL OUT
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from promptclf.classifiers.lora import LoraClassifier
from promptclf.lm.loading import load_model
from promptclf.training import trainer
from quick import CONFIG, TASK, digest, rows


def fit_and_report(folder: Path, out: Path, batch_tokens: int | None = None) -> dict[str, Any]:
    """Losses, probabilities and the adapter's hash, after a whole run and after a resumed one."""
    model = load_model(str(folder), device="cpu")
    trainer.CPU_TOKENS = batch_tokens or trainer.CPU_TOKENS
    trainer.VALIDATION_ROWS = 3  # which two processes cannot share
    config = replace(CONFIG, save_steps=2, refit=True)
    losses: list[float] = []
    afresh: list[int] = []

    def note(event: dict[str, Any]) -> None:
        if event["event"] == "step":
            losses.append(event["loss"])
        elif event["event"] == "refit":
            afresh.append(event["rows"])

    def fit(**options: Any) -> LoraClassifier:
        classifier = LoraClassifier(TASK, model, config=config, checkpoints=out / "run", **options)
        return classifier.fit(*rows(19), validation=rows(7, start=100))

    first = fit(callback=note)
    report = {
        "processes": first.training_["processes"],
        "losses": losses,
        "afresh": afresh,
        "probabilities": first.predict_proba(rows(5, start=200)[0]).tolist(),
        "whole": digest(first),
    }
    wait_for_everyone()
    if os.environ.get("RANK", "0") == "0":
        for folder in (out / "run", out / "run" / "refit"):
            for newest in sorted(folder.glob("checkpoint-*"))[-2:]:
                shutil.rmtree(newest)
    wait_for_everyone()
    return report | {"resumed": digest(fit(resume=True))}


def wait_for_everyone() -> None:
    """Nothing in a process alone."""
    from accelerate import PartialState

    PartialState().wait_for_everyone()


if __name__ == "__main__":
    # So few tokens at once that a process needs several passes for a step, and not all the same number.
    found = fit_and_report(Path(sys.argv[1]), Path(sys.argv[2]), batch_tokens=24)
    path = Path(sys.argv[2]) / f"report-{os.environ['RANK']}.json"
    path.write_text(json.dumps(found))
