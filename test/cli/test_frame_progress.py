"""Long runs show how far they are, on a terminal and in a log."""

from __future__ import annotations

from vss_ros.cli.frame_progress import FrameProgress


def test_a_log_gets_a_line_now_and_then_and_standard_output_none(capsys):
    with FrameProgress(total=4, done=2, every_s=0) as progress:
        progress.advance()
        progress.advance()
    out, err = capsys.readouterr()
    assert err.splitlines() == ['3 of 4 frames', '4 of 4 frames']
    assert out == ''


def test_a_short_run_leaves_nothing_in_a_log(capsys):
    with FrameProgress(total=100) as progress:
        for _ in range(100):
            progress.advance()
    assert capsys.readouterr() == ('', '')


def test_frames_that_pass_are_counted_though_nobody_knows_how_many_come(capsys):
    with FrameProgress(every_s=0) as progress:
        assert list(progress.through('abc')) == list('abc')
    assert capsys.readouterr().err.splitlines() == ['1 frames', '2 frames', '3 frames']
