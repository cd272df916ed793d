"""The work that is timed: tasks, texts in an order of which any beginning is typical, and what it takes.

Texts are those of the packaged task `support`, test rows first. Labels need not fit them: how long
scoring takes does not depend on what is found, except for a best-first search.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from promptclf import PromptTemplate, Task, load_dataset
from promptclf.lm.model import HFModel
from promptclf.prompt import Prompt
from promptclf.task import Example

TASKS = Path(__file__).parents[1] / "tasks"
ONE_TOKEN = ("delivery", "refund", "payment", "invoice", "account", "complaint")
SHORT = ("late parcel", "refund", "card declined", "account access")
# With the labels about 60 tokens, and 650 with the examples.
INSTRUCTION = (
    "Read the customer's message and decide what it is about. "
    "If several labels fit, take the one that matters most."
)
EXAMPLES = 14
# Of these, labels of two words are made.
THINGS = (
    *("parcel", "card", "invoice", "account", "password", "voucher", "subscription", "return", "refund"),
    *("address", "size", "colour", "warranty", "battery", "charger", "lamp", "kettle", "jacket", "chair"),
    *("phone", "order", "discount", "gift", "courier", "shop"),
)
EVENTS = (
    *("late", "lost", "broken", "missing", "wrong", "blocked", "expired", "declined", "doubled", "refused"),
    *("changed", "stolen", "incomplete", "faulty", "unknown", "delayed", "cancelled", "overcharged"),
    *("unclear", "rejected"),
)


@dataclass(frozen=True)
class Work:
    """Texts of one task to be answered: a name of `WORKS`, or "labels-N"."""

    name: str

    @property
    def task(self) -> Task:
        """Its labels."""
        if self.name == "banking77":
            return Task.load(TASKS / "banking77.yaml")
        if self.name.startswith("labels-"):
            return Task("labels", labels(int(self.name.removeprefix("labels-"))), INSTRUCTION)
        return Task("desk", SHORT if self.name == "short-labels" else ONE_TOKEN, INSTRUCTION)

    @property
    def examples(self) -> list[Example]:
        """What is shown before each text."""
        if self.name != "few-shot":
            return []
        rows, names = load_dataset("support").train[:EXAMPLES], self.task.labels
        return [Example(row.text, names[n % len(names)]) for n, row in enumerate(rows)]

    def prompts(self, count: int) -> list[Prompt]:
        """Prompts of the first `count` texts, all in the model's chat template."""
        template, task, examples = PromptTemplate.load("chat"), self.task, self.examples
        return [template.render(task, text, None, examples) for text in texts(count)]

    @property
    def answers(self) -> list[str]:
        """The words of every label, as they follow a prompt."""
        template, task = PromptTemplate.load("chat"), self.task
        return [template.answer_for(task, label) for label in task.labels]

    def needed(self, model: HFModel, count: int) -> dict[str, float]:
        """Tokens and floating-point operations that exact answers for `count` texts need at least.

        What all prompts share is computed once and does not count; neither do padding, a text's tokens
        once more for each label, nor the last token of a label. An operation is a multiplication or an
        addition. Per token: two for each weight of the layers, and four for each layer, head and size
        of a head, times the tokens attended to. Where a token is predicted, the whole head counts.

        Returns
        -------
        "prefix_tokens", which all prompts begin with, "needed_tokens", and "needed_gflop".
        """
        from promptclf.lm.prefix import common_length
        from promptclf.lm.trie import AnswerTrie

        encoded = model.encode(self.prompts(count), self.answers)
        trie, shared = AnswerTrie(encoded.answers), common_length(encoded.prompts)
        config, embedded = model.module.config, model.module.get_input_embeddings().weight.numel()
        head = 2 * model.module.get_output_embeddings().weight.numel()
        tied = model.module.get_output_embeddings().weight is model.module.get_input_embeddings().weight
        weights = sum(p.numel() for p in model.module.parameters()) - embedded * (1 if tied else 2)
        attention = 4 * config.num_hidden_layers * config.num_attention_heads * config.head_dim
        tokens, operations = 0, 0.0
        for prompt in encoded.prompts:
            own = len(prompt) - shared
            seen = own * shared + own * (own + 1) // 2 + sum(len(prompt) + d for d in trie.depths[1:])
            tokens += own + len(trie)
            operations += 2 * weights * (own + len(trie)) + attention * seen + head * (1 + len(trie))
        return {"prefix_tokens": shared, "needed_tokens": tokens, "needed_gflop": operations / 1e9}


def labels(count: int) -> tuple[str, ...]:
    """The first of 500 labels of two words, such as "parcel late"."""
    pairs = ((THINGS[i % 25], EVENTS[(i // 25 + i % 25) % 20]) for i in range(500))
    return tuple(f"{thing} {event}" for thing, event in list(pairs)[:count])


def texts(count: int) -> list[str]:
    """The first `count` texts; where there are no more, the same with a number."""
    known = ordered()
    return [known[i] if i < len(known) else f"{known[i % len(known)]} ({i})" for i in range(count)]


@cache
def ordered() -> list[str]:
    data = load_dataset("support")
    parts = ([row.text for row in rows] for rows in (data.test, data.train, data.validation))
    return [text for part in parts for text in typical_first(part)]


def typical_first(items: list[str]) -> list[str]:
    """Items in an order of which any beginning has about the lengths of all (van der Corput 1935)."""
    by_length = sorted(dict.fromkeys(items), key=len)
    bits = len(by_length).bit_length() + 1
    # The middle, the quarters, the eighths ...: numbers in binary, read from behind.
    shares = (int(f"{n:0{bits}b}"[::-1], 2) / 2**bits for n in [*range(1, 2**bits), 0])
    return [by_length[i] for i in dict.fromkeys(int(share * len(by_length)) for share in shares)]


def rendered(tokenizer: Any, prompt: Prompt) -> str:
    """The prompt as one string, for peers that tokenise it themselves into the same tokens.

    Raises
    ------
    ValueError
        If they would be other tokens than ours.
    """
    from promptclf.lm.tokenise import PromptEncoder

    messages = [{"role": m.role, "content": m.content} for m in prompt.messages]
    text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    whole = str(text) + prompt.cue
    if tokenizer(whole, add_special_tokens=False)["input_ids"] != PromptEncoder(tokenizer).prompt(prompt):
        raise ValueError(f"a peer would see other tokens than we do: {whole!r}")
    return whole
