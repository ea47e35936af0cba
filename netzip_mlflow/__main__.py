"""`python -m netzip_mlflow` is `netzip`."""

from netzip_mlflow.cli import main

if __name__ == "__main__":
    main()
