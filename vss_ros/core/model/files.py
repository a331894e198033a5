"""The files of a model: graphs with the tensors at their borders, each file vouched for by its sha256."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vss_ros.core.errors import ModelError

# How an ONNX file says that a tensor lies in another file: an entry (field 1, a string) with the key
# `location`; readers take the string's length in any form, also padded. A file without these bytes holds all
# of its tensors.
EXTERNAL_DATA = re.compile(rb'\x0a(?:\x08|\x88\x80{0,8}\x00)location')


@dataclass(frozen=True)
class TensorSpec:
    """Type and static shape of a graph's input or output."""

    dtype: str
    shape: tuple[int, ...]

    def as_yaml(self) -> list[Any]:
        return [self.dtype, list(self.shape)]


@dataclass(frozen=True)
class GraphSpec:
    """One graph: the file it lies in and the tensors it takes and gives, by name.

    Attributes:
        precisions: the same graph with other arithmetic inside and the same tensors at its border:
            precision -> (file, sha256).
    """

    name: str
    file: Path
    sha256: str
    inputs: Mapping[str, TensorSpec]
    outputs: Mapping[str, TensorSpec]
    precisions: Mapping[str, tuple[Path, str]] = field(default_factory=dict)

    def read(self) -> bytes:
        """The bytes of the file. Engines take them from here, see `read_checked`.

        Raises:
            ModelError: they are not those that model.yaml vouches for, or not all that an engine would read.
        """
        data = read_checked(self.file, self.sha256)
        if EXTERNAL_DATA.search(data):
            raise ModelError(
                f'{self.file} keeps tensors in another file, {self.file.name}.data say, for which model.yaml '
                'does not vouch; save it with all of its tensors, as torch.onnx.export does with '
                'external_data=False, or export the model again'
            )
        return data


def checked_file(folder: Path, entry: dict[str, Any]) -> Path:
    """The path of a file named in model.yaml, once it is known to lie inside and to be unharmed."""
    file = folder / entry['file']
    try:
        if not file.resolve().is_relative_to(folder.resolve()):
            raise ModelError(f'{folder}: {entry["file"]} lies outside the model folder; refused')
        if not file.is_file():
            raise ModelError(f'{file} is missing; export or download the model again')
        found = sha256_of(file)
    except (OSError, RuntimeError) as error:  # the latter for links that lead in a circle
        raise _unreadable(file, error) from error
    _check_sha256(file, found, entry['sha256'])
    return file


def read_checked(file: Path, sha256: str) -> bytes:
    """The bytes of a file; checked where they are used, because a file may be replaced at any time.

    Raises:
        ModelError: they cannot be read, or are not those of the sha256.
    """
    try:
        data = file.read_bytes()
    except OSError as error:
        raise _unreadable(file, error) from error
    _check_sha256(file, hashlib.sha256(data).hexdigest(), sha256)
    return data


def _unreadable(file: Path, error: Exception) -> ModelError:
    return ModelError(f'{file} cannot be read: {error}; export or download the model again')


def _check_sha256(file: Path, found: str, expected: Any) -> None:
    if found != str(expected).lower():
        raise ModelError(
            f'{file} is damaged or was changed: its sha256 is {found[:12]}..., model.yaml says '
            f'{str(expected)[:12]}...; export or download the model again, or, if you changed the file, '
            'write what `sha256sum` says of it into model.yaml'
        )


def sha256_of(file: Path) -> str:
    """The sha256 of a file's bytes, in hexadecimal."""
    digest = hashlib.sha256()
    with file.open('rb') as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
