"""The tables that `vss bench` prints."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from vss_ros.benchmark.contenders import INTERVALS, computes_in_tf32
from vss_ros.core.rows import Rows
from vss_ros.core.sinks.timings import KINDS, TOTAL

Report = dict[str, Any]


def all_rows(reports: Sequence[Report]) -> Iterator[Rows]:
    """Every table of a run."""
    yield _overview(reports)
    if any(report['every'] for report in reports):
        yield _averages(reports)
    for report in reports:
        yield _stages(report)


def memory_line(peaks: Mapping[str, float | None]) -> str:
    """The memory of all contenders together, see `peak_memory`."""
    line = f'peak memory of the process: {peaks["peak_memory_mb"]:.0f} MB'
    on_gpu = peaks['peak_pytorch_gpu_memory_mb']
    if on_gpu is not None:
        line += f'; of the GPU, PyTorch alone, not TensorRT and ONNX Runtime: {on_gpu:.0f} MB'
    return line


def _overview(reports: Sequence[Report]) -> Rows:
    """What was measured of each contender as a whole."""
    rows = []
    always = ('key', 'propagated')
    kinds = [kind for kind in KINDS if kind in always or any(kind in report['ms'] for report in reports)]
    for report in reports:
        totals = [report['ms'].get(kind, {}).get(TOTAL) for kind in kinds]
        rows.append(
            [
                contender_name(report),
                str(report['key_frame_interval']),
                *(f'{total["p50"]:.1f} / {total["p99"]:.1f}' if total else '-' for total in totals),
                f'{report["mean_ms"]:.1f}',
                f'{report["memory_mb"]:.0f}',
            ]
        )
    figures = (*kinds, 'mean', 'MB')
    return Rows('ms per frame, p50 / p99', ('model, network, engine', 'interval'), figures, rows)


def _averages(reports: Sequence[Report]) -> Rows:
    """What a frame costs at each interval, for the contenders that propagate."""
    rows = []
    for report in reports:
        gmac, found = report['gmac'] or {}, report['every']
        if found:
            every = [found.get(str(n)) for n in INTERVALS]
            rows.append(
                [
                    contender_name(report),
                    *(f'{each["ms"]:.1f}\n{each["share_of_key"]:.0%}' if each else '-' for each in every),
                    *(f'{gmac[step]:.3f}' if step in gmac else '-' for step in ('key', 'propagated')),
                ]
            )
    figures = (*(f'N = {n}' for n in INTERVALS), 'GMAC key', 'prop.')
    title = 'ms per frame with a key frame every N; share of full; GMAC'
    return Rows(title, ('model, network, engine',), figures, rows)


def _stages(report: Report) -> Rows:
    stages = [stage for times in report['ms'].values() for stage in times]
    columns = ('p50', 'p99', 'of\nceiling')
    figures = [f'{kind}\n{columns[0]}' if not at else columns[at] for kind in report['ms'] for at in range(3)]
    rows = []
    for stage in sorted(dict.fromkeys(stages), key=lambda stage: stage == TOTAL):  # the total last
        cells = [stage]
        for kind, times in report['ms'].items():
            time = times.get(stage)
            share = report['roofline'].get(kind, {}).get(stage, {}).get('share')
            cells += [f'{time["p50"]:.2f}', f'{time["p99"]:.2f}'] if time else ['-', '-']
            cells.append('-' if share is None else f'{share:.0%}')
        rows.append(cells)
    return Rows(
        f'ms by stage: {contender_name(report)}, interval {report["key_frame_interval"]}',
        ('stage',),
        figures,
        rows,
        together=len(columns),
    )


def contender_name(report: Report) -> str:
    """Model, network size, and how it is computed, with all that makes it fast."""
    engine, (height, width) = report['engine'], report['network']
    size = f'{width}x{height}' if report['regions'] == '1x1' else f'{report["regions"]} of {width}x{height}'
    how = [engine['engine'], engine['device'], engine['precision']]
    if engine.get('provider', 'CPUExecutionProvider') != 'CPUExecutionProvider':
        how.insert(1, engine['provider'].removesuffix('ExecutionProvider'))
    if computes_in_tf32(engine):
        how.append('(TF32)')
    if engine.get('cuda_graphs') == 'on':
        how.append('recorded')
    return f'{report["model"]} {size}, {" ".join(how)}'
