"""LoRA training: it learns, it keeps the best, it spares the base model, and it fails cleanly."""

from __future__ import annotations

import gc
import itertools
import json
import logging
import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from sklearn.metrics import f1_score

from promptclf.classifiers import calibrate
from promptclf.classifiers.few_shot import FewShotClassifier
from promptclf.classifiers.lora import LoraClassifier
from promptclf.classifiers.zero_shot import ZeroShotClassifier
from promptclf.data.splitting import hold_out
from promptclf.errors import DataError, ModelError, TextTooLongError, TrainingError
from promptclf.lm.loading import load_model
from promptclf.lm.model import HFModel
from promptclf.settings import TrainConfig
from promptclf.task import Task
from promptclf.training.answer_loss import AnswerLoss, packs
from quick import CONFIG, TASK, adapters, digest, own_model, rows

TRAIN, HELD, TEST = rows(24), rows(9, start=100), rows(12, start=200)


@pytest.fixture(scope="module")
def model(tiny_folders: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> HFModel:
    return own_model(tiny_folders["llama"], tmp_path_factory.mktemp("own"))


def make(model: HFModel, config: TrainConfig = CONFIG, **options: Any) -> LoraClassifier:
    return LoraClassifier(TASK, model, config=config, **options)


def fit(model: HFModel, config: TrainConfig = CONFIG, **options: Any) -> LoraClassifier:
    return make(model, config, **options).fit(*TRAIN, validation=HELD)


@pytest.fixture(scope="module")
def old(model: HFModel) -> LoraClassifier:
    """A classifier on the same model that no test may disturb."""
    return fit(model)


@pytest.fixture(autouse=True)
def no_adapter_left(model: HFModel, old: LoraClassifier) -> Iterator[None]:
    """What a test trained is gone after it."""
    expected = old.predict_proba(TEST[0])
    yield
    if len(adapters(model)) > 1:
        gc.collect()
    assert adapters(model) == {old.adapter_}
    np.testing.assert_array_equal(old.predict_proba(TEST[0]), expected)


# ---- learning -------------------------------------------------------------------------------------


@pytest.mark.parametrize(("family", "loss"), [("llama", "vocabulary"), ("qwen3", "labels")])
def test_a_task_that_can_be_learned_is_learned(
    tiny_folders: dict[str, Path], tmp_path: Path, family: str, loss: str
) -> None:
    own = own_model(tiny_folders[family], tmp_path / "own")
    config = replace(CONFIG, epochs=10, learning_rate=1e-2, batch_size=8, loss=loss)
    train, test = rows(64), rows(60, start=500)
    classifier = LoraClassifier(TASK, own, config=config).fit(*train, validation=rows(12, start=300))
    assert ZeroShotClassifier(TASK, own, calibration="none").fit().score(*test) < 0.8
    assert classifier.score(*test) > 0.9


def test_what_is_learned_is_told(old: LoraClassifier) -> None:
    told = old.training_
    assert (told["rows"], told["validation_rows"], told["steps"], told["processes"]) == (24, 9, 12, 1)
    assert [row["epoch"] for row in told["history"]] == [1, 2]
    assert json.loads(json.dumps(old.provenance()))["learned"]["training"] == told


@pytest.mark.parametrize("patience", [1, 99])
def test_the_best_epoch_is_kept_and_waiting_for_a_better_one_ends(
    model: HFModel, old: LoraClassifier, monkeypatch: pytest.MonkeyPatch, patience: int
) -> None:
    """Macro-F1 by epoch is made up; the adapter of the best is what stays."""
    f1 = iter([0.2, 0.6, 0.5, 0.6, 0.1, 0.3])
    kept: list[dict[str, torch.Tensor]] = []

    def measure(scores: np.ndarray, truth: np.ndarray) -> dict[str, float]:
        (name,) = adapters(model) - {old.adapter_}
        kept.append(model.adapters.state(name))
        return {"macro_f1": next(f1), "accuracy": 0.5, "log_loss": 1.0 + len(kept) / 10}

    monkeypatch.setattr("promptclf.classifiers.lora._measure", measure)
    classifier = fit(model, replace(CONFIG, epochs=6, patience=patience))
    assert classifier.training_["best_epoch"] == 2  # the first of two with 0.6 has the lower log-loss
    assert len(classifier.training_["history"]) == (3 if patience == 1 else 6)
    state = model.adapters.state(str(classifier.adapter_))
    assert all(torch.equal(state[key], kept[1][key]) for key in state)
    assert not torch.equal(state[next(iter(state))], kept[2][next(iter(state))])


def test_validation_is_measured_as_scikit_learn_does(model: HFModel) -> None:
    classifier = fit(model, replace(CONFIG, epochs=1), calibration="none")
    (row,) = classifier.training_["history"]
    predicted, truth = classifier.predict(HELD[0]), np.array(HELD[1])
    assert row["macro_f1"] == pytest.approx(f1_score(truth, predicted, average="macro"), abs=1e-12)
    assert row["accuracy"] == (predicted == truth).mean()
    columns = np.searchsorted(classifier.classes_, truth)
    log_loss = -np.log(classifier.predict_proba(HELD[0])[np.arange(9), columns]).mean()
    assert row["log_loss"] == pytest.approx(log_loss, abs=1e-5)


def test_the_temperature_lowers_the_log_loss_on_validation(model: HFModel, old: LoraClassifier) -> None:
    with_one, without = old, fit(model, calibration="none")
    assert digest(with_one) == digest(without)
    assert (with_one.calibration_, without.calibration_) == ("temperature", "none")
    assert with_one.temperature_ != 1.0 == without.temperature_
    columns = np.searchsorted(with_one.classes_, HELD[1])

    def log_loss(classifier: LoraClassifier) -> float:
        return float(-np.log(classifier.predict_proba(HELD[0])[np.arange(9), columns]).mean())

    assert log_loss(with_one) < log_loss(without)
    assert (with_one.predict(TEST[0]) == without.predict(TEST[0])).all()


def test_rows_without_weight_are_not_held_out(model: HFModel) -> None:
    texts, labels = TRAIN
    weights = [0.0] * 12 + [1.0] * 12
    seen = make(model, seed=1).fit(texts, labels, sample_weight=weights)
    assert seen.training_["rows"] + seen.training_["validation_rows"] == 12
    alone = make(model, seed=1).fit(texts[12:], labels[12:])
    assert alone.training_["history"] == seen.training_["history"]


def test_copies_of_a_text_are_held_out_together(model: HFModel) -> None:
    texts, labels = [[*part, *part[:12], *part[:6]] for part in rows(24)]
    for seed in range(5):
        kept, held = hold_out(texts, labels, 0.2, seed)
        assert sorted([*kept, *held]) == list(range(42))
        assert not {texts[i] for i in kept} & {texts[i] for i in held}
        assert len({texts[i] for i in held}) == 5  # 20 % of 24
    with pytest.raises(DataError, match="at least 2 different labelled texts, got 1"):
        make(model).fit(["same"] * 4, ["billing"] * 4)


def test_without_validation_rows_a_stratified_part_is_held_out(model: HFModel) -> None:
    classifier = make(model, replace(CONFIG, validation_fraction=0.25))
    classifier.fit(*rows(24))
    assert (classifier.training_["rows"], classifier.training_["validation_rows"]) == (18, 6)
    kept, held = hold_out(*rows(24), 0.25, classifier.seed)
    assert sorted(rows(24)[1][i] for i in held) == sorted(2 * TASK.labels)
    assert len(kept) == 18


def test_weights_stay_with_their_rows(model: HFModel, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []
    monkeypatch.setattr(LoraClassifier, "_train", lambda _, *parts: seen.extend(parts))
    texts, labels = TRAIN
    make(model, calibration="none").fit(texts, labels, sample_weight=np.arange(1.0, 25.0))
    kept, kept_labels, weights, held, held_labels = seen
    assert [texts[int(weight) - 1] for weight in weights] == kept
    label_of = dict(zip(texts, labels, strict=True))
    assert [label_of[text] for text in [*kept, *held]] == [*kept_labels, *held_labels]
    assert sorted([*kept, *held]) == sorted(texts)


def test_a_label_with_one_row_is_no_obstacle(model: HFModel) -> None:
    classifier = make(model, replace(CONFIG, epochs=1))
    classifier.fit(TRAIN[0][:7], ["billing"] * 6 + ["account"])
    assert classifier.predict_proba(TEST[0]).shape == (12, 3)


# ---- losses, weights and scores -------------------------------------------------------------------


def test_restricted_training_goes_with_restricted_scores(model: HFModel) -> None:
    task = Task("moods", ("very good", "very bad", "bad", "plain good"))
    classifier = LoraClassifier(task, model, config=replace(CONFIG, loss="labels"), calibration="none")
    labels = [task.labels[n % 4] for n in range(24)]
    classifier.fit(TRAIN[0], labels, validation=(TRAIN[0][:8], labels[:8]))
    scores = classifier.log_likelihoods(TEST[0])
    # Every token competes with the labels' other tokens only, so that the labels share all there is.
    np.testing.assert_allclose(np.exp(scores).sum(axis=1), 1, atol=1e-5)
    np.testing.assert_allclose(classifier.predict_proba(TEST[0]), np.exp(scores), atol=1e-5)
    whole = LoraClassifier(task, model, config=CONFIG, calibration="none")
    whole.fit(TRAIN[0], labels, validation=(TRAIN[0][:8], labels[:8]))
    assert (np.exp(whole.log_likelihoods(TEST[0])).sum(axis=1) < 0.999).all()


def first_gradient(model: HFModel, monkeypatch: pytest.MonkeyPatch, *args: Any, **options: Any) -> Any:
    """The gradient of the first step, and the rows that it saw."""
    found: list[list[torch.Tensor]] = []
    real = torch.optim.AdamW.step

    def step(self: torch.optim.AdamW, *step_args: Any, **step_options: Any) -> Any:
        found.append([p.grad.clone() for group in self.param_groups for p in group["params"]])
        return real(self, *step_args, **step_options)

    config = replace(CONFIG, batch_size=32, epochs=1, max_grad_norm=1e9, **options.pop("config", {}))
    with monkeypatch.context() as patch:
        patch.setattr(torch.optim.AdamW, "step", step)
        make(model, config).fit(*args, validation=HELD, **options)
    return torch.cat([gradient.flatten() for gradient in found[0]])


def test_a_weight_counts_like_that_many_rows(model: HFModel, monkeypatch: pytest.MonkeyPatch) -> None:
    texts, labels = TRAIN[0][:4], TRAIN[1][:4]
    weighted = first_gradient(model, monkeypatch, texts, labels, sample_weight=[3, 1, 1, 1])
    repeated = first_gradient(model, monkeypatch, [texts[0]] * 2 + texts, [labels[0]] * 2 + labels)
    plain = first_gradient(model, monkeypatch, texts, labels)
    scaled = first_gradient(model, monkeypatch, texts, labels, sample_weight=[0.5] * 4)
    torch.testing.assert_close(weighted, repeated, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(scaled, plain, atol=1e-5, rtol=1e-4)
    assert not torch.allclose(weighted, plain, atol=1e-3)


def test_a_row_of_weight_0_might_as_well_not_be_there(model: HFModel) -> None:
    texts, labels = TRAIN
    nonsense = ["what is this", *texts, "and this", "one more"]
    weights = [0.0, *np.linspace(0.5, 2, 24), 0.0, 0.0]
    with_them = make(model, replace(CONFIG, class_weights="balanced", dropout=0.1)).fit(
        nonsense, ["account", *labels, "account", "billing"], validation=HELD, sample_weight=weights
    )
    without = make(model, replace(CONFIG, class_weights="balanced", dropout=0.1)).fit(
        texts, labels, validation=HELD, sample_weight=weights[1:-2]
    )
    assert with_them.training_["rows"] == 24
    assert digest(with_them) == digest(without)


def test_balanced_class_weights_give_every_label_the_same_say(
    model: HFModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen = [0, 3, 6, 9, 1, 4]  # four of billing, two of delivery, none of account
    texts, labels = [TRAIN[0][i] for i in chosen], [TRAIN[1][i] for i in chosen]
    balanced = first_gradient(model, monkeypatch, texts, labels, config={"class_weights": "balanced"})
    weighted = first_gradient(model, monkeypatch, texts, labels, sample_weight=[1, 1, 1, 1, 2, 2])
    torch.testing.assert_close(balanced, weighted, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ([1.0], r"sample_weight: expected 24 numbers, one per text, got shape \(1,\)"),
        ([[1.0]] * 24, r"got shape \(24, 1\)"),
        ([-1.0] + [1.0] * 23, "expected finite numbers of at least 0, not all 0"),
        ([math.nan] + [1.0] * 23, "expected finite numbers"),
        ([0.0] * 24, "not all 0"),
    ],
)
def test_weights_that_make_no_sense_are_refused(model: HFModel, weights: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        make(model).fit(*TRAIN, sample_weight=weights)


def test_the_upper_layers_alone_can_be_tuned(tiny: HFModel, tmp_path: Path) -> None:
    """All linear parts of them, whether another adapter is attached or not, and PEFT can load it."""
    count = tiny.module.config.num_hidden_layers
    every = fit(tiny)
    upper = fit(tiny, replace(CONFIG, layers=1))

    def tuned(classifier: LoraClassifier) -> set[str]:
        return set(tiny.adapters.state(classifier.adapter_))

    last = {name for name in tuned(every) if f".{count - 1}." in name}
    assert last < tuned(every)
    assert tuned(upper) == last
    upper.save_pretrained(tmp_path / "saved")
    saved = json.loads((tmp_path / "saved" / "adapter_config.json").read_text())
    assert saved["layers_to_transform"] == [count - 1]
    loaded = LoraClassifier.from_pretrained(tmp_path / "saved", model=tiny)
    np.testing.assert_allclose(loaded.predict_proba(TEST[0]), upper.predict_proba(TEST[0]), atol=1e-6)
    with pytest.raises(TrainingError, match=f"layers: expected at most the model's {count}, got {count + 1}"):
        fit(tiny, replace(CONFIG, layers=count + 1))


# ---- the base model is spared ---------------------------------------------------------------------


def test_prompt_modes_are_bit_equal_before_during_and_after(
    tiny_folders: dict[str, Path], tmp_path: Path
) -> None:
    model = own_model(tiny_folders["llama"], tmp_path / "own")
    zero = ZeroShotClassifier(TASK, model, calibration="none").fit()
    few = FewShotClassifier(TASK, model, selection="embedding", calibration="none").fit(*TRAIN)
    before, before_few = zero.log_likelihoods(TEST[0]), few.log_likelihoods(TEST[0])
    model._embeddings.clear()

    def untouched() -> None:
        np.testing.assert_array_equal(zero.log_likelihoods(TEST[0]), before)
        np.testing.assert_array_equal(few.log_likelihoods(TEST[0]), before_few)

    first = fit(model, callback=lambda event: untouched())
    second = fit(model, replace(CONFIG, rank=2, alpha=4, target_modules=("q_proj", "v_proj")), seed=1)
    untouched()
    answers = [c.log_likelihoods(TEST[0]) for c in (first, second)]
    assert np.abs(answers[0] - before).max() > 0.01 < np.abs(answers[1] - before).max()
    assert len(adapters(model)) == 2
    untouched()
    del first
    gc.collect()
    assert len(adapters(model)) == 1
    np.testing.assert_array_equal(second.log_likelihoods(TEST[0]), answers[1])
    untouched()
    del second
    gc.collect()
    assert not any("lora" in name for name, _ in model.module.named_modules() if adapters(model) == set())
    untouched()


def test_garbage_collected_in_a_forward_pass_disturbs_nobody(model: HFModel, old: LoraClassifier) -> None:
    """A classifier in a reference cycle may be collected at any moment, in another's scoring too."""
    classifier, doomed = fit(model), fit(model, seed=1)
    expected = classifier.log_likelihoods(TEST[0])
    doomed.self = doomed
    names = {old.adapter_, classifier.adapter_}
    del doomed
    hook = model.module.base_model.layers[0].register_forward_hook(lambda *args: gc.collect() and None)
    try:
        found = classifier.log_likelihoods(TEST[0])
    finally:
        hook.remove()
    np.testing.assert_array_equal(found, expected)
    assert adapters(model) == names


def test_to_answer_nobody_asks_every_module(old: LoraClassifier, monkeypatch: pytest.MonkeyPatch) -> None:
    """A walk through all of them takes as long as some tokens, and PEFT takes one at every switch."""
    old.predict(TEST[0])  # once is no matter
    asked: set[int] = set()
    walk = torch.nn.Module.named_modules

    def told(self: torch.nn.Module, *args: Any, **options: Any) -> Iterator[tuple[str, torch.nn.Module]]:
        for name, module in walk(self, *args, **options):
            asked.add(id(module))
            yield name, module

    monkeypatch.setattr(torch.nn.Module, "named_modules", told)
    old.predict(TEST[0])
    few = len(asked)  # up to the first parameter, which says where the model is
    every = len(list(old.model_.module.modules()))
    assert few < 5 < every == len(asked)


def test_fitting_again_replaces_the_adapter(model: HFModel, old: LoraClassifier) -> None:
    classifier = fit(model)
    first = classifier.adapter_
    classifier.fit(*TRAIN, validation=HELD)
    assert adapters(model) == {old.adapter_, classifier.adapter_}
    assert classifier.adapter_ != first
    with (
        model.lock,
        pytest.raises(ValueError, match="adapter: expected the name of one that is attached"),
        model.adapters.using(first),
    ):
        pass


# ---- quantised models -----------------------------------------------------------------------------


@pytest.mark.parametrize("quantization", ["int8", "nf4"])
def test_a_quantised_model_learns(
    tiny_folders: dict[str, Path], tmp_path: Path, quantization: str, caplog: pytest.LogCaptureFixture
) -> None:
    own = own_model(tiny_folders["llama"], tmp_path / "own", quantization=quantization)
    if own.info.quantization != quantization:
        pytest.skip(f"{quantization} does not run here: {caplog.text}")
    assert packs(own.module, longest=64)
    zero = ZeroShotClassifier(TASK, own, calibration="none").fit()
    before = zero.log_likelihoods(TEST[0])
    losses: list[float] = []
    classifier = LoraClassifier(
        TASK, own, config=replace(CONFIG, epochs=3), callback=lambda e: losses.append(e.get("loss", 0.0))
    ).fit(*TRAIN, validation=HELD)
    assert np.mean(losses[-6:-1]) < np.mean(losses[:5])
    np.testing.assert_array_equal(zero.log_likelihoods(TEST[0]), before)
    classifier.save_pretrained(tmp_path / "saved")
    again = LoraClassifier.from_pretrained(tmp_path / "saved", model=own)
    np.testing.assert_allclose(
        again.predict_proba(TEST[0]), classifier.predict_proba(TEST[0]), atol=1e-6, rtol=0
    )
    assert classifier.provenance()["model"]["quantization"] == quantization


# ---- what is saved, for others --------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")  # asked by PEFT
@pytest.mark.filterwarnings("ignore:fan_in_fan_out is set to False:UserWarning")  # PEFT corrects it for GPT-2
@pytest.mark.parametrize("family", ["llama", "gpt2", "qwen3"])
def test_peft_reads_a_saved_adapter(tiny_folders: dict[str, Path], tmp_path: Path, family: str) -> None:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    own = own_model(tiny_folders[family], tmp_path / "own")
    classifier = LoraClassifier(TASK, own, config=CONFIG).fit(*TRAIN, validation=HELD)
    saved = classifier.save_pretrained(tmp_path / "saved")
    weights = load_file(saved / "adapter_model.safetensors")
    assert weights
    assert all(tensor.dtype == torch.bfloat16 for tensor in weights.values())
    ids = torch.tensor([own.encoder.prompt(classifier.prompt(TEST[0][0]))])
    with torch.inference_mode(), own.lock, own.adapters.using(classifier.adapter_):
        expected = own.module(input_ids=ids).logits
    base = AutoModelForCausalLM.from_pretrained(tiny_folders[family])
    with torch.inference_mode():
        plain = base(input_ids=ids).logits
        found = PeftModel.from_pretrained(base, saved).eval()(input_ids=ids).logits
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)
    assert (found - plain).abs().max() > 0.01


@pytest.mark.parametrize(
    ("family", "quantization"), [("llama", "none"), ("gpt2", "none"), ("qwen3", "none"), ("llama", "nf4")]
)
def test_a_merged_model_needs_no_adapter(
    tiny_folders: dict[str, Path], tmp_path: Path, family: str, quantization: str
) -> None:
    own = own_model(tiny_folders[family], tmp_path / "own", quantization=quantization)
    if own.info.quantization != quantization:
        pytest.skip(f"{quantization} does not run here")
    before = {name: p.clone() for name, p in own.module.named_parameters()}
    classifier = LoraClassifier(TASK, own, config=CONFIG).fit(*TRAIN, validation=HELD)
    expected = classifier.predict_proba(TEST[0])
    report = classifier.merge_and_save(tmp_path / "merged", *TEST)
    merged = load_model(str(tmp_path / "merged"), device="cpu")
    assert merged.info.quantization == "none"
    weights = load_file(tmp_path / "merged" / "model.safetensors")
    assert all(tensor.dtype == torch.float32 for tensor in weights.values())
    assert not any("lora" in name or "quant" in name for name in weights)
    if quantization == "none":
        assert report["agreement"] == 1.0
        assert report["max_difference"] < 1e-4
        assert report["accuracy_before"] == report["accuracy_after"] == classifier.score(*TEST)
    plain = ZeroShotClassifier(TASK, merged, calibration="none").fit().log_likelihoods(TEST[0])
    found = calibrate.probabilities(plain, None, classifier.temperature_)
    assert np.abs(found - expected).max() == pytest.approx(report["max_difference"], abs=1e-5)
    # The shared model did not change.
    np.testing.assert_array_equal(classifier.predict_proba(TEST[0]), expected)
    names = dict(own.module.named_parameters())
    assert all(torch.equal(names.get(n, names.get(_wrapped(n), p)), p) for n, p in before.items())


def _wrapped(name: str) -> str:
    """The name of a layer's weight once PEFT has wrapped the layer."""
    layer, _, kind = name.rpartition(".")
    return f"{layer}.base_layer.{kind}"


def test_merging_without_texts_measures_nothing(old: LoraClassifier, tmp_path: Path) -> None:
    assert old.merge_and_save(tmp_path / "merged") == {}
    unlabelled = old.merge_and_save(tmp_path / "merged", TEST[0])
    assert unlabelled.keys() == {"agreement", "max_difference"}


# ---- callbacks ------------------------------------------------------------------------------------


def test_the_callback_hears_of_every_step_and_epoch(model: HFModel) -> None:
    events: list[dict[str, Any]] = []
    classifier = fit(model, callback=events.append)
    assert [event["event"] for event in events] == [*["step"] * 6, "epoch", *["step"] * 6, "epoch"]
    steps = [event for event in events if event["event"] == "step"]
    assert [event["step"] for event in steps] == list(range(1, 13))
    assert all(event.keys() == {"event", "step", "steps", "loss", "seconds"} for event in steps)
    assert {event["steps"] for event in steps} == {12}
    assert all(a["seconds"] <= b["seconds"] for a, b in itertools.pairwise(steps))
    epochs = [event for event in events if event["event"] == "epoch"]
    history = [{k: v for k, v in e.items() if k not in ("event", "epochs")} for e in epochs]
    assert history == classifier.training_["history"]
    assert all(event["epochs"] == 2 for event in epochs)
    json.dumps(events)


@pytest.mark.parametrize("when", ["step", "epoch"])
def test_a_callback_may_cancel(model: HFModel, old: LoraClassifier, when: str, tmp_path: Path) -> None:
    def cancel(event: dict[str, Any]) -> None:
        if event["event"] == when:
            raise KeyboardInterrupt

    classifier = make(model, callback=cancel, checkpoints=tmp_path)
    with pytest.raises(KeyboardInterrupt):
        classifier.fit(*TRAIN, validation=HELD)
    assert adapters(model) == {old.adapter_}
    assert list(tmp_path.iterdir()) == []
    assert not hasattr(classifier, "classes_")
    assert not model.module.training


# ---- failing --------------------------------------------------------------------------------------


def not_finite(kind: str, monkeypatch: pytest.MonkeyPatch) -> tuple[TrainConfig, str]:
    """Ways for training to diverge: settings, and what the message says."""
    if kind == "a huge rate":
        return replace(CONFIG, learning_rate=1e30, max_grad_norm=1e9, warmup=0.0), r"now 1e\+30"
    if kind == "a loss":
        real = AnswerLoss.forward
        calls = iter(range(100))

        def forward(self: AnswerLoss, **inputs: Any) -> torch.Tensor:
            learning = torch.is_grad_enabled()  # not when it is tried how rows can be laid out
            return real(self, **inputs) * (math.nan if learning and next(calls) == 2 else 1.0)

        monkeypatch.setattr(AnswerLoss, "forward", forward)
        return CONFIG, "the loss became nan at step 3; nothing was saved. Lower the learning rate"
    if kind == "a gradient":
        from accelerate import Accelerator

        monkeypatch.setattr(Accelerator, "clip_grad_norm_", lambda self, *args: torch.tensor(math.inf))
        return CONFIG, "at step 1; nothing was saved"
    monkeypatch.setattr(LoraClassifier, "_score", lambda self, prompts: np.full((len(prompts), 3), math.nan))
    return CONFIG, "validation scores were not finite after epoch 1; nothing was saved"


@pytest.mark.parametrize("kind", ["a huge rate", "a loss", "a gradient", "a validation score"])
def test_what_is_not_finite_stops_training_and_leaves_nothing(
    model: HFModel, old: LoraClassifier, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    with monkeypatch.context() as patch:
        config, message = not_finite(kind, patch)
        classifier = make(model, config, checkpoints=tmp_path)
        with pytest.raises(TrainingError, match=message):
            classifier.fit(*TRAIN, validation=HELD)
    assert adapters(model) == {old.adapter_}
    assert list(tmp_path.iterdir()) == []
    assert not hasattr(classifier, "classes_")


def test_after_a_run_that_failed_the_model_can_be_trained(
    model: HFModel, old: LoraClassifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch, pytest.raises(TrainingError):
        make(model, not_finite("a loss", patch)[0]).fit(*TRAIN, validation=HELD)
    assert digest(fit(model)) == digest(old)


def test_a_text_too_long_to_train_on_leaves_the_classifier_unfitted(model: HFModel) -> None:
    classifier = make(model)
    with pytest.raises(TextTooLongError, match=r"text 2: expected at most 512 tokens"):
        classifier.fit(["short", "word " * 600, *TRAIN[0]], ["billing"] * 2 + TRAIN[1], validation=HELD)
    assert not hasattr(classifier, "classes_")
    fit_and_cut = make(model, replace(CONFIG, epochs=1), truncate=True)
    fit_and_cut.fit(["short", "word " * 600], ["billing", "account"], validation=HELD)


def test_modules_that_are_not_there_are_refused(model: HFModel, old: LoraClassifier) -> None:
    for _ in range(2):
        classifier = make(model, replace(CONFIG, target_modules=("nonsense",)))
        with pytest.raises(TrainingError, match=r"target_modules: .*nonsense"):
            classifier.fit(*TRAIN, validation=HELD)
        assert not hasattr(classifier, "classes_")
        assert adapters(model) == {old.adapter_}


def test_a_model_without_weights_cannot_be_trained(fake_model: Any) -> None:
    with pytest.raises(ModelError, match="LoRA needs a model from load_model, got FakeModel"):
        LoraClassifier(TASK, fake_model, config=CONFIG).fit(*TRAIN)


@pytest.mark.parametrize(("texts", "labels"), [([], []), (["one"], ["billing"])])
def test_too_few_rows_are_refused(model: HFModel, texts: list[str], labels: list[str]) -> None:
    with pytest.raises(DataError, match=f"training needs at least 2 different .* texts, got {len(texts)}"):
        make(model).fit(texts, labels)


def test_no_validation_rows_are_refused(model: HFModel) -> None:
    with pytest.raises(DataError, match="needs rows and validation rows, got 24 and 0"):
        make(model).fit(*TRAIN, validation=([], []))
    with pytest.raises(DataError, match="validation, row 1: 'x' is not a label"):
        make(model).fit(*TRAIN, validation=(["text"], ["x"]))


def test_an_unknown_calibration_is_refused(model: HFModel) -> None:
    with pytest.raises(DataError, match="calibration: expected one of auto, temperature, none, got 'prior'"):
        fit(model, calibration="prior")


def test_training_says_nothing_unasked(
    model: HFModel, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        fit(model)
    assert capfd.readouterr() == ("", "")
    assert not caplog.records
