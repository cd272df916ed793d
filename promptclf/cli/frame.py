"""What surrounds every command: errors on one line, log lines on stderr, quiet libraries, exit codes."""

from __future__ import annotations

import io
import json
import logging
import os
import re
import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NoReturn

import typer
from typer.core import TyperGroup

from promptclf.errors import PromptClfError
from promptclf.garbage import collect_rarely

logger = logging.getLogger(__name__)

USER_ERROR = 2
INTERRUPTED = 130  # 128 + SIGINT, as shells have it

#: What the library advises -> how that is said on the command line.
ADVICE = {
    "ask for truncation": "use --truncate",
    "or allow_other_base=True": "or use --allow-other-base",
    "pass it as model=": "name its folder with --model",
    "or leave the second text out": "or leave the second text out with --columns pair=",
    "name it with text=…": "name it with --columns text=…",
    "name it with label=…": "name it with --columns label=…",
    "resume it or choose another folder": "use --resume or choose another folder",
}


_own = False  # whether this process runs a command and nothing else


class Commands(TyperGroup):
    """The root command: an error that users can mend becomes one line on stderr and status 2.

    Anything else is a bug and keeps its traceback.
    """

    def main(self, args: Sequence[str] | None = None, *more: Any, **extra: Any) -> NoReturn:
        """Run a command line and exit with its status."""
        with log_to_stderr():
            sys.exit(self._status(args))

    def _status(self, args: Sequence[str] | None) -> int:
        try:
            status = super().main(args, prog_name="promptclf", standalone_mode=False)
        except (PromptClfError, typer.TyperException, OSError) as error:
            logger.debug("where the error came from:", exc_info=True)
            if is_main_process():
                print(f"error: {_explained(error)}", file=sys.stderr)
            return USER_ERROR
        except typer.Abort:
            status = INTERRUPTED
        if status == INTERRUPTED:  # a command's Ctrl-C arrives as the status 130
            print("interrupted", file=sys.stderr)
        return status if isinstance(status, int) else 0


def prepare_process() -> None:
    """Before libraries are imported: keep their messages away from users, and let them pass quickly.

    From then on the process counts as promptclf's own.
    """
    global _own
    _own = True
    collect_rarely()
    for name, value in {
        "TRANSFORMERS_VERBOSITY": "error",
        "DATASETS_VERBOSITY": "error",
        "HF_HUB_VERBOSITY": "error",
        "TORCH_CPP_LOG_LEVEL": "ERROR",
        "TOKENIZERS_PARALLELISM": "false",
        "GRADIO_ANALYTICS_ENABLED": "False",
    }.items():
        os.environ.setdefault(name, value)
    if not sys.warnoptions:  # -W and PYTHONWARNINGS are asked for
        warnings.simplefilter("ignore")
        os.environ["PYTHONWARNINGS"] = "ignore"  # for processes started from here
    if isinstance(sys.stdout, io.TextIOWrapper):  # results are UTF-8 wherever they go
        sys.stdout.reconfigure(encoding="utf-8")
    logging.getLogger().addHandler(logging.NullHandler())  # else Python prints the libraries' log lines


def prepare_to_predict() -> None:
    """Before a model is loaded that only predicts: let libraries pass quickly, if the process is our own."""
    if _own:
        from promptclf.lm.light import import_to_predict

        import_to_predict()


# ---- what goes to stderr ---------------------------------------------------------------------------


def say(text: str) -> None:
    """One line on stderr: standard output holds results only."""
    if is_main_process():
        print(text, file=sys.stderr)


def set_verbosity(count: int) -> int:
    """Show log lines of INFO (1) or of DEBUG (2); the callback of ``-v``."""
    if count:
        logging.getLogger("promptclf").setLevel(logging.INFO if count == 1 else logging.DEBUG)
    return count


@contextmanager
def log_to_stderr() -> Iterator[None]:
    """Show the package's warnings as "warning: …" until the block ends."""
    package, handler = logging.getLogger("promptclf"), _Lines()
    level = package.level
    package.addHandler(handler)
    package.setLevel(logging.WARNING)
    try:
        yield
    finally:
        package.removeHandler(handler)
        package.setLevel(level)


class _Lines(logging.Handler):
    """Writes log lines to stderr, above a progress bar if there is one."""

    def emit(self, record: logging.LogRecord) -> None:
        if not is_main_process() and record.levelno < logging.ERROR:
            return
        line = f"{record.levelname.lower()}: {one_line(record.getMessage())}"
        if record.exc_info:
            line += f"\n{logging.Formatter().formatException(record.exc_info)}"
        if "tqdm" in sys.modules:
            sys.modules["tqdm"].tqdm.write(line, file=sys.stderr)
        else:
            print(line, file=sys.stderr)


def is_main_process() -> bool:
    """Whether this is the process of a ``torchrun`` that prints and saves; true without one."""
    return os.environ.get("RANK", "0") == "0"


# ---- what goes to stdout ---------------------------------------------------------------------------


def emit(text: str) -> None:
    """Results on standard output, at once: a reader that has gone away is noticed here."""
    if is_main_process():
        print(text, flush=True)


def emit_json(value: Mapping[str, Any]) -> None:
    """A result as JSON on standard output, with the version of the schema."""
    from promptclf.schema import SCHEMA_VERSION

    versioned = {"schema_version": SCHEMA_VERSION, **value}
    emit(json.dumps(versioned, indent=1, ensure_ascii=False, allow_nan=False))


def one_line(text: str) -> str:
    """Text without line breaks, and without control characters that a terminal would obey."""
    return re.sub(r"[\s\x00-\x1f\x7f-\x9f]+", " ", text).strip()


def _explained(error: Exception) -> str:
    """What to tell the user, in the words of the command line."""
    if isinstance(error, OSError) and not isinstance(error, PromptClfError):
        place = f"{error.filename}: " if error.filename else ""
        return one_line(f"{place}{error.strerror or error}")
    text = str(error)
    if isinstance(error, typer.TyperException):
        context = getattr(error, "ctx", None)
        see = f"; see {context.command_path} --help" if context else ""
        text = error.format_message().rstrip(".") + see
    for said, meant in ADVICE.items():
        text = text.replace(said, meant)
    return one_line(text)
