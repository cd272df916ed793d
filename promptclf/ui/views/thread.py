"""How a conversation looks: what was asked, a card for each answer, and what can be opened in it."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from promptclf.ui.core.answer import Answer, Explanation
from promptclf.ui.core.conversation import History, Turn, shown
from promptclf.ui.views import cards
from promptclf.ui.words import Language, say

FAINT = 0.05  # of the strongest weight: a word below it gets no colour


def render(history: History, language: Language, *, loading: str = "", lost: bool = False) -> str:
    """The conversation as HTML.

    Parameters
    ----------
    history
        What to show.
    language
        Of the words around the texts.
    loading
        What to say about answers to come.
    lost
        Whether feedback is lost when the server restarts, which is then told.
    """
    turns = list(history.turns)
    if not turns:
        return cards.empty(say(language, "classify_welcome"))
    rows = "".join(_turn(turn, language, loading, lost) for turn in turns)
    newest = next((turn for turn in reversed(turns) if not turn.waits), None)
    spoken = "" if newest is None else _spoken(newest, language)
    state = f"{turns[-1].number}-{sum(turn.waits for turn in turns)}"  # the page scrolls when it changes
    return (
        f'<section class="pc-thread" aria-label="{escape(say(language, "classify_answers"))}" '
        f'data-state="{state}" data-live="{escape(spoken)}">{rows}</section>'
    )


def _turn(turn: Turn, language: Language, loading: str, lost: bool) -> str:
    if turn.answer is not None:
        part = ""
        if turn.opened == "why":
            part = _why(turn, language)
        elif turn.opened == "wrong":
            part = _wrong(turn, turn.answer, language, lost)
        actions = _actions(turn, turn.answer, language)
        card = cards.answer_card(turn.answer, language, actions=actions, part=part)
    elif turn.note is not None:
        card = cards.note_card(turn.note)
    else:
        labels = len(turn.question.task.labels) if turn.question else cards.SHOWN
        card = cards.waiting_card(loading or say(language, "card_reading"), labels=labels)
    return f'<p class="pc-asked" dir="auto">{escape(turn.text)}</p>{card}'


def _actions(turn: Turn, answer: Answer, language: Language) -> str:
    """The buttons of a card; the page tells a handler which was pressed, by ``data-act``."""
    lines = [f"{label}\t{p:.4f}" for label, p in answer.probabilities.items()]
    copied = "\n".join([turn.text, *lines])
    opens = "".join(
        f'<button type="button" class="pc-act" data-act="{act}" data-turn="{turn.number}" '
        f'aria-expanded="{str(turn.opened == act).lower()}">{escape(say(language, f"card_{act}"))}</button>'
        for act in ("why", "wrong")
    )
    words = f'data-done="{escape(say(language, "card_copied"))}" data-copy="{escape(copied)}"'
    copy = (
        f'<button type="button" class="pc-act" data-act="copy" data-turn="{turn.number}" {words}>'
        f"{escape(say(language, 'card_copy'))}</button>"
    )
    return f'<div class="pc-acts">{opens}{copy}</div>'


def _why(turn: Turn, language: Language) -> str:
    if turn.why is None:
        body = f'<p class="pc-meta" aria-busy="true">{escape(say(language, "why_waiting"))}</p>'
    elif isinstance(turn.why, str):
        body = cards.error(turn.why)
    else:
        body = _explanation(turn.why, turn.mode, language)
    return f'<section class="pc-part">{body}</section>'


def _explanation(why: Explanation, mode: str, language: Language) -> str:
    parts = [
        f"<h4>{escape(say(language, 'why_words', label=why.label))}</h4>",
        f'<p class="pc-words" dir="auto">{words(why.weights)}</p>',
        f'<p class="pc-meta"><mark class="pc-for" style="--w:100%">{escape(say(language, "why_for"))}</mark> '
        f'<mark class="pc-against" style="--w:100%">{escape(say(language, "why_against"))}</mark> '
        f"{escape(say(language, 'why_how'))}</p>",
    ]
    if why.examples:
        rows = "".join(
            f'<li dir="auto"><b>{escape(e.label)}</b> {escape(shown(e.text))}</li>' for e in why.examples
        )
        parts.append(f"<h4>{escape(say(language, 'why_examples'))}</h4><ol>{rows}</ol>")
    else:
        parts.append(f'<p class="pc-meta">{escape(say(language, f"why_none_{mode}"))}</p>')
    parts.append(f"<h4>{escape(say(language, 'why_prompt', tokens=why.tokens))}</h4>{prompt(why.prompt)}")
    return "".join(parts)


def words(weights: Sequence[tuple[str, float]]) -> str:
    """A text with each word coloured by its weight."""
    strongest = max((abs(weight) for _, weight in weights), default=0.0)
    pieces = []
    for piece, weight in weights:
        if strongest == 0 or abs(weight) < FAINT * strongest:
            pieces.append(escape(piece))
            continue
        kind = "for" if weight > 0 else "against"
        share = 12 + 88 * abs(weight) / strongest  # the faintest still shows
        pieces.append(
            f'<mark class="pc-{kind}" style="--w:{share:.0f}%" title="{weight:+.2f}">{escape(piece)}</mark>'
        )
    return "".join(pieces)


def prompt(text: str) -> str:
    """A prompt as the model sees it; long ones scroll, with the keyboard too."""
    return f'<pre class="pc-prompt" tabindex="0" dir="auto">{escape(text)}</pre>'


def _wrong(turn: Turn, answer: Answer, language: Language, lost: bool) -> str:
    if turn.saved is not None:
        told = escape(say(language, "wrong_saved", label=turn.saved))
        return (
            f'<section class="pc-part"><p dir="auto">{told} '
            f'<button type="button" class="pc-act" data-act="unsave" data-turn="{turn.number}">'
            f"{escape(say(language, 'wrong_delete'))}</button></p></section>"
        )
    labels = [label for label in answer.probabilities if label != answer.label]
    options = "".join(f'<option value="{escape(label)}">{escape(label)}</option>' for label in labels)
    told = say(language, "wrong_stored") + (f" {say(language, 'wrong_lost')}" if lost else "")
    field_id = f"pc-right-{turn.number}"
    return (
        f'<section class="pc-part"><label for="{field_id}">{escape(say(language, "wrong_which"))}</label>'
        f'<div class="pc-pick"><select id="{field_id}">{options}</select><button type="button" '
        f'class="pc-do" data-act="save" data-turn="{turn.number}">{escape(say(language, "wrong_save"))}'
        f'</button></div><p class="pc-meta">{escape(told)}</p>{cards.error(turn.trouble)}</section>'
    )


def _spoken(turn: Turn, language: Language) -> str:
    """What a screen reader says when an answer has come."""
    if turn.answer is None:
        return turn.note or ""
    share = f"{turn.answer.probabilities[turn.answer.label]:.0%}"
    return f"{say(language, 'card_answer', label=turn.answer.label)}, {share}"
