"""No cell that we write is a formula, and every cell comes back as it was."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from promptclf.data import csv_safe

CELLS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), max_size=30)
FORMULAS = st.builds(
    "{}{}{}{}".format,
    st.sampled_from(["", "'", "''"]),
    st.sampled_from(["", " ", "\t", "\r", "\n", "\u3000", "\xa0 "]),
    st.sampled_from(list("=+-@＝＋－＠")),
    CELLS,
)


@given(st.one_of(CELLS, FORMULAS))
def test_no_cell_is_a_formula_and_every_cell_comes_back(text: str) -> None:
    cell = csv_safe.safe_cell(text)
    assert not cell.lstrip().startswith(tuple("=+-@＝＋－＠"))
    assert not cell.startswith(("\t", "\r", "\n"))
    assert csv_safe.original_cell(cell) == text


@given(st.lists(st.lists(st.one_of(CELLS, FORMULAS), min_size=1, max_size=4), max_size=6))
def test_rows_come_back_as_they_were(rows: list[list[str]]) -> None:
    assert csv_safe.read_rows(csv_safe.write_rows(rows)) == rows


def test_harmless_cells_are_left_alone() -> None:
    for text in ("hello", "'tis the season", "a=b", "1-2", "'", ""):
        assert csv_safe.safe_cell(text) == text
