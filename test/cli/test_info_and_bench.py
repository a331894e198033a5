import json
import shutil
from pathlib import Path

import pytest
import yaml

from vss_ros.benchmark.ceilings import measured_ceilings
from vss_ros.benchmark.machine import peak_memory_mb
from vss_ros.benchmark.models import models_of
from vss_ros.benchmark.tables import contender_name, memory_line
from vss_ros.cli.main import main
from vss_ros.core.engines import load_engine
from vss_ros.core.errors import EngineError
from vss_ros.core.model.cost import cost_of, graph_costs, step_macs
from vss_ros.core.model.files import sha256_of
from vss_ros.core.model.folder import load_model
from vss_ros.core.settings import EngineSettings


def test_info_tells_what_a_model_is_and_which_engines_run_it(tiny_model, capsys):
    assert main(['info', str(tiny_model)]) == 0
    shown = capsys.readouterr().out
    for fact in (
        'evss-lite',
        'camvid11',
        '96x64',
        'flow > warp > correction',
        '0 sky',
        'bicyclist',
        'sha256',
    ):
        assert fact in shown
    for graph in ('segmenter', 'warp', 'correction'):
        assert f'│ {graph} ' in shown
    assert 'onnxruntime' in shown


def test_info_refuses_a_model_that_was_changed(tiny_model, tmp_path, capsys):
    copy = tmp_path / 'copy'
    shutil.copytree(tiny_model, copy)
    with (copy / 'warp.onnx').open('ab') as file:
        file.write(b'\0')
    assert main(['info', str(copy)]) == 2
    assert 'warp.onnx is damaged or was changed' in capsys.readouterr().err


def test_info_tells_a_graph_that_keeps_tensors_in_another_file(tiny_model, tmp_path, capsys, monkeypatch):
    onnx = pytest.importorskip('onnx')
    monkeypatch.setenv('COLUMNS', '400')
    copy = Path(shutil.copytree(tiny_model, tmp_path / 'copy'))
    file = copy / 'segmenter.onnx'
    onnx.save(onnx.load(file), file, save_as_external_data=True, location='segmenter.onnx.data')
    content = yaml.safe_load((copy / 'model.yaml').read_text())
    content['graphs']['segmenter']['sha256'] = sha256_of(file)
    (copy / 'model.yaml').write_text(yaml.safe_dump(content))
    main(['info', str(copy)])
    shown = capsys.readouterr().out
    assert 'segmenter.onnx keeps tensors in another file, segmenter.onnx.data say' in shown
    assert 'external_data=False' in shown
    assert 'complete' not in shown


def test_info_marks_a_method_that_is_not_known_here(tiny_model, tmp_path, capsys):
    copy = Path(shutil.copytree(tiny_model, tmp_path / 'copy'))
    text = (copy / 'model.yaml').read_text()
    (copy / 'model.yaml').write_text(text.replace('method: evss-lite', 'method: foo'))
    main(['info', str(copy)])
    assert 'foo (not known here)' in capsys.readouterr().out


def test_info_builds_no_engine_which_would_take_minutes(monkeypatch, capsys):
    settings = []

    def load_engine(model, of_engine):
        settings.append(of_engine)
        raise EngineError('not today')

    monkeypatch.setattr('vss_ros.core.engines.load_engine', load_engine)
    assert main(['info', 'camvid-evss-lite']) == 2
    assert {entry.build for entry in settings} == {'never'}


def test_info_fails_for_a_model_that_no_engine_takes(tiny_model, tmp_path, capsys):
    copy = Path(shutil.copytree(tiny_model, tmp_path / 'copy'))
    content = yaml.safe_load((copy / 'model.yaml').read_text())
    content['graphs']['segmenter']['outputs']['mask'] = ['uint8', [1, 8, 12]]
    content |= {'method': 'none', 'steps': {'key': ['segmenter']}, 'state': {}, 'options': {}}
    (copy / 'model.yaml').write_text(yaml.safe_dump(content))
    assert main(['info', str(copy)]) == 2
    shown = capsys.readouterr()
    assert 'complete, as model.yaml says' in shown.out
    assert shown.err == 'vss: error: no engine here takes tiny as it is; the table of engines says why\n'


