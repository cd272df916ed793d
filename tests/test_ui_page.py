"""What the page shows: words in two languages, cards, and the conversation, with nothing unescaped."""

from __future__ import annotations

import re
import string
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from promptclf.schema import MAX_CHARS
from promptclf.task import Example
from promptclf.ui.core.answer import Answer, Explanation
from promptclf.ui.core.conversation import KEPT, History, Turn
from promptclf.ui.core.service import Question
from promptclf.ui.page import panel
from promptclf.ui.views import cards, thread
from promptclf.ui.words import WORDS, language_of, say
from visitors import COLOURS, asking

UI = Path(__file__).parent.parent / "promptclf" / "ui"
NASTY = [
    "<img src=x onerror=alert(1)>",
    "</article><script>alert(1)</script>",
    '" onmouseover="alert(1)',
    "' autofocus onfocus='alert(1)",
    "&lt;b&gt; {{7*7}} ${7*7} <!-- -->",
    "{label} {count} {mode}",
]
INFO = {
    "name": "embedded",
    "source": "tests",
    "revision": "0",
    "quantization": "none",
    "requested_quantization": "none",
    "device": "cpu",
    "dtype": "float32",
}


def make_answer(label: str = "refund", mode: str = "lora", **changes: Any) -> Answer:
    values: dict[str, Any] = {
        "label": label,
        "probabilities": {label: 0.6, "other": 0.4},
        "mode": mode,
        "milliseconds": 12.34,
        "truncated": False,
        "model": INFO,
    }
    return Answer(**{**values, **changes})


# ---- words ---------------------------------------------------------------------------------------


def test_both_languages_have_the_same_words() -> None:
    assert set(WORDS["en"]) == set(WORDS["zh"])
    for key, words in WORDS["en"].items():
        other = WORDS["zh"][key]
        assert isinstance(words, str) and words.strip() == words != "", key
        assert isinstance(other, str) and other.strip() == other != "", key
        assert _names(words) == _names(other), key


def _names(text: str) -> set[str]:
    return {name for _, name, _, _ in string.Formatter().parse(text) if name}


def test_every_key_in_the_code_has_words() -> None:
    used = re.compile(r"""(?:say\(\s*\w+,|i18n\()\s*f?["']([\w-]+)["']""")
    found = {key for path in UI.rglob("*.py") for key in used.findall(path.read_text(encoding="utf-8"))}
    assert len(found) > 50
    assert found <= set(WORDS["en"])


@pytest.mark.parametrize("nasty", NASTY)
def test_what_is_filled_in_is_not_filled_again(nasty: str) -> None:
    assert say("en", "agree_all_two", label=nasty) == f"Both modes say “{nasty}”."
    assert say("en", "agree_all_two") == "Both modes say “{label}”."
    with pytest.raises(KeyError):
        say("en", "no such key")


@pytest.mark.parametrize(
    ("asked", "language"),
    [
        ("zh-CN,zh;q=0.9,en;q=0.8", "zh"),
        ("zh", "zh"),
        ("ZH-tw", "zh"),
        ("en-GB,zh;q=0.9", "en"),
        ("de", "en"),
        ("zhx", "en"),
        ("", "en"),
        ("; ,,", "en"),
    ],
)
def test_the_language_follows_the_browser(asked: str, language: str) -> None:
    assert language_of(asking(asked)) == language
    assert language_of(None) == "en"


# ---- cards ---------------------------------------------------------------------------------------


