"""What the app can do, as plain Python: answer a text in one mode, or in all of them."""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, cast

from promptclf import __version__
from promptclf.classifier import DEFAULT_TEMPLATE, PromptClassifier, ZeroShotClassifier
from promptclf.data import Dataset, load_dataset
from promptclf.embedded import HUB_ID, home
from promptclf.errors import ArtifactError, DataError, PromptClfError, TaskError
from promptclf.few_shot import FewShotClassifier
from promptclf.model import LanguageModel
from promptclf.modes import MODES, load_classifier
from promptclf.prompt import PromptTemplate
from promptclf.task import PACKAGED_TASKS, Task, packaged_tasks
from promptclf.ui.polite import PoliteModel

logger = logging.getLogger(__name__)

MAX_CHARS = 20_000
MAX_LABELS = 100
QUICKEST_FIRST = tuple(reversed(MODES))  # by the time to get ready
TITLES = {"zero-shot": "Zero-shot", "few-shot": "Few-shot", "lora": "LoRA"}


@dataclass(frozen=True, slots=True)
class Answer:
    """What one mode says about a text.

    Parameters
    ----------
    label
        The most probable label.
    probabilities
        Every label's probability, in descending order.
    mode
        "zero-shot", "few-shot" or "lora".
    milliseconds
        How long the model took, without the time to get ready.
    truncated
        Whether only the beginning of the text was read.
    model
        Where the base model comes from and how it is used.
    """

    label: str
    probabilities: Mapping[str, float]
    mode: str
    milliseconds: float
    truncated: bool
    model: Mapping[str, str]

    def to_dict(self) -> dict[str, Any]:
        """A plain dictionary."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Question:
    """A text to classify and the labels to choose from, both checked; `packaged` tasks have examples."""

    text: str
    task: Task
    packaged: bool


class Service:
    """Holds one loaded model and the classifiers fitted with it; for use by many threads.

    Parameters
    ----------
    model
        A loaded model, or a name for `promptclf.load_model`; a name is loaded at first use.
    quantization
        For a name: "none", "int8" or "nf4".
    """

    def __init__(self, model: LanguageModel | str = "embedded", *, quantization: str = "none") -> None:
        self._source = model
        self._quantization = quantization
        self._model: LanguageModel | None = None if isinstance(model, str) else model
        self._data: dict[str, Dataset] = {}
        self._ready: dict[tuple[str, str], PromptClassifier] = {}
        self._locks: dict[tuple[str, ...], threading.Lock] = {}
        self._stop = threading.Event()
        self._warming: threading.Thread | None = None

    @property
    def model(self) -> LanguageModel:
        """The model, loaded at the first use.

        Raises
        ------
        ModelError
            If it cannot be found or loaded.
        """
        with self._lock("model"):
            if self._model is None:
                from promptclf.loading import load_model

                self._model = load_model(cast(str, self._source), quantization=cast(Any, self._quantization))
            return self._model

    @property
    def model_words(self) -> str:
        """The model in a few words: its name and, once it is loaded, where and how it runs."""
        name = str(self._source) if self._model is None else self._model.info.name
        words = [HUB_ID.partition("/")[2] if name == "embedded" else name]
        if self._model is not None:
            info = self._model.info
            words += [info.device] if info.quantization == "none" else [info.device, info.quantization]
        return " · ".join(words)

    # ---- answering ----------------------------------------------------------------------------

    def classify(
        self, text: str, mode: str = "lora", task: str = "support", labels: Sequence[str] | None = None
    ) -> Answer:
        """Classify one text.

        Parameters
        ----------
        text
            1 to 20,000 characters. Of what exceeds the model's token limit, the beginning is read.
        mode
            "zero-shot", "few-shot" or "lora".
        task
            The name of a packaged task; not looked at if there are `labels`.
        labels
            2 to 100 labels of your own. They come without examples, so that only zero-shot answers.

        Raises
        ------
        DataError, TaskError
            If an argument is not usable; the message begins with its name.
        PromptClfError
            If the mode cannot answer here.
        """
        if not isinstance(mode, str) or mode not in MODES:
            raise DataError(f"mode: expected one of {', '.join(MODES)}, got {mode!r:.60}")
        return self._answer(self.question(text, task, labels), mode)

    def compare(
        self, text: str, task: str = "support", labels: Sequence[str] | None = None
    ) -> dict[str, Any]:
        """Classify one text in every mode; arguments and errors as for `classify`.

        Returns
        -------
        "predictions" (mode -> answer), "unavailable" (mode -> why it gave none), "agreement" (a sentence).
        """
        outcomes = dict(self.answers(text, task, labels))
        outcomes = {mode: outcomes[mode] for mode in MODES}
        given = {mode: a for mode, a in outcomes.items() if isinstance(a, Answer)}
        return {
            "predictions": {mode: answer.to_dict() for mode, answer in given.items()},
            "unavailable": {mode: str(e) for mode, e in outcomes.items() if isinstance(e, PromptClfError)},
            "agreement": agreement(given),
        }

    def answers(
        self, text: str, task: str = "support", labels: Sequence[str] | None = None
    ) -> Iterator[tuple[str, Answer | PromptClfError]]:
        """Every mode with its answer, or with why it has none, in the order in which they come."""
        question = self.question(text, task, labels)  # wrong arguments are told at once

        name = question.task.name if question.packaged else None

        def each() -> Iterator[tuple[str, Answer | PromptClfError]]:
            for mode in sorted(QUICKEST_FIRST, key=lambda mode: not self.is_ready(mode, name)):
                try:
                    yield mode, self._answer(question, mode)
                except PromptClfError as error:
                    yield mode, error

        return each()

    def question(self, text: Any, task: Any = "support", labels: Any = None) -> Question:
        """Check what came from outside.

        Raises
        ------
        DataError, TaskError
            The message begins with the name of the argument.
        """
        text = _check_text(text)
        if labels is not None:
            return Question(text, _own_task(labels), packaged=False)
        if task not in packaged_tasks():
            raise DataError(f"task: expected one of {', '.join(packaged_tasks())}, got {task!r:.60}")
        return Question(text, _packaged_task(task), packaged=True)

    def unavailable(self, mode: str, task: str | None) -> str | None:
        """Why a mode cannot answer for a packaged task (None: labels without examples), or None."""
        if task is None and mode != "zero-shot":
            return (
                f"{TITLES[mode]} needs labelled examples, and your own labels come without any; use zero-shot"
            )
        if mode == "lora" and task is not None and not _adapter(task).is_dir():
            return (
                f"LoRA needs a trained adapter, and this installation has none for {task!r}; use another mode"
            )
        return None

    def is_ready(self, mode: str, task: str | None) -> bool:
        """Whether a mode answers without getting ready first."""
        return task is None or (task, mode) in self._ready

    def _answer(self, question: Question, mode: str) -> Answer:
        if reason := self.unavailable(mode, question.task.name if question.packaged else None):
            raise DataError(f"mode: {reason}")
        if question.packaged:
            classifier = self._fitted(question.task.name, mode)
        else:
            classifier = ZeroShotClassifier(question.task, self.model, truncate=True).fit()
        start = time.perf_counter()
        prediction = classifier.classify([question.text])[0].to_dict()
        return Answer(
            label=prediction["label"],
            probabilities=prediction["probabilities"],
            mode=mode,
            milliseconds=round(1000 * (time.perf_counter() - start), 1),
            truncated=prediction["truncated"],
            model=self.model.info.to_dict(),
        )

    # ---- getting ready ------------------------------------------------------------------------

    def warm_up(self, task: str = "support") -> None:
        """Get all modes ready in the background, the quickest first."""

        def work() -> None:
            for mode in QUICKEST_FIRST:
                try:
                    if self.unavailable(mode, task) is None:
                        self._fitted(task, mode)
                except PromptClfError as error:  # told again to whoever asks
                    logger.info("%s is not ready: %s", mode, error)

        self._warming = threading.Thread(target=work, name="warm-up", daemon=True)
        self._warming.start()

    def close(self) -> None:
        """Stop work in the background."""
        self._stop.set()
        if self._warming is not None:
            self._warming.join(timeout=30)

    def _fitted(self, task: str, mode: str) -> PromptClassifier:
        with self._lock(task, mode):
            if (task, mode) not in self._ready:
                self._ready[task, mode] = _FITS[mode](self, self._dataset(task))
            return self._ready[task, mode]

    def _fit_zero_shot(self, data: Dataset) -> PromptClassifier:
        """The label prior takes hundreds of texts to estimate, so it is kept for the next start."""
        folder = self.kept(data)
        if folder.is_dir():
            try:
                return ZeroShotClassifier.from_pretrained(folder, model=self.model)
            except ArtifactError as error:
                logger.warning("%s; estimating the prior again", error)
                shutil.rmtree(folder, ignore_errors=True)
        classifier = ZeroShotClassifier(data.task, PoliteModel(self.model, self._stop), truncate=True)
        classifier.fit([example.text for example in data.train])
        classifier.model = classifier.model_ = self.model
        try:
            folder.parent.mkdir(parents=True, exist_ok=True)
            classifier.save_pretrained(folder)
        except (OSError, ArtifactError) as error:
            logger.warning("the prior is not kept for the next start: %s", error)
        return classifier

    def _fit_few_shot(self, data: Dataset) -> PromptClassifier:
        # Choosing by cross-validation would take minutes; this choice costs nothing.
        classifier = FewShotClassifier(
            data.task, self.model, selection="tfidf", calibration="none", truncate=True
        )
        return classifier.fit([e.text for e in data.train], [e.label for e in data.train])

    def _load_lora(self, data: Dataset) -> PromptClassifier:
        classifier = load_classifier(_adapter(data.task.name), model=self.model)
        classifier.truncate = True
        return classifier

    def kept(self, data: Dataset) -> Path:
        """Where what zero-shot learned is kept: named after everything that it depends on."""
        template = PromptTemplate.load(data.task.template or DEFAULT_TEMPLATE).fingerprint
        parts = [__version__, data.task.fingerprint, data.fingerprint, template, self.model.info.to_dict()]
        digest = hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
        return home() / "app" / f"{data.task.name}-zero-shot-{digest[:16]}"

    def _dataset(self, task: str) -> Dataset:
        with self._lock("data", task):
            if task not in self._data:
                self._data[task] = load_dataset(task)
            return self._data[task]

    def _lock(self, *what: str) -> threading.Lock:
        return self._locks.setdefault(what, threading.Lock())  # atomic for a dict


_FITS: dict[str, Callable[[Service, Dataset], PromptClassifier]] = {
    "zero-shot": Service._fit_zero_shot,
    "few-shot": Service._fit_few_shot,
    "lora": Service._load_lora,
}


def agreement(answers: Mapping[str, Answer]) -> str:
    """One sentence on whether the modes agree."""
    by_label: dict[str, list[str]] = {}
    for mode in MODES:
        if mode in answers:
            by_label.setdefault(answers[mode].label, []).append(TITLES[mode])
    if len(answers) < 2:
        return f"Only {TITLES[next(iter(answers))]} could answer." if answers else "No mode could answer."
    everyone = "All three modes" if len(answers) == 3 else "Both modes"
    if len(by_label) == 1:
        return f"{everyone} say “{next(iter(by_label))}”."
    if len(by_label) == len(answers):
        return f"{everyone} disagree: a text worth labelling."
    (label, most), (odd, other) = sorted(by_label.items(), key=lambda group: -len(group[1]))
    return f"{' and '.join(most)} say “{label}”, {other[0]} says “{odd}”."


@lru_cache
def _packaged_task(name: str) -> Task:
    return Task.load(name)


def _adapter(task: str) -> Path:
    return PACKAGED_TASKS / task / "adapter"


def _check_text(text: Any) -> str:
    _check_unicode("text", text)
    if not text.strip():
        raise DataError("text: expected some text, got none; write what is to be classified")
    if len(text) > MAX_CHARS:
        raise DataError(f"text: expected at most {MAX_CHARS:,} characters, got {len(text):,}; shorten it")
    return str(text)


def _own_task(labels: Any) -> Task:
    if not isinstance(labels, Sequence) or isinstance(labels, str):
        raise DataError(f"labels: expected a list of labels, got {labels!r:.60}")
    if not 2 <= len(labels) <= MAX_LABELS:
        raise DataError(f"labels: expected 2 to {MAX_LABELS} labels, got {len(labels)}")
    for label in labels:
        _check_unicode("labels", label)
    try:
        return Task("own", tuple(label.strip() for label in labels))
    except TaskError as error:  # some of its messages name no field
        raise TaskError(f"labels: {str(error).removeprefix('labels: ')}") from error


def _check_unicode(name: str, text: Any) -> None:
    if not isinstance(text, str):
        raise DataError(f"{name}: expected text, got {text!r:.60} ({type(text).__name__})")
    try:
        text.encode()
    except UnicodeEncodeError as error:  # JSON can carry half of a surrogate pair
        raise DataError(f"{name}: expected Unicode text, got half a character; remove it") from error
