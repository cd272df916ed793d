"""Which examples are shown: from the training texts only, the right ones, within their budget."""

from __future__ import annotations

import itertools
import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fakes import FakeModel
from promptclf.classifiers import selection as selectors
from promptclf.classifiers.few_shot import CV_FOLDS, CV_TEXTS, RANDOM_DRAWS, SELECTIONS, FewShotClassifier
from promptclf.data.dataset import Dataset
from promptclf.errors import DataError, TextTooLongError
from promptclf.lm.loading import load_model
from promptclf.lm.model import HFModel
from promptclf.prompt import Prompt, PromptTemplate
from promptclf.task import Task

TEMPLATE = PromptTemplate("plain", user="Text: {text}", cue="Label:")


def split(dataset: Dataset, name: str) -> tuple[list[str], list[str]]:
    examples = dataset.splits[name]
    return [e.text for e in examples], [e.label for e in examples]


def shown(prompt: Prompt) -> tuple[list[tuple[str, str]], str]:
    """The examples of a prompt (text, label), and the text to classify."""
    *blocks, last = prompt.text.split("\n\n")
    pairs = [block.removeprefix("Text: ").split("\nLabel: ") for block in blocks]
    return [(text, label) for text, label in pairs], last.removeprefix("Text: ").removesuffix("\nLabel:")


def make(model: Any, task: Task, **options: Any) -> FewShotClassifier:
    return FewShotClassifier(task, model, TEMPLATE, **options)


def examples_for(classifier: FewShotClassifier, text: str) -> list[tuple[str, str]]:
    return shown(classifier.prompt(text))[0]


# ---- where examples come from ---------------------------------------------------------------------


@pytest.mark.parametrize("selection", ["auto", *SELECTIONS])
@pytest.mark.parametrize("calibration", ["auto", "prior"])
def test_examples_come_from_the_training_texts_only(
    dataset: Dataset, selection: str, calibration: str
) -> None:
    """Recorded: every prompt that the model sees in fit and in predict."""
    model = FakeModel()
    train, held, test = (split(dataset, name) for name in ("train", "validation", "test"))
    classifier = make(model, dataset.task, selection=selection, calibration=calibration)
    classifier.fit(*train, validation=held)
    in_fit = len(model.calls)
    classifier.predict_proba(test[0])
    known = set(zip(*train, strict=True))
    for number, call in enumerate(model.calls):
        for prompt in call.prompts:
            examples, text = shown(prompt)
            assert examples
            assert set(examples) <= known
            assert text in (train[0] if number < in_fit else test[0])
    assert set(model.embedded) <= {*train[0], *(test[0] if classifier.selection_ == "embedding" else ())}


@pytest.mark.parametrize("selection", ["auto", *SELECTIONS])
def test_no_text_sees_itself_in_cross_validation(dataset: Dataset, selection: str) -> None:
    model = FakeModel()
    make(model, dataset.task, selection=selection).fit(*split(dataset, "train"))
    prompts = [prompt for call in model.calls for prompt in call.prompts]
    held_out = prompts if selection != "auto" else prompts[: 3 * 36]
    checked = 0
    for prompt in held_out[: 36 * (3 if selection == "auto" else 1)]:
        examples, text = shown(prompt)
        assert text not in [example for example, _ in examples]
        checked += 1
    assert checked >= 36


@pytest.mark.parametrize("calibration", ["auto", "prior"])
@pytest.mark.parametrize("selection", SELECTIONS)
def test_no_text_sees_a_copy_of_itself_in_fit(task: Task, selection: str, calibration: str) -> None:
    texts = [f"{word} {n // 2}" for n in range(12) for word in ("parcel", "invoice")]
    model = FakeModel()
    classifier = make(model, task, selection=selection, calibration=calibration, shots=8)
    classifier.fit(texts, ["delivery", "billing"] * 12)
    random = selection == "random" and calibration == "prior"  # the examples are the same for all texts
    for prompt in model.calls[0].prompts:
        examples, text = shown(prompt)
        assert random or text not in [example for example, _ in examples]


