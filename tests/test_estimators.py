"""One suite for all modes: scikit-learn's contract, and what a classifier promises beyond it."""

from __future__ import annotations

import copy
import gc
import json
import os
import pickle
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn import config_context
from sklearn.base import clone, is_classifier
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV, StratifiedKFold, cross_val_score

from fakes import FakeModel
from promptclf.classifiers.base import PromptClassifier, spread
from promptclf.classifiers.baselines import TfidfSvmClassifier
from promptclf.classifiers.few_shot import FewShotClassifier
from promptclf.classifiers.lora import LoraClassifier
from promptclf.classifiers.zero_shot import ZeroShotClassifier
from promptclf.errors import DataError, ModelError, TemplateError, TextTooLongError
from promptclf.lm.loading import load_model
from promptclf.lm.model import HFModel
from promptclf.modes import MODES, load_classifier
from promptclf.prompt import PromptTemplate
from promptclf.task import Task
from quick import CONFIG as TWO_EPOCHS
from quick import TASK, adapters, own_model, rows

CONFIG = replace(TWO_EPOCHS, epochs=1)
TRAIN, HELD, TEST = rows(24), rows(9, start=100), rows(12, start=200)
PAIR = PromptTemplate("pair", user="One: {text}\nTwo: {pair}", cue="Label:")
ALL = [*MODES, "tfidf-svm"]
LABELLED = [name for name in ALL if name != "zero-shot"]
Make = Callable[..., Any]


