import os

import pytest


def test_rclpy_can_be_imported():
    if os.environ.get('VSS_NEEDS_ROS'):  # as `make test` does, which has installed or found it
        import rclpy  # noqa: F401
    else:
        pytest.importorskip(
            'rclpy', reason="test/ros needs ROS 2; install it with: pip install 'vss_ros[ros]'"
        )
