"""`python -m netzip_mlflow` is `netzip`."""

import os
import sys

if __name__ == "__main__":
    # `-m` puts the working folder first, where a user's random.py would stand for Python's own
    try:
        here = os.getcwd()  # noqa: PTH109 (pathlib imports much)
    except FileNotFoundError:
        here = ""
    if not sys.flags.safe_path and sys.path[:1] == [here]:
        sys.path.append(sys.path.pop(0))

    from netzip_mlflow.cli import main

    main()
