"""The LoRA mode: `fit` trains a small adapter on the base model, quantised or not."""

from __future__ import annotations

import hashlib
import json
import logging
import weakref
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from promptclf.classifiers import calibrate
from promptclf.classifiers.base import PromptClassifier, Text, check_labelled
from promptclf.data.splitting import hold_out
from promptclf.errors import ArtifactError, DataError, ModelError
from promptclf.lm.model import AdaptableModel, HFModel, LanguageModel
from promptclf.prompt import PromptTemplate
from promptclf.settings import TrainConfig
from promptclf.task import Task

logger = logging.getLogger(__name__)

WEIGHTS = "adapter_model.safetensors"
ADAPTER_CONFIG = "adapter_config.json"


class LoraClassifier(PromptClassifier):
    """An adapter trained so that the label's words follow the prompt.

    Parameters
    ----------
    calibration
        "temperature" (default; "auto" is the same): one number fitted on the validation rows (Guo
        et al. 2017). "none".
    config : TrainConfig
        Hyper-parameters.
    seed
        Of initial weights, dropout, order and validation split.
    callback
        Called with a dictionary after every step ("step": step, steps, loss, seconds) and epoch
        ("epoch": epoch, epochs, macro_f1, accuracy, log_loss), and where training starts afresh on all
        rows ("refit": rows, epochs). Raise from it to cancel.
    checkpoints
        A folder for checkpoints; none are written without it.
    resume
        Go on from the newest checkpoint there.

    Attributes
    ----------
    training_ : dict
        Rows, steps, minutes, best epoch, and validation metrics of each epoch; "refit_rows" where all rows
        were trained on in the end.
    """

    mode = "lora"
    choices: ClassVar = {"calibration": ("auto", "temperature", "none")}
    epsilon_ = 1e-6  # a trained model rules most labels out early; the rest are exact

    def __init__(
        self,
        task: Task,
        model: LanguageModel | str = "embedded",
        template: PromptTemplate | str | None = None,
        *,
        calibration: str = "auto",
        truncate: bool = False,
        config: TrainConfig = TrainConfig(),  # noqa: B008  (frozen)
        seed: int = 0,
        callback: Any = None,
        checkpoints: str | Path | None = None,
        resume: bool = False,
    ) -> None:
        super().__init__(task, model, template, calibration=calibration, truncate=truncate)
        self.config = config
        self.seed = seed
        self.callback = callback
        self.checkpoints = checkpoints
        self.resume = resume

    def fit(
        self,
        X: Sequence[Text] | None,
        y: Sequence[str] | None = None,
        *,
        validation: tuple[Sequence[Text], Sequence[str]] | None = None,
        sample_weight: ArrayLike | None = None,
    ) -> LoraClassifier:
        """Train; keep the epoch with the best macro-F1 on the validation rows.

        Without `validation`, a stratified part of the training rows is held out for it. With
        ``config.refit``, the validation rows are trained on too in the end, with the weight of an average
        training row where they come apart.

        Raises
        ------
        TrainingError
            If the loss is not finite. The adapter is then removed and nothing is saved.
        """
        self.check_options()
        texts, labels = check_labelled(self.task, [] if X is None else X, y)
        weights = _weights(sample_weight, len(texts))
        counting = np.flatnonzero(weights)  # a row of weight 0 has no part in anything
        texts, labels = [texts[i] for i in counting], [labels[i] for i in counting]
        weights = weights[counting]
        apart, everything = validation is not None, (texts, labels, weights)
        if validation is None:
            rows, held_out = hold_out(texts, labels, self.config.validation_fraction, self.seed)
            validation = [texts[i] for i in held_out], [labels[i] for i in held_out]
            texts, labels, weights = [texts[i] for i in rows], [labels[i] for i in rows], weights[rows]
        held, held_labels = check_labelled(self.task, validation[0], validation[1], what="validation")
        if not texts or not held:
            raise DataError(f"training needs rows and validation rows, got {len(texts)} and {len(held)}")
        if apart:
            average = np.full(len(held), weights.mean())
            everything = [*texts, *held], [*labels, *held_labels], np.append(weights, average)
        with self._learning(texts):
            self._train(texts, labels, weights, held, held_labels)
            if self.config.refit:
                self._refit(*everything)
            if self.calibration != "none":
                temperature = calibrate.fit_temperature(self._validation_scores, self._columns(held_labels))
                self._set_calibration("temperature", None, temperature)
        return self

    def _start(self, texts: Sequence[Text] = ()) -> None:
        self._forget()
        super()._start(texts)
        if not isinstance(self.model_, AdaptableModel):
            raise ModelError(f"LoRA needs a model from load_model, got {type(self.model_).__name__}")
        self.restricted_ = self.config.loss == "labels"

    # ---- training -----------------------------------------------------------------------------

    def _train(
        self,
        texts: list[Text],
        labels: list[str],
        weights: NDArray[np.float64],
        held: list[Text],
        held_labels: list[str],
    ) -> None:
        if not isinstance(self.model_, HFModel):
            raise ModelError(f"LoRA trains a model from load_model, got {type(self.model_).__name__}")
        prompts, truth = self._prompts_to_learn(held), self._columns(held_labels)
        result = self._run(
            self._rows(texts, labels, weights),
            self.config,
            self.checkpoints,
            held=[[prompt.text for prompt in prompts], held_labels],
            evaluate=lambda indices: self._score([prompts[i] for i in indices]),
            measure=lambda scores: _measure(scores, truth),
            validation_rows=len(held),
        )
        self._validation_scores = result.scores
        self.training_ = {
            "rows": len(texts),
            "validation_rows": len(held),
            "steps": result.steps,
            "best_epoch": result.best_epoch,
            "minutes": round(result.seconds / 60, 3),
            "processes": result.processes,
            "history": result.history,
        }

    def _refit(self, texts: list[Text], labels: list[str], weights: NDArray[np.float64]) -> None:
        """Train afresh on all rows for as many epochs as were best."""
        from accelerate import PartialState

        epochs = self.training_["best_epoch"]
        if self.callback and PartialState().is_main_process:
            self.callback({"event": "refit", "rows": len(texts), "epochs": epochs})
        result = self._run(
            self._rows(texts, labels, weights),
            replace(self.config, epochs=epochs, min_steps=0),
            None if self.checkpoints is None else Path(self.checkpoints) / "refit",
        )
        self.training_["refit_rows"] = len(texts)
        self.training_["steps"] += result.steps
        self.training_["minutes"] = round(self.training_["minutes"] + result.seconds / 60, 3)

    def _run(
        self,
        rows: list[Any],
        config: TrainConfig,
        folder: str | Path | None,
        held: list[list[str]] | None = None,
        **validation: Any,
    ) -> Any:
        """Train a new adapter in place of the one there is."""
        import torch

        from promptclf.training.checkpoints import Checkpoints
        from promptclf.training.trainer import train

        # Initial weights and dropout depend on the seed, and the caller's random state is untouched.
        with torch.random.fork_rng():
            torch.manual_seed(self.seed)
            self._detach()
            self._attach()
            checkpoints = None
            if folder is not None:
                checkpoints = Checkpoints(folder, self._identity(rows, held, config), resume=self.resume)
            return train(
                self.model_,
                str(self.adapter_),
                rows,
                config,
                min_steps=config.steps_wanted(len(self.classes_)),
                seed=self.seed,
                callback=self.callback,
                checkpoints=checkpoints,
                **validation,
            )

    def _rows(self, texts: list[Text], labels: list[str], weights: NDArray[np.float64]) -> list[Any]:
        from promptclf.lm.trie import AnswerTrie
        from promptclf.training.answer_loss import Row

        model: HFModel = self.model_
        prompts = self._prompts_to_learn(texts)
        answers = [self.template_.answer_for(self.task, label) for label in self.classes_]
        encoded = model.encode(prompts, answers)
        trie = AnswerTrie(encoded.answers)
        rivals = [
            tuple(tuple(trie.children[node]) for node, _ in path) if self.restricted_ else None
            for path in trie.paths
        ]
        columns = self._columns(labels)
        if self.config.class_weights == "balanced":
            counts = np.bincount(columns, minlength=len(self.classes_))
            weights = weights * (len(columns) / (np.count_nonzero(counts) * counts[columns]))
        return [
            Row([*ids, *encoded.answers[c]], len(encoded.answers[c]), float(weight), rivals[c])
            for ids, c, weight in zip(encoded.prompts, columns, weights, strict=True)
        ]

    def _attach(self, weights: Path | None = None) -> None:
        """Give the model an adapter that goes when this classifier goes."""
        self.adapter_ = self.model_.attach(self.config, weights)
        # Garbage is collected at any moment, in a forward pass too: the adapter goes at its next use.
        self._finalizer = weakref.finalize(self, self.model_.discard, self.adapter_)

    def _detach(self) -> None:
        if self.adapter_ is not None:
            self._finalizer.detach()
            self.model_.detach(self.adapter_)
            self.adapter_ = None

    def _forget(self) -> None:
        self._detach()
        super()._forget()

    def _columns(self, labels: Sequence[str]) -> NDArray[np.intp]:
        column = {label: i for i, label in enumerate(self.classes_)}
        return np.array([column[label] for label in labels], dtype=np.intp)

    def _identity(
        self, rows: Sequence[Any], held: list[list[str]] | None, config: TrainConfig
    ) -> dict[str, Any]:
        """What a checkpoint must agree on to be resumed; what follows it may differ."""
        data = json.dumps([[r.ids, r.answer, r.weight] for r in rows] + (held or []))
        return {
            "data": hashlib.sha256(data.encode()).hexdigest(),
            "labels": list(self.task.labels),
            "template": self.template_.fingerprint,
            "base_model": self.model_.info.to_dict(),
            "config": {name: value for name, value in config.to_dict().items() if name != "refit"},
            "seed": self.seed,
        }

    # ---- saving -------------------------------------------------------------------------------

    def merge_and_save(
        self, path: str | Path, X: Sequence[Text] | None = None, y: Sequence[str] | None = None
    ) -> dict[str, float]:
        """Write a plain model with the adapter merged into unquantised weights, and measure the change.

        Parameters
        ----------
        path
            A new folder in Hugging Face format; ``load_model`` reads it.
        X, y
            Labelled texts to evaluate before and after the merge.

        Returns
        -------
        "agreement" (share of equal labels) and "max_difference" of probabilities; with `y` also
        "accuracy_before" and "accuracy_after". Empty without X.
        """
        from promptclf.classifiers.merge import merge

        return merge(self, Path(path), X, y)

    def _learned(self) -> dict[str, Any]:
        return {**super()._learned(), "training": self.training_}

    def _save_weights(self, folder: Path) -> None:
        import torch
        from safetensors.torch import save_file

        from promptclf.lm.adapters import lora_config

        model: HFModel = self.model_
        with model.lock:
            state = model.adapters.state(str(self.adapter_))
        save_file({k: v.to(torch.bfloat16).contiguous() for k, v in state.items()}, folder / WEIGHTS)
        config = lora_config(model.module, self.config).to_dict()
        config["base_model_name_or_path"] = model.info.name
        config["inference_mode"] = True
        text = json.dumps(config, indent=1, sort_keys=True, default=sorted)  # sets of module names
        (folder / ADAPTER_CONFIG).write_text(text + "\n", encoding="utf-8")

    def _restore(self, learned: dict[str, Any], folder: Path) -> None:
        super()._restore(learned, folder)
        self.training_ = learned["training"]
        saved = json.loads((folder / ADAPTER_CONFIG).read_text(encoding="utf-8"))
        if (saved["r"], saved["lora_alpha"]) != (self.config.rank, self.config.alpha):
            raise ArtifactError(f"{folder / ADAPTER_CONFIG}: rank or alpha differ from promptclf.json")
        self._attach(folder / WEIGHTS)

    def _check_base(self, saved: dict[str, Any], allow_other_base: bool) -> None:
        now = self.model_.info.to_dict()
        if saved["revision"] != now["revision"] and not allow_other_base:
            raise ArtifactError(
                f"the adapter was trained on {saved['name']} ({saved['revision'][:12]}), got {now['name']} "
                f"({now['revision'][:12]}); pass the same base model, or allow_other_base=True"
            )
        super()._check_base(saved, allow_other_base)

    @classmethod
    def _from_parameters(cls, values: dict[str, Any]) -> dict[str, Any]:
        return {**values, "config": TrainConfig(**values["config"])}

    # ---- pickling: the adapter's weights travel along -------------------------------------------

    def __getstate__(self) -> dict[str, Any]:
        state = dict(super().__getstate__())
        state.pop("_finalizer", None)
        if self.adapter_ is not None:
            with self.model_.lock:
                weights = self.model_.adapters.state(self.adapter_)
            state["_adapter_weights"] = {key: value.numpy() for key, value in weights.items()}
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        import torch

        weights = state.pop("_adapter_weights", None)
        super().__setstate__(state)
        if weights is not None:
            self._attach()
            with self.model_.lock:
                tensors = {key: torch.from_numpy(value) for key, value in weights.items()}
                self.model_.adapters.load_state(self.adapter_, tensors)


def _weights(sample_weight: ArrayLike | None, rows: int) -> NDArray[np.float64]:
    if sample_weight is None:
        return np.ones(rows)
    weights = np.asarray(sample_weight, dtype=float)
    if weights.shape != (rows,):
        raise DataError(f"sample_weight: expected {rows} numbers, one per text, got shape {weights.shape}")
    if not np.isfinite(weights).all() or (weights < 0).any() or not weights.any():
        raise DataError("sample_weight: expected finite numbers of at least 0, not all 0")
    return weights


def _measure(scores: NDArray[np.float64], truth: NDArray[np.intp]) -> dict[str, float]:
    from sklearn.metrics import f1_score  # with half of SciPy, which only a training needs

    chosen = scores.argmax(axis=1)
    given = calibrate.probabilities(scores)[np.arange(len(truth)), truth]
    return {
        "macro_f1": float(f1_score(truth, chosen, average="macro")),
        "accuracy": float((chosen == truth).mean()),
        "log_loss": float(-np.log(np.maximum(given, 1e-15)).mean()),
    }
