"""Templates are strict data, and what a user writes is never expanded."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from promptclf.errors import TemplateError
from promptclf.prompt import (
    MAX_TEMPLATE_BYTES,
    Message,
    Prompt,
    PromptTemplate,
    packaged_templates,
    prompts_folder,
)
from promptclf.task import Example, Task

TASK = Task(
    "mood",
    ("positive", "negative"),
    "Is it good or bad?",
    descriptions={"negative": "someone is unhappy"},
    verbalisers={"positive": "great"},
)
PLAIN = PromptTemplate("plain", user="Text: {text}", cue="Label:")
CHAT = PromptTemplate("chat", chat=True, system="{instruction} {labels}", user="{text}", cue="Label:")
EXAMPLES = [Example("loved it", "positive"), Example("hated it", "negative")]


# ---- files ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", packaged_templates())
def test_every_packaged_template_renders_in_every_mode(name: str) -> None:
    template = PromptTemplate.load(name)
    assert template.name == name and template.description and template.language in ("en", "zh")
    pair = "second" if "{pair}" in template.user else None
    examples = [replace(example, pair=pair) for example in EXAMPLES]
    prompt = template.render(TASK, "fine", pair, examples)
    assert prompt.text.index("loved it") < prompt.text.index("hated it") < prompt.text.rindex("fine")
    assert prompt.text.endswith(template.cue) and "{" not in prompt.text
    assert prompt.chat == template.chat
    assert PromptTemplate.from_dict(template.to_dict()) == template


def test_the_packaged_templates_come_in_two_languages() -> None:
    names = packaged_templates()
    english = {"chat", "completion", "intent", "pair", "sentiment", "topic"}
    assert english | {f"{name}_zh" for name in english} <= set(names)
    assert names == sorted(path.stem for path in prompts_folder().iterdir())


def test_a_file_is_read_by_its_path(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump({"name": "mine", "user": "{text}\n{labels}"}), encoding="utf-8")
    assert PromptTemplate.load(path).user == "{text}\n{labels}"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            "name: x\nuser: '{text}'\ncolour: red",
            r"unknown key 'colour'; known keys: name, user, description",
        ),
        ("name: x", r"missing key 'user'; required: name, user"),
        ("name: x\nuser: 5", r"user: expected str, got int"),
        ("name: x\nuser: '{text}'\nchat: 'yes'", r"chat: expected bool, got str"),
        ("name: x\nuser: Hello", r"template 'x', user: missing \{text\}"),
        ("name: x\nuser: '{text}'\nanswer: Good", r"template 'x', answer: missing \{label\}"),
        ("name: x\nuser: '{text} {mood}'", r"unknown placeholder \{mood\}; allowed: \{text\}, \{pair\}"),
        ("name: x\nuser: '{text} {Labels}'", r"unknown placeholder \{Labels\}; allowed: \{text\}"),
        ("name: x\nuser: '{text} { labels }'", r"unknown placeholder \{ labels \}; allowed: \{text\}"),
        ("name: x\nuser: '{text} {label1}'", r"unknown placeholder \{label1\}; allowed: \{text\}"),
        ("name: x\nuser: '{text}'\nsystem: '{text}'", r"system: unknown placeholder \{text\}"),
        ("name: x\nuser: '{text}'\ncue: '{label}'", r"cue: unknown placeholder \{label\}; allowed: none"),
        ("- name: x", r"expected keys and values, got list"),
        ("name: [", r"not valid YAML"),
        ("!!python/object/apply:os.getcwd []", r"not valid YAML"),
        ("[" * 1000, r"not valid YAML"),
        ("name: x\nuser: '{text}'\n#" + "x" * MAX_TEMPLATE_BYTES, r"expected at most 65536 bytes"),
    ],
)
def test_a_malformed_file_is_refused_with_a_reason(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(TemplateError, match=message) as caught:
        PromptTemplate.load(path)
    assert "\n" not in str(caught.value)


def test_a_file_that_is_not_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "bad.yaml").write_bytes(b"name: \xff\xfe\x00")
    with pytest.raises(TemplateError, match="not valid YAML"):
        PromptTemplate.load(tmp_path / "bad.yaml")


def test_an_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(
        TemplateError, match=r"no prompt template 'nope': expected a YAML file or one of chat"
    ):
        PromptTemplate.load("nope")


# ---- rendering ------------------------------------------------------------------------------------


def test_a_completion_is_one_text() -> None:
    assert PLAIN.render(TASK, "so so") == Prompt((Message("user", "Text: so so\n"),), "Label:", chat=False)
    assert PLAIN.render(TASK, "so so", examples=EXAMPLES).text == (
        "Text: loved it\nLabel: great\n\nText: hated it\nLabel: negative\n\nText: so so\nLabel:"
    )


def test_a_chat_has_a_turn_for_each_example() -> None:
    assert CHAT.render(TASK, "so so", examples=EXAMPLES).messages == (
        Message("system", "Is it good or bad? great, negative"),
        Message("user", "loved it"),
        Message("assistant", "Label: great"),
        Message("user", "hated it"),
        Message("assistant", "Label: negative"),
        Message("user", "so so"),
    )


def test_no_system_text_no_system_turn() -> None:
    template = PromptTemplate("x", user="{text}", chat=True)
    assert [message.role for message in template.render(TASK, "so so").messages] == ["user"]


def test_placeholders_show_the_task() -> None:
    template = PromptTemplate("x", user="{text}", system="{instruction}|{labels}|{descriptions}")
    text = template.render(TASK, "t").text
    assert text == "Is it good or bad?|great, negative|- great\n- negative: someone is unhappy\n\nt\n"


@pytest.mark.parametrize(
    ("language", "instruction", "labels"),
    [("en", "Choose the label that fits the text best.", "a, b"), ("zh", "请选择最合适的标签。", "a、b")],
)
def test_defaults_follow_the_language(language: str, instruction: str, labels: str) -> None:
    template = PromptTemplate("x", user="{text}", system="{instruction} {labels}", language=language)
    assert template.render(Task("t", ("a", "b")), "").text.startswith(f"{instruction} {labels}\n\n")


@given(st.text())
def test_a_text_stands_in_its_prompt_unchanged(text: str) -> None:
    assert PLAIN.render(TASK, text).text == f"Text: {text}\nLabel:"


@pytest.mark.parametrize(
    "text",
    [
        "{labels} {text} {label} {instruction}",
        "{{text}}",
        "{0}",
        "{text.__class__}",
        "{{ 7 * 7 }}",
        "%s $text \\1",
    ],
)
def test_what_is_filled_in_is_not_looked_at_again(text: str) -> None:
    hostile = Task("t", ("a", "b"), instruction=text, verbalisers={"a": text})
    template = PromptTemplate("x", user="{text}", system="{instruction} {labels}", cue="Label:")
    prompt = template.render(hostile, text, examples=[Example(text, "a")])
    assert prompt.text == f"{text} {text}, b\n\n{text}\nLabel: {text}\n\n{text}\nLabel:"
    assert template.answer_for(hostile, "a") == f" {text}"


def test_braces_that_name_nothing_are_kept() -> None:
    assert PromptTemplate("x", user='{"a": 1} {text}').render(TASK, "t").text == '{"a": 1} t\n'


def test_pairs_and_templates_must_fit() -> None:
    pairs = PromptTemplate("pairs", user="{text} / {pair}")
    assert pairs.render(TASK, "one", "two", [Example("three", "positive", pair="four")]).text == (
        "three / four\n great\n\none / two\n"
    )
    with pytest.raises(
        TemplateError, match=r"'pairs' shows a \{pair\}, but the text has none; give \(text, pair\)"
    ):
        pairs.render(TASK, "one")
    with pytest.raises(TemplateError, match=r"'plain' has no \{pair\} for the second text"):
        PLAIN.render(TASK, "one", "two")


def test_the_fingerprint_follows_the_content() -> None:
    changed = PromptTemplate("plain", user="Text: {text}", cue="Label:", separator="\n")
    assert len(PLAIN.fingerprint) == 64
    assert PLAIN.fingerprint == PromptTemplate.from_dict(PLAIN.to_dict()).fingerprint
    assert PLAIN.fingerprint != changed.fingerprint
