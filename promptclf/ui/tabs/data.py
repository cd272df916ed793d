"""The Data tab: from a file to a data set of one's own, with a look at what is in it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from html import escape
from pathlib import Path
from typing import Any

import gradio as gr

from promptclf.data.dataset import Dataset
from promptclf.errors import DataError, PromptClfError
from promptclf.jobs.store import Stored
from promptclf.prompt import PromptTemplate, packaged_templates
from promptclf.ui.core.upload import (
    SUFFIXES,
    Draft,
    Drafts,
    build_dataset,
    label_lines,
    looks_chinese,
    read_examples,
    read_upload,
)
from promptclf.ui.core.visitor import owner, owner_or_none
from promptclf.ui.page.context import Context
from promptclf.ui.page.panel import choose_task, unchecked
from promptclf.ui.page.shared import ANSWERING, QUICK, trouble
from promptclf.ui.views import cards
from promptclf.ui.views.data import examine, findings_card, labels_card, sample_card
from promptclf.ui.words import Language, i18n, language_of, say, sentences

READING: dict[str, Any] = {**ANSWERING, "concurrency_id": "reading", "concurrency_limit": 2}
TEMPLATES = {False: "completion", True: "completion_zh"}  # by whether the texts are Chinese
Updates = dict[Any, Any]


def data_tab(context: Context) -> None:
    """Build the tab's content."""
    DataDesk(context).connect()


