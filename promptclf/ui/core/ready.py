"""Classifiers that are ready to answer: packaged tasks' for everyone, each visitor's own for that visitor."""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from promptclf import __version__
from promptclf.classifiers.base import PromptClassifier
from promptclf.classifiers.few_shot import FewShotClassifier
from promptclf.classifiers.persistence import read_config
from promptclf.classifiers.selection import example_text
from promptclf.classifiers.zero_shot import ZeroShotClassifier
from promptclf.data.dataset import Dataset, load_dataset
from promptclf.errors import ArtifactError, DataError
from promptclf.jobs.store import Job, Store
from promptclf.lm.embedded import HUB_ID, home
from promptclf.lm.model import LanguageModel
from promptclf.modes import load_classifier
from promptclf.prompt import PromptTemplate, default_template
from promptclf.task import PACKAGED_TASKS, Task, packaged_classifier, packaged_tasks
from promptclf.ui.core.polite import PoliteModel
from promptclf.ui.core.zerogpu import on_zero_gpu

logger = logging.getLogger(__name__)

KEPT, KEPT_DATA = 8, 4  # classifiers and data sets of visitors; those of packaged tasks stay
TRAININGS = 100  # of one visitor, the newest


@dataclass(frozen=True, slots=True)
class Source:
    """What modes may learn from, and whose it is.

    Parameters
    ----------
    name
        A packaged task's name, or the id of a data set.
    owner
        Whose data set or adapter it is; None for what everyone has.
    adapter
        The id of a finished training; None: the packaged adapter, or the newest training.
    """

    name: str
    owner: str | None = None
    adapter: str | None = None

    @property
    def packaged(self) -> bool:
        """Whether it came with the package."""
        return self.name in packaged_tasks()


