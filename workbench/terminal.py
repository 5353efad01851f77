"""How commands behave in a terminal: one line for a mistake, an end by a signal, options that many have."""

from __future__ import annotations

import errno
import functools
import math
import os
import signal
import sys
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any, TypeVar

import click

Command = TypeVar("Command", bound=Callable[..., Any])
_SIGNALS = ("SIGTERM", "SIGHUP")  # end a command as Ctrl-C does; not all systems have both
_OUT_OF = (errno.ENOSPC, errno.EDQUOT, errno.EIO)


class InputProblem(click.ClickException):
    """A mistake in the input: one line on stderr, exit code 2, no traceback."""

    def __init__(self, message: str, exit_code: int = 2) -> None:
        super().__init__(message)
        self.exit_code = exit_code  # type: ignore[misc]  # click reads it from the exception

    def show(self, file: Any = None) -> None:
        """Write the line."""
        click.echo(f"workbench: {' '.join(self.message.split())}", err=True)


class SignalledError(KeyboardInterrupt):
    """The system, or the terminal that is closed, ends the command; `number` is the signal's."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number


def _stop(number: int, frame: FrameType | None) -> None:
    raise SignalledError(number)


def _exit_code(interrupt: BaseException | None) -> int:
    """The exit code that shells know: 128 and the number of the signal."""
    return 128 + int(getattr(interrupt, "number", signal.SIGINT))


class _OneCommand(click.Command):
    """A command whose options hold for nothing else, not even where a later one is wrong."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Read the options; what those before a wrong one opened is closed."""
        try:
            return super().parse_args(ctx, args)
        except BaseException:
            ctx.close()
            raise


class Commands(click.Group):
    """Commands that Ctrl-C and the signals to end finish with one line; their problems are one line each."""

    command_class = _OneCommand

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command."""
        main = threading.current_thread() is threading.main_thread()  # no other can be signalled
        numbers = [getattr(signal, name) for name in _SIGNALS if main and hasattr(signal, name)]
        ours = [number for number in numbers if signal.getsignal(number) == signal.SIG_DFL]  # nohup ignores one
        try:
            for number in ours:
                signal.signal(number, _stop)
            return super().invoke(ctx)
        except KeyboardInterrupt as interrupt:
            click.echo("workbench: stopped; no half-written file is left, the same command begins again", err=True)
            ctx.exit(_exit_code(interrupt))
        finally:
            for number in ours:
                signal.signal(number, signal.SIG_DFL)

    def work(self, summary: str, name: str | None = None) -> Callable[[Command], Any]:
        """Register a function as a command; what is wrong with the input, the disk or the memory becomes one line."""

        def register(command: Command) -> Any:
            made = self.command(name, short_help=summary)(_in_one_line(command))
            if any(option.name == "out" for option in made.params):
                made.params.append(_OVERWRITE)
            return made

        return register


def _in_one_line(command: Command) -> Command:
    """Make one line of a command's problems; a fault of the program keeps its traceback."""

    @functools.wraps(command)
    def run(*args: Any, **kwargs: Any) -> Any:
        from .core.errors import WorkbenchError

        try:
            result = command(*args, **kwargs)
            sys.stdout.flush()
            return result
        except WorkbenchError as error:  # one after an interruption says how to continue
            interrupted = isinstance(error.__context__, KeyboardInterrupt)
            raise InputProblem(str(error), _exit_code(error.__context__) if interrupted else 2) from error
        except MemoryError as error:
            raise InputProblem("there is not enough memory; give --memory less, or close other programs") from error
        except OSError as error:
            if error.errno not in _OUT_OF:
                raise
            if error.filename is None:  # what is printed goes nowhere: nor may what is left of it at the end
                os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
            raise InputProblem(f"{error.filename or 'the output'}: {error.strerror}") from error

    return run  # type: ignore[return-value]


def _replace(context: click.Context, option: click.Parameter, given: bool) -> None:
    """Let the command replace files that the workbench did not make."""
    if given:
        from .core.files import overwriting

        context.with_resource(overwriting())


_OVERWRITE = click.Option(
    ["--overwrite"], is_flag=True, expose_value=False, callback=_replace,
    help="Replace an output file that the workbench did not make; never a frame.",
)  # fmt: skip


def _take_share(context: click.Context, option: click.Parameter, value: Any) -> None:
    """Let the command use so many threads, or so much memory."""
    if value is not None:
        from .core.errors import WorkbenchError
        from .core.parallel import machine_share

        try:
            context.with_resource(machine_share(**{str(option.name): value}))
        except WorkbenchError as problem:
            raise click.BadParameter(str(problem)) from None


class PositiveNumber(click.FloatRange):
    """A finite number above 0, which NaN passes for in click."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Return the number that a text stands for."""
        number = super().convert(value, param, ctx)
        return number if 0 < number < math.inf else self.fail(f"{value} is not a finite number above 0", param, ctx)


def quiet_options(command: Command) -> Command:
    """Give a command the options of all that work for a while."""
    command = click.option(
        "--memory", metavar="SIZE", callback=_take_share, expose_value=False,
        help="Memory for what the threads hold, e.g. 4GB; a third of what is free by default.",
    )(command)  # fmt: skip
    command = click.option(
        "--threads", type=click.IntRange(min=1), callback=_take_share, expose_value=False,
        help="Threads to work with; every processor by default.",
    )(command)  # fmt: skip
    return click.option("--quiet", is_flag=True, help="No progress bars.")(command)
