"""What `vss bench` writes: its figures as JSON, and its tables as Markdown for a page of results."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Any

from vss_ros.benchmark.keys import metadata
from vss_ros.benchmark.machine import describe_machine
from vss_ros.core.command_line import command_line
from vss_ros.core.files.drafts import write_file
from vss_ros.core.rows import Rows


def origin(name: str, gpu_id: int) -> dict[str, Any]:
    """Where figures come from, to stand before them: the machine, the command, the time.

    Args:
        name: of what was measured, for readers of `ros2_benchmark`.
    """
    return {
        'machine': describe_machine(gpu_id),
        'command': command_line(),
        'metadata': metadata(name),
    }


def write_results(
    figures: Mapping[str, Any],
    tables: Sequence[Rows],
    json_file: Path | None,
    markdown_file: Path | None,
    overwrite: bool,
    note: str = '',
) -> None:
    """Writes what was asked for.

    Args:
        figures: with those of `origin`.
        note: a line below the tables.
    """
    if json_file is not None:
        write_file(json_file, json.dumps(figures, indent=2) + '\n', overwrite)
    if markdown_file is not None:
        write_file(markdown_file, _markdown(figures, tables, note), overwrite)


def _markdown(figures: Mapping[str, Any], tables: Sequence[Rows], note: str) -> str:
    machine = ', '.join(str(fact) for fact in figures['machine'].values() if fact is not None)
    parts = [machine, f'{date.today().isoformat()}, `{figures["command"]}`']
    for table in tables:
        headings = [heading.replace('\n', ' ') for heading in (*table.words, *table.figures)]
        lines = [headings, ['---'] * len(table.words) + ['---:'] * len(table.figures), *table.rows]
        parts.append(f'**{table.title}**')
        parts.append('\n'.join('| ' + ' | '.join(row).replace('\n', ', ') + ' |' for row in lines))
    return '\n\n'.join([*parts, *([note] if note else [])]) + '\n'
