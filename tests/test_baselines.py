"""The classical row: scikit-learn's contract, honest probabilities, and the reference figures."""

from __future__ import annotations

import csv
import json
import random
from pathlib import Path

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import cross_val_score

from promptclf.classifiers.baselines import TfidfSvmClassifier
from promptclf.errors import DataError
from promptclf.task import Task

DATA = Path(__file__).parents[2] / "shared" / "data"
TASK = Task("desk", ("delivery", "billing", "account"))
WORDS = {
    "billing": ["invoice", "charge", "refund", "payment", "card", "price"],
    "delivery": ["parcel", "courier", "late", "tracking", "box", "address"],
    "account": ["password", "login", "email", "profile", "username", "locked"],
}


def messages(
    per_label: int, seed: int = 0, labels: tuple[str, ...] = TASK.labels
) -> tuple[list[str], list[str]]:
    """Sentences of a label's words among filler that says nothing; one in ten has another's words."""
    rng = random.Random(seed)
    filler = ["please", "my", "the", "help", "with", "again", "today", "why", "is", "hello", "and", "about"]
    texts, y = [], []
    for label in labels:
        for _ in range(per_label):
            topic = label if rng.random() < 0.9 else rng.choice(TASK.labels)
            words = [*rng.sample(WORDS[topic], 2), *rng.sample(filler, 5)]
            rng.shuffle(words)
            texts.append(" ".join(words))
            y.append(label)
    return texts, y


@pytest.fixture(scope="module")
def fitted() -> TfidfSvmClassifier:
    return TfidfSvmClassifier(TASK).fit(*messages(40))


def test_it_learns_and_its_parts_agree(fitted: TfidfSvmClassifier) -> None:
    texts, y = messages(40, seed=1)
    proba = fitted.predict_proba(texts)
    assert list(fitted.classes_) == ["account", "billing", "delivery"]
    assert proba.shape == (120, 3)
    assert np.abs(proba.sum(axis=1) - 1).max() < 1e-9
    predicted = fitted.predict(texts)
    assert (predicted == fitted.classes_[proba.argmax(axis=1)]).all()
    assert fitted.score(texts, y) == np.mean(predicted == y) > 0.85


def test_probabilities_know_that_one_in_ten_is_noise(fitted: TfidfSvmClassifier) -> None:
    texts, y = messages(100, seed=2)
    confidence = fitted.predict_proba(texts).max(axis=1).mean()
    assert confidence == pytest.approx(fitted.score(texts, y), abs=0.06)


def test_classify_gives_predictions(fitted: TfidfSvmClassifier) -> None:
    first, second = fitted.classify(["my invoice has a wrong price", ("parcel late", "courier")])
    assert first.label == "billing"
    assert first.probabilities["billing"] == max(first.probabilities.values())
    assert set(first.probabilities) == set(TASK.labels)
    assert second.text == "parcel late\ncourier"
    assert second.label == "delivery"


def test_no_texts_give_no_rows(fitted: TfidfSvmClassifier) -> None:
    assert fitted.predict_proba([]).shape == (0, 3)
    assert fitted.predict([]).shape == (0,)
    assert fitted.classify([]) == []


def test_the_second_text_of_a_pair_counts() -> None:
    texts, y = messages(15)
    model = TfidfSvmClassifier(TASK).fit([("the same", text) for text in texts], y)
    assert list(model.predict([("the same", "locked login"), ("the same", "parcel")])) == [
        "account",
        "delivery",
    ]


def test_fitting_twice_gives_the_same_probabilities() -> None:
    texts, y = messages(20)
    other, _ = messages(5, seed=3)
    first, second = (TfidfSvmClassifier(TASK).fit(texts, y).predict_proba(other) for _ in range(2))
    assert (first == second).all()


def test_validation_rows_are_learned_from() -> None:
    texts, y = messages(10, labels=("billing", "delivery"))
    model = TfidfSvmClassifier(TASK).fit(texts, y, validation=messages(10, labels=("account",)))
    assert model.predict(["password locked"])[0] == "account"
    assert model.provenance()["learned"] == {"rows": 30, "folds": 5}


def test_a_weight_of_nearly_nothing_silences_a_row() -> None:
    texts, y = messages(20)
    wrong = [("password login", "billing")] * 20
    loud = TfidfSvmClassifier(TASK).fit(
        [*texts, *(t for t, _ in wrong)], [*y, *(label for _, label in wrong)]
    )
    quiet = TfidfSvmClassifier(TASK).fit(
        [*texts, *(t for t, _ in wrong)],
        [*y, *(label for _, label in wrong)],
        sample_weight=[1.0] * len(texts) + [1e-6] * len(wrong),
    )
    assert loud.predict(["password login"])[0] == "billing"
    assert quiet.predict(["password login"])[0] == "account"


