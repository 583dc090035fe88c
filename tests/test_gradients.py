import math

import pytest
import torch
import torch.nn.functional as F

from rvq_tutorial import ResidualVectorQuantizer, VectorQuantizer, rotate, straight_through


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def jacobian(function, x):
    """(N, dim) → (N, dim, dim), of a function that treats every row by itself."""
    whole = torch.autograd.functional.jacobian(function, x)
    return torch.stack([whole[i, :, i] for i in range(len(x))])


def rotation_by_definition(x, quantized):
    """Fifty et al. 2024, eq. 4: the rotation in the plane of both that takes x's direction to that of `quantized`."""
    start, end = x / x.norm(), quantized / quantized.norm()
    cos = start @ end
    orthogonal = end - cos * start
    orthogonal = orthogonal / orthogonal.norm()
    sin = (1 - cos**2).sqrt()
    basis = torch.stack([start, orthogonal], 1)
    turn = torch.stack([torch.stack([cos, -sin]), torch.stack([sin, cos])])
    return basis @ turn @ basis.T + torch.eye(len(x)) - basis @ basis.T


def test_the_jacobian_is_the_rotation_with_its_rescale():
    x, quantized = torch.randn(9, 5).double(), torch.randn(9, 5).double()
    found = jacobian(lambda x: rotate(x, quantized), x)
    for matrix, a, b in zip(found, x, quantized, strict=True):
        scale = b.norm() / a.norm()
        torch.testing.assert_close(matrix, scale * rotation_by_definition(a, b).double(), atol=1e-7, rtol=1e-6)
        torch.testing.assert_close(matrix @ a, b)
        torch.testing.assert_close(torch.linalg.det(matrix / scale), torch.ones((), dtype=torch.float64))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("scale", [1e-3, 1.0, 100.0])
def test_the_value_is_that_of_the_codeword_exactly(dtype, scale):
    x, quantized = (scale * torch.randn(50, 8)).to(dtype), torch.randn(50, 8).to(dtype)
    assert torch.equal(rotate(x, quantized), quantized)
    assert torch.equal(straight_through(x, quantized), quantized)


@pytest.mark.parametrize(
    ("x", "quantized", "expected"),
    [
        ([0, 0, 0], [1, 2, 3], torch.eye(3)),  # nothing to turn from
        ([1, 2, 3], [0, 0, 0], torch.zeros(3, 3)),  # scaled to nothing
        ([1, 2, 3], [1, 2, 3], torch.eye(3)),
        ([1, 2, 3], [2, 4, 6], 2 * torch.eye(3)),
        ([1, 0, 0], [-1, 0, 0], torch.diag(torch.tensor([-1.0, 1, 1]))),  # half a turn, in no plane of their own
    ],
)
def test_where_there_is_no_angle(x, quantized, expected):
    x, quantized = torch.tensor([x]).float(), torch.tensor([quantized]).float()
    torch.testing.assert_close(jacobian(lambda x: rotate(x, quantized), x)[0], expected)


@pytest.mark.parametrize(
    "make", [lambda **s: VectorQuantizer(4, 8, **s), lambda **s: ResidualVectorQuantizer(4, 8, 3, **s)]
)
def test_a_quantizer_hands_the_turned_gradient_on(make):
    """One turn from x to what comes out, around all stages."""
    quantizer, x = make(gradient="rotation").fit(torch.randn(300, 4)).eval(), torch.randn(20, 4, requires_grad=True)
    plain = make()
    plain.load_state_dict(quantizer.state_dict())
    output, expected = quantizer(x), plain.eval()(x)
    for a, b in zip(output, expected, strict=True):
        assert torch.equal(a, b)
    upstream = torch.randn(20, 4)
    (gradient,) = torch.autograd.grad(output.quantized, x, upstream, retain_graph=True)
    (wanted,) = torch.autograd.grad(rotate(x, expected.quantized), x, upstream)
    torch.testing.assert_close(gradient, wanted)
    cosine = F.cosine_similarity(gradient, x.detach()), F.cosine_similarity(upstream, output.quantized)
    torch.testing.assert_close(*cosine, atol=1e-4, rtol=1e-4)  # the angle stays
    for a, b in zip(*(torch.autograd.grad(o.loss, x) for o in (output, expected)), strict=True):
        torch.testing.assert_close(a, b)


def test_training_by_rotation_lowers_the_error():
    encoder = torch.nn.Linear(2, 4)
    quantizer = VectorQuantizer(4, 16, gradient="rotation")
    data = torch.randn(400, 2)
    quantizer.fit(encoder(data))
    decoder = torch.nn.Linear(4, 2)
    optimizer = torch.optim.Adam([*encoder.parameters(), *decoder.parameters()], 0.01)
    errors = []
    for _ in range(100):
        output = quantizer(encoder(data))
        error = F.mse_loss(decoder(output.quantized), data)
        optimizer.zero_grad()
        (error + output.loss).backward()
        optimizer.step()
        errors.append(error.item())
    assert errors[-1] < 0.5 * errors[0] and math.isfinite(errors[-1])


def test_a_gradient_that_is_unknown():
    with pytest.raises(ValueError) as info:
        VectorQuantizer(4, 8, gradient="ste")
    assert str(info.value) == 'gradient must be "straight-through" or "rotation", got \'ste\''
