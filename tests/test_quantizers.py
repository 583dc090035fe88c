import copy
import math
import pickle
import warnings

import faiss
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.checkpoint import checkpoint

from rvq_tutorial import ResidualVectorQuantizer, VectorQuantizer, kmeans, metrics, nearest, straight_through

STAGES = [1, 2, 3, 8]
DTYPES = [torch.float32, torch.float64, torch.bfloat16, torch.float16]


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def vq(**settings):
    return VectorQuantizer(4, 8, **settings)


def rvq(num_quantizers=3, **settings):
    return ResidualVectorQuantizer(4, 8, num_quantizers, **settings)


def fitted(quantizer, num=500):
    return quantizer.fit(torch.randn(num, quantizer.dim))


def state(module):
    return copy.deepcopy(module.state_dict())


def assert_same_state(module, before):
    after = module.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(after[name], before[name]) for name in before)


def mean_error(quantizer, x, **search):
    return (quantizer.decode(quantizer.encode(x, **search)) - x).square().mean().item()


# --- shapes and results ---


@pytest.mark.parametrize(
    ("shape", "channel_dim"),
    [((1, 64, 8, 8), 1), ((3, 64), -1), ((64,), -1), ((2, 5, 64), 2), ((2, 64, 7), -2), ((64, 6), 0)],
)
def test_shapes(shape, channel_dim):
    """Two quantizers of 16 codewords on 64 channels: what readers of older code know."""
    x = torch.randn(shape)
    without = tuple(x.select(channel_dim, 0).shape)
    one = VectorQuantizer(64, 16, channel_dim=channel_dim)(x)
    two = ResidualVectorQuantizer(64, 16, 2, channel_dim=channel_dim)(x)
    assert one.quantized.shape == two.quantized.shape == shape
    assert one.indices.shape == without
    assert two.indices.shape == (*without, 2)
    for output in (one, two):
        assert output.indices.dtype == torch.int64
        assert output.codebook_loss.shape == output.commitment_loss.shape == output.loss.shape == ()


def test_every_vector_lies_along_the_channel_dim():
    x = torch.randn(2, 4, 3, 5)
    images, rows = vq(channel_dim=1).eval(), vq().eval()
    images.load_state_dict(rows.state_dict())
    expected = rows(x.permute(0, 2, 3, 1).reshape(-1, 4))
    output = images(x)
    assert torch.equal(output.indices.flatten(), expected.indices)
    assert torch.equal(output.quantized.permute(0, 2, 3, 1).reshape(-1, 4), expected.quantized)


def test_the_quantized_vector_is_the_nearest_codeword():
    quantizer, x = vq().eval(), torch.randn(50, 4)
    output = quantizer(x)
    assert torch.equal(output.indices, nearest(x, quantizer.codebook))
    assert torch.equal(output.quantized, quantizer.codebook[output.indices])


def test_each_stage_quantizes_what_is_left():
    quantizer, x = rvq().eval(), torch.randn(50, 4)
    residual = x
    for codebook, index in zip(quantizer.codebooks, quantizer.encode(x).unbind(-1), strict=True):
        assert torch.equal(index, nearest(residual, codebook))
        residual = residual - codebook[index]
    torch.testing.assert_close(x - quantizer(x).quantized, residual)


def test_one_stage_is_a_vector_quantizer():
    one, residual = vq(), rvq(1)
    residual.load_state_dict(one.state_dict())
    for _ in range(20):
        x = torch.randn(64, 4)
        for a, b in zip(one(x), residual(x), strict=True):
            torch.testing.assert_close(a, b.view_as(a))
    for name, value in one.state_dict().items():
        torch.testing.assert_close(residual.state_dict()[name], value)


def test_bits():
    assert VectorQuantizer(4, 256).bits == 8
    assert ResidualVectorQuantizer(4, 1024, 8).bits == 80
    assert VectorQuantizer(4, 1).bits == 0


def test_greedy_indices_equal_those_of_faiss():
    """Same codebooks, beam of 1: every code is the same but where two codewords are equally near."""
    quantizer = ResidualVectorQuantizer(8, 16, 4).eval().fit(torch.randn(2000, 8))
    theirs = faiss.ResidualQuantizer(8, 4, 4)  # dim, stages, bits a stage
    theirs.train_type = faiss.ResidualQuantizer.Skip_codebook_tables
    theirs.max_beam_size = 1
    theirs.train(torch.randn(600, 8).numpy())
    faiss.copy_array_to_vector(quantizer.codebooks.numpy().ravel(), theirs.codebooks)
    theirs.is_trained = True

    x = torch.randn(1000, 8)
    packed = torch.from_numpy(theirs.compute_codes(x.numpy())).int()  # 4 bits a stage, the lowest bits first
    expected = torch.stack([packed[:, 0] & 15, packed[:, 0] >> 4, packed[:, 1] & 15, packed[:, 1] >> 4], -1)
    assert (quantizer.encode(x) == expected).all(1).float().mean() > 0.995


# --- gradients ---


def test_straight_through_has_one_value_and_another_gradient():
    x, quantized = torch.randn(5, requires_grad=True), torch.randn(5, requires_grad=True)
    output = straight_through(x, quantized)
    assert torch.equal(output, quantized)
    output.backward(torch.arange(5.0))
    assert torch.equal(x.grad, torch.arange(5.0))
    assert quantized.grad is None


