"""Saving, loading and uploading classifiers: JSON and safetensors, never pickle."""

from __future__ import annotations

import json
import logging
import tempfile
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import numpy as np
from safetensors import SafetensorError
from sklearn.utils.validation import check_is_fitted

from promptclf.artifacts import publish, verify
from promptclf.classifiers.card import model_card
from promptclf.data.hub import may_be_on_hub
from promptclf.errors import ArtifactError, DataError, PromptClfError
from promptclf.prompt import PromptTemplate
from promptclf.settings import TrainConfig
from promptclf.task import Task, packaged_classifier

logger = logging.getLogger(__name__)

CONFIG = "promptclf.json"
FORMAT = 1
PATTERNS = ["*.json", "*.safetensors", "*.md"]  # the files of a saved classifier
SELF = TypeVar("SELF", bound="Persistent")


class Persistent:
    """The Hub's verbs for classifiers. A subclass says what it learned and, if any, its weights."""

    mode: ClassVar[str]
    task: Task
    model_: Any
    template_: PromptTemplate

    # ---- what a subclass adds -----------------------------------------------------------------

    def _learned(self) -> dict[str, Any]:
        """What `fit` learned, as JSON values."""
        me: Any = self
        return {
            "calibration": me.calibration_,
            "log_prior": [float(value) for value in me.log_prior_],
            "temperature": float(me.temperature_),
            "truncated": me.truncated_,
        }

    def _restore(self, learned: dict[str, Any], folder: Path) -> None:
        """Put back what `_learned` gave and `_save_weights` wrote."""
        me: Any = self
        prior = np.array(learned["log_prior"], dtype=float)
        temperature = float(learned["temperature"])
        if prior.shape != me.classes_.shape:
            raise ValueError("the prior and the labels differ in number")
        if not np.isfinite(prior).all() or not 0 < temperature < np.inf:
            raise ValueError("the prior or the temperature is not a possible number")
        me._set_calibration(learned["calibration"], prior, temperature)
        me.truncated_ = int(learned.get("truncated", 0))

    def _save_weights(self, folder: Path) -> None:
        """Write weights, if the mode has any."""

    def _check_base(self, saved: dict[str, Any], allow_other_base: bool) -> None:
        """Compare the model at hand with the one that `fit` used."""
        now = self.model_.info.to_dict()
        if saved["revision"] != now["revision"]:
            logger.warning(
                "fitted with %s (%s), used with %s (%s): calibration may not hold",
                saved["name"], saved["revision"][:12], now["name"], now["revision"][:12],
            )  # fmt: skip

    # ---- the verbs ----------------------------------------------------------------------------

    def save_pretrained(self, path: str | Path) -> Path:
        """Write the fitted classifier to a folder, atomically, with a manifest of hashes and a card.

        Raises
        ------
        sklearn.exceptions.NotFittedError
            Before `fit`.
        ArtifactError
            If the folder holds something else, or the disk is full.
        """
        check_is_fitted(self, "classes_")
        config = {
            "format": FORMAT,
            "mode": self.mode,
            "task": self.task.to_dict(),
            "template": self.template_.to_dict(),
            "base_model": self.model_.info.to_dict(),
            "parameters": self._parameters(),
            "learned": self._learned(),
        }
        meta = {
            "mode": self.mode,
            "labels": list(self.task.labels),
            "template_fingerprint": self.template_.fingerprint,
            "base_model": config["base_model"],
        }
        with publish(path, meta) as stage:
            text = json.dumps(config, indent=1, ensure_ascii=False, allow_nan=False)
            (stage / CONFIG).write_text(text + "\n", encoding="utf-8")
            (stage / "README.md").write_text(model_card(config), encoding="utf-8")
            self._save_weights(stage)
        return Path(path)

    @classmethod
    def from_pretrained(
        cls: type[SELF],
        path: str | Path,
        *,
        model: Any = None,
        revision: str | None = None,
        allow_other_base: bool = False,
    ) -> SELF:
        """Load a saved classifier from a folder or the Hub, verifying every file first.

        Parameters
        ----------
        path
            A folder, a packaged task ("support", of which the classifier of this mode is taken), or a
            Hub id ``owner/name``.
        model
            A loaded base model; default: the one it was fitted with, quantised the same way, in the
            precision that `load_model` chooses here.
        revision
            A Hub branch, tag or commit.
        allow_other_base
            Accept a base model whose weights are not those of training (for instance the Hub's
            original beside the packaged one). Results then differ.

        Raises
        ------
        ArtifactError
            If a file is damaged, missing or added, or was saved for another mode, base or format.
        """
        folder = local_folder(path, revision, cls.mode)
        meta = verify(folder)
        config = read_config(folder)
        if config["mode"] != cls.mode:
            raise ArtifactError(
                f"{path}: expected a {cls.mode} classifier, got {config['mode']}; use load_classifier"
            )
        try:
            task, template = Task.from_dict(config["task"]), PromptTemplate.from_dict(config["template"])
            if list(task.labels) != meta["labels"] or template.fingerprint != meta["template_fingerprint"]:
                raise ValueError("labels or prompt differ from the manifest")
            base = config["base_model"]
            if model is None:
                model = _load_base(base)
            self = cls(task, model, template, **cls._from_parameters(config["parameters"]))  # type: ignore[call-arg]
            me: Any = self
            me._start()
            self._check_base(base, allow_other_base)
            self._restore(config["learned"], folder)
        except PromptClfError:
            raise
        except (KeyError, TypeError, ValueError, AttributeError, OSError, SafetensorError) as error:
            raise ArtifactError(
                f"{folder / CONFIG} does not describe a {cls.mode} classifier: {error}"
            ) from error
        return self

    def push_to_hub(
        self, repo_id: str, *, token: str | None = None, private: bool = False, message: str | None = None
    ) -> str:
        """Upload the fitted classifier with its card to a model repository, creating it if needed.

        Returns
        -------
        The address of the commit.
        """
        from huggingface_hub import HfApi

        api = HfApi(token=token)
        with tempfile.TemporaryDirectory() as folder:
            saved = self.save_pretrained(Path(folder) / "classifier")
            repo = api.create_repo(repo_id, private=private, exist_ok=True).repo_id
            commit = api.upload_folder(
                repo_id=repo,
                folder_path=saved,
                delete_patterns=PATTERNS,  # those of what was there before, which would not verify
                commit_message=message or f"{self.mode} classifier for {self.task.name}",
            )
        return str(commit.commit_url)

    # ---- parameters ---------------------------------------------------------------------------

    def _parameters(self) -> dict[str, Any]:
        """Constructor arguments as JSON values, without what is saved on its own."""
        me: Any = self
        values = {k: v for k, v in me.get_params(deep=False).items() if k not in NOT_SAVED}
        return {k: v.to_dict() if isinstance(v, TrainConfig) else v for k, v in values.items()}

    @classmethod
    def _from_parameters(cls, values: dict[str, Any]) -> dict[str, Any]:
        """The inverse of `_parameters`."""
        return dict(values)


