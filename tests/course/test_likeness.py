import pytest
import torch

from rvq_tutorial.course.likeness import ssim


def test_ssim_of_known_images():
    x = torch.rand(3, 20, 30, generator=torch.Generator().manual_seed(0))
    assert ssim(x, x) == pytest.approx(1)
    assert -1 <= ssim(x, 1 - x) < 0
    # Without variance only the means count: (2ab + C) / (a² + b² + C), C = 0.01²
    a, b = torch.full((3, 11, 11), 0.3), torch.full((3, 11, 11), 0.6)
    assert ssim(a, b) == pytest.approx((0.36 + 1e-4) / (0.45 + 1e-4), abs=1e-6)


def test_ssim_of_one_window_is_its_formula():
    """Wang et al. 2004, eqs. 13 to 16, written out; 11 x 11 pixels hold a single window."""
    x, y = torch.rand(2, 1, 11, 11, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    offset = torch.arange(-5.0, 6.0, dtype=torch.float64)
    weight = torch.exp(-(offset**2 + offset[:, None] ** 2) / (2 * 1.5**2))
    weight /= weight.sum()

    def mean(values):
        return (weight * values).sum().item()

    mx, my = mean(x), mean(y)
    vx, vy, covariance = mean((x - mx) ** 2), mean((y - my) ** 2), mean((x - mx) * (y - my))
    wanted = (2 * mx * my + 1e-4) * (2 * covariance + 9e-4) / ((mx**2 + my**2 + 1e-4) * (vx + vy + 9e-4))
    assert ssim(x, y) == pytest.approx(wanted)


def test_ssim_names_what_does_not_suit():
    with pytest.raises(ValueError, match=r"y must have x's shape \(3, 20, 20\), got \(3, 20, 21\)"):
        ssim(torch.zeros(3, 20, 20), torch.zeros(3, 20, 21))
    for shape in [(3, 10, 20), (20, 20), (1, 3, 20, 20)]:
        with pytest.raises(ValueError, match="x must be an image"):
            ssim(torch.zeros(shape), torch.zeros(shape))
