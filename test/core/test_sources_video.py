import operator
import re
from fractions import Fraction

import cv2
import numpy as np
import pytest

from vss_ros.core.errors import SettingsError, SourceError
from vss_ros.core.sources.open import SourceSettings, open_source

av = pytest.importorskip('av')

IDENTITY = np.array([1 << 16, 0, 0, 0, 1 << 16, 0, 0, 0, 1 << 30], '>i4').tobytes()
QUARTER_TURN = np.array([0, 1 << 16, 0, -1 << 16, 0, 0, 0, 0, 1 << 30], '>i4').tobytes()


def write_video(path, images, times_ms, options=None, codec='mpeg4'):
    """Encodes images losslessly enough to know them by their brightness."""
    with av.open(str(path), 'w', options=options or {}) as container:
        quality = {'qmin': '2', 'qmax': '2'} if codec == 'mpeg4' else {}
        stream = container.add_stream(codec, rate=25, options=quality)
        stream.height, stream.width = images[0].shape[:2]
        stream.pix_fmt = 'yuv420p'
        stream.codec_context.time_base = Fraction(1, 1000)
        for image, time in zip(images, times_ms, strict=True):
            planes = cv2.cvtColor(image, cv2.COLOR_BGR2YUV_I420)
            picture = av.VideoFrame.from_ndarray(planes, format='yuv420p')
            picture.pts, picture.time_base = time, Fraction(1, 1000)
            container.mux(stream.encode(picture))
        container.mux(stream.encode(None))
    return path


def grey_images(count, size=(48, 64)):
    return [np.full((*size, 3), 40 + 15 * i, np.uint8) for i in range(count)]


def noise_images(count):
    return list(np.random.default_rng(0).integers(0, 256, (count, 96, 128, 3), np.uint8))


def open_video(path):
    return open_source(str(path))


@pytest.mark.parametrize('suffix', ['.mp4', '.mkv', '.mov'])
def test_a_video_gives_its_frames_in_order(tmp_path, suffix):
    source = open_video(write_video(tmp_path / f'v{suffix}', grey_images(6), range(0, 240, 40)))
    values = [frame.image.mean() for frame in source]
    np.testing.assert_allclose(values, [40, 55, 70, 85, 100, 115], atol=2)
    assert [frame.image.mean() for frame in source] == values, 'a second pass'
    source.close()


def test_stamps_are_the_presentation_times_even_where_they_are_uneven(tmp_path):
    times = [0, 40, 95, 300, 301]
    source = open_video(write_video(tmp_path / 'v.mkv', grey_images(5), times))
    assert [frame.stamp_ns for frame in source] == [time * 10**6 for time in times]
    source.close()


def test_a_video_knows_its_length(tmp_path):
    source = open_video(write_video(tmp_path / 'v.mp4', grey_images(6), range(0, 240, 40)))
    assert operator.length_hint(source) == 6
    source.close()


def test_a_video_recorded_on_its_side_is_turned_upright(tmp_path):
    bright_right = np.zeros((48, 64, 3), np.uint8)
    bright_right[:, 32:] = 255
    path = write_video(tmp_path / 'v.mp4', [bright_right] * 2, [0, 40])
    data = path.read_bytes()
    at = data.index(IDENTITY, data.index(b'tkhd'))
    path.write_bytes(data[:at] + QUARTER_TURN + data[at + len(IDENTITY) :])
    source = open_video(path)
    image = next(iter(source)).image
    source.close()
    assert image.shape == (64, 48, 3)
    assert image[40:].mean() > 240, 'a quarter turn clockwise puts the right side at the bottom'
    assert image[:24].mean() < 15


def test_an_mp4_that_is_cut_off_is_refused(tmp_path):
    path = write_video(tmp_path / 'v.mp4', noise_images(10), range(0, 400, 40))
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(SourceError, match=r'v\.mp4 cannot be read as a video'):
        open_video(path)