def test_info_without_a_model_lists_the_engines(capsys):
    assert main(['info']) == 0
    shown = capsys.readouterr().out
    assert '│ onnxruntime │ installed' in shown
    assert '│ torch' in shown


def test_bench_measures_contenders_on_the_same_frames(tiny_model, tmp_path, capsys):
    pytest.importorskip('onnx')
    words = ['bench', str(tiny_model), '--engine', 'onnxruntime', '--frames', '12', '--size', '96x64']
    assert main([*words, '--json', str(tmp_path / 'bench.json')]) == 0
    figures = json.loads((tmp_path / 'bench.json').read_text())
    assert (figures['frames'], figures['image']) == (12, [64, 96])
    full, fifth = figures['contenders']
    assert (full['key_frame_interval'], fifth['key_frame_interval']) == (1, 5)
    assert list(full['ms']) == ['key']
    assert list(fifth['ms']) == ['key', 'propagated']
    assert {'resize', 'flow', 'warp', 'correction', 'total'} <= set(fifth['ms']['propagated'])
    key, propagated = (fifth['ms'][kind]['total']['p50'] for kind in ('key', 'propagated'))
    for n in (1, 3, 5, 9, 10):
        average = fifth['every'][str(n)]
        assert average['ms'] == pytest.approx((key + (n - 1) * propagated) / n)
        assert average['share_of_key'] == pytest.approx(average['ms'] / key)
    model = load_model(tiny_model)
    macs = step_macs(model.steps, graph_costs(model))
    assert fifth['gmac'] == {step: count / 1e9 for step, count in macs.items()}
    shown = capsys.readouterr().out
    assert 'tiny 96x64, onnxruntime cpu' in shown
    assert 'ms by stage' in shown
    for stage in ('warp', 'correction'):  # of which only the second has products
        found = fifth['roofline']['propagated'].get(stage)
        assert (found is not None) == (stage == 'correction')
    correction = fifth['roofline']['propagated']['correction']
    floor = 2 * correction['gmac'] / figures['ceilings']['cpu']['gflops']['fp32']
    seconds = fifth['ms']['propagated']['correction']['p50'] / 1e3
    assert correction['matrix_share'] == pytest.approx(floor / seconds)
    assert correction['share'] == max(correction['matrix_share'], correction['memory_share'])
    assert fifth['regions'] == '1x1'
    keys = fifth['ros2_benchmark']
    assert keys['BasicPerformanceMetrics.NUM_FRAMES_SENT'] == 12
    assert keys['BasicPerformanceMetrics.MEAN_LATENCY'] == pytest.approx(fifth['mean_ms'])
    assert figures['metadata']['BenchmarkMetadata.DEVICE_ARCH']


def test_ceilings_are_measured_in_a_process_of_their_own(tiny_model):
    load_engine(load_model(tiny_model), EngineSettings('onnxruntime')).close()  # has the threads of this one
    before = peak_memory_mb()
    [(name, ceilings)] = measured_ceilings().items()
    assert name == 'cpu'
    assert ceilings.gflops['fp32'] > 1
    assert ceilings.gigabytes_per_s > 0.1
    assert peak_memory_mb() - before < 50  # of the 400 MB that it takes


def test_a_processor_whose_ceiling_cannot_be_measured_has_none_and_that_is_said(caplog):
    assert set(measured_ceilings(gpu_id=999)) == {'cpu'}
    assert 'what the gpu does at best is not known' in caplog.text


def test_bench_counts_carried_frames_where_only_every_nth_is_corrected(tiny_model, tmp_path, capsys):
    words = ['bench', str(tiny_model), '--engine', 'onnxruntime', '--frames', '12', '--size', '96x64']
    words += ['--key-frame-interval', '3', '--correction-interval', '2', '--json', str(tmp_path / 'b.json')]
    words += ['--overwrite']
    assert main(words) == 0
    [report] = json.loads((tmp_path / 'b.json').read_text())['contenders']
    key, corrected, carried = (
        report['ms'][kind]['total']['p50'] for kind in ('key', 'propagated', 'carried')
    )
    for n, between in ((3, corrected + carried), (10, 4 * corrected + 5 * carried)):
        assert report['every'][str(n)]['ms'] == pytest.approx((key + between) / n)
    assert 'carried' in capsys.readouterr().out
    words[words.index('--correction-interval') + 1] = '5'
    assert main(words) == 0
    [report] = json.loads((tmp_path / 'b.json').read_text())['contenders']
    assert list(report['every']) == ['1', '3', '5'], 'no corrected frame was measured'


