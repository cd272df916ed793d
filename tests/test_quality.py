"""The accuracy benchmark: its data sets, its finished cells and what it takes up again."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks import quality
from fakes import FakeModel
from promptclf import Dataset, FewShotClassifier, Task, load_dataset
from promptclf.data.reading import Table

TREC = {"ABBR": "abbreviation", "DESC": "description", "HUM": "human"}


@pytest.mark.parametrize("name", quality.HUB)
def test_a_set_of_the_hub_gets_our_labels(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    source, column = quality.HUB[name]
    task = Task.load(quality.HERE / "tasks" / f"{name}.yaml")
    theirs = [*TREC] if name == "trec" else [*task.labels][:3]
    rows = [{"text": f"text {n}", column: theirs[n % len(theirs)], "other": "1"} for n in range(60)]
    splits = {split: Table(name, ("text", "other", column), rows) for split in ("train", "test")}
    monkeypatch.setattr(
        "promptclf.data.dataset.read_hub", lambda asked: (splits, "c" * 40) if asked == source else 0
    )
    data = quality.load(name, None, "zero-shot")
    assert {example.label for example in data.test} == {TREC.get(label, label) for label in theirs}
    assert (data.task, data.revision, len(data.test)) == (task, "c" * 40, 60)


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Dataset:
    data = replace(load_dataset("support").limit(rows=150, test_rows=12), name="support")
    monkeypatch.setattr(quality, "load", lambda *_: data)
    monkeypatch.setattr(quality, "RESULTS", tmp_path)
    monkeypatch.setattr(quality, "load_model", lambda **_: FakeModel())
    return data


def run(*words: str) -> tuple[int, list[str]]:
    lines: list[str] = []
    code = quality.main(["--data", "nowhere", "--only", "support", *words], note=lines.append)
    return code, lines


def test_a_finished_cell_is_not_computed_again(small: Dataset, tmp_path: Path) -> None:
    code, lines = run("--columns", "zero-shot")
    assert code == 0 and lines[0] == f"support zero-shot seed 0: {len(small.train)} rows, 12 test rows"
    file = tmp_path / "support.zero-shot.0.json"
    cell: dict[str, Any] = json.loads(file.read_text())
    assert cell["test_rows"] == 12 and not cell["resumed"]
    assert f"| support (12) | {100 * cell['accuracy']:.1f} |" in lines[-1]
    assert run("--columns", "zero-shot")[1] == lines[-1:]  # the table alone
    file.write_text(json.dumps(cell | {"key": "of other data"}))
    assert len(run("--columns", "zero-shot")[1]) == 3


def test_seeds_that_choose_the_same_examples_share_their_scores(
    small: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = FakeModel()
    monkeypatch.setattr(quality, "load_model", lambda **_: model)
    texts = [example.text for example in small.test]
    wrapped = quality.Remembering(model)
    task, pool = small.task, ([e.text for e in small.train], [e.label for e in small.train])
    options: dict[str, Any] = {"selection": "tfidf", "calibration": "none"}
    one, other = (FewShotClassifier(task, wrapped, seed=s, **options).fit(*pool) for s in (0, 1))
    plain = FewShotClassifier(task, model, **options).fit(*pool).predict_proba(texts)
    np.testing.assert_array_equal(one.predict_proba(texts), plain)
    kept = len(wrapped.kept)
    np.testing.assert_array_equal(other.predict_proba(texts), plain)
    assert len(wrapped.kept) == kept == len(texts)
    assert run("--columns", "few-shot")[0] == 0
    accuracies = [json.loads(file.read_text())["accuracy"] for file in tmp_path.iterdir()]
    assert len(accuracies) == 3


def test_either_a_folder_or_the_hub(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        quality.main([])
    assert "either --data DIR or --hub" in capsys.readouterr().err
