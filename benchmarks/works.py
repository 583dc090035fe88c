"""The works that are measured. Sizes are those of the course's design: N = 16,384 vectors of size 64 unless said."""

from collections.abc import Callable
from functools import partial

import faiss
import torch
import torch.nn.functional as F
from sklearn.cluster import KMeans
from sklearn.metrics import pairwise_distances_argmin
from torch import Tensor, nn

from benchmarks.peers import (
    Bypass,
    LucidrainsLatents,
    LucidrainsResidual,
    OneHotResidual,
    PlainLoop,
    faiss_flat,
    faiss_residual,
)
from benchmarks.report import Section
from benchmarks.timing import Work, interleaved, peak_extra_megabytes
from rvq_tutorial import ResidualVectorQuantizer, kmeans, nearest
from rvq_tutorial.autoencoder import VQVAE, Decoder, Encoder, pretrained
from rvq_tutorial.metrics import shannon_distortion
from rvq_tutorial.search import BUFFER

N, DIM, STAGES = 16_384, 64, 8
LUCIDRAINS = "vector-quantize-pytorch"
WITHOUT_ROTATION = f"{LUCIDRAINS}, no rotation trick"


def search(short: bool) -> Section:
    """One nearest-codeword search."""
    values = {}
    for size in (64, 1024, 4096):
        x, codebook = torch.randn(N, DIM), torch.randn(size, DIM)
        index, x_numpy, codebook_numpy = faiss_flat(codebook), x.numpy(), codebook.numpy()
        works = {
            "ours": lambda x=x, c=codebook: nearest(x, c),
            "bare matmul": _bare_matmul(x, codebook),
            "faiss": lambda i=index, x=x_numpy: i.search(x, 1),
            "torch.cdist": lambda x=x, c=codebook: torch.cdist(x, c).argmin(1),
            "scikit-learn": lambda x=x_numpy, c=codebook_numpy: pairwise_distances_argmin(x, c),
        }
        values[f"K = {size}"] = interleaved(works, 5 if short else 31, f"search, K = {size}")
    return _in_ms("Search", values)


