import pytest


def test_rclpy_can_be_imported():
    pytest.importorskip('rclpy', reason="test/ros needs ROS 2; install it with: pip install 'vss_ros[ros]'")