@pytest.fixture(scope="module")
def model(tiny_folders: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> HFModel:
    return own_model(tiny_folders["llama"], tmp_path_factory.mktemp("own"))


def make(name: str, model: Any, **options: Any) -> Any:
    """An unfitted classifier of a mode, quick to fit."""
    if name == "tfidf-svm":
        return TfidfSvmClassifier(TASK)
    task = options.pop("task", TASK)
    if name == "lora":
        options = {"config": CONFIG} | options
    return MODES[name](task, model, **options)


@pytest.fixture(scope="module")
def trained(model: HFModel) -> dict[str, Any]:
    """Every mode, fitted once; tests that change one make their own."""
    return {name: make(name, model).fit(*TRAIN, validation=HELD) for name in ALL}


@pytest.fixture(params=ALL)
def name(request: pytest.FixtureRequest) -> str:
    """Each mode in turn, and the classical baseline."""
    return request.param


@pytest.fixture
def fitted(name: str, trained: dict[str, Any]) -> Any:
    """Each mode in turn, fitted."""
    return trained[name]


@pytest.fixture(params=list(MODES))
def ours(request: pytest.FixtureRequest, trained: dict[str, Any]) -> PromptClassifier:
    """Each mode with a language model in turn, fitted."""
    return trained[request.param]


def test_this_suite_knows_every_mode() -> None:
    assert {"zero-shot": ZeroShotClassifier, "few-shot": FewShotClassifier, "lora": LoraClassifier} == MODES
    assert all(kind.mode == name for name, kind in MODES.items())


# ---- fit and predict ------------------------------------------------------------------------------


def test_fit_returns_the_classifier(name: str, model: HFModel) -> None:
    classifier = make(name, model)
    assert classifier.fit(*TRAIN) is classifier
    assert is_classifier(classifier)


def test_probabilities_have_a_column_per_label_and_sum_to_one(fitted: Any) -> None:
    assert fitted.classes_.tolist() == sorted(TASK.labels) != list(TASK.labels)
    found = fitted.predict_proba(TEST[0])
    assert found.shape == (12, 3)
    assert found.dtype == np.float64
    assert (found >= 0).all()
    np.testing.assert_allclose(found.sum(axis=1), 1, atol=1e-9)


def test_predict_classify_and_score_agree(fitted: Any) -> None:
    proba, predicted = fitted.predict_proba(TEST[0]), fitted.predict(TEST[0])
    assert predicted.tolist() == fitted.classes_[proba.argmax(axis=1)].tolist()
    assert fitted.score(*TEST) == np.mean(predicted == np.array(TEST[1]))
    for text, label, row, prediction in zip(TEST[0], predicted, proba, fitted.classify(TEST[0]), strict=True):
        assert (prediction.text, prediction.label, prediction.truncated) == (text, label, False)
        assert list(prediction.probabilities) == sorted(TASK.labels)
        np.testing.assert_array_equal(list(prediction.probabilities.values()), row)


def test_neither_order_nor_company_changes_a_result(fitted: Any) -> None:
    expected = fitted.predict_proba(TEST[0])
    order = np.random.default_rng(0).permutation(12)
    shuffled = fitted.predict_proba([TEST[0][i] for i in order])
    np.testing.assert_allclose(shuffled, expected[order], atol=1e-4, rtol=0)
    alone = np.concatenate([fitted.predict_proba([text]) for text in TEST[0]])
    np.testing.assert_allclose(alone, expected, atol=1e-4, rtol=0)
    longer = fitted.predict_proba([*TEST[0], "again " * 60])
    np.testing.assert_allclose(longer[:-1], expected, atol=1e-4, rtol=0)


def test_log_likelihoods_one_by_one_and_in_a_batch(ours: PromptClassifier) -> None:
    expected = ours.log_likelihoods(TEST[0])
    assert expected.shape == (12, 3)
    alone = np.concatenate([ours.log_likelihoods([text]) for text in TEST[0]])
    np.testing.assert_allclose(alone, expected, atol=1e-4, rtol=0)


def test_batch_calibration_looks_at_the_company(model: HFModel) -> None:
    classifier = ZeroShotClassifier(TASK, model, calibration="batch").fit()
    together = classifier.predict_proba(TEST[0])
    np.testing.assert_allclose(classifier.predict_proba(TEST[0][:1]), 1 / 3, atol=1e-9)
    assert np.abs(together[0] - 1 / 3).max() > 0.01


def test_asking_twice_gives_the_same_to_the_bit(fitted: Any) -> None:
    np.testing.assert_array_equal(fitted.predict_proba(TEST[0]), fitted.predict_proba(TEST[0]))


def test_fitting_twice_gives_the_same_to_the_bit(name: str, fitted: Any, model: HFModel) -> None:
    again = make(name, model).fit(*TRAIN, validation=HELD)
    np.testing.assert_array_equal(again.predict_proba(TEST[0]), fitted.predict_proba(TEST[0]))


def test_fitting_again_forgets_what_was_learned(name: str, fitted: Any, model: HFModel) -> None:
    classifier = make(name, model)
    labels = [TASK.labels[(TASK.labels.index(label) + 1) % 3] for label in TRAIN[1]]
    classifier.fit([f"{text} else" for text in TRAIN[0]], labels)
    assert (
        name == "zero-shot"
        or np.abs(classifier.predict_proba(TEST[0]) - fitted.predict_proba(TEST[0])).max() > 0.01
    )
    classifier.fit(*TRAIN, validation=HELD)
    np.testing.assert_array_equal(classifier.predict_proba(TEST[0]), fitted.predict_proba(TEST[0]))


def test_a_prior_is_forgotten_too(model: HFModel) -> None:
    classifier = ZeroShotClassifier(TASK, model)
    classifier.fit(rows(100)[0])
    assert classifier.calibration_ == "prior"
    assert classifier.log_prior_.any()
    classifier.fit(TRAIN[0])
    assert classifier.calibration_ == "none"
    assert not classifier.log_prior_.any()


def test_fit_leaves_its_arguments_alone(name: str, model: HFModel) -> None:
    texts, labels, weights = list(TRAIN[0]), list(TRAIN[1]), np.ones(24)
    held = (list(HELD[0]), list(HELD[1]))
    make(name, model).fit(texts, labels, validation=held, sample_weight=weights)
    assert (texts, labels) == TRAIN
    assert held == HELD
    assert (weights == 1).all()


@pytest.mark.parametrize("kind", [tuple, np.array, lambda x: np.array(x, dtype=object), "series", iter])
def test_any_sequence_of_texts_will_do(name: str, fitted: Any, model: HFModel, kind: Any) -> None:
    if kind == "series":
        kind = pytest.importorskip("pandas").Series
    classifier = make(name, model)
    if name != "lora":  # once is enough for what takes its time
        classifier.fit(kind(TRAIN[0]), kind(TRAIN[1]), validation=(kind(HELD[0]), kind(HELD[1])))
    else:
        classifier = fitted
    np.testing.assert_array_equal(classifier.predict_proba(kind(TEST[0])), fitted.predict_proba(TEST[0]))


# ---- scikit-learn's contract ----------------------------------------------------------------------


def test_parameters_are_got_and_set(name: str, model: HFModel) -> None:
    classifier = make(name, model)
    parameters = classifier.get_params()
    assert parameters["task"] is TASK
    assert set(parameters) == set(classifier.get_params(deep=False))
    assert type(classifier)(**parameters).get_params() == parameters
    other = Task("other", ("a", "b"))
    assert classifier.set_params(task=other) is classifier
    assert classifier.get_params()["task"] is other
    with pytest.raises(ValueError, match="Invalid parameter 'nonsense'"):
        classifier.set_params(nonsense=1)


def test_the_constructor_only_stores(name: str) -> None:
    classifier = make(name, "no-such-model")  # nothing is loaded before fit
    assert set(vars(classifier)) == set(classifier.get_params(deep=False))


def test_a_clone_shares_the_model_and_has_learned_nothing(name: str, fitted: Any) -> None:
    copied = clone(fitted)
    assert type(copied) is type(fitted)
    assert not hasattr(copied, "classes_")
    assert all(
        a is b or a == b
        for a, b in zip(copied.get_params().values(), fitted.get_params().values(), strict=True)
    )
    if name != "tfidf-svm":
        assert copied.model is fitted.model
    with pytest.raises(NotFittedError):
        copied.predict(TEST[0])


def test_a_deep_copy_shares_the_model_and_stands_alone(name: str, fitted: Any, model: HFModel) -> None:
    expected = fitted.predict_proba(TEST[0])
    original = fitted if name != "lora" else make(name, model).fit(*TRAIN, validation=HELD)
    copied = copy.deepcopy(original)
    if name != "tfidf-svm":
        assert copied.model_ is original.model_
    del original
    gc.collect()
    np.testing.assert_array_equal(copied.predict_proba(TEST[0]), expected)
    if name == "lora":
        assert copied.adapter_ in adapters(model)


def test_cross_validation(name: str, model: HFModel) -> None:
    scores = cross_val_score(make(name, model), *TRAIN, cv=StratifiedKFold(3), error_score="raise")
    assert scores.shape == (3,)
    if name == "tfidf-svm":
        assert scores.mean() > 0.9
    gc.collect()


def process_id(estimator: Any, X: Any, y: Any) -> int:
    """A scorer that tells where it runs."""
    return os.getpid()


def test_a_clone_tells_the_same_listener(model: HFModel) -> None:
    class Log:
        def __init__(self) -> None:
            self.lock, self.events = threading.Lock(), list[Any]()  # a lock cannot be copied

        def hear(self, event: dict[str, Any]) -> None:
            self.events.append(event)

    log = Log()
    original = make("lora", model).set_params(callback=log.hear)
    with config_context(enable_metadata_routing=True):
        original.set_fit_request(sample_weight=True)
        twin = clone(original)
        assert twin.get_metadata_routing().fit.requests["sample_weight"] is True
    assert twin.callback.__self__ is log
    assert twin.get_params() == original.get_params()
    twin.fit(*TRAIN, validation=HELD)
    assert log.events


@pytest.mark.slow
def test_grid_search_in_worker_processes(model: HFModel, trained: dict[str, Any]) -> None:
    """Workers load the model again from its folder; every mode goes through the same two workers."""
    grids = {
        "zero-shot": {"calibration": ["none", "contextual"]},
        "few-shot": {"selection": ["random", "tfidf"], "calibration": ["none"]},
        "lora": {"config": [CONFIG, TWO_EPOCHS]},
    }
    before = adapters(model)
    for name, grid in grids.items():
        search = GridSearchCV(
            make(name, model),
            grid,
            scoring={"accuracy": "accuracy", "process": process_id},
            refit="accuracy",
            cv=StratifiedKFold(2),
            n_jobs=2,
            error_score="raise",
        )
        search.fit(*TRAIN)
        found = search.cv_results_
        processes = {int(p) for fold in range(2) for p in found[f"split{fold}_test_process"]}
        assert os.getpid() not in processes
        assert search.best_estimator_.model is model
        # The same numbers as in this process.
        here = GridSearchCV(make(name, model), grid, cv=StratifiedKFold(2), error_score="raise").fit(*TRAIN)
        np.testing.assert_allclose(found["mean_test_accuracy"], here.cv_results_["mean_test_score"])
        del search, here
    gc.collect()
    assert adapters(model) == before


def test_a_fitted_classifier_can_be_pickled(name: str, fitted: Any, model: HFModel) -> None:
    data = pickle.dumps(fitted)
    assert len(data) < 2_000_000  # the base model does not travel
    again = pickle.loads(data)
    np.testing.assert_array_equal(again.predict_proba(TEST[0]), fitted.predict_proba(TEST[0]))
    if name == "lora":
        assert again.adapter_ != fitted.adapter_
    if name != "tfidf-svm":
        assert again.model_ is model
        assert again.provenance() == fitted.provenance()


def test_unpickling_where_nothing_is_loaded(ours: PromptClassifier, monkeypatch: pytest.MonkeyPatch) -> None:
    data = pickle.dumps(ours)
    monkeypatch.setattr("promptclf.lm.loading._loaded", {})
    again = pickle.loads(data)
    assert again.model_ is not ours.model_
    np.testing.assert_allclose(again.predict_proba(TEST[0]), ours.predict_proba(TEST[0]), atol=1e-6, rtol=0)


def test_threads_get_what_one_gets(ours: PromptClassifier) -> None:
    parts = [TEST[0][i : i + 3] for i in range(0, 12, 3)] * 2
    expected = [ours.predict_proba(part) for part in parts]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(ours.predict_proba, parts))
    np.testing.assert_allclose(found, expected, atol=1e-4, rtol=0)


