"""`vss calibrate --confidence`: temperatures that make the confidence of a model mean what it says."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np

from vss_ros.cli.calibrate_graphs import Fitted

if TYPE_CHECKING:
    from rich.table import Table

    from vss_ros.calibration.confidence import Samples
    from vss_ros.core.frame import Frame
    from vss_ros.core.model.folder import ModelFolder


def fit_confidence(model: ModelFolder, clips: Iterable[tuple[int, Iterable[Frame]]], span: int) -> Fitted:
    """The temperatures by age, see `calibration/confidence.py`."""
    from vss_ros.calibration.confidence import collect, fit

    samples = collect(model, clips, span)
    temperatures = fit(samples)
    table, notes = _judged(samples, model, temperatures)
    afterwards = (
        'The weights of the adaptive scheduler rest on the confidence and were left behind; fit them anew '
        'with: vss calibrate MADE RECORDING'
    )
    return Fitted(
        'temperatures',
        temperatures,
        f'{len(samples.truth)} labelled pixels of {len(set(samples.clip))} clips or groups of stills',
        table,
        notes,
        '' if model.expected_accuracy is None else afterwards,
    )


def _judged(samples: Samples, model: ModelFolder, temperatures: list[float]) -> tuple[Table, dict[str, Any]]:
    """A table by age of what the confidence was worth, and is on clips left out; and the same as notes."""
    from rich.table import Table

    from vss_ros.calibration.confidence import cross_validate, quality
    from vss_ros.evaluation.deciding import temperature_at

    before = temperature_at(model.options.get('temperatures', ()), samples.age)
    after = cross_validate(samples)
    table = Table('age', title='confidence before, and after on clips that were not fitted to')
    for column in ('pixels', 'temperature', 'NLL', 'after', 'ECE %', 'after'):
        table.add_column(column, justify='right')

    def row(name: str, which: np.ndarray, temperature: str) -> dict[str, Any]:
        old, new = (quality(samples.of(which), each[which]) for each in (before, after))
        cells = f'{old.nll:.4f}', f'{new.nll:.4f}', f'{old.ece_percent:.2f}', f'{new.ece_percent:.2f}'
        table.add_row(name, str(which.sum()), temperature, *cells)
        return {
            'nll_before': old.nll,
            'nll_after': new.nll,
            'ece_percent_before': old.ece_percent,
            'ece_percent_after': new.ece_percent,
        }

    for age, temperature in enumerate(temperatures):
        if (which := samples.age == age).any():
            row(str(age), which, f'{temperature:.3f}')
    return table, row('all', np.ones(len(samples.age), bool), '')
