"""Many texts: a file goes in, is classified in one mode or in all of them, and comes out with labels."""

from __future__ import annotations

import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

import gradio as gr

from promptclf.classifiers.selection import joined
from promptclf.data.csv_safe import write_rows
from promptclf.data.reading import Table
from promptclf.data.tables import Inputs, line_inputs, render_csv, table_inputs
from promptclf.errors import DataError
from promptclf.modes import MODES
from promptclf.schema import MAX_FILE_ROWS
from promptclf.task import Prediction
from promptclf.ui.core.service import Question
from promptclf.ui.core.upload import SUFFIXES, guess_columns, read_upload
from promptclf.ui.page.context import Context
from promptclf.ui.page.panel import unchecked
from promptclf.ui.page.shared import QUICK, chosen, source_of, trouble
from promptclf.ui.views import cards
from promptclf.ui.words import Language, i18n, language_of, say

SHOWN_LABELS = 8
# Long work waits for its like, not for single answers.
WORKING: dict[str, Any] = {**QUICK, "queue": True, "concurrency_limit": 2, "concurrency_id": "files"}


@dataclass
class Batch:
    """A visitor's file, read and deleted, until the page is left. Changed in place.

    `run` counts starts and stops: work that was started before the newest of them ends.
    """

    name: str = ""
    table: Table | None = None
    lines: Inputs | None = None
    run: int = 0

    def inputs(self, column: str | None) -> Inputs:
        """The texts, of one column where there are several.

        Raises
        ------
        DataError
            If there is no file, or no such column.
        """
        if self.lines is not None:
            return self.lines
        if self.table is None:
            raise DataError("file: expected one, got none; choose a file first")
        if column not in self.table.columns:
            raise DataError(f"column: expected one of {list(self.table.columns)}, got {column!r:.60}")
        return table_inputs(self.table, {"text": str(column)})


class Files:
    """Handlers of the events; with `all_modes` a file goes through every mode that can answer."""

    def __init__(self, context: Context, all_modes: bool) -> None:
        self.service, self.all_modes = context.service, all_modes

    def read(self, path: str | None, batch: Batch, request: gr.Request) -> tuple[Any, ...]:
        """Read an uploaded file and delete it."""
        language = language_of(request)
        batch.run += 1
        batch.table = batch.lines = None
        nothing = gr.Dropdown(visible=False), gr.Button(interactive=False)
        if path is None:
            return "", *nothing, "", gr.DownloadButton(visible=False)
        file = Path(path)
        try:
            batch.name = file.name
            columns, guess = _load(file, batch)
        except Exception as error:
            return cards.error(trouble(error, language)), *nothing, "", gr.DownloadButton(visible=False)
        finally:
            file.unlink(missing_ok=True)
        count = len(batch.lines.rows if batch.lines else batch.table.rows if batch.table else ())
        about = cards.hint(say(language, "files_read", name=batch.name, count=f"{count:,}"))
        picked = gr.Dropdown(columns, value=guess, visible=len(columns) > 1)
        return about, picked, gr.Button(interactive=True), "", gr.DownloadButton(visible=False)

    def work(
        self,
        batch: Batch,
        column: str | None,
        mode: str,
        task: str,
        labels: str,
        adapter: str | None,
        token: Any,
        request: gr.Request,
    ) -> Iterator[tuple[Any, ...]]:
        """Classify the file; yields the progress, the buttons, and at the end the file to download."""
        language = language_of(request)
        batch.run += 1
        running = gr.Button(interactive=False), gr.Button(visible=True)
        idle = gr.Button(interactive=True), gr.Button(visible=False)
        hidden = gr.DownloadButton(visible=False)
        try:
            inputs = batch.inputs(column)
            options = chosen(self.service, task, labels, adapter, token)
            question = self.service.question("x", mode, **options)
            modes = [mode]
            if self.all_modes:
                modes = [m for m in MODES if self.service.unavailable(m, source_of(options)) is None]
            yield cards.progress(0, len(inputs.texts), say(language, "card_preparing")), *running, hidden
            run, start, count = batch.run, time.monotonic(), 0
            done: dict[str, list[Prediction]] = {}
            total = len(inputs.texts) * len(modes)
            for part, part_mode in self._predict(inputs, question, modes):
                if batch.run != run:  # the thread of a cancelled event goes on until it is told
                    return
                done.setdefault(part_mode, []).extend(part)
                count += len(part)
                left = _left((time.monotonic() - start) * (total - count) / count)
                words = say(language, "files_progress", done=count, of=total, left=left)
                yield cards.progress(count, total, words), *running, hidden
            took = cards.duration(1000 * (time.monotonic() - start))
            with tempfile.TemporaryDirectory() as folder:  # gradio takes a copy with the yield
                out = Path(folder) / f"{Path(batch.name).stem}-labels.csv"
                out.write_text(_render(inputs, done), encoding="utf-8", newline="")
                shown = summary(done, took, language)
                yield shown, *idle, gr.DownloadButton(value=str(out), visible=True)
        except Exception as error:
            yield cards.error(trouble(error, language)), *idle, hidden

    def stop(self, batch: Batch, request: gr.Request) -> tuple[Any, ...]:
        """End the work."""
        batch.run += 1
        told = cards.hint(say(language_of(request), "files_stopped"))
        return told, gr.Button(interactive=True), gr.Button(visible=False)

    def _predict(
        self, inputs: Inputs, question: Question, modes: Sequence[str]
    ) -> Iterator[tuple[list[Prediction], str]]:
        """Some predictions at a time, and the mode they are of."""
        texts = [joined(text) for text in inputs.texts]
        for mode in modes:
            for part in self.service.classify_many(texts, mode, question):
                yield part, mode


