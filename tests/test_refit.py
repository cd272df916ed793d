"""`TrainConfig(refit=True)`: in the end all rows are trained on, validation rows included."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from promptclf.classifiers.lora import LoraClassifier
from promptclf.data.splitting import hold_out
from promptclf.errors import TrainingError
from promptclf.lm.model import HFModel
from promptclf.modes import load_classifier
from promptclf.settings import TrainConfig
from quick import CONFIG, TASK, adapters, digest, own_model, rows

TRAIN, HELD, TEST = rows(24), rows(9, start=100), rows(12, start=200)
ALL = [*TRAIN[0], *HELD[0]], [*TRAIN[1], *HELD[1]]
REFIT = replace(CONFIG, refit=True)


@pytest.fixture(scope="module")
def model(tiny_folders: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> HFModel:
    return own_model(tiny_folders["llama"], tmp_path_factory.mktemp("own"))


def make(model: HFModel, config: TrainConfig = REFIT, **options: Any) -> LoraClassifier:
    return LoraClassifier(TASK, model, config=config, **options)


def test_epoch_and_temperature_are_those_of_rows_not_trained_on(model: HFModel) -> None:
    events: list[dict[str, Any]] = []
    again = make(model, callback=events.append).fit(*TRAIN, validation=HELD)
    first = make(model, CONFIG).fit(*TRAIN, validation=HELD)
    assert again.training_["history"] == first.training_["history"]
    assert again.temperature_ == first.temperature_
    assert digest(again) != digest(first)
    best = first.training_["best_epoch"]
    assert [e for e in events if e["event"] == "refit"] == [{"event": "refit", "rows": 33, "epochs": best}]
    assert again.training_["refit_rows"] == 33
    assert again.training_["steps"] == first.training_["steps"] + best * 9  # batches of 4
    assert again.training_["minutes"] >= events[-1]["seconds"] / 60
    assert len(adapters(model)) == 2


@pytest.mark.parametrize("apart", [True, False])
def test_the_weights_are_those_of_training_on_all_rows(model: HFModel, apart: bool) -> None:
    once = replace(REFIT, epochs=1)
    validation, weights = (HELD, None) if apart else (None, np.linspace(0.5, 2.0, 33))
    data = TRAIN if apart else ALL
    again = make(model, once).fit(*data, validation=validation, sample_weight=weights)
    whole = make(model, replace(once, refit=False)).fit(*ALL, validation=HELD, sample_weight=weights)
    assert digest(again) == digest(whole)
    assert again.training_["refit_rows"] == again.training_["rows"] + again.training_["validation_rows"] == 33


def test_validation_rows_weigh_as_much_as_an_average_row(model: HFModel) -> None:
    once = replace(REFIT, epochs=1)
    weights = np.linspace(1.0, 3.0, 24)
    again = make(model, once).fit(*TRAIN, validation=HELD, sample_weight=weights)
    whole = make(model, replace(once, refit=False))
    whole.fit(*ALL, validation=HELD, sample_weight=[*weights, *[2.0] * 9])
    assert digest(again) == digest(whole)


@pytest.mark.parametrize("steps", [3, 14])
def test_an_interrupted_run_goes_on(model: HFModel, tmp_path: Path, steps: int) -> None:
    seen = 0

    def stop(event: dict[str, Any]) -> None:
        nonlocal seen
        seen += event["event"] == "step"
        if seen > steps:  # the first training has 12
            raise KeyboardInterrupt

    config = replace(REFIT, save_steps=1)
    with pytest.raises(KeyboardInterrupt):
        make(model, config, checkpoints=tmp_path, callback=stop).fit(*TRAIN, validation=HELD)
    assert (tmp_path / "refit").is_dir() == (steps > 12)
    resumed = make(model, config, checkpoints=tmp_path, resume=True).fit(*TRAIN, validation=HELD)
    assert digest(resumed) == digest(make(model, config).fit(*TRAIN, validation=HELD))


def test_a_finished_run_without_it_is_gone_on_from(model: HFModel, tmp_path: Path) -> None:
    make(model, CONFIG, checkpoints=tmp_path).fit(*TRAIN, validation=HELD)
    events: list[str] = []
    more = make(model, checkpoints=tmp_path, resume=True, callback=lambda e: events.append(e["event"]))
    more.fit(*TRAIN, validation=HELD)
    assert events[0] == "refit"
    assert set(events[1:]) == {"step"}
    assert digest(more) == digest(make(model).fit(*TRAIN, validation=HELD))


def test_it_survives_saving(model: HFModel, tmp_path: Path) -> None:
    again = make(model).fit(*ALL)
    again.save_pretrained(tmp_path / "saved")
    loaded = load_classifier(tmp_path / "saved", model=model)
    np.testing.assert_allclose(loaded.predict_proba(TEST[0]), again.predict_proba(TEST[0]), atol=1e-6)
    assert loaded.config.refit
    assert loaded.training_ == again.training_
    assert len({file.stat().st_mode for file in (tmp_path / "saved").iterdir()}) == 1  # all may read all
    card = (tmp_path / "saved" / "README.md").read_text(encoding="utf-8")
    assert "- refit rows: 33" in card and "a second training on all 33 rows, measured on none" in card


def test_a_temperature_makes_the_search_more_thorough(
    model: HFModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It raises the small shares that the search may leave out."""
    classifier, asked = make(model).fit(*ALL), []
    score = model.score

    def note(*words: Any, **options: Any) -> Any:
        asked.append(options["epsilon"])
        return score(*words, **options)

    monkeypatch.setattr(model, "score", note)
    for classifier.temperature_ in (0.5, 1.0, 2.0):
        classifier.predict_proba(TEST[0])
    classifier.log_likelihoods(TEST[0])
    assert asked == pytest.approx([1e-6, 1e-6, 1e-12 / 3, 0.0], rel=1e-9, abs=0)


def test_the_rows_held_out_are_the_seeds(model: HFModel) -> None:
    assert hold_out(*ALL, 0.2, 0) == hold_out(*ALL, 0.2, 0) != hold_out(*ALL, 0.2, 1)


def test_yes_is_no_answer() -> None:
    with pytest.raises(TrainingError, match="refit: expected True or False, got 'yes'"):
        TrainConfig(refit="yes")  # type: ignore[arg-type]
