"""A frame in regions: where they lie, what each of them sees and decides, and how they come together."""

from dataclasses import replace

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vss_ros.core import pipeline
from vss_ros.core.drawing import overlay_result
from vss_ros.core.engines import load_engine
from vss_ros.core.errors import EngineError, FrameError, ModelError, SettingsError
from vss_ros.core.frame import Frame
from vss_ros.core.model.folder import load_model
from vss_ros.core.open_segmenter import make_segmenter
from vss_ros.core.settings import EngineSettings, StreamSettings
from vss_ros.core.sinks.timings import TimingSink
from vss_ros.core.stream.regions import RegionSegmenter, merge, split
from vss_ros.core.stream.segmenter import VideoSegmenter

FRAME_NS = 100_000_000
FOUR = StreamSettings(regions='2x2')


def frames(images):
    return [Frame(image, number * FRAME_NS) for number, image in enumerate(images)]


def doubled(images):
    """Images of which a quarter has the size that the model takes."""
    return [cv2.resize(image, (192, 128)) for image in images]


def line(found):
    """Key frames of each region over time, as K and dots, one line for each region."""
    return [
        ''.join('K' if key else '.' for key in keys)
        for keys in zip(*(s.key_regions for s in found), strict=True)
    ]


@given(
    st.tuples(st.integers(4, 90), st.integers(4, 90)),
    st.sampled_from(['1x1', '2x1', '1x3', '2x2', '3x2', '4x4']),
    st.floats(0, 0.5),
)
def test_every_pixel_is_answered_for_by_one_region_that_sees_it(size, regions, overlap):
    found = split(size, StreamSettings(regions=regions, region_overlap=overlap))
    times_kept = np.zeros(size, int)
    for seen, kept in found:
        times_kept[kept] += 1
        for outer, inner in zip(seen, kept, strict=True):
            assert 0 <= outer.start <= inner.start <= inner.stop <= outer.stop
    assert (times_kept == 1).all()
    image = np.random.default_rng(0).integers(0, 256, size, dtype=np.uint8)
    assert len({image[seen].shape for seen, _ in found}) == 1
    assert np.array_equal(merge([image[seen] for seen, _ in found], found), image)


def test_neighbours_share_a_strip_that_is_parted_in_its_middle():
    [(left, left_kept), (right, right_kept)] = split((10, 100), StreamSettings(regions='2x1'))
    assert (left[1], right[1]) == (slice(0, 55), slice(45, 100))
    assert (left_kept[1], right_kept[1]) == (slice(0, 50), slice(50, 100))
    assert left[0] == left_kept[0] == slice(0, 10)


def test_regions_are_counted_across_first_as_sizes_are():
    assert [region.kept for region in split((6, 8), StreamSettings(regions='2x3', region_overlap=0))] == [
        (slice(top, top + 2), slice(left, left + 4)) for top in (0, 2, 4) for left in (0, 4)
    ]


def test_there_may_be_as_many_regions_as_rows_and_columns_of_pixels():
    down = StreamSettings(regions='1x3')
    assert [region.kept[0] for region in split((3, 1), down)] == [slice(row, row + 1) for row in range(3)]
    for size in ((2, 3), (1, 9)):
        with pytest.raises(FrameError, match='too small for 1x3 regions'):
            split(size, down)


def test_one_region_is_a_plain_segmenter(model, engine):
    assert isinstance(make_segmenter(model, engine, StreamSettings()), VideoSegmenter)
    assert isinstance(make_segmenter(model, engine, FOUR), RegionSegmenter)