class Elements(HTMLParser):
    """Collects tags, attribute names and text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: set[str] = set()
        self.text = ""
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes.update(name for name, _ in attrs)

    def handle_data(self, data: str) -> None:
        self.text += data


TAGS = {
    *("article", "section", "div", "p", "h3", "h4", "ul", "ol", "li", "span", "b", "i", "pre", "mark"),
    *("button", "label", "select", "option"),
}
ATTRIBUTES = {
    *("class", "dir", "title", "style", "role", "tabindex", "type", "id", "for", "value"),
    *("aria-label", "aria-hidden", "aria-busy", "aria-expanded", "aria-controls"),
    *("aria-valuenow", "aria-valuemin", "aria-valuemax"),
    *("data-act", "data-turn", "data-copy", "data-done", "data-state", "data-live"),
}


def opened(text: str, part: str) -> Turn:
    """A turn in which everything that a user writes is `text`."""
    answer = make_answer(text, probabilities={text: 0.5, f"{text}!": 0.5})
    turn = Turn(1, text, "few-shot", "own", Question(text, COLOURS, None), answer, opened=part)
    turn.why = Explanation(text, text, 3, (Example(text, text),), ((text, 1.0), (text, -0.5)))
    turn.trouble = text
    return turn


@pytest.mark.parametrize("nasty", NASTY)
def test_user_text_stays_text(nasty: str) -> None:
    saved = opened(nasty, "wrong")
    saved.saved = nasty
    turns = [opened(nasty, "why"), opened(nasty, "wrong"), saved, Turn(4, nasty, "lora", note=nasty)]
    for html in (
        cards.answer_card(make_answer(nasty)),
        cards.answer_card(make_answer(nasty), heading=nasty),
        cards.note_card(nasty, heading=nasty),
        cards.waiting_card(nasty, heading=nasty),
        cards.side_by_side([], nasty),
        cards.empty(nasty),
        cards.hint(nasty),
        cards.error(nasty),
        cards.model_line(nasty),
        cards.progress(1, 2, nasty),
        cards.shares([(nasty, 1)], 2),
        panel.summary_line(nasty, "lora", 3, "en"),
        thread.words([(nasty, 1.0), (nasty, 0.0)]),
        thread.prompt(nasty),
        *(thread.render(History(turns=_some([turn])), "en") for turn in turns),
    ):
        found = Elements(html)
        assert found.tags <= TAGS
        assert found.attributes <= ATTRIBUTES
        assert nasty in found.text


def _some(turns: list[Turn]) -> Any:
    history = History()
    history.turns.extend(turns)
    return history.turns


@pytest.mark.parametrize(("language", "more"), [("en", "2 more4%"), ("zh", "其余 2 个4%")])
def test_a_card_shows_the_five_most_probable_labels(language: Any, more: str) -> None:
    shares = {"a": 0.45, "b": 0.2, "c": 0.15, "d": 0.1, "e": 0.06, "f": 0.039, "g": 0.001}
    answer = make_answer("a", "few-shot", probabilities=shares, milliseconds=1234)
    card = cards.answer_card(answer, language)
    text = Elements(card).text
    assert card.count('class="pc-track"') == 5
    assert more in text
    assert say(language, "pill_low") in text
    assert f"{say(language, 'mode_few-shot')} · 1.2 s" in text
    assert "width:45.0%" in card
    assert cards.waiting_card("x", labels=7).count("<i>") == 1 + 5 + 1  # as many lines as will come
    assert cards.waiting_card("x", labels=2).count("<i>") == 1 + 2


@pytest.mark.parametrize(
    ("p", "words", "share"),
    [
        (0.97, "confident", "97%"),
        (0.6, "likely", "60%"),
        (0.3, "unsure", "30%"),
        (0.9999, "confident", ">99%"),
    ],
)
def test_how_sure_an_answer_is(p: float, words: str, share: str) -> None:
    text = Elements(cards.answer_card(make_answer("a", probabilities={"a": p, "b": 1 - p}))).text
    assert words in text
    assert share in text


# ---- the conversation ----------------------------------------------------------------------------


def test_colours_follow_the_weights() -> None:
    html = thread.words([("my", 0.0), (" ", 0.0), ("parcel", 2.0), (" ", 0.0), ("broke", -1.0), ("!", 0.01)])
    assert Elements(html).text == "my parcel broke!"
    assert re.findall(r'class="pc-(\w+)" style="--w:(\d+)%"', html) == [("for", "100"), ("against", "56")]
    assert Elements(thread.words([("a", 0.0)])).tags == set()
    assert thread.words([]) == ""


def test_a_card_opens_one_part_at_a_time() -> None:
    turn = opened("hello", "")
    closed = thread.render(History(turns=_some([turn])), "en")
    assert closed.count('aria-expanded="false"') == 2
    assert "pc-part" not in closed
    turn.opened = "why"
    why = thread.render(History(turns=_some([turn])), "en")
    assert why.count("pc-part") == 1
    assert 'aria-expanded="true"' in why
    turn.why = None
    assert "Leaving out one word" in thread.render(History(turns=_some([turn])), "en")
    turn.opened = "wrong"
    wrong = thread.render(History(turns=_some([turn])), "en", lost=True)
    assert re.findall(r'<option value="(.*?)"', wrong) == ["hello!"]  # not the label that was given
    assert "Stored on this server until you delete it" in wrong
    assert "forgets" in wrong
    assert "forgets" not in thread.render(History(turns=_some([turn])), "en")


def test_a_conversation_is_bounded() -> None:
    history = History()
    for number in range(KEPT + 5):
        history.add(f"text {number}", "lora")
    assert len(history.turns) == KEPT
    assert history.find(5) is None
    assert history.find(KEPT + 5) is history.turns[-1]
    assert history.find("6") is None
    history.stop("enough")
    assert {turn.note for turn in history.turns} == {"enough"}
    assert len(history.add("x" * MAX_CHARS, "lora").text) < 2_010


# ---- the code ------------------------------------------------------------------------------------


def test_the_page_asks_no_other_machine() -> None:
    for path in [*UI.rglob("*.css"), *UI.rglob("*.js")]:
        text = path.read_text(encoding="utf-8")
        for outside in ("http:", "https:", "@import", "url(", "eval("):
            assert outside not in text, path.name
    for path in UI.rglob("*.css"):
        text = path.read_text(encoding="utf-8")
        # Other weights of the fonts have no file.
        assert set(re.findall(r"font-weight: (\w+)", text)) <= {"400", "700"}
        assert text.count("{") == text.count("}"), path.name
