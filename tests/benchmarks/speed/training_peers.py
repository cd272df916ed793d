"""The same rows trained by other programs, each used as its documentation says."""

from __future__ import annotations

import tempfile
from typing import Any

import torch

from benchmarks.speed import device
from benchmarks.speed.training import BATCH, RATE, lora_config, material, tokens
from benchmarks.speed.worker import Job, TokenCounter
from promptclf.lm.embedded import embedded_folder
from promptclf.lm.tokenise import PromptEncoder


class Peer(Job):
    """Model, tokenizer, rows of (prompt, answer) tokens, and a token count."""

    def __init__(self, rows: int, prefix: bool = False) -> None:
        from transformers import AutoModelForCausalLM, AutoTokenizer

        super().__init__()
        folder = embedded_folder()[0]
        self.tokenizer = AutoTokenizer.from_pretrained(folder)
        self.tokenizer.pad_token = self.tokenizer.pad_token or self.tokenizer.eos_token
        self.tokenizer.padding_side = "right"
        self.model = AutoModelForCausalLM.from_pretrained(folder, dtype=device.dtype()).to(device.name())
        self.counter = TokenCounter(self.model)
        self.prompts, self.answers = material(rows, prefix)
        self.rows = tokens(PromptEncoder(self.tokenizer), self.prompts, self.answers)
        self.folder = tempfile.TemporaryDirectory()
        self.first_loss: float | None = None

    @property
    def processed(self) -> int:  # type: ignore[override]
        return self.counter.tokens

    def close(self) -> None:
        self.folder.cleanup()

    def settings(self) -> dict[str, Any]:
        """Arguments that all trainers share: plain steps, and nothing written or logged in between."""
        return {
            "output_dir": self.folder.name,
            "per_device_train_batch_size": BATCH,
            "num_train_epochs": 1,
            "learning_rate": RATE,
            "report_to": [],
            "save_strategy": "no",
            "logging_steps": 1,
            "disable_tqdm": True,
            "use_cpu": device.name() == "cpu",
        }

    def trainer(self, count: int) -> Any:
        """A trainer of the first `count` rows."""
        raise NotImplementedError

    def prepare(self) -> None:
        self.next = self.trainer(len(self.rows))

    def warm_up(self) -> None:
        trainer = self.trainer(BATCH)
        trainer.train()
        self.first_loss = float(trainer.state.log_history[0]["loss"])

    def run(self) -> float | None:
        """The loss of the very first step, on the first `BATCH` rows."""
        self.next.train()
        return self.first_loss


class HfTrainer(Peer):
    """``Trainer`` with PEFT: every token is learnt; padded to the longest row of a batch, or to a length."""

    def __init__(self, rows: int, pad_to: int | None = None) -> None:
        super().__init__(rows)
        from peft import get_peft_model

        self.pad_to = pad_to
        self.model = get_peft_model(self.model, lora_config())

    def trainer(self, count: int) -> Any:
        from datasets import Dataset
        from transformers import DataCollatorForLanguageModeling, Trainer, TrainingArguments

        padding: dict[str, Any] = {"padding": "max_length", "max_length": self.pad_to} if self.pad_to else {}
        rows = [
            dict(self.tokenizer.pad({"input_ids": [*prompt, *answer]}, **padding))
            for prompt, answer in self.rows[:count]
        ]
        return Trainer(
            model=self.model,
            args=TrainingArguments(**self.settings()),
            train_dataset=Dataset.from_list(rows),
            data_collator=DataCollatorForLanguageModeling(self.tokenizer, mlm=False),
        )


class Trl(Peer):
    """TRL's ``SFTTrainer``: completions are learnt, in float32 and without checkpointing of activations.

    Its own defaults, bfloat16 with checkpointing, take more than twice as long on a CPU.
    """

    def trainer(self, count: int) -> Any:
        from datasets import Dataset
        from trl import SFTConfig, SFTTrainer

        rows = [
            {"prompt": prompt.text, "completion": answer}
            for prompt, answer in zip(self.prompts[:count], self.answers[:count], strict=True)
        ]
        half = device.name() != "cpu"
        self.model = getattr(self.model, "unload", lambda: self.model)()  # SFTTrainer adds its adapter
        trainer = SFTTrainer(
            model=self.model,
            args=SFTConfig(**self.settings(), bf16=half, gradient_checkpointing=False),
            train_dataset=Dataset.from_list(rows),
            peft_config=lora_config(),
            processing_class=self.tokenizer,
        )
        self.model = trainer.model
        return trainer


class Plain(Peer):
    """A loop as anyone would write it: padded rows, each with the whole prefix, and the labels' loss.

    The output head runs only where a label's token is predicted.
    """

    def __init__(self, rows: int) -> None:
        super().__init__(rows, prefix=True)
        from peft import get_peft_model

        self.model = get_peft_model(self.model, lora_config())
        self.model.train()
        learnt = [p for p in self.model.parameters() if p.requires_grad]
        self.optimizer = torch.optim.AdamW(learnt, lr=RATE)

    def prepare(self) -> None:
        """Nothing: the loop goes on."""

    def run(self) -> float:
        losses = [self._step(self.rows[i : i + BATCH]) for i in range(0, len(self.rows), BATCH)]
        return losses[0]

    def _step(self, rows: list[tuple[list[int], list[int]]]) -> float:
        width = max(len(prompt) + len(answer) for prompt, answer in rows)
        ids = torch.full((len(rows), width), self.tokenizer.pad_token_id)
        targets = torch.full((len(rows), width), -100)
        for n, (prompt, answer) in enumerate(rows):
            ids[n, : len(prompt) + len(answer)] = torch.tensor([*prompt, *answer])
            targets[n, len(prompt) : len(prompt) + len(answer)] = torch.tensor(answer)
        ids, targets = ids.to(device.name()), targets.to(device.name())[:, 1:]
        base = self.model.get_base_model()
        hidden = base.model(input_ids=ids[:, :-1], use_cache=False).last_hidden_state
        learnt = targets != -100
        logits = base.get_output_embeddings()(hidden[learnt]).float()
        loss = torch.nn.functional.cross_entropy(logits, targets[learnt])
        loss.backward()
        self.optimizer.step()
        self.optimizer.zero_grad()
        return float(loss)
