"""Which words matter: the weights are right, the pieces give the text back, and the model is asked once."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fakes import FakeModel
from promptclf.classifiers.explain import MAX_UNITS, word_weights
from promptclf.classifiers.few_shot import FewShotClassifier
from promptclf.classifiers.zero_shot import ZeroShotClassifier
from promptclf.data.dataset import Dataset
from promptclf.errors import DataError, TextTooLongError
from promptclf.lm.model import HFModel
from promptclf.task import Task

TASK = Task("desk", ("billing", "delivery", "account"))


def explain(text: str, label: str | None = None, model: FakeModel | None = None, **options: bool) -> dict:
    classifier = ZeroShotClassifier(TASK, model or FakeModel(), calibration="none", **options).fit()
    found = word_weights(classifier, text, label)
    assert "".join(piece for piece, _ in found) == text
    return {piece: weight for piece, weight in found if not piece.isspace()}


def test_the_word_that_decides_has_all_the_weight() -> None:
    # With the keyword its label has 2 nats more than two others, which have equal scores.
    weights = explain("Where is my parcel today?")
    assert weights == {"Where": 0, "is": 0, "my": 0, "parcel": pytest.approx(2.0), "today?": 0}


def test_words_for_another_label_weigh_against_this_one() -> None:
    model = FakeModel()
    text = "my parcel and the invoice"
    weights = explain(text, "delivery", model)
    assert weights["parcel"] == pytest.approx(2.0)
    # The log-odds against exp(2) + 1 and, without the invoice, against 1 + 1.
    assert weights["invoice"] == pytest.approx(-np.log((np.exp(2) + 1) / 2))
    assert explain(text, "billing", model)["invoice"] == pytest.approx(2.0)
    assert explain(text, "billing", model)["parcel"] < 0


def test_a_repeated_word_weighs_nothing_as_the_other_one_remains() -> None:
    found = word_weights(ZeroShotClassifier(TASK, FakeModel()).fit(), "parcel parcel")
    assert found == [("parcel", 0.0), (" ", 0.0), ("parcel", 0.0)]


def test_one_call_scores_everything() -> None:
    model = FakeModel()
    explain("Where is my parcel today?", model=model)
    assert len(model.calls) == 1
    texts = [text.splitlines()[-2] for text in model.calls[0].texts]
    assert [text.split(": ")[-1] for text in texts] == [
        "Where is my parcel today?",
        "is my parcel today?",
        "Where my parcel today?",
        "Where is parcel today?",
        "Where is my today?",
        "Where is my parcel",
    ]


def test_the_prior_and_the_temperature_count() -> None:
    classifier = ZeroShotClassifier(TASK, FakeModel(), calibration="none").fit()
    classifier._set_calibration("prior", np.log([0.2, 0.6, 0.2]), 2.0)  # account, billing, delivery
    weights = dict(word_weights(classifier, "my parcel"))
    scores = np.array([[-1.0, -1.0, 1.0], [-1.0, -1.0, -1.0]]) - np.log([0.2, 0.6, 0.2])
    odds = scores[:, 2] / 2 - np.log(np.exp(scores[:, :2] / 2).sum(axis=1))
    assert weights["parcel"] == pytest.approx(odds[0] - odds[1])


def test_certainty_has_weights_too() -> None:
    weights = explain("my parcel", model=FakeModel(strength=900.0))  # its probability rounds to 1
    assert weights == {"my": 0, "parcel": pytest.approx(900.0)}


def test_few_shot_keeps_its_examples(dataset: Dataset) -> None:
    model = FakeModel()
    classifier = FewShotClassifier(dataset.task, model, selection="tfidf", calibration="none")
    classifier.fit([e.text for e in dataset.train], [e.label for e in dataset.train])
    whole = classifier.prompt("Where is the parcel again").text
    model.calls.clear()
    word_weights(classifier, "Where is the parcel again")
    shown = {text.rpartition("\n\n")[0] for text in model.calls[0].texts}
    assert shown == {whole.rpartition("\n\n")[0]}


def test_chinese_is_taken_apart_by_characters() -> None:
    model = FakeModel({"包裹": "delivery"})
    weights = explain("我的包裹呢？ order 4711", model=model)
    assert list(weights) == ["我", "的", "包", "裹", "呢", "？", "order", "4711"]
    assert weights["包"] == weights["裹"] == pytest.approx(2.0)
    assert weights["呢"] == 0


@pytest.mark.parametrize("text", ["word " * 1001, "包" * 777 + " x", "a" + " \n" * 300 + "b " * 400])
def test_long_texts_have_at_most_200_pieces(text: str) -> None:
    model = FakeModel(max_tokens=10_000)
    explain(text, model=model)
    assert MAX_UNITS / 2 < len(model.calls[0].prompts) <= MAX_UNITS + 1


def test_only_what_was_read_is_looked_at() -> None:
    model = FakeModel(max_tokens=512)
    classifier = ZeroShotClassifier(TASK, model, calibration="none", truncate=True).fit()
    text = "parcel " + "word " * 3000 + "invoice"
    found = word_weights(classifier, text)
    assert "".join(piece for piece, _ in found) == text
    assert found[0][1] == pytest.approx(2.0)
    (rest, weight) = found[-1]
    assert (weight, rest.endswith("invoice")) == (0.0, True)
    assert 2500 < len(rest.split()) < 3000
    with pytest.raises(TextTooLongError):
        explain(text)


def test_an_unknown_label_is_refused() -> None:
    with pytest.raises(DataError, match="label: expected one of account, billing, delivery, got 'spam'"):
        explain("my parcel", "spam")


@given(st.text(max_size=60))
def test_any_text_comes_back(text: str) -> None:
    explain(text)


def test_a_real_model_agrees_with_classifying_both(tiny: HFModel) -> None:
    classifier = ZeroShotClassifier(TASK, tiny, calibration="none").fit()
    text = "Where is my parcel?"
    weights = dict(word_weights(classifier, text, "delivery"))
    column = list(classifier.classes_).index("delivery")
    with_it, without = classifier.predict_proba([text, "Where is my"])[:, column]
    expected = np.log(with_it / (1 - with_it)) - np.log(without / (1 - without))
    assert weights["parcel?"] == pytest.approx(expected, abs=1e-4)
