"""Write a model again: for another image size, other options or other classes.

The weights stay as they are; the graphs are made anew from them and proved against PyTorch frame by
frame. Nothing is written if they differ. Example: a model for 640x480 images that decides every pixel,

    vss export camvid-evss-lite -o evss-lite-640 --size 640x480 --set decision=full

Or as another method that makes do with the same networks, DFF say, without its correction:

    vss export camvid-evss-lite -o dff --method dff --set scale_field=false --set flow=dis

With --precision, and without -o, graphs of that precision are added to the model as it is.

A method that was not trained is written from Python, see "A method of your own" in docs/architecture.md.
"""

from __future__ import annotations

import re
from argparse import ArgumentParser, ArgumentTypeError, Namespace
from collections.abc import Iterator
from contextlib import closing
from itertools import islice
from typing import TYPE_CHECKING, Any

import yaml

from vss_ros.cli.frame_progress import say
from vss_ros.core.errors import SettingsError, torch_needed, writing
from vss_ros.core.files.paths import real_path, user_path
from vss_ros.core.model.folder import load_model

if TYPE_CHECKING:
    import numpy as np

    from vss_ros.core.model.folder import ModelFolder
    from vss_ros.methods.method import Method

CALIBRATION_FRAMES = 100


def add_set_argument(parser: ArgumentParser) -> None:
    """`--set OPTION=VALUE`: options of a method, as pairs in `args.set`."""
    parser.add_argument(
        '--set',
        type=option,
        action='append',
        default=[],
        metavar='OPTION=VALUE',
        help='value for an option of the method, such as w_f=0.5; may be repeated',
    )


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument('model', help='model folder, or the name of a model that came with the package')
    parser.add_argument(
        '-o', '--output', type=user_path, help='folder of the new model; a model that lies there is replaced'
    )
    parser.add_argument('--size', type=image_size, help='width and height of the images, such as 480x360')
    parser.add_argument(
        '--method',
        help='another method that has no networks but those of the model; see --set for its options',
    )
    add_set_argument(parser)
    parser.add_argument('--classes', help='another class set with as many classes, by name')
    parser.add_argument('--name', help='name of the new model; default: that of its folder')
    parser.add_argument(
        '--weights', choices=('fp32', 'fp16'), default='fp32', help='how the weights are stored'
    )
    parser.add_argument(
        '--no-graphs',
        action='store_true',
        help='leave the graphs out: they are made where the model is first used, which needs PyTorch once',
    )
    parser.add_argument(
        '--precision',
        choices=('fp32', 'fp16', 'int8'),
        action='append',
        default=[],
        help='also write graphs that compute in this precision: fp16 for TensorRT, int8 for CPUs, fp32 is '
        'there always; may be repeated. model.yaml is written anew, without its comments',
    )
    parser.add_argument(
        '--calibrate',
        type=user_path,
        metavar='FOLDER',
        help='images of a drive, in order, that int8 is calibrated on, the first hundred; needed for int8',
    )


def main(args: Namespace) -> int:
    model = load_model(args.model, graphs=False)
    with torch_needed():
        from vss_ros.exporting.export import WEIGHTS_FILE, export
        from vss_ros.exporting.precisions import add_fp16, add_int8
        from vss_ros.exporting.weights import load_method

    _check(args)
    if not args.output and not model.graphs:
        raise SettingsError(
            f'{model.path} came as weights alone, and --precision adds to the graphs that are there; name a '
            'folder for a whole model with -o'
        )
    made = model
    method = load_method(model, dict(args.set), args.method) if args.output else None
    with writing(args.output or model.path):
        if method is not None:
            _tell_lost_temperatures(args, model, method)
            is_changed = bool(args.set or args.method or args.size)
            made = export(
                method,
                args.output,
                name=args.name or real_path(args.output).name,
                class_set=args.classes or model.classes,
                image_size=args.size or model.image_size,
                training=dict(model.training),
                weights_dtype=args.weights,
                keep_graphs=not args.no_graphs,
                expected_accuracy=None if is_changed else model.expected_accuracy,  # fitted to how it was
                progress=say,
            )
        if 'fp16' in args.precision:
            made = add_fp16(made, say)
        if 'int8' in args.precision:
            made = add_int8(made, _calibration_images(args), say)
    height, width = made.image_size
    files = [graph.file for graph in made.graphs.values()] or [made.path / WEIGHTS_FILE]
    megabytes = sum(file.stat().st_size for file in files) / 1e6
    what = f'{len(made.graphs)} graphs' if made.graphs else 'weights alone'
    print(f'{made.path}: {made.name} for {width}x{height}, {what}, {megabytes:.1f} MB')
    return 0


def _tell_lost_temperatures(args: Namespace, model: ModelFolder, method: Method) -> None:
    """Says what another method keeps of the calibration of the confidence."""
    is_same = args.method in (None, model.method)
    if is_same or 'temperatures' not in model.options or 'temperatures' in dict(args.set):
        return
    kept = method.options.get('temperatures')
    what = f'only that of key frames, {kept[0]}, is kept' if kept else 'none is kept'
    say(
        f'the temperatures of {model.name} were fitted to {model.method}: {what}; fit all of them anew with: '
        f'vss calibrate {args.output} --confidence -o FOLDER --stills FOLDER'
    )


def _check(args: Namespace) -> None:
    if not args.output and not args.precision:
        raise SettingsError('nothing to write: name a folder with -o, or a --precision to add')
    changes = (args.size, args.set, args.classes, args.name, args.method, args.weights != 'fp32')
    if not args.output and any(changes):
        raise SettingsError(
            'another size, method, option, class set, name or kind of weights makes a new model; '
            'name a folder with -o'
        )
    if 'int8' in args.precision and not args.calibrate:
        raise SettingsError('int8 must be calibrated; name a folder of images of a drive with --calibrate')
    if args.no_graphs and not args.output:
        raise SettingsError('a model without graphs is a new one; name a folder with -o')
    if args.no_graphs and args.precision:
        raise SettingsError('--precision adds graphs, and --no-graphs leaves them out; give one of them')
    if args.calibrate and 'int8' not in args.precision:
        raise SettingsError('--calibrate is for int8; add --precision int8, or leave it out')
    for _ in _calibration_images(args) if args.calibrate else ():
        break  # found out now rather than after the export


def _calibration_images(args: Namespace) -> Iterator[np.ndarray]:
    from vss_ros.core.sources.open import open_source

    with closing(open_source(str(args.calibrate))) as source:
        for frame in islice(source, CALIBRATION_FRAMES):
            yield frame.image


def image_size(text: str) -> tuple[int, int]:
    """`480x360` (width x height, as sizes are written) as (360, 480)."""
    match = re.fullmatch(r'(\d+)x(\d+)', text)
    if not match:
        raise ArgumentTypeError(f'{text!r} is no size; write WIDTHxHEIGHT, such as 480x360')
    return int(match[2]), int(match[1])


def option(text: str) -> tuple[str, Any]:
    """`w_f=0.5` as ('w_f', 0.5)."""
    name, equals, value = text.partition('=')
    if not (name and equals):
        raise ArgumentTypeError(f'{text!r} sets nothing; write OPTION=VALUE, such as w_f=0.5')
    try:
        return name, yaml.safe_load(value)
    except yaml.YAMLError as error:
        raise ArgumentTypeError(f'{value!r} is no value for {name}') from error
