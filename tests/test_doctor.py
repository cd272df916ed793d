"""The doctor finds what is wrong, names the rows, and stays silent where nothing is."""

from __future__ import annotations

import json
import random
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from promptclf.data.dataset import Dataset
from promptclf.data.doctor import Finding, Row, diagnose
from promptclf.data.similarity import near_duplicates, normal_form
from promptclf.task import Example, Task

WORDS = [
    "river",
    "stone",
    "garden",
    "winter",
    "letter",
    "orange",
    "planet",
    "violin",
    "market",
    "shadow",
    "bridge",
    "candle",
    "forest",
    "silver",
]


def clean_rows(labels: str, count: int, seed: int) -> list[Example]:
    random_ = random.Random(seed)
    return [Example(" ".join(random_.sample(WORDS, 6)), label) for label in labels for _ in range(count)]


def find(kind: str, findings: list[Finding]) -> Finding:
    found = [finding for finding in findings if finding.kind == kind]
    assert len(found) == 1, [finding.kind for finding in findings]
    return found[0]


def test_nothing_is_found_in_clean_data() -> None:
    assert diagnose({"train": clean_rows("ab", 12, 1), "test": clean_rows("ab", 5, 2)}) == []
    assert diagnose({"train": []}) == []
    assert diagnose({}) == []


def test_duplicates_within_a_split() -> None:
    rows = clean_rows("ab", 12, 1)
    rows += [Example(f"  {rows[2].text.upper()}\n", "a"), rows[2], rows[5]]
    finding = find("duplicates", diagnose({"train": rows}))
    assert (finding.severity, finding.count) == ("warning", 3)
    assert finding.rows == tuple(
        Row("train", row, group) for row, group in [(3, 0), (25, 0), (26, 0), (6, 1), (27, 1)]
    )


def test_duplicates_across_splits_are_no_duplicates_within() -> None:
    train, test = clean_rows("ab", 12, 1), clean_rows("ab", 5, 2)
    findings = diagnose({"train": train, "test": [*test, train[6], train[6]]})
    finding = find("duplicates_across_splits", findings)
    assert (finding.severity, finding.count) == ("error", 2)
    assert finding.rows == (Row("train", 7, 0), Row("test", 11, 0), Row("test", 12, 0))
    assert find("duplicates", findings).rows == (Row("test", 11, 0), Row("test", 12, 0))
    assert findings[0] is finding
    assert len(findings) == 2  # equal texts are not reported as near-duplicates as well


def test_pairs_are_duplicates_only_if_both_texts_are() -> None:
    rows = [
        Example("A man sleeps.", "x", pair=pair) for pair in ("He is awake.", "She sings.", "he is awake.")
    ]
    assert find("duplicates", diagnose({"train": rows})).rows == (Row("train", 1, 0), Row("train", 3, 0))


def test_conflicting_labels() -> None:
    train, test = clean_rows("ab", 12, 1), clean_rows("ab", 5, 2)
    test.append(Example(train[0].text, "b"))
    finding = find("conflicting_labels", diagnose({"train": train, "test": test}))
    assert (finding.severity, finding.count, finding.labels) == ("error", 1, ("a", "b"))
    assert finding.rows == (Row("train", 1, 0), Row("test", 11, 0))


def test_near_duplicates_name_the_most_similar_earlier_row() -> None:
    train = clean_rows("ab", 12, 1)
    train[3] = Example("My parcel has not arrived, where is it?", "a")
    train[5] = Example("My parcel has still not arrived, so where is it??", "a")
    test = [*clean_rows("ab", 5, 2), Example("My parcel has still not arrived, where is it??", "a")]
    findings = diagnose({"train": train, "test": test})
    across, within = find("near_duplicates_across_splits", findings), find("near_duplicates", findings)
    assert (across.severity, across.count, across.rows) == (
        "warning",
        1,
        (Row("train", 6, 0), Row("test", 11, 0)),
    )
    assert (within.severity, within.count, within.rows) == (
        "info",
        1,
        (Row("train", 4, 0), Row("train", 6, 0)),
    )


def test_empty_texts() -> None:
    rows = [*clean_rows("ab", 12, 1), Example(" \n", "a"), Example("", "b")]
    findings = diagnose({"train": rows})
    assert find("empty_texts", findings).rows == (Row("train", 25, 0), Row("train", 26, 1))
    assert len(findings) == 1


def test_labels_that_leave_nothing_to_choose_or_that_the_task_lacks() -> None:
    rows = [Example(f"text number {n} of many", "red") for n in range(12)]
    (finding, *_) = diagnose({"train": rows})
    assert (finding.kind, finding.severity, finding.labels) == ("single_label", "error", ("red",))
    task = Task("colours", ("red", "blue"))
    assert "single_label" not in {finding.kind for finding in diagnose({"train": rows}, task=task)}
    strange = [*rows, Example("something else", "pink"), Example("a green one", "green")]
    found = diagnose({"test": strange}, task=task)
    finding = next(finding for finding in found if finding.kind == "unknown_labels")
    assert (finding.kind, finding.count, finding.labels) == ("unknown_labels", 2, ("green", "pink"))
    assert finding.rows == (("test", 14, 0), ("test", 13, 1))


