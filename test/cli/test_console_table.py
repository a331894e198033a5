"""Tables on a terminal."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from vss_ros.cli.console_table import make_console, show
from vss_ros.core.rows import Rows

FIGURES = [f'{n}.51~' for n in range(10)]


def shown(table, width):
    file = io.StringIO()
    show(table, Console(file=file, width=width))
    return file.getvalue()


def columns_of(text):
    """The cells of each column, of one table after the other."""
    lines = [line for line in text.splitlines() if '│' in line]
    return [[part.strip() for part in line.split('│')[1:-1]] for line in lines]


@pytest.mark.parametrize('width', [40, 70, 100, 200])
def test_a_figure_is_never_broken_and_nothing_cut_off(width):
    name = 'a-model-of-mine-with-a-long-name'
    text = shown(Rows('scores', ('',), [str(n) for n in range(10)], [[name, *FIGURES]], 'end'), width)
    assert '…' not in text
    assert max(map(len, text.splitlines())) <= width
    cells = columns_of(text)
    figures = [cell for row in cells for cell in row[1:] if cell]
    assert figures == FIGURES
    assert set(''.join(row[0] for row in cells).split(name)) == {''}
    assert text.count('scores') == text.count('end') == 1


def test_columns_that_belong_together_stay_so_and_those_without_figures_go_first():
    rows = [['stage', '1.25', '2.25', '-', '4.25', '5.25', '6.25']]
    table = Rows('ms', ('',), ['key', 'p99', 'of'] * 2, rows, together=3)
    assert [row[1:] for row in columns_of(shown(table, 80))] == [rows[0][1:]]
    assert [row[1:] for row in columns_of(shown(table, 48))] == [['1.25', '2.25', '4.25', '5.25', '6.25']]
    assert [row[1:] for row in columns_of(shown(table, 34))] == [['1.25', '2.25'], ['4.25', '5.25', '6.25']]


def test_what_goes_into_a_file_is_as_wide_as_it_must_be(monkeypatch):
    monkeypatch.delenv('COLUMNS', raising=False)
    assert make_console().width == 1000
    monkeypatch.setenv('COLUMNS', '70')
    assert make_console().width == 70
