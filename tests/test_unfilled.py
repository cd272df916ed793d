"""A model that is made without drawing and counting on the meta device is the same one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
)

from promptclf.lm.loading import load_model
from promptclf.lm.unfilled import Unfilled, made_unfilled
from promptclf.quiet import quiet

SIZES = {"vocab_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "hidden_size": 32}
FAMILIES: dict[str, dict[str, Any]] = {
    "bloom": {},
    "falcon": {},
    "gemma2": {"num_key_value_heads": 2, "head_dim": 8, "intermediate_size": 48},
    "gpt2": {},
    "gpt_neox": {"intermediate_size": 48},
    "llama": {"num_key_value_heads": 2, "intermediate_size": 48},
    "mpt": {},
    "opt": {"ffn_dim": 48, "word_embed_proj_dim": 32},
    "phi": {"intermediate_size": 48},
    "qwen3": {"num_key_value_heads": 2, "head_dim": 8, "intermediate_size": 48},
}


def tensors(module: Any) -> dict[str, torch.Tensor]:
    return dict(module.named_parameters()) | dict(module.named_buffers())


@pytest.mark.parametrize("family", FAMILIES)
def test_a_model_is_the_same(family: str, tmp_path: Path) -> None:
    config = AutoConfig.for_model(family, **SIZES, **FAMILIES[family], pad_token_id=0)
    with quiet():
        AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path)
        plain = AutoModelForCausalLM.from_pretrained(tmp_path)
        with Unfilled():
            unfilled = AutoModelForCausalLM.from_pretrained(tmp_path)
    expected, found = tensors(plain), tensors(unfilled)
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert (found[name].dtype, found[name].device) == (tensor.dtype, tensor.device), name
        assert torch.equal(found[name], tensor), name
    ids = torch.arange(2, 12)[None]
    assert torch.equal(unfilled(ids).logits, plain(ids).logits)


class CountingConfig(LlamaConfig):
    """Of the model below."""

    model_type = "counting"


class Counting(LlamaForCausalLM):
    """Needs what it counts and a weight on one device."""

    config_class = CountingConfig

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.register_buffer(
            "scaled", torch.arange(4) * self.lm_head.weight[0, :4].detach(), persistent=False
        )


def test_a_model_that_cannot_be_made_so_is_made_as_ever(tiny_llama: Path, tmp_path: Path) -> None:
    AutoConfig.register("counting", CountingConfig)
    AutoModelForCausalLM.register(CountingConfig, Counting)
    config = CountingConfig.from_pretrained(tiny_llama)
    with Unfilled(), torch.device("meta"), pytest.raises(RuntimeError):
        Counting(config)
    for file in tiny_llama.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    config.save_pretrained(tmp_path)
    module = load_model(str(tmp_path)).module
    assert isinstance(module, Counting)
    known = load_model(str(tiny_llama)).module
    assert torch.equal(module.lm_head.weight, known.lm_head.weight)


def test_an_error_of_another_kind_is_no_reason_to_load_again() -> None:
    tries: list[str] = []

    def load() -> None:
        tries.append("try")
        raise torch.OutOfMemoryError("CUDA out of memory")

    with pytest.raises(torch.OutOfMemoryError):
        made_unfilled(load)
    assert tries == ["try"]


def test_tensors_with_values_are_drawn_and_counted_as_ever() -> None:
    with Unfilled():
        torch.manual_seed(0)
        drawn, counted = torch.nn.init.normal_(torch.empty(4)), torch.arange(3)
        filled = torch.nn.init.xavier_uniform_(torch.empty(2, 2))
    torch.manual_seed(0)
    assert torch.equal(drawn, torch.nn.init.normal_(torch.empty(4)))
    assert torch.equal(filled, torch.nn.init.xavier_uniform_(torch.empty(2, 2)))
    assert counted.tolist() == [0, 1, 2]
    assert counted.device == torch.empty(0).device


def test_nothing_is_drawn_where_there_are_no_values() -> None:
    drawn: list[str] = []

    class Watch(torch.overrides.TorchFunctionMode):
        def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            drawn.append(func.__name__)
            return func(*args, **kwargs or {})

    with Watch(), Unfilled(), torch.device("meta"):
        layer = torch.nn.Linear(3, 3)
        torch.nn.init.xavier_normal_(torch.empty(2, 2))
        assert torch.arange(3).tolist() == [0, 1, 2]
    assert layer.weight.is_meta
    assert not {"normal_", "uniform_", "kaiming_uniform_"} & set(drawn)
