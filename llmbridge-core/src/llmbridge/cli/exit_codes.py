"""Runs a command: exit code, error text, and warnings as plain lines."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import sys
import threading
import traceback
import warnings
from collections.abc import Iterator, Sequence

import typer
from typer.main import get_command

from .. import errors
from . import output

DONE, FAILED, INVALID, INTERRUPTED, TERMINATED = 0, 1, 2, 130, 143

_INVALID_ARGUMENTS = (
    errors.ModelNotFoundError,
    errors.ProviderNotFoundError,
    errors.InvalidStorageURLError,
    errors.UnknownStorageError,
    errors.AmbiguousPluginError,
    errors.RecordRejectedError,
    errors.PurgedDetailError,
)
#: The base class of the parser's errors, whose name depends on the version of typer.
_UsageError = typer.BadParameter.__bases__[0]


class UserError(Exception):
    """Invalid arguments; the text says what to write instead."""


def run(app: typer.Typer, args: Sequence[str] | None) -> int:
    """Run the command in `args` and return its exit code."""
    given = list(sys.argv[1:] if args is None else args)
    as_json = "--json" in (given[: given.index("--")] if "--" in given else given)
    with _plain_lines(), _some_stdout(), _terminable() as termination:
        try:
            try:
                return _invoke(app, given)
            except (output.OutputError, BrokenPipeError):
                raise
            except (KeyboardInterrupt, typer.Abort):
                _interrupted(as_json=as_json)
                return TERMINATED if termination.is_set() else INTERRUPTED
            except Exception as error:
                return _report(error, as_json=as_json)
            finally:
                output.flush()
        except (BrokenPipeError, SystemExit):
            # rich raises SystemExit if the pipe is closed.
            _discard_stdout()
            return DONE
        except output.OutputError as failed:
            _discard_stdout()
            output.note(f"error: the output could not be written: {failed.__cause__}")
            return FAILED
        except KeyboardInterrupt:
            output.note("interrupted")
            return INTERRUPTED


def _invoke(app: typer.Typer, args: list[str]) -> int:
    # Not `app()`, which handles errors, interrupts and closed pipes itself.
    command = get_command(app)
    try:
        with command.make_context("llmbridge", args) as context:
            command.invoke(context)
    except typer.Exit as leave:
        return leave.exit_code
    return DONE


def _interrupted(*, as_json: bool) -> None:
    output.note("interrupted")
    if as_json:
        output.json({"error": {"type": "KeyboardInterrupt", "message": "interrupted"}})


@contextlib.contextmanager
def _terminable() -> Iterator[threading.Event]:
    """End a command at SIGTERM as at Ctrl-C, so that its call is recorded. Yield whether SIGTERM came."""
    termination = threading.Event()

    def end(*_: object) -> None:
        termination.set()
        signal.raise_signal(signal.SIGINT)

    if threading.current_thread() is not threading.main_thread() or signal.getsignal(signal.SIGTERM) != signal.SIG_DFL:
        yield termination
        return
    signal.signal(signal.SIGTERM, end)
    try:
        yield termination
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _report(error: Exception, *, as_json: bool) -> int:
    name, message, code = type(error).__name__, str(error), FAILED
    if isinstance(error, _UsageError):
        name, message, code = "UsageError", _of_parser(error), INVALID
    elif isinstance(error, UserError):
        name, code = "UsageError", INVALID
    elif isinstance(error, _INVALID_ARGUMENTS) or _was_not_sent(error):
        code = INVALID
    elif not isinstance(error, errors.LLMBridgeError):
        output.note(errors.redact("".join(traceback.format_exception(error))).rstrip())
        message = f"llmbridge failed in a way it should not; please report this ({name})"
    message = errors.redact(": ".join([*getattr(error, "__notes__", ()), message]))
    if as_json:
        output.json({"error": {"type": name, "message": message}})
    else:
        output.note(f"error: {message}")
    return code


def _of_parser(error: Exception) -> str:
    message: str = getattr(error, "format_message", error.__str__)()
    context = getattr(error, "ctx", None)
    if context is None:
        return message
    return f"{message}{'' if message.endswith('.') else '.'} See {context.command_path} --help"


def _was_not_sent(error: Exception) -> bool:
    return isinstance(error, errors.InvalidRequestError) and error.status_code is None


def _discard_stdout() -> None:
    """Discard the rest of the buffer: nobody reads it any more."""
    with contextlib.suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)


@contextlib.contextmanager
def _some_stdout() -> Iterator[None]:
    """Print to nowhere if the process was started without a stdout."""
    if sys.stdout is not None:
        yield
        return
    with open(os.devnull, "w", encoding="utf-8") as nowhere, contextlib.redirect_stdout(nowhere):
        yield


@contextlib.contextmanager
def _plain_lines() -> Iterator[None]:
    """Write log records and warnings to stderr, one line each."""
    handler = _NoteHandler(logging.WARNING)
    root = logging.getLogger()
    root.addHandler(handler)
    try:
        with warnings.catch_warnings():
            # The command says so itself.
            warnings.filterwarnings("ignore", ".* installed beside llmbridge-core", RuntimeWarning)
            warnings.showwarning = lambda message, *_, **__: output.note(f"warning: {message}")
            yield
    finally:
        root.removeHandler(handler)


class _NoteHandler(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        output.note(f"{record.levelname.lower()}: {errors.redact(output.clean(record.getMessage()))}")
