"""Merging a trained adapter into unquantised weights, and measuring what the merge changed."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from promptclf.artifacts import publish
from promptclf.classifiers.base import Text, check_texts
from promptclf.lm.light import prepare_peft
from promptclf.quiet import quiet

if TYPE_CHECKING:
    from promptclf.classifiers.lora import LoraClassifier
    from promptclf.lm.model import HFModel


def merge(
    classifier: LoraClassifier, folder: Path, X: Sequence[Text] | None, y: Sequence[str] | None
) -> dict[str, float]:
    """See `LoraClassifier.merge_and_save`.

    An adapter is never merged into quantised weights, where rounding would spoil it: the base model is
    loaded again without quantisation, so that a quantised model's results change a little.
    """
    import numpy as np

    prepare_peft()
    from peft import LoraConfig, PeftModel, set_peft_model_state_dict

    from promptclf.lm.adapters import lora_config
    from promptclf.lm.loading import load_copy, load_model

    model = classifier.model_
    with model.lock:
        weights = model.adapters.state(str(classifier.adapter_))
    module = load_copy(model)
    config: LoraConfig = lora_config(model.module, classifier.config)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PEFT's, about itself
        tuned = PeftModel(module, config)
        set_peft_model_state_dict(tuned, weights)
        merged = tuned.merge_and_unload(safe_merge=True)
    meta = {"kind": "merged", "mode": classifier.mode, "base_model": model.info.to_dict()}
    with publish(folder, meta) as stage, quiet():
        merged.save_pretrained(stage)
        model.tokenizer.save_pretrained(stage)
    if X is None:
        return {}
    texts = check_texts(X)
    before = classifier.predict_proba(texts)
    kept = load_model(str(folder), device=model.spec["device"], dtype=model.info.dtype)
    plain = _without_adapter(classifier, kept)
    after = plain.predict_proba(texts)
    result = {
        "agreement": float((before.argmax(1) == after.argmax(1)).mean()),
        "max_difference": float(np.abs(before - after).max()),
    }
    if y is not None:
        truth = np.asarray(y, dtype=object)
        result["accuracy_before"] = float((classifier.classes_[before.argmax(1)] == truth).mean())
        result["accuracy_after"] = float((classifier.classes_[after.argmax(1)] == truth).mean())
    return result


def _without_adapter(classifier: LoraClassifier, model: HFModel) -> LoraClassifier:
    """The same classifier on the merged model, where no adapter is needed."""
    plain = type(classifier)(classifier.task, model, classifier.template_, config=classifier.config)
    plain._start()
    plain._set_calibration(classifier.calibration_, classifier.log_prior_, classifier.temperature_)
    return plain
