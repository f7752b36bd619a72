"""Data sets: named image sets, synthetic images, folders of pictures and Parquet files.

The package contains no data. :func:`load_images` loads what scikit-learn includes or downloads, and NumPy archives in
the folder that the environment variable ``FLOWDETECT_DATA`` names. :func:`load_folder` and :func:`load_parquet` return
sources, whose rows are read when they are needed.
"""

from flowdetect._ctrl_c import whole_imports

with whole_imports():
    from flowdetect.datasets.folder import ImageFolder, load_folder
    from flowdetect.datasets.named import constant_images, load_images, random_images
    from flowdetect.datasets.parquet import ArrowTable, ParquetTable, load_parquet

__all__ = [
    "ArrowTable",
    "ImageFolder",
    "ParquetTable",
    "constant_images",
    "load_folder",
    "load_images",
    "load_parquet",
    "random_images",
]
