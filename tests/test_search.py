import faiss
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rvq_tutorial import nearest, search
from rvq_tutorial.search import FEW_VECTORS, nearest_ways

DTYPES = [torch.float32, torch.float64, torch.bfloat16, torch.float16]
EDGES = [1, 2, 3, 63, 64, 65, 511, 512, 513]


def squared_distances(x, codebook):
    """All of them, by the definition, in float64: (N, K)."""
    return (x.double()[:, None] - codebook.double()).square().sum(-1)


def assert_nearest(x, codebook, indices):
    """No codeword is nearer than the chosen one, by more than float32 can tell apart."""
    distances = squared_distances(x, codebook)
    chosen = distances.take_along_dim(indices[:, None], 1)[:, 0]
    middle = codebook.double().mean(0)
    size = (x.double() - middle).square().sum(1) + (codebook.double() - middle).square().sum(1).max()
    assert (chosen <= distances.amin(1) + 1e-6 * size).all()


def randn(*shape, seed=0, dtype=torch.float32):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


@settings(max_examples=60, deadline=None)
@given(
    num=st.integers(0, 70),
    dim=st.integers(1, 9),
    codebook_size=st.sampled_from(EDGES) | st.integers(1, 400),
    dtype=st.sampled_from(DTYPES),
    codebook_dtype=st.sampled_from(DTYPES),
    buffer=st.sampled_from([1, 64, 1000, search.BUFFER]),
    seed=st.integers(0, 2**20),
)
def test_nearest_is_the_nearest(num, dim, codebook_size, dtype, codebook_dtype, buffer, seed):
    x = randn(num, dim, seed=seed, dtype=dtype)
    codebook = randn(codebook_size, dim, seed=seed + 1, dtype=codebook_dtype)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(search, "BUFFER", buffer)
        indices = nearest(x, codebook)
    assert indices.shape == (num,)
    assert indices.dtype == torch.int64
    assert_nearest(x, codebook, indices)


@pytest.mark.parametrize("codebook_size", [1, 5, 300])
@pytest.mark.parametrize("shape", [(), (1,), (2, 3), (2, 1, 3), (0,), (2, 0)])
def test_any_shape_in_front(shape, codebook_size):
    x, codebook = randn(*shape, 4), randn(codebook_size, 4, seed=1)
    indices = nearest(x, codebook)
    assert indices.shape == shape
    assert_nearest(x.reshape(-1, 4), codebook, indices.flatten())


