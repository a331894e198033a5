"""Starts one segmentation node for each of several cameras, each in the namespace of its camera.

    ros2 launch vss_ros multi_camera.launch.py cameras:=front,left,right
    ros2 launch vss_ros multi_camera.launch.py cameras:=front,rear params_file:=robot.yaml engine:=tensorrt

All nodes take the same arguments and the same `params_file`. In it a camera can have values of its own, below
`/front/segmentation`, which must stand after those of all, below `/**`: of two the later one counts. Every
argument but `namespace` of segmentation.launch.py can be given too.
"""

import os
import tempfile
from pathlib import Path

from ament_index_python.packages import get_package_share_directory
from launch import LaunchContext, LaunchDescription
from launch.actions import IncludeLaunchDescription, OpaqueFunction
from launch.launch_description_sources import PythonLaunchDescriptionSource

from vss_ros.core.errors import SettingsError
from vss_ros.ros.fast_dds import use_image_profile
from vss_ros.ros.launch_arguments import declared, values_of

SHARE = get_package_share_directory('vss_ros')
FOLDER = tempfile.TemporaryDirectory(prefix='vss_ros_')  # until the end of this process

ARGUMENTS = (('cameras', None, 'namespaces of the cameras, separated by commas'),)


def generate_launch_description() -> LaunchDescription:
    return LaunchDescription([*declared(ARGUMENTS), OpaqueFunction(function=start)])


def start(context: LaunchContext) -> list:
    """One node for each camera, once the arguments are known."""
    cameras = names_of(values_of(context, ARGUMENTS)['cameras'])
    # Each camera and each node takes memory of its own, and so do what listens to them and `ros2 launch`.
    use_image_profile(Path(FOLDER.name), processes=2 * len(cameras) + 2)
    launch_file = os.path.join(SHARE, 'launch', 'segmentation.launch.py')
    return [
        IncludeLaunchDescription(
            PythonLaunchDescriptionSource(launch_file), launch_arguments={'namespace': camera}.items()
        )
        for camera in cameras
    ]


def names_of(text: str) -> list:
    """The namespaces in a list separated by commas, which may stand in brackets.

    Raises:
        SettingsError: there is none, or one of them twice: two nodes of one name.
    """
    names = [name.strip(' \'"').strip('/') for name in text.strip().strip('[]').split(',')]
    if not all(names) or len(set(names)) < len(names):
        raise SettingsError(
            f'cameras is {text!r}; give different names separated by commas, such as front,rear'
        )
    return names