def test_a_video_whose_end_is_missing_is_read_as_far_as_it_goes_with_a_warning(tmp_path, caplog):
    path = write_video(
        tmp_path / 'v.mp4', noise_images(10), range(0, 400, 40), options={'movflags': 'faststart'}
    )
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    source = open_video(path)
    count = len([frame.size for frame in source])
    source.close()
    assert 2 <= count < 10
    assert f'ends after {count} of 10 frames' in caplog.text


@pytest.mark.parametrize('kept', [0.35, 0.5, 0.613, 0.8, 0.97])
def test_h264_that_is_cut_off_anywhere_is_read_as_far_as_it_goes_too(tmp_path, caplog, kept):
    if 'libx264' not in av.codecs_available:
        pytest.skip('this PyAV cannot write H.264')
    path = tmp_path / 'v.mp4'
    times = range(0, 1200, 40)
    write_video(path, noise_images(30), times, options={'movflags': 'faststart'}, codec='libx264')
    data = path.read_bytes()
    path.write_bytes(data[: int(kept * len(data))])
    source = open_video(path)
    count = len([frame.size for frame in source])
    source.close()
    assert 30 * kept - 12 < count < 30  # pictures refer to later ones
    assert f'ends after {count} of 30 frames' in caplog.text


def test_what_cannot_be_decoded_in_the_middle_of_a_video_is_an_error(tmp_path):
    path = write_video(tmp_path / 'v.mp4', noise_images(10), range(0, 400, 40))
    data = bytearray(path.read_bytes())
    middle = data.index(b'mdat') + 4 + (len(data) // 2)
    data[middle - len(data) // 4 : middle] = bytes(len(data) // 4)
    path.write_bytes(data)
    source = open_video(path)
    with pytest.raises(SourceError, match=r'v\.mp4 is damaged after frame \d'):
        list(source)
    source.close()


def test_a_video_that_does_not_count_its_frames_is_missed_by_the_second(tmp_path, caplog):
    path = write_video(tmp_path / 'v.mkv', noise_images(10), range(0, 4000, 400))
    source = open_video(path)
    assert len(list(source)) == 10
    source.close()
    assert not caplog.text
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    source = open_video(path)
    assert 2 <= len(list(source)) < 10
    source.close()
    assert re.search(r'v\.mkv ends after [12]\.\d of (3\.6|4\.0) seconds', caplog.text)


@pytest.mark.parametrize('content', [b'', b'no video', bytes(10_000)])
def test_a_file_that_is_no_video_is_refused(tmp_path, content):
    (tmp_path / 'v.mp4').write_bytes(content)
    with pytest.raises(SourceError, match=r'v\.mp4 cannot be read as a video'):
        open_video(tmp_path / 'v.mp4')


def test_a_file_with_sound_only_is_refused(tmp_path):
    with av.open(str(tmp_path / 'v.mp4'), 'w') as container:
        stream = container.add_stream('aac', rate=48000, layout='mono')
        silence = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), 'fltp', 'mono')
        silence.sample_rate = 48000
        container.mux(stream.encode(silence))
        container.mux(stream.encode(None))
    with pytest.raises(SourceError, match='has no video in it'):
        open_video(tmp_path / 'v.mp4')


def test_a_video_has_no_rate_to_choose(tmp_path):
    path = write_video(tmp_path / 'v.mp4', grey_images(2), [0, 40])
    with pytest.raises(SettingsError, match='is a video, which has no rate'):
        open_source(str(path), SourceSettings(rate=10))


def test_a_title_that_is_no_utf8_does_not_keep_a_video_from_being_read(tmp_path):
    path = tmp_path / 'v.mkv'
    with av.open(str(path), 'w') as container:
        container.metadata['title'] = 'Mitte'
        stream = container.add_stream('mpeg4', rate=25)
        stream.height, stream.width, stream.pix_fmt = 48, 64, 'yuv420p'
        picture = av.VideoFrame.from_ndarray(grey_images(1)[0], format='bgr24')
        container.mux([*stream.encode(picture), *stream.encode(None)])
    path.write_bytes(path.read_bytes().replace(b'Mitte', b'M\xfctte'))  # Latin-1, as old cameras write it
    assert len(list(open_video(path))) == 1


