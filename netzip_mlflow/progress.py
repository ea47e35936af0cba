"""Progress on stderr: one line that moves while something takes time, and lines that stay."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator

__all__ = ["Watcher", "watching"]

Watcher = tuple[Callable[[str, float], None], Callable[[str], None]]


@contextlib.contextmanager
def watching(quiet: bool) -> Iterator[Watcher]:
    """`(progress, say)`: a bar with the current step, and lines with the seconds since the start.

    Where stderr is no terminal the bar is left out, the lines stay; `quiet` leaves out both. Where
    nothing can be written any more (the terminal or the pipe is gone), nothing is.
    """
    if quiet:
        yield (lambda _what, _done: None), (lambda _line: None)
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    console = Console(stderr=True, highlight=False)
    started = time.monotonic()
    columns = (TextColumn("{task.description}"), BarColumn(bar_width=24), TimeElapsedColumn())

    def on_broken_pipe() -> None:  # rich would end the process, and send stdout nowhere
        console.quiet = True

    console.on_broken_pipe = on_broken_pipe
    bar = Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
    step = bar.add_task("", total=1.0, visible=False)

    def progress(what: str, done: float) -> None:
        with contextlib.suppress(OSError):
            bar.update(step, description=what, completed=done, visible=done < 1.0)

    def say(line: str) -> None:
        passed = f"[dim]{time.monotonic() - started:6.1f} s[/dim]"
        with contextlib.suppress(OSError):
            console.print(f"{passed}  {_escape(line)}", soft_wrap=True)  # whole lines in a log

    bar.start()
    try:
        yield progress, say
    finally:
        with contextlib.suppress(OSError):
            bar.stop()


def _escape(line: str) -> str:
    from rich.markup import escape

    return escape(line)