@pytest.mark.parametrize('size', [(128, 192), (97, 131)])
def test_each_region_is_what_a_plain_segmenter_makes_of_its_part_of_the_image(model, engine, street, size):
    settings = StreamSettings(key_frame_interval=3, regions='2x2', confidence_threshold=0.3)
    whole = make_segmenter(model, engine, settings)
    plain = [VideoSegmenter(model, engine, settings) for _ in range(4)]
    for frame in frames([cv2.resize(image, size[::-1]) for image in street[:5]]):
        found, regions = whole.step(frame), split(size, settings)
        parts = [
            segmenter.step(Frame(frame.image[seen].copy(), frame.stamp_ns))
            for segmenter, (seen, _) in zip(plain, regions, strict=True)
        ]
        for name in ('mask', 'confidence'):
            array = getattr(found, name)
            assert (array.shape, array.dtype) == (size, np.uint8)
            assert np.array_equal(array, merge([getattr(part, name) for part in parts], regions))
        assert np.array_equal(found.distortion(), merge([part.distortion() for part in parts], regions))
        assert (found.is_key, found.age_frames, found.age_ns) == (
            parts[0].is_key,
            parts[0].age_frames,
            parts[0].age_ns,
        )
        if not found.is_key:
            assert found.corrected_share == pytest.approx(np.mean([part.corrected_share for part in parts]))
            assert found.distortion().any()


def test_only_the_region_in_which_something_happens_becomes_key(model, engine, street):
    """The flow of noise is long and leads nowhere, so little is expected of carrying anything along it."""
    settings = StreamSettings(
        regions='2x2', scheduler='adaptive', key_frame_threshold=0.95, min_interval=1, region_overlap=0.0
    )
    still = doubled(street[:1])[0]
    rng, images = np.random.default_rng(0), []
    for number in range(6):
        images.append(still.copy())
        if number >= 3:
            images[-1][64:, :96] = rng.integers(0, 256, (64, 96, 3), dtype=np.uint8)
    segmenter = make_segmenter(model, engine, settings)
    found = [segmenter.step(frame) for frame in frames(images)]
    assert line(found) == ['K.....', 'K.....', 'K..KKK', 'K.....']
    assert [s.kind for s in found] == ['key', 'propagated', 'propagated', 'mixed', 'mixed', 'mixed']
    assert [s.is_key for s in found] == [True] + [False] * 5
    assert [s.age_frames for s in found] == list(range(6))  # of the oldest region
    assert found[3].age_ns == 3 * FRAME_NS
    still_ones = found[2].expected_accuracy
    assert 0.95 <= still_ones < 1
    # The region that is computed in full is expected to be right.
    assert found[3].expected_accuracy == pytest.approx((3 * still_ones + 1) / 4)
    assert found[3].timings_ms['segmenter'] > 0 < found[3].timings_ms['correction']


def test_shares_of_a_mixed_frame_are_those_of_the_whole(model, engine, street):
    segmenter = make_segmenter(model, engine, FOUR)
    stream = frames(doubled(street[:3]))
    segmenter.step(stream[0])
    propagated = segmenter.step(stream[1])
    segmenter._segmenters[0].request_key_frame()
    parts = []
    for each in segmenter._segmenters:
        each.step = lambda frame, step=each.step: parts.append(step(frame)) or parts[-1]
    mixed = segmenter.step(stream[2])
    assert (mixed.kind, mixed.key_regions) == ('mixed', (True, False, False, False))
    assert parts[0].corrected_share is None  # of what is computed in full nothing is corrected
    assert mixed.corrected_share == pytest.approx(sum(part.corrected_share for part in parts[1:]) / 4)
    assert propagated.kind == 'propagated'
    assert not mixed.distortion()[:60, :90].any()
    assert mixed.distortion()[68:, 100:].any()


def test_what_is_asked_of_the_stream_happens_in_all_regions_with_the_next_frame(model, engine, street):
    segmenter = make_segmenter(model, engine, FOUR)
    stream = iter(frames(doubled(street[:12])))
    found = [segmenter.step(next(stream)) for _ in range(2)]
    segmenter.request_key_frame()
    found += [segmenter.step(next(stream)) for _ in range(2)]
    segmenter.configure(StreamSettings(key_frame_interval=2, regions='4x4', motion='motion_vectors'))
    found += [segmenter.step(next(stream)) for _ in range(2)]
    segmenter.reset('bag loop')
    found.append(segmenter.step(next(stream)))
    assert line(found) == ['K.K.K.K'] * 4
    assert [s.reset_reason for s in found] == ['first frame', *[None] * 5, 'bag loop']
    assert segmenter.resets == {'first frame': 1, 'bag loop': 1}
    assert segmenter.settings == StreamSettings(key_frame_interval=2, regions='2x2')


