"""The Prompts tab: a template to edit, and exactly what the model sees with it."""

from __future__ import annotations

import base64
import re
from html import escape
from typing import Any

import gradio as gr
import yaml

from promptclf.errors import PromptClfError, TemplateError
from promptclf.prompt import (
    DEFAULT_TEMPLATE,
    PLACEHOLDERS,
    PromptTemplate,
    default_template,
    packaged_templates,
)
from promptclf.task import Task, packaged_tasks
from promptclf.ui.core.ready import Source
from promptclf.ui.core.visitor import owner_or_none
from promptclf.ui.page.context import Context
from promptclf.ui.page.shared import ANSWERING, QUICK, chosen, examples, text_box, trouble
from promptclf.ui.views import cards
from promptclf.ui.views.thread import prompt
from promptclf.ui.words import Language, i18n, language_of, say

FIELDS = ("system", "user", "cue", "answer")
MAX_FIELD_CHARS = 4_000
_ABOUT = re.compile(r"template .*?, (\w+): (.*)", re.DOTALL)  # how `TemplateError` names a field


class Prompts:
    """Handlers of the tab's events."""

    def __init__(self, context: Context) -> None:
        self.service = context.service

    def load(self, name: str) -> tuple[Any, ...]:
        """A packaged template's parts."""
        template = PromptTemplate.load(name) if name in packaged_templates() else _first()
        return (template.chat, template.language, *(getattr(template, field) for field in FIELDS))

    def preview(
        self,
        name: str,
        chat: bool,
        language: str,
        system: str,
        user: str,
        cue: str,
        answer: str,
        text: str,
        mode: str,
        task: str,
        labels: str,
        adapter: str | None,
        token: Any,
        request: gr.Request,
    ) -> tuple[str, ...]:
        """What the model sees, and what is wrong with each part of the template."""
        words = language_of(request)
        faults = dict.fromkeys(FIELDS, "")
        try:
            template = _template(name, chat, language, (system, user, cue, answer))
            question = self.service.question(text, mode, **chosen(self.service, task, labels, adapter, token))
            shown, tokens = self.service.preview(template, question, mode)
        except TemplateError as error:
            found = _ABOUT.fullmatch(str(error))
            if found and found[1] in faults:
                faults[found[1]] = cards.error(found[2])
                return cards.hint(say(words, "prompts_mend")), *faults.values()
            return cards.error(str(error)), *faults.values()
        except Exception as error:
            return cards.error(trouble(error, words)), *faults.values()
        note = say(words, "prompts_lora") if mode == "lora" else ""
        return _view(template, shown, tokens, note, words), *faults.values()

    def answer(
        self,
        name: str,
        chat: bool,
        language: str,
        system: str,
        user: str,
        cue: str,
        answer: str,
        text: str,
        mode: str,
        task: str,
        labels: str,
        adapter: str | None,
        token: Any,
        request: gr.Request,
    ) -> str:
        """A card with the answer that the template gives; an adapter's own prompt is not to be changed."""
        words = language_of(request)
        mode = "zero-shot" if mode == "lora" else mode
        try:
            template = _template(name, chat, language, (system, user, cue, answer))
            question = self.service.question(text, mode, **chosen(self.service, task, labels, adapter, token))
            return cards.answer_card(self.service.try_template(template, question, mode), words)
        except Exception as error:
            return cards.note_card(trouble(error, words))

    def change_task(
        self,
        name: str,
        chat: bool,
        language: str,
        system: str,
        user: str,
        cue: str,
        answer: str,
        task: str,
        token: Any,
    ) -> tuple[str, str, str]:
        """The task's template, unless one was edited; a sample of it, and no answer about another task."""
        edited = (chat, language, system, user, cue, answer) != self.load(name)
        template = name if edited else self._template_of(task, token)
        return template, next(iter(examples(self.service, task, token)), ""), ""

    def _template_of(self, task: str, token: Any) -> str:
        try:
            return default_template(self.service.ready.task(Source(task, owner_or_none(token))))
        except PromptClfError:  # labels of one's own
            return DEFAULT_TEMPLATE


