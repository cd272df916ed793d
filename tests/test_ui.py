"""The app without a page or a server: what it answers, to whom, and what it refuses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from fakes import FakeModel
from promptclf.classifiers.zero_shot import ZeroShotClassifier
from promptclf.errors import DataError, PromptClfError
from promptclf.jobs.store import Store
from promptclf.prompt import PromptTemplate
from promptclf.schema import MAX_CHARS
from promptclf.task import Task
from promptclf.ui.core import ready
from promptclf.ui.core.answer import agreement
from promptclf.ui.core.ready import Source
from promptclf.ui.core.service import Service
from promptclf.ui.views import cards
from visitors import SUPPORT


@pytest.fixture(autouse=True)
def own_home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("PROMPTCLF_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture
def model() -> FakeModel:
    return FakeModel(SUPPORT, strength=4.0)


@pytest.fixture
def no_adapter(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(ready, "PACKAGED_TASKS", tmp_path / "tasks")


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


# ---- answering -----------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["zero-shot", "few-shot"])
def test_answers_for_the_packaged_task(model: FakeModel, mode: str) -> None:
    answer = Service(model).classify("Where is my parcel?", mode, "support").to_dict()

    assert answer["label"] == "delivery status"
    assert answer["mode"] == mode
    assert sum(answer["probabilities"].values()) == pytest.approx(1)
    assert list(answer["probabilities"].values()) == sorted(answer["probabilities"].values(), reverse=True)
    assert set(answer["probabilities"]) == set(Task.load("support").labels)
    assert answer["milliseconds"] > 0
    assert answer["model"]["name"] == "fake"
    assert answer["truncated"] is False


def test_few_shot_shows_examples_of_the_train_split(model: FakeModel) -> None:
    it = Service(model)
    it.classify("Where is my parcel?", "few-shot")
    shown = model.calls[-1].texts[0]

    train = {example.text for example in it.ready.dataset(Source("support")).train}
    assert sum(text in shown for text in train) >= 2


def test_own_labels_without_examples(model: FakeModel) -> None:
    labels = ["delivery status", "refund"]
    it = Service(model)

    assert it.classify("my parcel", "zero-shot", labels=labels).label == "delivery status"
    for mode in ("few-shot", "lora"):
        with pytest.raises(DataError, match="needs labelled examples"):
            it.classify("my parcel", mode, labels=labels)


@pytest.mark.usefixtures("no_adapter")
def test_lora_without_an_adapter_says_so(model: FakeModel) -> None:
    with pytest.raises(DataError, match="needs a trained adapter"):
        Service(model).classify("my parcel")


def test_the_adapter_of_the_task_is_used(
    model: FakeModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Any mode may lie there; one that needs no real model stands in for LoRA.
    folder = tmp_path / "tasks" / "support" / "adapter"
    folder.parent.mkdir(parents=True)
    monkeypatch.setattr(ready, "PACKAGED_TASKS", tmp_path / "tasks")
    template = PromptTemplate.load("question")
    ZeroShotClassifier(Task.load("support"), model, template).fit().save_pretrained(folder)

    answer = Service(model).classify("my parcel " * 2000)

    assert (answer.mode, answer.label, answer.truncated) == ("lora", "delivery status", True)
    assert model.calls[-1].prompts[0].cue == template.render(Task.load("support"), "x").cue


@pytest.mark.parametrize(
    ("field", "arguments"),
    [
        ("text", {"text": ""}),
        ("text", {"text": " \n\t"}),
        ("text", {"text": None}),
        ("text", {"text": 7}),
        ("text", {"text": ["a"]}),
        ("text", {"text": "x" * (MAX_CHARS + 1)}),
        ("text", {"text": "half \ud83d of it"}),
        ("mode", {"mode": "magic"}),
        ("mode", {"mode": None}),
        ("mode", {"mode": ["lora"]}),
        ("task", {"task": "../support"}),
        ("task", {"task": "another"}),
        ("task", {"task": None}),
        ("task", {"task": ["support"]}),
        ("labels", {"labels": "refund"}),
        ("labels", {"labels": {"a": 1, "b": 2}}),
        ("labels", {"labels": 3}),
        ("labels", {"labels": []}),
        ("labels", {"labels": ["one"]}),
        ("labels", {"labels": ["one", 2]}),
        ("labels", {"labels": ["one", None]}),
        ("labels", {"labels": ["one", "  "]}),
        ("labels", {"labels": ["same", " Same "]}),
        ("labels", {"labels": ["a", "b" * 101]}),
        ("labels", {"labels": ["a", "b\x00"]}),
        ("labels", {"labels": ["a", "\udc00"]}),
        ("labels", {"labels": [f"label {n}" for n in range(101)]}),
        ("adapter", {"adapter": "../adapter"}),
    ],
)
def test_wrong_arguments_are_named(model: FakeModel, field: str, arguments: dict[str, Any]) -> None:
    values = {"text": "my parcel", "mode": "zero-shot", "task": "support", **arguments}
    with pytest.raises(PromptClfError, match=rf"^{field}: ") as caught:
        Service(model).classify(**values)
    assert len(str(caught.value)) < 250
    assert not model.calls


def test_a_text_may_have_exactly_the_limit(model: FakeModel) -> None:
    answer = Service(model).classify("a" * MAX_CHARS, "zero-shot", labels=["refund", "invoice"])
    assert answer.truncated is False  # one word


def test_a_text_over_the_token_limit_is_cut_and_that_is_told(model: FakeModel) -> None:
    answer = Service(model).classify("parcel " + "word " * 3000, "few-shot")
    assert answer.truncated is True
    assert "only the beginning was read" in cards.answer_card(answer)


@pytest.mark.usefixtures("no_adapter")
def test_compare_gives_answers_reasons_and_a_sentence(model: FakeModel) -> None:
    result = Service(model).compare("my parcel")
    assert set(result) == {"predictions", "unavailable", "agreement"}
    assert set(result["predictions"]) == {"zero-shot", "few-shot"}
    assert set(result["unavailable"]) == {"lora"}
    assert result["agreement"] == "Both modes say “delivery status”."

    own = Service(model).compare("my parcel", labels=["refund", "invoice"])
    assert set(own["predictions"]) == {"zero-shot"}
    assert all("needs labelled examples" in reason for reason in own["unavailable"].values())
    assert own["agreement"] == "Only Zero-shot could answer."
    with pytest.raises(DataError, match=r"^text: "):
        Service(model).answers("")


@pytest.mark.parametrize(
    ("labels", "sentence"),
    [
        ("aaa", "All three modes say “a”."),
        ("abc", "All three modes disagree: a text worth labelling."),
        ("aab", "Zero-shot and Few-shot say “a”, LoRA says “b”."),
        ("baa", "Few-shot and LoRA say “a”, Zero-shot says “b”."),
        ("ab", "Both modes disagree: a text worth labelling."),
        ("aa", "Both modes say “a”."),
        ("a", "Only Zero-shot could answer."),
        ("", "No mode could answer."),
    ],
)
def test_agreement(labels: str, sentence: str) -> None:
    given = dict(zip(["zero-shot", "few-shot", "lora"], labels, strict=False))
    assert agreement(given) == sentence
    assert "a" not in agreement(given, "zh").replace("“a”", "").replace("LoRA", "")


def test_many_texts_come_some_at_a_time(model: FakeModel) -> None:
    it = Service(model)
    texts = [f"my parcel {n}" for n in range(20)]
    question = it.question("-", "few-shot")
    parts = list(it.classify_many(texts, "few-shot", question))
    assert [len(part) for part in parts] == [8, 8, 4]
    assert [p.text for part in parts for p in part] == texts
    it.close()
    with pytest.raises(PromptClfError, match="closing"):
        next(iter(it.classify_many(texts, "few-shot", question)))


# ---- saying why ----------------------------------------------------------------------------------


def test_why_shows_words_examples_and_the_exact_prompt(model: FakeModel) -> None:
    it = Service(model)
    why = it.explain(it.question("Where is my parcel?", "few-shot"), "few-shot")
    prompt = next(call.prompts[0] for call in reversed(model.calls))

    assert why.label == "delivery status"
    assert "".join(piece for piece, _ in why.weights) == "Where is my parcel?"
    assert max(why.weights, key=lambda pair: pair[1])[0].startswith("parcel")
    assert why.prompt == prompt.text
    assert why.tokens == len(prompt.text.split())
    assert [e.text in why.prompt for e in why.examples] == [True] * len(why.examples)
    assert 2 <= len(why.examples) <= 8

    bare = it.explain(it.question("x", labels=["delivery status", "refund"]), "zero-shot", "refund")
    assert (bare.label, bare.examples) == ("refund", ())


def test_a_template_is_tried_without_calibration(model: FakeModel) -> None:
    it = Service(model)
    template = PromptTemplate.load("question")
    for mode, shots in (("zero-shot", 0), ("few-shot", 2), ("lora", 0)):
        question = it.question("Where is my parcel?", mode)
        shown, tokens = it.preview(template, question, mode)
        assert shown.rstrip().endswith(template.cue)
        assert shown.count("Question: ") >= 1 + shots
        assert tokens == len(shown.split())
    answer = it.try_template(template, it.question("Where is my parcel?"), "zero-shot")
    assert answer.label == "delivery status"
    assert model.calls[-1].prompts[0].cue == template.cue
    with pytest.raises(DataError, match="needs labelled examples"):
        it.preview(template, it.question("x", labels=["a", "b"]), "few-shot")
