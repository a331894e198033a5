"""What errors say."""

import pytest

from vss_ros.core.errors import FrameError, MissingLibraryError, error_text


def test_a_missing_library_is_installed_as_an_extra_and_beside_a_ros_of_the_system_by_itself(monkeypatch):
    monkeypatch.delenv('ROS_DISTRO', raising=False)
    assert str(MissingLibraryError('av', 'video')) == (
        "av is not installed; install it with: pip install 'vss_ros[video]'"
    )
    monkeypatch.setenv('ROS_DISTRO', 'jazzy')
    assert str(MissingLibraryError('av', 'video', '; or so')) == (
        "av is not installed; install it with: pip install av 'numpy<2'; or so"
    )
    assert str(MissingLibraryError('rclpy', 'ros')) == (
        'rclpy is not installed; install it with: '
        'apt install ros-jazzy-rclpy, and source /opt/ros/jazzy/setup.bash'
    )


def import_error(code):
    with pytest.raises(ImportError) as caught:
        exec(code)
    return caught.value


@pytest.mark.parametrize(
    ('code', 'what'),
    [
        ('import no_such_library', 'is not installed; install it with'),
        ('import other_library', "cannot be loaded: No module named 'other_library'; install it anew with"),
        (
            'raise ImportError("numpy.core.multiarray\\nfailed to import")',
            'cannot be loaded: numpy.core.multiarray failed to import; install it anew with',
        ),
    ],
)
def test_a_library_that_is_there_and_cannot_be_loaded_is_not_called_missing(monkeypatch, code, what):
    monkeypatch.delenv('ROS_DISTRO', raising=False)
    error = MissingLibraryError('no_such_library', 'plot', cause=import_error(code))
    assert str(error) == f"no_such_library {what}: pip install 'vss_ros[plot]'"


def test_of_an_error_that_is_not_our_own_the_kind_is_told_too():
    assert error_text(FrameError('the image is empty')) == 'the image is empty'
    assert error_text(KeyError('scores')) == "KeyError: 'scores'"
