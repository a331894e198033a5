"""`vss calibrate --confidence`: temperatures that make the confidence of a model mean what it says."""

from __future__ import annotations

from argparse import Namespace
from typing import TYPE_CHECKING, Any

from vss_ros.cli.calibrating import check_output, fitted_on, numbered_clips, write_model
from vss_ros.core.errors import MissingLibraryError

if TYPE_CHECKING:
    from vss_ros.core.model_folder import ModelFolder
    from vss_ros.training.confidence import Samples


def calibrate_confidence(args: Namespace, model: ModelFolder) -> None:
    """Fits the temperatures, says what they are worth on clips left out, and writes the model with them.

    Raises:
        SettingsError, SourceError, ModelError: the model or the data cannot be used; the message says why.
    """
    from rich.console import Console

    check_output(args)
    try:
        import torch

        from vss_ros.training.confidence import collect, fit
    except ModuleNotFoundError as error:
        raise MissingLibraryError(error.name or 'torch', 'train') from error

    if args.threads:
        torch.set_num_threads(args.threads)
    samples = collect(model, numbered_clips(args, model), args.span)
    temperatures = fit(samples)
    console = Console(highlight=False, markup=False)
    console.print(
        f'{len(samples.truth)} labelled pixels of {len(set(samples.clip))} clips or groups of stills'
    )
    table, notes = _judged(samples, model, temperatures)
    console.print(table)
    if args.dry_run:
        return
    notes = {'confidence': {'fitted_on': fitted_on(args), **notes}}
    made = write_model(args, model, {'temperatures': temperatures}, notes, console)
    if model.expected_accuracy is not None:
        console.print(
            'The weights of the adaptive scheduler rest on the confidence and were left behind; fit them '
            f'anew with: vss calibrate {made.path} RECORDING',
            soft_wrap=True,
        )


def _judged(samples: Samples, model: ModelFolder, temperatures: list[float]) -> tuple[Any, dict[str, Any]]:
    """A table by age of what the confidence was worth, and is on clips left out; and the same as notes."""
    import numpy as np
    from rich.table import Table

    from vss_ros.training.confidence import by_age, cross_validate, quality

    before = by_age(model.options.get('temperatures', ()), samples.age)
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