def test_motion_that_is_of_whole_images_is_refused_also_where_the_model_was_made_for_it(model, engine):
    with pytest.raises(ModelError, match='those of whole images; set regions to 1x1 or motion to dis'):
        make_segmenter(replace(model, flow='stream'), engine, FOUR)


def test_regions_are_configured_only_when_the_settings_have_changed(model, engine, street, monkeypatch):
    taken = []
    monkeypatch.setattr(VideoSegmenter, 'configure', lambda segmenter, settings: taken.append(settings))
    segmenter = make_segmenter(model, engine, FOUR)
    for frame in frames(doubled(street[:3])):
        segmenter.step(frame)
    assert taken == []
    segmenter.configure(replace(FOUR, key_frame_interval=2))
    for frame in frames(doubled(street[:3])):
        segmenter.step(frame)
    assert taken == [replace(FOUR, key_frame_interval=2)] * 4


def test_a_change_that_the_model_cannot_follow_is_refused_at_once_and_changes_nothing(model, engine, street):
    plain = replace(model, steps={name: model.steps[name] for name in ('key', 'propagated')})
    segmenter = make_segmenter(plain, engine, FOUR)
    with pytest.raises(ModelError, match='correction_interval is 2, but tiny has no step'):
        segmenter.configure(replace(FOUR, correction_interval=2))
    assert segmenter.step(Frame(street[0], 0)).is_key
    assert segmenter.settings == FOUR


def test_a_new_size_starts_a_new_stream_even_where_the_regions_keep_theirs(model, engine, street):
    segmenter = make_segmenter(model, engine, FOUR)
    sizes = [(101, 100), (101, 100), (102, 100), (40, 60)]
    assert split(sizes[1], FOUR)[0].seen == split(sizes[2], FOUR)[0].seen
    found = [segmenter.step(frame) for frame in frames([cv2.resize(street[0], size[::-1]) for size in sizes])]
    assert [s.mask.shape for s in found] == sizes
    assert [s.reset_reason for s in found] == ['first frame', None, 'size changed', 'size changed']
    assert [s.is_key for s in found] == [True, False, True, True]
    segmenter.reset('bag loop')
    assert segmenter.step(Frame(street[0], 5 * FRAME_NS)).reset_reason == 'bag loop', 'as was asked'


def test_a_gap_starts_a_new_stream(model, engine, street):
    segmenter = make_segmenter(model, engine, FOUR)
    found = [segmenter.step(Frame(street[0], stamp)) for stamp in (0, 1, 10**10, 5)]
    assert [s.reset_reason for s in found] == ['first frame', None, 'gap', 'stamp went back']
    assert segmenter.resets == {'first frame': 1, 'gap': 1, 'stamp went back': 1}


def test_another_camera_or_encoding_starts_a_new_stream_in_all_regions(model, engine, street):
    segmenter = make_segmenter(model, engine, FOUR)
    sources = [('front', 'bgr8'), ('front', 'bgr8'), ('rear', 'bgr8'), ('rear', 'rgb8')]
    found = [segmenter.step(Frame(street[0], stamp, *source)) for stamp, source in enumerate(sources)]
    assert [s.reset_reason for s in found] == ['first frame', None, 'camera changed', 'encoding changed']
    assert line(found) == ['K.KK'] * 4


def test_an_error_in_one_region_starts_a_new_stream_in_all(model, engine, street):
    class FailsOnce:
        runs = 0

        def run(self, graph, tensors):
            self.runs += 1
            if self.runs == 7:  # a key frame is one graph in each region; then the first's second one
                raise EngineError('out of memory')
            return engine.run(graph, tensors)

        def to_host(self, tensor):
            return engine.to_host(tensor)

    segmenter = make_segmenter(model, FailsOnce(), FOUR)
    stream = frames(doubled(street[:4]))
    segmenter.step(stream[0])
    with pytest.raises(EngineError, match='out of memory'):
        segmenter.step(stream[1])
    found = [segmenter.step(frame) for frame in stream[2:]]
    assert [(s.kind, s.reset_reason) for s in found] == [('key', 'error'), ('propagated', None)]


