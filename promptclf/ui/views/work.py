"""Long work as it stands on the page: how far it is, and how it ended."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from html import escape
from typing import Any

from promptclf.jobs.store import Job
from promptclf.ui.views import cards
from promptclf.ui.words import Language, say

Event = Mapping[str, Any]
Events = Sequence[Event]


def ended_card(job: Job, language: Language) -> str:
    """Why there is no result: the job failed, was cancelled or interrupted."""
    message = say(language, f"work_{job.state}", error=job.error or "")
    state = say(language, f"work_state_{job.state}")
    return cards.note_card(message, heading=state[:1].upper() + state[1:])


def queued_card(events: Events, language: Language) -> str:
    """A job that waits for others."""
    ahead = next((event["ahead"] for event in reversed(events) if event.get("event") == "queued"), 0)
    key = "work_queued_next" if not ahead else "work_queued"
    return cards.waiting_card(say(language, key, ahead=str(ahead)), labels=2)


def when(moment: str) -> str:
    """A moment of the store, to the minute."""
    return f"{datetime.fromisoformat(moment):%Y-%m-%d %H:%M} UTC"


def since(moment: str | None) -> float:
    """Seconds since a moment of the store."""
    return 0.0 if moment is None else (datetime.now(UTC) - datetime.fromisoformat(moment)).total_seconds()


def spent(seconds: float, language: Language) -> str:
    """A time in words, in no more detail than helps."""
    if seconds < 90:
        return say(language, "work_seconds", count=f"{max(1, round(seconds))}")
    if seconds < 5400:
        return say(language, "work_minutes", count=f"{round(seconds / 60)}")
    return say(language, "work_hours", count=f"{seconds / 3600:.1f}")


def strip(facts: Sequence[tuple[str, str]], share: float, label: str) -> str:
    """Figures side by side, over a bar that fills from 0 to 1."""
    items = "".join(f"<div><dt>{escape(name)}</dt><dd>{escape(value)}</dd></div>" for name, value in facts)
    width = 100 * min(1.0, share)
    return (
        f'<dl class="pw-strip">{items}</dl><div class="pc-progress" role="progressbar" aria-valuemin="0"'
        f' aria-valuemax="100" aria-valuenow="{width:.0f}" aria-label="{escape(label)}">'
        f'<span style="width:{width:.1f}%"></span></div>'
    )
