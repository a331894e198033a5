"""The same files make an ament package and a pip package."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import zipfile
from importlib.util import find_spec
from pathlib import Path
from xml.etree import ElementTree

import pytest

ROOT = Path(__file__).parents[1]
FILES = ('package.xml', 'setup.py', 'setup.cfg', 'pyproject.toml')
FOLDERS = ('resource', 'scripts', 'launch', 'config', 'rviz', 'vss_ros')
SHARE = ('launch', 'config', 'rviz', 'models')
MANIFEST = ElementTree.parse(ROOT / 'package.xml').getroot()


@pytest.fixture(scope='module')
def sources(tmp_path_factory) -> Path:
    """A copy of what makes the package, with a small model."""
    folder = tmp_path_factory.mktemp('package')
    for name in FILES:
        shutil.copy2(ROOT / name, folder)
    for name in FOLDERS:
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns('__pycache__'))
    (folder / 'models' / 'tiny').mkdir(parents=True)
    (folder / 'models' / 'tiny' / 'model.yaml').write_text('format: 1\n')
    return folder


@pytest.fixture(scope='module')
def wheel(sources) -> zipfile.ZipFile:
    """The wheel that pip builds."""
    can_build = find_spec('setuptools') and (
        find_spec('setuptools.command.bdist_wheel') or find_spec('wheel')  # setuptools has it from 70.1 on
    )
    if not can_build or find_spec('pip') is None:
        pytest.skip('building a wheel needs pip and setuptools 70.1 (or wheel)')
    command = [sys.executable, '-m', 'pip', 'wheel', '--no-deps', '--no-build-isolation', '--no-index', '-q']
    built = subprocess.run([*command, '-w', 'dist', '.'], cwd=sources, capture_output=True, text=True)
    assert built.returncode == 0, built.stdout + built.stderr
    return zipfile.ZipFile(next((sources / 'dist').glob('*.whl')))


def test_a_wheel_carries_every_share_file_and_the_marker(wheel, sources):
    installed = {name.partition('.data/data/')[2] for name in wheel.namelist()}
    share = {file for folder in SHARE for file in _files(sources, folder)}
    assert len(share) > len(SHARE)
    assert {f'share/vss_ros/{file}' for file in share | {'package.xml'}} <= installed
    assert 'share/ament_index/resource_index/packages/vss_ros' in installed


def test_a_wheel_carries_every_module(wheel, sources):
    modules = {name for name in wheel.namelist() if name.endswith('.py') and name.startswith('vss_ros/')}
    assert modules == {file for file in _files(sources, 'vss_ros') if file.endswith('.py')}


def test_a_wheel_puts_executables_where_ros2_run_looks(wheel):
    metadata = next(name for name in wheel.namelist() if name.endswith('entry_points.txt'))
    entries = wheel.read(metadata).decode()
    commands = dict(re.findall(r'^(\w+) = ([\w.]+):main$', entries, re.MULTILINE))
    assert set(commands) == {'vss', 'segmentation_node'}
    for command, module in commands.items():
        script = ROOT / 'scripts' / command
        assert os.access(script, os.X_OK)
        assert f'from {module} import main\n' in script.read_text()
        assert any(name.endswith(f'data/lib/vss_ros/{command}') for name in wheel.namelist())
        assert (ROOT / Path(*module.split('.'))).with_suffix('.py').is_file()


def test_package_xml_setup_and_changelog_agree_on_the_version(wheel):
    version = MANIFEST.findtext('version')
    assert f'vss_ros-{version}-' in Path(wheel.filename).name
    assert f'## [{version}]' in (ROOT / 'CHANGELOG.md').read_text()


def test_package_xml_names_every_ros_package_that_is_imported():
    named = {element.text for element in MANIFEST.findall('exec_depend')}
    pattern = re.compile(r'^\s*(?:from|import) (\w+)', re.MULTILINE)
    sources = [*(ROOT / 'vss_ros' / 'ros').glob('*.py'), *(ROOT / 'launch').glob('*.py')]
    imported = {name for source in sources for name in pattern.findall(source.read_text())}
    ros = {name for name in imported if name.endswith('_msgs') or name.startswith(('launch', 'ament', 'rcl'))}
    assert ros <= named
    assert {'rclpy', 'sensor_msgs', 'launch_ros'} <= ros


def test_package_xml_names_every_package_that_the_launch_files_start():
    named = {element.text for element in MANIFEST.findall('exec_depend')}
    text = ''.join(file.read_text() for file in (ROOT / 'launch').glob('*.py'))
    started = set(re.findall(r"package='(\w+)'", text)) - {'vss_ros'}
    assert {'rviz2', 'image_transport'} <= started <= named
    assert "'ros2', 'bag', 'play'" in text
    assert {'ros2bag', 'rosbag2_storage_default_plugins'} <= named


def test_package_xml_elements_stand_in_the_order_of_rep_149():
    order = ['name', 'version', 'description', 'maintainer', 'license', 'url', 'author', 'exec_depend',
             'test_depend', 'export']  # fmt: skip
    found = [order.index(element.tag) for element in MANIFEST]
    assert found == sorted(found)
    assert MANIFEST.get('format') == '3'
    assert MANIFEST.findtext('export/build_type') == 'ament_python'


def _files(root: Path, folder: str) -> set[str]:
    """The files below a folder, relative to the root."""
    return {path.relative_to(root).as_posix() for path in (root / folder).rglob('*') if path.is_file()}