def test_threads_with_different_modes_do_not_disturb_each_other(trained: dict[str, Any]) -> None:
    jobs = [trained[name] for name in MODES] * 4
    expected = [classifier.predict_proba(TEST[0][:4]) for classifier in jobs]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda classifier: classifier.predict_proba(TEST[0][:4]), jobs))
    np.testing.assert_allclose(found, expected, atol=1e-4, rtol=0)


# ---- saving ---------------------------------------------------------------------------------------


def test_a_saved_classifier_is_the_same(ours: PromptClassifier, model: HFModel, tmp_path: Path) -> None:
    expected = ours.predict_proba(TEST[0])
    path = ours.save_pretrained(tmp_path / "saved")
    for again in (type(ours).from_pretrained(path, model=model), load_classifier(str(path), model=model)):
        assert type(again) is type(ours)
        np.testing.assert_allclose(again.predict_proba(TEST[0]), expected, atol=1e-6, rtol=0)
        assert again.task == ours.task
        assert again.template_ == ours.template_
        mine, theirs = again.provenance(), ours.provenance()
        assert mine["learned"] == theirs["learned"]
        assert mine["parameters"] == theirs["parameters"]


def test_the_modes_choices_survive_saving(model: HFModel, tmp_path: Path) -> None:
    few = FewShotClassifier(
        TASK, model, "question", selection="tfidf", shots=2, max_demo_tokens=99, seed=5, truncate=True
    ).fit(*TRAIN)
    again = load_classifier(few.save_pretrained(tmp_path / "few"), model=model)
    assert isinstance(again, FewShotClassifier)
    assert (again.selection, again.shots, again.max_demo_tokens, again.seed) == ("tfidf", 2, 99, 5)
    assert again.truncate is True
    assert again.examples_ == few.examples_
    zero = ZeroShotClassifier(TASK, model, calibration="contextual").fit()
    loaded = load_classifier(zero.save_pretrained(tmp_path / "zero"), model=model)
    assert (loaded.calibration, loaded.calibration_) == ("contextual", "contextual")
    np.testing.assert_array_equal(loaded.log_prior_, zero.log_prior_)


