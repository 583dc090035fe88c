import faiss
import pytest
import torch

from rvq_tutorial import ResidualVectorQuantizer, StoredVectors, VectorQuantizer, distance_tables, tables

DIM, SIZE, STAGES = 8, 16, 3


def randn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def make(offset=0.0, **settings):
    codebooks = randn(STAGES, SIZE, DIM) * torch.tensor([1, 0.5, 0.25])[:, None, None]
    codebooks[0] += offset
    return ResidualVectorQuantizer.from_pretrained(codebooks, **settings)


def some_indices(num, stages=STAGES, low=-1):
    return torch.randint(low, SIZE, (num, stages), generator=torch.Generator().manual_seed(1))


def squared_distances(queries, vectors):
    """All of them, by the definition, computed in float64: (Q, N)."""
    return (queries.double()[:, None] - vectors.double()).square().sum(-1).float()


@pytest.fixture(params=[(64, 8192), (3, 7)], ids=["at once", "in parts"])
def parts(request, monkeypatch):
    monkeypatch.setattr(tables, "QUERIES", request.param[0])
    monkeypatch.setattr(tables, "STORED", request.param[1])


@pytest.mark.usefixtures("parts")
class TestDistances:
    @pytest.mark.parametrize("offset", [0, 1000, 1e5])
    @pytest.mark.parametrize("stages", [1, 2, STAGES])
    def test_equal_those_to_the_decoded_vectors(self, stages, offset):
        quantizer, indices, queries = make(offset), some_indices(50, stages, low=0), randn(10, DIM, seed=2) + offset
        expected = squared_distances(queries, quantizer.decode(indices))
        result = StoredVectors(quantizer, indices).distances(queries)
        torch.testing.assert_close(result, expected, rtol=1e-5 + 1e-7 * offset, atol=1e-5)

    def test_a_skipped_stage_adds_nothing(self):
        quantizer, indices, queries = make(offset=3), some_indices(50), randn(10, DIM, seed=2)
        indices[0] = -1
        result = StoredVectors(quantizer, indices).distances(queries)
        torch.testing.assert_close(result, squared_distances(queries, quantizer.decode(indices)), rtol=1e-5, atol=1e-4)
        torch.testing.assert_close(result[:, 0], queries.square().sum(1))

    def test_tables_say_the_same(self):
        quantizer, indices, queries = make(offset=3), some_indices(50), randn(10, DIM, seed=2)
        stored = StoredVectors(quantizer, indices)
        result = distance_tables(quantizer, queries)
        assert [table.shape for table in result] == STAGES * [(10, SIZE + 1)]
        total = sum(table[:, index] for table, index in zip(result, indices.unbind(1), strict=True)) + stored.norms
        torch.testing.assert_close(total, stored.distances(queries))

    def test_the_nearest_in_order(self):
        quantizer, indices, queries = make(), some_indices(50), randn(10, DIM, seed=2)
        expected = squared_distances(queries, quantizer.decode(indices))
        for k in (1, 9, 50):
            distances, positions = StoredVectors(quantizer, indices).nearest(queries, k)
            torch.testing.assert_close(distances, expected.topk(k, largest=False).values)
            torch.testing.assert_close(distances, expected.gather(1, positions))
            assert all(len(set(row)) == k for row in positions.tolist())

    @pytest.mark.parametrize("dtype", [torch.uint8, torch.uint16, torch.int16, torch.int32])
    def test_any_integers_are_indices(self, dtype):
        quantizer, indices, queries = make(), some_indices(50, low=0), randn(10, DIM, seed=2)
        expected = StoredVectors(quantizer, indices).distances(queries)
        assert torch.equal(StoredVectors(quantizer, indices.to(dtype)).distances(queries), expected)

    def test_of_codebooks_of_different_sizes(self):
        quantizer, queries = ResidualVectorQuantizer(DIM, [16, 4, 8], 3).fit(randn(300, DIM)), randn(10, DIM, seed=2)
        indices = quantizer.encode(randn(50, DIM, seed=3))
        indices[::4, 1] = -1
        result = StoredVectors(quantizer, indices).distances(queries)
        torch.testing.assert_close(result, squared_distances(queries, quantizer.decode(indices)), rtol=1e-5, atol=1e-4)
        indices[0, 1] = 4
        with pytest.raises(ValueError, match="indices must lie between -1 and 3, got -1 to 4"):
            StoredVectors(quantizer, indices)

    def test_of_a_vector_quantizer(self):
        quantizer = VectorQuantizer.from_pretrained(randn(SIZE, DIM))
        indices, queries = some_indices(50, low=0)[:, 0], randn(10, DIM, seed=2)
        result = StoredVectors(quantizer, indices[:, None]).distances(queries)
        torch.testing.assert_close(result, squared_distances(queries, quantizer.decode(indices)), rtol=1e-5, atol=1e-4)

    def test_no_queries_and_no_vectors(self):
        quantizer = make()
        stored = StoredVectors(quantizer, some_indices(50))
        assert stored.distances(torch.zeros(0, DIM)).shape == (0, 50)
        assert [result.shape for result in stored.nearest(torch.zeros(0, DIM), 4)] == [(0, 4), (0, 4)]
        assert StoredVectors(quantizer, some_indices(0)).distances(randn(10, DIM)).shape == (10, 0)


