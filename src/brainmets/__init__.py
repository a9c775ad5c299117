"""Transfer learning for brain-metastasis segmentation, as a notebook laboratory.

Importing the package loads nothing heavy: every module imports torch, nnU-Net or MONAI only where it needs it.
"""

__version__ = "0.1.0"