class DataDesk:
    """The tab's components and what happens to them."""

    def __init__(self, context: Context) -> None:
        self.context, self.drafts = context, Drafts()
        gr.HTML(i18n("data_intro"), elem_classes="pw-intro")
        self.file = gr.File(
            label=i18n("data_file"), file_types=list(SUFFIXES), height=132, elem_id="pc-data-file"
        )
        self.problem = gr.HTML("", elem_id="pc-data-problem")
        self.draft = gr.State("")
        with gr.Column(visible=False, elem_id="pc-data-form") as self.form:
            with gr.Row(elem_classes="pw-settings"):
                self.text, self.label = _dropdown("data_text_column"), _dropdown("data_label_column")
                self.name = gr.Textbox(label=i18n("data_name"), max_length=60, min_width=170)
            self.guessed = gr.HTML("")
            self.labels = gr.Textbox(
                label=i18n("data_label_lines"),
                info=i18n("data_label_lines_info"),
                lines=4,
                max_lines=10,
                autoscroll=False,
            )
            with gr.Row(elem_classes="pw-settings"):
                self.instruction = gr.Textbox(
                    label=i18n("data_instruction"),
                    info=i18n("data_instruction_info"),
                    placeholder=i18n("data_instruction_placeholder"),
                    max_length=500,
                    scale=2,
                    min_width=260,
                )
                self.template = gr.Dropdown(
                    packaged_templates(),
                    value=TEMPLATES[False],
                    label=i18n("data_template"),
                    info=i18n("data_template_info"),
                    interactive=True,
                    min_width=170,
                )
            with gr.Row(elem_classes="pw-actions"):
                self.save = gr.Button(i18n("data_save"), variant="primary", scale=0, min_width=220)
                self.discard = gr.Button(i18n("data_discard"), scale=0, min_width=110)
        self.mine = gr.Radio(
            [],
            label=i18n("data_mine"),
            visible=False,
            interactive=True,
            elem_classes="pw-list",
            elem_id="pc-data-mine",
        )
        self.delete = gr.Button(i18n("data_delete"), visible=False, elem_classes="pw-small")
        with gr.Column(visible=False, elem_classes="pw-sure") as self.sure:
            self.question = gr.HTML("")
            with gr.Row(elem_classes="pw-actions"):
                self.yes = gr.Button(
                    i18n("data_delete_yes"), variant="stop", elem_classes="pw-small pw-danger"
                )
                self.no = gr.Button(i18n("data_delete_no"), elem_classes="pw-small")
        self.overview = gr.HTML(cards.empty(say("en", "data_empty")), elem_id="pc-data-overview")

    def connect(self) -> None:
        """Let things happen."""
        for component in (self.mine, self.text, self.label, self.template):
            unchecked(component)
        token, panel = self.context.token, self.context.panel
        columns = [self.text, self.label]
        shaping = [token, self.draft, *columns, self.labels, self.instruction, self.template, self.name]
        mine = [self.mine, self.delete, self.sure]
        form = [self.file, self.problem, self.form, self.draft, self.guessed, *shaping[2:], self.overview]
        gr.on(None, self.open, [token], [*mine, self.overview], **QUICK)
        self.file.clear(lambda: "", None, self.problem, **QUICK)
        read = self.file.upload(self.read, [token, self.file], [*form, *mine], **{**READING, "queue": True})
        read.success(self.look, shaping, self.overview, **READING)
        gr.on(
            [column.input for column in columns],
            self.choose,
            [token, self.draft, *columns],
            [self.labels, self.guessed, self.problem],
            **QUICK,
        ).then(self.look, shaping, self.overview, **READING)
        gr.on([self.labels.blur, self.labels.submit], self.look, shaping, self.overview, **READING)
        self.save.click(self.keep, shaping, [*form, *mine, panel.task], **{**QUICK, "trigger_mode": "once"})
        self.discard.click(self.drop, token, [*form, *mine], **QUICK)
        self.mine.input(self.show, [token, self.mine], [self.overview, self.problem, *mine[1:]], **READING)
        self.delete.click(self.ask, [token, self.mine], [self.delete, self.sure, self.question], **QUICK)
        self.no.click(self.spare, None, [self.delete, self.sure], **QUICK)
        self.yes.click(
            self.remove,
            [token, self.mine, panel.task],
            [*mine, self.problem, self.overview, panel.task],
            **{**QUICK, "trigger_mode": "once"},
        )

    # ---- a file -------------------------------------------------------------------------------

    def read(self, request: gr.Request, token: Any, path: str | None) -> Updates:
        """A file was uploaded: read it, delete it, and guess what its columns are."""
        language = language_of(request)
        if path is None:
            return {self.problem: ""}
        file = Path(path)
        try:
            draft = read_upload(file, file.name)
            self.drafts.put(owner(token), draft)
        except Exception as error:
            return {
                **self._closed(),
                self.problem: cards.error(trouble(error, language)),
                self.overview: cards.empty(say(language, "data_empty")),
                **self._mine(token, language),
            }
        finally:
            file.unlink(missing_ok=True)
        columns = list(draft.table.columns)
        examples = _examples(draft, draft.guess)
        template = TEMPLATES[looks_chinese(examples)]
        return {
            self.file: None,
            self.problem: "",
            self.form: gr.Column(visible=True),
            self.draft: draft.id,
            self.guessed: _guessed(draft, draft.guess, language),
            self.text: gr.Dropdown(columns, value=draft.guess.get("text")),
            self.label: gr.Dropdown(columns, value=draft.guess.get("label")),
            self.name: draft.name,
            self.labels: label_lines(examples),
            self.instruction: "",
            self.template: _templates(template),
            self.overview: cards.waiting_card(say(language, "data_reading"), labels=3),
            # One thing at a time: the list comes back when the file is saved or discarded.
            self.mine: gr.Radio(value=None, visible=False),
            self.delete: gr.Button(visible=False),
            self.sure: gr.Column(visible=False),
        }

    def choose(
        self, request: gr.Request, token: Any, draft_id: str, text: str | None, label: str | None
    ) -> Updates:
        """Other columns were chosen: their labels."""
        language = language_of(request)
        try:
            draft = self.drafts.get(owner(token), draft_id)
        except PromptClfError as error:
            return {self.problem: cards.error(trouble(error, language))}
        columns = _columns(text, label)
        return {
            self.labels: label_lines(_examples(draft, columns)),
            self.guessed: _guessed(draft, columns, language),
            self.problem: "",
        }

    def look(self, request: gr.Request, token: Any, draft_id: str, *shape: Any) -> Any:
        """What is in the file, as it is shaped now; nothing new if it was saved or discarded meanwhile."""
        language = language_of(request)
        try:
            draft = self.drafts.get(owner(token), draft_id)
        except PromptClfError:
            return gr.skip()
        try:
            examples = read_examples(draft, _columns(*shape[:2]))
            findings, examined = examine({"train": examples})
            found = findings_card(findings, examined, {"train": examples}, language)
        except Exception as error:
            return cards.error(trouble(error, language))
        try:
            data = self._shaped(token, draft_id, *shape)
            parts = labels_card(data, language) + sample_card(data, language)
        except Exception as error:
            parts = cards.error(trouble(error, language))
        if not self.drafts.holds(owner(token), draft_id):
            return gr.skip()
        return f'<section class="pw-work">{parts}{found}</section>'

    def keep(self, request: gr.Request, token: Any, draft_id: str, *shape: Any) -> Updates:
        """Save the rows as a data set, and choose it as the task."""
        language = language_of(request)
        try:
            data = self._shaped(token, draft_id, *shape)
            stored = self.context.store.add_dataset(owner(token), data, data.task)
        except Exception as error:
            return {self.problem: cards.error(trouble(error, language))}
        self.drafts.drop(owner(token))
        said = [say(language, "data_saved", name=stored.name), say(language, "data_saved_next")]
        return {
            **self._closed(),
            self.overview: cards.note_card(sentences(language, *said)),
            **self._mine(token, language),
            self.context.panel.task: choose_task(self.context, token, stored.id, language),
        }

    def drop(self, request: gr.Request, token: Any) -> Updates:
        """Forget the file that was uploaded."""
        if found := owner_or_none(token):
            self.drafts.drop(found)
        language = language_of(request)
        empty = cards.empty(say(language, "data_empty"))
        return {**self._closed(), self.overview: empty, **self._mine(token, language)}

    # ---- data sets ----------------------------------------------------------------------------

    def open(self, request: gr.Request, token: Any) -> Updates:
        """The page was loaded: list the visitor's data sets."""
        language = language_of(request)
        return {**self._mine(token, language), self.overview: cards.empty(say(language, "data_empty"))}

    def show(self, request: gr.Request, token: Any, chosen: str | None) -> Iterator[Updates]:
        """A data set was chosen from the list: what is in it."""
        language = language_of(request)
        yield {self.overview: cards.waiting_card(say(language, "data_reading"), labels=3)}
        try:
            data = self.context.store.dataset(str(chosen), owner(token))
            rows = data.splits
            findings, examined = examine(rows)
        except Exception as error:
            yield {
                self.overview: cards.error(trouble(error, language)),
                self.delete: gr.Button(visible=False),
            }
            return
        found = findings_card(findings, examined, rows, language)
        view = f"{labels_card(data, language)}{sample_card(data, language)}{found}"
        yield {
            self.overview: f'<section class="pw-work">{view}</section>',
            self.problem: "",
            self.delete: gr.Button(visible=True),
            self.sure: gr.Column(visible=False),
        }

    def ask(self, request: gr.Request, token: Any, chosen: str | None) -> Updates:
        """Make sure before a data set is deleted."""
        stored = next((one for one in self._stored(token) if one.id == chosen), None)
        if stored is None:
            return {self.sure: gr.Column(visible=False)}
        question = say(language_of(request), "data_delete_sure", name=stored.name)
        return {
            self.delete: gr.Button(visible=False),
            self.sure: gr.Column(visible=True),
            self.question: f'<p dir="auto">{escape(question)}</p>',
        }

    def spare(self) -> Updates:
        """It is not to be deleted after all."""
        return {self.delete: gr.Button(visible=True), self.sure: gr.Column(visible=False)}

    def remove(self, request: gr.Request, token: Any, chosen: str | None, task: Any) -> Updates:
        """Delete a data set."""
        language = language_of(request)
        stored = next((one for one in self._stored(token) if one.id == chosen), None)
        try:
            if stored is None or not self.context.store.delete_dataset(stored.id, owner(token)):
                raise DataError(say(language, "data_gone"))
        except Exception as error:
            return {self.problem: cards.error(trouble(error, language)), **self._mine(token, language)}
        return {
            self.problem: "",
            self.overview: cards.note_card(say(language, "data_deleted", name=stored.name)),
            **self._mine(token, language),
            self.context.panel.task: choose_task(self.context, token, str(task), language),
        }

    # ---- what they share ----------------------------------------------------------------------

    def _shaped(
        self,
        token: Any,
        draft_id: str,
        text: Any,
        label: Any,
        labels: Any,
        instruction: Any,
        template: Any,
        name: Any,
    ) -> Dataset:
        draft = self.drafts.get(owner(token), draft_id)
        columns = _columns(text, label)
        if template not in packaged_templates():
            raise DataError(
                f"template: expected one of {', '.join(packaged_templates())}, got {template!r:.60}"
            )
        return build_dataset(
            str(name or ""),
            read_examples(draft, columns),
            str(labels or ""),
            instruction=str(instruction or ""),
            template=template,
            columns=columns,
        )

    def _stored(self, token: Any) -> list[Stored]:
        found = owner_or_none(token)
        return self.context.store.datasets(found) if found else []

    def _mine(self, token: Any, language: Language) -> Updates:
        choices = [(_item(stored, language), stored.id) for stored in self._stored(token)]
        return {
            self.mine: gr.Radio(choices, value=None, visible=bool(choices)),
            self.delete: gr.Button(visible=False),
            self.sure: gr.Column(visible=False),
        }

    def _closed(self) -> Updates:
        return {self.form: gr.Column(visible=False), self.draft: "", self.problem: "", self.file: None}


