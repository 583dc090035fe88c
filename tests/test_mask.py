"""Padding: neither quantized nor counted nor learned from."""

import copy
import math

import pytest
import torch

from rvq_tutorial import ResidualVectorQuantizer, VectorQuantizer

MAKE = {
    "one": lambda **settings: VectorQuantizer(4, 8, **settings),
    "one, cosine": lambda **settings: VectorQuantizer(4, 8, similarity="cosine", **settings),
    "one, rotation": lambda **settings: VectorQuantizer(4, 8, gradient="rotation", **settings),
    "residual": lambda **settings: ResidualVectorQuantizer(4, 8, 3, **settings),
    "residual, gradient": lambda **settings: ResidualVectorQuantizer(4, 8, 3, codebook_update="gradient", **settings),
    "residual, beam": lambda **settings: ResidualVectorQuantizer(4, 8, 3, beam_size=3, **settings),
}


@pytest.fixture(params=MAKE)
def make(request):
    torch.manual_seed(0)

    def make(channel_dim=-1, **settings):
        quantizer = MAKE[request.param](channel_dim=channel_dim, **settings)
        return quantizer.fit(torch.randn(300, 1, 4).movedim(-1, channel_dim))

    return make


def padded(num_samples=6, length=20, garbage=0.0):
    """Clips of different lengths, laid in one tensor (B, T, 4), and the mask of what is real."""
    x, lengths = torch.randn(num_samples, length, 4), torch.randint(1, length // 2, (num_samples,))
    mask = torch.arange(length) < lengths.unsqueeze(1)
    x[~mask] = garbage
    return x, mask


@pytest.mark.parametrize("garbage", [0.0, 5.0, math.nan, math.inf])
@pytest.mark.parametrize("training", [True, False])
def test_padding_is_as_if_it_were_not_there(make, training, garbage):
    quantizer = make().train(training)
    quantizer.stages[0].usage[:4] = 0  # half of the first codebook restarts in training
    alone = copy.deepcopy(quantizer)
    x, mask = padded(garbage=garbage)
    inside, outside = x.clone().requires_grad_(), x[mask].requires_grad_()
    output, expected = quantizer(inside, mask), alone(outside)
    assert output.quantized.shape == x.shape and output.indices.shape[:2] == mask.shape
    torch.testing.assert_close(output.quantized[mask], expected.quantized)
    assert torch.equal(output.indices[mask], expected.indices)
    assert (output.quantized[~mask] == 0).all() and (output.indices[~mask] == -1).all()
    for result, wanted in zip(output[2:], expected[2:], strict=True):
        torch.testing.assert_close(result, wanted)
    for name, value in alone.state_dict().items():
        torch.testing.assert_close(quantizer.state_dict()[name], value)
    if training:
        assert quantizer.stages[0].last_restarts == alone.stages[0].last_restarts >= 3
        assert torch.equal(quantizer.stages[-1].last_counts, alone.stages[-1].last_counts)
        assert quantizer.stages[0].last_counts.sum() == mask.sum()

    weight = torch.randn(x.shape)
    ((output.quantized * weight).sum() + output.loss).backward()
    ((expected.quantized * weight[mask]).sum() + expected.loss).backward()
    torch.testing.assert_close(inside.grad[mask], outside.grad)
    assert (inside.grad[~mask] == 0).all()


def test_a_batch_of_padding_only_teaches_nothing(make):
    quantizer = make()
    before, x = copy.deepcopy(quantizer.state_dict()), torch.randn(3, 5, 4, requires_grad=True)
    output = quantizer(x, torch.zeros(3, 5, dtype=torch.bool))
    assert not output.quantized.any() and (output.indices == -1).all()
    assert output.loss == output.codebook_loss == output.commitment_loss == 0 and not output.stage_losses.any()
    (output.quantized.sum() + output.loss).backward()
    assert not x.grad.any()
    assert all(torch.equal(value, before[name]) for name, value in quantizer.state_dict().items())


def test_a_mask_of_all_changes_nothing(make):
    quantizer = make()
    plain, x = copy.deepcopy(quantizer), torch.randn(3, 5, 4)
    for result, expected in zip(quantizer(x, torch.ones(3, 5, dtype=torch.bool)), plain(x), strict=True):
        torch.testing.assert_close(result, expected)


@pytest.mark.parametrize("channel_dim", [0, 1])
def test_the_mask_has_the_shape_of_x_without_channels(make, channel_dim):
    quantizer, rows = make(channel_dim=channel_dim).eval(), make().eval()
    rows.load_state_dict(quantizer.state_dict())
    x, mask = padded()
    mask[0] = True
    output, expected = quantizer(x.movedim(-1, channel_dim), mask), rows(x, mask)
    assert torch.equal(output.quantized.movedim(channel_dim, -1), expected.quantized)
    assert torch.equal(output.indices, expected.indices)


def test_what_was_masked_decodes_to_zeros(make):
    quantizer, (x, mask) = make().eval(), padded()
    output = quantizer(x, mask)
    assert torch.equal(quantizer.decode(output.indices), output.quantized)
    assert torch.equal(quantizer.encode(x.masked_fill(~mask[..., None], math.nan), mask), output.indices)


def test_dropout_goes_by_sample_beside_padding():
    torch.manual_seed(0)
    quantizer = ResidualVectorQuantizer(4, 8, 5, quantize_dropout=1.0).fit(torch.randn(300, 4))
    x, mask = padded(40)
    indices = quantizer(x, mask).indices
    assert (indices[~mask] == -1).all()
    depths = [set((sample[real] >= 0).sum(-1).tolist()) for sample, real in zip(indices, mask, strict=True)]
    assert all(len(depth) == 1 for depth in depths)
    assert set.union(*depths) == {1, 2, 3, 4, 5}


def test_fit_leaves_padding_out(make):
    x, mask = padded(num_samples=20, garbage=1000.0)
    quantizer = make().fit(x, mask)
    assert all(stage.vectors.abs().max() < 10 for stage in quantizer.stages)


def test_compiled_without_a_break(make):
    quantizer = make()
    plain, compiled = copy.deepcopy(quantizer), torch.compile(quantizer, fullgraph=True, backend="aot_eager")
    for _ in range(2):
        x, mask = padded(garbage=3.0)
        for result, expected in zip(compiled(x, mask), plain(x, mask), strict=True):
            torch.testing.assert_close(result, expected)
    for name, value in plain.state_dict().items():
        torch.testing.assert_close(quantizer.state_dict()[name], value)
    torch.compiler.reset()


@pytest.mark.parametrize(
    ("mask", "error", "sentence"),
    [
        ([True], TypeError, "mask must be a bool tensor, True where x is real, got list"),
        (torch.ones(3, 5), TypeError, "mask must be a bool tensor, True where x is real, got torch.float32"),
        (
            torch.ones(5, 3, dtype=torch.bool),
            ValueError,
            "mask must have x's shape without channels, (3, 5), got (5, 3)",
        ),
        (
            torch.ones(3, 5, 1, dtype=torch.bool),
            ValueError,
            "mask must have x's shape without channels, (3, 5), got (3, 5, 1)",
        ),
    ],
)
def test_bad_masks(make, mask, error, sentence):
    quantizer = make()
    before = copy.deepcopy(quantizer.state_dict())
    with pytest.raises(error) as info:
        quantizer(torch.randn(3, 5, 4), mask)
    assert str(info.value) == sentence
    assert all(torch.equal(value, before[name]) for name, value in quantizer.state_dict().items())