def test_similarities_are_never_held_of_all_texts_at_once(
    dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    classifier = make(FakeModel(), dataset.task, selection="tfidf", calibration="none")
    classifier.fit(*split(dataset, "train"))
    texts, selector = split(dataset, "test")[0], classifier.selector_
    whole = selector.choose(texts)
    sizes = []
    transform = selector.vectorizer.transform
    monkeypatch.setattr(
        selector.vectorizer, "transform", lambda block: sizes.append(len(block)) or transform(block)
    )
    monkeypatch.setattr(selectors, "BLOCK_CELLS", 36 * 5)
    assert selector.choose(texts) == whole
    assert sizes == [5, 5, 5, 3]


@pytest.mark.parametrize("selection", ["tfidf", "embedding"])
def test_the_prior_of_nearest_examples_is_estimated_without_the_text_itself(
    dataset: Dataset, selection: str
) -> None:
    model = FakeModel()
    make(model, dataset.task, selection=selection, calibration="prior").fit(*split(dataset, "train"))
    prompts = [prompt for call in model.calls for prompt in call.prompts]
    assert len(prompts) == 36
    for prompt in prompts:
        examples, text = shown(prompt)
        assert text not in [example for example, _ in examples]


# ---- random examples ------------------------------------------------------------------------------


@pytest.mark.parametrize("shots", [3, 4, 6, 11])
def test_random_examples_are_balanced_and_interleaved(dataset: Dataset, shots: int) -> None:
    for seed in range(5):
        classifier = make(
            FakeModel(), dataset.task, selection="random", calibration="none", shots=shots, seed=seed
        ).fit(*split(dataset, "train"))
        labels = [label for _, label in examples_for(classifier, "a text")]
        assert len(labels) == shots
        counts = Counter(labels).values()
        assert max(counts) - min(counts) <= 1
        for start in range(0, shots, 3):  # round after round through the labels
            assert len(set(labels[start : start + 3])) == len(labels[start : start + 3])
        assert all(a != b for a, b in itertools.pairwise(labels))


def test_random_examples_are_balanced_where_the_rows_are_not(task: Task) -> None:
    texts = [f"text {n}" for n in range(30)]
    labels = ["billing"] * 27 + ["delivery"] * 2 + ["account"]
    classifier = make(FakeModel(), task, selection="random", calibration="none", shots=6).fit(texts, labels)
    found = Counter(label for _, label in examples_for(classifier, "a text"))
    assert found == {"billing": 3, "delivery": 2, "account": 1}


def test_every_text_gets_the_same_random_examples_and_each_only_once(dataset: Dataset) -> None:
    classifier = make(FakeModel(), dataset.task, selection="random", calibration="none", shots=12)
    classifier.fit(*split(dataset, "train"))
    first, second = examples_for(classifier, "one"), examples_for(classifier, "another")
    assert first == second
    assert len(set(first)) == 12


def test_a_seed_gives_the_same_examples_again_and_another_seed_others(dataset: Dataset) -> None:
    def chosen(seed: int) -> list[tuple[str, str]]:
        classifier = make(FakeModel(), dataset.task, selection="random", calibration="none", seed=seed)
        return examples_for(classifier.fit(*split(dataset, "train")), "a text")

    assert chosen(1) == chosen(1)
    assert len({tuple(chosen(seed)) for seed in range(6)}) > 3


def test_by_default_each_label_is_shown(fake_model: FakeModel) -> None:
    labels = tuple(f"label{n}" for n in range(7))
    texts = [f"text {n}" for n in range(21)]
    classifier = make(fake_model, Task("many", labels), selection="random", calibration="none")
    classifier.fit(texts, [labels[n % 7] for n in range(21)])
    assert {label for _, label in examples_for(classifier, "x")} == set(labels)


# ---- the nearest examples -------------------------------------------------------------------------


POOL = {
    "the red fox jumps": "billing",
    "the red fox sleeps all day": "delivery",
    "a red car": "billing",
    "numbers and letters": "account",
    "the red fox jumps high": "delivery",
    "zebras": "account",
}


@pytest.mark.parametrize("selection", ["tfidf", "embedding"])
def test_the_nearest_comes_last(task: Task, selection: str) -> None:
    classifier = make(FakeModel(), task, selection=selection, calibration="none", shots=3)
    classifier.fit(list(POOL), list(POOL.values()))
    examples = [text for text, _ in examples_for(classifier, "the red fox jumps high")]
    assert examples[-2:] == ["the red fox jumps", "the red fox jumps high"]
    assert len(examples) == 3
    assert examples_for(classifier, "zebras")[-1] == ("zebras", "account")


def test_tfidf_similarity_is_the_cosine_of_scikit_learn(task: Task) -> None:
    from sklearn.feature_extraction.text import TfidfVectorizer

    classifier = make(FakeModel(), task, selection="tfidf", calibration="none", shots=6)
    classifier.fit(list(POOL), list(POOL.values()))
    vectorizer = TfidfVectorizer(analyzer="char_wb", ngram_range=(1, 4), sublinear_tf=True)
    vectors = vectorizer.fit_transform(POOL)
    similarity = (vectorizer.transform(["the fox is a zebra"]) @ vectors.T).toarray()[0]
    expected = [list(POOL)[i] for i in np.argsort(similarity)]
    assert [text for text, _ in examples_for(classifier, "the fox is a zebra")] == expected


@pytest.mark.parametrize("selection", ["tfidf", "embedding"])
def test_examples_do_not_depend_on_the_company(task: Task, selection: str) -> None:
    """Not even among equal texts with different labels."""
    texts = [*POOL, *POOL]
    labels = [*POOL.values(), *reversed(POOL.values())]
    classifier = make(FakeModel(), task, selection=selection, calibration="none", shots=5).fit(texts, labels)
    queries = [f"{text} {n}" for n, text in enumerate([*POOL] * 6)]
    together = classifier.selector_.choose(queries)
    assert [classifier.selector_.choose([query])[0] for query in queries] == together


def test_eight_nearest_by_default(dataset: Dataset) -> None:
    classifier = make(FakeModel(), dataset.task, selection="tfidf", calibration="none")
    assert len(examples_for(classifier.fit(*split(dataset, "train")), "my parcel")) == 8


# ---- the budget -----------------------------------------------------------------------------------


@pytest.mark.parametrize("selection", SELECTIONS)
@pytest.mark.parametrize("budget", [20, 60])
def test_the_token_budget_is_kept(dataset: Dataset, selection: str, budget: int) -> None:
    model = FakeModel()
    options = {"selection": selection, "calibration": "none", "shots": 30, "max_demo_tokens": budget}
    classifier = make(model, dataset.task, **options).fit(*split(dataset, "train"))
    bare = TEMPLATE.render(dataset.task, "my parcel")
    cost = len(classifier.prompt("my parcel").text.split()) - len(bare.text.split())
    assert cost <= budget
    assert cost > budget - 15  # and it is used: no example takes more than 10 words


@pytest.mark.parametrize("selection", SELECTIONS)
@pytest.mark.parametrize("template", ["completion", "chat"])
def test_the_token_budget_of_a_real_tokenizer_is_kept(
    dataset: Dataset, tiny_qwen3: Path, selection: str, template: str
) -> None:
    model = load_model(str(tiny_qwen3), device="cpu")
    classifier = FewShotClassifier(
        dataset.task, model, template, selection=selection, calibration="none", shots=30, max_demo_tokens=120
    ).fit(*split(dataset, "train"))
    for text in split(dataset, "test")[0]:
        bare = classifier.template_.render(dataset.task, text)
        cost = np.subtract(*model.count_tokens([classifier.prompt(text), bare]))
        assert 60 < cost <= 120


def test_a_long_example_is_passed_over(task: Task) -> None:
    texts = ["my parcel " + "word " * 300, "my parcel", "my invoice", "my password"]
    labels = ["delivery", "delivery", "billing", "account"]
    for selection in SELECTIONS:
        options = {"selection": selection, "calibration": "none", "max_demo_tokens": 50}
        classifier = make(FakeModel(), task, **options).fit(texts, labels)
        assert {text for text, _ in examples_for(classifier, "my parcel word")} == set(texts[1:])


@pytest.mark.parametrize("selection", SELECTIONS)
def test_where_no_example_fits_all_are_shortened_and_that_is_said(
    task: Task, selection: str, caplog: pytest.LogCaptureFixture
) -> None:
    texts = [f"my {word} " + "word " * 300 for word in ("parcel", "invoice", "password") * 2]
    labels = ["delivery", "billing", "account"] * 2
    options = {"selection": selection, "calibration": "none", "max_demo_tokens": 50}
    classifier = make(FakeModel(), task, **options).fit(texts, labels)
    assert [record.message for record in caplog.records] == [
        "none of the 6 examples fits into 50 tokens (max_demo_tokens), so they are shown shortened"
    ]
    examples = examples_for(classifier, "my parcel")
    assert len(examples) >= 3
    known = dict(zip(texts, labels, strict=True))
    for shown, label in examples:
        assert any(text.startswith(shown) and known[text] == label for text in texts)
        assert len(shown.split()) > 5
    cost = len(classifier.prompt("x").text.split()) - len(TEMPLATE.render(task, "x").text.split())
    assert cost <= 50
    assert classifier.provenance()["learned"]["examples_too_long"] == 6


def test_shortened_examples_of_a_real_tokenizer_fit(task: Task, tiny_qwen3: Path) -> None:
    model = load_model(str(tiny_qwen3), device="cpu")
    pairs = [(f"one {n} " + "text " * 200, f"two {n} " + "word " * 100) for n in range(6)]
    classifier = FewShotClassifier(task, model, calibration="none", selection="tfidf", max_demo_tokens=200)
    classifier.fit(pairs, ["delivery", "billing", "account"] * 2)
    text = ("one 3", "two 3")
    bare = classifier.template_.render(task, *text)
    cost = np.subtract(*model.count_tokens([classifier.prompt(text), bare]))
    assert 100 < cost <= 200
    assert classifier.prompt(text).text.count("Text 1: one") >= 4


@pytest.mark.parametrize("selection", SELECTIONS)
def test_another_template_shows_the_same_examples(dataset: Dataset, selection: str) -> None:
    fitted = make(FakeModel(), dataset.task, selection=selection, calibration="prior")
    fitted.fit(*split(dataset, "train"))
    template = PromptTemplate.load("question")
    other = fitted.with_template(template)
    [shown], [again] = fitted.selector_.choose(["my parcel"]), other.selector_.choose(["my parcel"])
    assert shown == again and len(shown) > 2
    assert other.prompt("my parcel") == template.render(dataset.task, "my parcel", None, shown)
    assert other.calibration_ == "none" and fitted.calibration_ == "prior"
    assert fitted.template_ != template
    # Examples that a template makes longer stay within the budget.
    long = PromptTemplate.from_dict({**template.to_dict(), "user": "{text}" + " word" * 60})
    few = fitted.with_template(long)
    assert 0 < len(few.selector_.choose(["my parcel"])[0]) < len(shown)
    assert few._count_costs(few.examples_) == few._costs


def test_without_room_for_any_example_there_is_no_few_shot(dataset: Dataset) -> None:
    for budget in (0, 1, 3):
        classifier = make(FakeModel(), dataset.task, max_demo_tokens=budget)
        with pytest.raises(DataError, match="max_demo_tokens: expected room for an example"):
            classifier.fit(*split(dataset, "train"))


def test_a_label_without_a_fitting_example_is_named(task: Task, caplog: pytest.LogCaptureFixture) -> None:
    texts = ["my parcel " + "word " * 300, "my invoice", "my password"]
    options = {"selection": "random", "calibration": "none", "max_demo_tokens": 50}
    make(FakeModel(), task, **options).fit(texts, ["delivery", "billing", "account"])
    assert [record.message for record in caplog.records] == [
        "no example of 'delivery' fits into 50 tokens (max_demo_tokens), so none of it is shown"
    ]


def test_half_of_a_small_model_is_left_for_the_text(dataset: Dataset) -> None:
    options = {"selection": "tfidf", "calibration": "none", "max_demo_tokens": 10_000, "shots": 99}
    classifier = make(FakeModel(max_tokens=100), dataset.task, **options).fit(*split(dataset, "train"))
    assert 30 < len(classifier.prompt("text").text.split()) <= 55
    with pytest.raises(TextTooLongError):
        classifier.predict(["word " * 90])


# ---- auto -----------------------------------------------------------------------------------------


def test_auto_measures_every_choice_and_takes_the_best(dataset: Dataset) -> None:
    model = FakeModel(bias={"billing": 3.0})  # without a prior it says billing all the time
    classifier = make(model, dataset.task).fit(*split(dataset, "train"))
    measured = classifier.cross_validation_
    assert [(m["selection"], m["draw"], m["calibration"]) for m in measured] == [
        (selection, draw, calibration)
        for selection in SELECTIONS
        for draw in range(RANDOM_DRAWS if selection == "random" else 1)
        for calibration in ("none", "prior")
    ]
    assert all(0 <= m["accuracy"] <= 1 and m["log_loss"] > 0 for m in measured)
    best = max(measured, key=lambda m: (m["accuracy"], -m["log_loss"]))
    assert (classifier.selection_, classifier.calibration_) == (best["selection"], best["calibration"])
    assert classifier.calibration_ == "prior"
    assert classifier.score(*split(dataset, "test")) == 1.0


@pytest.mark.parametrize("winner", SELECTIONS)
def test_auto_takes_the_selection_that_the_model_does_best_with(
    dataset: Dataset, monkeypatch: pytest.MonkeyPatch, winner: str
) -> None:
    """A model that only answers well when examples were chosen one way."""
    model, real = FakeModel(strength=0.0), FewShotClassifier._selector
    current: list[str] = []

    def selector(self: FewShotClassifier, selection: str, *args: Any) -> Any:
        current[:] = [selection]
        return real(self, selection, *args)

    def score(prompts: list[Prompt], answers: list[str], **options: Any) -> np.ndarray:
        truth = dict(zip(*split(dataset, "train"), strict=True))
        right = [[f" {truth[shown(prompt)[1]]}" == answer for answer in answers] for prompt in prompts]
        return np.array(right) * (5.0 if current == [winner] else -5.0)

    monkeypatch.setattr(FewShotClassifier, "_selector", selector)
    monkeypatch.setattr(model, "score", score)
    classifier = make(model, dataset.task).fit(*split(dataset, "train"))
    assert classifier.selection_ == winner
    found = {m["selection"]: m["accuracy"] for m in classifier.cross_validation_}
    assert found == {selection: float(selection == winner) for selection in SELECTIONS}


@pytest.mark.parametrize("best", range(RANDOM_DRAWS))
def test_auto_shows_the_random_set_that_the_model_does_best_with(
    dataset: Dataset, monkeypatch: pytest.MonkeyPatch, best: int, tmp_path: Path
) -> None:
    """Which examples are shown moves accuracy more than how they are chosen."""
    train, test = split(dataset, "train"), split(dataset, "test")
    open_to = make(FakeModel(), dataset.task, selection="random", calibration="auto").fit(*train)
    sets = []
    for draw in range(RANDOM_DRAWS):
        open_to.draw_ = draw
        sets.append(open_to._selector("random", range(len(train[0]))).choose([""])[0])
    assert len({tuple(e.text for e in examples) for examples in sets}) == RANDOM_DRAWS
    wanted = [(e.text, e.label) for e in sets[best]]
    model = FakeModel(strength=0.0)

    def score(prompts: list[Prompt], answers: list[str], **options: Any) -> np.ndarray:
        truth = dict(zip(*train, strict=True))
        right = [[f" {truth.get(shown(prompt)[1])}" == answer for answer in answers] for prompt in prompts]
        return np.array(right) * (5.0 if shown(prompts[0])[0] == wanted else -5.0)

    monkeypatch.setattr(model, "score", score)
    classifier = make(model, dataset.task).fit(*train)
    assert (classifier.selection_, classifier.draw_) == ("random", best)
    assert classifier.selector_.choose(test[0][:2]) == [sets[best]] * 2
    classifier.save_pretrained(tmp_path / "saved")
    loaded = FewShotClassifier.from_pretrained(tmp_path / "saved", model=model)
    assert loaded.selector_.choose(test[0][:1]) == [sets[best]]


def test_only_what_was_left_open_is_measured(dataset: Dataset) -> None:
    one = make(FakeModel(), dataset.task, selection="tfidf").fit(*split(dataset, "train"))
    assert [m["selection"] for m in one.cross_validation_] == ["tfidf", "tfidf"]
    two = make(FakeModel(), dataset.task, calibration="prior").fit(*split(dataset, "train"))
    assert {m["calibration"] for m in two.cross_validation_} == {"prior"}
    model = FakeModel()
    three = make(model, dataset.task, selection="random", calibration="none").fit(*split(dataset, "train"))
    assert three.cross_validation_ == []
    assert not model.calls  # nothing to find out


def test_cross_validation_is_bounded(task: Task) -> None:
    count = CV_TEXTS + 150
    texts = [f"text number {n} of many" for n in range(count)]
    model = FakeModel()
    make(model, task, selection="tfidf").fit(texts, [task.labels[n % 3] for n in range(count)])
    held_out = [prompt for call in model.calls[:CV_FOLDS] for prompt in call.prompts]
    assert len(held_out) == len({shown(prompt)[1] for prompt in held_out}) == CV_TEXTS


def test_with_a_handful_of_texts_there_is_nothing_to_measure(task: Task) -> None:
    classifier = make(FakeModel(), task).fit(["an invoice", "a parcel"], ["billing", "delivery"])
    assert (classifier.selection_, classifier.calibration_) == ("random", "none")
    assert classifier.predict(["my password"]).tolist() == ["account"]  # a label without an example


def test_the_same_seed_chooses_the_same(dataset: Dataset) -> None:
    def chosen(seed: int) -> tuple[Any, ...]:
        classifier = make(FakeModel(), dataset.task, seed=seed).fit(*split(dataset, "train"))
        return classifier.cross_validation_, classifier.predict_proba(split(dataset, "test")[0]).tolist()

    assert chosen(3) == chosen(3)


# ---- refusals, pairs, provenance ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"selection": "bm25"}, "selection: expected one of auto, random, tfidf, embedding, got 'bm25'"),
        ({"calibration": "batch"}, "calibration: expected one of auto, none, prior, got 'batch'"),
    ],
)
def test_unknown_choices_are_refused(dataset: Dataset, options: dict[str, str], message: str) -> None:
    with pytest.raises(DataError, match=message):
        make(FakeModel(), dataset.task, **options).fit(*split(dataset, "train"))


