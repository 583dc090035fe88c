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
