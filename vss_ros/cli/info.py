"""Show the models at hand and the engines that work here, or all about one model.

Every file of the model is checked against its sha256.
"""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from vss_ros.core.classes import ClassSet
    from vss_ros.core.model.files import TensorSpec
    from vss_ros.core.model.folder import ModelFolder


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument('model', nargs='?', help='name of a model or its folder; without it: all models')


def main(args: Namespace) -> int:
    from rich.console import Console

    from vss_ros.core.errors import EngineError
    from vss_ros.core.model.folder import load_model

    console = Console(markup=False)
    if args.model is None:
        _show_models(console)
        return 0
    model = load_model(args.model, make=False)
    _show_model(console, args.model, model)
    table, works = _engine_table(model if model.graphs else None)
    console.print(table)
    if model.graphs and not works:
        raise EngineError(f'no engine here takes {model.name} as it is; the table of engines says why')
    return 0


def _show_models(console: Console) -> None:
    from rich.table import Table
    from rich.text import Text

    from vss_ros.core.errors import VssError
    from vss_ros.core.model.folder import list_models, load_model

    table = Table('model', 'method', 'classes', 'image', 'flow', title='Models')
    for name in list_models():
        try:
            model = load_model(name, graphs=False)
        except VssError as error:
            table.add_row(name, Text(str(error), 'red'))
            continue
        height, width = model.image_size
        table.add_row(name, _method(model), model.classes.name, f'{width}x{height}', model.flow)
    if table.row_count:
        console.print(table)
    else:
        console.print(
            'No model came with this installation; make one with `vss train` or `vss import-weights`.'
        )
    console.print(_engine_table(None)[0])


def _show_model(console: Console, name: str, model: ModelFolder) -> None:
    from rich.table import Table

    from vss_ros.core.model.cost import count_parameters
    from vss_ros.core.model.folder import find_model

    folder = find_model(name)
    height, width = model.image_size
    facts = Table(title=model.name, show_header=False)
    facts.add_row('folder', str(folder))
    if folder != model.path:
        facts.add_row('graphs in', str(model.path))
    facts.add_row('method', f'{_method(model)} {dict(model.options) or ""}'.strip())
    facts.add_row('classes', _swatches(model.classes))
    facts.add_row('image', f'{width}x{height}')
    facts.add_row('flow', model.flow)
    for step, stages in model.steps.items():
        facts.add_row(f'{step} step', ' > '.join(stages))
    facts.add_row('state', ', '.join(f'{output} > {name}' for output, name in model.state.items()))
    if model.delay_frames:
        facts.add_row('results', f'late: a frame is answered once {model.delay_frames} more have come')
    if model.weights is not None:
        facts.add_row('parameters', f'{count_parameters(model.weights):,}')
    facts.add_row('files', _files(model))
    console.print(facts)
    if model.graphs:
        console.print(_graph_table(model))
    else:
        console.print('Its graphs are made when it is first used, which needs PyTorch that once.')


def _method(model: ModelFolder) -> str:
    from vss_ros.methods import METHODS

    is_known = model.method in (*METHODS, 'none')  # what was never trained here needs none
    return model.method if is_known else f'{model.method} (not known here)'


def _files(model: ModelFolder) -> str | Text:
    """Whether they are all that the model needs; their sha256 was checked when it was loaded."""
    from rich.text import Text

    from vss_ros.core.errors import ModelError

    try:
        for graph in model.graphs.values():
            graph.read()
    except ModelError as error:
        return Text(str(error), 'red')
    return 'complete, as model.yaml says (sha256)'


def _graph_table(model: ModelFolder) -> Table:
    from rich.table import Table

    from vss_ros.core.errors import MissingLibraryError, ModelError
    from vss_ros.core.model.cost import cost_of

    table = Table('graph', 'takes', 'gives', title='Graphs (GMAC: 10^9 multiply-adds)')
    table.add_column('MB', justify='right', no_wrap=True)
    table.add_column('GMAC', justify='right', no_wrap=True)
    macs: dict[str, int] = {}
    for graph in model.graphs.values():
        try:
            macs[graph.name] = cost_of(graph.file).macs
        except (MissingLibraryError, ModelError) as error:
            table.caption = f'Not counted: {error}'
        table.add_row(
            graph.name,
            '\n'.join(_tensor(name, spec) for name, spec in graph.inputs.items()),
            '\n'.join(_tensor(name, spec) for name, spec in graph.outputs.items()),
            f'{graph.file.stat().st_size / 1e6:.1f}',
            f'{macs[graph.name] / 1e9:.3f}' if graph.name in macs else '-',
        )
    if macs:
        table.add_section()
        for step, stages in model.steps.items():
            total = sum(macs.get(stage, 0) for stage in stages)
            table.add_row(f'{step} step', '', '', '', f'{total / 1e9:.3f}')
    return table


def _engine_table(model: ModelFolder | None) -> tuple[Table, bool]:
    """Which engines work here, and whether any does: with a model they load it, or else are imported."""
    from rich.table import Table

    from vss_ros.core.engines import ENGINE_CLASSES, engine_class, load_engine
    from vss_ros.core.errors import VssError
    from vss_ros.core.settings import EngineSettings

    table, works = Table('engine', 'here', title='Engines'), False
    for name in ENGINE_CLASSES:
        try:
            if model is None:
                engine_class(name)
                state = 'installed'
            else:
                engine = load_engine(model, EngineSettings(engine=name, build='never'))  # it takes minutes
                described = engine.describe()
                engine.close()
                state = ', '.join(f'{key} {value}' for key, value in described.items() if key != 'engine')
            works = True
        except VssError as error:
            state = f'no: {error}'
        table.add_row(name, state)
    return table, works


def _swatches(classes: ClassSet) -> Text:
    from rich.text import Text

    text = Text(f'{classes.name}\n')
    for i, (name, (red, green, blue)) in enumerate(zip(classes.names, classes.colours, strict=True)):
        text.append('  ', style=f'on rgb({red},{green},{blue})')
        text.append(f' {i} {name}   ')
    return text


def _tensor(name: str, spec: TensorSpec) -> str:
    return f'{name} {spec.dtype} {"x".join(map(str, spec.shape)) or "scalar"}'
