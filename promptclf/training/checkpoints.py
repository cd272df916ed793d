"""Checkpoints of a training run: published atomically, verified before they are used.

A checkpoint holds the adapter, optimiser, schedule and random states, and how far the run has come.
Resuming takes the newest one that verifies and sets damaged ones aside; it refuses to go on with
other data, labels, base model, settings or number of processes.
"""

from __future__ import annotations

import json
import logging
import shutil
from pathlib import Path
from typing import Any

import numpy as np

from promptclf.artifacts import publish, verify
from promptclf.errors import ArtifactError

logger = logging.getLogger(__name__)

KEEP = 3


class Checkpoints:
    """The checkpoints of one run in one folder.

    Parameters
    ----------
    folder
        Where ``checkpoint-<step>`` folders appear.
    identity
        What the run is about (JSON values); a checkpoint of another identity is refused.
    resume
        Go on from the newest checkpoint, if there is one.
    """

    def __init__(self, folder: str | Path, identity: dict[str, Any], *, resume: bool = False) -> None:
        self.folder, self.identity, self.resume = Path(folder), identity, resume

    def attach(self, run: Any) -> None:
        """Connect to a run (and restore it, if resuming)."""
        self.run = run
        # The base model is frozen: only the adapter belongs into a checkpoint.
        run.accelerator.register_save_state_pre_hook(self._save_adapter)
        run.accelerator.register_load_state_pre_hook(self._load_adapter)
        self.identity = {**self.identity, "processes": run.accelerator.num_processes}
        if run.accelerator.is_main_process:
            for unfinished in self.folder.glob(".checkpoint-*"):  # of a run that was killed while saving
                shutil.rmtree(unfinished, ignore_errors=True)
        if not self.resume:
            if self._all():
                raise ArtifactError(
                    f"{self.folder} holds checkpoints of an earlier run; resume it or choose another folder"
                )
            return
        newest = self._newest()
        if newest is not None:
            self._restore(newest)

    def save(self) -> None:
        """Publish a checkpoint of the run as it is now, and drop the oldest ones."""
        from safetensors.torch import save_file

        run = self.run
        progress = {
            "step": run.step,
            "epoch": run.epoch,
            "batches": run.batches,
            "history": run.history,
            "scores": run.best_scores.tolist(),
            "seconds": run.seconds,
        }
        target = self.folder / f"checkpoint-{run.step:08d}"
        accelerator = run.accelerator
        if accelerator.num_processes > 1:
            self._save_together(target, progress)
            return
        with publish(target, self.identity) as stage:
            accelerator.save_state(str(stage))
            (stage / "progress.json").write_text(json.dumps(progress), encoding="utf-8")
            if run.best:
                save_file(run.best, stage / "best.safetensors")
        self._prune()

    def _save_together(self, target: Path, progress: dict[str, Any]) -> None:
        """Several processes write one staging folder; the main one publishes it."""
        from safetensors.torch import save_file

        run, accelerator = self.run, self.run.accelerator
        shared = self.folder / f".{target.name}.shared"
        if accelerator.is_main_process:
            shutil.rmtree(shared, ignore_errors=True)
            shared.mkdir(parents=True)
        accelerator.wait_for_everyone()
        accelerator.save_state(str(shared))
        accelerator.wait_for_everyone()
        if accelerator.is_main_process:
            with publish(target, self.identity) as stage:
                shutil.copytree(shared, stage, dirs_exist_ok=True)
                (stage / "progress.json").write_text(json.dumps(progress), encoding="utf-8")
                if run.best:
                    save_file(run.best, stage / "best.safetensors")
            shutil.rmtree(shared)
            self._prune()
        accelerator.wait_for_everyone()

    def _restore(self, folder: Path) -> None:
        from safetensors.torch import load_file

        run = self.run
        with run.model.lock, run.model.adapters.training(run.adapter):
            run.accelerator.load_state(str(folder))
        progress = json.loads((folder / "progress.json").read_text(encoding="utf-8"))
        run.step, run.epoch, run.batches = progress["step"], progress["epoch"], progress["batches"]
        run.history = progress["history"]
        run.best_scores = np.array(progress["scores"])
        run.start -= progress["seconds"]
        if (folder / "best.safetensors").is_file():
            run.best = load_file(folder / "best.safetensors")
        logger.info("resumed at step %d from %s", run.step, folder)

    def _all(self) -> list[Path]:
        return sorted(self.folder.glob("checkpoint-*[0-9]"))

    def _newest(self) -> Path | None:
        for folder in reversed(self._all()):
            try:
                found = verify(folder)
            except ArtifactError as error:
                aside = folder.with_name(f"damaged-{folder.name}")
                logger.warning("%s; it was renamed to %s", error, aside.name)
                if self.run.accelerator.is_main_process:
                    shutil.rmtree(aside, ignore_errors=True)
                    folder.rename(aside)
                continue
            differing = [key for key, value in self.identity.items() if found.get(key) != value]
            if differing:
                raise ArtifactError(
                    f"{folder} belongs to another run: {', '.join(differing)} changed; "
                    "use the same data and settings, or another folder"
                )
            return folder
        return None

    def _prune(self) -> None:
        for folder in self._all()[:-KEEP]:
            shutil.rmtree(folder, ignore_errors=True)

    def _save_adapter(self, models: list[Any], weights: list[Any], output: str) -> None:
        from safetensors.torch import save_file

        weights.clear()
        if self.run.accelerator.is_main_process:
            with self.run.model.lock:
                state = self.run.model.adapters.state(self.run.adapter)
            save_file(state, Path(output) / "adapter.safetensors")

    def _load_adapter(self, models: list[Any], folder: str) -> None:
        from safetensors.torch import load_file

        models.clear()
        self.run.model.adapters.load_state(self.run.adapter, load_file(Path(folder) / "adapter.safetensors"))
