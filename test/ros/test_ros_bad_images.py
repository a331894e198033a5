"""Damaged images are skipped, counted and reported, and the next good one begins anew."""

import re

import cv2
import numpy as np
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from ros_harness import Robot, kind_and_reason, show, values_of
from sensor_msgs.msg import CompressedImage, Image


def damaged(**changes):
    def damage(image: Image) -> None:
        for name, value in changes.items():
            setattr(image, name, value)

    return damage


def without_data(image: Image) -> None:
    del image.data[:]


def with_less_data(image: Image) -> None:
    del image.data[-1:]


def with_more_data(image: Image) -> None:
    image.data.append(0)


def with_nan(image: Image) -> None:
    image.encoding, image.step = '32FC1', image.width * 4
    del image.data[:]
    image.data.frombytes(np.full((image.height, image.width), np.nan, np.float32).tobytes())


DAMAGE = {
    'no data': without_data,
    'a byte too few': with_less_data,
    'a byte too many': with_more_data,
    'no height': damaged(height=0),
    'no width': damaged(width=0),
    'no size': damaged(height=0, width=0, step=0),
    'no step': damaged(step=0),
    'rows too short': damaged(step=3 * 64 - 1),
    'rows too long': damaged(step=3 * 64 + 1),
    'absurd step': damaged(step=2**32 - 1),
    'absurd height': damaged(height=2**32 - 1),
    'absurd width': damaged(width=2**32 - 1),
    'absurd size': damaged(height=2**31, width=2**31),
    'no encoding': damaged(encoding=''),
    'unknown encoding': damaged(encoding='klingon8'),
    'endless encoding': damaged(encoding='x' * 100_000),
    'more channels than data': damaged(encoding='rgba8'),
    '16 bits in rows of 8': damaged(encoding='mono16', width=97),
    'odd yuv': damaged(encoding='yuv422', width=63),
    'odd nv12': damaged(encoding='nv12', height=47),
    'nv12 without colour': damaged(encoding='nv12'),
    'float with NaN': with_nan,
}


def test_damaged_images_are_skipped_and_the_next_good_one_is_a_key_frame(stream, node):
    show(stream)
    for name, damage in DAMAGE.items():
        image = stream.image()
        damage(image)
        stream.camera.publish(image)
        assert kind_and_reason(show(stream)) == ('key', 'bad frame'), name
        assert show(stream)['kind'] == 'propagated', name
    status = stream.diagnostics(
        lambda status: values_of(status).get('bad') == str(len(DAMAGE)), 'all the bad frames'
    )
    assert values_of(status)['resets.bad frame'] == str(len(DAMAGE))
    assert values_of(status)['resets'] == str(len(DAMAGE) + 1)  # and the beginning
    assert values_of(status)['last_error']
    assert 'Traceback' not in node.log


def test_damaged_compressed_images_are_skipped_too(robot, node, probe):
    jpeg = cv2.imencode('.jpg', np.full((48, 64, 3), 3, np.uint8))[1].tobytes()
    png = cv2.imencode('.png', np.random.default_rng(0).integers(0, 9, (48, 64, 3), np.uint8))[1].tobytes()
    kinds = {
        'nothing': b'',
        'text': b'this is no image',
        'half a JPEG': jpeg[: len(jpeg) // 2],
        'start of a JPEG': jpeg[:4],
        'half a PNG': png[: len(png) // 2],
        'flipped PNG': png[:60] + bytes(200) + png[260:],
        'PNG of absurd size': png[:16] + b'\xff' * 8 + png[24:],
    }
    assert robot.set(image_transport='compressed', drop_policy='queue') == ''
    other = Robot(probe, node.namespace, compressed=True)
    other.listen('mask', Image)
    other.listen('frame_info', DiagnosticArray)
    other.start()

    def message(data: bytes) -> CompressedImage:
        compressed = CompressedImage(format='jpeg')
        compressed.data.frombytes(data)
        other.stamp(compressed)
        return compressed

    show(other, message(jpeg))
    for name, data in kinds.items():
        other.camera.publish(message(data))
        assert kind_and_reason(show(other, message(jpeg))) == ('key', 'bad frame'), name
    other.close()


def test_many_bad_frames_in_a_row_are_an_error_until_a_good_one_comes(stream):
    assert stream.set(max_consecutive_bad_frames=3) == ''
    for _ in range(4):
        stream.camera.publish(stream.image(encoding='klingon8'))
    status = stream.diagnostics(lambda status: status.level == DiagnosticStatus.ERROR, 'an error')
    assert '4 bad frames in a row' in status.message
    assert 'klingon8' in status.message
    show(stream)
    stream.diagnostics(lambda status: 'in a row' not in status.message, 'the end of the error')


def test_images_that_are_all_bad_and_come_slowly_are_an_error_all_the_time(stream):
    """Also in a second in which none came, though they are too few to be many in a row."""
    assert stream.set(input_timeout_s=1.5) == ''

    def statuses(seconds):
        stream.received['diagnostics'].clear()
        for _ in range(seconds):
            stream.camera.publish(stream.image(encoding='klingon8'))
            stream.probe.spin_for(1.2)  # more than a period of the diagnostics, less than the timeout
        return [s for m in stream.received['diagnostics'] for s in m.status if stream.name[1:] in s.name]

    statuses(3)
    told = statuses(5)
    assert {status.level for status in told} == {DiagnosticStatus.ERROR}
    assert all(re.search('klingon8.*; images come on', status.message) for status in told)
    assert {values_of(status)['output_rate_hz'] for status in told} == {'0.00'}
    status = stream.diagnostics(lambda status: 'no image on' in status.message, 'the end of them')
    assert 'images come' not in status.message
