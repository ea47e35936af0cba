"""A study's database that does not answer for a while."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from netzip_mlflow.errors import NetzipError

__all__ = ["patiently", "unanswered"]

AWAY_S, RETRY_S = 600.0, 5.0  # as long as a trial may go without a heartbeat

T = TypeVar("T")


def unanswered() -> tuple[type[Exception], ...]:
    """What a database raises that does not take a call now, and may take it later."""
    from optuna.exceptions import StorageInternalError
    from sqlalchemy.exc import SQLAlchemyError

    return StorageInternalError, SQLAlchemyError


def patiently(call: Callable[[], T], say: Callable[[str], None]) -> T:
    """What a call gives, tried again while its database does not answer.

    Raises:
        NetzipError: it has not answered for `AWAY_S`.
    """
    end = time.monotonic() + AWAY_S
    while True:
        try:
            return call()
        except unanswered() as error:
            reason = str(error).strip().partition("\n")[0]
            if time.monotonic() > end:
                what = f"the study's database has not answered for {AWAY_S / 60:g} minutes"
                raise NetzipError(
                    f"{what}: {reason}; the same command goes on with the study"
                ) from error
            say(f"the study's database does not answer, waiting for it: {reason}")
            time.sleep(RETRY_S)
