"""Three tiny random language models with tokenizers of their own, built in seconds, never downloaded.

They differ where real models do: byte-level and byte-fallback vocabularies, a beginning-of-sequence
token or none, a chat template with a system role, without one, or none at all, learned and rotary
positions, tied and free output heads, control tokens that are "special" and some that are not.
Weights are drawn wide, so that every token of a prompt moves the scores.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from tokenizers import (
    AddedToken,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from promptclf.quiet import quiet

CORPUS = [
    "Where is my parcel? It should have come on Monday.",
    "I was charged twice for the same invoice, please send the money back.",
    "The password reset link never arrives and my account is locked.",
    "Text: the delivery was late and the box was open.\nLabel: delivery",
    "Text: your invoice has the wrong address on it.\nLabel: billing",
    "Text: I cannot log in to my account.\nLabel: account",
    "A wonderful film, funny and sad at once. Label: positive",
    "What a boring, boring evening; nothing happens. Label: negative",
    "Label: very negative\nLabel: neutral\nLabel: positive",
    "Choose the label that fits the text best. Answer with exactly one of these labels.",
    "Question: Who wrote the letter? Answer type: person",
    "I've been waiting for 12 days; that's 3 more than you promised (order no. 4711)!",
    "文本：我的包裹在哪里？\n标签：物流",
    "请选择最合适的标签。只回答下列标签中的一个。",
]
CHATML = """{%- for m in messages %}<|im_start|>{{ m.role }}
{{ m.content }}<|im_end|>
{% endfor %}{%- if add_generation_prompt %}<|im_start|>assistant
{% if enable_thinking is defined and enable_thinking is false %}<think>

</think>

{% endif %}{% endif %}"""
INST = """{{ bos_token }}{%- for m in messages %}
{%- if m.role == 'system' %}{{ raise_exception('System role not supported') }}
{%- elif m.role == 'user' %}[INST] {{ m.content | trim }} [/INST]
{%- else %} {{ m.content | trim }}{{ eos_token }}{%- endif %}{%- endfor %}"""


def build(family: str, folder: Path) -> Path:
    """Write one of `FAMILIES` to a folder that `load_model` reads."""
    torch.manual_seed(0)
    with quiet():
        tokenizer, model = FAMILIES[family]()
        tokenizer.save_pretrained(folder)
        model.save_pretrained(folder)
    return folder


def _llama() -> tuple[Any, Any]:
    """Sentencepiece style: bytes as a fallback, words begin with a space, every text with <s>."""
    tokenizer = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>", fuse_unk=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    control = ["<unk>", "<s>", "</s>", "[INST]", "[/INST]"]
    _train(tokenizer, 700, [*control, *(f"<0x{byte:02X}>" for byte in range(256))])
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", tokenizer.token_to_id("<s>"))]
    )
    # The trainer wants the bytes named as special; in the vocabulary they are ordinary tokens.
    plain = _without_added(tokenizer, {f"<0x{byte:02X}>" for byte in range(256)})
    fast = PreTrainedTokenizerFast(
        tokenizer_object=plain, bos_token="<s>", eos_token="</s>", unk_token="<unk>", chat_template=INST
    )
    config = LlamaConfig(
        vocab_size=len(fast),
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=512,
        initializer_range=0.15,
        bos_token_id=fast.bos_token_id,
        eos_token_id=fast.eos_token_id,
    )
    return fast, LlamaForCausalLM(config)


def _gpt2() -> tuple[Any, Any]:
    """Byte level, learned positions, no chat template, no beginning of sequence."""
    fast = PreTrainedTokenizerFast(
        tokenizer_object=_byte_level(600, ["<|endoftext|>"]),
        bos_token="<|endoftext|>",
        eos_token="<|endoftext|>",
        unk_token="<|endoftext|>",
    )
    config = GPT2Config(
        vocab_size=len(fast),
        n_embd=64,
        n_layer=3,
        n_head=4,
        n_positions=256,
        initializer_range=0.15,
        bos_token_id=fast.bos_token_id,
        eos_token_id=fast.eos_token_id,
    )
    return fast, GPT2LMHeadModel(config)


def _qwen3() -> tuple[Any, Any]:
    """Byte level with NFC, turns in ChatML, thoughts in tokens that do not count as special."""
    tokenizer = _byte_level(600, ["<|endoftext|>", "<|im_start|>", "<|im_end|>"])
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.add_tokens(
        [AddedToken(word, special=False, normalized=False) for word in ("<think>", "</think>", "<tool_call>")]
    )
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="<|im_end|>", pad_token="<|endoftext|>", chat_template=CHATML
    )
    config = Qwen3Config(
        vocab_size=len(fast),
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=16,
        max_position_embeddings=512,
        initializer_range=0.15,
        tie_word_embeddings=True,
        eos_token_id=fast.eos_token_id,
    )
    return fast, Qwen3ForCausalLM(config)


def _byte_level(size: int, special: list[str]) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    _train(tokenizer, size, special, alphabet=pre_tokenizers.ByteLevel.alphabet())
    return tokenizer


def _train(tokenizer: Tokenizer, size: int, special: list[str], alphabet: Any = ()) -> None:
    trainer = trainers.BpeTrainer(
        vocab_size=size, special_tokens=special, initial_alphabet=list(alphabet), show_progress=False
    )
    lines = [line for text in CORPUS for line in text.splitlines()]  # no token spans two lines
    tokenizer.train_from_iterator(lines, trainer)


def _without_added(tokenizer: Tokenizer, words: set[str]) -> Tokenizer:
    state = json.loads(tokenizer.to_str())
    state["added_tokens"] = [token for token in state["added_tokens"] if token["content"] not in words]
    return Tokenizer.from_str(json.dumps(state))


FAMILIES: dict[str, Callable[[], tuple[Any, Any]]] = {"llama": _llama, "gpt2": _gpt2, "qwen3": _qwen3}
