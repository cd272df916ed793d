"""The language model behind the classifiers: one narrow seam, and its implementation.

`LanguageModel` is all that classifiers know: texts in, log-likelihoods out. `HFModel` implements it
with ``transformers``; tests and other back ends may implement it differently.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from promptclf.errors import TextTooLongError, TrainingError
from promptclf.home import stamp
from promptclf.lm.lock import FairLock
from promptclf.prompt import Prompt
from promptclf.settings import TrainConfig

MAX_TOKENS = 2048
MAX_CHARS_PER_TOKEN = 64  # a longer text is refused before it is tokenised
KEPT_EMBEDDINGS = 20_000


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """Where a model comes from and how it is really used; part of every result.

    Parameters
    ----------
    name
        "embedded", a Hub id or a folder's name.
    source
        What it was loaded from: a package and version, "hub", or "folder".
    revision
        The Hub commit, or the SHA-256 of the weights: it tells two bases of an adapter apart.
    quantization, requested_quantization
        "none", "int8" or "nf4": in use, and asked for.
    device, dtype
        Such as "cpu" and "float32".
    """

    name: str
    source: str
    revision: str
    quantization: str
    requested_quantization: str
    device: str
    dtype: str

    def to_dict(self) -> dict[str, str]:
        """A plain dictionary."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Encoded:
    """Token ids of some prompts, and of the answers scored after each of them."""

    prompts: list[list[int]]
    answers: list[list[int]]


@runtime_checkable
class LanguageModel(Protocol):
    """What a classifier needs from a model. Implementations may be called from several threads."""

    info: ModelInfo
    max_tokens: int

    def score(
        self,
        prompts: Sequence[Prompt],
        answers: Sequence[str],
        *,
        adapter: str | None = None,
        restricted: bool = False,
        epsilon: float = 0.0,
    ) -> NDArray[np.float64]:
        """Log-likelihood of each answer after each prompt: shape (n, k), natural logarithms.

        With `restricted`, each token competes with the other answers' tokens only. With a positive
        `epsilon`, answers that together weigh at most that share may get an upper bound instead.
        Raises TextTooLongError if a prompt with its answer exceeds `max_tokens`.
        """

    def embed(self, texts: Sequence[str], *, layer: int | None = None) -> NDArray[np.float32]:
        """One vector per text: shape (n, size)."""

    def count_tokens(self, prompts: Sequence[Prompt]) -> list[int]:
        """How many tokens each prompt has."""

    def tokens(self, prompt: Prompt) -> list[tuple[int, str]]:
        """The prompt's token ids, each with the text it stands for."""


@runtime_checkable
class AdaptableModel(LanguageModel, Protocol):
    """A model that LoRA adapters can be attached to; each has a name, and is off unless a call gives it."""

    def attach(self, config: TrainConfig, weights: Path | None = None) -> str:
        """Attach an adapter, fresh or with the weights of a file, and return its name.

        Raises ArtifactError if the weights do not fit the model, and TrainingError if the configuration
        does not.
        """

    def detach(self, name: str) -> None:
        """Detach an adapter for good."""

    def discard(self, name: str) -> None:
        """Have an adapter detached before the next use: safe at any moment, since it takes no lock."""


