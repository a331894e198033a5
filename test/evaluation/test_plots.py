"""The plots of a report: what stands in them, and in their legends."""

from __future__ import annotations

import json

import cv2
import numpy as np
import pytest


def test_in_the_plots_only_carried_frames_of_a_row_that_corrects_are_hollow(report):
    from vss_ros.evaluation import plots

    content = json.loads((report / 'report.json').read_text())
    for draw in (plots.draw_pda, plots.draw_cca):
        [axes] = draw(content).axes
        assert 'hollow' not in axes.get_legend().get_title().get_text()
    content['rows'][0]['correction_interval'] = 3  # so distance 2 is carried
    for draw in (plots.draw_pda, plots.draw_cca):
        [axes] = draw(content).axes
        filled, hollow, *others = axes.lines
        assert [len(line.get_xdata()) for line in (filled, hollow)] == [1, 1]
        assert hollow.get_linestyle() == 'None'
        assert hollow.get_markerfacecolor() == 'white'
        assert len(others) == 2
        assert 'hollow: carried, not corrected' in axes.get_legend().get_title().get_text()


def legends(figure):
    found = [axes.get_legend() for axes in figure.axes]
    return [text.get_text() for legend in found if legend for text in legend.get_texts()]


def schedules(*names):
    def entry(name):
        kind, setting = name.split()
        adaptive = kind == 'adaptive'
        return {
            'scheduler': 'adaptive' if adaptive else 'fixed',
            'key_frame_interval': None if adaptive else int(setting),
            'key_frame_threshold': float(setting) if adaptive else None,
            'gmac_per_frame': 1.0,
            'miou_percent': 50.0,
        }

    return {name: entry(name) for name in names}


def test_names_that_begin_with_an_underscore_are_in_every_legend(report):
    from vss_ros.evaluation import plots

    content = json.loads((report / 'report.json').read_text())
    for row in content['rows']:
        row['name'] = f'_{row["name"]}'
    content['rows'][0]['schedules'] = schedules('every 2', 'adaptive 0.5')
    names = ['_tiny', '_tiny, warp only', '_tiny, per frame']
    assert legends(plots.draw_pda(content)) == legends(plots.draw_cca(content)) == names
    assert legends(plots.draw_classes(content)) == [*names, 'key frame']
    assert [text.split(':')[0] for text in legends(plots.draw_reliability(content))] == [
        *names,
        '_tiny',
        '_tiny, warp only',
    ]
    assert legends(plots.draw_schedules(content)) == ['_tiny, fixed', '_tiny, adaptive']


def test_a_kind_of_schedule_that_did_not_run_is_not_drawn(report):
    from vss_ros.evaluation import plots

    content = json.loads((report / 'report.json').read_text())
    content['rows'][0]['schedules'] = schedules('every 2', 'every 5')
    figure = plots.draw_schedules(content)
    assert legends(figure) == ['tiny, fixed']
    assert figure.axes[0].get_legend().get_title().get_text() == 'numbers: interval'


def test_plots_are_pictures_with_something_in_them(report):
    for path in report.glob('*.png'):
        assert np.ptp(cv2.imread(str(path))) > 100


def test_plots_show_nothing_as_a_key_frame_or_propagated_that_is_not(report):
    from vss_ros.evaluation import plots

    content = json.loads((report / 'report.json').read_text())
    assert plots.draw_classes(content).axes[0].collections
    model, _, per_frame = content['rows']
    for row in content['rows']:
        row['distance'] = {'2': row['distance'].get('2', row['distance'].get('0'))}
        del row['deployment']
    assert not plots.draw_classes(content).axes[0].collections
    content['rows'] = [model, per_frame]
    (legend,) = [axes.get_legend() for axes in plots.draw_reliability(content).axes if axes.get_legend()]
    assert [text.get_text().split(':')[0] for text in legend.get_texts()] == ['tiny']


def test_numbers_of_points_are_not_written_over_each_other(report):
    from vss_ros.evaluation import plots

    content = json.loads((report / 'report.json').read_text())
    row = content['rows'][0]
    row['schedules'] = schedules('every 2', 'every 5', 'every 12', 'adaptive 0.9', 'adaptive 0.95')
    for number, entry in enumerate(row['schedules'].values()):
        entry['gmac_per_frame'] += 0.01 * number  # nearly one point
    row['schedules']['far'] = {**schedules('every 3')['every 3'], 'gmac_per_frame': 3.0, 'miou_percent': 60.0}
    figure = plots.draw_schedules(content)
    figure.canvas.draw()
    texts = figure.axes[0].texts
    assert {text.get_text() for text in texts} == {'2', '3', '5', '12', '0.9', '0.95'}
    boxes = [text.get_window_extent() for text in texts]
    hits = [(a, b) for i, a in enumerate(boxes) for b in boxes[i + 1 :] if a.overlaps(b)]
    assert not hits


def test_a_curve_that_others_lie_upon_is_seen_beneath_them(report):
    from vss_ros.evaluation import plots

    content = json.loads((report / 'report.json').read_text())
    twin = {**content['rows'][0], 'name': 'twin', 'model': 'twin'}
    content['rows'].append(twin)
    [axes] = plots.draw_pda(content).axes
    first, *_, last = axes.lines
    assert list(first.get_ydata()) == list(last.get_ydata())
    assert first.get_linewidth() > last.get_linewidth()
    assert first.get_markersize() > last.get_markersize()


@pytest.mark.parametrize('name', ['pda', 'cca', 'reliability', 'classes'])
def test_what_a_plot_is_of_stands_above_all_that_is_drawn(report, name):
    from vss_ros.evaluation import plots

    content = json.loads((report / 'report.json').read_text())
    content['rows'] += [
        {**row, 'name': f'other, {row["name"]}'} for row in content['rows']
    ]  # legends of two rows
    figure = getattr(plots, f'draw_{name}')(content)
    before = figure.get_tightbbox().ymax
    plots._say_of_what(figure, content, name)
    [text] = figure.texts
    assert 'labelled frames' in text.get_text()
    assert text.get_window_extent().ymin >= before * figure.dpi