def test_bench_makes_a_model_of_another_size_for_the_time_being(tiny_model, tmp_path, monkeypatch):
    pytest.importorskip('torch')
    words = ['bench', str(tiny_model), '--engine', 'eager', '--network-size', '64x48', '--size', '128x96']
    files = [f'--{kind}={tmp_path / kind}' for kind in ('json', 'markdown')]
    words += ['--frames', '15', '--key-frame-interval', '7', *files]
    monkeypatch.setattr('sys.argv', ['vss', *words])
    assert main(words) == 0
    [contender] = json.loads((tmp_path / 'json').read_text())['contenders']
    assert contender['network'] == [48, 64]
    assert contender['engine']['engine'] == 'eager'
    # Ten of the frames were run again for the stages before the others came, as another stream.
    assert contender['frames'] == {'key': 3, 'propagated': 12}
    assert contender['ms']['propagated']['upload']['p50'] >= 0  # timed apart from the stages
    assert contender['ms']['propagated']['resize']['p50'] > 0
    page = (tmp_path / 'markdown').read_text()
    assert '| model, network, engine | interval | key |' in page
    assert '--network-size 64x48' in page  # the command that made it
    assert not list(tmp_path.glob('vss-bench-*'))


def test_bench_leaves_out_the_precisions_that_an_engine_does_not_compute_in(
    tiny_model, tmp_path, capsys, caplog
):
    words = ['bench', str(tiny_model), '--engine', 'onnxruntime', '--frames', '3', '--size', '96x64']
    words += ['--precision', 'bf16', '--key-frame-interval', '1']
    assert main(words) == 2
    assert 'provider cpu runs fp32 and int8, precision is bf16' in capsys.readouterr().err
    files = [f'--{kind}={tmp_path / kind}' for kind in ('json', 'markdown')]
    assert main([*words, '--precision', 'fp32', *files]) == 0
    printed = capsys.readouterr()
    assert 'left out: engine onnxruntime with provider cpu' in caplog.text
    [contender] = json.loads((tmp_path / 'json').read_text())['contenders']
    assert contender['engine']['precision'] == 'fp32'
    for shown in (printed.out, (tmp_path / 'markdown').read_text()):
        assert 'peak memory of the process: ' in shown


def test_it_is_said_whose_memory_of_the_gpu_is_counted():
    line = memory_line({'peak_memory_mb': 812.4, 'peak_pytorch_gpu_memory_mb': 96.0})
    assert line == (
        'peak memory of the process: 812 MB; of the GPU, PyTorch alone, not TensorRT and ONNX Runtime: 96 MB'
    )


@pytest.mark.parametrize('option', ['--json', '--markdown'])
def test_bench_never_takes_a_folder_for_a_file(tiny_model, tmp_path, capsys, option):
    assert main(['bench', str(tiny_model), option, str(tmp_path)]) == 2
    assert f'{tmp_path} is a folder' in capsys.readouterr().err


def test_bench_finds_out_before_it_measures_that_its_file_cannot_be_written(tiny_model, tmp_path, capsys):
    (tmp_path / 'file').write_text('')
    assert main(['bench', str(tiny_model), '--json', f'{tmp_path}/file/figures.json']) == 2
    assert f'{tmp_path}/file cannot be written to' in capsys.readouterr().err


