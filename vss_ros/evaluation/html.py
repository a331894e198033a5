"""The report as one HTML file that needs nothing from outside: plots and pictures are in it."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from vss_ros.core.model_steps import STEPS
from vss_ros.evaluation.filmstrip import Sample
from vss_ros.evaluation.report import (
    at_distance,
    by_kind,
    corrected_distance,
    distances_of,
    frames_deployed,
    is_corrected,
)

CAPTIONS = {
    'pda': 'Accuracy by propagation distance (PDA)',
    'cca': 'Accuracy against computation cost (CCA)',
    'reliability': 'Confidence against the share of right pixels: on the line, confidence means what it says',
    'classes': 'IoU of each class',
    'schedules': 'Accuracy against cost of schedules of key frames',
}
CARRIED = '~'  # behind the score of a distance
WIDE = ('reliability', 'classes')
PICTURES = {
    'mask': 'mask',
    'error': 'error: red is wrong, black has no label',
    'distortion': 'distortion: bright trusts the correction',
    'confidence': 'confidence: bright is sure',
}
DETAILS = {
    'boundary F': 'boundary_f_percent',
    'ECE': 'ece_percent',
}
CORRECTION = {
    'CL': 'corrected_labels_percent',
    'mended': 'mended_percent',
    'spoilt': 'spoilt_percent',
    'distortion AP': 'distortion_ap_percent',
    'warp errors': 'warp_errors_percent',
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


def page(report: Mapping[str, Any], plots: Mapping[str, bytes], samples: Sequence[Sample]) -> str:
    """The whole page.

    Args:
        report: see `report.make_report`.
        plots: name -> PNG, see `plots.draw_all`.
        samples: pictures of a few frames.
    """
    content = dict(report)
    title = f'Evaluation on {escape(report["data"]["name"])}'
    parts = [
        f'<h1>{title}</h1>',
        _models(content),
        _by_distance(content),
        _deployment(content),
        _schedules(content),
        '<div class="plots">',
        *(_figure(png, 'png', CAPTIONS[name], is_wide=name in WIDE) for name, png in plots.items()),
        '</div>',
        _by_class(content),
        _strip(content, samples),
        _rules(content),
    ]
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<title>{title}</title><style>{STYLE}</style></head><body>' + '\n'.join(parts) + '</body></html>\n'
    )


def _models(report: dict[str, Any]) -> str:
    rows = []
    for row in report['rows']:
        height, width = row['image']
        engine = row['engine']
        gmac = row['gmac'] or {}
        rows.append(
            [
                row['name'],
                row['method'],
                f'{width}x{height}',
                f'{engine["engine"]} {engine["version"]}, {engine["device"]} {engine["precision"]}',
                row['motion'],
                str(row['correction_interval']),
                *(f'{gmac[step]:.3f}' if step in gmac else '-' for step in STEPS),
            ]
        )
    headings = ['', 'method', 'image', 'engine', 'flow', 'corrected: each']
    headings += [f'GMAC {step}' for step in STEPS]
    return '<h2>What was scored</h2>' + _table(headings, rows)


def _by_distance(report: dict[str, Any]) -> str:
    distances = distances_of(report)
    if not distances:
        return ''
    frames = (at_distance(report['rows'][0], distances[0]) or {}).get('frames')
    rows = [
        [
            row['name'],
            *(
                _value(at_distance(row, d), 'miou_percent') + ('' if is_corrected(row, d) else CARRIED)
                for d in distances
            ),
        ]
        for row in report['rows']
    ]
    groups = list(report['groups'])
    details = [
        [
            row['name'],
            *(_value(scores['group_miou_percent'], name) for name in groups),
            *(_value(scores, key) for key in DETAILS.values()),
        ]
        for row in report['rows']
        if (scores := at_distance(row, distances[-1])) is not None
    ]
    members = '; '.join(f'{name}: {", ".join(names)}' for name, names in report['groups'].items())
    note = f'{frames} labelled frames; {CARRIED} carried along, not corrected'
    return (
        f'<h2>mIoU (%) by distance from the key frame</h2><p class="note">{note}</p>'
        + _table(['', *(str(distance) for distance in distances)], rows)
        + f'<h3>At distance {distances[-1]} (%)</h3>'
        + _table(['', *(f'IoU {name}' for name in groups), *DETAILS], details)
        + f'<p class="note">{escape(members)}</p>'
        + _corrections(report)
    )


def _corrections(report: dict[str, Any]) -> str:
    distance = corrected_distance(report)
    if distance is None:
        return ''
    rows = [
        [row['name'], *(_value(scores, key) for key in CORRECTION.values())]
        for row in report['rows']
        if (scores := at_distance(row, distance)) and scores['mended_percent'] is not None
    ]
    return f'<h3>The correction at distance {distance} (%)</h3>' + _table(['', *CORRECTION], rows)


def _deployment(report: dict[str, Any]) -> str:
    if 'deployment' not in report['rows'][0]:
        return ''
    rows = []
    for row in report['rows']:
        found = row['deployment']
        cost = found['gmac_per_frame']
        rows.append(
            [
                row['name'],
                *(_value(scores, 'miou_percent') for scores in by_kind(row)),
                _value(found, 'temporal_consistency_percent'),
                *(_value(found.get(kind), 'ece_percent') for kind in ('key', 'propagated')),
                _value(found.get('propagated'), 'corrected_labels_percent'),
                '-' if cost is None else f'{cost:.3f}',
            ]
        )
    interval = max(row['deployment']['key_frame_interval'] for row in report['rows'])
    headings = ['', 'mIoU', 'key', 'propagated', 'TC', 'ECE key', 'ECE prop.', 'CL', 'GMAC / frame']
    note = f'<p class="note">{frames_deployed(report)} labelled frames</p>'
    return f'<h2>Deployed with a key frame every {interval} frames (%)</h2>{note}' + _table(headings, rows)


def _schedules(report: dict[str, Any]) -> str:
    rows = [
        [
            row['name'],
            schedule,
            _value(found, 'key_share_percent'),
            _value(found, 'miou_percent'),
            '-' if found['gmac_per_frame'] is None else f'{found["gmac_per_frame"]:.3f}',
        ]
        for row in report['rows']
        for schedule, found in row.get('schedules', {}).items()
    ]
    if not rows:
        return ''
    headings = ['', 'key frames', 'share of them (%)', 'mIoU (%)', 'GMAC / frame']
    return '<h2>Schedules of key frames</h2>' + _table(headings, rows)


def _by_class(report: dict[str, Any]) -> str:
    distances = distances_of(report)
    names = [entry['name'] for entry in report['classes']]
    rows = []
    for row in report['rows']:
        scores = at_distance(row, distances[-1]) if distances else row.get('deployment', {}).get('all')
        if scores is not None:
            rows.append([row['name'], *(_value(scores['iou_percent'], name) for name in names)])
    where = f'at distance {distances[-1]}' if distances else 'as deployed'
    return f'<h2>IoU (%) of each class, {where}</h2>' + _table(['', *names], rows)


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


def _table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    head = ''.join(f'<th>{escape(heading)}</th>' for heading in headings)
    body = ''.join('<tr>' + ''.join(f'<td>{escape(cell)}</td>' for cell in row) + '</tr>' for row in rows)
    return f'<div class="scroll"><table><tr>{head}</tr>{body}</table></div>'


def _figure(data: bytes, kind: str, caption: str, is_wide: bool = False) -> str:
    source = f'data:image/{kind};base64,{base64.b64encode(data).decode()}'
    text = escape(caption)
    style = ' class="wide"' if is_wide else ''
    return f'<figure{style}><img src="{source}" alt="{text}"><figcaption>{text}</figcaption></figure>'


def _value(scores: Mapping[str, Any] | None, key: str) -> str:
    value = None if scores is None else scores[key]
    return '-' if value is None else f'{value:.2f}'
