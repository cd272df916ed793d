"""``promptclf deploy``: the web app as a Hugging Face Space."""

from __future__ import annotations

from typing import Annotated

import typer

from promptclf.cli import common
from promptclf.cli.frame import emit, emit_json, say
from promptclf.lm.embedded import HUB_ID


def run(
    space: Annotated[
        str,
        typer.Option("--space", metavar="OWNER/NAME", help="The Space, created if need be."),
    ],
    model: Annotated[
        str, typer.Option("--model", metavar="HUB-ID", help="The model that the app loads.")
    ] = HUB_ID,
    quantization: common.Quantized = None,
    hardware: Annotated[
        str | None,
        typer.Option(
            "--hardware", metavar="NAME", help="Such as zero-a10g or cpu-basic; default: what it has."
        ),
    ] = None,
    private: Annotated[bool, typer.Option("--private", help="Make it visible to its owner only.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would be sent; nothing is.")] = False,
    as_json: common.Json = False,
    verbose: common.Verbose = 0,
) -> None:
    """Put the web app on a Hugging Face Space.

    Prints its address. Needs a token that may write: hf auth login, or the variable HF_TOKEN. It is not sent
    to the Space; a gated model needs one there as well, as a secret in its settings.

    Example: promptclf deploy --space me/promptclf --hardware zero-a10g
    """
    from promptclf.deploy import deploy

    result = deploy(
        space,
        model=model,
        quantization=quantization or "none",
        hardware=hardware,
        private=private,
        dry_run=dry_run,
        tell=say,
    )
    if as_json:
        emit_json(result)
        return
    if not dry_run:
        emit(result["address"])
        return
    files = result["files"]
    emit(f"{len(files)} files, {sum(files.values()):,} bytes, would be sent to {result['address']}")
    for name, size in files.items():
        emit(f"{size:>11,}  {name}")
    emit("variables: " + ", ".join(f"{key}={value}" for key, value in result["variables"].items()))
    emit(f"hardware: {hardware or 'as it is'}; visibility: {'private' if private else 'as it is'}")
