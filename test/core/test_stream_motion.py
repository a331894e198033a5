"""Motion vectors of real encoded videos: when they are the flow, and what stands in where they cannot be."""

from __future__ import annotations

import subprocess
import sys
import weakref
from dataclasses import replace
from fractions import Fraction

import cv2
import numpy as np
import pytest

from vss_ros.core.engines import load_engine
from vss_ros.core.errors import FrameError
from vss_ros.core.frame import CodedPicture
from vss_ros.core.model.folder import load_model
from vss_ros.core.motion import make_motion
from vss_ros.core.motion.followed import read_at
from vss_ros.core.settings import EngineSettings, StreamSettings
from vss_ros.core.sources.open import open_source
from vss_ros.core.stream.segmenter import VideoSegmenter
from vss_ros.core.synthetic import StreetClip

av = pytest.importorskip('av')
from vss_ros.core.sources.coded_video import PacketDecoder  # noqa: E402

SIZE = (96, 128)
# What a test is about is named in its options; without more an encoder makes one I picture and P pictures.
CODECS = {'mpeg4': {'qmin': '4', 'qmax': '4'}, 'libx264': {'preset': 'veryfast', 'tune': 'zerolatency'}}
DECODERS = {'libx264': 'h264', 'libx265': 'hevc', 'libvpx': 'vp8'}


def texture(seed, height=240, width=320):
    """A soft random texture, uint8 (H, W, 3)."""
    noise = np.random.default_rng(seed).integers(0, 256, (height // 8, width // 8, 3), dtype=np.uint8)
    return cv2.resize(noise, (width, height), interpolation=cv2.INTER_CUBIC)


def drift(count, size=SIZE, right=4, down=0, seed=1):
    """Images of a texture that moves `right` and `down` from one to the next."""
    image = texture(seed)
    for number in range(count):
        top, left = 60 - down * number, 60 - right * number
        yield np.ascontiguousarray(image[top : top + size[0], left : left + size[1]])


def settings(codec, options):
    """What FFmpeg is told: its names have underscores, but for the parameters of x264 and x265."""
    names = {name: name.replace('_', '-') if name.endswith('_params') else name for name in options}
    return {**CODECS.get(codec, {}), **{names[name]: str(value) for name, value in options.items()}}


def encode(images, codec='mpeg4', gop=600, **options):
    """Packets of a video, in the order they are coded."""
    images = list(images)
    try:
        encoder = av.CodecContext.create(codec, 'w')
    except ValueError:
        pytest.skip(f'this FFmpeg has no {codec}')
    encoder.height, encoder.width = images[0].shape[:2]
    encoder.pix_fmt, encoder.framerate, encoder.time_base = 'yuv420p', Fraction(25), Fraction(1, 25)
    encoder.gop_size, encoder.thread_count, encoder.max_b_frames = gop, 1, int(options.pop('bf', 0))
    encoder.options = settings(codec, options)
    packets = []
    for number, image in enumerate(images):
        picture = av.VideoFrame.from_ndarray(image, format='bgr24').reformat(format='yuv420p')
        picture.pts = number
        packets += encoder.encode(picture)
    return packets + encoder.encode(None)


def write(path, images, codec='mpeg4', gop=600, **options):
    """A video file."""
    images = list(images)
    with av.open(str(path), 'w') as container:
        try:
            stream = container.add_stream(codec, rate=25)
        except ValueError:
            pytest.skip(f'this FFmpeg has no {codec}')
        stream.height, stream.width = images[0].shape[:2]
        stream.pix_fmt = 'yuvj420p' if codec == 'mjpeg' else 'yuv420p'
        context = stream.codec_context
        context.gop_size, context.thread_count, context.max_b_frames = gop, 1, int(options.pop('bf', 0))
        stream.options = settings(codec, options)
        for image in images:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format='bgr24')))
        container.mux(stream.encode(None))
    return path


def frames_of(path):
    source = open_source(str(path))
    frames = list(source)
    source.close()
    return frames


def flows(frames, kind='stream', size=None):
    """Flow at every frame, as a model of this size would be given it; None where there is none."""
    motion = make_motion(kind)
    found = []
    for number, frame in enumerate(frames):
        image = frame.image if size is None else cv2.resize(frame.image, size[::-1])
        found.append(motion.update(image, wanted=number > 0, coded=frame.coded))
    return found


