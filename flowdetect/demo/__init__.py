"""The demonstration: fit one flow, ask it about images it should not know, and tell what was measured.

`python -m flowdetect demo` is its door: `load_sets` gives the images, `measure` the numbers, `wording` the sentences
that follow from them, `write_report` the page.
"""

from flowdetect.demo.measure import Measurements, Settings, measure
from flowdetect.demo.report import check_folder, write_report
from flowdetect.demo.sets import DATASETS, OUTSIDE, Sets, load_sets

__all__ = [
    "DATASETS",
    "OUTSIDE",
    "Measurements",
    "Sets",
    "Settings",
    "check_folder",
    "load_sets",
    "measure",
    "write_report",
]