def test_a_codec_that_nobody_knows_is_refused(tmp_path):
    path = write_video(tmp_path / 'v.mp4', grey_images(2), [0, 40])
    path.write_bytes(path.read_bytes().replace(b'mp4v', b'zzzz').replace(b'esds', b'free'))
    with pytest.raises(SourceError, match=r'v.mp4 is damaged, or its codec cannot be decoded here'):
        open_video(path)


def test_a_number_of_frames_that_cannot_be_is_not_believed(tmp_path):
    path = write_video(tmp_path / 'v.avi', grey_images(2), [0, 40])
    data = path.read_bytes()
    at = data.index(b'strh') + 8 + 32  # its field dwLength
    path.write_bytes(data[:at] + b'\xff' * 4 + data[at + 4 :])
    source = open_video(path)
    assert operator.length_hint(source) <= 10_000_000
    assert len(list(source)) == 2


def test_a_picture_that_is_too_large_is_refused_before_it_is_decoded(tmp_path):
    path = tmp_path / 'v.mkv'
    with av.open(str(path), 'w') as container:
        stream = container.add_stream('ffv1', rate=25)
        stream.height, stream.width, stream.pix_fmt = 16, 8200, 'bgr0'
        picture = av.VideoFrame.from_ndarray(np.zeros((16, 8200, 3), np.uint8), format='bgr24')
        container.mux([*stream.encode(picture), *stream.encode(None)])
    with pytest.raises(SourceError, match='8200x16; expected sides of 1 to 8192'):
        open_video(path)


@pytest.mark.parametrize(('codec', 'suffix'), [('libx264', '.h264'), ('libx265', '.hevc')])
def test_a_bare_stream_as_cameras_write_it_is_read(tmp_path, codec, suffix):
    path = tmp_path / f'v{suffix}'
    try:
        container = av.open(str(path), 'w')
        stream = container.add_stream(codec, rate=25)
    except (ValueError, av.FFmpegError):
        pytest.skip(f'this PyAV cannot write {codec}')
    with container:
        stream.width, stream.height, stream.pix_fmt = 128, 96, 'yuv420p'
        for number, image in enumerate(grey_images(5, (96, 128))):
            picture = av.VideoFrame.from_ndarray(
                cv2.cvtColor(image, cv2.COLOR_BGR2YUV_I420), format='yuv420p'
            )
            picture.pts = number
            container.mux(stream.encode(picture))
        container.mux(stream.encode(None))
    source = open_video(path)
    values = [frame.image.mean() for frame in source]
    source.close()
    np.testing.assert_allclose(values, [40, 55, 70, 85, 100], atol=3)


def test_a_playlist_that_waits_for_more_is_no_video(tmp_path):
    write_video(tmp_path / 'v.ts', grey_images(3), range(0, 120, 40))
    playlist = tmp_path / 'live.m3u8'
    playlist.write_text('#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nv.ts\n')
    with pytest.raises(SourceError, match=r'live.m3u8 cannot be read as a video'):
        open_video(playlist)


def test_a_name_may_hold_the_time_of_the_recording(tmp_path, monkeypatch):
    write_video(tmp_path / 'v.mp4', grey_images(3), range(0, 120, 40)).rename(
        tmp_path / '2024-05-01T12:30.mp4'
    )
    monkeypatch.chdir(tmp_path)
    source = open_video('2024-05-01T12:30.mp4')
    assert len(list(source)) == 3
    source.close()


@pytest.mark.parametrize('suffix', ['.mkv', '.mp4'])
def test_a_video_that_begins_late_is_complete(tmp_path, caplog, suffix):
    source = open_video(write_video(tmp_path / f'v{suffix}', grey_images(12), range(2000, 2480, 40)))
    assert abs(operator.length_hint(source) - 12) <= 1
    assert len(list(source)) == 12
    source.close()
    assert caplog.text == ''
