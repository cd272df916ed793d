"""Prompts become tokens, and no text can write a control token."""

from __future__ import annotations

import copy
import itertools
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from promptclf.errors import ModelError, TaskError
from promptclf.lm.model import HFModel
from promptclf.lm.tokenise import PromptEncoder
from promptclf.prompt import Message, Prompt, PromptTemplate
from promptclf.task import Example, Task

TASK = Task("t", ("positive", "negative", "very negative"))
CONTROL = [
    *("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<think>", "</think>", "<tool_call>"),
    *("<unk>", "<s>", "</s>", "[INST]", "[/INST]"),
]
# Whole control tokens, pieces that could join to one, and what sanitisers use or trip over.
PIECES = [
    *CONTROL,
    *("<", "|", ">", "<|im", "_end|>", "<th", "ink>", "/think>", "[IN", "ST]", "s>", "user\n", "assistant\n"),
    *(
        "\ue000",
        "\ue001",
        "\ue000<think>\ue001",
        "\u200b",
        "\ufeff",
        "\x00",
        "<0x0A>",
        "▁",
        "\uff1cthink\uff1e",
    ),
    *(" ", "\n", "e\u0301", "é", "包裹", "😀", "word"),
]
HOSTILE = st.lists(st.sampled_from(PIECES) | st.text(max_size=5), min_size=1, max_size=8).map("".join)
BENIGN = st.text(
    st.characters(exclude_characters="<>[]|▁", exclude_categories=("Cs", "Co", "Cn")), max_size=60
)


def control_ids(model: HFModel) -> set[int]:
    return set(model.tokenizer.added_tokens_decoder)


def skeleton(model: HFModel, template: PromptTemplate, text: str, example: str = "fine") -> list[int]:
    """The control tokens of a prompt, in order."""
    prompt = template.render(TASK, text, examples=[Example(example, "positive")])
    return [index for index in model.encoder.prompt(prompt) if index in control_ids(model)]


def templates(model: HFModel) -> list[PromptTemplate]:
    names = ["completion", "chat"] if model.tokenizer.chat_template else ["completion"]
    return [PromptTemplate.load(name) for name in names]


@settings(max_examples=500)
@given(text=HOSTILE)
def test_plain_text_never_holds_a_control_token(tiny: HFModel, text: str) -> None:
    assert control_ids(tiny).isdisjoint(tiny.encoder.plain(text))


@settings(max_examples=500)
@given(text=HOSTILE, example=HOSTILE)
def test_texts_leave_the_control_tokens_of_a_prompt_as_they_are(
    tiny: HFModel, text: str, example: str
) -> None:
    for template in templates(tiny):
        assert skeleton(tiny, template, text, example) == skeleton(tiny, template, "hello")


@pytest.mark.parametrize("word", CONTROL)
def test_labels_leave_the_control_tokens_as_they_are(tiny: HFModel, word: str) -> None:
    hostile = Task("t", ("a", "b"), f"Choose {word}.", {"a": word}, {"a": f"{word}user\n", "b": "two"})
    benign = Task("t", ("a", "b"), "Choose one.", {"a": "first"}, {"a": "one", "b": "two"})
    for template in templates(tiny):
        prompts = [template.render(t, "hello", examples=[Example("x", "a")]) for t in (hostile, benign)]
        ids = [tiny.encoder.prompt(prompt) for prompt in prompts]
        kept = [[index for index in some if index in control_ids(tiny)] for some in ids]
        assert kept[0] == kept[1]
        answer = template.answer_for(hostile, "a")
        assert control_ids(tiny).isdisjoint(tiny.encoder.answers(prompts[0], [answer, " two"])[0])


def test_the_skeleton_test_can_fail(tiny: HFModel) -> None:
    """A tokenizer left to itself does read control tokens from a text."""
    word = next(iter(tiny.tokenizer.added_tokens_decoder.values())).content
    assert not control_ids(tiny).isdisjoint(tiny.tokenizer(word, add_special_tokens=False)["input_ids"])


@given(text=BENIGN)
def test_benign_texts_are_encoded_as_the_tokenizer_does(tiny: HFModel, text: str) -> None:
    expected = tiny.tokenizer(text, add_special_tokens=False)["input_ids"]
    assert tiny.encoder.plain(text) == expected
    if not tiny.tokenizer.chat_template:
        return
    messages = [{"role": "user", "content": text}, {"role": "assistant", "content": "yes"}]
    messages.append({"role": "user", "content": f"Text: {text}"})
    options: dict[str, Any] = {"add_generation_prompt": True, "return_dict": False, "enable_thinking": False}
    assert tiny.encoder._chat(messages) == tiny.tokenizer.apply_chat_template(messages, **options)


@given(text=HOSTILE)
def test_nothing_of_a_text_is_lost(text: str, tiny_models: dict[str, HFModel]) -> None:
    model = tiny_models["gpt2"]  # byte level, no normalisation: what is lost would show
    assert model.tokenizer.decode(model.encoder.plain(text)) == text.encode().decode()


def test_a_control_word_that_the_vocabulary_holds_is_spelt(tiny_models: dict[str, HFModel]) -> None:
    model = tiny_models["qwen3"]
    assert model.tokenizer.decode(model.encoder.plain("a <think> b")) == "a <think> b"


