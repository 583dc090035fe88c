"""Scalar quantizers against their definitions, digit by digit, and against vector-quantize-pytorch's FSQ and LFQ."""

import copy
import itertools
import math
import pickle

import pytest
import torch
from vector_quantize_pytorch import FSQ, LFQ, ResidualFSQ

from rvq_tutorial import FiniteScalarQuantizer, ResidualFiniteScalarQuantizer, entropy_loss

DTYPES = [torch.float32, torch.float64, torch.bfloat16, torch.float16]
LEVELS = [[8, 5, 4, 3], [5, 7, 3, 9], [2, 2, 2, 2], [2, 3, 4, 1001]]
INTEGERS = [torch.uint8, torch.uint16, torch.int8, torch.int32, torch.int64]


def fsq(levels=(8, 5, 4, 3), **settings):
    return FiniteScalarQuantizer(levels, **settings)


def symmetric(levels=(8, 5, 4, 3), **settings):
    return FiniteScalarQuantizer(levels, symmetric=True, **settings)


def residual(levels=(8, 5, 4, 3), num_quantizers=3, **settings):
    return ResidualFiniteScalarQuantizer(levels, num_quantizers, **settings)


MAKERS = [fsq, symmetric, residual]


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def grid(level, is_symmetric):
    """The levels of one channel, written out."""
    if is_symmetric or level == 2 or level % 2 == 1:
        return torch.linspace(-1, 1, level, dtype=torch.float64)
    return torch.arange(-level // 2, level // 2) / torch.tensor(level // 2, dtype=torch.float64)


def bounded(x, level, is_symmetric):
    """tanh, stretched over the grid's range and shifted so that 0 stays 0."""
    low, high = grid(level, is_symmetric)[[0, -1]]
    middle, half = (low + high) / 2, (high - low) / 2
    return middle + half * torch.tanh(x.double() + torch.atanh(-middle / half))


# --- the definition ---


@pytest.mark.parametrize("make", [fsq, symmetric])
@pytest.mark.parametrize("levels", LEVELS)
@pytest.mark.parametrize("spread", [0.1, 1, 10])
def test_the_nearest_level_of_the_bounded_value(make, levels, spread):
    """Found by trying all. Where two are equally near, to float32's precision, either will do."""
    quantizer, x = make(levels), spread * torch.randn(2000, 4)
    quantized = quantizer(x).quantized.double()
    for channel, level in enumerate(levels):
        value = bounded(x[:, channel], level, make is symmetric)
        errors = (value.unsqueeze(-1) - grid(level, make is symmetric)).abs()
        found = (quantized[:, channel, None] - grid(level, make is symmetric)).abs()
        assert found.amin(-1).max() < 1e-6
        chosen = errors.gather(-1, found.argmin(-1, keepdim=True)).squeeze(-1)
        torch.testing.assert_close(chosen, errors.amin(-1), atol=1e-6, rtol=0)


@pytest.mark.parametrize("make", [fsq, symmetric])
def test_an_index_is_a_number_whose_digits_are_the_levels(make):
    """The first channel's runs fastest."""
    two, three, four = (grid(level, make is symmetric).tolist() for level in (2, 3, 4))
    expected = torch.tensor([[k, j, i] for i, j, k in itertools.product(two, three, four)])
    torch.testing.assert_close(make([4, 3, 2]).decode(torch.arange(24)), expected)


@pytest.mark.parametrize("make", MAKERS)
def test_every_index_is_reached(make):
    """From far out, where tanh is 1 to the last bit, to the levels in the middle."""
    levels = (8, 5, 2)
    quantizer = make(levels, 2) if make is residual else make(levels)
    line = torch.cat([torch.tensor([-1e30, 1e30]), torch.linspace(-0.9999, 0.9999, 500).atanh()])
    for channel, level in enumerate(levels):
        x = torch.zeros(len(line), 3)
        x[:, channel] = line
        indices = quantizer.encode(x)
        assert len(indices.unique(dim=0)) == (level**2 if make is residual else level)


def test_zero_stays_zero():
    assert not fsq([3, 4, 8, 1000])(torch.zeros(4)).quantized.any()


def test_levels_are_symmetric_on_request():
    x = torch.randn(1000, 4)
    for make in (symmetric, residual):
        assert torch.equal(make()(-x).quantized, -make()(x).quantized)
    assert not torch.equal(fsq()(-x).quantized, -fsq()(x).quantized)


def test_a_thousand_levels_in_each_of_six_channels():
    """float32 can't count so far, and rounding errors of a bound wider than the levels would leave them."""
    quantizer = fsq([1001] * 6)
    x = 100 * torch.randn(1000, 6)
    output = quantizer(x)
    assert output.indices.max() > 2**55 and output.quantized.abs().max() == 1
    assert torch.equal(quantizer.decode(output.indices), output.quantized)


def test_bits_and_sizes():
    assert fsq([8, 5, 5, 5]).codebook_size == 1000 and fsq([8, 5, 5, 5]).dim == 4
    assert fsq([8, 8]).bits == 6
    assert residual([8, 8], 3).codebook_size == 64
    assert residual([8, 8], 3).bits == 18


# --- against vector-quantize-pytorch ---


def agreement(ours, theirs):
    return (ours == theirs).all(-1).float().mean().item()


@pytest.mark.parametrize("levels", [[8, 5, 5, 5], [4, 3, 7], [8, 8, 8]])
def test_fsq_of_vector_quantize_pytorch(levels):
    """Theirs stretches the bound by a thousandth, so that a few vectors between two levels go the other way."""
    x = torch.randn(1, 5000, len(levels))
    theirs = FSQ(levels)
    quantized, indices = theirs(x)
    output = fsq(levels)(x)
    assert torch.equal(fsq(levels).decode(indices), theirs.indices_to_codes(indices))
    assert agreement(output.quantized, quantized) > 0.99
    torch.testing.assert_close(theirs.bound(x, eps=0), output.quantized)


def test_symmetric_fsq_of_vector_quantize_pytorch():
    x = torch.randn(1, 5000, 3)
    quantized, indices = FSQ([8, 5, 4], preserve_symmetry=True)(x)
    torch.testing.assert_close(symmetric([8, 5, 4])(x).quantized, quantized)
    assert torch.equal(symmetric([8, 5, 4]).encode(x), indices.long())


def test_lfq_of_vector_quantize_pytorch():
    """Its index is read the other way round: the paper's, like ours, counts 2^0 for the first channel."""
    x = torch.randn(1, 5000, 6)
    quantized, indices, _ = LFQ(dim=6).eval()(x)
    output = fsq([2] * 6)(x)
    assert torch.equal(output.quantized, quantized)
    assert torch.equal(fsq([2] * 6).encode(x.flip(-1)), indices.long())


@pytest.mark.parametrize("levels", [[8, 5, 4], [2, 2], [3]])
def test_residual_fsq_of_vector_quantize_pytorch(levels):
    """The same cells; theirs reach from −L/(L − 1) to L/(L − 1)."""
    scale = torch.tensor([level / (level - 1) for level in levels])
    x = torch.randn(1, 5000, len(levels))
    quantized, indices = ResidualFSQ(levels=levels, num_quantizers=3)(x * scale)
    output = residual(levels)(x)
    assert agreement(output.indices, indices) > 0.999
    same = (output.indices == indices).all(-1)
    torch.testing.assert_close(output.quantized[same], (quantized / scale)[same])


# --- gradients and types ---


@pytest.mark.parametrize("make", MAKERS)
def test_the_gradient_is_that_of_the_bounded_value(make):
    x = torch.randn(20, 4, dtype=torch.float64, requires_grad=True)
    weights = torch.randn(20, 4, dtype=torch.float64)
    (make()(x).quantized * weights).sum().backward()
    y = x.detach().requires_grad_()
    value = torch.stack([bounded(y[:, c], n, make is not fsq) for c, n in enumerate((8, 5, 4, 3))], -1)
    (value * weights).sum().backward()
    torch.testing.assert_close(x.grad, y.grad, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("make", MAKERS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("training", [True, False])
def test_decoding_what_was_encoded_is_the_output_bit_for_bit(make, dtype, training):
    quantizer, x = make().train(training), torch.randn(2, 50, 4).to(dtype)
    output = quantizer(x)
    assert output.quantized.dtype == dtype and output.indices.dtype == torch.int64
    assert torch.equal(quantizer.encode(x), output.indices)
    assert torch.equal(quantizer.decode(output.indices).to(dtype), output.quantized)


@pytest.mark.parametrize("make", MAKERS)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_changes_no_index(make, dtype):
    """Neither of x, nor of the module, nor of what is computed under autocast."""
    levels = [1001, 300, 8, 3]
    quantizer, x = make(levels), torch.randn(500, 4).to(dtype)
    expected = quantizer(x.float())
    half = copy.deepcopy(quantizer).to(dtype)
    with torch.autocast("cpu", dtype):
        for output in (quantizer(x), half(x), half(x.float())):
            assert torch.equal(output.indices, expected.indices)
            assert torch.equal(output.quantized, expected.quantized.to(output.quantized.dtype))
        assert torch.equal(half.decode(expected.indices), expected.quantized)


@pytest.mark.parametrize("make", MAKERS)
def test_losses_are_zero_and_may_be_added(make):
    x = torch.randn(5, 4, requires_grad=True)
    output = make()(x.bfloat16())
    for loss in (output.codebook_loss, output.commitment_loss, output.loss):
        assert loss == 0 and loss.shape == () and loss.dtype == torch.float32
    (output.quantized.float().square().sum() + output.loss).backward()
    assert x.grad.isfinite().all() and x.grad.any()


@pytest.mark.parametrize("make", MAKERS)
def test_nothing_to_learn_and_nothing_to_store(make):
    quantizer = make()
    assert not list(quantizer.parameters()) and not quantizer.state_dict()
    again = pickle.loads(pickle.dumps(quantizer))
    x = torch.randn(50, 4)
    assert torch.equal(again(x).quantized, quantizer(x).quantized)


# --- stages ---


@pytest.mark.parametrize("levels", LEVELS[:3])
@pytest.mark.parametrize("spread", [0.3, 1, 4])
def test_each_stage_divides_the_cell_also_near_the_border(levels, spread):
    """With spread 4, half of all values lie within 0.01 of −1 or 1."""
    quantizer, x = residual(levels, 4), spread * torch.randn(5000, 4)
    for m in range(1, 5):
        error = (quantizer(x, num_quantizers=m).quantized - x.tanh()).abs() * torch.tensor(levels) ** m
        assert (error.amax(0) > 0.95).all() and (error.amax(0) < 1.001).all()


def test_stages_are_the_digits_of_a_number():
    """floor(L^M (tanh x + 1) / 2) in base L, the highest digit first."""
    x = torch.randn(5000, 1)
    number = ((x.double().tanh() + 1) / 2 * 5**4).floor().long()
    expected = torch.stack([number // 5 ** (3 - m) % 5 for m in range(4)], -1).squeeze(1)
    assert agreement(residual([5], 4).encode(x), expected) > 0.999


def test_a_prefix_is_what_fewer_stages_choose():
    quantizer, x = residual(num_quantizers=4), torch.randn(2, 50, 4)
    indices = quantizer.encode(x)
    for m in range(1, 5):
        output = quantizer(x, num_quantizers=m)
        assert torch.equal(output.indices, indices[..., :m])
        assert torch.equal(quantizer.encode(x, num_quantizers=m), indices[..., :m])
        assert torch.equal(quantizer.decode(indices[..., :m]), output.quantized)
        skipped = torch.cat([indices[..., :m], torch.full((2, 50, 4 - m), -1)], -1)
        assert torch.equal(quantizer.decode(skipped), output.quantized)


def test_more_stages_than_float32_resolves_do_no_harm():
    quantizer, x = residual([2, 8, 5], 200), torch.randn(100, 3)
    assert (quantizer(x).quantized - x.tanh()).abs().max() < 1e-6


def test_the_error_of_each_stage():
    x, mask = torch.randn(30, 4, requires_grad=True), torch.rand(30) < 0.5
    for quantizer, bound in ((symmetric(), 1), (residual(), 3)):
        output = quantizer(x, mask)
        assert output.stage_losses.shape == (bound,) and not output.stage_losses.requires_grad
        for m in range(bound):
            kept = output.indices[..., : m + 1] if bound > 1 else output.indices
            expected = (quantizer.decode(kept) - x.detach().tanh())[mask].square().mean()
            torch.testing.assert_close(output.stage_losses[m], expected)


# --- layouts, masks, and batches of nothing ---


@pytest.mark.parametrize("make", MAKERS)
@pytest.mark.parametrize(("shape", "channel_dim"), [((2, 4, 3, 5), 1), ((4,), -1), ((2, 7, 4), 2), ((4, 6), 0)])
def test_every_vector_lies_along_the_channel_dim(make, shape, channel_dim):
    x = torch.randn(shape)
    quantizer, rows = make(channel_dim=channel_dim), make()
    output, expected = quantizer(x), rows(x.movedim(channel_dim, -1))
    assert output.quantized.shape == shape
    assert torch.equal(output.indices, expected.indices)
    assert torch.equal(output.quantized.movedim(channel_dim, -1), expected.quantized)
    assert torch.equal(quantizer.decode(output.indices), output.quantized)


@pytest.mark.parametrize("make", MAKERS)
@pytest.mark.parametrize("kept", [0.6, 0, 1])
def test_padding(make, kept):
    """It may hold anything, NaN too."""
    quantizer, mask = make(channel_dim=1).eval(), torch.rand(3, 10) < kept
    x = torch.randn(3, 4, 10).masked_fill(~mask.unsqueeze(1), math.nan).requires_grad_()
    output = quantizer(x, mask)
    real = quantizer(x.nan_to_num())
    assert torch.equal(output.indices[mask], real.indices[mask]) and (output.indices[~mask] == -1).all()
    assert torch.equal(output.quantized, real.quantized * mask.unsqueeze(1))
    assert torch.equal(quantizer.decode(output.indices), output.quantized)
    output.quantized.sum().backward()
    assert (x.grad.movedim(1, -1)[mask] > 0).all() and not x.grad.movedim(1, -1)[~mask].any()


@pytest.mark.parametrize("make", MAKERS)
@pytest.mark.parametrize("shape", [(0, 4), (0, 5, 4), (3, 0, 4)])
def test_no_vectors_pass_through(make, shape):
    quantizer, x = make(), torch.randn(shape, requires_grad=True)
    output = quantizer(x)
    assert output.quantized.shape == shape and output.loss == 0 and not output.stage_losses.any()
    assert output.indices.shape == shape[:-1] + ((3,) if make is residual else ())
    (output.quantized.sum() + output.loss).backward()
    assert torch.equal(quantizer.encode(x), output.indices)
    assert quantizer.decode(output.indices).shape == shape


@pytest.mark.parametrize("make", MAKERS)
def test_nan_comes_out_where_it_came_in_when_training(make):
    x = torch.randn(50, 4)
    x[7, 0] = math.nan
    x.requires_grad_()
    quantizer = make()
    output = quantizer(x)
    assert torch.equal(output.quantized.isnan(), x.isnan())
    assert output.indices.min() >= 0 and output.indices.max() < quantizer.codebook_size
    output.quantized.sum().backward()
    assert x.grad[7, 0].isnan() and x.grad.isnan().sum() == 1


# --- compiled and exported ---


class Call(torch.nn.Module):
    def __init__(self, module, method):
        super().__init__()
        self.module = module
        self.method = method

    def forward(self, argument):
        return getattr(self.module, self.method)(argument)


@pytest.mark.parametrize("make", MAKERS)
def test_compiled_forward(make):
    plain = make()
    compiled = torch.compile(copy.deepcopy(plain), fullgraph=True, backend="aot_eager")
    for batch in (50, 30, 0):
        x, mask = torch.randn(batch, 4), torch.rand(batch) < 0.7
        for module in (plain, compiled):
            inputs = x.clone().requires_grad_()
            output = module(inputs, mask)
            (gradient,) = torch.autograd.grad(output.quantized.sin().sum(), inputs)
            if module is plain:
                expected = (*output, gradient)
        for a, b in zip((*output, gradient), expected, strict=True):
            torch.testing.assert_close(a, b)
    torch.compiler.reset()


@pytest.mark.parametrize("make", MAKERS)
def test_exported_encode_and_decode(make, tmp_path):
    """For any batch size, and after a trip over the disk."""
    quantizer, batch, x = make(), torch.export.Dim("batch", min=2), torch.randn(7, 4)
    indices = quantizer.encode(x)
    for method, example, argument in [("encode", torch.randn(5, 4), x), ("decode", indices[:5], indices)]:
        program = torch.export.export(Call(quantizer, method), (example,), dynamic_shapes=({0: batch},))
        torch.export.save(program, tmp_path / f"{method}.pt2")
        loaded = torch.export.load(tmp_path / f"{method}.pt2").module()
        assert torch.equal(loaded(argument), getattr(quantizer, method)(argument))


# --- the entropy of signs ---


@pytest.mark.parametrize("temperature", [0.01, 1.5])
def test_entropy_loss_is_that_of_vector_quantize_pytorch(temperature):
    """Theirs holds logarithms off −∞ by a hundred-thousandth."""
    x = torch.randn(2, 500, 4)
    _, terms = LFQ(dim=4)(x, inv_temperature=1 / temperature, return_loss_breakdown=True)
    expected = terms.per_sample_entropy - terms.batch_entropy
    torch.testing.assert_close(entropy_loss(x, temperature), expected, atol=1e-3, rtol=0)


def test_entropy_loss_wants_sure_choices_all_as_frequent():
    signs = fsq([2] * 4).decode(torch.arange(16)).repeat(10, 1)
    assert entropy_loss(signs).item() == pytest.approx(-4 * math.log(2))
    assert entropy_loss(signs[:, :1].expand(-1, 4)).item() == pytest.approx(-math.log(2))  # four copies of a bit
    assert entropy_loss(signs.abs()).item() == pytest.approx(0, abs=1e-6)
    assert entropy_loss(0 * signs).item() == pytest.approx(0, abs=1e-5)


@pytest.mark.parametrize("x", [torch.full((50, 4), 9.0), torch.zeros(50, 4), torch.randn(0, 4), torch.randn(4)])
def test_entropy_loss_has_finite_gradients(x):
    x.requires_grad_()
    loss = entropy_loss(x)
    loss.backward()
    assert loss.isfinite() and x.grad.isfinite().all()


# --- bad input ---

BAD_LEVELS = [
    ([], "levels must be a list with a whole number ≥ 2 for each channel, got []"),
    (8, "levels must be a list with a whole number ≥ 2 for each channel, got 8"),
    ("85", "levels must be a list with a whole number ≥ 2 for each channel, got '85'"),
    ([8, 1], "each of levels must be a whole number ≥ 2, got 1"),
    ([8, 2.5], "each of levels must be a whole number ≥ 2, got 2.5"),
    ([2] * 63, f"levels must have a product below 2^63, for an index to hold it, got {[2] * 63}"),
]


@pytest.mark.parametrize(("levels", "sentence"), BAD_LEVELS)
@pytest.mark.parametrize("make", MAKERS)
def test_bad_levels(make, levels, sentence):
    with pytest.raises(ValueError) as info:
        make(levels)
    assert str(info.value) == sentence


@pytest.mark.parametrize("make", MAKERS)
@pytest.mark.parametrize(
    ("x", "error", "sentence"),
    [
        (None, TypeError, "x must be a torch.Tensor, got NoneType"),
        (torch.ones(5, 4).long(), TypeError, "x must be a floating-point tensor, got torch.int64"),
        (torch.ones(5, 3), ValueError, "x must have size dim = 4 along channel_dim = -1, got shape (5, 3)"),
        (torch.full((5, 4), math.nan), ValueError, "x must be finite, got NaN or infinity among its values"),
        (torch.full((5, 4), math.inf), ValueError, "x must be finite, got NaN or infinity among its values"),
    ],
)
def test_bad_vectors(make, x, error, sentence):
    for call in (make().eval(), make().encode):
        with pytest.raises(error) as info:
            call(x)
        assert str(info.value) == sentence


@pytest.mark.parametrize("make", MAKERS)
def test_bad_indices(make):
    quantizer = make()
    for bad, error, sentence in [
        (None, TypeError, "indices must be a torch.Tensor, got NoneType"),
        (torch.ones(5, 3), TypeError, "indices must be an integer tensor, got torch.float32"),
        (torch.tensor([0, 480]), ValueError, "indices must lie between -1 and 479, got 0 to 480"),
        (torch.tensor([-2, 3]), ValueError, "indices must lie between -1 and 479, got -2 to 3"),
    ]:
        with pytest.raises(error) as info:
            quantizer.decode(bad)
        assert str(info.value) == sentence


@pytest.mark.parametrize("make", MAKERS)
@pytest.mark.parametrize("dtype", INTEGERS)
def test_decode_takes_the_integers_that_indices_are_stored_in(make, dtype):
    indices = torch.randint(100, (5, 3))
    assert torch.equal(make().decode(indices.to(dtype)), make().decode(indices))


@pytest.mark.parametrize("shape", [(2, 4), (5,), (), (2, 0)])
def test_more_stages_to_decode_than_there_are(shape):
    with pytest.raises(ValueError) as info:
        residual().decode(torch.zeros(shape, dtype=torch.int64))
    assert str(info.value) == f"indices must have 1 to 3 stages along the last axis, got shape {shape}"


@pytest.mark.parametrize("wrong", [0, 4, 1.5])
def test_more_quantizers_than_there_are(wrong):
    for call in (residual(), residual().encode):
        with pytest.raises(ValueError) as info:
            call(torch.ones(5, 4), num_quantizers=wrong)
        assert str(info.value) == f"num_quantizers must be a whole number from 1 to 3, got {wrong}"
    with pytest.raises(ValueError) as info:
        residual(num_quantizers=0)
    assert str(info.value) == "num_quantizers must be a whole number ≥ 1, got 0"


def test_what_it_is_can_be_read():
    assert "levels=[8, 5], symmetric=False, channel_dim=1" in repr(fsq([8, 5], channel_dim=1))
    assert "num_quantizers=3" in repr(residual())
