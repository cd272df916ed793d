"""The page as a whole: who is asking, what is public, and what the code keeps to."""

from __future__ import annotations

import ast
import asyncio
import inspect
import json
from pathlib import Path
from typing import Any

import gradio as gr
import jinja2
import pytest
from gradio.routes import App as Routes

from fakes import FakeModel
from promptclf import ui
from promptclf.errors import PromptClfError
from promptclf.jobs.jobs import Jobs
from promptclf.jobs.store import Store
from promptclf.ui.core.service import Service
from promptclf.ui.core.visitor import known_token, owner, owner_or_none, token_state
from promptclf.ui.web import routes
from promptclf.ui.web.routes import RoutedOnce
from visitors import Visitor

UI = Path(__file__).parent.parent / "promptclf" / "ui"


# ---- who is asking -------------------------------------------------------------------------------


def test_a_token_is_kept_or_made(tmp_path: Path) -> None:
    token = known_token(None)
    assert known_token(token) == token
    for wrong in ("", "short", token + "x", 7, ["a"], "a" * 31 + "/", "a" * 31 + "\n"):
        assert known_token(wrong) != wrong
        assert owner_or_none(wrong) is None
        with pytest.raises(PromptClfError, match=r"^token: .*reload the page"):
            owner(wrong)
    assert len(owner(token)) == 64
    first, again = token_state(tmp_path / "a"), token_state(tmp_path / "a")
    assert first.secret == again.secret != token_state(tmp_path / "b").secret
    assert first.storage_key == again.storage_key
    assert (tmp_path / "a" / "browser.key").stat().st_mode & 0o077 == 0
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["browser.key"]


# ---- the whole page ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Any:
    from promptclf.ui import build_app

    store = Store(tmp_path_factory.mktemp("app"))
    Visitor(store).upload("the secret data")

    async def build() -> Any:  # without a running loop, gradio makes some and leaves them open
        return build_app(Service(FakeModel()), Jobs(store))

    return asyncio.run(build())


def test_only_endpoints_are_public(app: Any) -> None:
    info = app.get_api_info()
    names = set(info["named_endpoints"])
    assert {"/classify", "/classify_file", "/compare", "/evaluate", "/train", "/job", "/cancel"} <= names
    assert not info["unnamed_endpoints"]
    private = [fn for fn in app.fns.values() if fn.api_visibility != "public"]
    assert len(private) > 20
    assert len(app.fns) - len(private) == len(names)


def test_numbers_reach_their_handlers_as_they_come(app: Any) -> None:
    numbers = [block for block in app.blocks.values() if isinstance(block, gr.Number)]
    assert len(numbers) == 6
    for number in numbers:  # gradio would refuse them without a word on the page
        assert number.preprocess(-7.5) == -7.5


def test_gradio_is_imported_in_a_hurry_of_which_nothing_stays() -> None:
    before = inspect.getfile, jinja2.Template
    with ui._quickly():
        assert jinja2.Template("{{ a }}") is jinja2.Template("{{ a }}")
        assert jinja2.Template("{{ a }}").render(a=1) == "1"
        assert jinja2.Template("{{ a }}", autoescape=True).render(a="<") == "&lt;"
        assert inspect.getfile(FakeModel)
        with pytest.raises(OSError, match="passed over"):
            inspect.getfile(gr.Textbox)
    assert (inspect.getfile, jinja2.Template) == before


def test_routes_are_made_once_and_when_they_are_wanted(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Routes] = []
    make = routes._create_app

    def count(*arguments: Any, **options: Any) -> Routes:
        made.append(make(*arguments, **options))
        return made[-1]

    async def build() -> None:  # without a loop, gradio makes one for each lock, and leaves it open
        with RoutedOnce() as demo:
            gr.Textbox()
        assert demo.queue(max_size=3) is demo
        assert demo._queue.max_size == 3
        assert not made
        with gr.Blocks() as another:
            gr.Textbox()
        assert another.app is made[-1]
        made.clear()
        assert isinstance(demo.app, Routes)
        assert demo.app is made[0]
        demo.app = later = Routes.create_app(demo)  # as it is launched
        assert demo.app is later
        assert len(made) == 2

    monkeypatch.setattr(routes, "_create_app", count)
    asyncio.run(build())


def test_limits_of_the_app(app: Any) -> None:
    queue = app._queue
    assert queue.max_size == 256
    assert queue.default_concurrency_limit == 2
    assert app.api_open is False
    assert app.analytics_enabled is False
    assert app.delete_cache == (600, 3600)


def test_nothing_of_a_visitor_is_in_the_page(app: Any) -> None:
    config = json.dumps(app.get_config_file(), default=str)
    assert "delivery status" in config
    assert "secret data" not in config


def test_careful_settings() -> None:
    from promptclf.ui import launch_settings

    careful = launch_settings()
    for name in ("ssr_mode", "run_history", "enable_monitoring", "show_error", "share", "mcp_server", "pwa"):
        assert careful[name] is False
    assert careful["strict_cors"] is True


def test_gradio_wrote_nothing_beside_the_code(app: Any) -> None:
    assert not list(UI.rglob("*.pyi"))


def test_the_page_has_no_global_state() -> None:
    """What modules hold is named as a constant, and nothing changes it."""
    changing = {"append", "add", "update", "pop", "setdefault", "clear", "extend", "remove", "insert"}
    for path in UI.rglob("*.py"):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        held = {
            target.id
            for node in tree.body
            if isinstance(node, ast.Assign | ast.AnnAssign)
            and isinstance(node.value, ast.Dict | ast.List | ast.Set | ast.Call | ast.DictComp | ast.ListComp)
            for target in (node.targets if isinstance(node, ast.Assign) else [node.target])
            if isinstance(target, ast.Name)
        }
        for node in ast.walk(tree):
            assert not isinstance(node, ast.Global), path.name
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                owner_name = node.func.value.id if isinstance(node.func.value, ast.Name) else ""
                assert not (owner_name in held and node.func.attr in changing), f"{path.name}: {owner_name}"
            if isinstance(node, ast.Subscript) and isinstance(node.ctx, ast.Store | ast.Del):
                changed = node.value.id if isinstance(node.value, ast.Name) else ""
                assert changed not in held, f"{path.name}: {changed}"
