"""Quantizers around quantizers: each is what its definition says, step by step, and like any quantizer to work with."""

import copy
import math
import pickle

import pytest
import torch

from rvq_tutorial import (
    FiniteScalarQuantizer,
    Grouped,
    Projected,
    ResidualFiniteScalarQuantizer,
    ResidualVectorQuantizer,
    VectorQuantizer,
)


def vq(dim=4, **settings):
    return VectorQuantizer(dim, 8, **settings)


def rvq(dim=4, **settings):
    return ResidualVectorQuantizer(dim, 8, 3, **settings)


INSIDE = {"one": vq, "residual": rvq}
MAKE = {  # all for vectors of size 6
    "projected, one": lambda **settings: Projected(vq(**settings), 6),
    "projected, cosine": lambda **settings: Projected(vq(similarity="cosine", **settings), 6),
    "projected, residual": lambda **settings: Projected(rvq(**settings), 6),
    "grouped, one": lambda **settings: Grouped([vq(2, **settings), vq(4, **settings)]),
    "grouped, residual": lambda **settings: Grouped([rvq(4, **settings), rvq(2, **settings)]),
    "projected, grouped": lambda **settings: Projected(Grouped([rvq(2, **settings), rvq(2, **settings)]), 6),
    "grouped, projected": lambda **settings: Grouped([Projected(rvq(2, **settings), 3) for _ in range(2)]),
    "grouped twice": lambda **settings: Grouped([Grouped([vq(1, **settings), vq(2, **settings)]) for _ in range(2)]),
}
INDEX_SHAPES = [(), (), (3,), (2,), (2, 3), (2, 3), (2, 3), (2, 2)]


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


@pytest.fixture(params=MAKE)
def make(request):
    def make(channel_dim=-1, **settings):
        quantizer = MAKE[request.param](channel_dim=channel_dim, **settings)
        return quantizer.fit(torch.randn(300, 1, 6).movedim(-1, channel_dim))

    return make


def padded(garbage=0.0):
    """Clips of different lengths, laid in one tensor (B, T, 6), and the mask of what is real."""
    x, mask = torch.randn(6, 20, 6), torch.arange(20) < torch.randint(1, 15, (6, 1))
    x[~mask] = garbage
    return x, mask


def gradients(quantizer, x, total):
    return torch.autograd.grad(total, [x, *quantizer.parameters()])


def assert_close(results, expected):
    for result, wanted in zip(results, expected, strict=True):
        torch.testing.assert_close(result, wanted)


@pytest.mark.parametrize("inside", INSIDE)
@pytest.mark.parametrize("training", [True, False])
def test_projected_is_a_map_in_the_quantizer_and_a_map_out(inside, training):
    quantizer = Projected(INSIDE[inside]().fit(torch.randn(300, 4)), 6).train(training)
    parts, x = copy.deepcopy(quantizer), torch.randn(5, 7, 6, requires_grad=True)
    output = quantizer(x)
    expected = parts.quantizer(x @ parts.project_in.weight.T + parts.project_in.bias)
    quantized = expected.quantized @ parts.project_out.weight.T + parts.project_out.bias
    assert_close(output, expected._replace(quantized=quantized))
    totals = [output.quantized.sin().sum() + output.loss, quantized.sin().sum() + expected.loss]
    assert_close(gradients(quantizer, x, totals[0]), gradients(parts, x, totals[1]))
    assert_close(quantizer.state_dict().values(), parts.state_dict().values())


@pytest.mark.parametrize("inside", INSIDE)
@pytest.mark.parametrize("training", [True, False])
def test_grouped_is_each_quantizer_on_its_channels(inside, training):
    make = INSIDE[inside]
    quantizer = Grouped([make(4), make(2)]).fit(torch.randn(300, 6)).train(training)
    parts, x = copy.deepcopy(quantizer.quantizers), torch.randn(5, 7, 6)
    output, outputs = quantizer(x), [parts[0](x[..., :4]), parts[1](x[..., 4:])]
    assert_close([output.quantized], [torch.cat([each.quantized for each in outputs], -1)])
    assert torch.equal(output.indices[:, :, 0], outputs[0].indices)
    assert torch.equal(output.indices[:, :, 1], outputs[1].indices)
    assert_close(output[2:], [(a + b) / 2 for a, b in zip(outputs[0][2:], outputs[1][2:], strict=True)])
    assert_close(quantizer.quantizers.state_dict().values(), parts.state_dict().values())


