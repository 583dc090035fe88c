"""What the notebooks use beside the quantizers: data, checks, plots, sliders, and what was measured beforehand."""