def test_small_rare_and_absent_classes() -> None:
    train = [*clean_rows("a", 60, 1), *clean_rows("b", 9, 2), *clean_rows("c", 12, 3), *clean_rows("d", 1, 4)]
    task = Task("t", ("a", "b", "c", "d", "e"))
    findings = diagnose({"train": train, "test": clean_rows("e", 5, 5)}, task=task)
    small = find("small_classes", findings)
    assert (small.severity, small.count, small.labels) == ("error", 2, ("b", "d"))
    assert "b (9), d (1)" in small.message
    assert find("absent_classes", findings).labels == ("e",)
    imbalance = find("imbalance", findings)
    assert (imbalance.severity, imbalance.labels) == ("warning", ("b", "d"))
    assert "macro-F1" in imbalance.advice
    assert find("small_classes", diagnose({"mail.csv": clean_rows("ab", 9, 1)})).severity == "warning"


def test_labels_in_two_spellings() -> None:
    rows = [*clean_rows("ab", 10, 1), *(Example(row.text[::-1], "A ") for row in clean_rows("a", 10, 2))]
    finding = find("label_spellings", diagnose({"train": rows}))
    assert (finding.severity, finding.count, finding.labels) == ("error", 1, ("A ", "a"))


def test_texts_over_the_token_limit() -> None:
    rows = clean_rows("ab", 12, 1)
    rows[4] = Example("long " * 30, "a", pair="and more")

    def count_tokens(texts: list[str]) -> list[int]:
        return [len(text.split()) for text in texts]

    finding = find("long_texts", diagnose({"train": rows}, count_tokens=count_tokens, max_tokens=31))
    assert (finding.count, finding.rows) == (1, (Row("train", 5, 0),))
    assert "the longest has 32" in finding.message
    assert diagnose({"train": rows}, count_tokens=count_tokens, max_tokens=32) == []
    assert diagnose({"train": rows}, count_tokens=count_tokens) == []


def test_label_token_collisions() -> None:
    ids = {"a": [1, 2], "b": [1, 2], "c": [1], "d": [1, 2, 3], "e": [], "f": [4]}
    train = [row for label in ids for row in clean_rows(label, 12, ord(label))]
    findings = diagnose({"train": train}, encode=ids.__getitem__)
    collisions, prefixes = find("label_token_collisions", findings), find("label_prefixes", findings)
    assert (collisions.severity, collisions.labels) == ("error", ("a", "b", "e"))
    assert (prefixes.severity, prefixes.labels) == ("info", ("a", "b", "c"))


def test_a_dataset_brings_its_verbalisers() -> None:
    rows = clean_rows("ab", 12, 1)
    task = Task("t", ("a", "b"), verbalisers={"a": "good", "b": "good!"})
    asked = []

    def encode(words: str) -> list[int]:
        asked.append(words)
        return [len(words)]

    assert diagnose(Dataset(task, tuple(rows), (), ()), encode=encode) == []
    assert asked == ["good", "good!"]


def test_findings_are_json() -> None:
    rows = clean_rows("ab", 12, 1)
    [finding] = diagnose({"train": [*rows, rows[0]]})
    values = json.loads(json.dumps(finding.to_dict()))
    assert values["kind"] == "duplicates"
    assert values["count"] == 1
    assert values["rows"] == [
        {"split": "train", "row": 1, "group": 0},
        {"split": "train", "row": 25, "group": 0},
    ]
    assert set(values) == {"kind", "severity", "count", "message", "advice", "rows", "labels"}


def jaccard(one: str, other: str, size: int) -> float:
    one, other = normal_form(one), normal_form(other)
    if not one or not other:
        return 0.0
    a = {one[at : at + size] for at in range(max(1, len(one) - size + 1))}
    b = {other[at : at + size] for at in range(max(1, len(other) - size + 1))}
    return len(a & b) / len(a | b)


@settings(deadline=None)
@given(
    st.lists(st.text("abcA ", max_size=25), max_size=25),
    st.sampled_from([0.1, 0.3, 0.5, 0.8, 1.0]),
    st.sampled_from([2, 5]),
)
def test_near_duplicates_are_exact(texts: list[str], threshold: float, size: int) -> None:
    expected = [
        (i, j, jaccard(texts[i], texts[j], size))
        for i in range(len(texts))
        for j in range(i + 1, len(texts))
        if jaccard(texts[i], texts[j], size) >= threshold
    ]
    assert near_duplicates(texts, threshold=threshold, size=size) == expected


def test_blocks_are_searched_completely() -> None:
    texts = [" ".join(row.text for row in clean_rows("a", 1, seed)) for seed in range(400)]
    texts += [f"{text} indeed" for text in texts]
    pairs = {(i, j) for i, j, _ in near_duplicates(texts)}
    assert {(n, n + 400) for n in range(400)} <= pairs
    sample = random.Random(0).sample(range(800), 60)
    for i in sample:
        for j in sample:
            assert ((i, j) in pairs) == (i < j and jaccard(texts[i], texts[j], 5) >= 0.5)


@pytest.mark.parametrize("kind", ["words", "one pattern"])
def test_ten_thousand_rows_take_seconds(kind: str) -> None:
    random_ = random.Random(0)
    vocabulary = ["".join(random_.choices("abcdefghijklmnop", k=6)) for _ in range(2000)]
    if kind == "words":
        texts = [" ".join(random_.choices(vocabulary, k=10)) for _ in range(10_000)]
    else:
        texts = [f"Hello, where is my order {random_.randrange(10**7)}, please?" for _ in range(10_000)]
    rows = [Example(text, random_.choice("ab")) for text in texts]
    start = time.perf_counter()
    diagnose({"train": rows})
    assert time.perf_counter() - start < 60  # about 2 and 8 seconds on an idle core
