"""The comparison: what it fits on, what it scores, what it keeps, and that it repeats itself."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from fakes import FakeModel
from in_place import in_place
from promptclf.classifiers.baselines import TfidfSvmClassifier
from promptclf.classifiers.few_shot import FewShotClassifier
from promptclf.classifiers.zero_shot import ZeroShotClassifier
from promptclf.data.dataset import Dataset
from promptclf.errors import DataError, ModelError
from promptclf.evaluation.compare import compare, run_comparison
from promptclf.evaluation.measure import Run, measure
from promptclf.evaluation.report import Report
from promptclf.lm.loading import model_revision

QUICK: dict[str, Any] = {"epochs": 1, "min_steps": 1, "rank": 2}


@pytest.fixture
def small(dataset: Dataset) -> Dataset:
    return dataset.limit(rows=18, test_rows=9)


def test_compare_fits_clones_on_train_and_scores_test(dataset: Dataset, fake_model: FakeModel) -> None:
    zero, few = ZeroShotClassifier(dataset.task, fake_model), FewShotClassifier(dataset.task, fake_model)
    svm = TfidfSvmClassifier(dataset.task)
    report = compare({"zero": zero, "few": few, "svm": svm}, dataset)
    assert not hasattr(zero, "classes_") and not hasattr(few, "examples_")
    assert [r.name for r in report.results] == ["zero", "few", "svm"] and report.rows == len(dataset.test)
    assert report.dataset["fingerprint"] == dataset.fingerprint
    assert len(report.comparisons) == 3 and len(report.verdicts) == 3
    assert report.results[0].metrics["accuracy"] == 1.0  # the fake model reads the keywords
    assert report.results[0].provenance["template_fingerprint"]
    assert set(report.results[0].timing) >= {"p50_ms", "p95_ms", "seconds_per_1000", "fit_seconds"}
    # No test text may stand among the examples, nor be learned from.
    test = {e.text for e in dataset.test}
    shown = [text for call in fake_model.calls for text in call.texts]
    assert not any(f"Text: {text}\nLabel: " in prompt for prompt in shown for text in test)


def test_compare_takes_a_list(dataset: Dataset, fake_model: FakeModel) -> None:
    report = compare([ZeroShotClassifier(dataset.task, fake_model)], dataset)
    assert report.results[0].name == "zero-shot"
    with pytest.raises(DataError, match="names of their own"):
        compare([ZeroShotClassifier(dataset.task, fake_model)] * 2, dataset)
    with pytest.raises(DataError, match="expected train and test rows"):
        compare([ZeroShotClassifier(dataset.task, fake_model)], replace(dataset, test=()))


def test_measure_tells_what_it_does(dataset: Dataset, fake_model: FakeModel) -> None:
    events: list[dict[str, Any]] = []
    found = measure(ZeroShotClassifier(dataset.task, fake_model), dataset, events.append)
    assert [event["event"] for event in events] == ["fit", "score", "time"]
    np.testing.assert_allclose(np.sum(found["proba"], axis=1), 1.0)
    json.dumps(found)


@pytest.mark.slow
def test_run_comparison_in_processes(small: Dataset, tiny_llama: Path, tmp_path: Path) -> None:
    events: list[dict[str, Any]] = []
    options: dict[str, Any] = {"modes": ["lora"], "model": str(tiny_llama), "config": QUICK}
    out = tmp_path / "one"
    report = run_comparison(small, out=out, progress=events.append, **options)
    assert [r.name for r in report.results] == ["lora", "TF-IDF + SVM"]
    assert all(r.timing["peak_rss_mb"] > 50 for r in report.results)
    assert report.results[0].provenance["learned"]["training"]["steps"] > 0
    files = {"report.md", "report.json", "report.html", "predictions.csv"}
    assert files <= {path.name for path in out.iterdir()}
    assert {e["name"] for e in events if e["event"] == "done"} >= {"lora", "TF-IDF + SVM"}

    # A second run elsewhere: the same predictions, and the same report outside of its times.
    again = run_comparison(small, out=tmp_path / "two", **options)
    assert (out / "predictions.csv").read_bytes() == (tmp_path / "two" / "predictions.csv").read_bytes()
    first, second = (json.loads((tmp_path / n / "report.json").read_text()) for n in ("one", "two"))
    assert first.pop("timing") and second.pop("timing")
    assert first == second
    assert again.results[0].metrics == report.results[0].metrics
    with (out / "predictions.csv").open(encoding="utf-8", newline="") as file:
        assert len(list(csv.DictReader(file))) == len(small.test)

    # A third in the first folder: nothing is done again.
    events.clear()
    run_comparison(small, out=out, progress=events.append, **options)
    assert {event["event"] for event in events} == {"kept"}


def test_errors_come_back_from_the_process(small: Dataset, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"no model './nowhere': there is no such folder"):
        run_comparison(small, modes=["zero-shot"], model="./nowhere", out=tmp_path)
    with pytest.raises(DataError, match="modes: expected some of"):
        run_comparison(small, modes=["five-shot"])


def test_a_run_is_known_by_what_it_depends_on(dataset: Dataset) -> None:
    run = Run("few-shot", "few-shot")
    assert run.key(dataset) == Run("few-shot", "few-shot").key(dataset)
    others = [replace(run, seed=1), replace(run, model="x"), replace(run, template="topic")]
    others.append(replace(run, revision="0" * 64))
    assert len({run.key(dataset), *(other.key(dataset) for other in others)}) == 5
    assert run.key(dataset) != run.key(dataset.limit(rows=9))


def test_seeds_templates_and_quantisations_are_variants(small: Dataset, tiny_llama: Path) -> None:
    options: dict[str, Any] = {"templates": ["sentiment"], "quantizations": ["none", "nf4"], "seeds": 2}
    with in_place():
        report = run_comparison(small, modes=["few-shot"], model=str(tiny_llama), **options)
    assert [r.name for r in report.results] == ["few-shot, seed 0", "TF-IDF + SVM"]
    assert [r.name for r in report.variants] == [
        "few-shot, seed 1",
        "few-shot, seed 0, sentiment",
        "few-shot, seed 0, nf4",
    ]
    assert report.variants[2].quantization == "nf4"
    assert [len(s["values"]) for s in report.spreads if s["over"] == "templates"] == [2]
    assert {(entry["name"], entry["over"]) for entry in report.spreads} == {
        ("few-shot", "seeds"),
        ("few-shot, seed 0", "templates"),
        ("few-shot, seed 0", "quantization"),
    }
    (average,) = report.averages
    assert (average.name, average.seeds) == ("few-shot, mean of 2 seeds", [0, 1])
    seeds = [report.results[0], report.variants[0]]
    for metric in ("accuracy", "macro_f1", "log_loss"):
        assert average.metrics[metric] == pytest.approx(np.mean([r.metrics[metric] for r in seeds]))
    assert average.metrics["accuracy"] == report.spreads[0]["mean"]
    assert all("few-shot, seed 0" in sentence for sentence in report.verdicts)
    lines = report.to_table().splitlines()
    assert [line.split("  ")[0] for line in lines[2:4]] == ["few-shot, mean of 2 seeds", "few-shot, seed 0"]
    header = report.to_csv(small.test).splitlines()[0]
    assert "few-shot, seed 0" in header and "mean of" not in header
    assert Report.from_dict(json.loads(report.to_json())).averages == report.averages


@pytest.mark.slow
def test_a_comparison_that_is_stopped_in_mid_training_goes_on(
    small: Dataset, tiny_llama: Path, tmp_path: Path
) -> None:
    options: dict[str, Any] = {
        "modes": ["lora"],
        "model": str(tiny_llama),
        "config": {"epochs": 4, "rank": 2, "save_steps": 1, "batch_size": 4},
    }
    whole = run_comparison(small, out=tmp_path / "whole", **options)
    steps: list[int] = []

    def stop(event: dict[str, Any]) -> None:
        if event["event"] == "step":
            steps.append(event["step"])
        if len(steps) == 6:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_comparison(small, out=tmp_path / "out", progress=stop, **options)
    assert list((tmp_path / "out" / "runs").glob("lora-*.checkpoints/checkpoint-*"))
    events: list[dict[str, Any]] = []
    report = run_comparison(small, out=tmp_path / "out", progress=events.append, **options)
    first = next(event["step"] for event in events if event["event"] == "step")
    assert first > 1
    assert report.results[0].metrics == whole.results[0].metrics
    assert not list((tmp_path / "out" / "runs").glob("*.checkpoints"))


def test_other_weights_under_the_same_name_are_another_run(
    small: Dataset, tiny_folders: dict[str, Path], tmp_path: Path
) -> None:
    folder = tmp_path / "model"
    options: dict[str, Any] = {"modes": ["zero-shot"], "model": str(folder), "out": tmp_path / "out"}
    shutil.copytree(tiny_folders["llama"], folder)
    with in_place():
        one = run_comparison(small, **options)
        shutil.rmtree(folder)
        shutil.copytree(tiny_folders["gpt2"], folder)
        other = run_comparison(small, **options)
    assert one.results[0].metrics["log_loss"] != other.results[0].metrics["log_loss"]
    assert one.results[0].provenance["model"]["revision"] == model_revision(str(tiny_folders["llama"]))
    assert other.results[0].provenance["model"]["revision"] == model_revision(str(folder))


def test_the_time_of_a_text_includes_its_embedding(dataset: Dataset) -> None:
    class Keeping(FakeModel):
        def forget_embeddings(self) -> None:
            self.kept.clear()

        def embed(self, texts: Sequence[str], *, layer: int | None = None) -> NDArray[np.float32]:
            self.computed += len({*texts} - self.kept)
            self.kept |= {*texts}
            return super().embed(texts, layer=layer)

    model = Keeping()
    model.kept, model.computed = set(), 0  # type: ignore[attr-defined]
    measure(FewShotClassifier(dataset.task, model, selection="embedding", calibration="none"), dataset)
    assert model.computed == 36 + 18 + 19  # type: ignore[attr-defined]
