"""Who looks at the page, for tests of its handlers: requests, events, data sets and finished trainings."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from promptclf.classifiers.zero_shot import ZeroShotClassifier
from promptclf.data.dataset import Dataset
from promptclf.jobs.jobs import Jobs
from promptclf.jobs.store import Store, new_token, owner_of
from promptclf.lm.model import LanguageModel
from promptclf.task import Example, Task
from promptclf.ui.core import ready
from promptclf.ui.core.service import Service
from promptclf.ui.page.context import Context

SUPPORT = {"parcel": "delivery status", "charged": "payment problem", "broken": "damaged item"}
COLOURS = Task("colours", ("red", "blue"), template="completion")


def asking(language: str = "en-US") -> Any:
    """A request of a browser with a language."""
    return SimpleNamespace(headers={"accept-language": language})


EN, ZH = asking("en"), asking("zh-CN")
LABELS = "\n".join(Task.load("support").labels)
PLAIN = ("support", LABELS, "")  # what the panel holds at first: task, labels, adapter


def alone(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """A home of its own, and no packaged adapter: that needs a real model."""
    monkeypatch.setenv("PROMPTCLF_HOME", str(folder / "home"))
    monkeypatch.setattr(ready, "PACKAGED_TASKS", folder / "tasks")


def make_context(model: LanguageModel, folder: Path) -> Context:
    """What tabs are built with, but for the components."""
    store = Store(folder)
    nothing: Any = None
    return Context(Service(model, store=store), Jobs(store), store, nothing, nothing)


def settings(update: Any) -> dict[str, Any]:
    """What an update of a component changes."""
    return {key: value for key, value in update._constructor_args[0].items() if value is not None}


def pressed(**data: Any) -> Any:
    """What a button of the page sends."""
    return SimpleNamespace(target=None, _data=data)


class Visitor:
    """A visitor with a token, and what the store keeps for them."""

    def __init__(self, store: Store) -> None:
        self.store, self.token = store, new_token()
        self.owner = owner_of(self.token)

    def upload(self, name: str = "mine", task: Task = COLOURS) -> str:
        """A data set of a few rows; returns its id."""

        def rows(split: str) -> tuple[Example, ...]:
            return tuple(Example(f"a {label} thing of {split}", label) for label in task.labels)

        data = Dataset(task, rows("train"), rows("validation"), rows("test"), name=name)
        return self.store.add_dataset(self.owner, data, task).id

    def train(self, task: str, model: LanguageModel, labels: Task = COLOURS, cue: str = "completion") -> str:
        """A finished training; any mode may lie in its folder, one that needs no real model does."""
        job = self.store.add_job("train", self.owner, {"task": task})
        self.store.start_job(job.id, 1)
        folder = self.store.job_folder(job.id) / "adapter"
        folder.parent.mkdir(parents=True)
        ZeroShotClassifier(labels, model, cue).fit().save_pretrained(folder)
        self.store.end_job(job.id, "done", {})
        return job.id
