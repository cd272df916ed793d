"""TextCleaner: what it changes, what it leaves alone, and that scikit-learn accepts it."""

from __future__ import annotations

import pickle
import unicodedata

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.base import clone
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.svm import LinearSVC

from fakes import FakeModel
from promptclf.classifiers.zero_shot import ZeroShotClassifier
from promptclf.data.clean import TextCleaner
from promptclf.errors import DataError
from promptclf.task import Task


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("  a \t b\r\n\nc ", "a b c"),
        ("a\u00a0b\u3000c\u2028d", "a b c d"),
        ("cafe\u0301", "café"),
        ("a\x00b\x07\x1b[31mc\x7f", "ab[31mc"),
        ("\ufefftext", "text"),
        ("half \ud83d emoji 👍🏽", "half emoji 👍🏽"),
        ("e\x00\u0301", "é"),
        ("KEEP Case, punctuation!! & 123", "KEEP Case, punctuation!! & 123"),
        ("family 👨\u200d👩\u200d👧 and می\u200cخواهم", "family 👨\u200d👩\u200d👧 and می\u200cخواهم"),
        ("\x00 \n", ""),
    ],
)
def test_default(text: str, expected: str) -> None:
    assert TextCleaner().transform([text]) == [expected]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("see https://example.org/a?b=c#d.", "see http."),
        ("(HTTP://EXAMPLE.ORG) www.example.org, ok", "(http) http, ok"),
        ("看https://t.cn/abc。好", "看http。好"),
        ("awww.sweet http and https alone", "awww.sweet http and https alone"),
        ("@Anna_B: ask me@example.org, @@x or 5 @ 3", "@user: ask me@example.org, @@x or 5 @ 3"),
        ("回复@张三：好", "回复@user：好"),
    ],
)
def test_masks(text: str, expected: str) -> None:
    assert TextCleaner(mask_urls=True, mask_users=True).clean(text) == expected
    assert TextCleaner().clean(text) == text


def test_lower_case() -> None:
    assert TextCleaner(lowercase=True).clean("ÄRGER Über Straße") == "ärger über straße"
    assert TextCleaner(lowercase=True).clean("H\u0331") == "\u1e96"  # only the small letter is composed


@given(st.text(st.characters()), st.booleans(), st.booleans(), st.booleans())
def test_cleaning_twice_changes_nothing_more(text: str, lowercase: bool, urls: bool, users: bool) -> None:
    cleaner = TextCleaner(lowercase=lowercase, mask_urls=urls, mask_users=users)
    once = cleaner.clean(text)
    assert cleaner.clean(once) == once
    assert unicodedata.is_normalized("NFC", once)
    assert once == " ".join(once.split())
    assert not any(unicodedata.category(char) in ("Cc", "Cs") for char in once)


@given(st.text("aA@. :/wthps\u0301é@名", max_size=30))
def test_masking_twice_changes_nothing_more(text: str) -> None:
    cleaner = TextCleaner(lowercase=True, mask_urls=True, mask_users=True)
    assert cleaner.clean(cleaner.clean(text)) == cleaner.clean(text)


def test_pairs_and_arrays() -> None:
    assert TextCleaner().transform([(" a ", " b "), ("c\n", None)]) == [("a", "b"), ("c", None)]
    assert TextCleaner().transform(np.array([" a ", "b\t"])) == ["a", "b"]
    assert TextCleaner().transform([]) == []


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        ("one text", "got a single text; put it in a list"),
        (["a", float("nan")], r"row 2: expected a text or a tuple \(text, pair\), got float"),
        ([None], "row 1: .* got NoneType"),
        ([("a", 1)], "row 1: .* got tuple"),
    ],
)
def test_what_is_not_text_is_refused(texts: object, message: str) -> None:
    with pytest.raises(DataError, match=message):
        TextCleaner().transform(texts)  # type: ignore[arg-type]


def test_scikit_learn_contract() -> None:
    cleaner = TextCleaner(lowercase=True)
    assert clone(cleaner).get_params() == {"lowercase": True, "mask_urls": False, "mask_users": False}
    assert pickle.loads(pickle.dumps(cleaner)).clean("A") == "a"
    assert cleaner.fit_transform(["A "]) == ["a"]
    tags = cleaner.__sklearn_tags__()
    assert (tags.requires_fit, tags.input_tags.string, tags.input_tags.two_d_array) == (False, True, False)


def test_a_step_of_a_searched_pipeline() -> None:
    texts = ["GOOD  film", "good\tshow", "Good book", "BAD film", "bad  show", "Bad\nbook"] * 3
    labels = ["pos"] * 3 + ["neg"] * 3
    pipeline = make_pipeline(TextCleaner(), TfidfVectorizer(lowercase=False), LinearSVC())
    search = GridSearchCV(pipeline, {"textcleaner__lowercase": [False, True]}, cv=3).fit(texts, labels * 3)
    assert search.best_score_ == 1.0
    assert list(search.predict([" good", "BAD "])) == ["pos", "neg"]


def test_a_pipeline_cleans_for_a_prompt(task: Task, fake_model: FakeModel) -> None:
    pipeline = make_pipeline(TextCleaner(mask_urls=True), ZeroShotClassifier(task, fake_model))
    pipeline.fit(["my parcel"] * 3, ["delivery"] * 3)
    assert list(pipeline.predict(["my\x00 parcel  http://a.example/invoice"])) == ["delivery"]
    assert "a.example" not in fake_model.calls[-1].texts[-1]