# ---- refusals -------------------------------------------------------------------------------------


USES = ["predict", "predict_proba", "classify", "provenance"]
MORE_USES = ["log_likelihoods", "prompt", "save_pretrained", "push_to_hub"]


@pytest.mark.parametrize(
    ("kind", "use"), [(kind, use) for kind in ALL for use in USES + MORE_USES * (kind in MODES)]
)
def test_before_fit_nothing_works(model: HFModel, tmp_path: Path, kind: str, use: str) -> None:
    arguments = {"provenance": [], "save_pretrained": [tmp_path / "x"], "push_to_hub": ["owner/name"]}
    with pytest.raises(NotFittedError):
        getattr(make(kind, model), use)(*arguments.get(use, [TEST[0]]))
    assert not (tmp_path / "x").exists()


def test_a_single_text_is_refused(name: str, fitted: Any, model: HFModel) -> None:
    with pytest.raises(DataError, match="expected a list of texts, got one string 'my parcel'; put it in"):
        fitted.predict_proba("my parcel")
    with pytest.raises(DataError, match="expected a list of texts, got one string"):
        make(name, model).fit("my parcel", ["delivery"])


@pytest.mark.parametrize("wrong", [None, 3, {"text": "a"}])
def test_what_is_no_list_is_refused(fitted: Any, wrong: Any) -> None:
    with pytest.raises(DataError, match=f"expected a list of texts, got {type(wrong).__name__}"):
        fitted.predict_proba(wrong)