@pytest.mark.parametrize("rows", [1, 2, 3])
def test_a_label_with_few_rows_is_learned(rows: int) -> None:
    texts, y = messages(20, labels=("billing", "delivery"))
    few, few_y = messages(rows, labels=("account",))
    model = TfidfSvmClassifier(TASK).fit([*texts, *few], [*y, *few_y])
    proba = model.predict_proba(few)
    assert np.isfinite(proba).all()
    assert (model.predict(few) == "account").all()
    assert model.folds_ == max(2, rows)
    assert model.rows_ == 40 + rows


def test_one_row_a_label_is_enough_to_run() -> None:
    model = TfidfSvmClassifier(TASK).fit(
        ["invoice", "parcel", "password"], ["billing", "delivery", "account"]
    )
    assert list(model.predict(["my invoice", "a parcel", "the password"])) == [
        "billing",
        "delivery",
        "account",
    ]


def test_a_label_without_training_rows_has_a_column_of_zeros() -> None:
    model = TfidfSvmClassifier(TASK).fit(*messages(10, labels=("billing", "delivery")))
    proba = model.predict_proba(["password"])
    assert list(model.classes_) == ["account", "billing", "delivery"]
    assert proba[0, 0] == 0
    assert proba.sum() == pytest.approx(1)


def test_text_without_spaces_is_told_apart_by_characters() -> None:
    task = Task("zh", ("体育", "财经"))
    sport = [
        "球队昨晚赢得比赛",
        "主场比赛球迷很多",
        "这支球队换了教练",
        "决赛球队名单公布",
        "比赛结束教练离开",
    ]
    money = [
        "股市今天大幅上涨",
        "银行宣布提高利率",
        "股市投资者很担心",
        "利率上涨影响银行",
        "公司股价继续上涨",
    ]
    model = TfidfSvmClassifier(task).fit(sport + money, ["体育"] * 5 + ["财经"] * 5)
    assert list(model.predict(["教练说球队会赢", "银行股价和利率"])) == ["体育", "财经"]


def test_scikit_learn_can_clone_search_and_validate() -> None:
    texts, y = messages(12)
    model = TfidfSvmClassifier(TASK, C=0.5, characters=False)
    copy = clone(model)
    assert copy.get_params() == model.get_params()
    assert copy.task is TASK
    assert cross_val_score(model, texts, y, cv=3).mean() > 0.7


def test_provenance_is_json(fitted: TfidfSvmClassifier) -> None:
    origin = json.loads(json.dumps(fitted.provenance()))
    assert origin["mode"] == fitted.mode == "tfidf-svm"
    assert origin["task_fingerprint"] == TASK.fingerprint
    assert origin["parameters"] == {"characters": True, "C": 1.0, "seed": 0}
    assert set(origin["versions"]) == {"python", "promptclf", "scikit-learn"}


@pytest.mark.parametrize(
    ("X", "y", "weights", "message"),
    [
        (["a", "b"], ["billing"], None, "expected 2 labels, one per text, got 1"),
        (["a", "b"], ["billing", "other"], None, "'other' is not a label of task 'desk'"),
        (["a", "b"], ["billing", "billing"], None, "at least two labels"),
        ([], [], None, "at least two labels"),
        ("ab", ["billing", "account"], None, "put it in a list"),
        (["a", "b"], ["billing", "account"], [1.0], "expected 2 weights"),
    ],
)
def test_what_cannot_be_learned_from_is_refused(
    X: list[str], y: list[str], weights: list[float] | None, message: str
) -> None:
    with pytest.raises(DataError, match=message):
        TfidfSvmClassifier(TASK).fit(X, y, sample_weight=weights)


def test_an_unfitted_classifier_says_so() -> None:
    with pytest.raises(NotFittedError):
        TfidfSvmClassifier(TASK).predict(["a"])


def read(path: Path) -> tuple[list[str], list[str]]:
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    return [row["text"] for row in rows], [row["label"] for row in rows]


@pytest.mark.skipif(not (DATA / "trec").is_dir(), reason="the public data sets are not here")
def test_the_reference_figure_on_trec_is_reached() -> None:
    texts, y = read(DATA / "trec" / "train.csv")
    model = TfidfSvmClassifier(Task("trec", tuple(sorted(set(y)))), characters=False).fit(texts, y)
    assert model.score(*read(DATA / "trec" / "test.csv")) >= 0.884
