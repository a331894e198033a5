"""Our TensorRT builder and runner, checked without a GPU; see tensorrt_contract.py.

What this cannot show: parsing, building, numbers, speed and stream order of the real library.
"""

from __future__ import annotations

import ast
import json
import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import vss_ros

HERE = Path(__file__).parent
SOURCES = sorted((Path(vss_ros.__file__).parent / 'core' / 'engines').glob('tensor_rt*.py'))
TABLE = json.loads((HERE / 'tensorrt_names.json').read_text())
BINDINGS = {version: f'tensorrt-cu12-bindings=={version}' for version in TABLE}  # about 1 MB each


def contract(*arguments: str) -> dict:
    """What tensorrt_contract.py reports, by version."""
    command = [sys.executable, str(HERE / 'tensorrt_contract.py'), *arguments]
    environment = {**os.environ, 'PYTHONPATH': str(HERE.parents[2]), 'OMP_NUM_THREADS': '1'}
    result = subprocess.run(command, capture_output=True, text=True, timeout=280, env=environment)
    assert result.returncode == 0, result.stderr[-3000:]
    return json.loads(result.stdout.splitlines()[-1])


def assert_all_hold(report: dict) -> None:
    assert len(report['cases']) > 20
    broken = {name: text for name, text in report['cases'].items() if text}
    assert not broken, '\n\n'.join(f'{name}:\n{text}' for name, text in broken.items())


@pytest.fixture(scope='module')
def by_table(tiny_model) -> dict:
    """The cases with classes made of the committed table, for every version of it."""
    return contract('--tables', *TABLE, '--model', str(tiny_model))


@pytest.mark.parametrize('version', TABLE)
def test_builder_and_runner_keep_to_the_names_of_tensorrt(by_table, version):
    assert_all_hold(by_table[version])


@pytest.mark.parametrize('version', TABLE)
def test_the_sources_name_nothing_that_a_version_does_not_have(version):
    found = {chain for file in SOURCES for chain in chains_of_trt(ast.parse(file.read_text()))}
    assert {'Builder', 'Runtime', 'OnnxParser', 'DataType.UINT8', 'ILogger.ERROR'} <= found
    known = {'__version__', *TABLE[version]}
    known |= {f'{name}.{member}' for name, members in TABLE[version].items() for member in members}
    assert found <= known, f'not in TensorRT {version}: {sorted(found - known)}'


def chains_of_trt(tree: ast.AST) -> set[str]:
    """`Class` and `Class.member` of every `trt.Class.member` in a file."""
    chains = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == 'trt':
            chains.add(node.attr)
        inner = node.value if isinstance(node, ast.Attribute) else None
        if isinstance(inner, ast.Attribute) and isinstance(inner.value, ast.Name) and inner.value.id == 'trt':
            chains.add(f'{inner.attr}.{node.attr}')
    return chains


def test_the_sources_use_nothing_that_tensorrt_11_has_dropped():
    text = '\n'.join(file.read_text() for file in SOURCES)
    for name in (
        'EXPLICIT_BATCH',
        'BuilderFlag',
        'set_flag',
        'platform_has_fast',
        'execute_async_v2',
        'binding_',
    ):
        assert name not in text


@pytest.mark.parametrize('version', TABLE)
def test_the_real_bindings_agree_with_the_table_and_with_our_code(version, tiny_model):
    report = contract('--bindings', str(bindings(version)), '--model', str(tiny_model))[version]
    assert report['table'] == TABLE[version]
    assert_all_hold(report)


def bindings(version: str) -> Path:
    """A folder with the bindings of one version, installed once into the user's cache folder."""
    if (platform.system(), platform.machine()) != ('Linux', 'x86_64'):
        pytest.skip('the bindings are taken from the wheels for Linux on x86_64')
    for tool in ('cc', 'nm', 'readelf'):
        if shutil.which(tool) is None:
            pytest.skip(f'{tool} is not installed; it makes the libraries that the bindings are loaded over')
    cache = Path(os.environ.get('XDG_CACHE_HOME') or Path.home() / '.cache') / 'vss_ros' / 'tensorrt-bindings'
    folder = cache / f'{version}-{sys.implementation.cache_tag}'
    if not any(folder.glob('tensorrt_bindings/tensorrt*.so')):
        draft = folder.with_name(f'.{folder.name}-{os.getpid()}')
        options = [
            '--quiet',
            '--disable-pip-version-check',
            '--no-deps',
            '--only-binary',
            ':all:',
            '--retries',
            '0',
        ]
        command = [
            sys.executable,
            '-m',
            'pip',
            'install',
            *options,
            '--target',
            str(draft),
            BINDINGS[version],
        ]
        try:
            result = subprocess.run(command, capture_output=True, text=True, timeout=60)
        except subprocess.TimeoutExpired:
            result = None
        if result is None or result.returncode:
            shutil.rmtree(draft, ignore_errors=True)
            pytest.skip(
                f'{BINDINGS[version]} cannot be had here: {result.stderr[-200:] if result else "too slow"}'
            )
        try:
            draft.rename(folder)
        except OSError:  # another worker was faster
            shutil.rmtree(draft, ignore_errors=True)
    return folder


@pytest.mark.parametrize('version', ['8.6.1', '10.0.1'])
def test_a_tensorrt_that_is_too_old_is_refused_before_a_name_is_used_that_it_lacks(version, tmp_path):
    (tmp_path / 'tensorrt.py').write_text(f"__version__ = '{version}'\n")
    code = (
        'from vss_ros.core.engines import engine_class\n'
        'from vss_ros.core.errors import EngineError\n'
        'try:\n'
        "    engine_class('tensorrt')\n"
        'except EngineError as error:\n'
        '    print(error)\n'
    )
    path = os.pathsep.join([str(tmp_path), str(HERE.parents[2])])
    found = subprocess.run(
        [sys.executable, '-c', code],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, 'PYTHONPATH': path},
    )
    assert found.stdout == f'TensorRT {version} is too old; use 10.3 or newer\n', found.stderr