def test_a_table_is_refused(fitted: Any) -> None:
    """Its items would be the names of its columns."""
    table = pytest.importorskip("pandas").DataFrame({"text": TEST[0]})
    with pytest.raises(DataError, match="expected a list of texts, got DataFrame; give its texts as a list"):
        fitted.predict_proba(table)
    with pytest.raises(DataError, match="text 1: expected text or a pair of texts, got array"):
        fitted.predict_proba(table.to_numpy())


@pytest.mark.parametrize("wrong", [None, 3.5, b"bytes", ("a",), ("a", "b", "c"), ("a", None)])
def test_what_is_no_text_is_named(fitted: Any, wrong: Any) -> None:
    with pytest.raises(DataError, match="text 2: expected text or a pair of texts, got"):
        fitted.predict_proba(["fine", wrong])


@pytest.mark.parametrize("kind", LABELLED)
def test_texts_and_labels_must_match(model: HFModel, kind: str) -> None:
    with pytest.raises(DataError, match="y: expected 24 labels, one per text, got 23"):
        make(kind, model).fit(TRAIN[0], TRAIN[1][:-1])
    with pytest.raises(DataError, match=r"y, row 3: 'refund' is not a label of task 'desk'; expected one of"):
        make(kind, model).fit(TRAIN[0], [*TRAIN[1][:2], "refund", *TRAIN[1][3:]])
    with pytest.raises(DataError, match="row 2: None is not a label"):
        make(kind, model).fit(TRAIN[0], [TRAIN[1][0], None, *TRAIN[1][2:]])


@pytest.mark.parametrize("kind", LABELLED)
def test_without_labels_there_is_nothing_to_learn(model: HFModel, kind: str) -> None:
    if kind != "tfidf-svm":
        with pytest.raises(DataError, match="y: expected a label for each of the 24 texts, got none"):
            make(kind, model).fit(TRAIN[0])
    with pytest.raises(DataError):
        make(kind, model).fit([], [])


