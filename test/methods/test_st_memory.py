"""How STF+MAR groups, orders and keeps what it fuses, which sizes it takes, and what it refuses."""

from __future__ import annotations

from copy import deepcopy

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from method_models import run_step
from torch import nn
from torch.nn import functional as F

from vss_ros.core.errors import ModelError, SettingsError, ShapeError
from vss_ros.exporting.import_weights import import_weights, missing_networks
from vss_ros.methods import build_method
from vss_ros.methods.blocks.icsa import BY_BLOCK, BY_OFFSET, Attention, Icsa, fitting_side, group, ungroup
from vss_ros.methods.blocks.image import to_rgb
from vss_ros.methods.blocks.lite import LiteSegmenter
from vss_ros.methods.blocks.mar import Refiner
from vss_ros.methods.blocks.stf import Stf
from vss_ros.methods.st_memory import ORDERS, StMemory

CLASSES = 5


@pytest.fixture(scope='module')
def lite():
    """A lite method whose memory is full; nobody may change it."""
    torch.manual_seed(0)
    method = StMemory(CLASSES, backbone='lite', grid=(8, 12), keys_per_class=3).eval()
    method.MAR.remember(torch.randn(CLASSES * 3, 64), torch.randn(CLASSES, 64))
    return method


@pytest.fixture(scope='module')
def images():
    torch.manual_seed(1)
    return torch.randint(0, 256, (4, 64, 96, 3), dtype=torch.uint8).split(1)


def stream(method, images):
    """The tensors of every step of a stream."""
    with torch.no_grad():
        steps = [run_step(method, 'key', {'image': images[0]})]
        for image in images[1:]:
            steps.append(run_step(method, 'propagated', {'image': image, **method.state_of(steps[-1])}))
    return steps


def coordinates(frames=2, height=6, width=8):
    """Tokens that hold their own place, (1, frames, height, width, 3)."""
    axes = [torch.arange(length) for length in (frames, height, width)]
    return torch.stack(torch.meshgrid(*axes, indexing='ij'), -1)[None]


def test_a_group_of_the_long_range_is_a_lattice_through_all_frames():
    for tokens in group(coordinates(), (3, 2), BY_OFFSET):
        offsets = {(int(row) % 3, int(column) % 2) for _, row, column in tokens}
        assert len(offsets) == 1
        assert len({tuple(token.tolist()) for token in tokens}) == 2 * 2 * 4


