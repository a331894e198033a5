"""Video semantic segmentation offline: segment, measure and make models."""

from __future__ import annotations

import importlib
import logging
import os
import signal
import sys
from argparse import SUPPRESS, ArgumentParser, Namespace, RawDescriptionHelpFormatter
from collections.abc import Sequence
from contextlib import suppress
from io import TextIOWrapper
from types import FrameType
from typing import NoReturn

from vss_ros.core.errors import VssError
from vss_ros.core.files.share import version

# One file per verb. A verb's file is imported when the verb is used.
VERBS = {
    'run': 'segment a video, a folder of images or a bag',
    'demo': 'drive through a synthetic street with the live node and show the result',
    'bench': 'measure models and engines side by side on this machine',
    'evaluate': 'score models on labelled data, by distance from the key frame',
    'info': 'show models and the engines that work here',
    'export': 'write a model again for another size, options or classes',
    'calibrate': 'fit the scheduler, the confidence or the correction of a model to data',
    'engine': 'build, list, check and prune TensorRT engines',
    'train': 'train a model',
    'import-weights': 'make a model of published weights',
}
USER_ERROR, INTERRUPTED, READER_GONE = 2, 130, 141  # the last two: 128 + SIGINT, 128 + SIGPIPE
_is_interrupted = False


def _interrupt(number: int, frame: FrameType | None) -> None:
    """Ends what runs as Ctrl-C does; remembered, because a library that is being imported may swallow it."""
    global _is_interrupted
    _is_interrupted = True
    raise KeyboardInterrupt


def _end_at_once() -> None:
    """A child that a library forks has nothing to tidy up, and would write a traceback of ours."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is _interrupt:
            signal.signal(number, signal.SIG_DFL)


os.register_at_fork(after_in_child=_end_at_once)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs `vss` and returns the exit code.

    0; 2 after a mistake of the user's; 130 after Ctrl-C, SIGTERM; 141 where the reader of a pipe has gone.
    """
    global _is_interrupted
    _is_interrupted = False
    words = list(sys.argv[1:] if arguments is None else arguments)
    if isinstance(sys.stdout, TextIOWrapper):  # names of files need not be UTF-8
        sys.stdout.reconfigure(errors='backslashreplace')
    # Whoever ends us: half-written outputs are removed, processes that we started are ended with us.
    signal.signal(signal.SIGTERM, _interrupt)
    for number in (signal.SIGINT, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:  # as nohup and a shell's background jobs have them
            signal.signal(number, _interrupt)
    logging.basicConfig(level=logging.WARNING, format='vss: %(levelname)s: %(message)s')
    try:
        verb = next((word for word in words if not word.startswith('-')), None)
        args = _parsed(verb, words)
        code = args.main(args)
        sys.stdout.flush()  # or find out here that nobody reads it
        return code
    except Exception as error:
        if isinstance(error, BrokenPipeError):  # the reader of a pipe has seen enough
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return READER_GONE
        if '--debug' in words:
            raise
        if _is_interrupted:  # a library that was interrupted seems to be broken, say
            return _interrupted()
        if not isinstance(error, (VssError, OSError, MemoryError)):
            raise
        reason = 'not enough memory: ' if isinstance(error, MemoryError) else ''
        print(f'vss: error: {reason}{error}', file=sys.stderr)
        return USER_ERROR
    except SystemExit as end:
        if isinstance(end.__context__, BrokenPipeError):  # rich 13.8 and newer ends us by itself, with code 1
            return READER_GONE
        raise
    except KeyboardInterrupt:
        return _interrupted()


def _interrupted() -> int:
    with suppress(OSError):  # the terminal may be the one that was closed
        print('vss: interrupted', file=sys.stderr)
    return INTERRUPTED


def _parsed(verb: str | None, words: list[str]) -> Namespace:
    """The arguments. Names may come after options, even optional ones, which argparse does not see."""
    args, rest = _parser(verb).parse_known_args(words)
    are_names = 'takes_more' in args and not any(word.startswith('-') for word in rest)
    named = getattr(args, args.takes_more) if are_names else None
    if isinstance(named, list):
        named.extend(rest)
    elif are_names and named is None and len(rest) == 1:
        setattr(args, args.takes_more, rest[0])
    elif rest:
        args.refuse(f'unrecognized arguments: {" ".join(rest)}')
    return args


class _Parser(ArgumentParser):
    """One that answers a mistake in one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(USER_ERROR, f'{self.prog}: error: {message}; see {self.prog} --help\n')


def _parser(chosen: str | None) -> ArgumentParser:
    """The parser of all verbs, with the arguments of the one that was chosen."""
    parser = _Parser(prog='vss', description=__doc__, epilog='`vss VERB --help` tells more about a verb.')
    parser.add_argument('--version', action='version', version=f'vss {version()}')
    parser.add_argument('--debug', action='store_true', help='show where an error came from')
    verbs = parser.add_subparsers(metavar='VERB', required=True)
    for name, summary in VERBS.items():
        verb = verbs.add_parser(name, help=summary, formatter_class=RawDescriptionHelpFormatter)
        verb.add_argument('--debug', action='store_true', default=SUPPRESS, help=SUPPRESS)
        if name == chosen:
            module = importlib.import_module(f'vss_ros.cli.{name.replace("-", "_")}')
            verb.description = module.__doc__
            module.add_arguments(verb)
            verb.set_defaults(main=module.main, refuse=verb.error)
    return parser


if __name__ == '__main__':
    sys.exit(main())