def test_zero_shot_does_not_look_at_labels(model: HFModel) -> None:
    expected = make("zero-shot", model).fit(TRAIN[0]).predict_proba(TEST[0])
    found = make("zero-shot", model).fit(TRAIN[0], ["?"] * 24).predict_proba(TEST[0])
    np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(make("zero-shot", model).fit().predict_proba(TEST[0]), expected)


def test_no_texts_no_answers(fitted: Any) -> None:
    assert fitted.predict_proba([]).shape == (0, 3)
    assert fitted.predict([]).shape == (0,)
    assert fitted.classify([]) == []
    if hasattr(fitted, "log_likelihoods"):
        assert fitted.log_likelihoods([]).shape == (0, 3)


def test_an_empty_text_has_an_answer(fitted: Any) -> None:
    assert np.isfinite(fitted.predict_proba(["", " ", "\n"])).all()


@pytest.mark.parametrize("kind", MODES)
def test_an_unknown_calibration_is_refused(model: HFModel, kind: str) -> None:
    with pytest.raises(DataError, match=r"calibration: expected one of auto, .*, got 'magic'"):
        make(kind, model, calibration="magic").fit(*TRAIN)


@pytest.mark.parametrize("kind", MODES)
def test_what_is_no_model_is_refused(kind: str) -> None:
    with pytest.raises(ModelError, match="model: expected a name or a loaded model, got int; use"):
        make(kind, 7).fit(*TRAIN)


@pytest.mark.parametrize("kind", MODES)
def test_a_fit_that_fails_leaves_nothing_half_done(model: HFModel, kind: str) -> None:
    classifier = make(kind, model, **({} if kind == "lora" else {"calibration": "prior"}))
    classifier.fit(*TRAIN)
    before = adapters(model) - {classifier.adapter_}
    with pytest.raises(TextTooLongError):
        classifier.fit(["word " * 600, *TRAIN[0]], ["billing", *TRAIN[1]])
    with pytest.raises(NotFittedError):
        classifier.predict(TEST[0])
    assert adapters(model) == before


# ---- models by name, templates, pairs, long texts -------------------------------------------------


@pytest.mark.parametrize("kind", ["zero-shot", "few-shot"])
def test_a_model_may_be_given_by_name(model: HFModel, trained: dict[str, Any], kind: str) -> None:
    classifier = make(kind, model.spec["name"])
    if load_model(model.spec["name"]).info.device != "cpu":
        pytest.skip("another device has other figures")
    found = classifier.fit(*TRAIN).predict_proba(TEST[0])
    np.testing.assert_allclose(found, trained[kind].predict_proba(TEST[0]), atol=1e-5)


@pytest.mark.parametrize("kind", MODES)
def test_the_template_is_the_given_one_or_the_tasks_or_the_default(model: HFModel, kind: str) -> None:
    options = {} if kind == "lora" else {"calibration": "none"}

    def used(task: Task, template: Any) -> str:
        return make(kind, model, task=task, template=template, **options).fit(*TRAIN).template_.name

    assert used(TASK, None) == "completion"
    assert used(replace(TASK, template="question"), None) == "question"
    assert used(replace(TASK, template="question"), "topic") == "topic"
    assert used(TASK, PAIR.from_dict({"name": "own", "user": "{text}"})) == "own"
    with pytest.raises(TemplateError, match="no prompt template 'nonsense'"):
        used(TASK, "nonsense")


def test_verbalisers_are_what_is_scored(fake_model: FakeModel) -> None:
    task = replace(TASK, verbalisers={"billing": "money matters"})
    ZeroShotClassifier(task, fake_model, calibration="none").fit().predict(["text"])
    assert fake_model.calls[-1].answers == (" account", " money matters", " delivery")


