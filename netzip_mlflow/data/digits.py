"""scikit-learn's handwritten digits: small, real, embedded in the package, so always at hand."""

from __future__ import annotations

import numpy as np

from netzip_mlflow.data.images import fit
from netzip_mlflow.data.source import Part, Source
from netzip_mlflow.recipe import DataSpec

__all__ = ["load"]

SIZE = 32  # pixels a side, what the small networks of the field are made for
LARGEST = 16  # of a pixel in the source


def load(spec: DataSpec) -> Source:
    """1,797 images of 10 classes, 8x8 pixels enlarged to 32x32 (or `spec.size`), one channel.

    Source: Alpaydin and Kaynak, Optical Recognition of Handwritten Digits (UCI, 1998),
    the test set.
    """
    from PIL import Image
    from sklearn.datasets import load_digits

    pixels, labels = load_digits(return_X_y=True)
    small = np.rint(np.reshape(pixels, (-1, 8, 8)) * (255 / LARGEST)).astype(np.uint8)
    size = spec.size or SIZE
    images = np.stack([fit(Image.fromarray(image), channels=1, size=size) for image in small])
    part = Part(images, np.asarray(labels, dtype=np.int64))
    return Source("digits", tuple(str(c) for c in range(10)), {"train": part})
