"""A running app from Python: its endpoints as typed methods, over gradio_client and plain HTTP.

The results are those of `promptclf.schema`; what goes wrong is a `PromptClfError` with the app's own words.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast
from urllib.parse import quote

from promptclf.errors import DataError, PromptClfError
from promptclf.schema import (
    SCHEMA_VERSION,
    ClassifyFileResult,
    ClassifyResult,
    CompareResult,
    EvaluateEvent,
    FeedbackResult,
    JobResult,
    TasksResult,
    TrainResult,
)
from promptclf.wire import FULL, answer, stream, why

CONNECT_SECONDS = 20
BUSY = 503
ENDED = ("done", "failed", "cancelled", "interrupted")


class Client:
    """The endpoints of an app.

    Parameters
    ----------
    url
        Where it runs, such as ``"http://127.0.0.1:7860"``, or a Space's ``"owner/name"``.
    token
        The owner token of earlier jobs, data sets and feedback. Without one, the first training,
        evaluation or feedback brings one, which is kept in `token`.
    hf_token
        For a private Space. Nothing else is ever sent to it: not even the token that you logged in with.

    Raises
    ------
    PromptClfError
        If no app answers there.

    Examples
    --------
    ``Client("http://127.0.0.1:7860").classify("Where is my parcel?")["label"]``
    """

    def __init__(self, url: str, token: str | None = None, *, hf_token: str | None = None) -> None:
        os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")  # its own argument does not win
        import httpx
        from gradio_client import Client as GradioClient  # type: ignore[import-untyped]

        self.url = url
        self.token = token
        certificates = httpx.create_ssl_context()  # once: gradio_client would read them for every request
        with self._told():
            # False, unlike None, keeps the token of the machine's user from being sent anywhere.
            self._client = GradioClient(
                url,
                token=cast(Any, hf_token or False),
                verbose=False,
                analytics_enabled=False,
                download_files=False,
                ssl_verify=cast(Any, certificates),
            )
        sent = {"headers": self._client.headers, "cookies": self._client.cookies}
        patience = httpx.Timeout(CONNECT_SECONDS, read=None)  # an answer may take as long as it takes
        self._http = httpx.Client(verify=certificates, timeout=patience, **sent)

    def close(self) -> None:
        """Leave the app; what runs there goes on."""
        self._client.close()
        self._http.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    # ---- texts --------------------------------------------------------------------------------

    def classify(
        self,
        text: str,
        *,
        mode: str = "lora",
        task: str = "support",
        labels: Sequence[str] | None = None,
        adapter: str | None = None,
    ) -> ClassifyResult:
        """Classify a text.

        Parameters
        ----------
        text
            1 to 20,000 characters.
        mode
            "zero-shot", "few-shot" or "lora".
        task
            A packaged task, or the id of a data set of yours.
        labels
            2 to 100 labels of your own instead of a task; only zero-shot knows what to do with them.
        adapter
            The id of a finished training of yours, for "lora".
        """
        chosen = {"mode": mode, "task": task, "labels": _list(labels), "adapter": adapter}
        return cast(ClassifyResult, self._call("/classify", text=text, **chosen))

    def compare(
        self,
        text: str,
        *,
        task: str = "support",
        labels: Sequence[str] | None = None,
        adapter: str | None = None,
    ) -> CompareResult:
        """Classify a text in all modes; the arguments are those of `classify`."""
        chosen = {"task": task, "labels": _list(labels), "adapter": adapter}
        return cast(CompareResult, self._call("/compare", text=text, **chosen))

    def classify_file(
        self,
        path: str | Path,
        out: str | Path | None = None,
        *,
        mode: str = "lora",
        task: str = "support",
        labels: Sequence[str] | None = None,
        adapter: str | None = None,
        column: str | None = None,
    ) -> Path:
        """Classify every text of a CSV, JSONL or TXT file; returns the path of the new file.

        Parameters
        ----------
        path
            The file; it is sent to the app, which deletes it within hours.
        out
            Where to write rows with labels and probabilities, ending in .csv or .jsonl; default: beside
            `path`, with "-labelled" in its name. A file that is there already is replaced.
        mode, task, labels, adapter
            As for `classify`.
        column
            Which column holds the texts; default: guessed by its name.
        """
        source = Path(path)
        if not source.is_file():
            raise DataError(f"path: expected a file, got {str(path)!r}")
        target = source.with_name(f"{source.stem}-labelled.csv") if out is None else Path(out)
        if target.suffix not in (".csv", ".jsonl"):
            raise DataError(f"out: expected a file ending in .csv or .jsonl, got {target.name!r}")
        if not target.parent.is_dir():
            raise DataError(f"out: expected a file in an existing folder, got {str(target)!r}")
        from gradio_client import handle_file

        chosen = {"mode": mode, "task": task, "labels": _list(labels), "adapter": adapter}
        chosen |= {"file": handle_file(source), "column": column, "output": target.suffix[1:]}
        with self._told():  # gradio_client uploads the file
            sent = self._client.predict(**chosen, token=self.token, api_name="/classify_file")
        found: ClassifyFileResult = self._checked(sent)
        if found["file"] is None:
            raise PromptClfError(f"{self.url}: the app sent no file back")
        self._download(found["file"]["path"], target)
        return target

    # ---- long work ----------------------------------------------------------------------------

    def evaluate(
        self,
        *,
        task: str = "support",
        modes: Sequence[str] = ("zero-shot", "few-shot", "lora"),
        rows: int | None = None,
        test_rows: int | None = None,
        seed: int = 0,
    ) -> Iterator[EvaluateEvent]:
        """Compare modes on a test split; leaving the loop early cancels the evaluation.

        Parameters
        ----------
        task
            A packaged task, or the id of a data set of yours.
        modes
            Some of "zero-shot", "few-shot" and "lora"; a classical baseline is always added.
        rows, test_rows
            How many rows to learn from and to score on; default: all.
        seed
            Of everything random.

        Yields
        ------
        What happens; the last one has the whole report in ``["report"]``, for `Report.from_dict`.
        """
        arguments: dict[str, Any] = {"task": task, "rows": rows, "test_rows": test_rows, "seed": seed}
        with self._told():
            arguments |= {"modes": list(modes), "token": self.token}
            running = self._client.submit(**arguments, api_name="/evaluate")
            try:
                for event in stream(running):
                    self.token = event["token"]
                    yield cast(EvaluateEvent, self._checked(event))
            finally:
                if not running.done():
                    running.cancel()

    def train(
        self,
        *,
        task: str = "support",
        rows: int | None = None,
        epochs: int = 3,
        learning_rate: float = 1e-3,
        rank: int = 8,
        batch_size: int = 8,
        seed: int = 0,
    ) -> JobHandle:
        """Begin to train a LoRA adapter; it goes on without this client.

        The settings are those of `promptclf.TrainConfig`. Its ``job`` can be an ``adapter`` once it is done.
        """
        settings = {"epochs": epochs, "learning_rate": learning_rate, "rank": rank, "batch_size": batch_size}
        begun: TrainResult = self._call("/train", task=task, rows=rows, seed=seed, **settings)
        self.token = begun["token"]
        return JobHandle(self, begun["job"])

    def job(self, job: str) -> JobHandle:
        """A job that was begun earlier with this client's token."""
        return JobHandle(self, job)

    # ---- the rest -----------------------------------------------------------------------------

    def tasks(self) -> TasksResult:
        """Packaged tasks and the owner's data sets."""
        return cast(TasksResult, self._call("/tasks"))

    def feedback(
        self,
        text: str,
        *,
        predicted: str,
        label: str,
        key: str,
        task: str = "support",
        mode: str = "lora",
        labels: Sequence[str] | None = None,
    ) -> FeedbackResult:
        """Say what the right label would have been. The app stores it with the text.

        Parameters
        ----------
        predicted, label
            What the mode said, and what is right.
        key
            ``uuid.uuid4().hex``, made once for a correction: sent again, it is still stored once.
        labels
            The labels that were given to `classify`, if there were any.
        """
        said = {"task": task, "mode": mode, "predicted": predicted, "label": label, "key": key}
        found: FeedbackResult = self._call("/feedback", text=text, labels=_list(labels), **said)
        self.token = found["token"]
        return found

    # ---- calling ------------------------------------------------------------------------------

    def _call(self, endpoint: str, **arguments: Any) -> Any:
        """One answer, over HTTP: gradio_client looks only every 50 ms whether it has come."""
        calls = f"{self._client.src_prefixed}call"
        with self._told():
            started = self._http.post(f"{calls}/v2{endpoint}", json={"token": self.token, **arguments})
            if started.status_code == BUSY:
                raise PromptClfError(f"{self.url}: {FULL}")
            started.raise_for_status()
            with self._http.stream("GET", f"{calls}{endpoint}/{started.json()['event_id']}") as told:
                told.raise_for_status()
                return self._checked(answer(told.iter_lines(), self.url))

    def _checked(self, found: Any) -> Any:
        version = found.get("schema_version") if isinstance(found, dict) else None
        if version != SCHEMA_VERSION:
            raise PromptClfError(
                f"{self.url}: expected schema version {SCHEMA_VERSION}, got {version}; update promptclf"
            )
        return found

    def _download(self, path: str, target: Path) -> None:
        address = f"{self._client.src_prefixed}file={quote(path)}"
        stage = target.with_name(f".{target.name}.part")
        try:
            with self._told(), self._http.stream("GET", address) as answer:
                answer.raise_for_status()
                with stage.open("wb") as file:
                    file.writelines(answer.iter_bytes())
            stage.replace(target)
        finally:
            stage.unlink(missing_ok=True)

    @contextmanager
    def _told(self) -> Iterator[None]:
        """What gradio_client and httpx raise, as the package's own kind of error."""
        try:
            yield
        except PromptClfError:
            raise
        except Exception as error:
            raise PromptClfError(why(error, self.url)) from error


