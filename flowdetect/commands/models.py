"""Model files, and reading of new data in the same way as the training data."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from dataclasses import asdict, fields, replace
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Any

from flowdetect.commands.inputs import check_fitting, kinds_of, open_inputs
from flowdetect.commands.readers import Reader, Settings, shape_in_words, some, what_it_is

if TYPE_CHECKING:
    from numpy.typing import NDArray

ENDINGS = (".fd", ".safetensors")
KEPT = ("columns", "drop", "label", "separator", "size", "mode", "fit")  # of the settings, in the file
MODES, FITS = ("L", "RGB"), ("crop", "pad", "stretch")


class Model:
    """A fitted detector or density from a file.

    Attributes
    ----------
    estimator
    name : str
        Path of the file, as given.
    settings : Settings
        How the training data were read.
    columns : list of str or None
    image_shape : (H, W, C) or None
    """

    def __init__(self, name: str) -> None:
        from flowdetect._persistence import load, notes_of

        if not os.path.exists(name):
            raise ValueError(f"there is no model file {name!r}; make one with 'flowdetect fit', or correct the path")
        self.name = name
        notes = notes_of(name).get("reading", {})
        self.estimator = load(name)
        self.settings = _settings_of(notes, name)
        names = getattr(self.estimator, "feature_names_in_", None)
        self.columns = None if names is None else [str(each) for each in names]
        shape = getattr(self.estimator, "image_shape_", None)
        self.image_shape = None if shape is None else tuple(int(side) for side in shape)
        if not hasattr(self.estimator, "n_features_in_"):
            raise ValueError(f"{name!r} holds a {self.kind} that is not fitted; fit it, then save it again")
        self.n_features = int(self.estimator.n_features_in_)

    @property
    def kind(self) -> str:
        """Name of the estimator's class."""
        return type(self.estimator).__name__

    @property
    def is_detector(self) -> bool:
        """Whether it has p-values and labels."""
        return hasattr(self.estimator, "p_values")

    @property
    def density(self) -> Any:
        """The density of a detector, or the estimator itself."""
        members = getattr(self.estimator, "members_", None)
        found = members[0] if isinstance(members, list) and members and self.is_detector else self.estimator
        return getattr(found, "density_", found)

    def demand_detector(self, what: str) -> None:
        """Raise if the model is a density, without p-values and labels."""
        if not self.is_detector:
            raise ValueError(
                f"{what} needs a detector, and {self.name!r} holds a {self.kind}, a density without p-values; fit one "
                f"with 'flowdetect fit'"
            )

    def open(self, names: Sequence[str], options: argparse.Namespace) -> Reader:
        """Open new data and check that they have the form of the training data; only headers are read."""
        check_fitting(options, names)
        kinds = kinds_of(names)
        pictures = next((name for name, kind in kinds.items() if kind == "pictures"), None)
        if pictures is not None and self.image_shape is None:
            raise ValueError(f"{self._told(pictures)}, got pictures; give such a table")
        reader = open_inputs(names, self._read_with(options))
        self._check(reader)
        return reader

    def _read_with(self, options: argparse.Namespace) -> Settings:
        """Return the settings for new data: the options of the call, else those of the fit."""
        settings = self.settings
        if settings.size is None and self.image_shape is not None:
            height, width, channels = self.image_shape
            settings = replace(settings, size=(height, width), mode="L" if channels == 1 else "RGB")
        told: dict[str, Any] = {
            name: getattr(options, name, None) for name in ("columns", "drop", "separator", "array", "limit")
        }
        told = {name: value for name, value in told.items() if value is not None}
        left_out = [*settings.drop, *([settings.label] if settings.label else [])]
        told = {"drop": left_out, "if_there": "drop" not in told, **told}
        return replace(settings, label=None, on_error=options.on_error or "skip", **told)

    def _told(self, name: str) -> str:
        return f"{name!r} must be like what the model {self.name!r} was fitted to, {self.what_it_takes}"

    def _check(self, reader: Reader) -> None:
        """Raise if an input has another form than the training data, before it is read."""
        told = self._told(reader.name)
        if reader.is_images:
            if self.image_shape is None:
                raise ValueError(f"{told}, got {what_it_is(reader)}; give such a table")
            if (*reader.row_shape, 1)[:3] != self.image_shape:
                raise ValueError(f"{told}, got {what_it_is(reader)}; resize them, or fit another model")
            return
        if reader.row_shape[0] != self.n_features or (self.columns and reader.columns not in (None, self.columns)):
            raise ValueError(f"{told}, got {what_it_is(reader)}; {self._remedy(reader)}")

    @property
    def what_it_takes(self) -> str:
        """Description of the rows that the model takes."""
        if self.image_shape is not None:
            return f"images of {shape_in_words(self.image_shape)}"
        if self.columns is None:
            return f"rows of {self.n_features} values"
        return f"a table of the column(s) {some(self.columns)}"

    def _remedy(self, reader: Reader) -> str:
        there, wanted = reader.columns or [], self.columns or []
        more = [column for column in there if column not in wanted]
        lacking = [column for column in wanted if column not in there]
        if not wanted or not there:
            return "give as many columns, or pictures" if self.image_shape else "give as many columns"
        if lacking:
            return f"it lacks {some(lacking)}"
        if more:
            return f"leave out {some(more)} with --drop {quote(','.join(more))}"
        return f"the order differs: pass --columns {quote(','.join(wanted))}"

    def rows(self, part: NDArray[Any]) -> Any:
        """Convert rows to the form that the estimator takes: with names if it was fitted with names."""
        if self.columns is None or part.ndim > 2:
            return part
        import pandas as pd

        return pd.DataFrame(part, columns=self.columns)


def model_path(name: str) -> Path:
    """Return the path for a model file, or raise if it cannot be written."""
    from flowdetect._files import check_writable
    from flowdetect._persistence import check_no_checkpoint

    if not name.lower().endswith(ENDINGS):
        raise ValueError(
            f"-o must name a model file that ends in {' or '.join(ENDINGS)}, got {name!r}; add the ending .fd"
        )
    path = check_no_checkpoint(name)
    check_writable(path, "-o")
    return path


def notes(settings: Settings) -> dict[str, Any]:
    """Return the settings that a model file stores."""
    return {"reading": {name: value for name, value in asdict(settings).items() if name in KEPT}}


def _settings_of(found: Any, name: str) -> Settings:
    """Check and convert the settings in a model file, which may come from anyone."""
    if not isinstance(found, dict):
        found = {}
    usual = Settings()
    kept = {
        each.name: found.get(each.name, getattr(usual, each.name)) for each in fields(Settings) if each.name in KEPT
    }
    size = kept["size"]
    is_sound = (
        _is_names(kept["columns"] or [])
        and _is_names(kept["drop"])
        and all(kept[key] is None or isinstance(kept[key], str) for key in ("label", "separator"))
        and (
            size is None
            or (isinstance(size, list | tuple) and len(size) == 2 and all(type(side) is int for side in size))
        )
        and kept["mode"] in MODES
        and kept["fit"] in FITS
    )
    if not is_sound:
        raise ValueError(
            f"{name!r} has invalid settings for reading its data; the file is damaged, fit the model again"
        )
    return Settings(**{**kept, "size": None if size is None else tuple(size)})


def _is_names(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(each, str) for each in value)
