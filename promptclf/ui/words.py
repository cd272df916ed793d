"""The words of the page, in English and Chinese.

Words of components are translated in the browser (`i18n`), words in HTML that the server makes are
translated here (`say`). Both follow the language that the browser asks for.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Literal

import gradio as gr
import yaml

Language = Literal["en", "zh"]


def _read(language: str) -> Mapping[str, str]:
    path = Path(__file__).with_name("locales") / f"{language}.yaml"
    quick = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # where PyYAML was built with libyaml: ten times
    return MappingProxyType(yaml.load(path.read_text(encoding="utf-8"), quick))


WORDS: Mapping[str, Mapping[str, str]] = MappingProxyType({"en": _read("en"), "zh": _read("zh")})

i18n = gr.I18n(en=dict(WORDS["en"]), zh=dict(WORDS["zh"]))


def say(language: Language, key: str, **values: object) -> str:
    """The words for `key` with ``{name}`` replaced by its value, once. The result is text, not HTML.

    Raises
    ------
    KeyError
        If there are no words for `key`.
    """
    words = WORDS[language][key]
    if not values:
        return words
    pieces = words.split("{")
    filled = [pieces[0]]
    for piece in pieces[1:]:
        name, closed, rest = piece.partition("}")
        filled.append(f"{values[name]}{rest}" if closed and name in values else f"{{{piece}")
    return "".join(filled)


def language_of(request: gr.Request | None) -> Language:
    """The language of a visitor: Chinese if it is the first that the browser asks for, else English.

    The page itself goes by the browser's first language too, so that the two do not mix.
    """
    asked = "" if request is None else str(getattr(request, "headers", {}).get("accept-language", ""))
    first = asked.partition(",")[0].partition(";")[0].strip().lower()
    return "zh" if first == "zh" or first.startswith("zh-") else "en"


def sentences(language: Language, *parts: str) -> str:
    """Sentences as one text: Chinese has no space between them."""
    return ("" if language == "zh" else " ").join(parts)
