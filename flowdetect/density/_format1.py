"""Fitted densities in files of format 1 (flowdetect 0.1.0), converted to the current form.

Format 1 stored what `fit` learned in attributes of the estimator and passed real values to the model unchanged; the
model's first layer holds their mean and scale. Converted densities return bitwise the same scores.
"""

from __future__ import annotations

from typing import Any

import numpy as np

LEARNED = {
    "value_counts_": "value_counts",
    "knots_": "knots",
    "whitening_": "whitening",
    "factored_dims_": "factored_dims",
}
GONE = ("image_shape_", "layout_axes_", "n_bins_", "dtype_", "classes_", "class_log_prior_", "loc_", "scale_")
GONE_TOO = ("constant_features_", "constant_values_", *LEARNED)


def upgraded(state: dict[str, Any], model_params: set[str]) -> dict[str, Any]:
    """Convert the state of a fitted density of format 1 to that of the current `__setstate__`."""
    image_shape = state["image_shape_"]
    spec = {
        "layout": [image_shape, state["layout_axes_"]],
        "n_features": int(state["n_features_in_"]),
        "n_bins": state["n_bins_"],
        "dtype": state["dtype_"],
        "constant_features": np.asarray(state["constant_features_"], dtype=np.intp),
        "constant_values": np.asarray(state["constant_values_"], dtype=np.float64),
        "classes": state.get("classes_"),
        "class_log_prior": state.get("class_log_prior_"),
        "learned": {name: np.asarray(state[old]) for old, name in LEARNED.items() if old in state},
    }
    weights = {_renamed(name): value for name, value in state["weights_"].items()}
    kept = {name: value for name, value in state.items() if name not in (*GONE, *GONE_TOO)}
    params = {name: state[name] for name in model_params if name in state}
    return {**kept, "spec_": spec, "weights_": weights, "_fitted_params": params}


def _renamed(name: str) -> str:
    """Return the current name of a weight: labels became contexts."""
    return name.replace(".label.value", ".context_bias.value").replace("net.labels.", "net.context_maps.")
