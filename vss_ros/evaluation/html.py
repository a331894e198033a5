"""The report as one HTML file that needs nothing from outside: plots and pictures are in it."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from vss_ros.core.rows import Rows
from vss_ros.evaluation.filmstrip import Sample
from vss_ros.evaluation.report import distances_of, labelled
from vss_ros.evaluation.tables import class_table, full_name, model_table, score_tables

CAPTIONS = {
    'pda': 'Accuracy by propagation distance (PDA)',
    'cca': 'Accuracy against computation cost (CCA)',
    'reliability': 'Confidence against the share of right pixels: on the line, confidence means what it says',
    'classes': 'IoU of each class',
    'schedules': 'Accuracy against cost of schedules of key frames',
}
FEW_FRAMES = 300
WIDE = ('reliability', 'classes')
PICTURES = {
    'mask': 'mask',
    'error': 'error: red is wrong, black has no label',
    'distortion': 'distortion: bright trusts the correction',
    'confidence': 'confidence: bright is sure',
}
STYLE = """
body { font: 15px/1.45 system-ui, sans-serif; color: #222; margin: 2rem auto; max-width: 1120px;
padding: 0 1rem }
h1 { font-size: 1.5rem } h2 { font-size: 1.15rem; margin-top: 2.2rem }
h3 { font-size: 1rem; margin: 1.2rem 0 .3rem }
table { border-collapse: collapse; margin: .5rem 0 } th, td { padding: .2rem .7rem; text-align: right }
th { border-bottom: 1px solid #999; font-weight: 600 } td { border-bottom: 1px solid #e5e5e5 }
th:first-child, td:first-child { text-align: left }
.scroll { overflow-x: auto } .note { color: #666; font-size: .9rem }
figure { margin: .4rem 0 } figcaption { color: #666; font-size: .85rem }
.plots { display: flex; flex-wrap: wrap; gap: 1rem } .plots img { max-width: 100%; height: auto }
.plots figure { flex: 1 1 480px } .plots figure.wide { flex-basis: 100% }
.strip { display: grid; grid-template-columns: repeat(4, 1fr); gap: .4rem } .strip img { width: 100% }
.legend span { display: inline-block; margin-right: 1rem } .legend i { display: inline-block; width: .9em;
height: .9em; margin-right: .35em; vertical-align: -1px }
dt { font-weight: 600 } dd { margin: 0 0 .5rem 1rem }
"""


def page(report: dict[str, Any], plots: Mapping[str, bytes], samples: Sequence[Sample]) -> str:
    """The whole page.

    Args:
        report: see `report.make_report`.
        plots: name -> PNG, see `plots.draw_all`.
        samples: pictures of a few frames.
    """
    title = f'Evaluation on {escape(report["data"]["name"])}'
    parts = [
        f'<h1>{title}</h1>',
        f'<p class="note">{escape(_origin(report))}</p>',
        _table(model_table(report)),
        *map(_table, score_tables(report, full_name)),
        '<div class="plots">',
        *(_figure(png, 'png', CAPTIONS[name], is_wide=name in WIDE) for name, png in plots.items()),
        '</div>',
        _table(class_table(report)),
        _strip(report, samples),
        _rules(report),
    ]
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<title>{title}</title><style>{STYLE}</style></head><body>' + '\n'.join(parts) + '</body></html>\n'
    )


def _origin(report: dict[str, Any]) -> str:
    """Where the figures come from, and how far they can be trusted."""
    data = report['data']
    weights = {
        row['weights_sha256']: f'weights of {row["model"]}: {row["weights_sha256"][:12]}'
        for row in report['rows']
        if row['weights_sha256']
    }
    clips, frames = data['clips'], data['labelled_frames']
    facts = [
        report['command'],
        report['date'],
        f'vss_ros {report["version"]}',
        f'truth: {data["truth"]}',
        f'{clips} clip{"" if clips == 1 else "s"}',
        labelled(frames),
        *weights.values(),
    ]
    few = f' Only {labelled(frames)}: differences below a point may well be noise.'
    return '; '.join(facts) + '.' + (few if 0 < frames < FEW_FRAMES else '')


def _strip(report: dict[str, Any], samples: Sequence[Sample]) -> str:
    if not samples:
        return ''
    colours = ''.join(
        f'<span><i style="background:rgb({",".join(map(str, entry["colour"]))})"></i>'
        f'{escape(entry["name"])}</span>'
        for entry in report['classes']
    )
    distances = distances_of(report)
    where = f', {distances[-1]} frames after the key frame' if distances else ''
    parts = [f'<h2>Frames{where}</h2><p class="legend">{colours}</p>']
    for sample in samples:
        parts.append(f'<h3>{escape(sample.title)}</h3><div class="strip">')
        parts += [_figure(sample.pictures[f'/{name}'], 'jpeg', name) for name in ('image', 'truth')]
        parts.append('</div>')
        for row in report['rows']:
            name = row['name']
            pictures = [
                _figure(sample.pictures[f'{name}/{key}'], 'jpeg', f'{name}: {caption}')
                for key, caption in PICTURES.items()
                if f'{name}/{key}' in sample.pictures
            ]
            parts.append(f'<div class="strip">{"".join(pictures)}</div>')
    return '\n'.join(parts)


def _rules(report: dict[str, Any]) -> str:
    entries = ''.join(
        f'<dt>{escape(name.replace("_", " "))}</dt><dd>{escape(text)}</dd>'
        for name, text in report['rules'].items()
    )
    return f'<h2>What the figures mean</h2><dl>{entries}</dl>'


def _table(table: Rows) -> str:
    """A table under its title; nothing of one without rows."""
    if not table.rows:
        return ''
    head = ''.join(f'<th>{escape(heading)}</th>' for heading in (*table.words, *table.figures))
    body = ''.join(
        '<tr>' + ''.join(f'<td>{escape(cell)}</td>' for cell in row) + '</tr>' for row in table.rows
    )
    note = f'<p class="note">{escape(table.note)}</p>' if table.note else ''
    return (
        f'<h2>{escape(table.title)}</h2><div class="scroll"><table><tr>{head}</tr>{body}</table></div>{note}'
    )


def _figure(data: bytes, kind: str, caption: str, is_wide: bool = False) -> str:
    source = f'data:image/{kind};base64,{base64.b64encode(data).decode()}'
    text = escape(caption)
    style = ' class="wide"' if is_wide else ''
    return f'<figure{style}><img src="{source}" alt="{text}"><figcaption>{text}</figcaption></figure>'
