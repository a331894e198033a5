"""`vss calibrate --correction`: how far the correction of EVSS is let through, by age."""

from __future__ import annotations

from argparse import Namespace
from typing import TYPE_CHECKING, Any

from vss_ros.cli.calibrating import check_output, fitted_on, numbered_clips, write_model
from vss_ros.core.errors import MissingLibraryError

if TYPE_CHECKING:
    from vss_ros.core.model_folder import ModelFolder
    from vss_ros.training.edge_offsets import Samples


def calibrate_correction(args: Namespace, model: ModelFolder) -> None:
    """Fits the offsets, says what they are worth on clips left out, and writes the model with them.

    Raises:
        SettingsError, SourceError, ModelError: the model or the data cannot be used; the message says why.
    """
    from rich.console import Console

    check_output(args)
    try:
        import torch

        from vss_ros.training.edge_offsets import collect, fit_offsets
    except ModuleNotFoundError as error:
        raise MissingLibraryError(error.name or 'torch', 'train') from error

    if args.threads:
        torch.set_num_threads(args.threads)
    samples = collect(model, numbered_clips(args, model), args.span)
    offsets = fit_offsets(samples)
    console = Console(highlight=False, markup=False)
    console.print(
        f'{len(samples.age)} corrected frames of {len(set(samples.clip))} clips or groups of stills'
    )
    table, notes = _judged(samples, offsets)
    console.print(table)
    if args.dry_run:
        return
    notes = {'correction': {'fitted_on': fitted_on(args), **notes}}
    made = write_model(args, model, {'edge_offsets': offsets}, notes, console)
    console.print(
        'The confidence and the adaptive scheduler rest on what is corrected; fit them anew with: '
        f'vss calibrate {made.path} --confidence ..., and vss calibrate ... RECORDING',
        soft_wrap=True,
    )


def _judged(samples: Samples, offsets: list[float]) -> tuple[Any, dict[str, Any]]:
    """A table by age of what the offsets were worth, and are on clips left out; and the same as notes."""
    import numpy as np
    from rich.table import Table

    from vss_ros.training.edge_offsets import cross_validate, miou

    after = cross_validate(samples)
    table = Table('age', title='mIoU % before, and after on clips that were not fitted to')
    for column in ('frames', 'offset', 'mIoU', 'after'):
        table.add_column(column, justify='right')

    def row(name: str, which: np.ndarray, offset: str) -> tuple[float, float]:
        old, new = (100 * miou(counts[which].sum(0)) for counts in (samples.shown, after))
        table.add_row(name, str(which.sum()), offset, f'{old:.2f}', f'{new:.2f}')
        return round(old, 2), round(new, 2)

    for age in np.unique(samples.age):
        row(str(age), samples.age == age, f'{offsets[age - 1]:g}')
    old, new = row('all', np.ones(len(samples.age), bool), '')
    return table, {'miou_percent_before': old, 'miou_percent_after': new}
