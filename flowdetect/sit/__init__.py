"""Semantic-invariant transformations (SITs): changes of pixels that leave the meaning of an image alone.

A digit moved by one pixel is the same digit. A score that follows meaning does not move with it; a likelihood does.
Each SIT is a scikit-learn transformer and can stand before any density or detector in a pipeline. What it gives back
has the form of what it got: rows, (n, H, W) or (n, H, W, C). Torch tensors (n, C, H, W) come back as numpy
(n, H, W, C), the one channel order in which flowdetect takes numpy images.

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
