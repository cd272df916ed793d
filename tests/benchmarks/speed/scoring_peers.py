"""The same work by other programs, each used as its documentation says, on the same texts and weights."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import torch

from benchmarks.speed import device
from benchmarks.speed.worker import Job, TokenCounter
from benchmarks.speed.workload import Work, rendered
from benchmarks.speed.workload import texts as first_texts
from promptclf.lm.embedded import embedded_folder, find_gguf, home
from promptclf.lm.prefix import common_length
from promptclf.lm.tokenise import PromptEncoder

BATCH = 16  # of lm-evaluation-harness
NEW_TOKENS = 8  # of a generated answer, which most often ends earlier


class Peer(Job):
    """What peers that use ``transformers`` have in common: model, tokenizer, texts and a token count."""

    def __init__(self, work: str, texts: int) -> None:
        from transformers import AutoModelForCausalLM, AutoTokenizer

        super().__init__()
        self.work, self.texts = Work(work), first_texts(texts)
        self.labels = [self.work.task.verbaliser(label) for label in self.work.task.labels]
        folder = embedded_folder()[0]
        self.tokenizer = AutoTokenizer.from_pretrained(folder)
        self.model = AutoModelForCausalLM.from_pretrained(folder, dtype=device.dtype())
        self.model.to(device.name()).eval()
        self.counter = TokenCounter(self.model)

    @property
    def processed(self) -> int:  # type: ignore[override]
        return self.counter.tokens

    def warm_up(self) -> None:
        self.answer(1)

    def run(self) -> Any:
        return self.answer(len(self.texts))

    def answer(self, count: int) -> Any:
        """Answer the first `count` texts."""
        raise NotImplementedError


class Decision(Peer):
    """The "decision" pipeline of ``transformers``: a letter for each label, one text at a time."""

    def __init__(self, work: str, texts: int) -> None:
        super().__init__(work, texts)
        from transformers import pipeline

        self.pipe = pipeline("decision", model=self.model, tokenizer=self.tokenizer)
        criteria = dict.fromkeys(self.labels)
        choice = {"type": "choice", "instructions": "Choose the label that fits the text best."}
        self.questions = {"label": {**choice, "criteria": criteria}}

    def answer(self, count: int) -> None:
        for text in self.texts[:count]:
            self.pipe({"state": f"Text: {text}", "questions": self.questions})


class LmEval(Peer):
    """lm-evaluation-harness: log-likelihoods of all labels, as its multiple-choice tasks ask for them."""

    def __init__(self, work: str, texts: int) -> None:
        super().__init__(work, texts)
        from lm_eval.api.instance import Instance
        from lm_eval.models.huggingface import HFLM

        self.lm = HFLM(pretrained=self.model, tokenizer=self.tokenizer, batch_size=BATCH)
        strings = [rendered(self.tokenizer, prompt) for prompt in self.work.prompts(texts)]
        pairs = itertools.product(strings, self.work.answers)
        self.requests = [Instance("loglikelihood", {}, pair, n) for n, pair in enumerate(pairs)]

    def answer(self, count: int) -> list[list[float]]:
        some = self.requests[: count * len(self.labels)]
        found = [value for value, _ in self.lm.loglikelihood(some, disable_tqdm=True)]
        return [list(row) for row in zip(*[iter(found)] * len(self.labels), strict=True)]


class Generate(Peer):
    """``generate``, greedily, one text at a time. It gives no probabilities, so this is less work."""

    def __init__(self, work: str, texts: int) -> None:
        super().__init__(work, texts)
        encoder = PromptEncoder(self.tokenizer)
        self.prompts = [encoder.prompt(prompt) for prompt in self.work.prompts(texts)]

    def answer(self, count: int) -> None:
        for prompt in self.prompts[:count]:
            ids = torch.tensor([prompt], device=self.model.device)
            self.model.generate(
                input_ids=ids,
                attention_mask=torch.ones_like(ids),
                max_new_tokens=NEW_TOKENS,
                do_sample=False,
                pad_token_id=self.tokenizer.eos_token_id,
            )


class Skorch(Peer):
    """``skorch.llm.ZeroShotClassifier`` with its own prompt; its cache begins empty in every round."""

    def __init__(self, work: str, texts: int) -> None:
        super().__init__(work, texts)
        from skorch.llm import ZeroShotClassifier

        self.classifier = ZeroShotClassifier(
            model=self.model, tokenizer=self.tokenizer, device=device.name()
        ).fit(X=None, y=self.labels)

    def prepare(self) -> None:
        self.classifier.clear_model_cache()

    def answer(self, count: int) -> None:
        self.classifier.predict_proba(self.texts[:count])


class LlamaCpp(Job):
    """llama.cpp: the prefix is kept, and only a text's own tokens are computed, one text at a time.

    Parameters
    ----------
    requantised
        Use Q4_0 weights made from the shipped ones, which are Q4_1. They are its fastest, but lose so much
        that only their speed means anything; on how many texts the arg-max stays is in the checks.
    """

    def __init__(self, work: str, texts: int, requantised: bool = False) -> None:
        import llama_cpp
        import numpy as np
        from transformers import AutoTokenizer

        tokenizer = AutoTokenizer.from_pretrained(embedded_folder()[0])
        encoder = PromptEncoder(tokenizer)
        prompts = [encoder.prompt(prompt) for prompt in Work(work).prompts(texts)]
        answers = encoder.answers(Work(work).prompts(1)[0], Work(work).answers)
        shared = common_length(prompts)
        super().__init__()
        self.shared, self.suffixes = shared, [prompt[shared:] for prompt in prompts]
        self.first = np.array([answer[0] for answer in answers])
        self.llama = llama_cpp.Llama(
            model_path=str(_q4_0(llama_cpp) if requantised else find_gguf()[0]),
            n_ctx=1024,
            n_batch=512,
            n_ubatch=512,
            n_threads=1,
            n_threads_batch=1,
            n_gpu_layers=0 if device.name() == "cpu" else -1,
            verbose=False,
        )
        self.llama.eval(prompts[0][:shared])
        self.vocabulary = self.llama.n_vocab()
        self.logits = lambda: np.ctypeslib.as_array(
            llama_cpp.llama_get_logits_ith(self.llama._ctx.ctx, -1), shape=(self.vocabulary,)
        )

    def run(self) -> list[list[float]]:
        found = []
        for suffix in self.suffixes:
            self.llama.n_tokens = self.shared  # what comes after is overwritten
            self.llama.eval(suffix)
            self.processed += len(suffix)
            found.append(self.logits()[self.first].tolist())
        return found


def _q4_0(llama_cpp: Any) -> Path:
    """The Q4_0 weights, made once."""
    path = home() / "benchmarks" / "smollm2-135m-instruct.Q4_0.gguf"
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        settings = llama_cpp.llama_model_quantize_default_params()
        settings.ftype = llama_cpp.LLAMA_FTYPE_MOSTLY_Q4_0
        settings.allow_requantize = True
        partial = path.with_suffix(".partial")
        source = find_gguf()[0]
        if llama_cpp.llama_model_quantize(str(source).encode(), str(partial).encode(), settings):
            raise RuntimeError(f"llama.cpp cannot requantise {source.name}")
        partial.rename(path)
    return path