def _bare_matmul(x: Tensor, codebook: Tensor) -> Work:
    """All of x·cᵀ, a few rows at a time into one reused buffer: what no exact search can do without."""
    step = min(len(x), BUFFER // len(codebook))
    transposed, buffer = codebook.t().contiguous(), torch.empty(step, len(codebook))

    def work() -> None:
        for rows in x.split(step):
            torch.mm(rows, transposed, out=buffer[: len(rows)])

    return work


def training_step(short: bool) -> Section:
    """Forward and backward through 8 stages that learn by moving averages."""
    values = {}
    for num, size, rounds in ((N, 1024, 7), (N, 4096, 5), (256, 64, 101)):
        names = "ours", "one-hot", LUCIDRAINS, WITHOUT_ROTATION
        works = {name: _training_step(name, size, num) for name in names}
        row = f"N = {num:,}, K = {size}"
        values[row] = interleaved(works, 1 + rounds // 20 if short else rounds, f"training step, {row}")
    return _in_ms("Training step, 8 stages", values)


def one_frame(short: bool) -> Section:
    """A single vector of size 128 at a time, as in a stream of sound. Theirs has codebooks of its own."""
    codebooks = torch.randn(STAGES, 1024, 128)
    x = torch.randn(1, 128)
    ours, plain = ResidualVectorQuantizer.from_pretrained(codebooks).eval(), PlainLoop(codebooks)
    lucidrains = LucidrainsResidual(128, 1024, STAGES).eval().quantizer
    indices = plain.encode(x)
    assert torch.equal(ours.encode(x), indices)
    encoders = {
        "ours": lambda: ours.encode(x),
        "plain loop": lambda: plain.encode(x),
        LUCIDRAINS: lambda: lucidrains(x[None])[1],
    }
    decoders = {
        "ours": lambda: ours.decode(indices),
        "plain loop": lambda: plain.decode(indices),
        LUCIDRAINS: lambda: lucidrains.get_output_from_indices(indices[None]),
    }
    rounds = 31 if short else 301
    with torch.no_grad():
        values = {
            "encode": interleaved(encoders, rounds, "one frame, encode"),
            "decode": interleaved(decoders, rounds, "one frame, decode"),
        }
    return _in_ms("One frame, dim 128, 8 stages, K = 1024", values, digits=3)


def autoencoder_step(short: bool) -> Section:
    """The training step that made the shipped model: 64 crops of 64 × 64 pixels, with different quantizers in it."""
    shipped, _ = pretrained.load()
    settings = {name: getattr(shipped.encoder, name) for name in ("dim", "width", "num_blocks")}
    residual = {name: getattr(shipped.quantizer, name) for name in ("dim", "codebook_size", "num_quantizers")}
    residual["quantize_dropout"] = 0.0  # theirs would drop stages in every step, and save their time
    quantizers = {
        "ours": ResidualVectorQuantizer(**residual, channel_dim=1),
        "no quantizer": Bypass(),
        LUCIDRAINS: LucidrainsLatents(**residual),
    }
    images = torch.rand(64, 3, 64, 64)
    works = {}
    for name, quantizer in quantizers.items():
        model = VQVAE(Encoder(**settings), quantizer, Decoder(**settings))
        works[name] = _autoencoder_step(model, images)
    seconds = interleaved(works, 7 if short else 31, "autoencoder step")
    return _in_ms("Training step of the autoencoder", {"64 crops, 8 stages of K = 256": seconds})


def _autoencoder_step(model: VQVAE, images: Tensor) -> Work:
    optimizer = torch.optim.Adam(model.parameters())

    def work() -> None:
        output = model(images)
        optimizer.zero_grad()
        (F.mse_loss(output.reconstruction, images) + output.loss).backward()
        optimizer.step()

    return work


def evaluation(short: bool) -> Section:
    """8 stages in eval mode. faiss encodes and decodes with our codebooks."""
    x = torch.randn(N, DIM)
    ours = _quantizer("ours", 1024).fit(x).eval()
    lucidrains = _quantizer(LUCIDRAINS, 1024).eval()
    one_hot = _quantizer("one-hot", 1024).eval()
    peer, x_numpy = faiss_residual(ours.codebooks), x.numpy()
    peer.max_beam_size = 1
    works = {
        "ours": lambda: ours(x),
        "faiss": lambda: peer.decode(peer.compute_codes(x_numpy)),
        "one-hot": lambda: one_hot(x),
        LUCIDRAINS: lambda: lucidrains(x),
    }
    with torch.no_grad():
        return _in_ms("Eval, 8 stages", {"K = 1024": interleaved(works, 2 if short else 9, "eval")})


def memory(short: bool) -> Section:
    """How far one training step raises the memory above what the inputs take."""
    rows = {f"N = {N:,}": (("ours", "one-hot", LUCIDRAINS), N)}
    if not short:
        rows[f"N = {16 * N:,}"] = (("ours",), 16 * N)
    values = {
        row: {name: [peak_extra_megabytes(_warm_training_step, name, 4096, num)] for name in names}
        for row, (names, num) in rows.items()
    }
    for row, (_, num) in rows.items():
        values[row]["one N × dim tensor"] = [num * DIM * 4 / 2**20]
    return Section("Peak extra memory, training step, 8 stages, K = 4096", "MB", values)


def clustering(short: bool) -> Section:
    """25 iterations of k-means on 100,000 vectors of size 16, K = 256."""
    x = torch.randn(100_000, 16)
    x_numpy = x.numpy()
    # Without the bound, faiss looks at 256 vectors a cluster only.
    peer = faiss.Kmeans(16, 256, niter=25, max_points_per_centroid=len(x))
    works = {
        "ours": lambda: kmeans(x, 256),
        "faiss": lambda: peer.train(x_numpy),
        "scikit-learn": lambda: KMeans(256, n_init=1, max_iter=25, tol=0).fit(x_numpy),
    }
    return _in_ms("k-means", {"100k × 16, K = 256": interleaved(works, 2 if short else 7, "k-means")})


def clustering_quality(short: bool) -> Section:
    """The mean squared error that k-means reaches, for several seeds."""
    x = torch.randn(100_000, 16)
    x_numpy, seeds = x.numpy(), range(2 if short else 5)

    def faiss_mse(seed: int) -> float:
        peer = faiss.Kmeans(16, 256, niter=25, max_points_per_centroid=len(x), seed=seed + 1)
        peer.train(x_numpy)
        return float(peer.index.search(x_numpy, 1)[0].mean() / 16)

    def our_mse(seed: int) -> float:
        return kmeans(x, 256, generator=torch.Generator().manual_seed(seed)).mse

    works = {"ours": our_mse, "faiss": faiss_mse}
    values = {name: [mse(seed) for seed in seeds] for name, mse in works.items()}
    return Section("k-means, mean squared error", "", {"100k × 16, K = 256": values})


def beams(short: bool) -> Section:
    """Encoding with a beam of 4: 8 stages, K = 256, dim 8, the same codebooks."""
    x, quantizer = torch.randn(N, 8), ResidualVectorQuantizer(8, 256, STAGES, beam_size=4).fit(torch.randn(N, 8)).eval()
    peer, x_numpy = faiss_residual(quantizer.codebooks), x.numpy()
    peer.max_beam_size = 4
    works = {"ours": lambda: quantizer.encode(x), "faiss": lambda: peer.compute_codes(x_numpy)}
    return _in_ms("Beam of 4, 8 stages, dim 8", {"K = 256": interleaved(works, 2 if short else 9, "beam")})


def rate_distortion(short: bool) -> Section:
    """Held-out mean squared error on N(0, I), dim 8, K = 256, beside Shannon's bound and faiss, on equal data."""
    train, x = torch.randn(2, N if short else 4 * N, 8)
    beam_size = 4 if short else 16
    greedy, beam = (
        ResidualVectorQuantizer(8, 256, STAGES, beam_size=size).fit(train).eval() for size in (1, beam_size)
    )
    peer = faiss.ResidualQuantizer(8, STAGES, 8)
    peer.max_beam_size = beam_size
    peer.train(train.numpy())
    peer_codebooks = torch.from_numpy(faiss.vector_to_array(peer.codebooks).reshape(STAGES, 256, 8))

    values = {}
    for stages in (1, 2, 3, 4, 6, 8):
        prefix = faiss_residual(peer_codebooks[:stages].contiguous())
        prefix.max_beam_size = beam_size
        rebuilt = torch.from_numpy(prefix.decode(prefix.compute_codes(x.numpy())))
        values[f"M = {stages}"] = {
            "Shannon": [shannon_distortion(stages)],
            "ours, greedy": [_mse(x, greedy.decode(greedy.encode(x, num_quantizers=stages)))],
            f"ours, beam {beam_size}": [_mse(x, beam.decode(beam.encode(x, num_quantizers=stages)))],
            f"faiss, beam {beam_size}": [_mse(x, rebuilt)],
        }
    return Section(f"Distortion on N(0, I), dim 8, held out; all fitted on the same {len(train):,} vectors", "", values)


SECTIONS: tuple[Callable[[bool], Section], ...] = (
    search,
    one_frame,
    training_step,
    autoencoder_step,
    evaluation,
    memory,
    clustering,
    clustering_quality,
    beams,
    rate_distortion,
)


def _quantizer(name: str, size: int) -> nn.Module:
    makers = {
        "ours": ResidualVectorQuantizer,
        "one-hot": OneHotResidual,
        LUCIDRAINS: LucidrainsResidual,
        WITHOUT_ROTATION: partial(LucidrainsResidual, rotation_trick=False),
    }
    return makers[name](DIM, size, STAGES)


def _training_step(name: str, size: int, num: int) -> Work:
    torch.manual_seed(0)
    quantizer = _quantizer(name, size)
    x = torch.randn(num, DIM, requires_grad=True)

    def work() -> None:
        x.grad = None
        output = quantizer(x)
        quantized, loss = (output.quantized, output.loss) if name == "ours" else output
        (quantized.mean() + loss).backward()

    return work


def _warm_training_step(name: str, size: int, num: int) -> Work:
    """A training step; a small one has been done, so that threads and libraries are there."""
    torch.set_num_threads(2)
    _training_step(name, size, 1024)()
    return _training_step(name, size, num)


def _mse(x: Tensor, rebuilt: Tensor) -> float:
    return (x - rebuilt).square().mean().item()


def _in_ms(title: str, seconds: dict[str, dict[str, list[float]]], digits: int = 1) -> Section:
    values = {
        work: {name: [1000 * value for value in times] for name, times in row.items()} for work, row in seconds.items()
    }
    return Section(title, "ms", values, digits)
