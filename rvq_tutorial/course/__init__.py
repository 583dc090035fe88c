"""What the notebooks use beside the quantizers: data, checks, plots, sliders, and what was measured beforehand."""

import warnings

from rvq_tutorial.extras import need

need(__name__, "course", "babel", "IPython", "ipywidgets", "matplotlib", "scipy", "skimage", "sklearn", "torchvision")

# The notebooks start from random codewords on purpose, to see what becomes of them.
warnings.filterwarnings("ignore", message=".*has random codewords")

from rvq_tutorial.course.languages import use

__all__ = ["use"]
