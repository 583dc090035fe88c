"""What the notebooks use beside the quantizers: data, checks, plots, sliders, and what was measured beforehand."""

from rvq_tutorial.extras import need

need(__name__, "course", "IPython", "ipywidgets", "matplotlib", "scipy", "skimage", "sklearn", "torchvision")
