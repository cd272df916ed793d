"""Train a tiny model in processes that are killed at random moments; test_checkpoints.py runs it.

python tests/killed.py MODEL OUT KILLS
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from promptclf.classifiers.lora import LoraClassifier
from promptclf.lm.loading import load_model
from quick import CONFIG, TASK, digest, rows

SETTINGS = replace(CONFIG, dropout=0.2, epochs=8, save_steps=1)


def train(model: Any, log: Path, checkpoints: Path | None) -> str:
    """Train, going on from a checkpoint if there is one; each step's loss becomes a line of `log`."""

    def note(event: dict[str, Any]) -> None:
        if event["event"] == "step":
            with log.open("a") as file:
                file.write(f"{event['step']} {event['loss']!r}\n")

    classifier = LoraClassifier(
        TASK, model, config=SETTINGS, callback=note, checkpoints=checkpoints, resume=checkpoints is not None
    )
    return digest(classifier.fit(*rows(20), validation=rows(6, start=100)))


def saving(folder: Path) -> bool:
    return any(folder.glob(".checkpoint-*"))


def lines(log: Path) -> int:
    return log.read_text().count("\n") if log.exists() else 0


def main(model_folder: Path, out: Path, kills: int) -> None:
    """Print what the uninterrupted run and the run that was killed came to, as JSON."""
    torch.set_num_threads(1)
    rng = random.Random(0)
    log, run, end = out / "killed.log", out / "run", out / "digest"
    model = load_model(str(model_folder), device="cpu")
    whole = train(model, out / "whole.log", None)
    killed_in_save = 0
    while not end.exists():
        before = lines(log)
        child = os.fork()  # what is imported and loaded need not be so again
        if child == 0:
            end.write_text(train(model, log, run))
            os._exit(0)
        if kills:
            kills -= 1
            while lines(log) <= before and not end.exists():
                pass
            if kills % 2:
                time.sleep(rng.uniform(0, 0.1))
            else:  # every other time within a save
                while not saving(run) and not end.exists():
                    pass
            os.kill(child, signal.SIGKILL)
            killed_in_save += saving(run)
        os.waitpid(child, 0)
    left = sorted(path.name for path in run.iterdir())
    print(json.dumps({"whole": whole, "kills": kills, "killed_in_save": killed_in_save, "left": left}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]))
