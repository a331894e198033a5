"""The launch files and RViz, as far as they can be checked without `launch`, which has no wheel.

The launch files themselves run here; what they import from `launch` are stand-ins that keep what they are
given.
"""

import importlib.util
import os
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
import yaml

from vss_ros.core.errors import SettingsError
from vss_ros.ros import fast_dds
from vss_ros.ros.settings import IMAGE_TRANSPORTS

ROOT = Path(__file__).parents[2]
ARGUMENTS = {
    'segmentation': (
        'namespace params_file input_image_topic image_transport model engine precision gpu_id '
        'use_sim_time autostart rviz log_level'
    ),
    'multi_camera': 'cameras',
    'replay': 'bag rate loop delay rviz use_sim_time',
}
STAND_INS = {
    'ament_index_python.packages': ('get_package_share_directory',),
    'launch': ('LaunchContext', 'LaunchDescription'),
    'launch.actions': (
        'DeclareLaunchArgument',
        'ExecuteProcess',
        'IncludeLaunchDescription',
        'OpaqueFunction',
    ),
    'launch.launch_description_sources': ('PythonLaunchDescriptionSource',),
    'launch.substitutions': ('LaunchConfiguration',),
    'launch_ros.actions': ('LifecycleNode', 'Node'),
}


class Kept:
    """Keeps what a launch file says."""

    def __init__(self, kind, words, options):
        self.kind, self.words, self.options = kind, words, options

    def perform(self, context):
        return context[self.words[0]]

    def __repr__(self):
        return f'{self.kind}{self.words}{self.options}'


@pytest.fixture
def no_profile(monkeypatch):
    """No profile of Fast DDS is set, and what a test sets is gone after it."""
    for name in fast_dds.VARIABLES:
        monkeypatch.setenv(name, '')


@pytest.fixture
def free(monkeypatch, no_profile):
    """Says how many MB of shared memory are free."""

    def say(megabytes):
        status = SimpleNamespace(f_bavail=megabytes, f_frsize=2**20)
        monkeypatch.setattr(os, 'statvfs', lambda folder: status)

    return say


@pytest.fixture
def load(monkeypatch, no_profile):
    """Loads a launch file among stand-ins."""

    def maker(kind):
        return lambda *words, **options: Kept(kind, words, options)

    for module_name, names in STAND_INS.items():
        parent = module_name.partition('.')[0]
        monkeypatch.setitem(sys.modules, parent, sys.modules.get(parent) or ModuleType(parent))
        module = sys.modules[parent] if parent == module_name else ModuleType(module_name)
        monkeypatch.setitem(sys.modules, module_name, module)
        for name in names:
            setattr(module, name, maker(name))
    sys.modules['ament_index_python.packages'].get_package_share_directory = lambda name: f'/share/{name}'

    def load_file(name):
        spec = importlib.util.spec_from_file_location(name, ROOT / 'launch' / f'{name}.launch.py')
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module

    return load_file


def given(module, **values):
    """The arguments of a launch file as its user gives them, the others at their defaults."""
    return {name: default for name, default, _ in module.ARGUMENTS} | values


@pytest.mark.parametrize('name', ARGUMENTS)
def test_a_launch_file_takes_its_arguments(load, name):
    module = load(name)
    actions = module.generate_launch_description().words[0]
    declared = [action.words[0] for action in actions if action.kind == 'DeclareLaunchArgument']
    assert declared == [name for name, _, _ in module.ARGUMENTS] == ARGUMENTS[name].split()


def test_one_camera_has_one_node_in_its_namespace_with_what_was_given(load):
    module = load('segmentation')
    context = given(module, namespace='front', model='my-model', gpu_id='1', input_image_topic='/cam/image')
    [node] = module.start(context)
    assert node.options['namespace'] == 'front'
    assert node.options['remappings'] == [('image_raw', '/cam/image')]
    assert node.options['parameters'] == [
        '/share/vss_ros/config/segmentation.yaml',
        {'autostart': True, 'model': 'my-model', 'gpu_id': 1},  # use_sim_time: as the file says
    ]


@pytest.mark.parametrize('transport', IMAGE_TRANSPORTS)
def test_a_transport_that_the_node_takes_itself_is_not_republished(load, transport):
    module = load('segmentation')
    [node] = module.start(given(module, image_transport=transport))
    assert node.options['parameters'][1]['image_transport'] == transport
    assert node.options['remappings'] == []


@pytest.mark.parametrize('name', ['use_sim_time', 'autostart', 'rviz'])
def test_a_switch_that_is_neither_on_nor_off_is_refused_by_name(load, name):
    module = load('segmentation')
    with pytest.raises(SettingsError, match=f"{name} is 'ture'; use true or false"):
        module.start(given(module, **{name: 'ture'}))


@pytest.mark.parametrize('text', ['one', '0.5', 'cuda:1'])
def test_a_gpu_that_is_no_number_is_refused_by_name(load, text):
    module = load('segmentation')
    with pytest.raises(SettingsError, match=f"gpu_id is '{text}'; use a whole number"):
        module.start(given(module, gpu_id=text))


def test_another_transport_is_republished_and_rviz_comes_if_asked_for(load):
    module = load('segmentation')
    context = given(module, image_transport='theora', rviz='true', namespace='front')
    republish, node, rviz = module.start(context)
    assert republish.options['executable'] == 'republish'
    assert node.options['remappings'] == [('image_raw', 'image_raw_decoded')]
    assert ('/image_raw', '/front/image_raw_decoded') in rviz.options['remappings']


