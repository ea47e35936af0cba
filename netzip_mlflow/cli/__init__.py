"""The command line: parse, call one stage, print, exit status. Nothing heavy is imported here."""

from __future__ import annotations

import contextlib
import errno
import os
import sys
from collections.abc import Sequence
from typing import NoReturn

from netzip_mlflow.cli import streams
from netzip_mlflow.cli.commands import app
from netzip_mlflow.databases import without_password
from netzip_mlflow.errors import InputError, NetzipError

__all__ = ["app", "main"]

INTERRUPTED = 130
KILLED = {"SIGTERM": 143, "SIGHUP": 129}  # 128 and the signal's number, as shells say it
# what the system refuses whatever the command is: no space, no permission, no further file, a name
REFUSED = ("ENOSPC", "EDQUOT", "EFBIG", "EROFS", "EACCES", "EPERM", "EIO", "EMFILE", "ENFILE")
GONE = ": the current folder was removed; change to another one"
NO_ROOM = {getattr(errno, name, None) for name in (*REFUSED, "ENAMETOOLONG")} - {None}


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command line; ends the process with the contract's exit status."""
    # On a busy machine torch's threads that spin at a barrier wait for one that is not scheduled:
    # epochs of a small network took 4 to 10 times as long. It is read when torch is loaded.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    streams.encodable()
    try:
        app(args=list(arguments) if arguments is not None else None, standalone_mode=True)
    except NetzipError as error:
        sys.stderr.write(f"netzip: {without_password(str(error))}\n")
        _explain(str(error))
        sys.exit(error.exit_status)
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("netzip_mlflow"):
            raise
        sys.stderr.write(
            f"netzip: this command needs the package {error.name}, which is not installed here; "
            "install netzip-mlflow with its dependencies (edge devices: score and measure only)\n"
        )
        sys.exit(1)
    except OSError as error:
        gone = error.errno == errno.ENOENT and error.filename is None  # as getcwd says it
        if error.errno not in NO_ROOM and not gone:
            raise
        sys.stderr.write(f"netzip: {error}{GONE if gone else ''}\n")
        _explain(str(error))
        sys.exit((InputError if gone else NetzipError).exit_status)
    except SystemExit as ended:
        if ended.code == INTERRUPTED:  # Typer has caught Ctrl-C, and says nothing
            sys.stderr.write("netzip: interrupted\n")
        raise
    except BaseException as error:
        if type(error).__name__ == "Killed":
            with contextlib.suppress(OSError):  # the terminal may be gone
                sys.stderr.write(f"netzip: ended by {error}\n")
            sys.exit(KILLED[str(error)])
        raise
    finally:
        if arguments is None:  # the process is the command's own, and ends with it
            streams.no_more()
    sys.exit(0)


def _explain(reason: str) -> None:
    """Leave the reason on the run that `mlflow run` started, which would only say FAILED."""
    run_id = os.environ.get("MLFLOW_RUN_ID")
    if run_id:
        from netzip_mlflow.tracking.reachable import healthy, tracking_uri

        store = tracking_uri()
        if healthy(store) is None:
            from netzip_mlflow.tracking.runs import explain

            explain(store, run_id, reason)
