"""Semantic-invariant transformations (SITs): changes of pixels that keep the meaning of an image.

A digit moved by one pixel is the same digit. A score of meaning should not change; a likelihood does. Each SIT is a
scikit-learn transformer that can precede any density or detector in a pipeline. It returns the form that it receives:
rows, (n, H, W) or (n, H, W, C). For torch tensors (n, C, H, W) it returns numpy (n, H, W, C).

Source: "Exploring the Correlation Between Likelihood of Flow-based Generative Models and Image Semantics" (anonymous,
under double-blind review), sections 4.1 to 4.3.
"""

from flowdetect._ctrl_c import whole_imports

with whole_imports():
    from flowdetect.sit.geometry import Flip, Rotate90, Translate
    from flowdetect.sit.intensity import Contrast, Gray
    from flowdetect.sit.latents import ZeroLatents
    from flowdetect.sit.noise import AddNoise

__all__ = ["AddNoise", "Contrast", "Flip", "Gray", "Rotate90", "Translate", "ZeroLatents"]