@pytest.mark.parametrize(("name", "index_shape"), [*zip(MAKE, INDEX_SHAPES, strict=True)])
@pytest.mark.parametrize("channel_dim", [-1, 1])
def test_what_a_quantizer_promises(name, index_shape, channel_dim):
    quantizer = MAKE[name](channel_dim=channel_dim).eval()
    quantizer.fit(torch.randn(300, 1, 6).movedim(-1, channel_dim))
    x = torch.randn(3, 5, 6).movedim(-1, channel_dim)
    output = quantizer(x)
    assert quantizer.dim == 6 and quantizer.channel_dim == channel_dim and quantizer.index_shape == index_shape
    assert quantizer.bits == 3 * math.prod(index_shape)
    assert output.quantized.shape == x.shape and output.indices.shape == (3, 5, *index_shape)
    assert torch.equal(output.indices, quantizer.encode(x))
    assert torch.equal(output.quantized, quantizer.decode(output.indices.to(torch.uint8)))
    same = copy.deepcopy(quantizer)
    for module in same.modules():
        module.channel_dim = -1
    assert torch.equal(same(x.movedim(channel_dim, -1)).indices, output.indices)


def test_a_prefix_of_the_indices_holds_the_first_stages_of_every_group():
    quantizer = Projected(Grouped([rvq(2), rvq(2)]), 6).fit(torch.randn(300, 6)).eval()
    x = torch.randn(5, 7, 6)
    indices = quantizer.encode(x)
    for m in (1, 2):
        assert torch.equal(quantizer.encode(x, num_quantizers=m), indices[..., :m])
        assert torch.equal(quantizer(x, num_quantizers=m).quantized, quantizer.decode(indices[..., :m]))
    assert not torch.equal(quantizer.encode(x, beam_size=8), indices)


@pytest.mark.parametrize("inside", INSIDE)
def test_fit_projects_first(inside):
    quantizer = Projected(INSIDE[inside](), 6)
    alone, (x, mask) = copy.deepcopy(quantizer), padded(garbage=1000.0)
    torch.manual_seed(1)
    assert quantizer.fit(x, mask) is quantizer
    torch.manual_seed(1)
    alone.quantizer.fit(alone.project_in(x[mask]))
    assert_close(quantizer.state_dict().values(), alone.state_dict().values())
    assert quantizer.quantizer.is_started


def test_fit_leaves_padding_out(make):
    quantizer = make().fit(*padded(garbage=1000.0))
    assert all(value.abs().max() < 10 for name, value in quantizer.state_dict().items() if "vectors" in name)


@pytest.mark.parametrize("garbage", [5.0, math.nan])
@pytest.mark.parametrize("training", [True, False])
def test_padding_is_as_if_it_were_not_there(make, training, garbage):
    quantizer = make().train(training)
    alone, (x, mask) = copy.deepcopy(quantizer), padded(garbage)
    inside, outside = x.clone().requires_grad_(), x[mask].requires_grad_()
    output, expected = quantizer(inside, mask), alone(outside)
    torch.testing.assert_close(output.quantized[mask], expected.quantized)
    assert torch.equal(output.indices[mask], expected.indices)
    assert (output.quantized[~mask] == 0).all() and (output.indices[~mask] == -1).all()
    assert torch.equal(quantizer.eval().decode(output.indices) == 0, output.quantized == 0)
    assert_close(output[2:], expected[2:])
    assert_close(quantizer.state_dict().values(), alone.state_dict().values())

    weight = torch.randn(x.shape)
    found = gradients(quantizer, inside, (output.quantized * weight).sum() + output.loss)
    wanted = gradients(alone, outside, (expected.quantized * weight[mask]).sum() + expected.loss)
    assert_close([found[0][mask], *found[1:]], wanted)
    assert (found[0][~mask] == 0).all()


def test_what_was_masked_decodes_to_zeros(make):
    quantizer, (x, mask) = make().eval(), padded()
    output = quantizer(x, mask)
    assert torch.equal(quantizer.decode(output.indices), output.quantized)
    x = torch.randn(0, 5, 6)
    assert quantizer(x).quantized.shape == quantizer.decode(quantizer.encode(x)).shape == x.shape


@pytest.mark.parametrize(
    ("inside", "bits"),
    [(FiniteScalarQuantizer([8, 4, 4]), 7), (ResidualFiniteScalarQuantizer([8, 4, 4], num_quantizers=2), 14)],
)
def test_scalars(inside, bits):
    quantizer, (x, mask) = Projected(Grouped([inside, inside]), 6), padded(garbage=math.nan)
    output = quantizer(x, mask)
    expected = [inside(part).quantized for part in quantizer.project_in(x[mask]).split(3, -1)]
    torch.testing.assert_close(output.quantized[mask], quantizer.project_out(torch.cat(expected, -1)))
    assert quantizer.bits == 2 * bits and output.indices.shape == (6, 20, *quantizer.index_shape)
    assert torch.equal(output.quantized, quantizer.decode(output.indices)) and not output.quantized[~mask].any()


