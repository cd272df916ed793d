"""Who is asking: an address, or a secret token that the browser keeps and the owner it stands for."""

from __future__ import annotations

import os
import re
import secrets
from pathlib import Path
from typing import Any

import gradio as gr
from gradio.context import LocalContext

from promptclf.errors import PromptClfError
from promptclf.jobs.store import new_token, owner_of

STORAGE_KEY = "promptclf-owner"
_TOKEN = re.compile(r"[A-Za-z0-9_-]{32}")


def token_state(folder: Path) -> gr.BrowserState:
    """The component that keeps the token in the browser, readable after a restart of the server."""
    return gr.BrowserState(None, storage_key=STORAGE_KEY, secret=_secret(folder))


def known_token(token: Any) -> str:
    """The token if it is one, else a new one: what the page asks for when it is loaded."""
    return token if isinstance(token, str) and _TOKEN.fullmatch(token) else new_token()


def owner(token: Any) -> str:
    """The owner that a token stands for.

    Raises
    ------
    PromptClfError
        If it is no token.
    """
    found = owner_or_none(token)
    if found is None:
        raise PromptClfError("token: expected the one this page was given, got another; reload the page")
    return found


def owner_or_none(token: Any) -> str | None:
    """The owner that a token stands for, or None: a page that is not yet loaded has none."""
    return owner_of(token) if isinstance(token, str) and _TOKEN.fullmatch(token) else None


def asker() -> str:
    """Who waits for the answer of this thread, so that people can take turns: a login name or an address.

    A token will not do: whoever makes up a new one for each call would be many.
    """
    request = LocalContext.request.get(None)
    if request is None:
        return ""
    return request.username or (request.client.host if request.client else "")


def _secret(folder: Path) -> str:
    """What the browser's storage is encrypted with: made once, so that tokens survive a restart."""
    path = folder / "browser.key"
    if not path.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        stage = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
        stage.touch(mode=0o600)
        stage.write_text(secrets.token_urlsafe(24), encoding="ascii")
        try:
            os.link(stage, path)  # unlike a rename, it does not replace what another process just made
        except FileExistsError:
            pass
        finally:
            stage.unlink()
    return path.read_text(encoding="ascii")
