"""What the app can do, as plain Python: answer texts in one mode or in all of them, and say why."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Hashable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

from promptclf.classifiers.base import PromptClassifier
from promptclf.classifiers.few_shot import FewShotClassifier
from promptclf.classifiers.zero_shot import ZeroShotClassifier
from promptclf.errors import DataError, PromptClfError
from promptclf.jobs.store import Store
from promptclf.lm.batcher import Batcher
from promptclf.lm.embedded import HUB_ID
from promptclf.lm.model import LanguageModel
from promptclf.modes import MODES
from promptclf.prompt import Prompt, PromptTemplate
from promptclf.schema import ClassifyRequest, parse
from promptclf.task import Prediction, Task
from promptclf.ui.core.answer import Answer, Explanation, agreement
from promptclf.ui.core.ready import Ready, Source
from promptclf.ui.core.visitor import asker
from promptclf.ui.core.zerogpu import on_zero_gpu
from promptclf.ui.words import Language, say

logger = logging.getLogger(__name__)

QUICKEST_FIRST = tuple(reversed(MODES))  # by the time to get ready
CHARACTERS_PER_TOKEN = 4  # of examples, about
TEXTS_AT_ONCE = 8  # of a file: others who ask meanwhile wait no longer than these take


@dataclass(frozen=True, slots=True)
class Question:
    """A text to classify and the labels to choose from, both checked.

    `source` says what modes may learn from; None: labels of one's own, without examples.
    """

    text: str
    task: Task
    source: Source | None


class Service:
    """Holds one loaded model and the classifiers fitted with it; for use by many threads.

    Parameters
    ----------
    model
        A loaded model, or a name for `promptclf.load_model`; a name is loaded at first use.
    quantization
        For a name: "none", "int8" or "nf4".
    store
        Where visitors' data sets and adapters are; without it, only packaged tasks are known.
    load, cancel
        Loads the model of that name in place of `promptclf.load_model`, and ends that if it is under way.
    """

    def __init__(
        self,
        model: LanguageModel | str = "embedded",
        *,
        quantization: str = "none",
        store: Store | None = None,
        load: Callable[[], LanguageModel] | None = None,
        cancel: Callable[[], None] = lambda: None,
    ) -> None:
        self._source = model
        self._quantization = quantization
        self._model: LanguageModel | None = None if isinstance(model, str) else model
        self._load, self._cancel = load or self._load_here, cancel
        self._loading = threading.Lock()
        self._stop = threading.Event()
        self._background: list[threading.Thread] = []
        self._batcher = Batcher()
        self.ready = Ready(lambda: self.model, store, self._stop)

    @property
    def model(self) -> LanguageModel:
        """The model, loaded at the first use.

        Raises
        ------
        ModelError
            If it cannot be found or loaded.
        """
        with self._loading:
            if self._model is None:
                self._model = self._load()
            return self._model

    def _load_here(self) -> LanguageModel:
        from promptclf.lm.loading import load_model

        return load_model(cast(str, self._source), quantization=cast(Any, self._quantization))

    @property
    def model_name(self) -> str:
        """The model's name for `promptclf.load_model`: a process of its own can load it again."""
        if isinstance(self._source, str):
            return self._source
        return str(getattr(self._source, "spec", {}).get("name", self._source.info.name))

    @property
    def quantization(self) -> str:
        """The quantisation that was asked for."""
        if isinstance(self._source, str):
            return self._quantization
        return self._source.info.requested_quantization

    @property
    def model_words(self) -> str:
        """The model in a few words: its name and, once it is loaded, where and how it really runs."""
        name = str(self._source) if self._model is None else self._model.info.name
        words = [HUB_ID.partition("/")[2] if name == "embedded" else name]
        if self._model is not None:
            info = self._model.info
            words += [info.device, info.dtype if info.quantization == "none" else info.quantization]
        return " · ".join(words)

    # ---- answering ----------------------------------------------------------------------------

    def classify(
        self,
        text: str,
        mode: str = "lora",
        task: str = "support",
        labels: Sequence[str] | None = None,
        *,
        owner: str | None = None,
        adapter: str | None = None,
    ) -> Answer:
        """Classify one text.

        Parameters
        ----------
        text
            1 to 20,000 characters. Of what exceeds the model's token limit, the beginning is read.
        mode
            "zero-shot", "few-shot" or "lora".
        task
            The name of a packaged task or the id of a data set of `owner`; not looked at if there are
            `labels`.
        labels
            2 to 100 labels of your own. They come without examples, so that only zero-shot answers.
        owner
            Whose data sets and adapters may be used.
        adapter
            For LoRA: the id of a finished training of `owner` on the task. Default: the packaged adapter
            of a packaged task, the newest training on a data set.

        Raises
        ------
        DataError, TaskError
            If an argument is not usable; the message begins with its name.
        PromptClfError
            If the mode cannot answer here.
        """
        question = self.question(text, mode, task, labels, owner=owner, adapter=adapter)
        return self.answer(question, mode)

    def compare(
        self,
        text: str,
        task: str = "support",
        labels: Sequence[str] | None = None,
        *,
        owner: str | None = None,
        adapter: str | None = None,
    ) -> dict[str, Any]:
        """Classify one text in every mode; arguments and errors as for `classify`.

        Returns
        -------
        "predictions" (mode -> answer), "unavailable" (mode -> why it gave none), "agreement" (a sentence).
        """
        outcomes = dict(self.answers(text, task, labels, owner=owner, adapter=adapter))
        outcomes = {mode: outcomes[mode] for mode in MODES}
        given = {mode: a for mode, a in outcomes.items() if isinstance(a, Answer)}
        return {
            "predictions": {mode: answer.to_dict() for mode, answer in given.items()},
            "unavailable": {mode: str(e) for mode, e in outcomes.items() if isinstance(e, PromptClfError)},
            "agreement": agreement({mode: answer.label for mode, answer in given.items()}),
        }

    def answers(
        self,
        text: str,
        task: str = "support",
        labels: Sequence[str] | None = None,
        *,
        owner: str | None = None,
        adapter: str | None = None,
    ) -> Iterator[tuple[str, Answer | PromptClfError]]:
        """Every mode with its answer, or with why it has none, in the order in which they come."""
        # Wrong arguments are told at once.
        question = self.question(text, "zero-shot", task, labels, owner=owner, adapter=adapter)

        def each() -> Iterator[tuple[str, Answer | PromptClfError]]:
            for mode in sorted(QUICKEST_FIRST, key=lambda mode: not self.is_ready(mode, question.source)):
                try:
                    yield mode, self.answer(question, mode)
                except PromptClfError as error:
                    yield mode, error

        return each()

    def classify_many(
        self, texts: Sequence[str], mode: str, question: Question
    ) -> Iterator[list[Prediction]]:
        """Predictions for many texts, some at a time; `question` says with which labels and examples.

        Raises
        ------
        PromptClfError
            If the mode cannot answer here.
        """
        classifier = self._classifier(question, mode)
        for start in range(0, len(texts), TEXTS_AT_ONCE):
            if self._stop.is_set():
                raise PromptClfError("the app is closing")
            yield classifier.classify(texts[start : start + TEXTS_AT_ONCE])

    def question(
        self,
        text: Any,
        mode: Any = "zero-shot",
        task: Any = "support",
        labels: Any = None,
        *,
        owner: str | None = None,
        adapter: Any = None,
    ) -> Question:
        """Check what came from outside.

        Raises
        ------
        DataError, TaskError
            The message begins with the name of the argument.
        """
        task = "support" if labels is not None else task
        asked = parse(ClassifyRequest, text=text, mode=mode, task=task, labels=labels, adapter=adapter)
        if asked.labels is not None:
            return Question(asked.text, Task("own", tuple(asked.labels)), None)
        source = Source(asked.task, owner, asked.adapter)
        return Question(asked.text, self.ready.task(source), source)

    def unavailable(self, mode: str, source: Source | None, language: Language = "en") -> str | None:
        """Why a mode cannot answer for a source (None: labels without examples), or None."""
        name = say(language, f"mode_{mode}")
        if source is None:
            return None if mode == "zero-shot" else say(language, "needs_examples", mode=name)
        if mode == "lora" and not self.ready.has_adapter(source):
            return say(language, "needs_adapter")
        return None

    def is_ready(self, mode: str, source: Source | None) -> bool:
        """Whether a mode answers without getting ready first."""
        return source is None or self.ready.is_ready(source, mode)

    def answer(self, question: Question, mode: str) -> Answer:
        """Answer a checked question.

        Raises
        ------
        PromptClfError
            If the mode cannot answer here.
        """
        return self.ask(question, mode).result()

    def ask(self, question: Question, mode: str) -> Future[Answer]:
        """Begin to answer a checked question, together with what others ask like it at the same time.

        Raises
        ------
        PromptClfError
            If the mode cannot answer here, or too many are waiting.
        """
        classifier = self._classifier(question, mode)
        work = partial(self._timed, classifier, mode)
        if on_zero_gpu():  # a GPU is lent to the thread of who asks, and on their account
            answer: Future[Answer] = Future()
            answer.set_result(work([question.text])[0])
            return answer
        # For labels of one's own there is a classifier for each question.
        key: Hashable = classifier if question.source else question.task.fingerprint
        shown = CHARACTERS_PER_TOKEN * getattr(classifier, "max_demo_tokens", 0)
        return self._batcher.submit(question.text, work, key=key, user=asker(), extra=shown)

    def _timed(self, classifier: PromptClassifier, mode: str, texts: list[str]) -> list[Answer]:
        start = time.perf_counter()
        predictions = [prediction.to_dict() for prediction in classifier.classify(texts)]
        milliseconds = round(1000 * (time.perf_counter() - start), 1)
        model = self.model.info.to_dict()
        return [
            Answer(
                label=prediction["label"],
                probabilities=prediction["probabilities"],
                mode=mode,
                milliseconds=milliseconds,
                truncated=prediction["truncated"],
                model=model,
            )
            for prediction in predictions
        ]

    def _classifier(self, question: Question, mode: str) -> PromptClassifier:
        source = question.source
        if mode == "lora" and source and source.adapter and not self.ready.has_adapter(source):
            expected = "adapter: expected the id of a finished training of yours on this task"
            raise DataError(f"{expected}, got {source.adapter!r:.60}; leave it out for the usual one")
        if reason := self.unavailable(mode, source):
            raise DataError(f"mode: {reason}")
        if source is None:
            return ZeroShotClassifier(question.task, self.model, truncate=True).fit()
        return self.ready.classifier(source, mode)

    # ---- saying why -----------------------------------------------------------------------------

    def explain(self, question: Question, mode: str, label: str | None = None) -> Explanation:
        """The prompt behind an answer, its examples, and how much each word speaks for the label."""
        from promptclf.classifiers.explain import word_weights

        classifier = self._classifier(question, mode)
        label = label or classifier.classify([question.text])[0].label
        weights = word_weights(classifier, question.text, label)
        prompt, tokens = self._shown(classifier.prompt(question.text))
        selector = getattr(classifier, "selector_", None)
        examples = tuple(selector.choose([question.text])[0]) if selector else ()
        return Explanation(label, prompt, tokens, examples, tuple(weights))

    def preview(self, template: PromptTemplate, question: Question, mode: str) -> tuple[str, int]:
        """What the model would see with another template: the prompt, and its number of tokens."""
        return self._shown(self._with(template, question, mode).prompt(question.text))

    def try_template(self, template: PromptTemplate, question: Question, mode: str) -> Answer:
        """Answer with another template, without calibration."""
        return self._timed(self._with(template, question, mode), mode, [question.text])[0]

    def _with(self, template: PromptTemplate, question: Question, mode: str) -> PromptClassifier:
        if reason := self.unavailable(mode, question.source):
            raise DataError(f"mode: {reason}")
        if mode == "few-shot" and question.source is not None:
            return cast(FewShotClassifier, self._classifier(question, mode)).with_template(template)
        # An adapter sees the bare prompt of zero-shot.
        return ZeroShotClassifier(
            question.task, self.model, template, calibration="none", truncate=True
        ).fit()

    def _shown(self, prompt: Prompt) -> tuple[str, int]:
        ids = [index for index, _ in self.model.tokens(prompt)]
        decode = getattr(self.model, "decode", None)
        return decode(ids) if decode else prompt.text, len(ids)

    # ---- before and after -----------------------------------------------------------------------

    def warm_up(self, task: str = "support") -> None:
        """Get all modes ready in the background, the quickest first. Only the first call does."""
        if self._background:
            return
        source = Source(task)

        def work() -> None:
            try:
                _ = self.model
            except Exception as error:  # told again to whoever asks
                logger.info("the model is not ready: %s", error)
                return
            for mode in QUICKEST_FIRST:
                try:
                    if self.unavailable(mode, source) is None:
                        self.ready.classifier(source, mode)
                except PromptClfError as error:
                    logger.info("%s is not ready: %s", mode, error)

        self._begin(work, "warm-up")

    def close(self) -> None:
        """Stop work in the background. A model that is not yet loaded is waited for no longer."""
        self._stop.set()
        self._batcher.close()
        if self._model is None:
            self._cancel()
        for thread in self._background:
            thread.join(timeout=30)

    def _begin(self, work: Callable[[], None], name: str) -> None:
        thread = threading.Thread(target=work, name=name, daemon=True)
        self._background.append(thread)
        thread.start()
