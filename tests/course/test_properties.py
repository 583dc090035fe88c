import pytest
import torch

from rvq_tutorial.course.properties import explained_variance, patch_properties


def test_what_describes_a_patch():
    ramp = torch.linspace(0, 0.7, 8).expand(8, 8)  # grows by 0.1 a pixel to the right
    flat = torch.stack([torch.full((8, 8), value) for value in (0.9, 0.6, 0.3)])
    described = patch_properties(torch.stack([ramp.expand(3, 8, 8), ramp.T.expand(3, 8, 8), flat]))
    assert {name.split(":")[0] for name in described} == {"brightness", "warmth", "slope", "texture"}
    wanted = [[0.35, 0.35, 0.6], [0, 0, 0.6], [0.4, 0, 0], [0, 0.4, 0], [0.1, 0.1, 0]]
    assert torch.cat(list(described.values()), dim=1).T.tolist() == [pytest.approx(row, abs=1e-6) for row in wanted]


def test_what_is_no_patch_is_named():
    with pytest.raises(ValueError, match=r"patches must be \(N, 3, h, w\), got shape \(5, 8, 8\)"):
        patch_properties(torch.zeros(5, 8, 8))


def test_a_mean_explains_nothing_and_the_values_everything():
    values = torch.randn(50, 3, generator=torch.Generator().manual_seed(0)) + 5
    mean = values.mean(0).expand_as(values)
    assert explained_variance(values, mean) == pytest.approx(0, abs=1e-6)
    assert explained_variance(values, values) == 1
    assert explained_variance(values, (values + mean) / 2) == pytest.approx(0.75)
    assert explained_variance(values, 2 * mean - values) == pytest.approx(-3)


def test_equal_values_have_no_variance_to_explain():
    with pytest.raises(ValueError, match="values must differ"):
        explained_variance(torch.ones(4), torch.ones(4))
