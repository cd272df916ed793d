"""Prompt classifiers: what all modes share.

The modes differ only in what `fit` learns. There is one `predict_proba`: render the prompt, score
every label's words after it, calibrate. All classifiers follow scikit-learn's estimator contract.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, ClassifierMixin, clone
from sklearn.utils.validation import check_is_fitted

from promptclf.classifiers import calibrate
from promptclf.classifiers.persistence import Persistent
from promptclf.errors import DataError, ModelError
from promptclf.lm.model import LanguageModel
from promptclf.prompt import Prompt, PromptTemplate, default_template
from promptclf.shorten import longest_fitting
from promptclf.task import Example, Prediction, Task
from promptclf.versions import versions

logger = logging.getLogger(__name__)

Text = str | tuple[str, str]
Self = TypeVar("Self", bound="PromptClassifier")


class PromptClassifier(ClassifierMixin, Persistent, BaseEstimator):  # type: ignore[misc]
    """Base of the modes. A subclass overrides `fit`; `predict_proba` is written once.

    Parameters
    ----------
    task : Task
        Labels and words.
    model : LanguageModel or str
        A loaded model, or a name for `promptclf.load_model`.
    template : PromptTemplate, str or None
        A template, its name or file; None takes the task's own, else "completion", or "pair" where
        `fit` gets text pairs.
    calibration : str
        See the subclass.
    truncate : bool
        Shorten texts that exceed the model's token limit (and report it) instead of raising.

    Attributes
    ----------
    classes_ : ndarray of shape (k,)
        The task's labels, sorted; columns of `predict_proba` follow it.
    log_prior_ : ndarray of shape (k,)
        What is subtracted from the log-likelihoods (zeros without calibration).
    temperature_ : float
    calibration_ : str
        The calibration in use.
    truncated_ : int
        How many of the texts that `fit` looked at were shortened.
    """

    mode: ClassVar[str]
    choices: ClassVar[dict[str, tuple[str, ...]]]  # parameter -> its possible values
    adapter_: str | None = None
    restricted_: bool = False
    epsilon_: float = 0.0  # what probabilities may be off by: a prior could blow up what is left out

    def __init__(
        self,
        task: Task,
        model: LanguageModel | str = "embedded",
        template: PromptTemplate | str | None = None,
        *,
        calibration: str = "auto",
        truncate: bool = False,
    ) -> None:
        self.task = task
        self.model = model
        self.template = template
        self.calibration = calibration
        self.truncate = truncate

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.string = True
        tags.input_tags.two_d_array = False
        return tags

    def __sklearn_clone__(self: Self) -> Self:
        """As scikit-learn clones, but with the same callback: who listens would not hear a copy of it."""
        values = self.get_params(deep=False).items()
        copy = type(self)(**{k: v if k == "callback" else clone(v, safe=False) for k, v in values})
        if hasattr(self, "_metadata_request"):
            copy._metadata_request = clone(self._metadata_request)
        return copy

    # ---- learning -----------------------------------------------------------------------------

    def fit(
        self: Self,
        X: Sequence[Text] | None,
        y: Sequence[str] | None = None,
        *,
        validation: tuple[Sequence[Text], Sequence[str]] | None = None,
        sample_weight: ArrayLike | None = None,
    ) -> Self:
        """Learn what the mode learns.

        Parameters
        ----------
        X
            Texts, or (text, second text) pairs.
        y
            Their labels.
        validation
            Labelled texts for choices such as the best epoch; a mode may need none.
        sample_weight
            One weight per text, shape (n,); for modes that train.

        Returns
        -------
        self

        Raises
        ------
        DataError
            If X, y and sample_weight differ in length, or a label is not one of the task's.
        """
        raise NotImplementedError

    def _start(self, texts: Sequence[Text] = ()) -> None:
        """Load model and template (`texts` may ask for another one) and forget what was learned before."""
        self.model_ = _load(self.model)
        pairs = any(isinstance(text, tuple) for text in texts[:1])
        template = self.template or default_template(self.task, pairs)
        self.template_ = template if isinstance(template, PromptTemplate) else PromptTemplate.load(template)
        self.classes_ = np.array(sorted(self.task.labels), dtype=object)
        self.adapter_ = None
        self._set_calibration("none", None, 1.0)
        self.truncated_, self._cut = 0, set[Text]()

    @contextmanager
    def _learning(self, texts: Sequence[Text]) -> Iterator[None]:
        """Start afresh; a fit that fails leaves the classifier unfitted, not half fitted."""
        self._start(texts)
        try:
            yield
        except BaseException:
            self._forget()
            raise
        if count := len(self._cut):
            self.truncated_ = count
            logger.warning(
                "texts shortened in fit to the model's %d tokens: %d", self.model_.max_tokens, count
            )

    def _forget(self) -> None:
        self.__dict__.pop("classes_", None)

    def _set_calibration(self, name: str, log_prior: NDArray[np.float64] | None, temperature: float) -> None:
        self.calibration_ = name
        self.log_prior_ = np.zeros(len(self.classes_)) if log_prior is None else log_prior
        self.temperature_ = temperature

    def check_options(self) -> None:
        """Raise for an option or template that does not exist; `fit` does the same, but loads the model."""
        for name, allowed in self.choices.items():
            if (value := str(getattr(self, name))) not in allowed:
                raise DataError(f"{name}: expected one of {', '.join(allowed)}, got {value!r}")
        if isinstance(self.template, str):
            PromptTemplate.load(self.template)

    # ---- predicting ---------------------------------------------------------------------------

    def predict_proba(self, X: Sequence[Text]) -> NDArray[np.float64]:
        """Probability of each label for each text.

        Returns
        -------
        Array of shape (n, k); columns follow `classes_`, rows sum to 1.

        Raises
        ------
        TextTooLongError
            If a text exceeds the token limit and `truncate` is off.
        """
        return self._predict(X)[0]

    def predict(self, X: Sequence[Text]) -> NDArray[np.object_]:
        """The most probable label of each text, shape (n,)."""
        proba = self.predict_proba(X)
        chosen: NDArray[np.object_] = self.classes_[proba.argmax(axis=1)]
        return chosen

    def classify(self, texts: Sequence[Text]) -> list[Prediction]:
        """The label of each text with the probabilities of all labels, and whether it was cut."""
        rows, cut = self._predict(texts)
        return [
            Prediction(
                text if isinstance(text, str) else "\n".join(text),
                str(self.classes_[row.argmax()]),
                {str(label): float(p) for label, p in zip(self.classes_, row, strict=True)},
                was_cut,
            )
            for text, row, was_cut in zip(texts, rows, cut, strict=True)
        ]

    def log_likelihoods(self, X: Sequence[Text]) -> NDArray[np.float64]:
        """Log-likelihood of each label's words, before calibration: shape (n, k), nats."""
        check_is_fitted(self, "classes_")
        return self._score(self._prompts(check_texts(X))[0], exact=True)

    def prompt(self, text: Text) -> Prompt:
        """Exactly what the model sees for a text."""
        check_is_fitted(self, "classes_")
        return self._prompts([text])[0][0]

    def _predict(self, X: Sequence[Text]) -> tuple[NDArray[np.float64], list[bool]]:
        check_is_fitted(self, "classes_")
        texts = check_texts(X)
        if not texts:
            return np.empty((0, len(self.classes_))), []
        prompts, cut = self._prompts(texts)
        scores = self._score(prompts)
        prior = calibrate.label_prior(scores) if self.calibration_ == "batch" else self.log_prior_
        return calibrate.probabilities(scores, prior, self.temperature_), cut

    def _score(self, prompts: Sequence[Prompt], exact: bool = False) -> NDArray[np.float64]:
        answers = [self.template_.answer_for(self.task, label) for label in self.classes_]
        model: LanguageModel = self.model_
        return model.score(
            prompts,
            answers,
            adapter=self.adapter_,
            restricted=self.restricted_,
            epsilon=0.0 if exact else calibrate.share_before(self.epsilon_, self.temperature_, len(answers)),
        )

    def _examples(self, texts: Sequence[Text]) -> Sequence[Sequence[Example]]:
        """The labelled examples to show before each text."""
        return [()] * len(texts)

    def _prompts(self, texts: Sequence[Text]) -> tuple[list[Prompt], list[bool]]:
        found = [self._fitting(*each) for each in zip(texts, self._examples(texts), strict=True)]
        return [prompt for prompt, _ in found], [cut for _, cut in found]

    def _prompts_to_learn(self, texts: Sequence[Text]) -> list[Prompt]:
        """Prompts in `fit`, which keeps count of the texts that it had to shorten."""
        prompts, cut = self._prompts(texts)
        self._cut |= {text for text, was_cut in zip(texts, cut, strict=True) if was_cut}
        return prompts

    def _fitting(self, text: Text, examples: Sequence[Example]) -> tuple[Prompt, bool]:
        """The prompt for a text, shortened if that is allowed and needed."""
        first, second = (text, None) if isinstance(text, str) else text

        def render(first: str, second: str | None) -> Prompt:
            return self.template_.render(self.task, first, second, examples)

        whole = render(first, second)
        if not self.truncate:
            return whole, False
        answers = [self.template_.answer_for(self.task, label) for label in self.task.labels]
        limit = self.model_.max_tokens - 1 - max(len(answer.encode()) for answer in answers)
        if len(whole.text.encode()) <= limit:  # no tokenizer makes more tokens than bytes
            return whole, False
        kept = longest_fitting(first, second, lambda *t: self.model_.count_tokens([render(*t)])[0] <= limit)
        return render(*kept), kept != (first, second)

    # ---- where a result comes from ------------------------------------------------------------

    def provenance(self) -> dict[str, Any]:
        """Everything needed to say how a result came about, as JSON values."""
        check_is_fitted(self, "classes_")
        return {
            "mode": self.mode,
            "task": self.task.name,
            "task_fingerprint": self.task.fingerprint,
            "template": self.template_.name,
            "template_fingerprint": self.template_.fingerprint,
            "model": self.model_.info.to_dict(),
            "parameters": self._parameters(),
            "learned": self._learned(),
            "versions": versions(),
        }