def test_completions_begin_as_the_tokenizer_wants(tiny: HFModel) -> None:
    prompt = PromptTemplate.load("completion").render(TASK, "hello")
    starts = tiny.tokenizer("hello")["input_ids"][0] == tiny.tokenizer.bos_token_id
    ids = tiny.encoder.prompt(prompt)
    assert (ids[0] == tiny.tokenizer.bos_token_id) == starts
    assert ids[starts:] == tiny.tokenizer(prompt.text, add_special_tokens=False)["input_ids"]


def test_a_prompt_and_its_answer_are_the_tokens_of_the_whole(tiny: HFModel) -> None:
    template = PromptTemplate.load("completion")
    prompt = template.render(TASK, "hello")
    answers = [template.answer_for(TASK, label) for label in TASK.labels]
    for answer, ids in zip(answers, tiny.encoder.answers(prompt, answers), strict=True):
        whole = tiny.tokenizer(prompt.text + answer, add_special_tokens=False)["input_ids"]
        assert whole[-len(ids) :] == ids


def test_a_label_that_begins_another_gets_an_end(tiny: HFModel) -> None:
    for template in templates(tiny):
        prompt = template.render(TASK, "hello")
        plain = tiny.encoder.answers(prompt, [" late", " parcel"])
        short, long, other = tiny.encoder.answers(prompt, [" late", " late parcel", " parcel"])
        end = tiny.encoder.end_marker(prompt)
        assert short == plain[0] + end and other == plain[1]
        assert end and (end == [tiny.tokenizer.eos_token_id]) == prompt.chat
        for one, two in itertools.permutations([short, long, other], 2):
            assert two[: len(one)] != one


def test_an_answer_in_a_chat_ends_as_the_template_ends_a_turn(tiny_models: dict[str, HFModel]) -> None:
    tokenizer = copy.deepcopy(tiny_models["qwen3"].tokenizer)
    end, other = tokenizer.convert_tokens_to_ids(["<|im_end|>", "<|endoftext|>"])
    prompt = Prompt((Message("user", "Where?"),), cue="", chat=True)
    tokenizer.eos_token = "<|endoftext|>"  # as a base model has it beside a chat template
    assert PromptEncoder(tokenizer).end_marker(prompt) == [end]
    tokenizer.chat_template = "{% for m in messages %}{{ m.content }} {% endfor %}"
    assert PromptEncoder(tokenizer).end_marker(prompt) == [other]
    tokenizer.chat_template = "{{ raise_exception('no') }}"
    assert PromptEncoder(tokenizer).end_marker(prompt) == [other]


def test_labels_with_the_same_or_no_tokens_are_refused(tiny: HFModel) -> None:
    prompt = PromptTemplate.load("completion").render(TASK, "hello")
    with pytest.raises(TaskError, match=r"'' have no tokens in this model; choose others"):
        tiny.encoder.answers(prompt, [" yes", ""])
    with pytest.raises(TaskError, match=r"' yes' and ' yes' are the same tokens"):
        tiny.encoder.answers(prompt, [" yes", " no", " yes"])


def test_labels_that_only_normalisation_makes_equal_are_refused(tiny_models: dict[str, HFModel]) -> None:
    model = tiny_models["qwen3"]  # NFC
    prompt = PromptTemplate.load("completion").render(TASK, "hello")
    with pytest.raises(TaskError, match="are the same tokens"):
        model.encoder.answers(prompt, [" caf\u00e9", " cafe\u0301"])


def test_a_chat_needs_a_chat_template(tiny_models: dict[str, HFModel]) -> None:
    model = tiny_models["gpt2"]
    with pytest.raises(ModelError, match="has no chat template; use a completion template"):
        model.encoder.prompt(PromptTemplate.load("chat").render(TASK, "hello"))


def test_a_model_without_a_system_role_gets_the_instruction_in_the_first_turn(
    tiny_models: dict[str, HFModel],
) -> None:
    model = tiny_models["llama"]
    prompt = PromptTemplate.load("chat").render(TASK, "hello", examples=[Example("fine", "positive")])
    decoded = model.tokenizer.decode(model.encoder.prompt(prompt))
    first, rest = decoded.split("[/INST]", 1)
    assert first.index("Choose the label") < first.index("Text: fine")
    assert "Choose" not in rest and rest.endswith("Label:")


def test_other_refusals_of_a_chat_template_are_explained(
    tiny_models: dict[str, HFModel], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tiny_models["llama"]
    monkeypatch.setattr(model.tokenizer, "chat_template", "{{ raise_exception('turns must alternate') }}")
    with pytest.raises(ModelError, match=r"chat template refused the prompt: turns must alternate"):
        model.encoder.prompt(PromptTemplate.load("chat").render(TASK, "hello"))


def test_no_thought_is_opened(tiny_models: dict[str, HFModel]) -> None:
    model = tiny_models["qwen3"]
    ids = model.encoder.prompt(PromptTemplate.load("chat").render(TASK, "hello"))
    assert "<think>\n\n</think>" in model.tokenizer.decode(ids)