class HFModel:
    """A causal language model of ``transformers`` with its tokenizer; made by `load_model`.

    The object is shared, never copied: ``copy.deepcopy`` and scikit-learn's ``clone`` return it, and
    pickling stores how to load it again. One lock serialises all use of the weights.

    Attributes
    ----------
    module, tokenizer
        The ``transformers`` objects. Adapters are attached to `module` in place; they are off unless
        a call names one.
    info : ModelInfo
    max_tokens : int
        The longest prompt with answer, in tokens: 2,048 or the model's own limit.
    spec : dict
        The arguments of `load_model` that give this model again.
    adapters : promptclf.lm.adapters.AdapterSet
    lock : promptclf.lm.lock.FairLock
    """

    def __init__(self, module: Any, tokenizer: Any, info: ModelInfo, spec: dict[str, Any]) -> None:
        from promptclf.lm.adapters import AdapterSet
        from promptclf.lm.engine import ScoringEngine
        from promptclf.lm.tokenise import PromptEncoder

        config = module.config.get_text_config()
        self.module = module
        self.tokenizer = tokenizer
        self.info = info
        self.max_tokens = min(MAX_TOKENS, getattr(config, "max_position_embeddings", None) or MAX_TOKENS)
        self.lock = FairLock()
        self.encoder = PromptEncoder(tokenizer)
        self.engine = ScoringEngine(module, tokenizer.pad_token_id or 0, key=_circumstances(module, info))
        self.adapters = AdapterSet(module, removed=self.engine.forget)
        self.spec = spec
        self._layers = config.num_hidden_layers
        self._embeddings: dict[tuple[int, str], NDArray[np.float32]] = {}

    def __repr__(self) -> str:
        return f"HFModel({self.info.name!r}, quantization={self.info.quantization!r})"

    def __copy__(self) -> HFModel:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> HFModel:
        return self

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return (_reload, (self.spec,))

    def score(
        self,
        prompts: Sequence[Prompt],
        answers: Sequence[str],
        *,
        adapter: str | None = None,
        restricted: bool = False,
        epsilon: float = 0.0,
    ) -> NDArray[np.float64]:
        """Log-likelihood of each answer after each prompt; see `LanguageModel.score`.

        All prompts of a call end in the same cue. Answers are scored over their whole token
        sequence, with an end marker where one begins another.
        """
        if not prompts:
            return np.empty((0, len(answers)))
        if any(p.cue != prompts[0].cue or p.chat != prompts[0].chat for p in prompts):
            raise ValueError("all prompts of one call must come from the same template")
        encoded = self.encode(prompts, answers)
        with self.lock, self.adapters.using(adapter):
            return self.engine.score(
                encoded.prompts, encoded.answers, restricted=restricted, owner=adapter, epsilon=epsilon
            )

    def encode(self, prompts: Sequence[Prompt], answers: Sequence[str]) -> Encoded:
        """Token ids of prompts of one template and of the answers that may follow them.

        Raises
        ------
        TextTooLongError
            If a prompt with its answer exceeds `max_tokens`; the message names limit and length.
        """
        with self.lock:
            answer_ids = self.encoder.answers(prompts[0], answers)
            ids = [self._encode(prompt) for prompt in prompts]
        room = max(map(len, answer_ids)) - 1
        for number, prompt in enumerate(ids, 1):
            if len(prompt) + room > self.max_tokens:
                raise TextTooLongError(
                    f"text {number}: expected at most {self.max_tokens} tokens with the prompt, "
                    f"got {len(prompt) + room}; shorten it or ask for truncation"
                )
        return Encoded(ids, answer_ids)

    def embed(self, texts: Sequence[str], *, layer: int | None = None) -> NDArray[np.float32]:
        """Mean hidden state of each text at `layer` (default: the middle one), adapters off.

        Texts longer than `max_tokens` are represented by their beginning. Vectors are kept, so that
        asking again for the same text costs nothing.
        """
        layer = self._layers // 2 if layer is None else layer
        with self.lock:
            new = [text for text in dict.fromkeys(texts) if (layer, text) not in self._embeddings]
            if new:
                short = [text[: self.max_tokens * MAX_CHARS_PER_TOKEN] for text in new]
                pad = [self.tokenizer.pad_token_id or 0]
                ids = [(self.encoder.plain(text) or pad)[: self.max_tokens] for text in short]
                with self.adapters.using(None):
                    vectors = self.engine.embed(ids, layer)
                if len(self._embeddings) + len(new) > KEPT_EMBEDDINGS:
                    found = {(layer, text): self._embeddings.get((layer, text)) for text in texts}
                    self._embeddings = {key: vector for key, vector in found.items() if vector is not None}
                self._embeddings.update({(layer, t): v for t, v in zip(new, vectors, strict=True)})
            return np.stack([self._embeddings[layer, text] for text in texts])

    def forget_embeddings(self) -> None:
        """Drop the vectors that `embed` keeps."""
        with self.lock:
            self._embeddings.clear()

    def count_tokens(self, prompts: Sequence[Prompt]) -> list[int]:
        """How many tokens each prompt has."""
        with self.lock:  # the tokenizer is set anew for each kind of text
            return [len(self.encoder.prompt(prompt)) for prompt in prompts]

    def tokens(self, prompt: Prompt) -> list[tuple[int, str]]:
        """The prompt's token ids, each with the text it stands for."""
        with self.lock:
            return [(index, self.tokenizer.decode([index])) for index in self.encoder.prompt(prompt)]

    def decode(self, ids: Sequence[int]) -> str:
        """The text that token ids stand for, control tokens included."""
        with self.lock:
            return str(self.tokenizer.decode(ids, clean_up_tokenization_spaces=False))

    def attach(self, config: TrainConfig, weights: Path | None = None) -> str:
        """Attach an adapter; see `AdaptableModel.attach`."""
        from safetensors.torch import load_file

        from promptclf.lm.adapters import lora_config

        wanted = lora_config(self.module, config)  # imports PEFT, which takes a while
        with self.lock:
            try:
                name = self.adapters.add(wanted)
            except ValueError as error:
                raise TrainingError(f"target_modules: {error}") from error
            if weights is not None:
                try:
                    self.adapters.load_state(name, load_file(weights))
                except BaseException:
                    self.adapters.remove(name)
                    raise
        return name

    def detach(self, name: str) -> None:
        """Detach an adapter for good."""
        with self.lock:
            self.adapters.remove(name)

    def discard(self, name: str) -> None:
        """Have an adapter detached before the next use; see `AdaptableModel.discard`."""
        self.adapters.discard(name)

    def _encode(self, prompt: Prompt) -> list[int]:
        limit = self.max_tokens * MAX_CHARS_PER_TOKEN
        if (chars := sum(len(message.content) for message in prompt.messages)) > limit:
            raise TextTooLongError(
                f"expected a prompt of at most {self.max_tokens} tokens, got one of {chars} characters; "
                "shorten the text or ask for truncation"
            )
        return self.encoder.prompt(prompt)


def _circumstances(module: Any, info: ModelInfo) -> dict[str, Any] | None:
    """All that decides how a model can be scored; None where it is not known which weights these are."""
    import torch
    import transformers

    if info.revision == "unknown":
        return None
    return {
        "model": info.to_dict(),
        "class": type(module).__name__,
        "versions": [torch.__version__, transformers.__version__],
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "code": stamp(sorted(Path(__file__).parent.glob("*.py"))),
    }


def _reload(spec: dict[str, Any]) -> HFModel:
    from promptclf.lm.loading import load_model

    return load_model(**spec)