def middle(flow):
    """Median flow away from the borders, (x, y) in cells."""
    return np.median(flow[0, :, 3:-3, 3:-3], axis=(1, 2))


def kinds(frames):
    """Per frame: I a start, P with vectors, - without."""
    coded = [frame.coded[0] for frame in frames]
    return ''.join('I' if one.is_start else '-' if one.vectors is None else 'P' for one in coded)


def is_same(one, other):
    return one is not None and other is not None and np.array_equal(one, other)


@pytest.mark.parametrize('size', [(96, 128), (92, 140), (104, 126)])
@pytest.mark.parametrize('codec', CODECS)
def test_flow_is_what_the_stream_says_in_cells(tmp_path, codec, size):
    frames = frames_of(write(tmp_path / 'v.mkv', drift(5, size, right=6, down=-2), codec))
    found, dis = flows(frames), flows(frames, 'dis')
    assert kinds(frames) == 'IPPPP'
    for flow, estimate in zip(found[1:], dis[1:], strict=True):
        assert flow.dtype == np.float32
        assert flow.shape == (1, 2, -(-size[0] // 4), -(-size[1] // 4))
        assert middle(flow) == pytest.approx([-1.5, 0.5], abs=0.13)
        assert not is_same(flow, estimate)


def test_pictures_of_odd_height_and_width_have_flow():
    packets = encode(drift(4, (91, 121)), 'mpeg4')
    decoder = PacketDecoder('mpeg4')
    motion = make_motion('stream')
    for number, packet in enumerate(packets):
        (decoded,) = decoder.decode(bytes(packet))
        flow = motion.update(decoded.to_bgr(), number > 0, decoded.coded)
    assert decoded.coded[0].size == (91, 121)
    assert flow.shape == (1, 2, 23, 31)
    assert middle(flow) == pytest.approx([-1, 0], abs=0.13)


def test_flow_is_in_cells_of_the_network_where_that_sees_smaller_images(tmp_path):
    frames = frames_of(write(tmp_path / 'v.mkv', drift(4, (96, 128), right=8, down=4)))
    found = flows(frames, size=(72, 64))
    assert found[-1].shape == (1, 2, 18, 16)
    assert middle(found[-1]) == pytest.approx([-8 / 4 * 64 / 128, -4 / 4 * 72 / 96], abs=0.13)


@pytest.mark.parametrize('codec', CODECS)
def test_where_the_encoder_began_anew_there_is_no_flow_so_that_a_key_frame_is_made(tmp_path, codec):
    frames = frames_of(write(tmp_path / 'v.mkv', drift(9, right=3), codec, gop=4))
    assert kinds(frames) == 'IPPPIPPPI'
    assert ['F' if flow is not None else '.' for flow in flows(frames)] == list('.FFF.FFF.')


@pytest.mark.parametrize('codec', CODECS)
def test_at_a_cut_coded_without_an_i_picture_there_is_no_flow(tmp_path, codec):
    before, after = StreetClip(1, 2, 96, 128), StreetClip(2, 2, 96, 128)
    images = [frame.image for frame in before] + [255 - frame.image for frame in after]
    options = {'sc_threshold': 10**9} if codec == 'mpeg4' else {'x264_params': 'scenecut=0'}
    frames = frames_of(write(tmp_path / 'v.mkv', images, codec, **options))
    assert [flow is not None for flow in flows(frames)] == [False, True, False, True]
    assert not frames[2].coded[0].is_start


def test_blocks_that_were_coded_anew_take_the_flow_of_their_neighbours(tmp_path):
    images = [image.copy() for image in drift(3)]
    images[2][24:72, 40:88] = np.random.default_rng(0).integers(0, 256, (48, 48, 3), dtype=np.uint8)
    frames = frames_of(write(tmp_path / 'v.mkv', images, 'libx264'))
    vectors = frames[2].coded[0].vectors
    inside = (abs(vectors['dst_x'] - 64) < 16) & (abs(vectors['dst_y'] - 48) < 16)
    assert not inside.any(), 'these blocks are intra'
    flow = flows(frames)[2][0]
    inner, around = flow[:, 8:16, 12:20], flow[:, 4:20, 8:24]
    assert (inner[0] != 0).all(), 'they are not left at zero'
    for filled, known in zip(inner, around, strict=True):
        assert known.min() <= filled.min()
        assert filled.max() <= known.max()


@pytest.mark.parametrize('codec', CODECS)
def test_b_pictures_and_p_pictures_behind_them_get_dis(tmp_path, codec):
    extra = {'bf': 2} if codec == 'mpeg4' else {'bf': 2, 'tune': 'psnr', 'x264_params': 'b-adapt=0'}
    frames = frames_of(write(tmp_path / 'v.mkv', drift(10, right=4), codec, **extra))[:7]
    kept = kinds(frames)
    assert kept[0] == 'I'
    assert kept.count('-') >= 5
    for kind, flow, estimate in zip(kept[1:], flows(frames)[1:], flows(frames, 'dis')[1:], strict=True):
        assert is_same(flow, estimate) == (kind == '-')
        assert middle(flow) == pytest.approx([-1, 0], abs=0.25)


def test_vectors_to_another_picture_than_the_one_before_are_noticed_and_dis_stands_in(tmp_path):
    one, other = (list(drift(4, right=2, seed=seed)) for seed in (1, 2))
    images = [
        image for pair in zip(one, other, strict=True) for image in pair
    ]  # each is like the last but one
    params = {'refs': 3, 'x264_params': 'scenecut=0:ref=3'}
    frames = frames_of(write(tmp_path / 'v.mkv', images, 'libx264', **params))
    silent = [replace(frame, coded=()) if number > 2 else frame for number, frame in enumerate(frames)]
    found, dis = flows(frames), flows(silent)
    assert kinds(frames)[3:] == 'PPPPP'
    assert all(is_same(flow, estimate) for flow, estimate in zip(found[3:], dis[3:], strict=True))


def test_several_reference_pictures_do_no_harm_where_the_picture_before_is_the_best(tmp_path):
    frames = frames_of(write(tmp_path / 'v.mkv', drift(7, right=5), 'libx264', refs=3, preset='medium'))
    for flow in flows(frames)[1:]:
        assert middle(flow) == pytest.approx([-1.25, 0], abs=0.2)


def test_where_the_encoder_began_anew_in_a_picture_that_was_left_out_there_is_no_flow_either(tmp_path):
    frames = frames_of(write(tmp_path / 'street.mp4', drift(4), gop=2))
    assert kinds(frames) == 'IPIP'
    seen = [frames[0], frames[1], replace(frames[3], coded=frames[2].coded + frames[3].coded)]
    assert [flow is None for flow in flows(seen)] == [True, False, True]


def test_over_pictures_that_were_left_out_vectors_are_composed(tmp_path):
    frames = frames_of(write(tmp_path / 'v.mkv', drift(7, right=3)))
    motion = make_motion('stream')
    motion.update(frames[0].image, False, frames[0].coded)
    later = tuple(frame.coded[0] for frame in frames[1:5])
    flow = motion.update(frames[4].image, True, later)
    assert middle(flow) == pytest.approx([-3, 0], abs=0.25)
    assert not is_same(flow, flows([frames[0], frames[4]], 'dis')[1])
    dis = make_motion('dis')
    dis.update(frames[4].image, False)
    # Of frame 5 nothing is known any more, so frame 6 is not believed.
    assert is_same(motion.update(frames[6].image, True, frames[6].coded), dis.update(frames[6].image, True))


def moved(number, motion):
    """A picture whose blocks of 16x16 come from so many pixels away, (rows, columns, 2)."""
    rows, columns = motion.shape[:2]
    fields = ['source', 'w', 'h', 'dst_x', 'dst_y', 'motion_x', 'motion_y', 'motion_scale']
    vectors = np.zeros(rows * columns, [(name, np.int32) for name in fields])
    for block, (row, column) in enumerate(np.ndindex(rows, columns)):
        vectors[block] = (-1, 16, 16, 16 * column + 8, 16 * row + 8, *motion[row, column], 1)
    return CodedPicture(number, (16 * rows, 16 * columns), vectors=vectors)


def test_vectors_over_several_pictures_are_followed_from_where_the_later_ones_lead_to():
    """Of the earlier picture only the left half moved, and then all of it by a quarter to the right."""
    earlier, later = np.zeros((2, 6, 8, 2), int)
    earlier[:, :4] = (0, -16)
    later[:] = (-32, 0)
    expected = np.zeros((1, 2, 24, 32), np.float32)
    expected[:, 0] = -8
    expected[:, 1, :, : 16 + 8] = -4
    across = np.zeros_like(expected)
    across[:, 0] = -8
    cells = [np.random.default_rng(0).integers(0, 256, (1, 1, 24, 32)).astype(np.float32)]
    cells += [read_at(cells[-1], expected)]
    cells += [read_at(cells[-1], across)]
    images = [cv2.merge([each[0, 0].astype(np.uint8).repeat(4, 0).repeat(4, 1)] * 3) for each in cells]
    motion = make_motion('stream')
    motion.update(images[0], False, (CodedPicture(0, (96, 128), is_start=True),))
    pictures = moved(1, earlier), moved(2, later)
    assert np.array_equal(motion.update(images[1], True, pictures), expected)
    assert np.array_equal(motion.update(images[2], True, (moved(3, later),)), across), 'it follows those two'


def test_where_one_of_the_pictures_between_says_nothing_of_motion_dis_stands_in(tmp_path):
    frames = frames_of(write(tmp_path / 'v.mkv', drift(4, right=3)))
    silent = replace(frames[1].coded[0], vectors=None)
    seen = [frames[0], replace(frames[2], coded=(silent, frames[2].coded[0])), frames[3]]
    found, dis = flows(seen), flows(seen, 'dis')
    assert is_same(found[1], dis[1])
    assert middle(found[2]) == pytest.approx([-0.75, 0], abs=0.13)


def test_pictures_without_vectors_among_others_are_not_warned_of(tmp_path, caplog):
    frames = frames_of(write(tmp_path / 'v.mkv', drift(6, right=4), bf=2))
    assert '-' in kinds(frames)
    flows(frames)
    assert not caplog.records


@pytest.mark.parametrize('codec', ['libx265', 'libvpx', 'mjpeg'])
def test_codecs_that_tell_no_motion_get_dis_and_one_warning(tmp_path, codec, caplog):
    options = {'x265_params': 'log-level=none'} if codec == 'libx265' else {}
    frames = frames_of(write(tmp_path / 'v.mkv', drift(4), codec, **options))
    assert all(frame.coded == () for frame in frames)
    found = flows(frames)
    assert all(map(is_same, found[1:], flows(frames, 'dis')[1:]))
    assert caplog.text.count('carry no motion vectors; DIS is used instead') == 1


def test_a_video_of_i_pictures_only_gets_dis(tmp_path):
    frames = frames_of(write(tmp_path / 'v.mkv', drift(4), gop=0))
    assert kinds(frames) == 'I---'
    assert all(map(is_same, flows(frames)[1:], flows(frames, 'dis')[1:]))


def test_key_frames_follow_the_i_pictures_of_the_stream(tiny_model, tmp_path):
    model = load_model(tiny_model)
    path = write(tmp_path / 'v.mkv', drift(14, (96, 128), right=2), gop=6)
    segmenter = VideoSegmenter(
        model, load_engine(model, EngineSettings('onnxruntime')), StreamSettings(12, motion='stream')
    )
    found = ''.join('K' if segmenter.step(frame).is_key else '.' for frame in frames_of(path))
    assert found == 'K.....K.....K.'
    segmenter = VideoSegmenter(
        model, load_engine(model, EngineSettings('onnxruntime')), StreamSettings(12, motion='stream')
    )
    path = write(tmp_path / 'w.mkv', drift(14, (96, 128), right=2))
    found = ''.join('K' if segmenter.step(frame).is_key else '.' for frame in frames_of(path))
    assert found == 'K...........K.', 'in a video without, the interval still holds'


def test_a_video_that_is_closed_before_its_end_does_not_hang(tmp_path):
    path = write(tmp_path / 'v.mp4', drift(12, right=2), 'libx264', preset='medium', tune='psnr', bf=2)
    code = (
        'import sys, av; av.logging.set_level(av.logging.ERROR)\n'
        'from vss_ros.core.sources.open import open_source\n'
        'source = open_source(sys.argv[1]); frames = iter(source); next(frames); next(frames)\n'
        'source.close(); print("closed")'
    )
    result = subprocess.run([sys.executable, '-c', code, path], capture_output=True, text=True, timeout=60)
    assert result.stdout == 'closed\n', result.stderr


def decode(packets, codec):
    decoder = PacketDecoder(codec)
    return [one for number, packet in enumerate(packets) for one in decoder.decode(bytes(packet), number)]


@pytest.mark.parametrize('codec', CODECS)
def test_every_packet_gives_its_picture_at_once(codec):
    decoder = PacketDecoder(DECODERS.get(codec, codec))
    for number, packet in enumerate(encode(drift(6), codec)):
        (decoded,) = decoder.decode(bytes(packet), label=number)
        assert decoded.label == number
        assert decoded.coded[0].number == number
        assert (decoded.coded[0].vectors is None) == (number == 0)


def test_pictures_that_come_out_of_order_keep_their_packet():
    options = {'bf': 2, 'tune': 'psnr', 'x264_params': 'b-adapt=0'}
    packets = encode(drift(8), 'libx264', **options)
    found = decode(packets, 'h264')
    shown = [packets[one.label].pts for one in found]
    assert shown == sorted(shown)
    assert len(shown) >= 5


@pytest.mark.parametrize('codec', CODECS)
def test_a_stream_that_is_joined_late_begins_with_its_next_key_picture(codec):
    options = {'x264_params': 'repeat-headers=1'} if codec == 'libx264' else {}
    packets = encode(drift(12, right=2), codec, gop=5, **options)
    found = decode(packets[2:], DECODERS.get(codec, codec))
    assert [one.label + 2 for one in found] == list(range(5, 12))
    assert found[0].coded[0].is_start


def test_a_damaged_packet_is_an_error_and_the_stream_goes_on_at_its_next_key_picture():
    packets = [
        bytes(packet) for packet in encode(drift(12), 'libx264', gop=5, x264_params='repeat-headers=1')
    ]
    packets[2] = b'\x00\x00\x00\x01\x41' + bytes(40)
    decoder, found = PacketDecoder('h264'), []
    for number, packet in enumerate(packets):
        if number == 2:
            with pytest.raises(FrameError, match='a packet of h264 video is damaged'):
                decoder.decode(packet, number)
        else:
            found += [one.label for one in decoder.decode(packet, number)]
    assert found == [0, 1, *range(5, 12)]


def test_what_lies_behind_a_packet_in_memory_is_not_read():
    packets = [bytes(packet) for packet in encode(drift(6), 'mpeg4')]
    expected = [one.to_bgr() for one in decode(packets, 'mpeg4')]
    decoder = PacketDecoder('mpeg4')
    for packet, image in zip(packets, expected, strict=True):
        (decoded,) = decoder.decode(memoryview(packet + b'\xff' * 64)[: len(packet)])
        assert np.array_equal(decoded.to_bgr(), image)
        assert not decoded.picture.is_corrupt


def test_an_empty_packet_is_refused_and_does_not_end_the_stream():
    first, second = encode(drift(2), 'mpeg4')
    decoder = PacketDecoder('mpeg4')
    decoder.decode(bytes(first))
    with pytest.raises(FrameError, match='a packet of mpeg4 video is empty'):
        decoder.decode(b'')
    assert len(decoder.decode(bytes(second))) == 1


def test_a_codec_that_does_not_exist_is_refused():
    with pytest.raises(FrameError, match="'h266x' is no video that can be decoded"):
        PacketDecoder('h266x')


def test_flow_is_not_computed_where_nobody_wants_it():
    motion = make_motion('stream')
    image = texture(3)
    assert motion.update(image, wanted=True) is None, 'the first'
    assert motion.update(image, wanted=False, coded=(CodedPicture(0, image.shape[:2]),)) is None
    assert motion.update(image, wanted=True).shape == (1, 2, 60, 80)
    motion.reset()
    assert motion.update(image, wanted=True) is None


def test_a_picture_on_a_topic_that_is_too_large_is_refused():
    (packet,) = encode([np.zeros((16, 8208, 3), np.uint8)], 'libx264')
    (decoded,) = decode([packet], 'h264')
    with pytest.raises(FrameError, match='8208x16; expected sides of 1 to 8192'):
        decoded.to_bgr()


def test_packets_that_complete_no_picture_are_forgotten():
    kept = []

    class Label:
        def __init__(self):
            kept.append(weakref.ref(self))

    decoder = PacketDecoder('h264')
    delimiter = b'\x00\x00\x00\x01\x09\xf0'  # of access units: valid, and no picture
    for _ in range(300):
        assert decoder.decode(delimiter, Label()) == []
    assert sum(label() is not None for label in kept) <= 64
