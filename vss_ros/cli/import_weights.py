"""Make a model from published weights: those of the EVSS or DAVSS authors, or any state dict of a method.

Takes full models (evss_citys_best, spatial_correction_camvid/best), single networks (csrnet_..., flownet,
dmnet_camvid/now, a public PSPNet of ResNet-50 for st-memory) or several of them together, as PyTorch files of
nothing but tensors, bare or as their `state_dict`, or as .safetensors. key.npy and value.npy beside them
become the memory of st-memory. No code in any of them is run. Examples:

    vss import-weights evss_camvid_best.pth -o models/evss-camvid --classes camvid11 --size 960x720
    vss import-weights best.pth -o models/davss --method davss --classes cityscapes19 --size 1024x512

A public PSPNet is a model by itself, every frame on its own, with --set frames=alone --set refinement=none.
"""

from __future__ import annotations

from argparse import ArgumentParser, Namespace

from vss_ros.cli.export import add_set_argument, image_size
from vss_ros.cli.frame_progress import say
from vss_ros.core.classes import load_classes
from vss_ros.core.errors import ModelError, torch_needed, writing
from vss_ros.core.files.paths import real_path, user_path


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument('weights', type=user_path, nargs='+', help='files that together hold the model')
    parser.add_argument(
        '-o',
        '--output',
        type=user_path,
        required=True,
        help='folder of the new model; a model that lies there is replaced',
    )
    parser.add_argument('--classes', required=True, help='class set of the training: camvid11, cityscapes19')
    parser.add_argument(
        '--size', type=image_size, required=True, help='width and height of the images, such as 960x720'
    )
    parser.add_argument('--method', default='evss', help='what the weights belong to; default: evss')
    add_set_argument(parser)
    parser.add_argument('--name', help='name of the new model; default: that of its folder')
    parser.add_argument('--partial', action='store_true', help='leave networks that are in no file untrained')


def main(args: Namespace) -> int:
    with torch_needed():
        import torch

        from vss_ros.exporting.export import export
        from vss_ros.exporting.import_weights import import_weights, missing_networks
        from vss_ros.methods import build_method

    torch.manual_seed(0)
    method = build_method(args.method, len(load_classes(args.classes)), dict(args.set))
    state = import_weights(args.weights, method)
    untrained = missing_networks(state, method)
    if untrained and not args.partial:
        raise ModelError(
            f'{", ".join(untrained)} is in none of the files; '
            'add its file, or leave it untrained with --partial'
        )
    method.load_state_dict(state, strict=False)
    method.fill_in(untrained)
    with writing(args.output):
        made = export(
            method,
            args.output,
            name=args.name or real_path(args.output).name,
            class_set=args.classes,
            image_size=args.size,
            training={'imported_from': [file.name for file in args.weights], 'untrained': untrained},
            progress=say,
        )
    height, width = made.image_size
    print(f'{made.path}: {made.name} for {width}x{height}, {len(made.graphs)} graphs')
    return 0
