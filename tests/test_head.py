"""The head gives what a model's own forward pass gives, to scoring and to training alike."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from transformers import (
    CohereConfig,
    CohereForCausalLM,
    Gemma2Config,
    Gemma2ForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    GraniteConfig,
    GraniteForCausalLM,
    OPTConfig,
    OPTForCausalLM,
)

from promptclf.lm.engine import ScoringEngine
from promptclf.lm.head import Head
from promptclf.training.answer_loss import AnswerLoss, Row, collate

SHAPE = {
    "vocab_size": 97,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "initializer_range": 0.3,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
OPT = {"ffn_dim": 48, "word_embed_proj_dim": 32, "init_std": 0.3}
GPT = {"n_positions": 64, "n_embd": 32, "n_layer": 2, "n_head": 4}
MODELS: list[Any] = [
    pytest.param(
        (Gemma2Config, Gemma2ForCausalLM, {"head_dim": 8, "final_logit_softcapping": 2.0}), id="caps"
    ),
    pytest.param((GraniteConfig, GraniteForCausalLM, {"logits_scaling": 4.0}), id="divides"),
    pytest.param((CohereConfig, CohereForCausalLM, {"logit_scale": 0.25}), id="multiplies"),
    pytest.param((OPTConfig, OPTForCausalLM, OPT), id="passes its body by"),
    pytest.param((GPT2Config, GPT2LMHeadModel, GPT), id="plain"),
]
PROMPTS, ENDS = [[*range(3, 20), 3], [*range(3, 20), 5, 7, 8]], [[5, 6], [5, 7, 8], [9]]


@pytest.fixture(params=MODELS)
def module(request: pytest.FixtureRequest) -> Any:
    config, model, more = request.param
    torch.manual_seed(0)
    return model(config(**SHAPE | more)).eval()


def own(module: Any, ids: list[int]) -> torch.Tensor:
    return module(input_ids=torch.tensor([ids]), use_cache=False).logits[0]  # type: ignore[no-any-return]


def test_logits_are_the_models_own(module: Any) -> None:
    head, body = Head(module), module.base_model
    for ids in PROMPTS:
        states = module.base_model(input_ids=torch.tensor([ids])).last_hidden_state[0]
        torch.testing.assert_close(head(states), own(module, ids), atol=1e-6, rtol=0)
    assert module.base_model is body


def test_scores_are_those_of_plain_passes_without_falling_back(module: Any) -> None:
    engine = ScoringEngine(module, pad_id=0)
    found, expected = engine.score(PROMPTS, ENDS), engine.score_plainly(PROMPTS, ENDS)
    np.testing.assert_allclose(found, expected, atol=1e-4, rtol=0)
    assert engine.path != "plain"


@pytest.mark.parametrize("packed", [True, False])
def test_training_minimises_the_models_own_loss(module: Any, packed: bool) -> None:
    if packed and type(module).__name__ in ("Gemma2ForCausalLM", "OPTForCausalLM"):
        pytest.skip("not trained in packed rows")
    rows = [Row([*prompt, *end], len(end)) for prompt in PROMPTS for end in ENDS]
    (part,) = collate([(row, 1.0) for row in rows], budget=10**6, packed=packed)
    del part["shares"]
    loss = AnswerLoss(module)(**part)
    for row, found in zip(rows, loss, strict=True):
        logits = own(module, row.ids)[-row.answer - 1 : -1]
        target = torch.tensor(row.ids[-row.answer :])
        expected = torch.nn.functional.cross_entropy(logits, target, reduction="sum")
        torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)
    weight = module.get_input_embeddings().weight
    (gradient,) = torch.autograd.grad(loss.sum(), weight)
    assert float(gradient.abs().max()) > 0