def prompts_tab(context: Context) -> None:
    """Build the tab's content."""
    prompts, panel, token = Prompts(context), context.panel, context.token
    template = _first()
    sample = next(iter(examples(context.service, str(panel.task.value), None)), "")
    faults = []
    with gr.Row(elem_id="pc-prompts"):
        with gr.Column(min_width=300, elem_classes=["pc-edit", "pc-plain"]):
            name = gr.Dropdown(
                [
                    (f"{each} · {PromptTemplate.load(each).description}", each)
                    for each in packaged_templates()
                ],
                value=template.name,
                label=i18n("prompts_template"),
                filterable=False,
                interactive=True,
            )
            with gr.Row(elem_classes="pc-pair"):
                chat = gr.Radio(
                    [(str(i18n("prompts_plain")), False), (str(i18n("prompts_chat")), True)],
                    value=template.chat,
                    label=i18n("prompts_form"),
                    elem_classes="pc-switch",
                    min_width=120,
                )
                language = gr.Radio(
                    [("English", "en"), ("中文", "zh")],
                    value=template.language,
                    label=i18n("prompts_language"),
                    elem_classes="pc-switch",
                    min_width=120,
                )
            boxes: list[gr.Textbox] = []
            for field in FIELDS:
                allowed = " ".join(f"{{{word}}}" for word in PLACEHOLDERS[field] if word != "pair")
                boxes.append(
                    gr.Textbox(
                        getattr(template, field),
                        label=i18n(f"prompts_{field}"),
                        info=allowed or None,
                        lines=2 if field in ("system", "user") else 1,
                        max_lines=8,
                        max_length=MAX_FIELD_CHARS,
                        interactive=True,
                        elem_classes="pc-code",
                    )
                )
                faults.append(gr.HTML(""))
        with gr.Column(min_width=300, elem_classes=["pc-preview", "pc-plain"]):
            text = text_box("prompts_sample", value=sample, lines=2, max_lines=6, interactive=True)
            view = gr.HTML(f'<p class="pc-empty">{i18n("prompts_welcome")}</p>')
            button = gr.Button(i18n("prompts_try"), variant="secondary")
            card = gr.HTML("")
    parts = [chat, language, *boxes]
    inputs = [name, *parts, text, panel.mode, *panel.chosen, token]
    name.change(prompts.load, name, parts, **QUICK)
    # Without a trigger: when the page is loaded, and with every change of an input.
    latest = {**QUICK, "trigger_mode": "always_last"}
    gr.on(None, prompts.preview, inputs, [view, *faults], **latest)
    button.click(prompts.answer, inputs, card, **ANSWERING)
    asked = [name, *parts, panel.task, token]
    panel.task.change(prompts.change_task, asked, [name, text, card], **QUICK)


def _first() -> PromptTemplate:
    """The template of the first task."""
    name = Task.load(packaged_tasks()[0]).template if packaged_tasks() else None
    return PromptTemplate.load(name or DEFAULT_TEMPLATE)


def _template(name: str, chat: bool, language: str, parts: tuple[str, ...]) -> PromptTemplate:
    """The edited template.

    Raises
    ------
    PromptClfError
        If a part is no text, too long, or has a placeholder that it must not have.
    """
    values = dict(zip(FIELDS, parts, strict=True))
    for field, value in values.items():
        if not isinstance(value, str) or len(value) > MAX_FIELD_CHARS:
            raise PromptClfError(f"{field}: expected at most {MAX_FIELD_CHARS:,} characters; shorten it")
    base = PromptTemplate.load(name) if name in packaged_templates() else _first()
    settings = {"chat": bool(chat), "language": "zh" if language == "zh" else "en"}
    return PromptTemplate.from_dict({**base.to_dict(), "description": "", **values, **settings})


def _view(template: PromptTemplate, shown: str, tokens: int, note: str, language: Language) -> str:
    """The prompt, how long it is, and the template as a file."""
    content = yaml.safe_dump(template.to_dict(), allow_unicode=True, sort_keys=False)
    link = base64.b64encode(content.encode("utf-8", "replace")).decode()
    return (
        f'<p class="pc-heading">{escape(say(language, "prompts_seen", tokens=tokens))}</p>{prompt(shown)}'
        f"{cards.hint(note)}"
        f'<p class="pc-hint"><a class="pc-link" download="{escape(template.name)}.yaml" '
        f'href="data:text/yaml;base64,{link}">{escape(say(language, "prompts_download"))}</a> '
        f"{escape(say(language, 'prompts_use'))}</p>"
    )
