import os
import re
import signal
import subprocess
import sys
from argparse import ArgumentParser
from importlib import import_module
from pathlib import Path

import pytest

from vss_ros.cli import info
from vss_ros.cli.main import VERBS, main
from vss_ros.core.errors import EngineError, SettingsError
from vss_ros.core.files.share import share_names, share_path, version

HEAVY = ('torch', 'onnxruntime', 'onnx', 'cv2', 'av', 'rosbags', 'rclpy', 'matplotlib')


def vss(*words):
    """Runs `vss` as a process of its own."""
    command = [sys.executable, '-m', 'vss_ros.cli.main', *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


def test_help_lists_every_verb(capsys):
    with pytest.raises(SystemExit) as exit_:
        main(['--help'])
    assert exit_.value.code == 0
    shown = ' '.join(capsys.readouterr().out.split())
    assert all(f'{verb} {summary}' in shown for verb, summary in VERBS.items())


@pytest.mark.parametrize('verb', VERBS)
def test_help_says_of_every_option_what_it_is_for(verb):
    parser = ArgumentParser()
    import_module(f'vss_ros.cli.{verb.replace("-", "_")}').add_arguments(parser)
    assert [action.dest for action in parser._actions if not action.help] == []


@pytest.mark.parametrize('verb', ['', *VERBS])
def test_help_is_quick_because_it_imports_nothing_heavy(verb):
    code = (
        'import sys\n'
        'from vss_ros.cli.main import main\n'
        f'try:\n    main({[verb, "--help"] if verb else ["--help"]})\n'
        'except SystemExit as end:\n    print("code", end.code)\n'
        f'print("heavy", sorted(set({HEAVY}) & set(sys.modules)))\n'
    )
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, timeout=120)
    assert done.stdout.endswith('code 0\nheavy []\n'), done.stderr
    assert 'usage: vss' in done.stdout


def test_the_version_is_that_of_the_package(capsys):
    with pytest.raises(SystemExit) as exit_:
        main(['--version'])
    assert exit_.value.code == 0
    assert capsys.readouterr().out == f'vss {version()}\n'
    assert version()[0].isdigit()


def test_a_mistake_is_one_line_and_code_2():
    done = vss('run', 'nowhere.mp4')
    assert done.returncode == 2
    assert done.stdout == ''
    assert done.stderr == (
        'vss: error: nowhere.mp4 does not exist; give a video, a folder of images, a bag or '
        'synthetic:SEEDxFRAMES\n'
    )


@pytest.mark.parametrize('words', [('--debug', 'run', 'nowhere.mp4'), ('run', 'nowhere.mp4', '--debug')])
def test_debug_shows_where_a_mistake_was_noticed(words):
    done = vss(*words)
    assert done.returncode != 0
    assert 'Traceback' in done.stderr
    assert 'SourceError: nowhere.mp4 does not exist' in done.stderr


@pytest.mark.parametrize('words', [[], ['fly'], ['run'], ['run', 'x', '--engine', 'steam']])
def test_words_that_make_no_command_end_with_code_2(words, capsys):
    with pytest.raises(SystemExit) as exit_:
        main(words)
    assert exit_.value.code == 2
    assert re.fullmatch(r'vss.*: error: .*; see vss.* --help\n', capsys.readouterr().err)


def test_too_little_memory_is_one_line(monkeypatch, capsys):
    def demands(_):
        raise MemoryError('Unable to allocate 93.7 GiB')

    monkeypatch.setattr('vss_ros.cli.info.main', demands)
    assert main(['info']) == 2
    assert capsys.readouterr().err == 'vss: error: not enough memory: Unable to allocate 93.7 GiB\n'
    with pytest.raises(MemoryError):
        main(['info', '--debug'])


def test_a_file_that_cannot_be_written_is_one_line(tmp_path, capsys, tiny_model):
    (tmp_path / 'file').write_text('')
    words = ['run', 'synthetic:0x1', '--model', str(tiny_model), '-o', f'{tmp_path}/file/out.json']
    assert main(words) == 2
    error = capsys.readouterr().err
    assert error.startswith('vss: error: ')
    assert error.count('\n') == 1


@pytest.mark.parametrize('error', [EngineError('cannot be loaded'), ImportError('is registered already')])
def test_interrupted_is_not_broken_though_a_library_that_is_imported_says_so(monkeypatch, capsys, error):
    def loads(_):
        try:
            signal.raise_signal(signal.SIGINT)
        except KeyboardInterrupt:
            raise error from None

    monkeypatch.setattr(info, 'main', loads)
    assert main(['info']) == 130
    assert capsys.readouterr().err == 'vss: interrupted\n'


def test_words_that_a_verb_does_not_know_are_answered_with_its_own_help(capsys):
    with pytest.raises(SystemExit) as exit_:
        main(['run', 'x.mp4', '--foo'])
    assert exit_.value.code == 2
    message = 'vss run: error: unrecognized arguments: --foo; see vss run --help\n'
    assert capsys.readouterr().err == message


@pytest.mark.parametrize(('sent', 'ignored'), [('SIGTERM', False), ('SIGHUP', False), ('SIGHUP', True)])
def test_told_to_end_the_command_tidies_up_and_children_of_libraries_just_end(sent, ignored):
    code = (
        'import os, signal\n'
        'from vss_ros.cli import info, main\n'
        f'sent = signal.{sent}\n'
        f'signal.signal(sent, signal.{"SIG_IGN" if ignored else "SIG_DFL"})\n'
        'def told(_):\n'
        '    child = os.fork()\n'
        '    if not child:\n        os.kill(os.getpid(), sent)\n        os._exit(0)\n'
        '    print("child", os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)\n'
        '    os.kill(os.getpid(), sent)\n'
        '    return 0\n'
        'info.main = told\n'
        'print("code", main.main(["info"]))\n'
    )
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, timeout=120)
    child, code = (0, 0) if ignored else (-signal.Signals[sent], 130)
    assert done.stdout == f'child {child}\ncode {code}\n', done.stderr
    assert done.stderr == ('' if ignored else 'vss: interrupted\n')


def test_a_home_folder_of_somebody_else_is_not_looked_into(tmp_path, monkeypatch):
    look = os.stat

    def forbidden(path, *args, **options):
        if isinstance(path, str | Path) and Path(tmp_path) in Path(path).parents:
            raise PermissionError(13, 'Permission denied', str(path))
        return look(path, *args, **options)

    monkeypatch.setattr('site.getuserbase', lambda: str(tmp_path))
    monkeypatch.setattr(os, 'stat', forbidden)
    assert 'camvid11' in share_names('config/classes')
    with pytest.raises(SettingsError, match=r'not.yaml was not found'):
        share_path('not.yaml')


@pytest.mark.parametrize('words', [['info'], ['--debug', 'info']])
def test_a_reader_that_has_seen_enough_ends_the_command_without_a_word(words):
    command = [sys.executable, '-m', 'vss_ros.cli.main', *words]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        process.stdout.close()
        error = process.stderr.read()
    assert (process.returncode, error) == (141, '')
