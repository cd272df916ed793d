"""Read a dataset from the Hugging Face Hub, as text, at a recorded commit."""

from __future__ import annotations

import logging
import re
from typing import Any

from promptclf.data.reading import Table
from promptclf.errors import DataError, MissingPackageError

log = logging.getLogger(__name__)

_HUB_ID = re.compile(r"hub:(?P<name>[\w.-]+(/[\w.-]+)?)(:(?P<config>[\w.-]+))?(@(?P<revision>[\w./-]+))?")


def is_hub_id(source: object) -> bool:
    """Whether `source` is a text of the form ``hub:owner/name[:config][@revision]``."""
    return isinstance(source, str) and source.startswith("hub:")


def may_be_on_hub(name: str) -> bool:
    """Whether a name could be a repository's (``owner/name``, or a bare name) and is not a path's."""
    parts = name.split("/")
    return (
        len(parts) <= 2 and all(re.fullmatch(r"\w([\w.-]*\w)?", part) for part in parts) and ".." not in name
    )


def read_hub(source: str) -> tuple[dict[str, Table], str]:
    """Read every split of a dataset on the Hub through `datasets`; no code of the dataset is run.

    Parameters
    ----------
    source
        ``hub:owner/name``, with ``:config`` and ``@revision`` where needed.

    Returns
    -------
    tables
        Split name, as the Hub has it -> rows. Labels are names; a withheld one (-1) is left out of its row.
    revision
        The commit that was read: 40 hexadecimal digits.

    Raises
    ------
    MissingPackageError
        If `datasets` is not installed.
    DataError
        If the id is malformed or the dataset cannot be read.
    """
    match = _HUB_ID.fullmatch(source)
    if match is None:
        raise DataError(f"expected hub:owner/name[:config][@revision], got {source!r}")
    try:
        import datasets
        import huggingface_hub
    except ImportError as error:
        raise MissingPackageError(
            "reading from the Hub needs the package datasets: pip install datasets"
        ) from error
    bars = datasets.is_progress_bar_enabled()
    datasets.disable_progress_bars()
    try:
        revision = huggingface_hub.HfApi().dataset_info(match["name"], revision=match["revision"]).sha or ""
        loaded = datasets.load_dataset(match["name"], match["config"], revision=revision)
    except Exception as error:  # a dozen types, from the network to the parquet reader
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        raise DataError(
            f"{source}: cannot be read from the Hub: {reason}; check the id, config and network"
        ) from error
    finally:
        if bars:
            datasets.enable_progress_bars()
    return {str(name): _hub_table(f"{source} ({name})", rows) for name, rows in loaded.items()}, revision


def _hub_table(where: str, rows: Any) -> Table:
    from datasets import ClassLabel, Value

    kept = [name for name, kind in rows.features.items() if isinstance(kind, (ClassLabel, Value))]
    if left := [name for name in rows.column_names if name not in kept]:
        log.info("%s: columns that are neither text nor numbers are not read: %s", where, ", ".join(left))
    names = {name: rows.features[name].names for name in kept if isinstance(rows.features[name], ClassLabel)}
    table = Table(where, tuple(kept), [])
    for row in rows.select_columns(kept):
        for name in names:  # the Hub writes -1 where a label is withheld
            row[name] = None if row[name] in (None, -1) else names[name][row[name]]
        table.rows.append({name: str(value) for name, value in row.items() if value is not None})
    return table
