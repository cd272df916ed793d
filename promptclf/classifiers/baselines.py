"""What a language model must beat: TF-IDF and a linear support vector machine, in seconds."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.calibration import CalibratedClassifierCV
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.model_selection import StratifiedKFold
from sklearn.pipeline import make_union
from sklearn.svm import LinearSVC
from sklearn.utils.validation import check_is_fitted

from promptclf.classifiers.base import Text, check_labelled, check_texts
from promptclf.errors import DataError
from promptclf.task import Prediction, Task
from promptclf.versions import versions

MAX_FOLDS = 5


class TfidfSvmClassifier(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """Linear SVM on the TF-IDF of words and characters; probabilities by Platt's method (1999).

    Features are word 1- to 2-grams and, so that inflection, misspelling and text without spaces
    between words count, character 1- to 5-grams within words. Each label's margin becomes a
    probability through a sigmoid that is fitted on margins from cross-validation; `predict` takes
    the most probable label, so that the two never disagree.

    Parameters
    ----------
    task
        The task; labels without a training row get the probability 0.
    characters
        Whether to count character n-grams; without them the features are the plain textbook ones.
    C
        Inverse strength of the SVM's regularisation.
    seed
        Seeds the folds and the solver.

    Attributes
    ----------
    classes_ : ndarray of shape (k,)
        The task's labels, sorted; columns of `predict_proba` follow it.
    model_ : CalibratedClassifierCV
        The fitted pipeline.
    """

    mode: ClassVar[str] = "tfidf-svm"

    def __init__(self, task: Task, *, characters: bool = True, C: float = 1.0, seed: int = 0) -> None:
        self.task = task
        self.characters = characters
        self.C = C
        self.seed = seed

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.string = True
        tags.input_tags.two_d_array = False
        return tags

    def fit(
        self,
        X: Sequence[Text],
        y: Sequence[str],
        *,
        validation: tuple[Sequence[Text], Sequence[str]] | None = None,
        sample_weight: ArrayLike | None = None,
    ) -> TfidfSvmClassifier:
        """Learn from labelled texts.

        Parameters
        ----------
        X, y
            Texts, or (text, second text) pairs, and their labels.
        validation
            More labelled texts. There is no epoch to choose on them, so they are learned from too:
            every classifier gets the same labelled budget.
        sample_weight
            One weight per text of X, shape (n,); texts of `validation` weigh 1.

        Returns
        -------
        self

        Raises
        ------
        DataError
            If lengths differ, a label is not the task's, or there are texts of one label only.
        """
        texts, labels = check_labelled(self.task, X, y)
        weights = (
            np.ones(len(texts)) if sample_weight is None else np.asarray(sample_weight, dtype=np.float64)
        )
        if weights.shape != (len(texts),):
            raise DataError(f"sample_weight: expected {len(texts)} weights, got shape {weights.shape}")
        if validation is not None:
            more, more_labels = check_labelled(self.task, *validation, what="validation")
            texts, labels = texts + more, labels + more_labels
            weights = np.concatenate([weights, np.ones(len(more))])
        count = Counter(labels)
        if len(count) < 2:
            raise DataError(f"expected texts of at least two labels to learn from, got {len(count)}")
        # A label's only row cannot be held out and learned from, so it counts as two half rows.
        for i in [i for i, label in enumerate(labels) if count[label] == 1]:
            weights[i] /= 2
            texts, labels = [*texts, texts[i]], [*labels, labels[i]]
            weights = np.append(weights, weights[i])
        self.folds_ = min(MAX_FOLDS, max(2, min(count.values())))
        self.rows_ = sum(count.values())
        self.classes_ = np.array(sorted(self.task.labels), dtype=object)
        self.model_ = CalibratedClassifierCV(
            _LinearText(self.characters, self.C, self.seed),
            method="sigmoid",
            ensemble=False,
            cv=StratifiedKFold(self.folds_, shuffle=True, random_state=self.seed),
        ).fit([_joined(text) for text in texts], np.array(labels, dtype=object), sample_weight=weights)
        return self

    def predict_proba(self, X: Sequence[Text]) -> NDArray[np.float64]:
        """Probability of each label for each text, shape (n, k); columns follow `classes_`."""
        check_is_fitted(self, "model_")
        texts = check_texts(X)
        proba = np.zeros((len(texts), len(self.classes_)))
        if texts:
            columns = np.searchsorted(self.classes_, self.model_.classes_)
            proba[:, columns] = self.model_.predict_proba([_joined(text) for text in texts])
        return proba

    def predict(self, X: Sequence[Text]) -> NDArray[np.object_]:
        """The most probable label of each text, shape (n,)."""
        proba = self.predict_proba(X)
        chosen: NDArray[np.object_] = self.classes_[proba.argmax(axis=1)]
        return chosen

    def classify(self, texts: Sequence[Text]) -> list[Prediction]:
        """The label of each text with the probabilities of all labels."""
        proba = self.predict_proba(texts)
        return [
            Prediction(
                _joined(text),
                str(self.classes_[row.argmax()]),
                {str(label): float(p) for label, p in zip(self.classes_, row, strict=True)},
            )
            for text, row in zip(texts, proba, strict=True)
        ]

    def provenance(self) -> dict[str, Any]:
        """Everything needed to say how a result came about, as JSON values."""
        check_is_fitted(self, "model_")
        return {
            "mode": self.mode,
            "task": self.task.name,
            "task_fingerprint": self.task.fingerprint,
            "parameters": {"characters": self.characters, "C": self.C, "seed": self.seed},
            "learned": {"rows": self.rows_, "folds": self.folds_},
            "versions": {name: found for name, found in versions().items() if name in _PACKAGES},
        }


_PACKAGES = ("python", "promptclf", "scikit-learn")


class _LinearText(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """Vectoriser and SVM in one, refitted in every fold: a pipeline that passes on sample weights."""

    def __init__(self, characters: bool, C: float, seed: int) -> None:
        self.characters = characters
        self.C = C
        self.seed = seed

    def fit(self, X: Sequence[str], y: NDArray[Any], sample_weight: ArrayLike | None = None) -> _LinearText:
        words = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, token_pattern=r"(?u)\b\w+\b")
        parts = TfidfVectorizer(ngram_range=(1, 5), sublinear_tf=True, analyzer="char_wb")
        self.features_ = make_union(words, parts) if self.characters else words
        self.svm_ = LinearSVC(C=self.C, random_state=self.seed)
        self.svm_.fit(self.features_.fit_transform(X), y, sample_weight)
        self.classes_ = self.svm_.classes_
        return self

    def decision_function(self, X: Sequence[str]) -> NDArray[np.float64]:
        margins: NDArray[np.float64] = self.svm_.decision_function(self.features_.transform(X))
        return margins

    def predict(self, X: Sequence[str]) -> NDArray[np.object_]:  # scikit-learn asks for it, nobody calls it
        labels: NDArray[np.object_] = self.svm_.predict(self.features_.transform(X))
        return labels


def _joined(text: Text) -> str:
    return text if isinstance(text, str) else "\n".join(text)
