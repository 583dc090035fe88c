import math

import pytest
import torch

from rvq_tutorial import metrics


def test_mse_and_psnr_of_a_known_error():
    x = torch.zeros(2, 3, 4)
    assert metrics.mse(x, x + 0.1) == pytest.approx(0.01)
    assert metrics.psnr(x, x + 0.1) == pytest.approx(20)
    assert metrics.psnr(x, x) == math.inf


def test_mse_does_not_round_in_half_precision():
    x = torch.zeros(100_000, dtype=torch.float16)
    assert metrics.mse(x, x + 2**-13) == pytest.approx(2**-26)  # its square is zero in float16


def test_mse_refuses_to_broadcast():
    with pytest.raises(ValueError, match=r"y must have x's shape \(4, 1\), got \(1, 4\)"):
        metrics.mse(torch.zeros(4, 1), torch.zeros(1, 4))


def test_a_mean_explains_nothing_and_the_values_everything():
    values = torch.randn(50, 3, generator=torch.Generator().manual_seed(0)) + 5
    mean = values.mean(0).expand_as(values)
    assert metrics.explained_variance(values, mean) == pytest.approx(0, abs=1e-6)
    assert metrics.explained_variance(values, values) == 1
    assert metrics.explained_variance(values, (values + mean) / 2) == pytest.approx(0.75)
    assert metrics.explained_variance(values, 2 * mean - values) == pytest.approx(-3)


def test_equal_values_have_no_variance_to_explain():
    with pytest.raises(ValueError, match="values must differ"):
        metrics.explained_variance(torch.ones(4), torch.ones(4))


def test_what_describes_a_patch():
    ramp = torch.linspace(0, 0.7, 8).expand(8, 8)  # grows by 0.1 a pixel to the right
    flat = torch.stack([torch.full((8, 8), value) for value in (0.9, 0.6, 0.3)])
    described = metrics.patch_properties(torch.stack([ramp.expand(3, 8, 8), ramp.T.expand(3, 8, 8), flat]))
    assert {name.split(":")[0] for name in described} == {"brightness", "warmth", "slope", "texture"}
    wanted = [[0.35, 0.35, 0.6], [0, 0, 0.6], [0.4, 0, 0], [0, 0.4, 0], [0.1, 0.1, 0]]
    assert torch.cat(list(described.values()), dim=1).T.tolist() == [pytest.approx(row, abs=1e-6) for row in wanted]


def test_what_is_no_patch_is_named():
    with pytest.raises(ValueError, match=r"patches must be \(N, 3, h, w\), got shape \(5, 8, 8\)"):
        metrics.patch_properties(torch.zeros(5, 8, 8))


def test_ssim_of_known_images():
    x = torch.rand(3, 20, 30, generator=torch.Generator().manual_seed(0))
    assert metrics.ssim(x, x) == pytest.approx(1)
    assert -1 <= metrics.ssim(x, 1 - x) < 0
    # Without variance only the means count: (2ab + C) / (a² + b² + C), C = 0.01²
    a, b = torch.full((3, 11, 11), 0.3), torch.full((3, 11, 11), 0.6)
    assert metrics.ssim(a, b) == pytest.approx((0.36 + 1e-4) / (0.45 + 1e-4), abs=1e-6)


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
    assert metrics.ssim(x, y) == pytest.approx(wanted)


def test_ssim_names_what_does_not_suit():
    with pytest.raises(ValueError, match=r"y must have x's shape \(3, 20, 20\), got \(3, 20, 21\)"):
        metrics.ssim(torch.zeros(3, 20, 20), torch.zeros(3, 20, 21))
    for shape in [(3, 10, 20), (20, 20), (1, 3, 20, 20)]:
        with pytest.raises(ValueError, match="x must be an image"):
            metrics.ssim(torch.zeros(shape), torch.zeros(shape))


def test_bits():
    assert metrics.bits_per_vector(256) == 8
    assert metrics.bits_per_vector(1024, num_quantizers=4) == 40
    assert metrics.bits_per_pixel(256, num_quantizers=8, stride=8) == 1


def test_usage_and_perplexity_of_known_counts():
    indices = torch.tensor([[0, 0, 1], [1, 2, 2]])
    assert metrics.usage(indices, 4) == 0.75
    assert metrics.perplexity(indices, 4) == pytest.approx(3)
    assert metrics.perplexity(torch.tensor([2, 2, 2]), 4) == pytest.approx(1)
    # p = (3/4, 1/4): H = 2 - 3/4 log2 3 bits
    assert metrics.perplexity(torch.tensor([0, 0, 0, 1]), 4) == pytest.approx(2 ** (2 - 0.75 * math.log2(3)))


def test_dropped_stages_are_left_out():
    indices = torch.tensor([0, 1, -1, -1, -1])
    assert metrics.usage(indices, 4) == 0.5
    assert metrics.perplexity(indices, 4) == pytest.approx(2)


@pytest.mark.parametrize("metric", [metrics.usage, metrics.perplexity])
def test_indices_out_of_range_are_named(metric):
    with pytest.raises(ValueError, match="between -1 and 3, got 0 to 4"):
        metric(torch.tensor([0, 4]), 4)
    with pytest.raises(TypeError, match="integer"):
        metric(torch.tensor([0.0]), 4)
    with pytest.raises(ValueError, match="only -1"):
        metric(torch.tensor([-1]), 4)
    with pytest.raises(ValueError, match="codebook_size"):
        metric(torch.tensor([0]), 0)


def test_shannon_distortion():
    assert metrics.shannon_distortion(0) == 1
    assert metrics.shannon_distortion(2) == 1 / 16
    assert metrics.shannon_distortion(1, variance=8) == 2
    with pytest.raises(ValueError, match="bits_per_dim"):
        metrics.shannon_distortion(-1)