def _columns(text: str | None, label: str | None) -> dict[str, str]:
    return {role: column for role, column in (("text", text), ("label", label)) if column}


def _examples(draft: Draft, columns: Mapping[str, str]) -> list[Any]:
    """The rows, or none while the columns are not what they should be: `look` says why."""
    try:
        return read_examples(draft, columns)
    except DataError:
        return []


def _guessed(draft: Draft, columns: Mapping[str, str], language: Language) -> str:
    roles = [role for role, column in columns.items() if draft.guess.get(role) == column]
    said = [f"{say(language, f'data_{role}_column')}: {say(language, 'data_guessed')}" for role in roles]
    facts = say(
        language, "data_file_facts", rows=f"{len(draft.table.rows):,}", columns=str(len(draft.table.columns))
    )
    lacking = [role for role in ("text", "label") if role not in columns]
    asked = [f"{say(language, f'data_{role}_column')}: {say(language, 'data_choose')}" for role in lacking]
    return cards.hint(" · ".join([facts, *said])) + "".join(map(cards.error, asked))


def _templates(chosen: str) -> Any:
    """The prompts in the language of the chosen one."""
    language = PromptTemplate.load(chosen).language
    names = [name for name in packaged_templates() if PromptTemplate.load(name).language == language]
    return gr.Dropdown(names, value=chosen)


def _item(stored: Stored, language: Language) -> str:
    rows = f"{sum(stored.rows.values()):,}"
    return say(language, "data_item", name=stored.name, rows=rows, labels=str(len(stored.labels)))


def _dropdown(key: str) -> gr.Dropdown:
    return gr.Dropdown([], label=i18n(key), interactive=True, min_width=170)
