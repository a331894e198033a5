import subprocess
import sys
import time
from pathlib import Path

import pytest
from processes import started

WITH_CHILD = """
import subprocess, sys
child = subprocess.Popen([sys.executable, '-c', 'input()'], stdin=subprocess.PIPE, start_new_session=True)
print(child.pid, flush=True)
"""


@pytest.mark.skipif(not Path('/proc/self/environ').exists(), reason='needs /proc to find the processes')
@pytest.mark.parametrize('end', ['input()', 'import os; os._exit(1)'], ids=['it lives', 'it is gone'])
def test_what_a_process_started_is_over_with_it(end):
    pipes = {'stdin': subprocess.PIPE, 'stdout': subprocess.PIPE}
    with started([sys.executable, '-c', WITH_CHILD + end], text=True, **pipes) as process:
        child = int(process.stdout.readline())
        assert is_alive(child)
    assert process.returncode is not None
    deadline = time.monotonic() + 30
    while is_alive(child):  # until whoever adopted it has taken note
        assert time.monotonic() < deadline
        time.sleep(0.01)


def is_alive(pid: int) -> bool:
    try:
        return ') Z' not in Path(f'/proc/{pid}/stat').read_text()
    except OSError:
        return False
