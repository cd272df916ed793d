"""What ships with packaged tasks is of the task as it is, and what README's figures were measured with."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fakes import FakeModel
from promptclf import FewShotClassifier, ZeroShotClassifier, load_classifier, load_dataset, load_model
from promptclf.classifiers.persistence import read_config
from promptclf.lm.embedded import HUB_ID
from promptclf.lm.model import HFModel, ModelInfo
from promptclf.modes import MODES
from promptclf.prompt import PromptTemplate, default_template
from promptclf.task import packaged_classifier, packaged_tasks
from promptclf.ui.core.ready import Source
from promptclf.ui.core.service import Service

RESULTS = Path(__file__).parent / "benchmarks/results/quality"


def measured(name: str, mode: str) -> dict[str, Any]:
    """What the mode had learned when its accuracy was measured for README."""
    result = json.loads((RESULTS / f"{name}.{mode}.0.json").read_text())
    return result["provenance"]["learned"]  # type: ignore[no-any-return]


@pytest.fixture(scope="module")
def model() -> HFModel:
    return load_model(dtype="float32")


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", packaged_tasks())
def test_it_is_of_the_task_as_it_is_now(name: str, mode: str, model: HFModel) -> None:
    folder = packaged_classifier(name, mode)
    assert folder is not None
    classifier, task = load_classifier(name, mode=mode, model=model), load_dataset(name).task
    template = PromptTemplate.load(default_template(task))
    assert (classifier.mode, classifier.task, classifier.template_) == (mode, task, template)
    assert read_config(folder)["base_model"]["revision"] == model.info.revision
    assert type(classifier).from_pretrained(name, model=model).mode == mode


@pytest.mark.parametrize("name", packaged_tasks())
def test_the_prior_of_zero_shot(name: str, model: HFModel) -> None:
    shipped = ZeroShotClassifier.from_pretrained(name, model=model)
    learned = measured(name, "zero-shot")
    assert shipped.calibration_ == learned["calibration"] == "prior"
    np.testing.assert_allclose(shipped.log_prior_, learned["log_prior"], atol=1e-3)


@pytest.mark.parametrize("name", packaged_tasks())
def test_the_examples_of_few_shot(name: str, model: HFModel) -> None:
    dataset = load_dataset(name)
    shipped = FewShotClassifier.from_pretrained(name, model=model)
    assert shipped.examples_ == list(dataset.train)
    best = max(shipped.cross_validation_, key=lambda row: (row["accuracy"], -row["log_loss"]))
    chosen = (shipped.selection_, shipped.draw_, shipped.calibration_)
    assert chosen == (best["selection"], best["draw"], best["calibration"])
    learned = measured(name, "few-shot")
    assert chosen == (learned["selection"], learned["draw"], learned["calibration"])
    np.testing.assert_allclose(shipped.log_prior_, learned["log_prior"], atol=1e-3)


def test_the_app_answers_with_it_at_once(
    model: HFModel, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PROMPTCLF_HOME", str(tmp_path))
    service, text = Service(model), "My parcel has not come yet."
    for mode in ("zero-shot", "few-shot"):
        [expected] = load_classifier("support", mode=mode, model=model).classify([text])
        assert service.classify(text, mode).probabilities == pytest.approx(expected.probabilities, abs=1e-5)
    assert not list((tmp_path / "app").glob("*"))  # nothing had to be learned


def test_the_original_of_the_embedded_model_uses_it_too(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PROMPTCLF_HOME", str(tmp_path))
    space = FakeModel()
    space.info = ModelInfo(HUB_ID, "hub", "1" * 40, "none", "none", "cpu", "float32")
    ready = Service(space).ready
    few_shot = ready.classifier(Source("support"), "few-shot")
    assert few_shot.provenance()["learned"]["selection"] == "random"
    assert ready.classifier(Source("support"), "zero-shot").calibration_ == "prior"
    assert not space.calls
    space.info = ModelInfo(HUB_ID, "hub", "1" * 40, "nf4", "nf4", "cpu", "float32")
    other = Service(space).ready.classifier(Source("support"), "few-shot")
    assert other.provenance()["learned"]["selection"] == "tfidf"