@pytest.mark.parametrize("kind", MODES)
def test_pairs_of_texts(model: HFModel, kind: str, tmp_path: Path) -> None:
    def pairs(data: tuple[list[str], list[str]]) -> tuple[list[tuple[str, str]], list[str]]:
        return [(f"item {n}", text) for n, text in enumerate(data[0])], data[1]

    classifier = make(kind, model, template=PAIR)
    classifier.fit(*pairs(TRAIN), validation=pairs(HELD))
    test = pairs(TEST)[0]
    found = classifier.predict_proba(test)
    assert found.shape == (12, 3)
    assert classifier.prompt(test[0]).text.endswith(f"One: item 0\nTwo: {TEST[0][0]}\nLabel:")
    assert classifier.classify(test[:1])[0].text == f"item 0\n{TEST[0][0]}"
    swapped = classifier.predict_proba([(second, first) for first, second in test])
    assert np.abs(swapped - found).max() > 1e-3  # both texts count, and their order
    as_lists = classifier.predict_proba([list(pair) for pair in test])
    np.testing.assert_array_equal(as_lists, found)
    again = load_classifier(classifier.save_pretrained(tmp_path / "saved"), model=model)
    np.testing.assert_allclose(again.predict_proba(test), found, atol=1e-6, rtol=0)
    with pytest.raises(TemplateError, match=r"shows a \{pair\}, but the text has none"):
        classifier.predict_proba(["only one"])


@pytest.mark.parametrize("kind", MODES)
def test_pairs_have_a_template_without_asking(model: HFModel, kind: str) -> None:
    pairs = [(f"item {n}", text) for n, text in enumerate(TRAIN[0])]
    options = {} if kind == "lora" else {"calibration": "none"}
    classifier = make(kind, model, **options).fit(pairs, TRAIN[1])
    assert classifier.template_.name == "pair"
    assert classifier.prompt(("one", "two")).text.endswith("Text 1: one\nText 2: two\nLabel:")
    own = replace(TASK, template="question")
    with pytest.raises(TemplateError, match=r"has no \{pair\} .*; choose one that has it, such as 'pair'"):
        make(kind, model, task=own, **options).fit(pairs, TRAIN[1]).predict(pairs)


def test_the_baseline_reads_pairs_too() -> None:
    pairs = [("same start", text) for text in TRAIN[0]]
    classifier = TfidfSvmClassifier(TASK).fit(pairs, TRAIN[1])
    assert classifier.score([("same start", text) for text in TEST[0]], TEST[1]) > 0.9


def test_a_pair_for_a_template_without_one_is_refused(ours: PromptClassifier) -> None:
    with pytest.raises(TemplateError, match=r"has no \{pair\} for the second text"):
        ours.predict_proba([("one", "two")])


def test_contextual_calibration_of_pairs(model: HFModel) -> None:
    classifier = ZeroShotClassifier(TASK, model, PAIR, calibration="contextual").fit([("a", "b")])
    np.testing.assert_allclose(classifier.predict_proba([("a", "b")]).sum(), 1)


def test_a_long_text_is_refused_with_limit_and_length(ours: PromptClassifier) -> None:
    text = "again " * 700
    tokens = ours.model_.count_tokens([ours.prompt(text)])[0]
    with pytest.raises(TextTooLongError) as raised:
        ours.predict_proba(["short", text])
    message = str(raised.value)
    assert "text 2: expected at most 512 tokens with the prompt" in message
    length = int(message.split("got ")[1].split(";")[0])
    assert tokens <= length <= tokens + 4
    assert "shorten it or ask for truncation" in message


@pytest.mark.parametrize("kind", MODES)
@pytest.mark.parametrize("length", [700, 300_000])
def test_a_long_text_is_shortened_and_told_if_asked_for(
    trained: dict[str, Any], kind: str, length: int
) -> None:
    classifier = copy.deepcopy(trained[kind]).set_params(truncate=True)
    texts = ["my parcel", "again " * length, "my invoice"]
    found = classifier.classify(texts)
    assert [prediction.truncated for prediction in found] == [False, True, False]
    assert found[1].text == texts[1]  # the text as it was given
    assert found[1].to_dict()["truncated"] is True
    seen = classifier.prompt(texts[1])
    room = classifier.model_.max_tokens - classifier.model_.count_tokens([seen])[0]
    assert 1 <= room <= 12  # as much of it as fits
    np.testing.assert_allclose(
        list(found[0].probabilities.values()), trained[kind].predict_proba(texts[:1])[0], atol=1e-4
    )