@pytest.mark.parametrize('text', ['front,rear', ' front , rear', "['front', 'rear']", '/front,/rear/'])
def test_each_of_several_cameras_has_its_own_node(load, text):
    includes = load('multi_camera').start({'cameras': text})
    assert [include.kind for include in includes] == ['IncludeLaunchDescription'] * 2
    assert all('segmentation.launch.py' in str(include.words[0]) for include in includes)
    arguments = [dict(include.options['launch_arguments']) for include in includes]
    assert arguments == [{'namespace': 'front'}, {'namespace': 'rear'}]


@pytest.mark.parametrize('text', ['', 'front,front', 'front,,rear', '/'])
def test_cameras_that_cannot_be_told_apart_are_refused(load, text):
    with pytest.raises(SettingsError, match='give different names'):
        load('multi_camera').start({'cameras': text})


def test_replay_plays_the_bag_with_its_clock(load):
    module = load('replay')
    [player] = module.play(given(module, bag='drive', loop='true'))
    assert player.options['cmd'][:4] == ['ros2', 'bag', 'play', 'drive']
    assert {'--clock', '--loop'} <= set(player.options['cmd'])


@pytest.mark.parametrize(('text', 'is_true'), [('True', True), ('1', True), ('yes', True), ('false', False)])
def test_the_bag_gives_the_clock_whenever_the_node_takes_it_from_there(load, text, is_true):
    replay, segmentation = load('replay'), load('segmentation')
    [player] = replay.play(given(replay, bag='drive', use_sim_time=text, loop=text))
    [node] = segmentation.start(given(segmentation, use_sim_time=text))
    assert node.options['parameters'][1]['use_sim_time'] is is_true
    assert ('--clock' in player.options['cmd']) is is_true
    assert ('--loop' in player.options['cmd']) is is_true


def start(name, module):
    """What the launch file starts, before any of it runs."""
    module.generate_launch_description()
    if name == 'multi_camera':
        return module.start({'cameras': 'front'})  # camera, node, what listens, and `ros2 launch`
    return [] if name == 'replay' else module.start(given(module))


@pytest.mark.parametrize('name', ARGUMENTS)
def test_a_launch_file_leaves_each_of_four_processes_its_share_of_the_shared_memory(load, free, name):
    free(60)
    start(name, load(name))
    # Both names, for Fast DDS 2 and 3. What is launched inherits them, and `ros2 launch` takes part itself.
    [profile] = {os.environ[variable] for variable in fast_dds.VARIABLES}
    assert f'<segment_size>{(60 // 4 - 4) * 2**20}</segment_size>' in Path(profile).read_text()


@pytest.mark.parametrize('variable', fast_dds.VARIABLES)
@pytest.mark.parametrize('name', ARGUMENTS)
def test_a_profile_that_the_user_has_set_by_either_name_is_left_alone(monkeypatch, load, name, variable):
    module = load(name)
    monkeypatch.setenv(variable, '/etc/profile.xml')
    start(name, module)
    assert {os.environ[variable] for variable in fast_dds.VARIABLES} == {'', '/etc/profile.xml'}


@pytest.mark.parametrize(
    ('free_mb', 'processes', 'segment_mb'), [(1000, 3, 32), (60, 3, 16), (60, 6, 6), (15, 3, 1)]
)
def test_the_profile_leaves_room_for_what_fast_dds_takes_beside_the_segments(
    free, tmp_path, free_mb, processes, segment_mb
):
    free(free_mb)
    fast_dds.use_image_profile(tmp_path, processes=processes)
    for name in fast_dds.VARIABLES:
        assert f'<segment_size>{segment_mb * 2**20}</segment_size>' in Path(os.environ[name]).read_text()


@pytest.mark.parametrize('free_mb', [0, 4, 14])
def test_where_smaller_segments_would_be_no_gain_they_are_those_of_fast_dds(free, tmp_path, free_mb):
    free(free_mb)
    fast_dds.use_image_profile(tmp_path, processes=3)
    [profile] = {os.environ[name] for name in fast_dds.VARIABLES}
    assert 'segment_size' not in Path(profile).read_text()


def test_the_node_of_each_of_many_cameras_keeps_to_the_share_that_all_of_them_leave(load, free):
    multi_camera, segmentation = load('multi_camera'), load('segmentation')
    free(60)
    multi_camera.start({'cameras': ','.join('abcdefgh')})
    segmentation.start(given(segmentation, namespace='a'))
    assert 'segment_size' not in Path(os.environ[fast_dds.VARIABLES[0]]).read_text()


def rviz_displays():
    config = yaml.safe_load((ROOT / 'rviz' / 'segmentation.rviz').read_text())
    return config['Visualization Manager']['Displays']


def test_all_that_rviz_shows_is_taken_from_the_namespace_of_the_camera(load):
    module = load('segmentation')
    _, rviz = module.start(given(module, rviz='true', namespace='front'))
    shown = {display['Topic']['Value'] for display in rviz_displays()}
    assert dict(rviz.options['remappings']) == {topic: f'/front{topic}' for topic in shown}


def test_rviz_shows_camera_overlay_mask_and_confidence():
    displays = rviz_displays()
    assert {display['Name']: display['Topic']['Value'] for display in displays} == {
        'Camera': '/image_raw',
        'Overlay': '/segmentation/overlay',
        'Mask': '/segmentation/color_mask',  # RViz shows class ids as they are: black
        'Confidence': '/segmentation/confidence',
    }
    # What a display does not receive it does not show: its QoS must fit that of the topic.
    assert {display['Name']: display['Topic']['Reliability Policy'] for display in displays} == {
        'Camera': 'Best Effort',
        'Overlay': 'Reliable',
        'Mask': 'Reliable',
        'Confidence': 'Reliable',
    }