def summary(done: Mapping[str, Sequence[Prediction]], took: str, language: Language) -> str:
    """What came out: how often each label, or how often the modes agree."""
    labels = {mode: [p.label for p in predictions] for mode, predictions in done.items()}
    rows = len(next(iter(labels.values())))
    if len(labels) == 1:
        counts = Counter(next(iter(labels.values()))).most_common(SHOWN_LABELS)
        bars = cards.shares(counts, rows)
        sentence = say(language, "files_done", count=f"{rows:,}", took=took)
        return f'<p class="pc-sentence">{escape(sentence)}</p>{bars}'
    same = sum(len(set(given)) == 1 for given in zip(*labels.values(), strict=True))
    sentence = say(language, "files_agree", same=f"{same:,}", count=f"{rows:,}", took=took)
    blocks = "".join(
        f'<article class="pc-card"><p class="pc-heading">{escape(say(language, f"mode_{mode}"))}</p>'
        f"{cards.shares(Counter(given).most_common(SHOWN_LABELS), rows)}</article>"
        for mode, given in labels.items()
    )
    return f'<p class="pc-sentence">{escape(sentence)}</p><section class="pc-columns">{blocks}</section>'


def file_part(context: Context, *, all_modes: bool) -> None:
    """Place and connect the components."""
    files, panel, token = Files(context, all_modes), context.panel, context.token
    batch = gr.State(Batch(), time_to_live=3600)
    gr.HTML(i18n("files_what_all" if all_modes else "files_what"), elem_classes="pc-hint")
    with gr.Row(elem_classes="pc-bar pc-chosen"):
        upload = gr.UploadButton(
            str(i18n("files_file")), file_types=[*SUFFIXES, ".txt"], size="md", scale=0, min_width=160
        )
        about = gr.HTML("")
    column = gr.Dropdown([], label=i18n("files_column"), filterable=False, interactive=True, visible=False)
    unchecked(column)
    with gr.Row(elem_classes="pc-bar"):
        start = gr.Button(i18n("files_start"), variant="primary", interactive=False, scale=0, min_width=160)
        stop = gr.Button(i18n("do_stop"), variant="secondary", visible=False, scale=0, min_width=100)
        download = gr.DownloadButton(str(i18n("files_download")), visible=False, scale=0, min_width=180)
    progress = gr.HTML("")
    upload.upload(files.read, [upload, batch], [about, column, start, progress, download], **QUICK)
    inputs = [batch, column, panel.mode, *panel.chosen, token]
    work = start.click(files.work, inputs, [progress, start, stop, download], **WORKING)
    stop.click(files.stop, batch, [progress, start, stop], cancels=[work], **QUICK)


def _load(file: Path, batch: Batch) -> tuple[list[str], str | None]:
    """Fill the batch; returns the columns to choose from and the likely one."""
    if file.suffix.lower() == ".txt":
        batch.lines = line_inputs(file.read_bytes(), file.name)
        columns: list[str] = []
        guess, count = None, len(batch.lines.rows)
    else:
        batch.table = read_upload(file, file.name).table
        columns = list(batch.table.columns)
        guess = guess_columns(columns).get("text", columns[0] if columns else None)
        count = len(batch.table.rows)
    if not 0 < count <= MAX_FILE_ROWS:
        batch.table = batch.lines = None
        raise DataError(
            f"{file.name}: expected 1 to {MAX_FILE_ROWS:,} texts, got {count:,}; "
            "for more, use promptclf classify --file"
        )
    return columns, guess


def _render(inputs: Inputs, done: Mapping[str, Sequence[Prediction]]) -> str:
    if len(done) == 1:
        return render_csv(inputs, next(iter(done.values())))
    rows = [[*inputs.columns, *(name for mode in done for name in (mode, f"p({mode})")), "agree"]]
    for number, row in enumerate(inputs.rows):
        found = [predictions[number] for predictions in done.values()]
        cells = [cell for p in found for cell in (p.label, f"{p.probabilities[p.label]:.6g}")]
        same = "yes" if len({p.label for p in found}) == 1 else "no"
        rows.append([*(row.get(column, "") for column in inputs.columns), *cells, same])
    return write_rows(rows)


def _left(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min"
