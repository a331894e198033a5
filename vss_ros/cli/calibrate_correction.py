"""`vss calibrate --correction`: how far the correction of EVSS is let through, by age."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np

from vss_ros.cli.calibrate_graphs import Fitted

if TYPE_CHECKING:
    from rich.table import Table

    from vss_ros.calibration.correction import Samples
    from vss_ros.core.frame import Frame
    from vss_ros.core.model.folder import ModelFolder


def fit_correction(model: ModelFolder, clips: Iterable[tuple[int, Iterable[Frame]]], span: int) -> Fitted:
    """The offsets by age, see `calibration/correction.py`."""
    from vss_ros.calibration.correction import collect, fit_offsets

    samples = collect(model, clips, span)
    offsets = fit_offsets(samples)
    table, notes = _judged(samples, offsets)
    return Fitted(
        'edge_offsets',
        offsets,
        f'{len(samples.age)} corrected frames of {len(set(samples.clip))} clips or groups of stills',
        table,
        notes,
        'The confidence and the adaptive scheduler rest on what is corrected; fit them anew with: '
        'vss calibrate MADE --confidence ..., and vss calibrate ... RECORDING',
    )


def _judged(samples: Samples, offsets: list[float]) -> tuple[Table, dict[str, Any]]:
    """A table by age of what the offsets were worth, and are on clips left out; and the same as notes."""
    from rich.table import Table

    from vss_ros.calibration.correction import cross_validate, miou

    after = cross_validate(samples)
    table = Table('age', title='mIoU % before, and after on clips that were not fitted to')
    for column in ('frames', 'offset', 'mIoU', 'after'):
        table.add_column(column, justify='right')

    def row(name: str, which: np.ndarray, offset: str) -> tuple[float, float]:
        old, new = (100 * miou(counts[which], samples.labelled[which]) for counts in (samples.shown, after))
        table.add_row(name, str(which.sum()), offset, f'{old:.2f}', f'{new:.2f}')
        return round(old, 2), round(new, 2)

    for age in np.unique(samples.age):
        row(str(age), samples.age == age, f'{offsets[age - 1]:g}')
    old, new = row('all', np.ones(len(samples.age), bool), '')
    return table, {'miou_percent_before': old, 'miou_percent_after': new}
