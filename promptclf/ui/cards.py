"""What answers look like: HTML built from escaped text."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

from promptclf.ui.service import TITLES, Answer

SHOWN = 5
CONFIDENT, LIKELY = 0.75, 0.5


def answer_card(answer: Answer, *, heading: str | None = None) -> str:
    """Label, how sure the mode is, a bar for each of the most probable labels, mode and time."""
    top = answer.probabilities[answer.label]
    shown = list(answer.probabilities.items())[:SHOWN]
    bars = "".join(_bar(label, p, leads=number == 0) for number, (label, p) in enumerate(shown))
    if more := len(answer.probabilities) - len(shown):
        rest = max(0.0, 1 - sum(p for _, p in shown))
        bars += f'<li class="pc-rest"><span>{more} more</span><span></span><b>{_percent(rest)}</b></li>'
    meta = [] if heading else [TITLES[answer.mode]]
    meta.append(_duration(answer.milliseconds))
    if answer.truncated:
        meta.append("only the beginning was read")
    return (
        f'<article class="pc-card" aria-label="Answer: {escape(answer.label)}">{_heading(heading)}'
        f'<h3 dir="auto">{escape(answer.label)} {_pill(top)}</h3><ul class="pc-bars">{bars}</ul>'
        f'<p class="pc-meta">{escape(" · ".join(meta))}</p></article>'
    )


def note_card(message: str, *, heading: str | None = None) -> str:
    """Why there is no answer."""
    return (
        f'<article class="pc-card pc-note">{_heading(heading)}<p dir="auto">{escape(message)}</p></article>'
    )


def waiting_card(message: str, *, heading: str | None = None) -> str:
    """An answer to come."""
    return (
        f'<article class="pc-card pc-waiting" aria-busy="true">{_heading(heading)}'
        f'<i></i><i></i><i></i><p class="pc-meta">{escape(message)}</p></article>'
    )


def thread(turns: Iterable[tuple[str, str]]) -> str:
    """A conversation: what was asked, as text, and the card for it, as HTML."""
    rows = [f'<p class="pc-asked" dir="auto">{escape(text)}</p>{card}' for text, card in turns]
    return f'<section class="pc-thread" role="log" aria-label="Answers">{"".join(rows)}</section>'


def side_by_side(cards: Sequence[str], sentence: str) -> str:
    """Cards next to each other under a sentence about them."""
    lead = f'<p class="pc-sentence" role="status" dir="auto">{escape(sentence)}</p>'
    return f'{lead}<section class="pc-columns">{"".join(cards)}</section>'


def header(model: str) -> str:
    """The app's name, what it is for, and the model behind it."""
    return (
        '<header class="pc-header"><h1>promptclf</h1><p>Is a prompt enough, do a few examples help, '
        f'or should I fine-tune?</p><p class="pc-meta">{escape(model)}</p></header>'
    )


def empty(message: str) -> str:
    """What stands where answers will be."""
    return f'<p class="pc-empty">{escape(message)}</p>'


def hint(message: str) -> str:
    """A line of explanation."""
    return f'<p class="pc-hint">{escape(message)}</p>'


def label_list(labels: Sequence[str]) -> str:
    """The labels of a task."""
    items = "".join(f"<li>{escape(label)}</li>" for label in labels)
    return f'<p class="pc-legend">{len(labels)} labels</p><ul class="pc-labels">{items}</ul>'


def _heading(text: str | None) -> str:
    return f'<p class="pc-heading">{escape(text)}</p>' if text else ""


def _bar(label: str, p: float, *, leads: bool) -> str:
    kind = "pc-lead" if leads else ""
    name = escape(label)
    return (
        f'<li class="{kind}"><span dir="auto" title="{name}">{name}</span>'
        f'<span class="pc-track" aria-hidden="true"><span style="width:{100 * p:.1f}%"></span></span>'
        f"<b>{_percent(p)}</b></li>"
    )


def _pill(p: float) -> str:
    kind, words = (
        ("sure", "confident") if p >= CONFIDENT else ("fair", "likely") if p >= LIKELY else ("low", "unsure")
    )
    return f'<span class="pc-pill pc-{kind}">{words}</span>'


def _percent(p: float) -> str:
    text = "&lt;1%" if 0 < p < 0.005 else "&gt;99%" if 0.995 <= p < 1 else f"{p:.0%}"
    return text


def _duration(milliseconds: float) -> str:
    return f"{milliseconds:.0f} ms" if milliseconds < 1000 else f"{milliseconds / 1000:.1f} s"
