"""What is kept of sessions: the same as gradio would keep, and nothing of another session."""

from __future__ import annotations

import asyncio
import copy
from typing import Any

import gradio as gr
import pytest
from gradio.blocks import BlocksConfig
from gradio.state_holder import SessionState

from promptclf.ui.web.sessions import KnownConfig


@pytest.fixture
def blocks() -> gr.Blocks:
    async def build() -> gr.Blocks:  # gradio wants a loop that runs
        with gr.Blocks() as blocks:
            gr.Textbox("first", label="text")
            gr.Dropdown(["a", "b"], value="a")
            gr.State([])
        return blocks

    return asyncio.run(build())


def values(session: SessionState) -> dict[int, Any]:
    return dict(session.config_values)


def test_a_session_knows_what_it_did(blocks: gr.Blocks) -> None:
    before = values(SessionState(blocks))
    page = blocks.default_config.get_config()
    KnownConfig.replace(blocks)
    assert isinstance(copy.copy(blocks.default_config), KnownConfig)
    for _ in range(2):
        assert values(SessionState(blocks)) == before
    assert blocks.default_config.get_config() == page


def test_components_are_asked_once(blocks: gr.Blocks, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    ask = BlocksConfig.config_for_block

    def counting(_id: int, *others: Any) -> dict[str, Any]:
        asked.append(_id)
        return ask(_id, *others)

    monkeypatch.setattr(BlocksConfig, "config_for_block", staticmethod(counting))
    KnownConfig.replace(blocks)
    for _ in range(3):
        SessionState(blocks)
    assert sorted(asked) == sorted(blocks.blocks)


def test_what_one_session_changes_no_other_sees(blocks: gr.Blocks) -> None:
    KnownConfig.replace(blocks)
    mine, other = SessionState(blocks), SessionState(blocks)
    key = next(key for key, block in blocks.blocks.items() if isinstance(block, gr.Textbox))
    mine._update_value_in_config(key, "secret")
    mine[key] = gr.Textbox("another", label="text")
    mine._update_config(key)
    assert mine.config_values[key]["props"]["value"] == "another"
    for session in (other, SessionState(blocks)):
        assert session.config_values[key]["props"]["value"] == "first"
        assert session[key] is blocks.blocks[key]
