"""What `vss calibrate` fits that is part of the graphs: judged, shown, and written as a new model."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from vss_ros.cli.calibrate_clips import fitted_on
from vss_ros.cli.frame_progress import FrameProgress, say
from vss_ros.core.errors import SettingsError, torch_needed

if TYPE_CHECKING:
    from rich.table import Table

    from vss_ros.core.frame import Frame
    from vss_ros.core.model.folder import ModelFolder

    Clips = Iterable[tuple[int, Iterable[Frame]]]


@dataclass(frozen=True)
class Fitted:
    """What was found for a model.

    Attributes:
        option: of its method, which takes the values.
        counted: what they were fitted to, in words.
        table: what they are worth on clips that they were not fitted to.
        notes: the same for model.yaml.
        afterwards: what rests on them and is to be made anew, MADE standing for the new model.
    """

    option: str
    values: list[float]
    counted: str
    table: Table
    notes: dict[str, Any]
    afterwards: str = ''


def calibrate_graphs(
    args: Namespace,
    model: ModelFolder,
    what: str,
    fit: Callable[[ModelFolder, Clips, int], Fitted],
    clips: Clips,
) -> None:
    """Fits, says what it is worth on clips left out, and writes the model with it.

    Args:
        what: name of the notes.
        fit: takes the model, clips with their numbers and the largest span between key frames.
        clips: to fit to, see `numbered_clips`; opened here, once it is known that the model can be written.
    Raises:
        SettingsError, SourceError, ModelError: the model or the data cannot be used; the message says why.
    """
    from rich.console import Console

    if not (args.dry_run or args.output):
        raise SettingsError(
            'what is fitted is part of the graphs, which are made anew; name a folder for the model with -o'
        )
    with torch_needed():
        import torch

        from vss_ros.exporting.export import check_target, export
        from vss_ros.exporting.weights import load_method, stored_dtype

    if args.output and not args.dry_run:
        check_target(args.output)  # now rather than when the work is done
    if args.threads:
        torch.set_num_threads(args.threads)
    with FrameProgress() as progress:
        found = fit(model, ((number, progress.through(clip)) for number, clip in clips), args.span)
    console = Console(highlight=False, markup=False)
    console.print(found.counted)
    console.print(found.table)
    if args.dry_run:
        return
    made = export(
        load_method(model, {found.option: found.values}),
        args.output,
        name=args.output.resolve().name,
        class_set=model.classes,
        image_size=model.image_size,
        training={**model.training, what: {'fitted_on': fitted_on(args), **found.notes}},
        weights_dtype=stored_dtype(model),
        progress=say,
    )
    console.print(f'written: {made.path}', soft_wrap=True)
    if found.afterwards:
        console.print(found.afterwards.replace('MADE', str(made.path)), soft_wrap=True)