def test_without_labelled_texts_there_is_nothing_to_show(task: Task) -> None:
    with pytest.raises(DataError, match="few-shot needs labelled texts to choose examples from"):
        make(FakeModel(), task).fit([], [])


@pytest.mark.parametrize("selection", SELECTIONS)
def test_texts_without_a_word_are_no_reason_to_fail(task: Task, selection: str) -> None:
    classifier = make(FakeModel(), task, selection=selection, calibration="none")
    classifier.fit(["", " ", ""], ["billing", "delivery", "account"])
    assert classifier.predict_proba(["", "parcel"]).shape == (2, 3)


def test_examples_with_two_texts(task: Task) -> None:
    template = PromptTemplate("pair", user="A: {text}\nB: {pair}", cue="Label:")
    pairs = [(f"first {n}", f"second {word} {n}") for n, word in enumerate(["invoice", "parcel"] * 4)]
    for selection in SELECTIONS:
        classifier = FewShotClassifier(
            task, FakeModel(), template, selection=selection, calibration="none", shots=2
        )
        classifier.fit(pairs, ["billing", "delivery"] * 4)
        prompt = classifier.prompt(("first 3", "second parcel 3")).text
        assert prompt.count("A: first") == prompt.count("B: second") == 3
        assert prompt.endswith("A: first 3\nB: second parcel 3\nLabel:")


def test_provenance_tells_the_pool_by_number_and_hash(dataset: Dataset) -> None:
    train = split(dataset, "train")
    first = make(FakeModel(), dataset.task, seed=1).fit(*train).provenance()
    other = make(FakeModel(), dataset.task, seed=1).fit(train[0][1:], train[1][1:]).provenance()
    assert first["learned"]["pool"] == 36
    assert len(first["learned"]["pool_sha256"]) == 64
    assert first["learned"]["pool_sha256"] != other["learned"]["pool_sha256"]
    assert train[0][0] not in json.dumps(first)  # no texts in results
    assert len(first["learned"]["cross_validation"]) == 2 * (RANDOM_DRAWS + 2)


def test_embeddings_of_a_real_model_find_equal_texts(dataset: Dataset, tiny: HFModel) -> None:
    classifier = make(tiny, dataset.task, selection="embedding", calibration="none", shots=2)
    train = split(dataset, "train")
    classifier.fit(*train)
    for text, label in zip(train[0][:6], train[1][:6], strict=True):
        assert examples_for(classifier, text)[-1] == (text, label)
