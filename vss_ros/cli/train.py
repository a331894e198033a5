"""Train a model by a recipe and export it.

The recipe (a YAML file, or the name of one in config/train) says what is trained, in which stages and
on what; --data says where that lies. A run that was stopped goes on with --resume, on the same curve:

    vss train evss-lite --data camvid:camvid/train --data drive:highway.mp4 -o models/mine

On several GPUs, each batch shared among them (see docs/training.md):

    torchrun --nproc-per-node 4 -m vss_ros.cli.main train RECIPE ...
"""

from __future__ import annotations

import logging
from argparse import ArgumentParser, ArgumentTypeError, Namespace
from pathlib import Path
from typing import TYPE_CHECKING

from vss_ros.cli.frame_progress import say
from vss_ros.core.described import check_setting
from vss_ros.core.errors import SettingsError, torch_needed, writing
from vss_ros.core.files.paths import user_path
from vss_ros.core.settings import EngineSettings

if TYPE_CHECKING:
    import torch

    from vss_ros.training.processes import Processes
    from vss_ros.training.trainer import Trainer


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument('recipe', help='YAML file, or the name of a recipe that came with the package')
    parser.add_argument(
        '--data',
        type=named_path,
        action='append',
        default=[],
        metavar='NAME:PATH',
        help='where data of the recipe lies: a folder with images/ and labels/, a video, or the root of a '
        'data set whose layout the recipe names; may be repeated',
    )
    parser.add_argument(
        '-o', '--output', type=user_path, metavar='FOLDER', help='of the model; without it none is exported'
    )
    parser.add_argument(
        '--runs',
        type=user_path,
        default=Path('runs'),
        metavar='FOLDER',
        help='of checkpoints and logs (default: %(default)s)',
    )
    parser.add_argument('--resume', action='store_true', help='go on from the checkpoints of this recipe')
    parser.add_argument(
        '--device',
        default='auto',
        help='auto (CUDA if there is one), cpu, cuda, cuda:1 ... (default: %(default)s)',
    )
    parser.add_argument(
        '--threads',
        type=int,
        default=0,
        help='CPU threads; 0: as many as there are cores (default: %(default)s)',
    )


def main(args: Namespace) -> int:
    with torch_needed():
        import torch

        from vss_ros.exporting.export import check_target
        from vss_ros.training.processes import joined, own_device
        from vss_ros.training.recipe import load_recipe
        from vss_ros.training.trainer import Trainer

    check_setting(EngineSettings, 'threads', args.threads)
    if args.threads:
        torch.set_num_threads(args.threads)
    recipe = load_recipe(args.recipe)
    if len(dict(args.data)) < len(args.data):
        raise SettingsError('a NAME of --data was given twice; give each once, with all of it in one folder')
    if args.output is not None:
        check_target(args.output)  # now rather than after days
    wanted = args.device
    if wanted == 'auto':
        wanted = 'cuda' if torch.cuda.is_available() else 'cpu'
    name = own_device(wanted)
    _check_device(name)  # its own: a look at another GPU takes memory there
    device = torch.device(name)
    with joined(device) as processes:
        if processes.first:
            logging.getLogger('vss_ros.training').setLevel(logging.INFO)  # which tells what it begins
            stages = ', '.join(f'{stage.name} ({stage.fit.steps} steps)' for stage in recipe.stages)
            say(f'{recipe.name} on {device}: {stages}; reading its data')
        trainer = Trainer(recipe, dict(args.data), args.runs / recipe.name)
        if not processes.first:
            trainer.run(device, args.resume, lambda stage, step, values: None, processes)
            return 0
        _train(trainer, args, device, processes)
    return 0


def _train(trainer: Trainer, args: Namespace, device: torch.device, processes: Processes) -> None:
    """Train, report and export, in the one process that writes."""
    from vss_ros.exporting.export import export
    from vss_ros.training.progress import Progress
    from vss_ros.training.report import copy_report, write_card, write_report

    recipe = trainer.recipe
    with Progress({stage.name: stage.fit.steps for stage in recipe.stages}) as progress:
        weights = trainer.run(device, args.resume, progress, processes)
    print(weights)
    if args.output is not None:  # first of all, so that nothing comes between a training and its model
        with writing(args.output):
            export(
                trainer.method,
                args.output,
                name=args.output.resolve().name,
                class_set=recipe.classes,
                image_size=(recipe.height, recipe.width),
                training={'recipe': recipe.name, **trainer.scores},
                weights_dtype=recipe.weights,
                progress=say,
            )
    write_report(trainer, trainer.folder, device, processes)
    if args.output is not None:
        copy_report(trainer.folder, args.output)
        write_card(trainer, args.output)
        print(args.output)


def _check_device(name: str) -> None:
    """Raises SettingsError unless tensors can be made there, and come back."""
    import torch

    try:
        torch.zeros(1, device=torch.device(name)).cpu()
    except (RuntimeError, AssertionError) as error:
        raise SettingsError(f'device {name} cannot be used here: {error}') from error


def named_path(text: str) -> tuple[str, Path]:
    """`camvid:data/train` as ('camvid', Path('data/train'))."""
    name, colon, path = text.partition(':')
    if not (name and colon and path):
        raise ArgumentTypeError(f'{text!r} names no data; write NAME:PATH, such as camvid:data/train')
    return name, user_path(path)