def test_the_time_of_a_frame_is_that_of_all_its_regions(model, engine, street):
    segmenter, parts = make_segmenter(model, engine, FOUR), []
    for each in segmenter._segmenters:
        each.step = lambda frame, step=each.step: parts.append(step(frame)) or parts[-1]
    found = segmenter.step(Frame(doubled(street[:1])[0], 0))
    assert len(parts) == 4
    assert found.timings_ms['segmenter'] == pytest.approx(sum(part.timings_ms['segmenter'] for part in parts))
    assert found.timings_ms['resize'] > sum(part.timings_ms['resize'] for part in parts)  # they are cut out
    assert found.timings_ms['output'] > sum(part.timings_ms['output'] for part in parts)  # and put together


def test_the_pipeline_runs_regions_and_their_times_add_up(model, engine, street):
    timings, answered = TimingSink(), []

    class Keep:
        def write(self, frame, segmentation):
            answered.append((frame, segmentation))

    segmenter = make_segmenter(model, engine, FOUR)
    stream = frames(doubled(street[:6]))
    pipeline.run([*stream[:3], None, *stream[3:]], segmenter, [timings, Keep()])
    assert [frame for frame, _ in answered] == stream
    assert (timings.count('key'), timings.count('propagated'), timings.count('mixed')) == (2, 4, 0)
    assert list(answered[0][1].timings_ms) == ['resize', 'flow', 'segmenter', 'download', 'output']
    picture = overlay_result(stream[0].image, answered[0][1], model.classes, 0.5)
    assert picture.shape == stream[0].image.shape
    segmenter.close()


@pytest.mark.parametrize(
    ('changes', 'reason'),
    [
        ({'regions': '2'}, "regions is '2'; use one of 1x1, 2x1"),
        ({'regions': '5x1'}, "regions is '5x1'; use one of"),
        ({'region_overlap': 0.6}, 'region_overlap is 0.6; use 0 to 0.5'),
        ({'region_overlap': float('nan')}, 'region_overlap is nan'),
        (
            {'regions': '2x2', 'motion': 'stream'},
            'motion is stream and regions is 2x2, .* set regions',
        ),
        ({'regions': '2x2', 'output_size': 'network'}, 'output_size is network and regions is 2x2'),
        (
            {'regions': '2x2', 'background_key_frames': True},
            'background_key_frames is true and regions',
        ),
    ],
)
def test_what_cannot_be_done_in_regions_is_refused(changes, reason):
    with pytest.raises(SettingsError, match=reason):
        StreamSettings(**changes)


def test_a_model_whose_results_are_late_is_refused(late_models):
    model = load_model(late_models[1])
    engine = load_engine(model, EngineSettings('onnxruntime', threads=1))
    with pytest.raises(ModelError, match='1 frames late and cannot be run in regions; set regions to 1x1'):
        make_segmenter(model, engine, FOUR)


def test_an_image_with_fewer_pixels_than_regions_is_refused_and_the_next_one_taken(model, engine, street):
    segmenter = make_segmenter(model, engine, FOUR)
    with pytest.raises(FrameError, match='image is 1x9, too small for 2x2 regions; set regions to 1x1'):
        segmenter.step(Frame(np.zeros((9, 1, 3), np.uint8), 0))
    assert segmenter.step(Frame(street[0], 1)).reset_reason == 'error'


def test_after_an_image_that_is_too_small_a_new_stream_begins(model, engine, street):
    segmenter = make_segmenter(model, engine, FOUR)
    segmenter.step(Frame(street[0], 0))
    with pytest.raises(FrameError, match='too small'):
        segmenter.step(Frame(np.zeros((9, 1, 3), np.uint8), 1))
    found = [segmenter.step(Frame(street[1], stamp)) for stamp in (2, 3)]
    assert [(s.kind, s.reset_reason) for s in found] == [('key', 'error'), ('propagated', None)]


def test_a_frame_is_carried_where_all_of_its_regions_are(model, engine, street):
    segmenter = make_segmenter(model, engine, StreamSettings(9, regions='2x2', correction_interval=9))
    stream = frames(doubled(street[:3]))
    found = [segmenter.step(frame) for frame in stream[:2]]
    segmenter._segmenters[0].request_key_frame()
    found.append(segmenter.step(stream[2]))
    assert [s.kind for s in found] == ['key', 'carried', 'mixed']
    assert [s.is_carried for s in found] == [False, True, False]
