"""YAML as people write it by hand: what is given twice is a mistake, not the last one that counts."""

from __future__ import annotations

from collections import Counter
from typing import Any

import yaml


def load_strictly(text: str, references: bool = True) -> Any:
    """What a YAML text says.

    Args:
        references: whether it may refer to parts of itself. A few lines of them can stand for gigabytes.
    Raises:
        yaml.YAMLError: it is no YAML, nested too deep, has a number or date that is none, or an entry twice.
            Which file it is of, the caller says.
    """
    try:
        if not references and any(isinstance(event, yaml.AliasEvent) for event in yaml.parse(text, _Loader)):
            raise yaml.YAMLError('it refers to parts of itself (*name); write out what is meant')
        return yaml.load(text, _Loader)  # noqa: S506  it is a SafeLoader
    except yaml.MarkedYAMLError as error:
        if (mark := error.problem_mark) is None:
            raise
        raise yaml.YAMLError(f'{error.problem} (line {mark.line + 1}, column {mark.column + 1})') from error
    except yaml.YAMLError:
        raise
    except RecursionError as error:
        raise yaml.YAMLError('it is nested too deep') from error
    except Exception as error:  # whatever reading a number or a date raises
        raise yaml.YAMLError(f'a value in it cannot be read: {error}') from error


class _Loader(yaml.SafeLoader):
    """Refuses entries of one name."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        names = Counter(name.value for name, _ in node.value if isinstance(name, yaml.ScalarNode))
        if twice := [name for name, count in names.items() if count > 1 and name != '<<']:
            raise yaml.YAMLError(f'{twice[0]} is given twice (line {node.start_mark.line + 1} and after)')
        return super().construct_mapping(node, deep)