def _load(model: LanguageModel | str) -> LanguageModel:
    if isinstance(model, str):
        from promptclf.lm.loading import load_model

        return load_model(model)
    if not isinstance(model, LanguageModel):
        raise ModelError(
            f"model: expected a name or a loaded model, got {type(model).__name__}; use promptclf.load_model"
        )
    return model


def check_texts(X: Any) -> list[Text]:
    """A list of texts or pairs.

    Raises
    ------
    DataError
        If X is a single string or a table, or an item is neither text nor a pair of texts.
    """
    if isinstance(X, str):
        raise DataError(f"expected a list of texts, got one string {X[:40]!r}; put it in a list")
    if not isinstance(X, Iterable) or isinstance(X, Mapping) or hasattr(X, "columns"):
        # The items of a table would be the names of its columns.
        raise DataError(f"expected a list of texts, got {type(X).__name__}; give its texts as a list")
    texts: list[Text] = []
    for number, item in enumerate(X, 1):
        if isinstance(item, str):
            texts.append(str(item))
        elif isinstance(item, (tuple, list)) and len(item) == 2 and all(isinstance(t, str) for t in item):
            texts.append((item[0], item[1]))
        else:
            raise DataError(f"text {number}: expected text or a pair of texts, got {item!r:.60}")
    return texts


def check_labelled(task: Task, X: Any, y: Any, what: str = "y") -> tuple[list[Text], list[str]]:
    """Texts and their labels, checked against each other and the task."""
    texts = check_texts(X)
    if y is None:
        raise DataError(f"{what}: expected a label for each of the {len(texts)} texts, got none")
    labels = [str(label) if isinstance(label, str) else label for label in y]
    if len(labels) != len(texts):
        raise DataError(f"{what}: expected {len(texts)} labels, one per text, got {len(labels)}")
    for number, label in enumerate(labels, 1):
        if label not in task.labels:
            raise DataError(
                f"{what}, row {number}: {label!r} is not a label of task {task.name!r}; expected one of "
                f"{', '.join(task.labels[:10])}{', …' if len(task.labels) > 10 else ''}"
            )
    return texts, labels


def spread(items: Sequence[Any], count: int) -> list[Any]:
    """At most `count` items, evenly spread over the sequence."""
    if len(items) <= count:
        return list(items)
    return [items[i * len(items) // count] for i in range(count)]