@pytest.mark.parametrize(
    ('words', 'message'),
    [
        ('--json mine.json', 'mine.json exists; choose another name or add --overwrite'),
        ('--ros --json mine.json', 'mine.json exists; choose another name or add --overwrite'),
        ('--markdown drive.mp4 --source drive.mp4 --overwrite', 'drive.mp4 is where the source lies'),
        ('--json stills/0.png --source stills --overwrite', 'stills/0.png is where the source lies'),
        ('--json new --markdown ./new', 'new is named twice'),
    ],
)
def test_bench_writes_over_nothing_that_is_not_its_own(
    tiny_model, tmp_path, monkeypatch, capsys, words, message
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'stills').mkdir()
    files = [tmp_path / name for name in ('mine.json', 'drive.mp4', 'stills/0.png')]
    for file in files:
        file.write_text('mine')
    assert main(['bench', str(tiny_model), *words.split()]) == 2
    assert message in capsys.readouterr().err
    assert [file.read_text() for file in files] == ['mine'] * 3


def test_bench_takes_models_also_behind_options(tiny_model, capsys):
    words = ['bench', str(tiny_model), '--frames', '3', str(tiny_model)]
    assert main([*words, '--provider', 'cuda']) == 2  # refused for this, not for the second model
    assert '--provider is of engine onnxruntime' in capsys.readouterr().err


def test_bench_refuses_a_provider_without_its_engine(tiny_model, capsys):
    assert main(['bench', str(tiny_model), '--provider', 'cuda']) == 2
    assert 'add --engine onnxruntime' in capsys.readouterr().err


def test_bench_counts_no_flow_network_where_the_host_gives_the_flow(shared_model, tmp_path):
    pytest.importorskip('torch')
    from method_models import method_model

    model = shared_model(*method_model('evss'))
    words = ['bench', str(model.path), '--engine', 'onnxruntime', '--frames', '4', '--size', '96x64']
    words += ['--key-frame-interval', '2', '--json', str(tmp_path / 'bench.json'), '--overwrite']
    counted = []
    for motion in ('model', 'dis'):
        assert main([*words, '--motion', motion]) == 0
        [report] = json.loads((tmp_path / 'bench.json').read_text())['contenders']
        counted.append(report['gmac']['propagated'])
        assert ('flow' in report['roofline']['propagated']) == (motion == 'model')
    assert counted[0] - counted[1] == pytest.approx(cost_of(model.graphs['flow'].file).macs / 1e9)


def test_bench_tells_models_of_one_name_apart(tiny_model, tmp_path, capsys):
    copy = shutil.copytree(tiny_model, tmp_path / 'copy')
    words = ['--engine', 'onnxruntime', '--frames', '3', '--size', '96x64', '--key-frame-interval', '1']
    assert main(['bench', str(tiny_model), str(copy), *words, '--json', str(tmp_path / 'json')]) == 0
    contenders = json.loads((tmp_path / 'json').read_text())['contenders']
    assert [each['model'] for each in contenders] == [f'tiny ({tiny_model})', f'tiny ({copy})']
    assert main(['bench', str(copy), f'{copy}/', *words]) == 2
    assert f'model {copy} is named twice; name each once' in capsys.readouterr().err


def test_bench_keeps_what_a_model_has_and_takes_no_path_from_its_name(tiny_model, tmp_path):
    pytest.importorskip('torch')
    model = shutil.copytree(tiny_model, tmp_path / 'm')
    text = (model / 'model.yaml').read_text().replace('name: tiny\n', 'name: ../../outside\n')
    (model / 'model.yaml').write_text(text + 'expected_accuracy: {bias: 3.0, weights: {path: -4.0}}\n')
    with models_of([load_model(model)], [(32, 48), (64, 96)], ['fp16']) as made:
        assert [m.image_size for m in made] == [(32, 48), (64, 96)]
        assert len({m.path.parent for m in made}) == 1
        for each in made:
            assert each.has_precision('fp16')
            assert dict(each.expected_accuracy.weights)['path'] == -4.0


def test_bench_makes_the_fp16_files_that_a_model_lacks(tiny_model):
    pytest.importorskip('torch')
    with models_of([load_model(tiny_model)], [], ['fp32']) as [model]:
        assert model.path == tiny_model
    with models_of([load_model(tiny_model)], [], ['fp32', 'fp16']) as [model]:
        assert model.path != tiny_model
        assert set(model.graphs_in('fp16')) == set(load_model(tiny_model).graphs)
        assert model.image_size == load_model(tiny_model).image_size


