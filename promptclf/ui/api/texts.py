"""The endpoints about texts: /classify, /compare, /classify_file, /tasks and /feedback.

Annotations are evaluated here: gradio describes an endpoint only if its types are no strings. It checks
none of them, so every value goes through `promptclf.schema`.
"""

import asyncio
import tempfile
from collections import Counter
from collections.abc import AsyncIterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any, Literal, cast

from gradio.data_classes import FileData
from starlette.concurrency import run_in_threadpool

from promptclf.errors import DataError
from promptclf.jobs.store import Store, new_token, owner_of
from promptclf.modes import MODES
from promptclf.schema import (
    SCHEMA_VERSION,
    ClassifyFileResult,
    ClassifyRequest,
    ClassifyResult,
    CompareRequest,
    CompareResult,
    FeedbackRequest,
    FeedbackResult,
    FileDict,
    FileRequest,
    Mode,
    TaskInfo,
    TasksRequest,
    TasksResult,
    parse,
)
from promptclf.task import Prediction, Task, packaged_tasks
from promptclf.ui.api.files import read_texts, uploaded, write_labelled
from promptclf.ui.core.answer import Answer
from promptclf.ui.core.ready import Source
from promptclf.ui.core.service import Service


class TextEndpoints:
    """What they do. The first line of a docstring is shown on the page about the API."""

    def __init__(self, service: Service, store: Store) -> None:
        self.service, self.store = service, store

    async def classify(
        self,
        text: str,
        mode: Mode = "lora",
        task: str = "support",
        labels: list[str] | None = None,
        adapter: str | None = None,
        token: str | None = None,
    ) -> ClassifyResult:
        """Classify a text.

        Args:
            text: 1 to 20,000 characters. Of what exceeds the model's limit, the beginning is read.
            mode: zero-shot, few-shot or lora.
            task: A packaged task, or the id of a data set of yours; /tasks lists them.
            labels: 2 to 100 labels of your own, instead of the task's; for zero-shot.
            adapter: For lora: the id of a finished training of yours.
            token: Your owner token, for a data set or an adapter of yours.
        """
        asked = parse(
            ClassifyRequest, text=text, mode=mode, task=task, labels=labels, adapter=adapter, token=token
        )
        # What is asked waits, not a thread of the server: hundreds may wait, to be answered together.
        answer = await asyncio.wrap_future(await run_in_threadpool(self._begin, asked))
        return cast(ClassifyResult, _versioned(answer.to_dict()))

    def compare(
        self,
        text: str,
        task: str = "support",
        labels: list[str] | None = None,
        adapter: str | None = None,
        token: str | None = None,
    ) -> CompareResult:
        """Classify a text in all modes, and say whether they agree.

        Args:
            text: 1 to 20,000 characters. Of what exceeds the model's limit, the beginning is read.
            task: A packaged task, or the id of a data set of yours; /tasks lists them.
            labels: 2 to 100 labels of your own, instead of the task's; for zero-shot.
            adapter: For lora: the id of a finished training of yours.
            token: Your owner token, for a data set or an adapter of yours.
        """
        asked = parse(CompareRequest, text=text, task=task, labels=labels, adapter=adapter, token=token)
        found = self.service.compare(
            asked.text, asked.task, asked.labels, owner=_owner(asked), adapter=asked.adapter
        )
        return cast(CompareResult, _versioned(found))

    async def classify_file(
        self,
        file: FileData,
        mode: Mode = "lora",
        task: str = "support",
        labels: list[str] | None = None,
        adapter: str | None = None,
        column: str | None = None,
        output: Literal["csv", "jsonl"] = "csv",
        token: str | None = None,
    ) -> AsyncIterator[ClassifyFileResult]:
        """Classify every text of a CSV, JSONL or TXT file; tells the progress, then gives the file.

        Args:
            file: An uploaded file of at most 10,000 texts; in TXT, each line is one.
            mode: zero-shot, few-shot or lora.
            task: A packaged task, or the id of a data set of yours; /tasks lists them.
            labels: 2 to 100 labels of your own, instead of the task's; for zero-shot.
            adapter: For lora: the id of a finished training of yours.
            column: Which column holds the texts; guessed by its name if it is not said.
            output: csv or jsonl: what to write.
            token: Your owner token, for a data set or an adapter of yours.
        """
        asked = parse(
            FileRequest,
            mode=mode,
            task=task,
            labels=labels,
            adapter=adapter,
            column=column,
            output=output,
            token=token,
        )
        inputs = await asyncio.to_thread(read_texts, *uploaded(file), asked.column)
        question = self.service.question(
            "-", asked.mode, asked.task, asked.labels, owner=_owner(asked), adapter=asked.adapter
        )
        found: list[Prediction] = []
        yield _progress(found, len(inputs.texts))
        parts = self.service.classify_many(cast(list[str], inputs.texts), asked.mode, question)
        while (part := await asyncio.to_thread(next, parts, None)) is not None:
            found += part
            yield _progress(found, len(inputs.texts))
        with tempfile.TemporaryDirectory() as folder:  # gradio keeps a copy
            path = await asyncio.to_thread(write_labelled, Path(folder), inputs, found, asked.output)
            yield {**_progress(found, len(inputs.texts)), "file": _file(path)}

    def tasks(self, token: str | None = None) -> TasksResult:
        """List the packaged tasks, and your data sets.

        Args:
            token: Your owner token, for data sets of yours.
        """
        owner = _owner(parse(TasksRequest, token=token))
        names = [(name, name) for name in packaged_tasks()]
        if owner is not None:
            names += [(stored.id, stored.name) for stored in self.store.datasets(owner)]
        tasks = [self._task(Source(task, owner), name) for task, name in names]
        return {"schema_version": SCHEMA_VERSION, "tasks": tasks}

    def feedback(
        self,
        text: str,
        predicted: str,
        label: str,
        key: str,
        task: str = "support",
        mode: Mode = "lora",
        labels: list[str] | None = None,
        token: str | None = None,
    ) -> FeedbackResult:
        """Say what the right label is; the text is stored with it, under your owner token.

        Args:
            text: What was classified.
            predicted: The label that it got.
            label: The label that is right.
            key: A random UUID (version 4) as 32 hexadecimal digits: sent again, it is stored once.
            task: The task that it was classified for.
            mode: The mode that it was classified in.
            labels: The labels of your own that were used instead of the task's, if any.
            token: Your owner token; without one, you get a new one.
        """
        asked = parse(
            FeedbackRequest,
            text=text,
            predicted=predicted,
            label=label,
            key=key,
            task=task,
            mode=mode,
            labels=labels,
            token=token,
        )
        token = asked.token or new_token()
        owner = owner_of(token)
        question = self.service.question(asked.text, asked.mode, asked.task, asked.labels, owner=owner)
        for field, value in (("predicted", asked.predicted), ("label", asked.label)):
            _check_label(field, value, question.task)
        self.store.save_feedback(
            owner,
            key=asked.key,
            text=asked.text,
            task=asked.task if asked.labels is None else question.task.name,
            mode=asked.mode,
            predicted=asked.predicted,
            label=asked.label,
            model=self.service.model.info.to_dict(),
        )
        return {"schema_version": SCHEMA_VERSION, "saved": True, "key": asked.key, "token": token}

    def _begin(self, asked: ClassifyRequest) -> Future[Answer]:
        question = self.service.question(
            asked.text, asked.mode, asked.task, asked.labels, owner=_owner(asked), adapter=asked.adapter
        )
        return self.service.ask(question, asked.mode)

    def _task(self, source: Source, name: str) -> TaskInfo:
        data = self.service.ready.dataset(source)
        return {
            "task": source.name,
            "name": name,
            "own": not source.packaged,
            "labels": list(data.task.labels),
            "instruction": data.task.instruction,
            "rows": {split: len(examples) for split, examples in data.splits.items()},
            "modes": [mode for mode in MODES if self.service.unavailable(mode, source) is None],
        }


def _owner(asked: Any) -> str | None:
    return None if asked.token is None else owner_of(asked.token)


def _check_label(field: str, value: str, task: Task) -> None:
    if value not in task.labels:
        known = ", ".join(task.labels[:10]) + (", …" if len(task.labels) > 10 else "")
        raise DataError(f"{field}: expected one of {known}, got {value!r:.60}")


def _versioned(values: dict[str, Any]) -> dict[str, Any]:
    return {"schema_version": SCHEMA_VERSION, **values}


def _progress(found: list[Prediction], rows: int) -> ClassifyFileResult:
    return {
        "schema_version": SCHEMA_VERSION,
        "done": len(found),
        "rows": rows,
        "labels": dict(Counter(prediction.label for prediction in found).most_common()),
        "truncated": sum(prediction.truncated for prediction in found),
        "file": None,
    }


def _file(path: Path) -> FileDict:
    """What gradio takes for a file: it keeps a copy, and fills in where that can be fetched."""
    return {
        "path": str(path),
        "url": None,
        "orig_name": path.name,
        "size": path.stat().st_size,
        "meta": {"_type": "gradio.FileData"},
    }
