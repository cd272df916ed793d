"""The named endpoints, for gradio_client, curl and other programs; the page has events of its own."""

import inspect
import os
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import aclosing, contextmanager
from functools import wraps
from pathlib import Path
from typing import Any, cast, get_args

import gradio as gr
from gradio.components.api_component import Api
from gradio.context import get_blocks_context
from gradio.events import api
from gradio.utils import get_function_description

from promptclf.errors import PromptClfError
from promptclf.lm.batcher import WAITING
from promptclf.ui.api.jobs import JobEndpoints
from promptclf.ui.api.texts import TextEndpoints
from promptclf.ui.page.context import Context


def add_endpoints(context: Context) -> None:
    """Add the endpoints to the Blocks under construction.

    gradio names the events of the page after their functions; where they took a name, they give it up.
    """
    blocks = get_blocks_context()
    assert blocks is not None
    for event in blocks.fns.values():
        if event.api_visibility == "private":
            event.api_name = f"page_{event._id}"
    texts = TextEndpoints(context.service, context.store)
    jobs = JobEndpoints(context.jobs, context.store)
    # Endpoint, group, how many calls of the group run at once: what takes long must not keep others waiting.
    for method, group, limit in (
        (texts.classify, "api-classify", WAITING),
        (texts.compare, "api-text", 4),
        (texts.classify_file, "api-file", 2),
        (texts.tasks, "api-quick", 8),
        (texts.feedback, "api-quick", 8),
        (jobs.evaluate, "api-evaluate", 8),
        (jobs.train, "api-quick", 8),
        (jobs.job, "api-quick", 8),
        (jobs.cancel, "api-quick", 8),
    ):
        function = exposed(method, context.store.folder)
        added = api(function, api_name=method.__name__, concurrency_id=group, concurrency_limit=limit)
        _describe(method, cast(list[Api], blocks.fns[added["id"]].inputs))


def exposed(method: Callable[..., Any], folder: Path) -> Callable[..., Any]:
    """A method as gradio takes it: errors reach the caller, and of a stream the type of an item is told.

    Where the server keeps its files, `folder`, is told to nobody.
    """
    signature = inspect.signature(method)
    exposed: Any
    if inspect.isasyncgenfunction(method):

        @wraps(method)
        async def stream(*args: Any) -> AsyncIterator[Any]:
            with _errors_shown(folder):
                async with aclosing(method(*args)) as items:
                    async for item in items:
                        yield item

        (item_type,) = get_args(signature.return_annotation)
        signature, exposed = signature.replace(return_annotation=item_type), stream
    elif inspect.iscoroutinefunction(method):

        @wraps(method)
        async def wait(*args: Any) -> Any:
            with _errors_shown(folder):
                return await method(*args)

        exposed = wait
    else:

        @wraps(method)
        def call(*args: Any) -> Any:
            with _errors_shown(folder):
                return method(*args)

        exposed = call
    exposed.__signature__ = signature
    return cast(Callable[..., Any], exposed)


def _describe(method: Callable[..., Any], arguments: list[Api]) -> None:
    """Let the page about the API say of each argument what the docstring says."""
    _, described, _ = get_function_description(method)
    for name, argument in zip(inspect.signature(method).parameters, arguments, strict=True):
        argument.label = name
        schema: dict[str, Any] = {**argument._api_info, "additional_description": described[name]}
        argument._api_info = schema


@contextmanager
def _errors_shown(folder: Path) -> Iterator[None]:
    """Errors meant for the user reach the caller; all others stay hidden behind a general message."""
    try:
        yield
    except PromptClfError as error:
        told = str(error).replace(f"{folder}{os.sep}", "").replace(str(folder), "the store")
        raise gr.Error(told, print_exception=False) from error
