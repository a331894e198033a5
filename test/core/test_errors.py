"""What the error classes say by themselves."""

from vss_ros.core.errors import MissingLibraryError


def test_a_missing_library_is_installed_as_an_extra_and_beside_a_ros_of_the_system_by_itself(monkeypatch):
    monkeypatch.delenv('ROS_DISTRO', raising=False)
    assert str(MissingLibraryError('av', 'video')) == (
        "av is not installed; install it with: pip install 'vss_ros[video]'"
    )
    monkeypatch.setenv('ROS_DISTRO', 'jazzy')
    assert str(MissingLibraryError('av', 'video', '; or so')) == (
        "av is not installed; install it with: pip install av 'numpy<2'; or so"
    )