class Ready:
    """Gets classifiers ready and keeps them, bounded; for use by many threads.

    Parameters
    ----------
    model
        Gives the model; called when it is first needed.
    store
        Where visitors' data sets and trainings are; without it, there are none.
    stop
        Ends the work of getting ready.
    """

    def __init__(
        self, model: Callable[[], LanguageModel], store: Store | None, stop: threading.Event
    ) -> None:
        self._model, self.store, self._stop = model, store, stop
        self._data: OrderedDict[tuple[str, str | None], Dataset] = OrderedDict()
        self._kept: OrderedDict[tuple[Source, str], PromptClassifier] = OrderedDict()
        self._locks: dict[tuple[Source, str], threading.Lock] = {}
        self._guard = threading.Lock()

    def task(self, source: Source) -> Task:
        """The task of a source.

        Raises
        ------
        DataError
            If there is none such, or it is not the owner's.
        """
        return _packaged_task(source.name) if source.packaged else self.dataset(source).task

    def dataset(self, source: Source) -> Dataset:
        """The examples of a source; errors as for `task`."""
        owner = None if source.packaged else source.owner
        if not source.packaged:
            self._check_owned(source)  # each time: what was deleted must be gone
        key = (source.name, owner)
        with self._guard:
            if key in self._data:
                self._data.move_to_end(key)
                return self._data[key]
        if owner is None or self.store is None:
            data = load_dataset(source.name)
        else:
            data = self.store.dataset(source.name, owner)
        with self._guard:
            self._data[key] = data
            own = [old for old in self._data if old[1] is not None]
            for old in own[: max(0, len(own) - KEPT_DATA)]:
                del self._data[old]
        return data

    def _check_owned(self, source: Source) -> None:
        try:
            if self.store is not None and source.owner is not None:
                self.store.stored(source.name, source.owner)
                return
        except DataError:
            pass
        raise DataError(
            f"task: expected one of {', '.join(packaged_tasks())} or a data set of yours, "
            f"got {source.name!r:.60}"
        )

    def trainings(self, source: Source) -> list[Job]:
        """The owner's finished trainings on a source, newest first."""
        if self.store is None or source.owner is None:
            return []
        jobs = self.store.jobs(source.owner, "train", TRAININGS)
        return [job for job in jobs if job.state == "done" and job.request.get("task") == source.name]

    def has_adapter(self, source: Source) -> bool:
        """Whether LoRA can answer for a source."""
        return self._adapter(source) is not None

    def is_ready(self, source: Source, mode: str) -> bool:
        """Whether a mode answers without getting ready first."""
        key = self._key(source, mode)
        with self._guard:
            return key in self._kept

    def classifier(self, source: Source, mode: str) -> PromptClassifier:
        """A fitted classifier, the same for all who ask at the same time.

        Raises
        ------
        PromptClfError
            If it cannot be made.
        """
        key = self._key(source, mode)
        with self._guard:
            lock = self._locks.setdefault(key, threading.Lock())
        with lock:
            with self._guard:
                if key in self._kept:
                    self._kept.move_to_end(key)
                    return self._kept[key]
            classifier = _FITS[mode](self, key[0])
            with self._guard:
                self._kept[key] = classifier
                own = [old for old in self._kept if old[0].owner is not None]
                for old in own[: max(0, len(own) - KEPT)]:
                    del self._kept[old]
                    self._locks.pop(old, None)
            return classifier

    def prior_folder(self, data: Dataset) -> Path:
        """Where what zero-shot learned is kept: named after everything that it depends on."""
        template = PromptTemplate.load(default_template(data.task)).fingerprint
        model = self._model().info.to_dict()
        parts = [__version__, data.task.fingerprint, data.fingerprint, template, model]
        digest = hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
        return home() / "app" / f"{data.task.name}-zero-shot-{digest[:16]}"

    def _key(self, source: Source, mode: str) -> tuple[Source, str]:
        """What a classifier depends on: equal keys, equal answers; a stranger's key is another one."""
        if mode == "lora":
            found = self._adapter(source)
            adapter = found[0] if found else None
            own = not source.packaged or adapter is not None
            return Source(source.name, source.owner if own else None, adapter), mode
        return Source(source.name, None if source.packaged else source.owner), mode

    def _adapter(self, source: Source) -> tuple[str | None, Path] | None:
        """The id (None: packaged) and folder of the adapter to use."""
        packaged = PACKAGED_TASKS / source.name / "adapter" if source.packaged else None
        if source.adapter is None and packaged is not None:
            return (None, packaged) if packaged.is_dir() else None
        trained = [job.id for job in self.trainings(source)]
        chosen = trained[0] if source.adapter is None and trained else source.adapter
        if self.store is None or chosen not in trained:
            return None
        folder = self.store.job_folder(chosen) / "adapter"
        return (chosen, folder) if folder.is_dir() else None

    def _fit_zero_shot(self, source: Source) -> PromptClassifier:
        """The label prior takes hundreds of texts to estimate; if none ships, a packaged task's is kept."""
        if shipped := self._shipped(source, "zero-shot"):
            return shipped
        data, model = self.dataset(source), self._model()
        folder = self.prior_folder(data) if source.packaged else None
        if folder is not None and folder.is_dir():
            try:
                return ZeroShotClassifier.from_pretrained(folder, model=model)
            except ArtifactError as error:
                logger.warning("%s; estimating the prior again", error)
                shutil.rmtree(folder, ignore_errors=True)
        # On ZeroGPU every call borrows a GPU anew.
        patient = model if on_zero_gpu() else PoliteModel(model, self._stop)
        classifier = ZeroShotClassifier(data.task, patient, truncate=True)
        classifier.fit([example_text(example) for example in data.train])
        classifier.model = classifier.model_ = model
        if folder is not None:
            try:
                folder.parent.mkdir(parents=True, exist_ok=True)
                classifier.save_pretrained(folder)
            except (OSError, ArtifactError) as error:
                logger.warning("the prior is not kept for the next start: %s", error)
        return classifier

    def _fit_few_shot(self, source: Source) -> PromptClassifier:
        if shipped := self._shipped(source, "few-shot"):
            return shipped
        # Choosing by cross-validation would take minutes.
        data = self.dataset(source)
        classifier = FewShotClassifier(
            data.task, self._model(), selection="tfidf", calibration="none", truncate=True
        )
        return classifier.fit([example_text(e) for e in data.train], [e.label for e in data.train])

    def _shipped(self, source: Source, mode: str) -> PromptClassifier | None:
        """What comes with a packaged task, if it was fitted with this model."""
        folder, model = packaged_classifier(source.name, mode), self._model()
        if folder is None:
            return None
        fitted, now, original = read_config(folder)["base_model"], model.info, self._has_original()
        if now.quantization != fitted["quantization"] or not (original or now.revision == fitted["revision"]):
            return None
        classifier = load_classifier(folder, model=model, allow_other_base=original)
        classifier.truncate = True
        return classifier

    def _load_lora(self, source: Source) -> PromptClassifier:
        found = self._adapter(source)
        if found is None:
            raise DataError(f"mode: LoRA has no adapter for {source.name!r:.60}; use another mode")
        other = self._has_original() and found[0] is None
        classifier = load_classifier(found[1], model=self._model(), allow_other_base=other)
        classifier.truncate = True
        return classifier

    def _has_original(self) -> bool:
        """Whether the model is what the embedded one was made of: a Space has it."""
        info = self._model().info
        return info.source == "hub" and info.name == HUB_ID


@cache
def _packaged_task(name: str) -> Task:
    """A task without its rows: zero-shot and LoRA answer before those are read."""
    return Task.load(name)


_FITS: dict[str, Callable[[Ready, Source], PromptClassifier]] = {
    "zero-shot": Ready._fit_zero_shot,
    "few-shot": Ready._fit_few_shot,
    "lora": Ready._load_lora,
}
