"""A folder's name says which libraries its files may import; these tests keep that true."""

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import vss_ros
from vss_ros.cli.main import VERBS

PACKAGE = Path(vss_ros.__file__).parent

# The library that a file may need to be imported at all, because it is named after what that does.
RUNTIMES = {
    'vss_ros.core.engines.onnx_runtime': 'onnxruntime',
    'vss_ros.core.engines.openvino': 'openvino',
    'vss_ros.core.engines.tensor_rt': 'tensorrt',
    'vss_ros.core.engines.tensor_rt_build': 'tensorrt',
    'vss_ros.core.engines.tensor_rt_engines': 'tensorrt',
    'vss_ros.core.engines.torch_device': 'torch',
    'vss_ros.core.motion.motion_vectors': 'av',
    'vss_ros.core.sources.coded_video': 'av',
    'vss_ros.core.sources.video': 'av',
    'vss_ros.core.sinks.overlay': 'av',
    'vss_ros.core.sources.recorded': 'rosbags',
    'vss_ros.core.sources.bag_masks': 'rosbags',
    'vss_ros.core.sources.bag': 'rosbags',
    'vss_ros.core.sinks.bag': 'rosbags',
}
# Which other folders of the package a folder may import, anywhere in its files.
MAY_IMPORT = {
    'core': {'core'},
    'methods': {'core', 'methods'},
    'exporting': {'core', 'exporting', 'methods'},
    'torch_engine': {'core', 'exporting', 'methods', 'torch_engine'},
    'training': {'core', 'evaluation', 'exporting', 'methods', 'torch_engine', 'training'},
    'evaluation': {'core', 'evaluation'},
    'calibration': {'calibration', 'core', 'evaluation', 'exporting', 'methods', 'torch_engine'},
    'benchmark': {'benchmark', 'core', 'exporting'},
    'ros': {'core', 'ros'},
}
# Imports every module named on the command line with the libraries named first out of reach, and prints
# what each failure was.
IMPORT_ALL = """
import importlib, sys
blocked, modules = sys.argv[1].split(','), sys.argv[2:]

class Block:
    def find_spec(self, name, path=None, target=None):
        if name.split('.')[0] in blocked:
            raise ModuleNotFoundError(f'No module named {name!r}', name=name)

sys.meta_path.insert(0, Block())
for module in modules:
    try:
        importlib.import_module(module)
    except Exception as error:
        print(module, type(error).__name__, *str(error).split())
"""


def modules_of(*folders):
    """Names of all modules under the folders, the packages among them included."""
    files = [file for folder in folders for file in sorted((PACKAGE / folder).rglob('*.py'))]
    parts = [file.relative_to(PACKAGE.parent).with_suffix('').parts for file in files]
    return ['.'.join(part[:-1] if part[-1] == '__init__' else part) for part in parts]


def fails_without(libraries, modules, **variables):
    """Imports modules in a fresh interpreter; returns how those that fail do, by module."""
    command = [sys.executable, '-c', IMPORT_ALL, ','.join(libraries), *modules]
    environment = {**os.environ, **variables}
    result = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=240)
    assert result.returncode == 0, result.stderr
    return dict(line.split(' ', 1) for line in result.stdout.splitlines())


def test_core_imports_without_torch_ros_and_every_runtime():
    heavy = ['torch', 'rclpy', 'sensor_msgs', 'cv_bridge', 'onnx', 'onnxscript', 'safetensors', 'matplotlib']
    fails = fails_without([*heavy, *RUNTIMES.values()], modules_of('core'))
    for module, reason in fails.items():
        assert module in RUNTIMES, f'{module}: {reason}'
        assert reason.startswith('MissingLibraryError'), f'{module}: {reason}'


def test_a_missing_runtime_is_named_with_the_command_that_installs_it():
    fails = fails_without(sorted(set(RUNTIMES.values())), sorted(RUNTIMES.keys() & set(modules_of('core'))))
    assert 'vss_ros.core.engines.onnx_runtime' in fails
    for module, reason in fails.items():
        assert 'is not installed; install it with: pip install ' in reason, f'{module}: {reason}'


def test_beside_a_ros_of_the_system_a_missing_runtime_is_named_as_pip_knows_it():
    fails = fails_without(sorted(set(RUNTIMES.values())), list(RUNTIMES), ROS_DISTRO='jazzy')
    assert fails.keys() == RUNTIMES.keys()
    for module, reason in fails.items():
        command = f"pip install {RUNTIMES[module]} 'numpy<2'"
        assert command in reason, f'{module}: {reason}'


def test_core_needs_no_more_than_the_command_line_without_its_verbs():
    assert fails_without(['torch', 'rclpy', 'av', 'rosbags', 'onnx'], modules_of('benchmark', 'cli')) == {}


def test_a_robot_without_torch_calibrates_its_scheduler():
    assert fails_without(['torch', 'rclpy', 'onnx'], ['vss_ros.calibration.scheduler']) == {}


def test_all_that_needs_torch_imports_without_ros():
    pytest.importorskip('torch')
    pytest.importorskip('onnxscript')
    modules = modules_of('methods', 'exporting', 'torch_engine', 'training', 'calibration')
    assert fails_without(['rclpy', 'sensor_msgs', 'std_msgs'], modules) == {}


def test_the_node_imports_without_torch():
    pytest.importorskip('rclpy')
    assert fails_without(['torch', 'onnx', 'onnxscript', 'av', 'rosbags'], modules_of('ros')) == {}


def test_the_segmenter_loads_neither_torch_nor_ros_nor_a_runtime():
    code = 'import sys, vss_ros.core.stream.segmenter; print(*{name.split(".")[0] for name in sys.modules})'
    result = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True)
    loaded = set(result.stdout.split())
    assert 'vss_ros' in loaded
    assert not loaded & {'torch', 'rclpy', 'onnx', 'onnxruntime', 'av', 'rosbags', 'matplotlib', 'rich'}


@pytest.mark.parametrize('folder', sorted(MAY_IMPORT))
def test_a_folder_imports_only_the_folders_that_it_may(folder):
    for file in sorted((PACKAGE / folder).rglob('*.py')):
        for name in imports_of(ast.parse(file.read_text()), anywhere=True):
            parts = name.split('.')
            if parts[0] == 'vss_ros' and len(parts) > 1 and (PACKAGE / parts[1]).is_dir():
                assert parts[1] in MAY_IMPORT[folder], f'{file.relative_to(PACKAGE)} imports {name}'


def test_core_names_what_lies_below_it_in_two_places_only():
    named = {
        (str(file.relative_to(PACKAGE)), node.value)
        for file in (PACKAGE / 'core').rglob('*.py')
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.Constant) and re.match(r'vss_ros\.(?!core\b)\w+\.', str(node.value))
    }
    assert named == {
        ('core/engines/__init__.py', 'vss_ros.torch_engine.engine:TorchEngine'),
        ('core/model/first_use.py', 'vss_ros.exporting.export'),
    }


def test_a_verb_imports_more_than_core_only_when_it_runs():
    files = [PACKAGE / 'cli' / f'{verb.replace("-", "_")}.py' for verb in VERBS]
    for file in filter(Path.is_file, files):
        for name in imports_of(ast.parse(file.read_text()), anywhere=False):
            if name.startswith('vss_ros.'):
                assert name.split('.')[1] in ('core', 'cli'), f'{file.name} imports {name} at the top'


def imports_of(tree, anywhere):
    """Names of what a file imports: at its top level, or in its functions too."""
    for node in ast.walk(tree) if anywhere else tree.body:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module or ''
