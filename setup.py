"""An ament_python package that is also a plain pip package.

`colcon build` and `pip install .` read this one file. On a ROS machine the Python libraries come from apt
(see package.xml) and colcon installs none of those listed here.
"""

import os

from setuptools import find_packages, setup

NAME = 'vss_ros'

# ROS 2 as wheels, for machines without a ROS installation. Exactly these versions work together.
WHEELS_EXIST = "sys_platform == 'linux' and platform_machine == 'x86_64' and python_version < '3.14'"
ROS_WHEELS = [
    'ros-jazzy-rclpy==7.1.6',
    'ros-jazzy-rmw-fastrtps-cpp==8.4.3',
    'ros-jazzy-sensor-msgs==5.3.6',
    'ros-jazzy-std-srvs==5.3.6',
    'ros-jazzy-diagnostic-msgs==5.3.6',
    'ros-jazzy-lifecycle-msgs==2.0.3',
    'ros-jazzy-rosgraph-msgs==2.0.3',
]

EXTRAS = {
    'ros': [f'{wheel}; {WHEELS_EXIST}' for wheel in ROS_WHEELS],
    'onnxruntime': ['onnxruntime>=1.23'],  # for a colcon install, which brings none of the base
    'train': [
        'torch>=2.4',
        'onnx>=1.17',
        'onnxscript>=0.6',
        'safetensors>=0.4',
        'tqdm>=4.60',
        'tensorboard>=2.12',
    ],
    'video': ['av>=14.1,<20'],  # each major version takes some of its functions away
    'bags': ['rosbags>=0.11.9,<0.12'],
    'plot': ['matplotlib>=3.8.4'],
    'openvino': ['openvino>=2024.4'],
    'tensorrt': ['tensorrt>=10.3', 'torch>=2.4'],
    'test': [
        'pytest>=7',
        'pytest-timeout',
        'pytest-xdist',
        'hypothesis',
        'onnx>=1.17',
        'scikit-learn',
        'setuptools>=70.1',
    ],
    'dev': ['ruff==0.17.6', 'mypy==2.4.1', 'types-PyYAML'],
}


def share_files(*folders: str) -> list[tuple[str, list[str]]]:
    """Every file under `folders`, each to be installed at the same place under share/vss_ros."""
    entries = []
    for folder in folders:
        for path, _, names in sorted(os.walk(folder)):
            files = [os.path.join(path, name) for name in sorted(names) if not name.startswith('.')]
            if files and '__pycache__' not in path:
                entries.append((os.path.join('share', NAME, path), files))
    return entries


setup(
    name=NAME,
    version='0.1.0',
    description='Video semantic segmentation for robots: a ROS 2 node and the same engine offline',
    long_description='See README.md.',
    author='Seed c9e8eeaa maintainers',
    author_email='maintainers@users.noreply.h-seed-c9e8eeaa.example',
    maintainer='Seed c9e8eeaa maintainers',
    maintainer_email='maintainers@users.noreply.h-seed-c9e8eeaa.example',
    license='Apache-2.0',
    packages=find_packages(include=[NAME, f'{NAME}.*']),
    python_requires='>=3.10',
    install_requires=[
        'numpy>=1.23',
        'opencv-python-headless>=4.6',
        'pyyaml>=6.0',
        'rich>=12.3',
        'onnxruntime>=1.23',
    ],
    extras_require=EXTRAS,
    data_files=[
        ('share/ament_index/resource_index/packages', ['resource/vss_ros']),
        (f'share/{NAME}', ['package.xml']),
        # pip puts console scripts into bin/, where `ros2 run` and launch do not look.
        (f'lib/{NAME}', ['scripts/segmentation_node', 'scripts/vss']),
        *share_files('launch', 'config', 'rviz', 'models'),
    ],
    entry_points={
        'console_scripts': [
            'vss = vss_ros.cli.main:main',
            'segmentation_node = vss_ros.ros.main:main',
        ],
    },
    zip_safe=False,
)
