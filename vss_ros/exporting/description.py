"""What model.yaml says of a method, and how it is written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml
from torch import Tensor

from vss_ros.core.classes import ClassSet
from vss_ros.core.errors import ModelError
from vss_ros.core.model.folder import FORMAT
from vss_ros.methods import METHODS
from vss_ros.methods.method import Method


def description_of(
    method: Method, name: str, classes: ClassSet, image_size: tuple[int, int]
) -> dict[str, Any]:
    """What model.yaml says of a method, its graphs and weights left out.

    Args:
        name: what the model calls itself.
        image_size: (height, width) in pixels.
    Raises:
        ModelError: the method is in no line of METHODS.
    """
    return {
        'format': FORMAT,
        'name': name,
        'method': method_name(method),
        'options': dict(method.options),
        'classes': classes.as_entry(),
        'image': {'height': image_size[0], 'width': image_size[1]},
        'flow': str(method.options.get('flow', 'none')),
        'steps': {step: list(stages) for step, stages in method.steps.items()},
        'state': dict(method.state),
        'delay_frames': method.delay_frames,
        'correction_interval': method.correction_interval,
    }


def method_name(method: Method) -> str:
    """The key of METHODS that builds methods of this class.

    Raises:
        ModelError: there is none.
    """
    wanted = f'{type(method).__module__}:{type(method).__qualname__}'
    for name, target in METHODS.items():
        if target == wanted:
            return name
    raise ModelError(f'{wanted} is in no line of METHODS, so a model of it could not be rebuilt; add one')


def spec(tensor: Tensor) -> list[Any]:
    """Type and shape of a tensor as model.yaml has them, `[uint8, [1, 360, 480, 3]]`, on one line."""
    return Row([str(tensor.dtype).removeprefix('torch.'), Row(tensor.shape)])


class Row(list):
    """A list that YAML writes on one line."""


class _Dumper(yaml.SafeDumper):
    def ignore_aliases(self, data: Any) -> bool:
        return True  # a description that refers to itself would be refused


_Dumper.add_representer(
    Row, lambda dumper, row: dumper.represent_sequence('tag:yaml.org,2002:seq', row, flow_style=True)
)


def write_yaml(content: dict[str, Any], file: Path) -> None:
    """Writes a description; the caller sees to it that nobody reads the file too early.

    Raises:
        ModelError: it holds something other than plain values.
    """
    try:
        text = yaml.dump(content, Dumper=_Dumper, sort_keys=False, default_flow_style=None, width=110)
    except yaml.representer.RepresenterError as error:
        raise ModelError(f'training and options hold plain values only: {error.args[0]}') from error
    file.write_text(text)