@pytest.mark.parametrize(("first", "second"), [(700, 2), (2, 700), (700, 900), (300_000, 300_000)])
def test_of_a_pair_the_longer_text_is_shortened(model: HFModel, first: int, second: int) -> None:
    classifier = ZeroShotClassifier(TASK, model, PAIR, truncate=True).fit()
    pair = ("one " * first, "two " * second)
    [found] = classifier.classify([pair])
    assert found.truncated
    shown = classifier.prompt(pair)
    ones, twos = shown.text.split("\nTwo:")
    assert ones.count("one") == first or 80 < ones.count("one") < first
    assert twos.count("two") == second or 80 < twos.count("two") < second
    if min(first, second) > 2:
        assert abs(ones.count("one") - twos.count("two")) <= 2
    assert 1 <= 512 - model.count_tokens([shown])[0] <= 12


def test_a_prompt_that_cannot_be_shortened_enough_is_refused(model: HFModel) -> None:
    long = PromptTemplate("long", user="{text}" + " again" * 700, cue="Label:")
    classifier = ZeroShotClassifier(TASK, model, long, truncate=True).fit()
    with pytest.raises(TextTooLongError, match="expected at most 512 tokens"):
        classifier.predict(["text"])


@pytest.mark.parametrize("kind", MODES)
def test_what_is_shortened_in_fit_is_told(
    model: HFModel, kind: str, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    texts = [TRAIN[0][0] + " again" * 700, *TRAIN[0][1:], TRAIN[0][1] + " again" * 800]
    labels = [*TRAIN[1], TRAIN[1][1]]
    options: dict[str, Any] = {"lora": {}, "zero-shot": {"calibration": "prior"}}.get(
        kind, {"selection": "tfidf"}
    )
    classifier = make(kind, model, truncate=True, **options).fit(texts, labels)
    assert classifier.truncated_ == classifier.provenance()["learned"]["truncated"] == 2
    assert [record.message for record in caplog.records] == [
        "texts shortened in fit to the model's 512 tokens: 2"
    ]
    again = load_classifier(classifier.save_pretrained(tmp_path / "saved"), model=model)
    assert again.truncated_ == 2
    assert classifier.fit(*TRAIN).truncated_ == 0


# ---- where a result comes from --------------------------------------------------------------------


def test_provenance_tells_everything(fitted: Any, name: str) -> None:
    found = fitted.provenance()
    assert json.loads(json.dumps(found)) == found
    assert found["mode"] == name
    assert (found["task"], found["task_fingerprint"]) == ("desk", TASK.fingerprint)
    assert found["versions"]["promptclf"]
    if name == "tfidf-svm":
        return
    assert found["template_fingerprint"] == fitted.template_.fingerprint
    assert found["model"]["revision"] == fitted.model_.info.revision
    assert found["model"]["quantization"] == "none"
    assert {"calibration", "log_prior", "temperature"} <= set(found["learned"])
    assert not {"task", "model", "template", "callback"} & set(found["parameters"])


def test_spread_takes_items_evenly() -> None:
    assert spread(range(10), 20) == list(range(10))
    assert spread(range(10), 4) == [0, 2, 5, 7]
    assert spread([], 4) == []


@pytest.fixture(scope="module", autouse=True)
def nothing_left(model: HFModel) -> Iterator[None]:
    """When all classifiers are gone, so are their adapters, and the base model is what it was."""
    prompts = [PromptTemplate.load("completion").render(TASK, text) for text in TEST[0]]
    before = model.score(prompts, [" billing", " account"])
    yield
    np.testing.assert_array_equal(model.score(prompts, [" billing", " account"]), before)
