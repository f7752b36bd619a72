"""Where data come from: named image sets, made ones, folders of pictures and Parquet files.

The package ships no data: :func:`load_images` is a thin door to what scikit-learn embeds or fetches, and to a folder
of compressed NumPy archives named by the environment variable ``FLOWDETECT_DATA``. :func:`load_folder` and
:func:`load_parquet` give sources, whose rows are read when they are asked for.
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
