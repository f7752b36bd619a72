"""Named image sets, as arrays, and made ones to probe a score with.

The package ships no data: :func:`load_images` is a thin door to what scikit-learn embeds or fetches, and to a folder
of compressed NumPy archives named by the environment variable ``FLOWDETECT_DATA``.
"""

from flowdetect._ctrl_c import whole_imports

with whole_imports():
    from flowdetect.datasets.named import constant_images, load_images, random_images

__all__ = ["constant_images", "load_images", "random_images"]
