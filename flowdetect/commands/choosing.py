"""Building of an unfitted detector from names and KEY=VALUE."""

from __future__ import annotations

import argparse
import ast
import difflib
import inspect
from importlib import import_module
from typing import Any

from flowdetect._ctrl_c import whole_imports
from flowdetect._homes import HOMES, NOT_IN_FILES

NOT_SET = {"density", "prefit", "verbose"}  # parameters that are not plain values, or have an option
DETECTORS = sorted(name for name in HOMES if name.endswith("Detector") and name not in NOT_IN_FILES)
DENSITIES = sorted(name for name in HOMES if name.endswith("Density") and name != "EnsembleDensity")


def build(options: argparse.Namespace, shows_progress: bool = False) -> Any:
    """Build the detector that the options describe, or raise if a value is invalid."""
    kind = _class("detector", options.detector, DETECTORS)
    density = None if options.density is None else _class("density", options.density, DENSITIES)()
    needs_density = inspect.signature(kind).parameters["density"].default is inspect.Parameter.empty
    if density is None and needs_density:
        raise ValueError(
            f"--detector {kind.__name__} needs a density; pass --density, one of "
            f"{', '.join(name.removesuffix('Density') for name in DENSITIES)}"
        )
    model = kind(density) if density is not None else kind()
    asked = [_pair(text) for text in options.set]
    options_of = {
        "contamination": options.contamination,
        "max_epochs": options.epochs,
        "time_limit": options.time_limit,
        "device": options.device,
        "checkpoint": options.checkpoint,
        "image_shape": options.image_shape,
        "verbose": int(shows_progress) or None,
        "random_state": options.seed,
    }
    for key, value in options_of.items():
        if value is not None and key not in dict(asked):
            _set(model, key, value, _option(key))
    for key, value in asked:
        if key in NOT_SET:
            raise ValueError(
                f"--set must not name {key}, got {value!r}; name a density with --density, and use --verbose"
            )
        _set(model, key, value, f"--set {key}")
    model._check_parameters()  # before inputs are read
    return model


def _class(what: str, asked: str, there: list[str]) -> Any:
    """Find a class by its name, with or without its ending, in upper or lower case."""
    ending = what.capitalize()
    by_name = {form.lower(): name for name in there for form in (name, name.removesuffix(ending))}
    if asked.lower() not in by_name:
        near = difflib.get_close_matches(asked.lower(), by_name, 1)
        hint = f"; did you mean {by_name[near[0]].removesuffix(ending)}?" if near else ""
        raise ValueError(
            f"--{what} must be one of {', '.join(name.removesuffix(ending) for name in there)}, got {asked!r}{hint}"
        )
    name = by_name[asked.lower()]
    with whole_imports():
        return getattr(import_module(f"flowdetect.{HOMES[name]}"), name)


def _pair(text: str) -> tuple[str, Any]:
    """Parse KEY=VALUE; the value is a number, True, False, None, a tuple, or else a word."""
    key, sign, value = text.partition("=")
    if not sign or not key.strip():
        raise ValueError(f"--set must be KEY=VALUE, such as n_steps=4, got {text!r}")
    try:
        return key.strip(), ast.literal_eval(value.strip())
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        if not value.strip().replace("-", "").replace("_", "").replace("+", "").isalnum():
            raise ValueError(
                f"--set {key.strip()} must have a number, a word, True, False, None or a tuple, got {value!r}; put it "
                f"into quotes of the shell, as in --set 'scales=(1, 2)'"
            ) from None
        return key.strip(), value.strip()


def _set(model: Any, key: str, value: Any, option: str) -> None:
    """Set a parameter of the detector, or of its density if the detector has none of this name."""
    there = model.get_params(deep=True)
    full = key if key in there else f"density__{key}"
    if full in there:
        _check_kind(model, full, value, option)
        model.set_params(**{full: value})
        return
    own = getattr(model, "density", None) is None
    if key == "verbose":
        return
    if own and not option.startswith("--set"):
        raise ValueError(
            f"{option} needs a density that has {key}, got {value!r} for a {type(model).__name__} without "
            f"--density; name one, such as --density PixelCNN, or leave it out"
        )
    choices = sorted({name.removeprefix("density__") for name in there} - NOT_SET)
    near = difflib.get_close_matches(key.removeprefix("density__"), choices, 1)
    who = type(model).__name__ if own else f"{type(model).__name__} and {type(model.density).__name__}"
    hint = f"did you mean {near[0]}?" if near else f"they are {', '.join(choices)}"
    if own:
        hint += ", and those of a density if one is named with --density"
    raise ValueError(f"{option} must be a parameter of {who}, got {key!r}; {hint}")


def _check_kind(model: Any, key: str, value: Any, option: str) -> None:
    """Raise if a value has another type than the default: number, word or switch."""
    usual = model.get_params(deep=True)[key]
    takes = {bool: (bool,), int: (int, str), float: (int, float, str), str: (str, int, float, tuple)}.get(type(usual))
    if (
        takes is None
        or value is None
        or (isinstance(value, takes) and isinstance(value, bool) <= (type(usual) is bool))
    ):
        return
    raise ValueError(
        f"{option} must be of the type of its usual value, {usual!r}, got {value!r} of type {type(value).__name__}"
    )


def _option(key: str) -> str:
    return {"max_epochs": "--epochs", "random_state": "--seed"}.get(key, f"--{key.replace('_', '-')}")
