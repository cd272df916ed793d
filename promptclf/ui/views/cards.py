"""What answers look like: HTML built from escaped text."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

from promptclf.ui.core.answer import Answer
from promptclf.ui.words import Language, say

SHOWN = 5
CONFIDENT, LIKELY = 0.75, 0.5


def answer_card(
    answer: Answer,
    language: Language = "en",
    *,
    heading: str | None = None,
    actions: str = "",
    part: str = "",
) -> str:
    """Label, how sure the mode is, a bar for each of the most probable labels, mode and time.

    Parameters
    ----------
    answer
        What to show.
    language
        Of the words around it.
    heading
        Stands above the label, in place of the mode's name below it.
    actions, part
        HTML for the foot of the card, and below it.
    """
    top = answer.probabilities[answer.label]
    shown = list(answer.probabilities.items())[:SHOWN]
    bars = "".join(_bar(label, p, leads=number == 0) for number, (label, p) in enumerate(shown))
    if more := len(answer.probabilities) - len(shown):
        rest = max(0.0, 1 - sum(p for _, p in shown))
        words = escape(say(language, "card_more", count=more))
        bars += f'<li class="pc-rest"><span>{words}</span><span></span><b>{percent(rest)}</b></li>'
    meta = [] if heading else [say(language, f"mode_{answer.mode}")]
    meta.append(duration(answer.milliseconds))
    if answer.truncated:
        meta.append(say(language, "card_cut"))
    name = escape(say(language, "card_answer", label=answer.label))
    return (
        f'<article class="pc-card" aria-label="{name}">{_heading(heading)}'
        f'<h3 dir="auto">{escape(answer.label)} {_pill(top, language)}</h3><ul class="pc-bars">{bars}</ul>'
        f'<div class="pc-foot"><p class="pc-meta">{escape(" · ".join(meta))}</p>{actions}</div>'
        f"{part}</article>"
    )


def note_card(message: str, *, heading: str | None = None) -> str:
    """Why there is no answer."""
    return (
        f'<article class="pc-card pc-note">{_heading(heading)}<p dir="auto">{escape(message)}</p></article>'
    )


def waiting_card(message: str, *, heading: str | None = None, labels: int = SHOWN) -> str:
    """An answer to come, as high as the answer will be: `labels` of them to choose from."""
    rows = min(labels, SHOWN) + (labels > SHOWN)
    return (
        f'<article class="pc-card pc-waiting" aria-busy="true">{_heading(heading)}<i></i>'
        f'{"<i></i>" * rows}<div class="pc-foot"><p class="pc-meta">{escape(message)}</p></div></article>'
    )


def side_by_side(cards: Sequence[str], sentence: str) -> str:
    """Cards next to each other under a sentence about them."""
    lead = f'<p class="pc-sentence" role="status" dir="auto">{escape(sentence)}</p>'
    return f'{lead}<section class="pc-columns">{"".join(cards)}</section>'


def model_line(model: str) -> str:
    """The model behind the answers."""
    return f'<p class="pc-meta">{escape(model)}</p>'


def empty(message: str) -> str:
    """What stands where answers will be."""
    return f'<p class="pc-empty">{escape(message)}</p>'


def hint(message: str) -> str:
    """A line of explanation."""
    return f'<p class="pc-hint">{escape(message)}</p>' if message else ""


def error(message: str) -> str:
    """What is wrong, beside what is wrong."""
    return f'<p class="pc-error" role="alert" dir="auto">{escape(message)}</p>' if message else ""


def progress(done: int, of: int, message: str) -> str:
    """A bar that fills, and a line about it."""
    share = 100 * done / max(1, of)
    return (
        f'<div class="pc-progress" role="progressbar" aria-valuenow="{done}" aria-valuemin="0" '
        f'aria-valuemax="{of}" aria-label="{escape(message)}"><span style="width:{share:.1f}%"></span></div>'
        f'<p class="pc-meta">{escape(message)}</p>'
    )


def shares(counts: Iterable[tuple[str, int]], of: int) -> str:
    """How often each label was given, as bars."""
    rows = "".join(
        f'<li><span dir="auto" title="{escape(label)}">{escape(label)}</span>{_track(count / max(1, of))}'
        f"<b>{count}</b></li>"
        for label, count in counts
    )
    return f'<ul class="pc-bars">{rows}</ul>'


def percent(p: float) -> str:
    """A share; what is not quite 0 or 1 is not shown as such."""
    return "&lt;1%" if 0 < p < 0.005 else "&gt;99%" if 0.995 <= p < 1 else f"{p:.0%}"


def duration(milliseconds: float) -> str:
    """A time in the unit that suits it."""
    return f"{milliseconds:.0f} ms" if milliseconds < 1000 else f"{milliseconds / 1000:.1f} s"


def _heading(text: str | None) -> str:
    return f'<p class="pc-heading">{escape(text)}</p>' if text else ""


def _bar(label: str, p: float, *, leads: bool) -> str:
    kind = ' class="pc-lead"' if leads else ""
    name = escape(label)
    return f'<li{kind}><span dir="auto" title="{name}">{name}</span>{_track(p)}<b>{percent(p)}</b></li>'


def _track(share: float) -> str:
    return f'<span class="pc-track" aria-hidden="true"><span style="width:{100 * share:.1f}%"></span></span>'


def _pill(p: float, language: Language) -> str:
    kind = "sure" if p >= CONFIDENT else "fair" if p >= LIKELY else "low"
    why = escape(say(language, f"pill_{kind}_why"))
    return f'<span class="pc-pill pc-{kind}" title="{why}">{escape(say(language, f"pill_{kind}"))}</span>'