class JobHandle:
    """A job in the app that goes on without us: look at it, wait for it or cancel it."""

    def __init__(self, client: Client, job: str) -> None:
        self.client = client
        self.job = job

    @property
    def token(self) -> str | None:
        """The owner token; a later ``Client(url, token).job(job)`` needs it."""
        return self.client.token

    def state(self, after: int = 0) -> JobResult:
        """How it stands, with the events after number `after`."""
        return cast(JobResult, self.client._call("/job", job=self.job, after=after))

    def events(self, poll: float = 1.0) -> Iterator[dict[str, Any]]:
        """Everything that happened and happens, until the job has ended."""
        after = 0
        while True:
            found = self.state(after)
            yield from found["events"]
            after = found["next"]
            if found["state"] in ENDED and not found["events"]:
                return
            if not found["events"]:
                time.sleep(poll)

    def cancel(self) -> JobResult:
        """Stop it; what a training has learned so far is lost."""
        return cast(JobResult, self.client._call("/cancel", job=self.job))

    def result(self, poll: float = 1.0) -> dict[str, Any]:
        """Wait for the end.

        Raises
        ------
        PromptClfError
            If the job did not end well.
        """
        for _ in self.events(poll):
            pass
        found = self.state()
        if found["state"] != "done" or found["result"] is None:
            raise PromptClfError(f"job: {self.job} is {found['state']}; {found['error'] or 'no result'}")
        return found["result"]


def _list(labels: Sequence[str] | None) -> list[str] | None:
    """A string is left as it is: the app says what is wrong with it."""
    return cast(Any, labels) if labels is None or isinstance(labels, str) else list(labels)