def test_never_negative():
    quantizer, indices = make(), some_indices(500)
    assert (StoredVectors(quantizer, indices).distances(quantizer.decode(indices)) >= 0).all()


def test_whatever_the_types_float32s_digits_count():
    quantizer, indices, queries = make(), some_indices(50), randn(10, DIM, seed=2)
    stored = StoredVectors(quantizer, indices)
    expected = stored.distances(queries)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(stored.distances(queries), expected)
    for dtype in (torch.float16, torch.float64):
        assert torch.equal(stored.distances(queries.to(dtype)), stored.distances(queries.to(dtype).float()))
    half = make().half()
    result = StoredVectors(half, indices).distances(queries)
    torch.testing.assert_close(result, squared_distances(queries, half.float().decode(indices)))


def test_same_neighbours_as_faiss():
    """Of its own residual quantizer, searched with its own tables and norms."""
    vectors, queries = randn(3000, 16), randn(70, 16, seed=2)
    index = faiss.IndexResidualQuantizer(16, 4, 8, faiss.METRIC_L2, faiss.AdditiveQuantizer.ST_norm_float)
    index.train(vectors.numpy())
    index.add(vectors.numpy())
    expected, neighbours = (torch.from_numpy(a) for a in index.search(queries.numpy(), 11))

    codebooks = torch.from_numpy(faiss.vector_to_array(index.rq.codebooks).reshape(4, 256, 16))
    codes = torch.from_numpy(faiss.vector_to_array(index.codes).reshape(3000, -1))
    quantizer = ResidualVectorQuantizer.from_pretrained(codebooks)
    distances, positions = StoredVectors(quantizer, codes[:, :4]).nearest(queries, 10)  # after them comes the norm
    torch.testing.assert_close(distances, expected[:, :10], rtol=1e-4, atol=1e-4)
    clear = expected.diff(dim=1).amin(1) > 1e-4
    assert clear.float().mean() > 0.9
    assert torch.equal(positions[clear], neighbours[clear, :10])


@pytest.mark.parametrize(
    ("indices", "error", "sentence"),
    [
        ([[0, 16, 0]], ValueError, "indices must lie between -1 and 15, got 0 to 16"),
        ([[0, 0, -2]], ValueError, "indices must lie between -1 and 15, got -2 to 0"),
        ([[0, 0, 0, 0]], ValueError, "indices must have shape (N, 1 to 3 stages), got (1, 4)"),
        ([0, 0, 0], ValueError, "indices must have shape (N, 1 to 3 stages), got (3,)"),
        ([[0.0]], TypeError, "indices must be an integer tensor, got torch.float32"),
    ],
)
def test_bad_indices(indices, error, sentence):
    with pytest.raises(error) as info:
        StoredVectors(make(), torch.tensor(indices))
    assert str(info.value) == sentence


@pytest.mark.parametrize(
    ("queries", "error", "sentence"),
    [
        (torch.zeros(5, 7), ValueError, "queries must have shape (Q, dim) with dim = 8, got (5, 7)"),
        (torch.zeros(8), ValueError, "queries must have shape (Q, dim) with dim = 8, got (8,)"),
        (torch.zeros(5, 8).long(), TypeError, "queries must be a floating-point tensor, got torch.int64"),
        (torch.full((5, 8), torch.nan), ValueError, "queries must be finite, got NaN or infinity among its values"),
    ],
)
def test_bad_queries(queries, error, sentence):
    stored = StoredVectors(make(), some_indices(5))
    for search in (stored.distances, lambda queries: stored.nearest(queries, 2)):
        with pytest.raises(error) as info:
            search(queries)
        assert str(info.value) == sentence


@pytest.mark.parametrize("k", [0, 6, 2.5])
def test_bad_k(k):
    with pytest.raises(ValueError, match=f"k must be a whole number from 1 to 5, got {k}"):
        StoredVectors(make(), some_indices(5)).nearest(randn(3, DIM), k)