@pytest.mark.parametrize("codebook_update", ["ema", "gradient"])
@pytest.mark.parametrize("quantize_dropout", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("num_quantizers", STAGES)
def test_jacobian_from_input_to_output_is_the_identity(num_quantizers, quantize_dropout, codebook_update):
    quantizer = rvq(num_quantizers, quantize_dropout=quantize_dropout, codebook_update=codebook_update)
    x = torch.randn(3, 4)
    jacobian = torch.autograd.functional.jacobian(lambda x: quantizer(x).quantized.flatten(), x)
    assert torch.equal(jacobian.view(12, 12), torch.eye(12))


def test_jacobian_of_one_quantizer_is_the_identity():
    jacobian = torch.autograd.functional.jacobian(lambda x: vq()(x).quantized.flatten(), torch.randn(3, 4))
    assert torch.equal(jacobian.view(12, 12), torch.eye(12))


def textbook_losses(x, codebooks, indices):
    """Codebook and commitment loss of all stages, as the papers write them, by plain autograd on (N, dim).

    Stage m: ‖sg(x − partial sum before) − codeword‖² and ‖x − sg(partial sum before) − sg(codeword)‖², where used.
    """
    before = torch.zeros_like(x)
    codebook_terms, commitment_terms = [], []
    for codebook, index in zip(codebooks, indices.unbind(-1), strict=False):
        used = index >= 0
        chosen = codebook[index[used]]
        residual = x[used] - before[used]
        codebook_terms.append((residual.detach() - chosen).square())
        commitment_terms.append((residual - chosen.detach()).square())
        before = before.index_add(0, used.nonzero()[:, 0], chosen.detach())
    return torch.cat(codebook_terms).mean(), torch.cat(commitment_terms).mean()


@pytest.mark.parametrize("codebook_update", ["ema", "gradient"])
@pytest.mark.parametrize("quantize_dropout", [0.0, 0.7])
@pytest.mark.parametrize("num_quantizers", STAGES)
def test_losses_and_their_gradients_are_those_of_the_textbook(num_quantizers, quantize_dropout, codebook_update):
    quantizer = rvq(
        num_quantizers,
        quantize_dropout=quantize_dropout,
        codebook_update=codebook_update,
        commitment_weight=0.4,
        dead_code_threshold=0,
    )
    codebooks = quantizer.codebooks.detach().clone().requires_grad_()
    x = torch.randn(40, 4, requires_grad=True)
    output = quantizer(x)
    codebook_loss, commitment_loss = textbook_losses(x, codebooks, output.indices)

    torch.testing.assert_close(output.commitment_loss, commitment_loss)
    expected = torch.autograd.grad(commitment_loss, x)[0]
    torch.testing.assert_close(torch.autograd.grad(output.commitment_loss, x, retain_graph=True)[0], expected)

    total = torch.autograd.grad(output.loss, [x, *quantizer.parameters()])
    torch.testing.assert_close(total[0], 0.4 * expected)
    if codebook_update == "gradient":
        torch.testing.assert_close(output.codebook_loss, codebook_loss)
        torch.testing.assert_close(torch.stack(total[1:]), torch.autograd.grad(codebook_loss, codebooks)[0])
        torch.testing.assert_close(output.loss, codebook_loss + 0.4 * commitment_loss)
    else:
        assert output.codebook_loss == 0
        torch.testing.assert_close(output.loss, 0.4 * commitment_loss)


@pytest.mark.parametrize("codebook_update", ["ema", "gradient"])
def test_losses_of_one_quantizer_are_those_of_the_textbook(codebook_update):
    quantizer = vq(codebook_update=codebook_update, dead_code_threshold=0)
    codebook = quantizer.codebook.detach().clone().requires_grad_()
    x = torch.randn(40, 4, requires_grad=True)
    output = quantizer(x)
    codebook_loss, commitment_loss = textbook_losses(x, [codebook], output.indices[:, None])
    torch.testing.assert_close(output.commitment_loss, commitment_loss)
    gradient = torch.autograd.grad(output.loss, [x, *quantizer.parameters()])
    torch.testing.assert_close(gradient[0], torch.autograd.grad(0.25 * commitment_loss, x)[0])
    if codebook_update == "gradient":
        torch.testing.assert_close(gradient[1], torch.autograd.grad(codebook_loss, codebook)[0])


@pytest.mark.parametrize("num_quantizers", STAGES)
def test_every_stage_has_a_commitment_gradient(num_quantizers):
    """The mean over m stages, times m, is their sum: what stage m adds to its gradient is 2/(N dim) times rₘ₊₁."""
    quantizer, x = fitted(rvq(num_quantizers)).eval(), torch.randn(20, 4, requires_grad=True)
    before = torch.zeros_like(x)
    for m in range(1, num_quantizers + 1):
        output = quantizer(x, num_quantizers=m)
        gradient = torch.autograd.grad(m * output.commitment_loss, x)[0]
        residual = (x - output.quantized).detach()
        torch.testing.assert_close(gradient - before, 2 * residual / x.numel(), atol=1e-6, rtol=1e-4)
        assert (gradient - before).abs().max() > 1e-4
        before = gradient


@pytest.mark.parametrize("codebook_update", ["ema", "gradient"])
@pytest.mark.parametrize("quantize_dropout", [0.0, 0.7])
@pytest.mark.parametrize("num_quantizers", STAGES)
def test_second_derivatives_are_those_of_the_textbook(num_quantizers, quantize_dropout, codebook_update):
    """A gradient penalty, say, differentiates a gradient once more."""
    settings = {"quantize_dropout": quantize_dropout, "codebook_update": codebook_update, "dead_code_threshold": 0}
    quantizer = rvq(num_quantizers, **settings).double()
    codebooks, x = quantizer.codebooks.detach().clone(), torch.randn(20, 4, dtype=torch.float64, requires_grad=True)
    output = quantizer(x)
    _, commitment_loss = textbook_losses(x, codebooks, output.indices)

    def penalty(loss):
        (gradient,) = torch.autograd.grad(loss, x, create_graph=True)
        return torch.autograd.grad(gradient.norm() + gradient.pow(3).sum(), x)[0]

    torch.testing.assert_close(penalty(output.commitment_loss), penalty(commitment_loss))


@pytest.mark.parametrize("make", [vq, rvq])
def test_derivatives_agree_with_differences(make):
    quantizer, x = make().double().eval(), torch.randn(6, 4, dtype=torch.float64, requires_grad=True)

    def commitment_loss(x):
        return quantizer(x).commitment_loss

    if make is vq:  # in several stages the value counts later residuals' movement, the gradient by design does not
        assert torch.autograd.gradcheck(commitment_loss, x)
    assert torch.autograd.gradgradcheck(commitment_loss, x)


@pytest.mark.parametrize("make", [vq, lambda **settings: rvq(1, **settings)])
def test_second_derivatives_of_the_codebook_loss(make):
    """Also where a vector lies on its codeword: the second derivative of a square is 2, not NaN."""
    quantizer = make(codebook_update="gradient").eval()
    (codebook,) = quantizer.parameters()
    loss = quantizer(codebook.detach().clone()).codebook_loss
    (gradient,) = torch.autograd.grad(loss, codebook, create_graph=True)
    (second,) = torch.autograd.grad(gradient.sum(), codebook)
    torch.testing.assert_close(second, torch.full_like(second, 2 / codebook.numel()))


@pytest.mark.parametrize("make", [vq, rvq])
def test_no_reconstruction_gradient_reaches_a_codebook(make):
    quantizer = make(codebook_update="gradient")
    x = torch.randn(40, 4, requires_grad=True)
    output = quantizer(x)
    reconstruction = F.mse_loss(output.quantized, torch.randn(40, 4))
    gradient = torch.autograd.grad(reconstruction, list(quantizer.parameters()), retain_graph=True, allow_unused=True)
    assert all(g is None or not g.any() for g in gradient)
    both = torch.autograd.grad(reconstruction + output.loss, list(quantizer.parameters()), retain_graph=True)
    alone = torch.autograd.grad(output.codebook_loss, list(quantizer.parameters()))
    assert all(map(torch.equal, both, alone))
    assert all(g.any() for g in alone)


@pytest.mark.parametrize("make", [vq, rvq])
def test_ema_mode_has_nothing_for_an_optimizer(make):
    assert not list(make().parameters())
    assert make(codebook_update="gradient")(torch.randn(9, 4)).codebook_loss.requires_grad


@pytest.mark.parametrize("make", [vq, rvq])
@pytest.mark.parametrize("codebook_update", ["ema", "gradient"])
def test_training_lowers_the_error(make, codebook_update):
    x = torch.randn(2000, 4)
    quantizer = make(codebook_update=codebook_update, decay=0.9)
    quantizer(x)  # before anything was learned, nearly every codeword restarts at one of these vectors
    first = mean_error(quantizer, x)
    if codebook_update == "gradient":
        optimizer = torch.optim.Adam(quantizer.parameters(), lr=0.02)
    for _ in range(60):
        loss = quantizer(x[torch.randint(len(x), (256,))]).loss
        if codebook_update == "gradient":
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    assert mean_error(quantizer, x) < 0.9 * first


# --- round trips ---


@settings(max_examples=60, deadline=None)
@given(data=st.data(), seed=st.integers(0, 2**20))
def test_decoding_what_was_encoded_is_the_eval_output_bit_for_bit(data, seed):
    torch.manual_seed(seed)
    dim = data.draw(st.integers(1, 6), "dim")
    codebook_size = data.draw(st.sampled_from([1, 2, 7, 300]), "codebook_size")
    num_quantizers = data.draw(st.integers(1, 5), "num_quantizers")
    shape = data.draw(st.lists(st.integers(1, 4), max_size=3), "shape")
    channel_dim = data.draw(st.integers(-len(shape) - 1, len(shape)), "channel_dim")
    dtype = data.draw(st.sampled_from(DTYPES), "dtype of x")
    own_dtype = data.draw(st.sampled_from(DTYPES), "dtype of the module")
    autocast = data.draw(st.booleans(), "autocast")
    scale = data.draw(st.sampled_from([0.0, 1.0, 1000.0]), "scale")
    beam_size = data.draw(st.sampled_from([1, 1, 3]), "beam_size")

    x = (torch.randn(*shape, dim) * scale).movedim(-1, channel_dim).to(dtype)
    settings = {"channel_dim": channel_dim, "dead_code_threshold": 0}
    one = VectorQuantizer(dim, codebook_size, **settings).to(own_dtype).eval()
    many = ResidualVectorQuantizer(dim, codebook_size, num_quantizers, beam_size=beam_size, **settings)
    many = many.to(own_dtype).eval()
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        output = one(x)
        assert torch.equal(one.encode(x), output.indices)
        assert torch.equal(one.decode(output.indices).to(dtype), output.quantized)
        for m in range(1, num_quantizers + 1):
            output = many(x, num_quantizers=m)
            assert output.indices.shape == (*shape, m)
            assert output.quantized.shape == x.shape
            assert output.quantized.dtype == dtype
            assert torch.equal(many.encode(x, num_quantizers=m), output.indices)
            assert torch.equal(many.decode(output.indices).to(dtype), output.quantized)
            if beam_size == 1:
                assert torch.equal(many.encode(x)[..., :m], output.indices)


@pytest.mark.parametrize("make", [vq, rvq])
def test_autocast_changes_no_index_and_no_codeword(make):
    quantizer, x = make(), torch.randn(100, 4)
    plain = copy.deepcopy(quantizer)
    with torch.autocast("cpu", torch.bfloat16):
        output = quantizer(x)
    for a, b in zip(output, plain(x), strict=True):
        assert torch.equal(a, b)
    assert_same_state(quantizer, plain.state_dict())


INTEGERS = [torch.int8, torch.int16, torch.int32, torch.int64]
INTEGERS += [torch.uint8, torch.uint16, torch.uint32, torch.uint64]


@pytest.mark.parametrize("dtype", INTEGERS)
def test_decode_takes_the_integers_that_indices_are_stored_in(dtype):
    for quantizer, indices in ((rvq(), torch.randint(8, (5, 3))), (vq(), torch.randint(8, (5,)))):
        assert torch.equal(quantizer.decode(indices.to(dtype)), quantizer.decode(indices))
        with pytest.raises(ValueError, match="indices must lie between"):
            quantizer.decode((indices + 8).to(dtype))


def test_decode_skips_a_dropped_stage():
    quantizer = rvq(3)
    a, b, c = quantizer.codebooks
    indices = torch.tensor([[1, 2, 3], [1, 2, -1], [1, -1, -1], [-1, 2, 3], [-1, -1, -1]])
    expected = torch.stack([a[1] + b[2] + c[3], a[1] + b[2], a[1], b[2] + c[3], torch.zeros(4)])
    assert torch.equal(quantizer.decode(indices), expected)


# --- state ---


@pytest.mark.parametrize("codebook_update", ["ema", "gradient"])
@pytest.mark.parametrize("make", [vq, rvq])
def test_eval_encode_and_decode_change_no_state(make, codebook_update):
    quantizer, x = make(codebook_update=codebook_update), torch.randn(50, 4)
    before, generator = state(quantizer), torch.get_rng_state()
    for mode in (True, False):
        quantizer.train(mode)
        quantizer.decode(quantizer.encode(x))
    quantizer(x).loss.backward() if codebook_update == "gradient" else quantizer(x)
    assert_same_state(quantizer, before)
    assert torch.equal(torch.get_rng_state(), generator)
    quantizer.train()
    quantizer(x)
    with pytest.raises(AssertionError):
        assert_same_state(quantizer, before)


@pytest.mark.parametrize("from_fitted", [True, False])
@pytest.mark.parametrize("make", [vq, rvq])
def test_state_dict_round_trip(make, from_fitted, tmp_path):
    source, target = make(), fitted(make())
    if from_fitted:
        source, target = fitted(source), make()
    source(torch.randn(50, 4))
    torch.save(source.state_dict(), tmp_path / "state.pt")
    target.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    for _ in range(3):  # not only the same codebooks: the same future
        x = torch.randn(50, 4)
        assert all(map(torch.equal, source(x), target(x)))
    assert_same_state(source, target.state_dict())


@pytest.mark.parametrize("make", [vq, rvq])
def test_state_dict_goes_between_the_ways_to_update(make):
    ema, gradient = fitted(make()), make(codebook_update="gradient")
    gradient.load_state_dict(ema.state_dict())
    x = torch.randn(50, 4)
    assert torch.equal(ema.eval()(x).indices, gradient.eval()(x).indices)


@pytest.mark.parametrize("residual", [False, True])
@pytest.mark.parametrize("reentrant", [False, True])
@pytest.mark.parametrize("codebook_update", ["ema", "gradient"])
def test_a_step_that_is_computed_twice_is_refused(codebook_update, reentrant, residual):
    """The second time it would see another codebook, and learn once more."""
    quantizer = fitted((rvq if residual else vq)(codebook_update=codebook_update))
    once, x = copy.deepcopy(quantizer), torch.randn(50, 4, requires_grad=True)
    once(x)
    loss = checkpoint(lambda x: quantizer(x).loss, x, use_reentrant=reentrant)
    with pytest.raises(RuntimeError, match=r"a quantizer that learns can't be part of what torch\.utils\.checkpoint"):
        loss.backward()
    assert_same_state(quantizer, once.state_dict())


@pytest.mark.parametrize("residual", [False, True])
@pytest.mark.parametrize("reentrant", [False, True])
@pytest.mark.parametrize("codebook_update", ["ema", "gradient", "none"])
def test_what_does_not_learn_may_be_computed_twice(codebook_update, reentrant, residual):
    quantizer = fitted((rvq if residual else vq)(codebook_update=codebook_update)).train(codebook_update == "none")
    x = torch.randn(50, 4, requires_grad=True)
    (expected,) = torch.autograd.grad(quantizer(x).loss, x)
    checkpoint(lambda x: quantizer(x).loss, x, use_reentrant=reentrant).backward()
    assert torch.equal(x.grad, expected)


# --- codewords of one's own ---


def pretrained(codebooks, **settings):
    """A quantizer of one stage or of several."""
    if codebooks.ndim == 2:
        return VectorQuantizer.from_pretrained(codebooks, **settings)
    return ResidualVectorQuantizer.from_pretrained(codebooks, **settings)


@pytest.mark.parametrize("codebook_update", ["ema", "gradient"])
@pytest.mark.parametrize("shape", [(64, 4), (3, 64, 4)])
def test_codewords_of_ones_own_survive_the_first_steps(shape, codebook_update):
    codebooks = torch.randn(shape)
    quantizer = pretrained(codebooks.clone(), codebook_update=codebook_update)
    for _ in range(20):
        quantizer(torch.randn(16, 4))  # a quarter as many vectors as codewords
    stages = codebooks.view(-1, 64, 4)
    for stage, start in zip(quantizer.stages, stages, strict=True):
        assert (stage.vectors - start).norm(dim=1).max() < 1
        assert ((stage.vectors - start).norm(dim=1) < 0.5).float().mean() > 0.9


@pytest.mark.parametrize("shape", [(8, 4), (3, 8, 4)])
def test_codewords_of_ones_own_are_used_as_they_are(shape):
    codebooks = torch.randn(shape, dtype=torch.float64)
    start = codebooks.clone()
    quantizer = pretrained(codebooks, decay=0.5, channel_dim=1, commitment_weight=2.0, dead_code_threshold=0.2)
    assert (quantizer.dim, quantizer.codebook_size, len(quantizer.stages)) == (4, 8, codebooks.numel() // 32)
    assert (quantizer.decay, quantizer.channel_dim, quantizer.commitment_weight) == (0.5, 1, 2.0)
    assert (quantizer.dead_code_threshold, quantizer.codebook_update) == (0.2, "ema")
    assert torch.equal(torch.stack([stage.vectors for stage in quantizer.stages]).view(shape), start)
    quantizer(torch.randn(20, 4, 3))
    assert torch.equal(codebooks, start)  # it took a copy


def test_codewords_of_ones_own_in_half_precision_are_kept_in_float32():
    assert pretrained(torch.randn(8, 4).bfloat16()).codebook.dtype == torch.float32


@pytest.mark.parametrize("shape", [(8, 4), (3, 8, 4)])
@pytest.mark.parametrize("codebook_update", ["ema", "gradient", "none"])
def test_a_frozen_codebook_never_changes(shape, codebook_update):
    codebooks = torch.randn(shape)
    quantizer = pretrained(codebooks, freeze=True, codebook_update=codebook_update, decay=0.0, dead_code_threshold=1.0)
    before, x = state(quantizer), torch.randn(50, 4, requires_grad=True)
    assert not list(quantizer.parameters())
    loaded = pretrained(torch.randn(shape), freeze=True)
    loaded.load_state_dict(before)
    for kept in (quantizer, copy.deepcopy(quantizer), pickle.loads(pickle.dumps(quantizer)), loaded):
        for mode in (True, False):
            for autocast in (True, False):
                with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
                    output = kept.train(mode)(x + 10)
                output.loss.backward()
                assert output.codebook_loss == 0 and x.grad.any()
        assert_same_state(kept, before)


BAD_CODEWORDS = [
    (torch.randn(4), ValueError, "must have shape (K, dim), got (4,)"),
    (torch.randn(3, 4, 5), ValueError, "must have shape (K, dim), got (3, 4, 5)"),
    (torch.ones(8, 4, dtype=torch.int64), TypeError, "must be a floating-point tensor, got torch.int64"),
    (torch.full((8, 4), math.nan), ValueError, "must be finite, got NaN or infinity among its values"),
    (torch.ones(0, 4), ValueError, "must not be empty, got shape (0, 4)"),
    ([[1.0]], TypeError, "must be a torch.Tensor, got list"),
]


@pytest.mark.parametrize(("codebook", "error", "sentence"), BAD_CODEWORDS)
def test_bad_codewords(codebook, error, sentence):
    with pytest.raises(error) as info:
        VectorQuantizer.from_pretrained(codebook)
    assert str(info.value) == f"codebook {sentence}"
    with pytest.raises(error) as info:
        ResidualVectorQuantizer.from_pretrained([torch.randn(8, 4), codebook])
    assert str(info.value) == f"codebooks[1] {sentence}"


def test_bad_codewords_of_several_stages():
    with pytest.raises(ValueError, match=r"codebooks\[0\] must have shape \(K, dim\), got \(4,\)"):
        ResidualVectorQuantizer.from_pretrained(torch.randn(8, 4))
    with pytest.raises(ValueError, match=r"codebooks must hold vectors of one size dim, got 4 and 5"):
        ResidualVectorQuantizer.from_pretrained([torch.randn(8, 4), torch.randn(8, 5)])
    with pytest.raises(ValueError, match=r"codebooks must hold at least one stage's codewords, got none"):
        ResidualVectorQuantizer.from_pretrained([])


def test_bad_settings_beside_codewords():
    with pytest.raises(ValueError, match="decay must be a number from 0 to 1, got 2"):
        VectorQuantizer.from_pretrained(torch.randn(8, 4), decay=2)


@pytest.mark.parametrize("make", [vq, rvq])
def test_a_codebook_knows_whether_it_was_started(make):
    assert not make().is_started
    assert fitted(make()).is_started
    learned = make()
    learned.eval()(ROWS)
    assert not learned.is_started
    learned.train()(ROWS)
    assert learned.is_started
    assert pretrained(torch.randn(8, 4)).is_started


def test_what_it_is_can_be_read():
    assert "dim=4, codebook_size=8\n" in repr(vq())
    assert "dim=4, codebook_size=8, channel_dim=1\n" in repr(vq(channel_dim=1))
    assert "dim=4, codebook_size=8, num_quantizers=3\n" in repr(rvq())
    assert "dim=4, codebook_size=8, gradient='rotation'\n" in repr(vq(gradient="rotation"))
    assert "dim=4, codebook_size=8, similarity='cosine'\n" in repr(vq(similarity="cosine"))
    assert "dim=4, codebook_size=8, commitment_weight=1.0, codebook_update='none', decay=0.9\n" in repr(
        vq(commitment_weight=1.0, codebook_update="none", decay=0.9)
    )
    assert "num_quantizers=3, quantize_dropout=0.5, beam_size=2\n" in repr(rvq(quantize_dropout=0.5, beam_size=2))
    assert "dim=4, codebook_size=[8, 5], num_quantizers=2\n" in repr(ResidualVectorQuantizer(4, [8, 5], 2))


# --- a size for each stage ---


@pytest.mark.parametrize("beam_size", [1, 3])
@pytest.mark.parametrize("codebook_update", ["ema", "gradient"])
def test_stages_of_different_sizes(codebook_update, beam_size):
    """Each stage does what a quantizer of its size does with what is left."""
    quantizer = ResidualVectorQuantizer(4, [16, 8, 300], 3, codebook_update=codebook_update, beam_size=beam_size)
    x = torch.randn(500, 4)
    quantizer.fit(x)
    assert [tuple(stage.vectors.shape) for stage in quantizer.stages] == [(16, 4), (8, 4), (300, 4)]
    assert quantizer.bits == 4 + 3 + math.log2(300)
    before = copy.deepcopy(quantizer).eval()
    output = quantizer(x)
    assert torch.equal(before.decode(output.indices), output.quantized)
    assert output.indices.amax(0).tolist()[2] > 255 and (output.indices.amax(0) < torch.tensor([16, 8, 300])).all()
    if beam_size == 1:
        residual = x
        for stage, index in zip(before.stages, output.indices.unbind(-1), strict=True):
            assert torch.equal(index, nearest(residual, stage.vectors))
            residual = residual - stage.vectors[index]
    again = ResidualVectorQuantizer.from_pretrained([stage.vectors for stage in quantizer.stages]).eval()
    assert again.codebook_size == [16, 8, 300]
    assert torch.equal(again.encode(x), quantizer.encode(x, beam_size=1))


def test_an_index_beyond_its_own_stage():
    quantizer = ResidualVectorQuantizer(4, [16, 8], 2)
    assert quantizer.decode(torch.tensor([[15, 7]])).shape == (1, 4)
    sentence = "indices must lie between -1 and 7, got 8 to 8"
    for bad in ([[3, 8]], [[-1, 8]]):
        assert_refused(quantizer, lambda bad=bad: quantizer.decode(torch.tensor(bad)), ValueError, sentence)


def test_codewords_of_different_sizes_in_one_tensor():
    with pytest.raises(ValueError, match=r"the stages have \[8, 5\] codewords: see stages\[m\]\.vectors of each"):
        _ = ResidualVectorQuantizer(4, [8, 5], 2).codebooks


def test_as_many_sizes_as_stages():
    with pytest.raises(ValueError, match="codebook_size must hold num_quantizers = 3 sizes, got 2"):
        ResidualVectorQuantizer(4, [8, 8], 3)


# --- cosine similarity ---


def test_the_nearest_by_cosine():
    quantizer = vq(similarity="cosine").fit(torch.randn(500, 4))
    for _ in range(30):
        x = torch.randn(64, 4) * torch.rand(64, 1) * 10
        codebook = quantizer.codebook.clone()
        output = quantizer(x)
        torch.testing.assert_close(codebook.norm(dim=1), torch.ones(8))
        best = F.cosine_similarity(x[:, None], codebook, dim=-1).argmax(1)
        assert torch.equal(output.indices, best)
        assert torch.equal(output.quantized, codebook[best])
        torch.testing.assert_close(output.commitment_loss, F.mse_loss(F.normalize(x, dim=-1), codebook[best]))
    assert torch.equal(quantizer.decode(quantizer.encode(3 * x)), quantizer.eval()(x).quantized)


def test_codewords_follow_the_mean_direction():
    x = F.normalize(torch.tensor([3.0, 1, 0, 0]) + 0.1 * torch.randn(300, 4), dim=-1)
    quantizer = VectorQuantizer(4, 1, similarity="cosine", decay=0.0)
    for _ in range(3):
        quantizer(x * torch.rand(300, 1))
    torch.testing.assert_close(quantizer.codebook[0], F.normalize(x.mean(0), dim=-1), atol=1e-3, rtol=1e-3)


def test_cosine_needs_codewords_that_stay_on_the_sphere():
    sentence = 'similarity="cosine" needs codebook_update="ema" or "none"'
    with pytest.raises(ValueError, match=sentence):
        vq(similarity="cosine", codebook_update="gradient")
    given = VectorQuantizer.from_pretrained(5 * torch.randn(8, 4), freeze=True, similarity="cosine")
    torch.testing.assert_close(given.codebook.norm(dim=1), torch.ones(8))


# --- what the last batch did ---


def test_the_stages_losses():
    quantizer, x = fitted(rvq(3)).eval(), torch.randn(50, 4)
    output = quantizer(x)
    for m in (1, 2, 3):
        torch.testing.assert_close(output.stage_losses[m - 1], quantizer(x, num_quantizers=m).stage_losses[-1])
        torch.testing.assert_close(output.stage_losses[m - 1], F.mse_loss(quantizer(x, num_quantizers=m).quantized, x))
    torch.testing.assert_close(output.commitment_loss, output.stage_losses.mean())
    assert not output.stage_losses.requires_grad
    output = vq()(x)
    assert torch.equal(output.stage_losses, output.commitment_loss[None]) and not output.stage_losses.requires_grad


def test_the_sum_over_the_stages_is_a_larger_weight():
    mean, total = rvq(3).eval(), rvq(3, commitment_weight=3 * 0.25).eval()
    total.load_state_dict(mean.state_dict())
    x = torch.randn(50, 4)
    torch.testing.assert_close(total(x).loss, 0.25 * mean(x).stage_losses.sum())


@pytest.mark.parametrize("codebook_update", ["ema", "gradient"])
def test_what_the_last_batch_chose_and_restarted(codebook_update):
    quantizer, x = fitted(rvq(2, codebook_update=codebook_update)), torch.randn(100, 4)
    for dead in ([], [1, 5, 6]):
        quantizer.stages[1].usage[dead] = 0
        quantizer.stages[1].vectors.data[dead] = 100.0
        indices = quantizer(x).indices
        for stage, index in zip(quantizer.stages, indices.unbind(-1), strict=True):
            assert torch.equal(stage.last_counts.long(), torch.bincount(index, minlength=8))
            assert stage.last_perplexity.item() == pytest.approx(metrics.perplexity(index, 8), rel=1e-5)
        assert [stage.last_restarts.item() for stage in quantizer.stages] == [0, len(dead)]
    assert not any("last" in name for name in quantizer.state_dict())


# --- random codewords ---


@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("make", [vq, rvq])
def test_random_codewords_are_warned_of_once(make):
    sentence = r"Quantizer has random codewords: call its fit\(x\) before you use it"
    for use in (lambda q: q(ROWS), lambda q: q.eval()(ROWS), lambda q: q.encode(ROWS)):
        quantizer = make()
        with pytest.warns(UserWarning, match=sentence):
            use(quantizer)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            use(quantizer)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fitted(make())(ROWS)
        pretrained(torch.randn(8, 4))(ROWS)
        loaded = make()
        loaded.load_state_dict(fitted(make()).state_dict())
        loaded(ROWS)


# --- batches of nothing, and batches with NaN or infinity ---


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("shape", [(0, 4), (0, 5, 4), (3, 0, 4)])
@pytest.mark.parametrize(
    "make", [vq, lambda: rvq(quantize_dropout=0.5), lambda: rvq(beam_size=3), lambda: vq(codebook_update="gradient")]
)
def test_no_vectors_pass_through(make, shape, training):
    for quantizer in (make().train(training), fitted(make()).train(training)):
        before, x = state(quantizer), torch.randn(shape, requires_grad=True)
        output = quantizer(x)
        assert output.quantized.shape == shape and output.indices.shape[: len(shape) - 1] == shape[:-1]
        assert output.codebook_loss == output.commitment_loss == output.loss == 0
        (output.quantized.sum() + output.loss).backward()
        assert x.grad.shape == shape
        assert torch.equal(quantizer.encode(x), output.indices)
        assert quantizer.decode(output.indices).shape == shape
        assert_same_state(quantizer, before)


def test_no_vectors_from_one_search():
    paths, left = rvq(3).encode_each(torch.randn(0, 5, 4))
    assert paths.shape == (0, 5, 3, 3) and left.shape == (0, 5, 3)


@pytest.mark.parametrize("wrong", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("codebook_size", [8, 600])
@pytest.mark.parametrize("codebook_update", ["ema", "gradient"])
@pytest.mark.parametrize("residual", [False, True])
def test_a_batch_that_is_not_finite_teaches_nothing(residual, codebook_update, codebook_size, wrong):
    """One wrong number in one of fifty vectors. It comes out again, for a GradScaler to see."""
    sizes = (4, codebook_size, 3) if residual else (4, codebook_size)
    quantizer = (ResidualVectorQuantizer if residual else VectorQuantizer)(*sizes, codebook_update=codebook_update)
    x = torch.randn(50, 4)
    x[7, 2] = wrong
    x.requires_grad_()
    for unused in (1, 0):  # some codewords would restart, too
        before = state(quantizer)
        output = quantizer(x)
        output.loss.backward()
        assert_same_state(quantizer, before)
        assert not output.loss.isfinite() and not x.grad[7, 2].isfinite()
        assert output.quantized[7].isfinite().tolist() == [True, True, False, True]
        assert output.quantized[torch.arange(50) != 7].isfinite().all()
        assert output.indices.min() >= 0 and output.indices.max() < codebook_size
        quantizer.fit(torch.randn(700, 4))
        for stage in quantizer.stages:
            stage.usage[:unused] = 0
    quantizer(torch.randn(50, 4))  # and the next batch is learned from
    assert not torch.equal(quantizer.stages[0].usage, before["stages.0.usage"])
    assert all(value.isfinite().all() for value in quantizer.state_dict().values())


@pytest.mark.parametrize("make", [vq, rvq])
def test_a_grad_scaler_skips_the_step(make):
    """As under mixed precision: the loss is so large in float16 that the latents overflow."""
    quantizer, encoder = fitted(make()), torch.nn.Linear(4, 4)
    optimizer = torch.optim.SGD(encoder.parameters(), 0.1)
    scaler = torch.amp.GradScaler("cpu", init_scale=8.0)
    before = state(encoder), state(quantizer)
    loss = quantizer(encoder(torch.randn(9, 4) * 1e6).half()).loss
    scaler.scale(loss).backward()
    scaler.step(optimizer)
    scaler.update()
    assert scaler.get_scale() == 4.0
    assert_same_state(encoder, before[0])
    assert_same_state(quantizer, before[1])


# --- quantize dropout ---


def test_dropout_drops_the_last_stages_of_whole_samples():
    quantizer = fitted(rvq(8, quantize_dropout=1.0, channel_dim=1))
    x = torch.randn(300, 4, 3, 2)
    output = quantizer(x)
    used = output.indices >= 0
    assert ((output.indices >= -1) & (output.indices < 8)).all()
    assert (used == used[:, :1, :1]).all()  # one depth a sample
    used = used[:, 0, 0]
    assert used[:, 0].all()
    assert (used[:, 1:] <= used[:, :-1]).all()  # a prefix of stages
    assert set(used.sum(1).tolist()) == set(range(1, 9))  # any of them


def test_dropout_leaves_its_share_of_samples_whole():
    quantizer = fitted(rvq(8, quantize_dropout=0.4))
    cut = (quantizer(torch.randn(4000, 4)).indices[:, -1] < 0).float().mean().item()
    assert cut == pytest.approx(0.4 * 7 / 8, abs=0.04)  # one in eight of those draws all stages


def test_dropout_output_is_what_its_indices_decode_to():
    quantizer, x = fitted(rvq(5, quantize_dropout=0.8)), torch.randn(100, 4)
    before = copy.deepcopy(quantizer)
    output = quantizer(x)
    assert (output.indices == -1).any()
    assert torch.equal(before.decode(output.indices), output.quantized)
    expected = before.encode(x)
    used = output.indices >= 0
    assert torch.equal(output.indices[used], expected[used])


def test_dropout_sleeps_in_eval_and_respects_num_quantizers():
    quantizer, x = fitted(rvq(5, quantize_dropout=1.0)), torch.randn(200, 4)
    indices = quantizer(x, num_quantizers=3).indices
    assert indices.shape[-1] == 3
    assert set((indices >= 0).sum(1).tolist()) == {1, 2, 3}
    assert (quantizer.eval()(x).indices >= 0).all()


def test_a_stage_learns_only_from_the_samples_that_reach_it():
    quantizer = fitted(rvq(2, quantize_dropout=1.0, decay=0.0, dead_code_threshold=0))
    start, x = copy.deepcopy(quantizer), torch.randn(400, 4)
    indices = quantizer(x).indices
    residual = x - start.stages[0].lookup(indices[:, 0])
    for k in range(8):
        mine = residual[indices[:, 1] == k]
        torch.testing.assert_close(quantizer.codebooks[1, k], mine.mean(0))
    share = torch.bincount(indices[:, 1][indices[:, 1] >= 0], minlength=8) / (indices[:, 1] >= 0).sum()
    torch.testing.assert_close(quantizer.stages[1].usage, share)


def test_a_stage_that_no_sample_reaches_learns_nothing():
    """One sample a batch, as with one long audio clip: most batches never come to the last stage."""
    data = torch.randn(3000, 4)
    quantizer = rvq(8, quantize_dropout=1.0).fit(data)
    last = quantizer.stages[-1]
    for _ in range(300):
        before = state(last)
        indices = quantizer(data[torch.randint(len(data), (1, 64))]).indices
        if (indices[..., -1] < 0).all():
            assert torch.equal(last.vectors, before["vectors"])
            assert torch.equal(last.usage, before["usage"])
    assert last.usage.sum().item() == pytest.approx(1, abs=0.2)


# --- beam search ---


def test_a_beam_of_one_is_the_greedy_search_exactly():
    quantizer, x = fitted(rvq(5)).eval(), torch.randn(300, 4)
    greedy, residual = [], x
    for codebook in quantizer.codebooks:
        greedy.append(nearest(residual, codebook))
        residual = residual - codebook[greedy[-1]]
    assert torch.equal(quantizer.encode(x, beam_size=1), torch.stack(greedy, -1))
    assert torch.equal(quantizer(x).indices, torch.stack(greedy, -1))


def test_a_beam_that_holds_all_paths_finds_the_best_of_all():
    quantizer, x = rvq(3).eval(), torch.randn(100, 4)
    paths = torch.cartesian_prod(*[torch.arange(8)] * 3)
    best = torch.cdist(x, quantizer.decode(paths)).amin(1)
    found = quantizer.decode(quantizer.encode(x, beam_size=64))
    torch.testing.assert_close((x - found).norm(dim=1), best)


def test_a_wider_beam_is_never_worse_than_greedy():
    """For no vector, on any codebooks, though the greedy path may drop out of the beam half way."""
    for seed in range(300):
        torch.manual_seed(seed)
        dim, codebook_size, num_quantizers = (int(torch.randint(a, b, ())) for a, b in ((1, 9), (2, 33), (2, 6)))
        quantizer, x = ResidualVectorQuantizer(dim, codebook_size, num_quantizers).eval(), torch.randn(100, dim)
        greedy = (x - quantizer.decode(quantizer.encode(x))).norm(dim=1)
        for beam_size in (2, 4):
            beam = (x - quantizer.decode(quantizer.encode(x, beam_size=beam_size))).norm(dim=1)
            assert (beam <= greedy + 1e-5).all()


@pytest.mark.parametrize("beam_size", [1, 3])
@pytest.mark.parametrize("shape", [(4,), (30, 4), (2, 5, 3, 4)])
def test_each_number_of_stages_from_one_search(beam_size, shape):
    quantizer, x = rvq(4, beam_size=beam_size).eval(), torch.randn(shape)
    paths, left = quantizer.encode_each(x)
    assert paths.shape == (*shape[:-1], 4, 4) and left.shape == (*shape[:-1], 4)
    for m in (1, 2, 3, 4):
        assert torch.equal(paths[..., m - 1, :m], quantizer.encode(x, num_quantizers=m))
        assert (paths[..., m - 1, m:] == -1).all()
        distance = (x - quantizer.decode(paths[..., m - 1, :])).square().sum(-1)
        torch.testing.assert_close(left[..., m - 1], distance)
    fewer = quantizer.encode_each(x, num_quantizers=2)
    assert torch.equal(fewer[0], paths[..., :2, :2]) and torch.equal(fewer[1], left[..., :2])


def test_each_number_of_stages_of_an_image():
    quantizer, x = rvq(3, channel_dim=1).eval(), torch.randn(2, 4, 5, 6)
    paths, left = quantizer.encode_each(x)
    assert paths.shape == (2, 5, 6, 3, 3) and left.shape == (2, 5, 6, 3)
    assert torch.equal(paths[..., -1, :], quantizer.encode(x))
    with pytest.raises(ValueError, match="num_quantizers must be a whole number from 1 to 3, got 4"):
        quantizer.encode_each(x, 4)


def test_forward_searches_with_its_own_beam():
    quantizer, x = fitted(rvq(4, beam_size=4)).eval(), torch.randn(300, 4)
    assert torch.equal(quantizer(x).indices, quantizer.encode(x, beam_size=4))
    assert not torch.equal(quantizer(x).indices, quantizer.encode(x, beam_size=1))


def test_fit_trains_the_stages_with_the_beam_that_encodes():
    data, held_out = torch.randn(4000, 8), torch.randn(2000, 8)
    greedy = ResidualVectorQuantizer(8, 32, 4).eval().fit(data)
    beam = ResidualVectorQuantizer(8, 32, 4, beam_size=8).eval().fit(data)
    assert mean_error(beam, held_out) < 0.95 * mean_error(greedy, held_out, beam_size=8)
    assert mean_error(greedy, held_out, beam_size=8) < 0.95 * mean_error(greedy, held_out)


def test_fit_with_a_beam_wider_than_the_codebook():
    """Stage 2 has all 16 ways of each vector to choose from. Fitted on them all, every codeword would be one mean."""
    data, held_out = torch.randn(4000, 4), torch.randn(4000, 4)
    greedy = ResidualVectorQuantizer(4, 16, 2).eval().fit(data)
    beam = ResidualVectorQuantizer(4, 16, 2, beam_size=16).eval().fit(data)
    assert mean_error(beam, held_out) < 0.97 * mean_error(greedy, held_out)


# --- what the codebook learns ---


@pytest.mark.parametrize("make", [vq, rvq])
def test_the_first_step_after_fit_does_not_move_the_codebook_off(make):
    x = torch.randn(3000, 4)
    quantizer = make().fit(x)
    before, error = state(quantizer), mean_error(quantizer, x)
    quantizer(x)
    for name, value in quantizer.state_dict().items():
        if name.endswith("vectors"):
            assert (value - before[name]).norm(dim=1).max() < 0.02
    assert mean_error(quantizer, x) < 1.01 * error
    quantizer(torch.randn(16, 4))  # nor does a small batch
    assert mean_error(quantizer, x) < 1.02 * error


def test_fit_is_k_means():
    quantizer, x = vq(), torch.randn(500, 4)
    torch.manual_seed(1)
    quantizer.fit(x)
    torch.manual_seed(1)
    result = kmeans(x, 8)
    assert torch.equal(quantizer.codebook, result.centroids)
    torch.testing.assert_close(quantizer.stages[0].usage, result.counts / 500)


@pytest.mark.parametrize("make", [vq, rvq])
def test_fit_on_images_takes_their_vectors(make):
    x = torch.randn(10, 4, 5, 5)
    torch.manual_seed(1)
    images = make(channel_dim=1).fit(x)
    torch.manual_seed(1)
    rows = make().fit(x.movedim(1, -1).reshape(-1, 4))
    assert_same_state(images, rows.state_dict())


def test_ema_is_sum_over_count():
    """The moving averages of the sum and the count of a codeword's vectors, kept apart, as in appendix A.1."""
    quantizer = vq(decay=0.9, dead_code_threshold=0)
    codebook, decay = quantizer.stages[0], 0.9
    quantizer.fit(torch.randn(500, 4))
    count = codebook.usage.clone()
    total = codebook.vectors * count[:, None]
    for _ in range(30):
        x = torch.randn(64, 4) + 1
        one_hot = F.one_hot(quantizer.encode(x), 8).float()
        quantizer(x)
        count = decay * count + (1 - decay) * one_hot.mean(0)
        total = decay * total + (1 - decay) * one_hot.T @ x / len(x)
        torch.testing.assert_close(codebook.usage, count)
        torch.testing.assert_close(codebook.vectors, total / count[:, None], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("decay", [0.0, 0.99])
def test_an_unused_codeword_stays_where_it_is_for_ten_thousand_steps(decay):
    codebook = vq(decay=decay, dead_code_threshold=0).stages[0]
    x, used = torch.randn(16, 4), torch.arange(16) % 7
    before = codebook.vectors.clone()
    for _ in range(10_000):
        codebook.update(x, x - codebook.vectors[used], used)
    assert torch.equal(codebook.vectors[7], before[7])
    assert codebook.vectors.isfinite().all()
    means = torch.stack([x[used == k].mean(0) for k in range(7)])
    torch.testing.assert_close(codebook.vectors[:7], means)
    codebook.update(x[:1], x[:1] - codebook.vectors[7], torch.tensor([7]))  # and when it is used at last, it is fine
    assert codebook.vectors.norm(dim=1).max() < 10


@pytest.mark.parametrize("codebook_update", ["ema", "gradient"])
def test_a_dead_codeword_restarts_at_a_vector_and_stays_there(codebook_update):
    x = torch.randn(100, 4)
    quantizer = vq(codebook_update=codebook_update).fit(x)
    with torch.no_grad():
        quantizer.codebook[3] = 1000
    quantizer.stages[0].usage[3] = 0
    quantizer(x)
    restarted = quantizer.codebook[3].detach().clone()
    assert (x == restarted).all(1).any()
    assert quantizer.stages[0].usage[3] == 1 / 8
    quantizer(x)
    assert (quantizer.codebook[3] - restarted).norm() < 0.1


@pytest.mark.parametrize(("codebook_size", "batch"), [(4, 5000), (256, 64), (256, 5000)])
def test_the_threshold_is_relative_to_uniform_use(codebook_size, batch):
    """Half as often as 1/K of all vectors is alive, a twentieth as often is dead, for any K and any batch."""
    quantizer = VectorQuantizer(1, codebook_size, dead_code_threshold=0.1)
    codebook = quantizer.stages[0]
    codebook.vectors.copy_(torch.arange(float(codebook_size))[:, None])
    codebook.usage.fill_(1 / codebook_size)
    codebook.usage[0] = 0.5 / codebook_size
    codebook.usage[1] = 0.05 / codebook_size
    quantizer(torch.full((batch, 1), 2.0))
    moved = (codebook.vectors[:, 0] != torch.arange(codebook_size)).nonzero()[:, 0]
    assert moved.tolist() == [1]


def test_a_threshold_of_zero_never_restarts():
    quantizer = vq(dead_code_threshold=0)
    quantizer.codebook[3] = 1000
    for _ in range(5):
        quantizer(torch.randn(100, 4))
    assert (quantizer.codebook[3] == 1000).all()


def test_dead_codewords_restart_at_different_vectors():
    quantizer, x = vq(), torch.randn(100, 4)
    quantizer(x)  # nothing has been used yet: all restart
    assert len(quantizer.codebook.unique(dim=0)) == 8
    first = quantizer.codebook.clone()
    quantizer.stages[0].usage.zero_()
    quantizer(x)
    assert not torch.equal(quantizer.codebook, first)


@pytest.mark.parametrize("make", [vq, rvq])
@pytest.mark.parametrize(
    "x",
    [torch.zeros(20, 4), torch.full((20, 4), 1e4), torch.ones(1, 4), torch.tensor([[1e-30, 0, 0, 0]] * 9)],
    ids=["zeros", "far", "one vector", "tiny"],
)
def test_degenerate_batches_leave_everything_finite(make, x):
    quantizer = make(quantize_dropout=0.5) if make is rvq else make()
    for _ in range(20):
        output = quantizer(x)
        assert all(t.isfinite().all() for t in output)
    assert all(t.isfinite().all() for t in quantizer.state_dict().values())


def test_one_codeword():
    quantizer, x = VectorQuantizer(4, 1, decay=0.0), torch.randn(50, 4)
    quantizer(x)
    quantizer(x)
    torch.testing.assert_close(quantizer.codebook[0], x.mean(0))
    assert not quantizer(x).indices.any()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("own_dtype", [torch.float32, torch.float64])
def test_training_on_any_floating_type(dtype, own_dtype):
    quantizer = fitted(rvq().to(own_dtype))
    x = torch.randn(100, 4).to(dtype).requires_grad_()
    output = quantizer(x)
    (output.quantized.sum() + output.loss).backward()
    assert output.quantized.dtype == dtype
    assert output.loss.dtype == output.codebook_loss.dtype == output.commitment_loss.dtype == own_dtype
    assert quantizer.decode(output.indices).dtype == own_dtype
    assert x.grad.dtype == dtype
    assert x.grad.isfinite().all()


@pytest.mark.parametrize("make", [vq, rvq])
def test_a_network_in_bfloat16_around_it(make):
    quantizer = fitted(make())
    network = [torch.nn.Linear(6, 4).bfloat16(), quantizer, torch.nn.Linear(4, 6).bfloat16()]
    x = torch.randn(50, 6).bfloat16()
    output = quantizer(network[0](x))
    (F.mse_loss(network[2](output.quantized), x) + output.loss).backward()
    assert output.loss.dtype == torch.float32
    assert network[0].weight.grad.isfinite().all() and network[0].weight.grad.any()


@pytest.mark.parametrize("make", [vq, rvq])
def test_the_losses_of_a_module_in_half_precision_do_not_overflow(make):
    quantizer, x = make(dead_code_threshold=0).half().eval(), torch.full((50, 4), 200.0)
    assert quantizer(x).loss.item() == pytest.approx(make(dead_code_threshold=0).eval()(x).loss.item(), rel=0.1)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("make", [vq, rvq])
def test_the_straight_through_is_exact_in_every_type(make, dtype):
    jacobian = torch.autograd.functional.jacobian(
        lambda x: make().eval()(x).quantized.flatten(), torch.randn(3, 4).to(dtype)
    )
    assert torch.equal(jacobian.view(12, 12), torch.eye(12, dtype=dtype))


# --- bad input ---

ROWS = torch.randn(20, 4)
BAD_CONSTRUCTION = [
    ({"dim": 0}, "dim must be a whole number ≥ 1, got 0"),
    ({"codebook_size": 0}, "codebook_size must be a whole number ≥ 1, got 0"),
    ({"codebook_size": -3}, "codebook_size must be a whole number ≥ 1, got -3"),
    ({"codebook_size": 2.5}, "codebook_size must be a whole number ≥ 1, got 2.5"),
    ({"codebook_size": True}, "codebook_size must be a whole number ≥ 1, got True"),
    ({"decay": 1.5}, "decay must be a number from 0 to 1, got 1.5"),
    ({"decay": math.nan}, "decay must be a number from 0 to 1, got nan"),
    ({"commitment_weight": -1}, "commitment_weight must be a number ≥ 0, got -1"),
    ({"commitment_weight": math.inf}, "commitment_weight must be a number ≥ 0, got inf"),
    ({"decay": "a"}, "decay must be a number from 0 to 1, got 'a'"),
    ({"dead_code_threshold": 2}, "dead_code_threshold must be a number from 0 to 1, got 2"),
    ({"codebook_update": "sgd"}, 'codebook_update must be "ema", "gradient" or "none", got \'sgd\''),
]
BAD_RESIDUAL_CONSTRUCTION = [
    ({"num_quantizers": 0}, "num_quantizers must be a whole number ≥ 1, got 0"),
    ({"quantize_dropout": 1.1}, "quantize_dropout must be a number from 0 to 1, got 1.1"),
    ({"quantize_dropout": True}, "quantize_dropout must be a number from 0 to 1, got True"),
    ({"beam_size": 0}, "beam_size must be a whole number ≥ 1, got 0"),
]
BAD_VECTORS = [
    (None, TypeError, "x must be a torch.Tensor, got NoneType"),
    (torch.ones(5, 4, dtype=torch.int64), TypeError, "x must be a floating-point tensor, got torch.int64"),
    (torch.ones(5, 4, dtype=torch.complex64), TypeError, "x must be a floating-point tensor, got torch.complex64"),
    (torch.ones(5, 3), ValueError, "x must have size dim = 4 along channel_dim = -1, got shape (5, 3)"),
    (torch.tensor(1.0), ValueError, "x must have the axis channel_dim = -1, got shape ()"),
]
NOT_FINITE = [
    (torch.full((5, 4), math.nan), ValueError, "x must be finite, got NaN or infinity among its values"),
    (torch.full((5, 4), math.inf), ValueError, "x must be finite, got NaN or infinity among its values"),
    (
        ROWS.masked_fill(torch.arange(4) == 2, -math.inf),
        ValueError,
        "x must be finite, got NaN or infinity among its values",
    ),
]
BAD_INDICES = [
    ([0], TypeError, "indices must be a torch.Tensor, got list"),
    (torch.ones(5, 3), TypeError, "indices must be an integer tensor, got torch.float32"),
    (torch.ones(5, 3, dtype=torch.bool), TypeError, "indices must be an integer tensor, got torch.bool"),
]


def assert_refused(module, call, error, sentence):
    before, generator = state(module), torch.get_rng_state()
    with pytest.raises(error) as info:
        call()
    assert str(info.value) == sentence
    assert info.value.__cause__ is None
    assert_same_state(module, before)
    assert torch.equal(torch.get_rng_state(), generator)


@pytest.mark.parametrize(("wrong", "sentence"), BAD_CONSTRUCTION)
@pytest.mark.parametrize("residual", [False, True])
def test_bad_settings(wrong, sentence, residual):
    settings = {"dim": 4, "codebook_size": 8} | ({"num_quantizers": 3} if residual else {}) | wrong
    with pytest.raises(ValueError) as info:
        (ResidualVectorQuantizer if residual else VectorQuantizer)(**settings)
    assert str(info.value) == sentence


@pytest.mark.parametrize(("wrong", "sentence"), BAD_RESIDUAL_CONSTRUCTION)
def test_bad_residual_settings(wrong, sentence):
    with pytest.raises(ValueError) as info:
        ResidualVectorQuantizer(**{"dim": 4, "codebook_size": 8, "num_quantizers": 3} | wrong)
    assert str(info.value) == sentence


@pytest.mark.parametrize(("x", "error", "sentence"), BAD_VECTORS)
@pytest.mark.parametrize("method", ["forward", "encode", "fit"])
@pytest.mark.parametrize("make", [vq, rvq])
def test_bad_vectors(make, method, x, error, sentence):
    quantizer = make()
    assert_refused(quantizer, lambda: getattr(quantizer, method)(x), error, sentence)


@pytest.mark.parametrize(("x", "error", "sentence"), NOT_FINITE)
@pytest.mark.parametrize("method", ["forward", "encode", "fit"])
@pytest.mark.parametrize("make", [vq, rvq])
def test_vectors_that_are_not_finite(make, method, x, error, sentence):
    quantizer = make().eval()
    assert_refused(quantizer, lambda: getattr(quantizer, method)(x), error, sentence)
    if method != "forward":
        assert_refused(quantizer.train(), lambda: getattr(quantizer, method)(x), error, sentence)


def test_a_missing_channel_dim():
    quantizer = vq(channel_dim=1)
    sentence = "x must have the axis channel_dim = 1, got shape (4,)"
    assert_refused(quantizer, lambda: quantizer(torch.ones(4)), ValueError, sentence)
    sentence = "x must have size dim = 4 along channel_dim = 1, got shape (2, 3, 4)"
    assert_refused(quantizer, lambda: quantizer(torch.ones(2, 3, 4)), ValueError, sentence)


@pytest.mark.parametrize(("indices", "error", "sentence"), BAD_INDICES)
@pytest.mark.parametrize("make", [vq, rvq])
def test_bad_indices(make, indices, error, sentence):
    quantizer = make()
    assert_refused(quantizer, lambda: quantizer.decode(indices), error, sentence)


def test_indices_out_of_range():
    for quantizer, bad, sentence in [
        (vq(), [0, 8], "indices must lie between -1 and 7, got 0 to 8"),
        (vq(), [-2, 3], "indices must lie between -1 and 7, got -2 to 3"),
        (rvq(), [-2, 3], "indices must lie between -1 and 7, got -2 to 3"),
        (rvq(), [5, 99], "indices must lie between -1 and 7, got 5 to 99"),
    ]:
        assert_refused(quantizer, lambda q=quantizer, i=bad: q.decode(torch.tensor(i)), ValueError, sentence)


@pytest.mark.parametrize("shape", [(2, 4), (5,), (), (2, 0)])
def test_more_stages_to_decode_than_there_are(shape):
    quantizer = rvq(3)
    sentence = f"indices must have 1 to 3 stages along the last axis, got shape {shape}"
    indices = torch.zeros(shape, dtype=torch.int64)
    assert_refused(quantizer, lambda: quantizer.decode(indices), ValueError, sentence)


def test_indices_without_room_for_the_channel_dim():
    sentence = "indices must have more axes, for x with the axis channel_dim = 2"
    for quantizer, shape in ((vq(channel_dim=2), (5,)), (rvq(channel_dim=2), (5, 3))):
        assert_refused(quantizer, lambda q=quantizer, s=shape: q.decode(torch.ones(s).long()), ValueError, sentence)


@pytest.mark.parametrize("wrong", [0, -1, 4, 1.5])
def test_more_quantizers_than_there_are(wrong):
    quantizer = rvq(3)
    sentence = f"num_quantizers must be a whole number from 1 to 3, got {wrong}"
    assert_refused(quantizer, lambda: quantizer(ROWS, num_quantizers=wrong), ValueError, sentence)
    assert_refused(quantizer, lambda: quantizer.encode(ROWS, num_quantizers=wrong), ValueError, sentence)


def test_a_bad_beam():
    quantizer = rvq(3)
    sentence = "beam_size must be a whole number ≥ 1, got 0"
    assert_refused(quantizer, lambda: quantizer.encode(ROWS, beam_size=0), ValueError, sentence)


@pytest.mark.parametrize("make", [vq, rvq])
def test_fit_on_fewer_vectors_than_codewords(make):
    quantizer = make()
    sentence = "x must hold at least codebook_size = 8 vectors, got 7"
    assert_refused(quantizer, lambda: quantizer.fit(ROWS[:7]), ValueError, sentence)