@pytest.mark.parametrize("codebook_size", [4, 300])
class TestDegenerate:
    def test_all_codewords_equal(self, codebook_size):
        indices = nearest(randn(50, 4), torch.ones(codebook_size, 4))
        assert ((indices >= 0) & (indices < codebook_size)).all()

    def test_codewords_twice(self, codebook_size):
        x, half = randn(50, 4), randn(codebook_size // 2, 4, seed=1)
        codebook = torch.cat([half, half])
        assert torch.equal(nearest(x, codebook) % len(half), nearest(x, half))

    def test_every_codeword_is_nearest_to_itself(self, codebook_size):
        codebook = randn(codebook_size, 4) + 1000
        assert torch.equal(nearest(codebook, codebook), torch.arange(codebook_size))

    @pytest.mark.parametrize("offset", [1e3, 1e5])
    def test_far_from_the_origin(self, codebook_size, offset):
        x, codebook = randn(500, 4) + offset, randn(codebook_size, 4, seed=1) + offset
        assert_nearest(x, codebook, nearest(x, codebook))

    def test_vectors_far_from_all_codewords(self, codebook_size):
        x, codebook = randn(50, 4) + 1e6, randn(codebook_size, 4, seed=1)
        assert_nearest(x, codebook, nearest(x, codebook))

    @pytest.mark.parametrize("stray", [1e6, 1e12])
    def test_one_codeword_far_out_spoils_no_other(self, codebook_size, stray):
        x, codebook = randn(500, 4), randn(codebook_size, 4, seed=1)
        codebook[0] = stray
        expected = squared_distances(x, codebook).argmin(1)
        assert (nearest(x, codebook) == expected).float().mean() > 0.99


@pytest.mark.parametrize("codebook_size", [40, 1024])
@pytest.mark.parametrize("share", [0.5, 0.02])
@pytest.mark.parametrize("offset", [100, 1000, 1e5])
def test_two_clusters_far_apart(offset, share, codebook_size):
    """One centre can't serve both, and float32 would take many wrong codewords for the nearest."""
    x, codebook = randn(2000, 8), randn(codebook_size, 8, seed=1)
    x[: int(share * 2000)] += 2 * offset
    codebook[: codebook_size // 2] += 2 * offset
    expected = squared_distances(x, codebook).argmin(1)
    assert (nearest(x, codebook) == expected).float().mean() > 0.999
    for num in (FEW_VECTORS, 39):  # all of them in the one cluster
        assert torch.equal(nearest(x[:num], codebook), expected[:num])


class TestFewVectors:
    """One frame of a stream, say."""

    @pytest.mark.parametrize("dtype", DTYPES)
    @pytest.mark.parametrize("codebook_size", [1, 2, 1024])
    @pytest.mark.parametrize("num", [1, FEW_VECTORS, FEW_VECTORS + 1])
    @pytest.mark.parametrize("offset", [0, 100, 3e4])
    def test_are_told_apart_wherever_they_lie(self, num, codebook_size, offset, dtype):
        """Exactly as in float64, also where a codeword next to the origin gives no centre away."""
        x, codebook = randn(num, 128, dtype=dtype) + offset, randn(codebook_size, 128, seed=1, dtype=dtype) + offset
        codebook[0] = 0
        assert torch.equal(nearest(x, codebook), squared_distances(x, codebook).argmin(1))

    @pytest.mark.parametrize("scale", [1e-15, 1e-3, 1e3, 1e15])
    def test_of_any_size(self, scale):
        x, codebook = randn(2, 16) * scale, randn(300, 16, seed=1) * scale
        assert torch.equal(nearest(x, codebook), squared_distances(x, codebook).argmin(1))

    def test_ways_are_told_apart_wherever_they_lie(self):
        residuals, codebook = randn(1, 4, 128) + 1e4, randn(1024, 128, seed=1) + 1e4
        every = squared_distances(residuals[0], codebook).flatten()
        parent, index = nearest_ways(residuals, codebook, 4)
        assert torch.equal((parent * 1024 + index)[0], every.topk(4, largest=False).indices)

    @pytest.mark.parametrize("precision", ["highest", "medium"])
    def test_have_all_digits(self, precision):
        x, codebook = randn(FEW_VECTORS, 128), randn(1024, 128, seed=1)
        before = torch.get_float32_matmul_precision()
        try:
            torch.set_float32_matmul_precision(precision)
            with torch.autocast("cpu", torch.bfloat16):
                assert torch.equal(nearest(x, codebook), squared_distances(x, codebook).argmin(1))
        finally:
            torch.set_float32_matmul_precision(before)


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("num", [1, FEW_VECTORS, 700])
@pytest.mark.parametrize("codebook_size", [1, 40, 1024])
def test_what_is_no_number_gets_some_index_and_disturbs_no_other(num, codebook_size, value):
    x, codebook = randn(num, 64), randn(codebook_size, 64, seed=1)
    expected = nearest(x, codebook)
    x[num // 2, 3] = value
    indices = nearest(x, codebook)
    assert 0 <= indices[num // 2] < codebook_size
    others = torch.arange(num) != num // 2
    assert torch.equal(indices[others], expected[others])


@pytest.mark.parametrize("precision", ["highest", "high", "medium"])
def test_products_have_all_digits(precision, monkeypatch):
    """Whatever other products may do, whose setting is as before."""
    before, seen, addmm = torch.get_float32_matmul_precision(), [], torch.addmm

    def in_force():
        cpu = getattr(torch.backends.mkldnn, "matmul", None)  # from torch 2.9 on
        return cpu.fp32_precision if cpu else torch.get_float32_matmul_precision()

    def watched(*arguments, **settings):
        seen.append(in_force())
        return addmm(*arguments, **settings)

    monkeypatch.setattr(torch, "addmm", watched)
    x, codebook = randn(2000, 16), randn(1024, 16, seed=1)
    try:
        torch.set_float32_matmul_precision(precision)
        allowed = in_force()
        assert (nearest(x, codebook) == squared_distances(x, codebook).argmin(1)).float().mean() > 0.999
        nearest_ways(x[:, None], codebook, 3)
        assert (torch.get_float32_matmul_precision(), in_force()) == (precision, allowed)
        with pytest.raises(RuntimeError):  # also when something goes wrong half way
            monkeypatch.setattr(torch, "addmm", lambda *_, **__: torch.zeros(2) + torch.zeros(3))
            nearest(x, codebook)
        assert (torch.get_float32_matmul_precision(), in_force()) == (precision, allowed)
    finally:
        torch.set_float32_matmul_precision(before)
    assert set(seen) <= {"ieee", "none", "highest"} and seen


def test_equals_a_search_in_float64_but_for_ties():
    x, codebook = randn(2000, 16), randn(1024, 16, seed=1)
    distances = squared_distances(x, codebook)
    best, second = distances.topk(2, largest=False).values.unbind(1)
    clear = second - best > 1e-4
    assert clear.float().mean() > 0.99
    assert torch.equal(nearest(x, codebook)[clear], distances.argmin(1)[clear])


def test_equals_the_flat_search_of_faiss_but_for_ties():
    x, codebook = randn(2000, 16), randn(1024, 16, seed=1)
    index = faiss.IndexFlatL2(16)
    index.add(codebook.numpy())
    distances, indices = (torch.from_numpy(a) for a in index.search(x.numpy(), 2))
    clear = distances[:, 1] - distances[:, 0] > 1e-4
    assert clear.float().mean() > 0.99
    assert torch.equal(nearest(x, codebook)[clear], indices[clear, 0])


@pytest.mark.parametrize("codebook_size", [40, 300])
def test_autocast_changes_nothing(codebook_size):
    x, codebook = randn(500, 8), randn(codebook_size, 8, seed=1)
    expected, expected_ways = nearest(x, codebook), nearest_ways(x[:, None], codebook, 3)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(nearest(x, codebook), expected)
        assert all(map(torch.equal, nearest_ways(x[:, None], codebook, 3), expected_ways))


def test_double_precision_is_used_where_it_came():
    codebook = torch.tensor([[0.0], [1.0]], dtype=torch.float64)
    x = torch.tensor([[0.5 - 1e-12], [0.5 + 1e-12]], dtype=torch.float64)
    assert nearest(x, codebook).tolist() == [0, 1]


def test_the_choice_has_no_gradient_and_leaves_its_inputs_alone():
    x, codebook = randn(20, 4).requires_grad_(), randn(300, 4, seed=1).requires_grad_()
    before = x.detach().clone(), codebook.detach().clone()
    assert not nearest(x, codebook).requires_grad
    assert torch.equal(x, before[0])
    assert torch.equal(codebook, before[1])


@settings(max_examples=60, deadline=None)
@given(
    num=st.integers(0, 20),
    width=st.integers(1, 5),
    dim=st.integers(1, 9),
    codebook_size=st.integers(1, 70),
    beam_size=st.integers(1, 9),
    buffer=st.sampled_from([1, 100, search.BUFFER]),
    dtype=st.sampled_from(DTYPES),
    seed=st.integers(0, 2**20),
)
def test_ways_are_the_best_and_in_order(num, width, dim, codebook_size, beam_size, buffer, dtype, seed):
    residuals = randn(num, width, dim, seed=seed, dtype=dtype)
    codebook = randn(codebook_size, dim, seed=seed + 1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(search, "BUFFER", buffer)
        parent, index = nearest_ways(residuals, codebook, beam_size)

    beam_size = min(beam_size, width * codebook_size)
    assert parent.shape == index.shape == (num, beam_size)
    assert all(len(set(ways)) == beam_size for ways in (parent * codebook_size + index).tolist())
    left = residuals.double().take_along_dim(parent[..., None], 1) - codebook.double()[index]
    every = squared_distances(residuals.flatten(0, 1), codebook).view(num, width * codebook_size)
    best = every.topk(beam_size, largest=False).values
    torch.testing.assert_close(left.square().sum(-1), best, rtol=1e-4, atol=1e-4)


def test_ways_far_from_the_origin():
    residuals, codebook = randn(200, 2, 4) + 1e4, randn(64, 4, seed=1) + 1e4
    parent, index = nearest_ways(residuals, codebook, 1)
    left = residuals.double().take_along_dim(parent[..., None], 1) - codebook.double()[index]
    best = squared_distances(residuals.flatten(0, 1), codebook).view(200, -1).amin(1, keepdim=True)
    torch.testing.assert_close(left.square().sum(-1), best, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("x", "codebook", "sentence"),
    [
        ((5, 3), (8, 4), "x must have size dim = 4 along its last axis, got shape (5, 3)"),
        ((), (8, 4), "x must have size dim = 4 along its last axis, got shape ()"),
        ((5, 4), (0, 4), "codebook must have shape (K, dim) with K ≥ 1, got (0, 4)"),
        ((5, 4), (4,), "codebook must have shape (K, dim) with K ≥ 1, got (4,)"),
    ],
)
def test_bad_shapes(x, codebook, sentence):
    with pytest.raises(ValueError) as info:
        nearest(torch.ones(x), torch.ones(codebook))
    assert str(info.value) == sentence