def test_a_group_of_the_short_range_is_a_block_through_all_frames():
    for tokens in group(coordinates(), (3, 2), BY_BLOCK):
        blocks = {(int(row) // 3, int(column) // 2) for _, row, column in tokens}
        assert len(blocks) == 1
        assert len({tuple(token.tolist()) for token in tokens}) == 2 * 3 * 2


sides = st.integers(1, 4)


@settings(max_examples=30, deadline=None, derandomize=True)
@given(
    st.integers(1, 2), st.integers(1, 3), sides, sides, sides, sides, st.sampled_from([BY_OFFSET, BY_BLOCK])
)
def test_ungrouping_puts_every_token_back(images, frames, rows, columns, down, across, order):
    tokens = torch.rand(images, frames, rows * down, columns * across, 2)
    groups = group(tokens, (rows, columns), order)
    assert torch.equal(ungroup(groups, tokens.shape, (rows, columns), order), tokens)


def test_attention_is_that_of_pytorch():
    torch.manual_seed(0)
    ours, theirs = Attention(8, 2, 0.0), nn.MultiheadAttention(8, 2, batch_first=True)
    ours.load_state_dict(theirs.state_dict())
    query, key, value = torch.rand(3, 5, 8), torch.rand(3, 7, 8), torch.rand(3, 7, 8)
    torch.testing.assert_close(ours(query, key, value), theirs(query, key, value)[0])


def test_attention_starts_without_biases_as_that_of_pytorch_does():
    biases = [value for name, value in Icsa(8, 2, 0.0).state_dict().items() if name.endswith('bias')]
    assert len(biases) == 4
    assert not any(bias.any() for bias in biases)


def multi_head(query, key, value, layer, heads):
    """Attention of tokens (n, d), head by head."""
    weights, biases = layer.in_proj_weight.chunk(3), layer.in_proj_bias.chunk(3)
    parts = (query, key, value)
    q, k, v = (part @ weight.T + bias for part, weight, bias in zip(parts, weights, biases, strict=True))
    cut = q.shape[1] // heads
    found = []
    for head in range(heads):
        here = slice(head * cut, (head + 1) * cut)
        found.append((q[:, here] @ k[:, here].T / cut**0.5).softmax(1) @ v[:, here])
    return torch.cat(found, 1) @ layer.out_proj.weight.T + layer.out_proj.bias


def icsa_plainly(icsa, query, key, query_places, key_places, block, heads):
    """Both stages group by group; maps (t, h, w, d)."""
    far, near = torch.zeros_like(query), torch.zeros_like(query)
    rows, columns = block
    for y in range(rows):
        for x in range(columns):
            here = np.s_[:, y::rows, x::columns]
            asked, known, values = query[here] + query_places[here], key[here] + key_places[here], key[here]
            tokens = (part.reshape(-1, part.shape[-1]) for part in (asked, known, values))
            far[here] = multi_head(*tokens, icsa.self_attn_long, heads).reshape(asked.shape)
    for y in range(0, query.shape[1], rows):
        for x in range(0, query.shape[2], columns):
            here = np.s_[:, y : y + rows, x : x + columns]
            asked = far[here] + query_places[here]
            tokens = (part.reshape(-1, part.shape[-1]) for part in (asked, asked, far[here]))
            near[here] = multi_head(*tokens, icsa.self_attn_short, heads).reshape(asked.shape)
    return near


@pytest.mark.parametrize(('heads', 'depth', 'block'), [(1, 1, (2, 3)), (2, 2, (3, 2)), (4, 3, (6, 6))])
def test_stf_of_any_heads_depth_and_block_is_what_its_paper_says(heads, depth, block):
    torch.manual_seed(0)
    stf = Stf(8, (5, 7), block, heads, depth).eval()
    for parameter in stf.parameters():
        nn.init.normal_(parameter, std=0.5)
    features = torch.randn(1, 8, 3, 6, 6)
    with torch.no_grad():
        found = stf(features)[0]
        places = [
            F.interpolate(stored, (stored.shape[2], 6, 6), mode='trilinear')[0].permute(1, 2, 3, 0)
            for stored in (stf.pe_enc, stf.pe_dec)
        ]
        encoded = features[0].permute(1, 2, 3, 0)
        query = encoded[1:2]
        for layer in stf.encoder.layers:
            seen = icsa_plainly(layer.self_attn, encoded, encoded, places[0], places[0], block, heads)
            encoded = layer.norm1(encoded + seen)
            encoded = layer.norm2(encoded + layer.linear2(layer.linear1(encoded).relu()))
        for layer in stf.decoder.layers:
            seen = icsa_plainly(layer.self_attn, query, query, places[1], places[1], block, heads)
            query = layer.norm1(query + seen)
            seen = icsa_plainly(layer.multihead_attn, query, encoded, places[1], places[0], block, heads)
            query = layer.norm2(query + seen)
            query = layer.norm3(query + layer.linear2(layer.linear1(query).relu()))
    torch.testing.assert_close(found, query[0].permute(2, 0, 1), rtol=0, atol=1e-4)


def test_one_block_of_the_whole_map_looks_everywhere_in_the_second_stage_only():
    torch.manual_seed(0)
    icsa = Icsa(8, 2, 0.0).eval()
    tokens, places = torch.rand(1, 2, 3, 4, 8), torch.zeros(1, 2, 3, 4, 8)
    found = icsa(tokens, tokens, places, places, (3, 4))
    changed = tokens.clone()
    changed[0, 1, 2, 3] += 1
    assert ((icsa(changed, changed, places, places, (3, 4)) - found).abs().amax(-1) > 0).all()
    first = icsa.self_attn_long(*[group(changed, (3, 4), BY_OFFSET)] * 3)
    assert first.shape == (12, 2, 8)  # each cell sees itself in the two frames


@pytest.mark.parametrize(
    ('length', 'side'),
    [(45, 15), (60, 15), (128, 16), (256, 16), (90, 15), (160, 16), (34, 17), (9, 9), (72, 18)],
)
def test_the_block_side_is_the_divisor_nearest_to_the_wanted_one(length, side):
    assert fitting_side(length, 16) == side


def test_a_map_that_no_block_divides_is_refused_with_a_size_that_fits():
    with pytest.raises(ShapeError, match=r'47 cells cannot be cut into blocks of about 16; .* 48 say'):
        fitting_side(47, 16)


@pytest.mark.parametrize('size', [(360, 480), (120, 160)])
def test_weights_fit_other_image_sizes(lite, size):
    image = torch.zeros(1, *size, 3, dtype=torch.uint8)
    result = stream(lite, [image])[0]
    assert result['scores'].shape == (1, CLASSES, size[0] // 4, size[1] // 4)
    assert result['mask'].shape == result['confidence'].shape == (1, *size)


def test_image_sides_that_are_no_multiple_of_8_are_refused(lite):
    with pytest.raises(ShapeError, match=r'image is 100x64; .* multiples of 8'):
        lite.features(torch.zeros(1, 64, 100, 3, dtype=torch.uint8))


def test_features_of_older_frames_are_kept_and_the_first_frame_stands_for_those_before_it(lite, images):
    steps = stream(lite, images)
    features = [step['features'] for step in steps]
    kept = [(step['previous_features'], step['older_features']) for step in steps]
    expected = [(0, 0), (0, 0), (1, 0), (2, 1)]
    for (previous, older), (i, j) in zip(kept, expected, strict=True):
        assert torch.equal(previous, features[i])
        assert torch.equal(older, features[j])


@pytest.mark.parametrize(
    ('frames', 'slots', 'centre', 'delay'),
    [
        ('published', 'abc', 1, 1),
        ('causal', 'abc', 2, 0),
        ('centred', 'acb', 1, 0),
        ('mirrored', 'bcb', 1, 0),
    ],
)
def test_frames_go_where_the_order_says(lite, monkeypatch, frames, slots, centre, delay):
    monkeypatch.setattr(lite, 'order', ORDERS[frames])
    monkeypatch.setattr(lite, 'delay_frames', delay)
    by_name = dict(zip('abc', torch.rand(3, 1, 192, 8, 12), strict=True))  # in the order of time
    with torch.no_grad():
        expected = lite.STF(torch.stack([by_name[slot][:, :64] for slot in slots], 2), centre)
        scores = lite.fusion(by_name['c'], by_name['b'], by_name['a'])['scores']
        assert torch.equal(scores, lite.pspnet.classify(lite.MAR(expected), by_name[slots[centre]]))
    assert build_on_meta('lite', frames=frames).delay_frames == delay


def build_on_meta(backbone, **options):
    """A method without memory for its weights."""
    with torch.device('meta'):
        return StMemory(19, backbone=backbone, **options)


def parameters_of(module):
    return sum(
        tensor.numel() for tensor in [*module.parameters(), *module.buffers()] if tensor.is_floating_point()
    )


def test_the_published_networks_have_their_published_sizes():
    method = build_on_meta('pspnet')
    trained = sum(weight.numel() for weight in method.pspnet.parameters())
    auxiliary = sum(weight.numel() for weight in method.pspnet.auxiliary_head.parameters())
    assert round((trained - auxiliary) / 1e6, 2) == 46.61
    assert round(auxiliary / 1e6, 2) == 2.36
    assert round(parameters_of(method.STF) / 1e6, 2) == 73.94
    assert round(parameters_of(method.MAR) / 1e6, 2) == 1.97


def test_the_image_network_has_the_names_of_public_files():
    shapes = {
        name: tuple(tensor.shape) for name, tensor in build_on_meta('pspnet').pspnet.state_dict().items()
    }
    for name, shape in {
        'backbone.stem.0.weight': (32, 3, 3, 3),
        'backbone.stem.7.running_mean': (64,),
        'backbone.layer1.0.downsample.0.weight': (256, 64, 1, 1),
        'backbone.layer3.5.conv2.weight': (256, 256, 3, 3),
        'backbone.layer4.0.downsample.1.num_batches_tracked': (),
        'decode_head.psp_modules.3.1.conv.weight': (512, 2048, 1, 1),
        'decode_head.psp_modules.0.1.bn.weight': (512,),
        'decode_head.bottleneck.conv.weight': (512, 4096, 3, 3),
        'decode_head.conv_seg.bias': (19,),
        'auxiliary_head.convs.0.conv.weight': (256, 1024, 3, 3),
        'auxiliary_head.convs.0.bn.bias': (256,),
        'auxiliary_head.conv_seg.weight': (19, 256, 1, 1),
    }.items():
        assert shapes.pop(name) == shape
    roots = {name.rsplit('.', 1)[0].split('.')[0] for name in shapes}
    assert roots == {'backbone', 'decode_head', 'auxiliary_head'}
    assert len(shapes) + 12 == 61 * 6 + 2 * 2  # convolutions with their norms, classifiers


@pytest.mark.parametrize(('dilation', 'expected'), [('layer3', [1, 2, 2, 2, 2, 2]), ('layer4', [2, 4, 4])])
def test_the_first_block_of_a_dilated_stage_has_half_its_dilation(dilation, expected):
    blocks = getattr(build_on_meta('pspnet').pspnet.backbone, dilation)
    assert [block.conv2.dilation[0] for block in blocks] == expected
    assert all(block.conv2.padding == block.conv2.dilation for block in blocks)


def test_folding_changes_no_result(lite, images):
    folded = deepcopy(lite)
    folded.fold((64, 96))
    assert not hasattr(folded.MAR, 'memory_key')
    for one, other in zip(stream(folded, images), stream(lite, images), strict=True):
        torch.testing.assert_close(one['scores'], other['scores'], rtol=0, atol=1e-4)


def test_training_reaches_every_weight_and_not_the_memory(lite, images):
    method = deepcopy(lite).train()
    features = method.features(torch.cat(images[:3]))['features'].split(1)
    scores = method.fusion(*reversed(features))['scores']
    F.cross_entropy(scores, torch.zeros(1, 16, 24, dtype=torch.long)).backward()
    still = [name for name, weight in method.named_parameters() if weight.grad is None]
    assert still == []
    assert not method.MAR.memory_key.requires_grad


def test_what_is_found_in_the_memory_is_dropped_twice_in_training_as_published():
    torch.manual_seed(0)
    refiner, seen = Refiner(64).train(), []
    refiner.norm1.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    found = refiner.attn.to_out[1](torch.ones(2000, 64))  # the first time
    refiner(torch.zeros(2000, 64), found)
    assert (seen[0] == 0).float().mean().item() == pytest.approx(1 - 0.9**2, abs=0.01)


def test_results_and_state_stay_float32_where_networks_compute_in_bfloat16(lite, images):
    with torch.autocast('cpu', torch.bfloat16):
        result = stream(lite, images[:1])[0]
    assert result['features'].dtype == result['scores'].dtype == torch.float32


def test_without_refinement_there_is_no_memory(lite, images):
    method = StMemory(CLASSES, backbone='lite', grid=(8, 12), refinement='none').eval()
    wanted = {name: tensor for name, tensor in lite.state_dict().items() if not name.startswith('MAR.')}
    method.load_state_dict(wanted)
    fused = stream(method, images[:1])[0]
    assert not torch.equal(fused['scores'], stream(lite, images[:1])[0]['scores'])


def test_a_frame_alone_is_refined_as_it_is(lite, images):
    method = StMemory(CLASSES, backbone='lite', frames='alone', keys_per_class=3).eval()
    wanted = {name: tensor for name, tensor in lite.state_dict().items() if not name.startswith('STF.')}
    method.load_state_dict(wanted)
    assert (method.graphs, method.delay_frames, method.state) == (('features', 'fusion'), 0, {})
    assert method.inputs_of('fusion') == ('features',)
    step = stream(method, images[:1])[0]
    with torch.no_grad():
        expected = lite.pspnet.classify(lite.MAR(step['features'][:, :64]), step['features'])
    assert torch.equal(step['scores'], expected)


def test_neither_fused_nor_refined_a_frame_has_the_scores_of_the_network_of_single_images(lite, images):
    method = StMemory(CLASSES, backbone='lite', frames='alone', refinement='none').eval()
    method.pspnet.load_state_dict(lite.pspnet.state_dict())
    with torch.no_grad():
        torch.testing.assert_close(
            stream(method, images[:1])[0]['scores'], method.segment(to_rgb(images[0])), rtol=0, atol=1e-5
        )


def test_a_method_is_rebuilt_by_its_options():
    first = build_method(
        'st-memory', 3, {'backbone': 'lite', 'frames': 'centred', 'grid': (4, 6), 'block': (4, 2), 'depth': 2}
    )
    again = build_method('st-memory', 3, first.options)
    again.load_state_dict(first.state_dict())
    assert again.options == first.options
    assert again.options['grid'] == [4, 6]
    assert again.options['block'] == again.STF.block == [4, 2]


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        ({'backbone': 'swin'}, "backbone is 'swin'; use one of pspnet, lite"),
        ({'frames': 'all'}, "frames is 'all'; use one of published, causal, centred, mirrored, alone"),
        ({'block': 0}, 'block is 0; use 1 or more'),
        ({'block': [4]}, r'block is \[4\]; use 1 or more, or \[rows, columns\]'),
        ({'depth': 0}, 'depth is 0; use 1 or more'),
        ({'backbone': 'lite', 'heads': 3}, 'heads is 3; use a number that divides the 64 channels'),
        ({'keys_per_class': 0}, 'keys_per_class is 0; use 1 or more'),
        ({'grid': [4]}, r'grid is \[4\]; use \[rows, columns\]'),
        ({'refinement': 'crf'}, "refinement is 'crf'; use one of memory, none"),
        ({'decision': 'tenth'}, "decision is 'tenth'; use one of full"),
    ],
)
def test_options_that_cannot_be_used_are_refused(options, message):
    with pytest.raises(SettingsError, match=message):
        build_method('st-memory', CLASSES, options)


def test_a_published_file_loads_and_the_memory_may_be_in_none(lite, tmp_path):
    state = {f'module.{name}': tensor for name, tensor in lite.state_dict().items()}
    torch.save(state, tmp_path / 'all.pth')
    torch.save({k: v for k, v in state.items() if '.MAR.' not in k}, tmp_path / 'fusion.pth')
    method = StMemory(CLASSES, backbone='lite', grid=(8, 12), keys_per_class=3)
    fusion = import_weights([tmp_path / 'fusion.pth'], method)
    assert missing_networks(fusion, method) == ['MAR']
    method.load_state_dict(import_weights([tmp_path / 'all.pth'], method))
    assert torch.equal(method.MAR.memory_key, lite.MAR.memory_key)


@pytest.mark.parametrize('wrapped', [False, True])
def test_a_public_pspnet_is_the_image_network_alone(tmp_path, wrapped):
    method = build_on_meta('pspnet')
    public = {name: torch.zeros(tensor.shape) for name, tensor in method.pspnet.state_dict().items()}
    content = {'meta': {'CLASSES': ('road',), 'epoch': 80}, 'state_dict': public} if wrapped else public
    torch.save(content, tmp_path / 'pspnet_r50.pth')
    state = import_weights([tmp_path / 'pspnet_r50.pth'], method)
    assert set(state) == {f'pspnet.{name}' for name in public}
    assert missing_networks(state, method) == ['STF', 'MAR']
    assert missing_networks(state, build_on_meta('pspnet', frames='alone', refinement='none')) == []


def test_a_public_pspnet_may_lack_its_auxiliary_head_but_not_a_part_of_it(tmp_path):
    method, file = build_on_meta('pspnet'), tmp_path / 'pspnet_r50.pth'
    names = method.pspnet.state_dict()
    public = {name: torch.zeros(()).expand(tensor.shape) for name, tensor in names.items()}
    needed = {name: tensor for name, tensor in public.items() if not name.startswith('auxiliary_head.')}
    torch.save(needed, file)
    state = import_weights([file], method)
    assert set(state) == {f'pspnet.{name}' for name in needed}
    assert missing_networks(state, method) == ['STF', 'MAR', 'pspnet.auxiliary_head']
    torch.save({name: public[name] for name in public if name != 'auxiliary_head.conv_seg.bias'}, file)
    with pytest.raises(ModelError, match=r'missing pspnet.auxiliary_head.conv_seg.bias; unexpected none'):
        import_weights([file], method)


@pytest.fixture
def released(lite, tmp_path):
    """Weights of `lite`, and a memory as the authors publish it: the file, keys and values."""
    torch.save(lite.state_dict(), tmp_path / 'all.pth')
    torch.manual_seed(4)
    keys, values = torch.randn(CLASSES * 3, 64), torch.randn(CLASSES, 64)
    np.save(tmp_path / 'key.npy', keys)
    np.save(tmp_path / 'value.npy', values)
    return tmp_path, keys, values


def test_the_arrays_of_the_authors_take_the_place_of_the_memory(lite, released):
    folder, keys, values = released
    method = StMemory(CLASSES, backbone='lite', grid=(8, 12), keys_per_class=3)
    files = [folder / name for name in ('value.npy', 'all.pth', 'key.npy')]
    method.load_state_dict(import_weights(files, method))
    expected = deepcopy(lite)
    expected.MAR.remember(keys, values)
    for name, tensor in expected.state_dict().items():
        assert torch.equal(method.state_dict()[name], tensor), name


@pytest.mark.parametrize(
    ('names', 'array', 'message'),
    [
        (['all.pth', 'key.npy'], None, 'give both, once, and with them the weights'),
        (['key.npy', 'value.npy'], None, 'the weights of the MAR that they belong to'),
        (['all.pth', 'key.npy', 'value.npy', 'other.npy'], None, 'a memory is key.npy and value.npy'),
        (['all.pth', 'key.npy', 'value.npy'], np.zeros((15, 64)), r'\(15, 64\); .* floats of \(5, 64\)'),
        (['all.pth', 'key.npy', 'value.npy'], np.zeros((5, 64), int), 'int64 of shape'),
        (['all.pth', 'key.npy', 'value.npy'], np.array([{}]), 'cannot be read as an array: .*Python objects'),
        (['all.pth', 'key.npy', 'value.npy'], b'\x93NUMPY', 'value.npy cannot be read as an array'),
    ],
)
def test_a_memory_that_does_not_fit_is_refused(released, names, array, message):
    folder, _, _ = released
    if isinstance(array, bytes):
        (folder / 'value.npy').write_bytes(array)
    elif array is not None:
        np.save(folder / 'value.npy', array, allow_pickle=True)
    method = StMemory(CLASSES, backbone='lite', grid=(8, 12), keys_per_class=3)
    with pytest.raises(ModelError, match=message):
        import_weights([folder / name for name in names], method)


def test_the_lite_features_are_the_segmenter_of_evss_lite_cut_in_two(lite):
    rgb = torch.rand(2, 3, 64, 96)
    whole = LiteSegmenter(CLASSES).eval()
    whole.load_state_dict(lite.pspnet.state_dict())
    with torch.no_grad():
        features = lite.pspnet.features(rgb)
        assert features.shape == (2, 64 + 128, 8, 12)
        assert torch.equal(lite.pspnet.classify(features[:, :64], features), whole(rgb))


def test_what_is_drawn_fine_is_that_of_the_frame_the_result_belongs_to():
    method = StMemory(CLASSES, backbone='lite', grid=(8, 12)).eval()
    by_age = torch.rand(3, 1, 192, 8, 12)
    with torch.no_grad():
        scores = method.fusion(*by_age)['scores']
        for age, changes in ((0, False), (1, True), (2, False)):
            other = by_age.clone()
            other[age, :, 64:] += 1
            assert torch.equal(method.fusion(*other)['scores'], scores) != changes
