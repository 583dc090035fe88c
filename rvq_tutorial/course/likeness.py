"""How alike two pictures look."""

from skimage.metrics import structural_similarity
from torch import Tensor

from rvq_tutorial.language import said


def ssim(x: Tensor, y: Tensor) -> float:
    """Structural similarity of two images (C, H, W), values in [0, 1], at least 11 pixels a side: 1 for equal ones.

    Means, variances and covariance in Gaussian windows of 11 x 11 pixels, averaged over windows and channels (Wang et
    al. 2004, "Image quality assessment: from error visibility to structural similarity", eq. 13).
    """
    if x.shape != y.shape:
        raise ValueError(said("y must have x's shape {shape}, got {got}", shape=tuple(x.shape), got=tuple(y.shape)))
    if x.ndim != 3 or min(x.shape[1:]) < 11:
        shape = tuple(x.shape)
        raise ValueError(
            said("x must be an image (C, H, W), at least 11 pixels a side, got shape {shape}", shape=shape)
        )
    images = (image.detach().cpu().double().numpy() for image in (x, y))
    return float(
        structural_similarity(
            *images, channel_axis=0, data_range=1, gaussian_weights=True, sigma=1.5, use_sample_covariance=False
        )
    )
