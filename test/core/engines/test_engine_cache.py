"""The cache of engines that were built on this machine."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
import textwrap
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest

from vss_ros.core.engines import engine_cache
from vss_ros.core.engines.engine_cache import EngineCache, EngineKey, default_folder
from vss_ros.core.errors import EngineError

KEY = EngineKey(
    model='evss-lite',
    graph='segmenter',
    size=(360, 480),
    precision='fp16',
    onnx_sha256='a' * 64,
    runtime='tensorrt 10.3.0.26',
    architecture='sm_87',
    gpu='Orin',
    platform='linux-aarch64',
    options={'workspace_mib': 1024},
)


@pytest.fixture
def cache(tmp_path) -> EngineCache:
    return EngineCache(tmp_path / 'engines')


def test_a_stored_engine_is_found_again_with_what_was_told_of_it(cache):
    cache.store(KEY, b'engine', {'build_seconds': 61.5})
    found = EngineCache(cache.folder).find(KEY)
    assert found is not None
    assert cache.read(found) == b'engine'
    assert found.facts['build_seconds'] == 61.5
    assert found.file.name == f'evss_lite-segmenter-360x480-fp16-{KEY.digest[:12]}.engine'


@pytest.mark.parametrize(
    'change',
    [
        {'onnx_sha256': 'b' * 64},
        {'runtime': 'tensorrt 10.3.0.30'},
        {'architecture': 'sm_90'},
        {'gpu': 'Orin NX'},
        {'platform': 'linux-x86_64'},
        {'options': {'workspace_mib': 2048}},
        {'size': (720, 960)},
        {'precision': 'fp32'},
        {'graph': 'flow'},
        {'model': 'other'},
        {'format': 2},
    ],
)
def test_every_field_of_the_key_makes_another_engine(cache, change):
    cache.store(KEY, b'engine', {})
    assert cache.find(replace(KEY, **change)) is None
    assert replace(KEY, **change).digest != KEY.digest


def test_a_stale_engine_is_explained_by_the_field_that_differs(cache):
    cache.store(KEY, b'engine', {})
    assert cache.why_stale(replace(KEY, runtime='tensorrt 11.4.0.106')) == [
        "runtime is 'tensorrt 10.3.0.26', wanted 'tensorrt 11.4.0.106'"
    ]


@pytest.mark.parametrize('damage', [b'', b'engin', b'engine!', b'Engine'])
def test_a_damaged_engine_is_refused(cache, damage):
    engine = cache.store(KEY, b'engine', {})
    engine.file.write_bytes(damage)
    with pytest.raises(EngineError, match='is damaged: its sha256'):
        cache.read(engine)


@pytest.mark.parametrize(
    'content',
    [
        *('', '{', '[]', '{"key": 1}', 'null', '[' * 100_000),
        '{"key": {}, "sha256": "", "size_bytes": 6, "facts": {}, "self_check": null}',
        '{"key": {}, "sha256": "", "size_bytes": Infinity, "facts": {}, "self_check": null}',
    ],
    ids=lambda content: content[:50],
)
def test_an_engine_whose_sidecar_cannot_be_read_is_not_found(cache, content):
    engine = cache.store(KEY, b'engine', {})
    engine.sidecar.write_text(content)
    assert cache.find(KEY) is None


def test_a_sidecar_that_tells_of_another_engine_is_not_believed(cache):
    engine = cache.store(KEY, b'engine', {})
    content = json.loads(engine.sidecar.read_text())
    content['key']['gpu'] = 'another'
    engine.sidecar.write_text(json.dumps(content))
    assert cache.find(KEY) is None


def test_only_the_user_can_read_the_cache(cache):
    engine = cache.store(KEY, b'engine', {})
    modes = [stat.S_IMODE(path.stat().st_mode) for path in (cache.folder, engine.file, engine.sidecar)]
    assert modes == [0o700, 0o600, 0o600]


@pytest.mark.parametrize('mode', [0o777, 0o720, 0o702])
def test_a_cache_that_others_can_write_is_refused(tmp_path, mode):
    folder = tmp_path / 'open'
    folder.mkdir()
    folder.chmod(mode)
    with pytest.raises(EngineError, match=r'can be written by other users.*chmod go-w'):
        EngineCache(folder)


def test_an_engine_that_others_can_write_is_refused(cache):
    engine = cache.store(KEY, b'engine', {})
    engine.file.chmod(0o666)
    with pytest.raises(EngineError, match='can be written by other users'):
        cache.read(engine)


def test_a_cache_and_an_engine_of_another_user_are_refused(cache, monkeypatch):
    engine = cache.store(KEY, b'engine', {})
    monkeypatch.setattr('os.getuid', lambda: cache.folder.stat().st_uid + 1)
    with pytest.raises(EngineError, match='belongs to another user'):
        cache.read(engine)
    with pytest.raises(EngineError, match='belongs to another user'):
        EngineCache(cache.folder)


def test_a_file_in_the_place_of_the_folder_is_named(tmp_path):
    (tmp_path / 'file').write_text('')
    with pytest.raises(EngineError, match=r'engine cache .*file cannot be made.*set engine_cache'):
        EngineCache(tmp_path / 'file')


def test_a_failed_write_leaves_the_old_engine_and_no_draft(cache, monkeypatch):
    cache.store(KEY, b'old', {})
    monkeypatch.setattr('os.replace', lambda *_: (_ for _ in ()).throw(OSError('disk full')))
    with pytest.raises(OSError, match='disk full'):
        cache.store(KEY, b'new', {})
    assert [file.read_bytes() for file in cache.folder.glob('*.engine')] == [b'old']
    assert not list(cache.folder.glob('.unfinished-*'))
    assert cache.find(KEY) is None  # and what lies there is not taken for the new one


def test_what_is_written_is_on_the_disk_before_it_takes_its_place(cache, monkeypatch):
    done = []
    for name in ('fsync', 'replace'):
        work = getattr(os, name)
        monkeypatch.setattr(os, name, lambda *given, n=name, work=work: done.append(n) or work(*given))
    cache.store(KEY, b'engine', {})
    assert done == ['fsync', 'replace'] * 2  # the engine and its sidecar


def test_engines_are_listed_from_the_newest_to_the_oldest(cache):
    for created in ('2026-01-02', '2026-03-01', '2025-12-31'):
        cache.store(replace(KEY, onnx_sha256=created), b'engine', {'created': created})
    listed = [entry.facts['created'] for entry in cache.entries()]
    assert listed == ['2026-03-01', '2026-01-02', '2025-12-31']


def test_pruning_removes_what_is_not_kept_and_what_has_no_sidecar(cache):
    kept = cache.store(KEY, b'new', {})
    old = cache.store(replace(KEY, runtime='tensorrt 10.0'), b'old', {})
    (cache.folder / 'lost.engine').write_bytes(b'')
    removed = cache.prune(lambda entry: entry.file == kept.file)
    assert sorted(removed) == sorted([old.file, cache.folder / 'lost.engine'])
    assert [entry.file for entry in cache.entries()] == [kept.file]
    assert sorted(file.name for file in cache.folder.iterdir()) == [kept.sidecar.name, kept.file.name][::-1]


def test_an_engine_and_its_sidecar_are_removed_if_they_are_still_there(cache):
    engine = cache.store(KEY, b'PLAN', {})
    for _ in range(2):
        cache.remove(engine.file)
    assert cache.find(KEY) is None
    assert list(cache.folder.glob('*')) == []


def test_the_self_check_is_kept_with_the_engine(cache):
    engine = cache.store(KEY, b'engine', {})
    result = PASSED | {'beside': {'warp': PASSED}}
    cache.record_self_check(engine, result)
    assert cache.find(KEY).self_check == result


def test_a_self_check_is_not_kept_with_a_newer_engine_than_it_is_of(cache):
    engine = cache.store(KEY, b'engine', {})
    newer = cache.store(KEY, b'newer', {})
    cache.record_self_check(engine, PASSED)
    assert cache.find(KEY) == newer


def test_a_self_check_is_kept_when_nobody_builds_that_engine(cache):
    engine, building = cache.store(KEY, b'engine', {}), ExitStack()
    building.enter_context(cache.lock(KEY.stem))
    waited = []
    building.callback(waited.append, 'for who builds it')
    cache.record_self_check(engine, PASSED, on_wait=building.close)  # which lets it go on
    assert waited
    assert cache.find(KEY).self_check == PASSED


PASSED = {'passed': True, 'agreement': 0.999, 'error': 0.01, 'worst': 'mask'}


@pytest.mark.parametrize(
    'result',
    [
        *('passed', [True], {}, {'passed': 'yes'}, {'passed': True, 'error': 0.0}),
        *(PASSED | {'beside': beside} for beside in (None, [], {'warp': {}}, {'warp': {'passed': True}})),
    ],
)
def test_a_self_check_that_cannot_be_understood_is_none(cache, result):
    engine = cache.store(KEY, b'engine', {})
    content = json.loads(engine.sidecar.read_text())
    engine.sidecar.write_text(json.dumps({**content, 'self_check': result}))
    assert cache.find(KEY).self_check is None


def test_names_from_a_model_cannot_leave_the_folder():
    key = replace(KEY, model='../../etc', graph='../x')
    assert '/' not in key.stem


def test_the_timing_cache_depends_on_version_and_gpu_only(cache):
    def place(**change):
        return cache.timing_cache(replace(KEY, **change).as_json())

    assert place(onnx_sha256='c' * 64, graph='flow') == place()
    assert place(gpu='another') != place()
    assert place(runtime='tensorrt 11') != place()


def test_pruning_takes_locks_and_measurements_along_that_no_engine_needs(cache):
    keys = {name: replace(KEY, model=name, gpu=gpu) for name, gpu in (('a', 'x'), ('b', 'x'), ('c', 'y'))}
    for key in keys.values():
        with cache.lock(key.stem):
            cache.store(key, b'PLAN', {})
        cache.timing_cache(key.as_json()).write_bytes(b'timings')
    cache.prune(lambda entry: entry.key['model'] == 'a')
    files = {file.name for file in cache.folder.iterdir()}
    left = {f'{keys["a"].stem}.{suffix}' for suffix in ('engine', 'json', 'lock')}
    assert files == left | {cache.timing_cache(keys['a'].as_json()).name}
    cache.prune(lambda entry: False)
    assert list(cache.folder.iterdir()) == []


def test_pruning_removes_what_builds_left_that_did_not_come_to_their_end(cache):
    kept = {'torch-check-0123456789ab.json', 'cpu-trial-0123456789ab.json', 'openvino/m/a.blob'}
    kept |= {'.unfinished-now', f'{replace(KEY, model="held").stem}.lock'}
    lost = {f'{KEY.stem}.json', f'{KEY.stem}.lock', '.unfinished-old', 'openvino/m/.unfinished-old'}
    (cache.folder / 'openvino' / 'm').mkdir(parents=True)
    for name in kept | lost:
        (cache.folder / name).write_bytes(b'')
        if name.endswith('.unfinished-old'):
            os.utime(cache.folder / name, (0, 0))
    with cache.lock(replace(KEY, model='held').stem):
        assert set(cache.prune(lambda entry: True)) == {cache.folder / name for name in lost}
    files = (file for file in cache.folder.rglob('*') if file.is_file())
    assert {str(file.relative_to(cache.folder)) for file in files} == kept


def test_pruning_passes_over_what_another_process_has_just_completed_or_removed(cache, monkeypatch):
    def gone(file):
        raise FileNotFoundError(file)

    (cache.folder / f'{KEY.stem}.lock').write_bytes(b'')
    (cache.folder / '.unfinished-draft').symlink_to('nothing')
    monkeypatch.setattr(engine_cache, 'is_held', gone)
    monkeypatch.setattr(Path, 'is_file', lambda _: True)
    assert cache.prune(lambda entry: True) == []


def test_the_default_folder_follows_the_cache_folder_of_the_desktop(monkeypatch, tmp_path):
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path))
    assert EngineCache().folder == default_folder() == tmp_path / 'vss_ros' / 'engines'


def test_a_second_process_waits_for_the_lock(cache):
    """The other process takes the lock, says so, and holds it until its input is closed."""
    program = textwrap.dedent(f"""
        import sys
        from vss_ros.core.engines.engine_cache import EngineCache
        with EngineCache({str(cache.folder)!r}).lock('one'):
            print('locked', flush=True)
            sys.stdin.read()
    """)
    other = subprocess.Popen(
        [sys.executable, '-c', program],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[3],
    )
    try:
        assert other.stdout.readline() == 'locked\n'
        waited = []
        with cache.lock('another', lambda: waited.append('another')):
            pass

        def let_go() -> None:
            waited.append('one')
            other.stdin.close()

        with cache.lock('one', let_go):
            pass
        assert waited == ['one']
    finally:
        other.kill()
        other.wait()
        other.stdout.close()


def test_a_lock_that_was_removed_while_somebody_waited_for_it_is_taken_anew(cache):
    waited = []
    with ExitStack() as holder:
        holder.enter_context(cache.lock('one'))

        def remove_and_let_go() -> None:
            waited.append('one')
            (cache.folder / 'one.lock').unlink()
            holder.close()

        with cache.lock('one', remove_and_let_go):
            assert waited == ['one']
            assert engine_cache.is_held(cache.folder / 'one.lock')  # so whoever comes now waits
