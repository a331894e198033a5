"""What a graph takes and gives, against what model.yaml says and what a step has."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from vss_ros.core.errors import EngineError
from vss_ros.core.model.files import GraphSpec

Interface = dict[str, tuple[str, tuple[int, ...]]]  # name -> numpy's name of the type, shape


def take_inputs(
    graph: str, graphs: Mapping[str, Sequence[str]], tensors: Mapping[str, Any]
) -> dict[str, Any]:
    """The tensors that `graph` takes, out of all the tensors of a step.

    Args:
        graphs: names of the inputs of every graph of the model.
    Raises:
        EngineError: the model has no such graph, or a tensor the graph takes is not there.
    """
    if graph not in graphs:
        raise EngineError(f'the model has no graph {graph!r}; it has {", ".join(graphs)}')
    missing = [name for name in graphs[graph] if name not in tensors]
    if missing:
        raise EngineError(
            f'graph {graph!r} needs {", ".join(missing)}; the step has {", ".join(tensors)}. '
            'A stream begins with a key step'
        )
    return {name: tensors[name] for name in graphs[graph]}


def check_interface(graph: GraphSpec, inputs: Interface, outputs: Interface) -> None:
    """A graph that takes and gives others than model.yaml says would be read wrong, not fail.

    Args:
        inputs, outputs: what the runtime found in the file.
    Raises:
        EngineError: they are not those of model.yaml.
    """
    for what, found, specs in (('inputs', inputs, graph.inputs), ('outputs', outputs, graph.outputs)):
        expected = {name: (spec.dtype, spec.shape) for name, spec in specs.items()}
        for name in sorted({*found, *expected}):
            if found.get(name) != expected.get(name):
                told, is_there = (_described(each.get(name)) for each in (expected, found))
                raise EngineError(
                    f'{graph.file}: its {what} are not those of model.yaml: {name!r} is {is_there} in the '
                    f'graph, {told} in model.yaml; export it again'
                )


def _described(entry: tuple[str, tuple[int, ...]] | None) -> str:
    return 'not there' if entry is None else f'{entry[0]} {list(entry[1])}'