@pytest.mark.parametrize(
    ('engine', 'name'),
    [
        (
            {'engine': 'onnxruntime', 'device': 'cpu', 'provider': 'CPUExecutionProvider'},
            'onnxruntime cpu fp32',
        ),
        (
            {'engine': 'onnxruntime', 'device': 'cuda:0', 'provider': 'CUDAExecutionProvider', 'tf32': 'on'},
            'onnxruntime CUDA cuda:0 fp32 (TF32)',
        ),
        ({'engine': 'torch', 'device': 'Orin', 'cuda_graphs': 'on'}, 'torch Orin fp32 recorded'),
        ({'engine': 'torch', 'device': 'Orin', 'cuda_graphs': 'off: why'}, 'torch Orin fp32'),
    ],
)
def test_what_was_measured_is_called_by_all_that_makes_it_fast(engine, name):
    report = {'engine': {'precision': 'fp32', **engine}, 'network': [48, 64], 'regions': '1x1', 'model': 'm'}
    assert contender_name(report) == f'm 64x48, {name}'


def test_late_results_are_measured_like_any_other(late_models, tmp_path):
    words = ['bench', str(late_models[2]), '--engine', 'onnxruntime', '--frames', '8']
    assert main([*words, '--size', '64x48', '--json', str(tmp_path / 'json')]) == 0
    contenders = json.loads((tmp_path / 'json').read_text())['contenders']
    assert all(contender['mean_ms'] > 0 for contender in contenders)


@pytest.mark.parametrize(
    ('words', 'message'),
    [
        (['--frames', '1'], 'frames is 1; use 3 or more'),
        (['--key-frame-interval', '0'], 'key_frame_interval is 0'),
        (['--source', 'nowhere.mp4'], 'nowhere.mp4 does not exist'),
        (['--rate', '30'], '--rate cannot be used without --ros; leave it out'),
        (['--ros', '--engine', 'eager'], 'the node has no engine eager; measure that without --ros'),
        (['--ros', '--network-size', '96x64'], '--network-size cannot be used with --ros; leave it out'),
    ],
)
def test_bench_refuses_what_cannot_be_measured(tiny_model, capsys, words, message):
    assert main(['bench', str(tiny_model), '--frames', '3', *words]) == 2
    assert message in capsys.readouterr().err


def test_bench_measures_regions_and_counts_what_all_of_them_cost(tiny_model, tmp_path, capsys):
    pytest.importorskip('onnx')
    words = ['bench', str(tiny_model), '--engine', 'onnxruntime', '--frames', '6', '--regions', '2x1']
    words += ['--key-frame-interval', '3', '--key-frame-threshold', '0.0', '--size', '96x64']
    assert main([*words, '--json', str(tmp_path / 'bench.json')]) == 0
    fixed, adaptive = json.loads((tmp_path / 'bench.json').read_text())['contenders']
    assert (fixed['regions'], adaptive['regions']) == ('2x1', '2x1')
    model = load_model(tiny_model)
    macs = step_macs(model.steps, graph_costs(model))
    assert fixed['gmac'] == {step: 2 * count / 1e9 for step, count in macs.items()}
    assert '2x1 of 96x64' in capsys.readouterr().out


def test_figures_are_written_before_the_tables_are_printed(tiny_model, tmp_path, monkeypatch):
    def ends(*_):
        raise SystemExit(1)  # as rich does when the reader of a pipe has gone

    monkeypatch.setattr('rich.console.Console.print', ends)
    words = ['bench', str(tiny_model), '--engine', 'onnxruntime', '--frames', '3', '--size', '96x64']
    with pytest.raises(SystemExit):
        main([*words, '--json', str(tmp_path / 'json'), '--markdown', str(tmp_path / 'markdown')])
    assert json.loads((tmp_path / 'json').read_text())['frames'] == 3
    assert (tmp_path / 'markdown').stat().st_size > 0


def test_bench_refuses_to_compare_an_engine_with_itself(tiny_model, capsys):
    words = ['--engine', 'onnxruntime', '--precision', 'fp32', '--precision', 'fp32', '--frames', '3']
    assert main(['bench', str(tiny_model), *words]) == 2
    assert 'onnxruntime cpu fp32, interval 1 would be measured twice' in capsys.readouterr().err
