"""Training LoRA adapters: ours, and what people use today.

A round is one pass over the same rows in steps of `BATCH`, with AdamW and an adapter on all linear layers.
"""

from __future__ import annotations

import itertools
from contextlib import suppress
from typing import Any

from benchmarks.speed import device
from benchmarks.speed.runner import Group, Variant
from benchmarks.speed.scoring import PEAK
from benchmarks.speed.worker import Job, TokenCounter
from benchmarks.speed.workload import Work
from promptclf import PromptTemplate, TrainConfig, load_model
from promptclf.errors import TrainingStop
from promptclf.lm.model import HFModel

PEERS = "benchmarks.speed.training_peers"
BATCH = 8
RANK, ALPHA, RATE = 8, 16, 2e-4


class Ours(Job):
    """Our trainer.

    Parameters
    ----------
    rows
        How many.
    prefix
        With the long instruction and examples of the work "few-shot" before each text.
    whole
        Learn every token instead of the label's, as programs for plain language modelling do.
    """

    def __init__(self, rows: int, prefix: bool = False, whole: bool = False) -> None:
        super().__init__()
        self.model = load_model(dtype=device.dtype_name())
        self.rows = [
            ([*prompt, *answer], len(prompt) + len(answer) - 1 if whole else len(answer))
            for prompt, answer in tokens(self.model.encoder, *material(rows, prefix))
        ]
        self.counter = TokenCounter(self.model.module)
        self.adapter: str | None = None
        self.first_loss: float | None = None
        self.facts = facts(self.model, [ids for ids, _ in self.rows])

    @property
    def processed(self) -> int:  # type: ignore[override]
        return self.counter.tokens

    def prepare(self) -> None:
        if self.adapter is not None:
            self.model.adapters.remove(self.adapter)
        self.adapter = self.model.adapters.add(lora_config())

    def warm_up(self) -> None:
        self._train(self.rows[:BATCH])

    def run(self) -> float | None:
        """The loss per learnt token of the very first step, if that was on the first `BATCH` rows."""
        self._train(self.rows)
        return self.first_loss

    def _train(self, rows: list[tuple[list[int], int]]) -> None:
        assert self.adapter is not None
        loss = train(self.model, self.adapter, rows)[0]
        if self.first_loss is None and len(rows) == BATCH:
            self.first_loss = loss * BATCH / sum(learnt for _, learnt in rows)


def train(model: HFModel, adapter: str, rows: list[tuple[list[int], int]]) -> list[float]:
    """The one place that knows our trainer: a pass over rows of (tokens, how many of the last to learn).

    Returns each step's loss, a mean over its rows of the sum over their learnt tokens.
    """
    from promptclf.training import trainer
    from promptclf.training.answer_loss import Row

    losses: list[float] = []

    def after_step(event: dict[str, Any]) -> None:
        losses.append(event["loss"])
        if event["step"] == event["steps"]:
            raise TrainingStop  # before it validates

    config = TrainConfig(
        rank=RANK, alpha=ALPHA, dropout=0.0, learning_rate=RATE, warmup=0.0, batch_size=BATCH, epochs=1
    )
    with suppress(TrainingStop):
        trainer.train(
            model,
            adapter,
            [Row(ids, learnt) for ids, learnt in rows],
            config,
            evaluate=_never,
            validation_rows=1,
            min_steps=1,
            measure=_never,
            callback=after_step,
        )
    return losses


def _never(*_: Any) -> Any:
    raise AssertionError("nothing is validated here")


def lora_config() -> Any:
    """The adapter that everyone trains."""
    from peft import LoraConfig

    return LoraConfig(
        r=RANK, lora_alpha=ALPHA, lora_dropout=0.0, target_modules="all-linear", task_type="CAUSAL_LM"
    )


def material(rows: int, prefix: bool) -> tuple[list[Any], list[str]]:
    """Prompts, and the words to learn after them: labels in turn."""
    work = Work("few-shot" if prefix else "zero-shot")
    answers = [answer for answer, _ in zip(itertools.cycle(work.answers), range(rows), strict=False)]
    if prefix:
        return work.prompts(rows), answers
    template = PromptTemplate.load("completion")
    texts = [prompt.messages[-1].content for prompt in work.prompts(rows)]
    return [template.render(work.task, text.removeprefix("Text: ")) for text in texts], answers


def tokens(encoder: Any, prompts: list[Any], answers: list[str]) -> list[tuple[list[int], list[int]]]:
    """Token ids of each prompt and of the answer after it."""
    different = list(dict.fromkeys(answers))
    known = dict(zip(different, encoder.answers(prompts[0], different), strict=True))
    return [(encoder.prompt(prompt), known[answer]) for prompt, answer in zip(prompts, answers, strict=True)]


def facts(model: HFModel, rows: list[list[int]]) -> dict[str, Any]:
    """Tokens without padding, what all begin with counted once a step, and operations on them.

    Those are two for each weight of the layers forward, and two backward to what comes before; the frozen
    weights get no gradients of their own. The adapter, attention and the head, which depends on the loss,
    are left out.
    """
    from promptclf.lm.prefix import common_length

    steps = -(-len(rows) // BATCH)
    needed = sum(map(len, rows)) - (len(rows) - steps) * common_length(rows)
    weights = sum(
        p.numel() for name, p in model.module.named_parameters() if ".layers." in name and p.ndim == 2
    )
    return {"needed_tokens": needed, "needed_gflop": 4e-9 * weights * needed}


def same_loss(found: dict[str, Any]) -> dict[str, float]:
    """How far our first loss is from the peer's that minimises the same."""
    pairs = (("ours, full sequence", "HF Trainer"), ("ours", "prefix repeated"))
    return {
        f"difference of first losses, {mine} and {other}": abs(found[mine] - found[other])
        for mine, other in pairs
        if found.get(mine) is not None and found.get(other) is not None
    }


def groups(full: bool) -> list[Group]:
    """All groups; `full` takes more rows."""
    rows = 64 if full else 32
    few = BATCH * (2 if full else 1)

    def ours(name: str, rows: int, **options: Any) -> Variant:
        return Variant(name, "benchmarks.speed.training:Ours", rows, {"rows": rows, **options})

    def peer(name: str, make: str, rows: int, rounds: int = 0, **arguments: Any) -> Variant:
        return Variant(name, f"{PEERS}:{make}", rows, {"rows": rows, **arguments}, rounds=rounds)

    return [
        Group(
            "training",
            (
                # Ours gets ready within a round, others before it: more rows, so that it weighs little.
                ours("ours, label only", 2 * rows),
                ours("ours, full sequence", 2 * rows, whole=True),
                PEAK,
                peer("HF Trainer", "HfTrainer", rows),
                # A round takes half a minute.
                peer("HF Trainer, padded to 128", "HfTrainer", rows // 2, 0 if full else 1, pad_to=128),
                peer("TRL SFTTrainer", "Trl", rows // 2),
            ),
            checks=same_loss,
        ),
        Group(
            "training-prefix",
            (
                ours("ours", 2 * few, prefix=True),
                Variant(
                    "prefix repeated",
                    f"{PEERS}:Plain",
                    few,
                    {"rows": few},
                    rounds=3 if full else 1,
                    warm_up=False,  # a step takes a minute
                ),
            ),
            checks=same_loss,
        ),
    ]
