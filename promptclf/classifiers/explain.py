"""Which words of a text speak for a label: leave each one out and see how the answer changes.

Leave-one-out, also called occlusion (Li, Monroe and Jurafsky 2016, arXiv:1612.08220): the weight of a word
is the label's log-odds with it minus those without it, in nats, so that positive words speak for the
label. Nothing is said about words that only matter together.
"""

from __future__ import annotations

import re
from bisect import bisect_right

import numpy as np
from numpy.typing import NDArray
from scipy.special import logsumexp

from promptclf.classifiers.base import PromptClassifier
from promptclf.errors import DataError

MAX_UNITS = 200

# Scripts that put no space between words: there, every character counts as a word.
_UNSPACED = "\u3001-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\uff01-\uffef\U00020000-\U000323af"
_PIECES = re.compile(rf"\s+|[{_UNSPACED}]|[^\s{_UNSPACED}]+")


def word_weights(
    classifier: PromptClassifier, text: str, label: str | None = None
) -> list[tuple[str, float]]:
    """How much each word of a text speaks for a label, scored in one call of the model.

    Few-shot keeps the examples that it chose for the whole text.

    Parameters
    ----------
    classifier
        A fitted classifier.
    text
        What was classified. Only what fits into the model is looked at.
    label
        One of the task's; default: the one that the classifier answers.

    Returns
    -------
    Pieces that joined give the text back, each with its weight in nats; white space weighs 0. Longer
    texts have words joined into pieces, so that there are at most 200 with a weight.

    Raises
    ------
    DataError
        If the label is not one of the task's.
    TextTooLongError
        If the text exceeds the token limit and the classifier does not truncate.
    """
    labels = [str(known) for known in classifier.classes_]
    if label is not None and label not in labels:
        raise DataError(f"label: expected one of {', '.join(labels[:10])}, got {label!r:.60}")
    examples = classifier._examples([text])[0]
    prompt, cut = classifier._fitting(text, examples)
    read = text
    if cut:  # the prompt holds the longest beginning that fits
        shown = prompt.messages[-1].content
        read = text[: bisect_right(range(len(text)), 0, key=lambda end: text[: end + 1] not in shown)]
    pieces = _pieces(read)
    words = [index for index, (start, end) in enumerate(pieces) if not read[start:end].isspace()]
    without = [_without(read, *pieces[index]) for index in words]
    render = classifier.template_.render
    prompts = [prompt, *(render(classifier.task, shorter, None, examples) for shorter in without)]
    odds = _log_odds(classifier, classifier._score(prompts, exact=True))
    column = int(odds[0].argmax()) if label is None else labels.index(label)
    weights = dict(zip(words, odds[0, column] - odds[1:, column], strict=True))
    found = [(read[start:end], float(weights.get(index, 0.0))) for index, (start, end) in enumerate(pieces)]
    return found + ([(text[len(read) :], 0.0)] if len(read) < len(text) else [])


def _log_odds(classifier: PromptClassifier, scores: NDArray[np.float64]) -> NDArray[np.float64]:
    """Log-odds of each label against all others, shape (n, k).

    They are taken from log-likelihoods: probabilities that round to 1 would have none.
    """
    scaled = (scores - classifier.log_prior_) / classifier.temperature_
    others = [logsumexp(np.delete(scaled, column, axis=1), axis=1) for column in range(scaled.shape[1])]
    return np.asarray(scaled - np.stack(others, axis=1))


def _pieces(text: str) -> list[tuple[int, int]]:
    """Start and end of words and of the space between them; neighbours are joined if they are too many."""
    spans = [match.span() for match in _PIECES.finditer(text)]
    words = [span for span in spans if not text[slice(*span)].isspace()]
    size = -(-len(words) // MAX_UNITS)
    if size <= 1:
        return spans
    joined = [(words[i][0], words[min(i + size, len(words)) - 1][1]) for i in range(0, len(words), size)]
    ends = [0, *(end for _, end in joined)]
    starts = [*(start for start, _ in joined), len(text)]
    gaps = [(end, start) for end, start in zip(ends, starts, strict=True) if end < start]
    return sorted([*joined, *gaps])


def _without(text: str, start: int, end: int) -> str:
    """The text as if a word had never been written: of the space on both its sides, one remains."""
    before, after = text[:start], text[end:]
    if not after.strip():
        return before.rstrip() + after
    return before + after.lstrip() if not before or before[-1].isspace() else before + after
