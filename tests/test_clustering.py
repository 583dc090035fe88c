import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.cluster import KMeans

from rvq_tutorial import clustering, kmeans, nearest


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def assert_consistent(x, result):
    """The counts and the error are those of these centroids, and no number is missing."""
    labels = nearest(x, result.centroids)
    assert torch.equal(result.counts, torch.bincount(labels, minlength=len(result.centroids)))
    error = (x.double() - result.centroids[labels].double()).square().mean().item()
    assert result.mse == pytest.approx(error, rel=1e-3, abs=1e-9 + 1e-12 * x.double().square().mean().item())
    assert result.centroids.isfinite().all()


@settings(max_examples=40, deadline=None)
@given(data=st.data(), num=st.integers(1, 80), dim=st.integers(1, 6), seed=st.integers(0, 2**20))
def test_result_is_consistent(data, num, dim, seed):
    num_clusters = data.draw(st.integers(1, num))
    dtype = data.draw(st.sampled_from([torch.float32, torch.float64, torch.bfloat16, torch.float16]))
    x = torch.randn(num, dim, generator=seeded(seed)).to(dtype)
    result = kmeans(x, num_clusters, num_iters=data.draw(st.integers(1, 5)), generator=seeded(seed))
    assert result.centroids.shape == (num_clusters, dim)
    assert result.centroids.dtype == torch.promote_types(dtype, torch.float32)
    assert result.counts.dtype == torch.int64
    assert_consistent(x.to(result.centroids.dtype), result)


def test_settles_where_every_centroid_is_the_mean_of_its_vectors():
    x = torch.randn(500, 2, generator=seeded())
    result = kmeans(x, 8, num_iters=200, generator=seeded())
    labels = nearest(x, result.centroids)
    means = torch.stack([x[labels == k].mean(0) for k in range(8)])
    torch.testing.assert_close(result.centroids, means, atol=1e-5, rtol=0)


def test_as_good_as_scikit_learn():
    x = torch.randn(4000, 4, generator=seeded())
    ours = kmeans(x, 32, num_iters=25, generator=seeded())
    theirs = KMeans(32, n_init=1, max_iter=25, random_state=0).fit(x.numpy())
    assert ours.mse * x.numel() < 1.02 * theirs.inertia_


def test_the_start_finds_clusters_far_apart():
    """One step of Lloyd's can't move a centroid from one cluster to another: the start has to hit every one."""
    places = torch.cartesian_prod(torch.arange(8.0), torch.arange(8.0)) * 100
    for seed in range(10):
        x = places.repeat(50, 1) + torch.randn(50 * 64, 2, generator=seeded(seed)) * 0.1
        assert kmeans(x, 64, num_iters=3, generator=seeded(seed)).mse < 0.011


@pytest.mark.parametrize("num_clusters", [1, 3, 8])
@pytest.mark.parametrize("value", [0.0, 1e4])
def test_all_vectors_equal(num_clusters, value):
    x = torch.full((8, 3), value)
    result = kmeans(x, num_clusters)
    assert torch.equal(result.centroids, x[:num_clusters])
    assert result.mse == 0
    assert result.counts.sum() == 8


def test_more_clusters_than_different_vectors():
    x = torch.eye(3).repeat(10, 1)
    result = kmeans(x, 10, generator=seeded())
    assert result.mse < 1e-12
    assert_consistent(x, result)


def test_as_many_clusters_as_vectors():
    x = torch.randn(40, 3, generator=seeded())
    result = kmeans(x, 40, generator=seeded())
    assert result.mse < 1e-12
    assert torch.equal(result.counts, torch.ones(40, dtype=torch.int64))


def test_one_vector():
    x = torch.randn(1, 3)
    assert torch.equal(kmeans(x, 1).centroids, x)


def test_two_far_vectors_in_a_crowd_get_centroids_of_their_own():
    x = torch.cat([torch.randn(5000, 2, generator=seeded()) * 0.01, torch.tensor([[100.0, 0.0], [0.0, 100.0]])])
    for seed in range(5):
        assert kmeans(x, 4, num_iters=10, generator=seeded(seed)).mse < 1e-3


def test_an_empty_cluster_starts_again_where_vectors_are_served_worst(monkeypatch):
    """From the worst start there is, all centroids at one place: the two left empty go to the two far vectors."""
    monkeypatch.setattr(clustering, "_spread_out", lambda x, num_clusters, generator: x[:1].repeat(num_clusters, 1))
    x = torch.cat([torch.randn(50, 2, generator=seeded()), torch.tensor([[100.0, 0.0], [0.0, 90.0]])])
    result = kmeans(x, 3, num_iters=1)
    torch.testing.assert_close(result.centroids[1:], x[50:])
    assert result.counts.min() > 0


@pytest.mark.parametrize(("num", "num_clusters"), [(300_000, 1), (50_000, 16)])
def test_far_from_the_origin_it_is_as_good_as_near(num, num_clusters):
    far = torch.randn(num, 2, generator=seeded()) + 5000
    near = far.double() - 5000
    expected = kmeans(near, num_clusters, num_iters=5, generator=seeded()).mse
    result = kmeans(far, num_clusters, num_iters=5, generator=seeded())
    assert result.mse == pytest.approx(expected, rel=0.05)
    error = near - (result.centroids.double() - 5000)[nearest(far, result.centroids)]
    assert error.square().mean().item() == pytest.approx(expected, rel=0.05)


def test_a_generator_fixes_the_result_and_leaves_the_global_one_alone():
    x = torch.randn(200, 3, generator=seeded())
    state = torch.get_rng_state()
    first, second = kmeans(x, 8, generator=seeded(1)), kmeans(x, 8, generator=seeded(1))
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(first.centroids, second.centroids)
    assert not torch.equal(first.centroids, kmeans(x, 8, generator=seeded(2)).centroids)


def test_input_is_left_alone_and_takes_no_gradient():
    x = torch.randn(50, 3, generator=seeded()).requires_grad_()
    before = x.detach().clone()
    result = kmeans(x, 4)
    assert torch.equal(x, before)
    assert not result.centroids.requires_grad


@pytest.mark.parametrize(
    ("x", "arguments", "error", "sentence"),
    [
        ([[1.0]], {}, TypeError, "x must be a torch.Tensor, got list"),
        (torch.ones(9, 2, dtype=torch.int64), {}, TypeError, "x must be a floating-point tensor, got torch.int64"),
        (torch.ones(0, 2), {}, ValueError, r"x must not be empty, got shape \(0, 2\)"),
        (torch.tensor([[torch.nan]]), {}, ValueError, "x must be finite, got NaN or infinity among its values"),
        (torch.tensor([[-torch.inf]]), {}, ValueError, "x must be finite, got NaN or infinity among its values"),
        (torch.ones(9), {}, ValueError, r"x must have shape \(N, dim\), got \(9,\)"),
        (torch.ones(3, 2), {}, ValueError, "x must hold at least num_clusters = 4 vectors, got 3"),
        (torch.ones(9, 2), {"num_clusters": 0}, ValueError, "num_clusters must be a whole number ≥ 1, got 0"),
        (torch.ones(9, 2), {"num_clusters": 2.0}, ValueError, "num_clusters must be a whole number ≥ 1, got 2.0"),
        (torch.ones(9, 2), {"num_iters": -1}, ValueError, "num_iters must be a whole number ≥ 1, got -1"),
    ],
)
def test_bad_input(x, arguments, error, sentence):
    with pytest.raises(error, match=f"^{sentence}$"):
        kmeans(x, **{"num_clusters": 4, **arguments})
