"""Writes the generated parts of README.md and README.zh.md: ``python tests/readme_parts.py``.

The code and the figures of the Chinese one are those of the English one. The comparison table comes from
tests/benchmarks/results/compare.json, which is the report.json of the command that the part names.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

HERE = Path(__file__).parent
COMPARISON = HERE / "benchmarks" / "results" / "compare.json"
FENCED = re.compile(r"^```\w*\n.*?^```$", re.DOTALL | re.MULTILINE)
ENGLISH_ONLY = ("$ promptclf --help", "app.py            ")  # the help, and the tree of files
TABLES = r"<!-- (quality|others) -->.*?<!-- /\1 -->"
COMMAND = "promptclf compare --task support --out report"


def compare_part() -> str:
    """The table that the command printed, from its report."""
    from promptclf.evaluation.report import Report

    if not COMPARISON.is_file():
        return ""
    report = Report.from_dict(json.loads(COMPARISON.read_text(encoding="utf-8")))
    return f"```\n$ {COMMAND}\n{report.to_table().rstrip()}\n```\n"


def shared_blocks(english: str) -> list[str]:
    """The blocks of code that README.zh.md has as well, in order."""
    return [block for block in FENCED.findall(english) if not block.startswith(_english_only())]


def chinese(text: str, english: str) -> str:
    """README.zh.md with the code and the figures of README.md."""
    blocks = iter(shared_blocks(english))
    text = FENCED.sub(lambda _: next(blocks), text)
    tables = {found[1]: found[0] for found in re.finditer(TABLES, english, re.DOTALL)}
    return re.sub(TABLES, lambda found: tables.get(found[1], ""), text, flags=re.DOTALL)


def _english_only() -> tuple[str, ...]:
    return tuple(f"```\n{start}" for start in ENGLISH_ONLY)


def main() -> None:
    sys.path[:0] = [str(HERE), str(HERE.parent)]
    from benchmarks.quality import others, table
    from benchmarks.speed.table import ELSEWHERE, elsewhere
    from benchmarks.speed.table import readme as speed
    from readme_help import all_help

    readme = HERE.parent / "README.md"
    text = readme.read_text(encoding="utf-8")
    parts = {
        "help": f"```\n{all_help()}```\n",
        "quality": table() + "\n",
        "others": others() + "\n",
        "speed": speed(),
        **{name: elsewhere(name) for name in ELSEWHERE},
        "compare": compare_part(),
    }
    for name, part in parts.items():
        pattern = re.compile(rf"(<!-- {name} -->\n).*?(<!-- /{name} -->)", re.DOTALL)
        text = pattern.sub(lambda match, part=part: match[1] + part + match[2], text)  # type: ignore[misc]
    readme.write_text(text, encoding="utf-8")
    translated = HERE.parent / "README.zh.md"
    translated.write_text(chinese(translated.read_text(encoding="utf-8"), text), encoding="utf-8")


if __name__ == "__main__":
    main()
