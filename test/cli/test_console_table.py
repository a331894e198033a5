"""Tables on a terminal."""

from __future__ import annotations

import io

from rich.console import Console

from vss_ros.cli.console_table import draw
from vss_ros.core.rows import Rows


def test_nothing_of_a_table_is_cut_off_where_it_does_not_fit():
    file = io.StringIO()
    table = Rows('scores', ('',), [str(n) for n in range(10)], [['a-model-of-mine', *['73.51~'] * 10]], 'end')
    Console(file=file, width=70).print(draw(table))
    shown = file.getvalue()
    assert '…' not in shown
    columns = zip(*(line.split('│')[1:-1] for line in shown.splitlines() if '│' in line), strict=True)
    name, *figures = (''.join(part.strip() for part in column) for column in columns)
    assert name == 'a-model-of-mine'
    assert figures == ['73.51~'] * 10
    assert 'end' in shown