def test_dropout_leaves_samples_whole():
    quantizer = Projected(rvq(quantize_dropout=1.0, codebook_update="none"), 6).fit(torch.randn(300, 6))
    output = quantizer(torch.randn(40, 7, 6))
    assert torch.equal(output.quantized, quantizer.decode(output.indices)) and (output.quantized != 0).all()
    depths = (output.indices >= 0).sum(-1)
    assert (depths == depths[:, :1]).all() and set(depths.flatten().tolist()) == {1, 2, 3}


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_the_output_has_the_inputs_type(make, dtype):
    quantizer, x = make().eval(), torch.randn(3, 5, 6).to(dtype)
    expected = quantizer(x.float())
    for context in (torch.autocast("cpu", enabled=False), torch.autocast("cpu")):
        with context:
            output = quantizer(x)
            assert torch.equal(quantizer.decode(quantizer.encode(x)).to(dtype), output.quantized)
        assert output.quantized.dtype == dtype and output.loss.dtype == torch.float32
        assert (output.indices == expected.indices).float().mean() > 0.5


def test_compiled_without_a_break(make):
    """And every parameter gets a gradient, as DistributedDataParallel wants it."""
    quantizer = make()
    plain, compiled = copy.deepcopy(quantizer), torch.compile(quantizer, fullgraph=True, backend="aot_eager")
    for _ in range(2):
        x, mask = padded(garbage=3.0)
        x.requires_grad_()
        output, expected = compiled(x, mask), plain(x, mask)
        assert_close(output, expected)
        totals = [each.quantized.sin().sum() + each.loss for each in (output, expected)]
        assert_close(gradients(quantizer, x, totals[0]), gradients(plain, x, totals[1]))
    assert_close(quantizer.state_dict().values(), plain.state_dict().values())
    torch.compiler.reset()


def test_bad_input(make):
    quantizer = make(channel_dim=1)
    before = copy.deepcopy(quantizer.state_dict())
    with pytest.raises(ValueError, match=r"^x must have size dim = 6 along channel_dim = 1, got shape \(3, 5, 6\)$"):
        quantizer(torch.randn(3, 5, 6))
    with pytest.raises(ValueError, match=r"^mask must have x's shape without channels, \(3, 5\), got \(3, 6\)$"):
        quantizer(torch.randn(3, 6, 5), torch.ones(3, 6, dtype=torch.bool))
    with pytest.raises(TypeError, match=r"^x must be a floating-point tensor, got torch.int64$"):
        quantizer.encode(torch.ones(3, 6, 5, dtype=torch.int64))
    with pytest.raises(ValueError, match=r"^x must be finite, got NaN or infinity among its values$"):
        quantizer.encode(torch.full((3, 6, 5), torch.nan))
    assert all(torch.equal(value, before[name]) for name, value in quantizer.state_dict().items())


@pytest.mark.parametrize(
    ("act", "sentence"),
    [
        (lambda: Projected(vq(), 0), "dim must be a whole number ≥ 1, got 0"),
        (lambda: Grouped([]), "quantizers must share one channel_dim and one index_shape, got []"),
        (
            lambda: Grouped([vq(), vq(channel_dim=1)]),
            "quantizers must share one channel_dim and one index_shape, got [(-1, ()), (1, ())]",
        ),
        (
            lambda: Grouped([vq(), Projected(rvq(), 6)]),
            "quantizers must share one channel_dim and one index_shape, got [(-1, ()), (-1, (3,))]",
        ),
        (
            lambda: Grouped([rvq(), rvq()]).decode(torch.zeros(5, 3, 3, dtype=torch.int64)),
            "indices must end in index_shape = (2, 3), got shape (5, 3, 3)",
        ),
        (
            lambda: Grouped([rvq(), rvq()]).decode(torch.zeros(2, dtype=torch.int64)),
            "indices must end in index_shape = (2, 3), got shape (2,)",
        ),
    ],
)
def test_sentences(act, sentence):
    with pytest.raises(ValueError) as info:
        act()
    assert str(info.value) == sentence


def test_the_processes_of_what_lies_inside_can_be_named():
    """A group that this process is not in is told by nothing but its name."""
    group = object()
    inside = [VectorQuantizer(3, 4), VectorQuantizer(3, 4)]
    quantizer = Projected(Grouped(inside), 8)
    quantizer.process_group = group
    assert all(each.process_group is group for each in (*inside, quantizer.quantizer, quantizer))


def test_copies_share_their_processes_and_files_hold_none():
    group, quantizer = object(), Projected(ResidualVectorQuantizer(3, 4, 2), 8)
    quantizer.process_group = group
    assert copy.deepcopy(quantizer).process_group is group
    assert pickle.loads(pickle.dumps(quantizer)).process_group is None