NOT_SAVED = ("task", "model", "template", "callback", "checkpoints", "resume")


def read_config(folder: Path) -> dict[str, Any]:
    """The saved description of a classifier, its outer shape checked."""
    try:
        config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
        known = config["format"] == FORMAT and isinstance(config["mode"], str)
    except FileNotFoundError as error:
        raise ArtifactError(f"{folder}: expected a saved classifier, found no {CONFIG}") from error
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ArtifactError(f"{folder / CONFIG} is damaged; save the classifier again") from error
    if not known:
        raise ArtifactError(f"{folder / CONFIG}: expected format {FORMAT}; update promptclf")
    return config  # type: ignore[no-any-return]


def _load_base(base: dict[str, Any]) -> Any:
    from promptclf.lm.loading import load_model

    if base["source"] == "folder":
        raise DataError(
            f"the classifier was fitted on a model in a folder ({base['name']}); load that, pass it as model="
        )
    revision = base["revision"] if base["source"] == "hub" else None
    return load_model(base["name"], quantization=base["requested_quantization"], revision=revision)


def local_folder(path: str | Path, revision: str | None = None, mode: str = "lora") -> Path:
    """The folder `path`, a packaged task's classifier of a mode, or a downloaded Hub repository."""
    if Path(path).is_dir():
        return Path(path)
    if packaged := packaged_classifier(str(path), mode):
        return packaged
    if "/" not in str(path) or not may_be_on_hub(str(path)):
        raise ArtifactError(
            f"no saved classifier {str(path)!r}: there is no such folder; expected an existing one, a "
            "packaged task or a Hub id owner/name"
        )
    return _download(str(path), revision)


def _download(repo_id: str, revision: str | None) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        # No pickled file is ever asked for.
        return Path(snapshot_download(repo_id, revision=revision, allow_patterns=PATTERNS))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ArtifactError(
            f"no saved classifier {repo_id!r}: no folder of that name is here, and as a Hub id it fails: "
            f"{reason}"
        ) from error
