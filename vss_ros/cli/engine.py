"""Build, list, check and remove the TensorRT engines of this machine.

An engine fits one GPU, one TensorRT and one model file, so it is built on the robot, once, and kept in a
cache. The node builds what is missing at its start, which may take minutes; do it beforehand. For fp16 it
takes a copy of a model that came with the package, with graphs of that precision:

    vss export camvid-evss-lite -o mine --precision fp16
    vss engine build mine --precision fp16
"""

from __future__ import annotations

import shutil
from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import Any

from vss_ros.cli.frame_progress import say
from vss_ros.cli.options import add_settings
from vss_ros.core.engines import openvino_cache, remembered
from vss_ros.core.engines.engine_cache import SUFFIX, CachedEngine, EngineCache
from vss_ros.core.errors import EngineError, SettingsError
from vss_ros.core.model.folder import ModelFolder, load_model
from vss_ros.core.settings import EngineSettings

ACTIONS = {
    'build': 'build what is missing, compare it with ONNX Runtime, and keep it',
    'list': 'show the engines in the cache',
    'check': 'compare the engines in the cache with ONNX Runtime again',
    'prune': 'remove the engines of a model, what OpenVINO and ONNX Runtime keep of it, and what trials and '
    'checks of engines found; without a model, only files that are of no complete engine',
}


def add_arguments(parser: ArgumentParser) -> None:
    listing = '; '.join(f'{name}: {text}' for name, text in ACTIONS.items())
    parser.add_argument('action', choices=ACTIONS, help=listing)
    parser.add_argument('model', nargs='?', help='name of a model or its folder')
    parser.add_argument(
        '--precision',
        choices=('fp32', 'fp16', 'int8'),
        help='of build and check (default: fp32); list and prune: only engines of this precision',
    )
    add_settings(parser, EngineSettings, ('gpu_id',))
    parser.add_argument(
        '--engine-cache',
        default='',
        metavar='FOLDER',
        help="default: vss_ros/engines in the user's cache folder",
    )
    parser.add_argument('--force', action='store_true', help='build again what is there already')
    parser.set_defaults(takes_more='model')


def main(args: Namespace) -> int:
    if args.model is None and args.action in ('build', 'check'):
        raise SettingsError(f'vss engine {args.action} needs a model; name one')
    if args.model is None and args.action == 'prune' and args.precision:
        raise SettingsError('vss engine prune --precision needs a model; name one')
    if args.force and args.action != 'build':
        raise SettingsError(f'vss engine {args.action} builds nothing; leave --force out')
    actions = {'build': _build, 'check': _check, 'list': _list, 'prune': _prune}
    return actions[args.action](args)


def _build(args: Namespace) -> int:
    from vss_ros.core.engines.tensor_rt import TensorRtEngine

    engine = TensorRtEngine.load(
        load_model(args.model), _settings(args, 'always' if args.force else 'if_missing'), say
    )
    print(', '.join(f'{name} {value}' for name, value in engine.describe().items()))
    engine.close()
    if not engine.is_kept:
        raise EngineError('the engines work and could not be kept: make room in the engine cache')
    return 0


def _check(args: Namespace) -> int:
    from vss_ros.core.engines.tensor_rt import TensorRtEngine

    engine = TensorRtEngine.load(load_model(args.model), _settings(args, 'never'), say, check_again=True)
    for graph, entry in engine.self_check.items():
        print(f'{graph}: {entry["agreement"]:.3%} of the labels agree, floats differ by {entry["error"]:.2g}')
    return 0


def _list(args: Namespace) -> int:
    from rich.console import Console
    from rich.table import Table

    cache = EngineCache(args.engine_cache)
    table = Table('engine', 'MB', 'for', 'built', 'self-check', title=str(cache.folder))
    for entry in _chosen(cache, args):
        key = entry.key
        table.add_row(
            entry.file.stem,
            f'{entry.size_bytes / 1e6:.1f}',
            f'{key["gpu"]}, {key["runtime"]}',
            f'{entry.facts.get("created", "")} in {entry.facts.get("build_seconds", "?")} s',
            _outcome(entry.self_check),
        )
    if table.row_count:
        Console(markup=False).print(table)
    else:
        print(f'{cache.folder} holds no engine')
    return 0


def _prune(args: Namespace) -> int:
    cache = EngineCache(args.engine_cache)
    compiled: list[Path] = []
    if args.model is None:
        removed = cache.prune(lambda entry: True)
    else:
        unwanted = {entry.file for entry in _chosen(cache, args)}
        removed = cache.prune(lambda entry: entry.file not in unwanted)
        if args.precision is None:
            model = load_model(args.model, graphs=False)
            compiled = openvino_cache.prune(args.engine_cache, model.name) + _of_onnx_runtime(cache, model)
            compiled += remembered.forget_all(cache.folder)
    for path in [*removed, *compiled]:
        print(f'removed {path}')
    engines = [path for path in removed if path.suffix == SUFFIX]
    print(f'{len(engines)} engines removed, {len(cache.entries())} kept')
    return 0


def _of_onnx_runtime(cache: EngineCache, model: ModelFolder) -> list[Path]:
    """Removes what TensorRT keeps of a model for ONNX Runtime; gives the folders."""
    files = [graph.sha256 for graph in model.graphs.values()]
    files += [sha256 for graph in model.graphs.values() for _, sha256 in graph.precisions.values()]
    folders = [folder for sha256 in files for folder in cache.folder.glob(f'onnxruntime/{sha256[:16]}*')]
    for folder in folders:
        shutil.rmtree(folder)
    return folders


def _chosen(cache: EngineCache, args: Namespace) -> list[CachedEngine]:
    """The engines in the cache, those of one model and of one precision if they are named."""
    wanted = {} if args.model is None else {'model': load_model(args.model, graphs=False).name}
    if args.precision is not None:
        wanted['precision'] = args.precision
    return [entry for entry in cache.entries() if wanted.items() <= entry.key.items()]


def _outcome(self_check: Any) -> str:
    if not self_check:
        return 'not made'
    word = 'passed' if self_check['passed'] else 'FAILED'
    return f'{word}: {self_check["agreement"]:.2%}, {self_check["error"]:.1g}'


def _settings(args: Namespace, build: str) -> EngineSettings:
    return EngineSettings(
        'tensorrt', args.precision or 'fp32', args.gpu_id, engine_cache=args.engine_cache, build=build
    )
