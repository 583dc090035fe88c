"""Thirteen faults of well-known implementations. Each test holds the faulty way and the right one to the same check."""

import pytest
import torch
import torch.nn.functional as F

from rvq_tutorial import ResidualVectorQuantizer, VectorQuantizer, kmeans, nearest


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def tells_apart(check, right, faulty):
    """`check` passes what is right and fails what is faulty."""
    check(right)
    with pytest.raises(AssertionError):
        check(faulty)


class SumAndCount:
    """The textbook's EMA codebook, done right; each faulty one below changes a single line of it."""

    decay = 0.99

    def __init__(self, codebook):
        self.codebook = codebook.clone()
        self.count = torch.ones(len(codebook))
        self.sum = codebook.clone()

    def fit(self, x):
        self.codebook, counts, _ = kmeans(x, len(self.codebook))
        self.count = counts.float()
        self.sum = self.codebook * self.count[:, None]

    def step(self, x):
        one_hot = F.one_hot(nearest(x, self.codebook), len(self.codebook)).float()
        self.count = self.decay * self.count + (1 - self.decay) * one_hot.sum(0)
        self.sum = self.decay * self.sum + (1 - self.decay) * one_hot.T @ x
        self.codebook = self.sum / self.count[:, None]
        self.restart(self.dead(), x)

    def dead(self):
        return self.count / self.count.sum() < 0.1 / len(self.count)

    def restart(self, dead, x):
        uniform = self.count.sum() / len(self.count)
        self.codebook[dead] = x[torch.randint(len(x), (int(dead.sum()),))]
        self.count[dead] = uniform
        self.sum[dead] = self.codebook[dead] * uniform


class Ours:
    """Our quantizer behind the same three names."""

    def __init__(self, codebook):
        self.quantizer = VectorQuantizer(codebook.shape[1], len(codebook))
        self.quantizer.codebook.copy_(codebook)
        self.quantizer.stages[0].usage.fill_(1 / len(codebook))

    @property
    def codebook(self):
        return self.quantizer.codebook

    def fit(self, x):
        self.quantizer.fit(x)

    def step(self, x):
        self.quantizer(x)


def error(x, codebook):
    return F.mse_loss(codebook[nearest(x, codebook)], x).item()


# 1. The classic snippet permutes its input to (B, H, W, C), the quantized tensor back, and compares the two.


def test_1_loss_between_two_layouts():
    quantizer = VectorQuantizer(5, 8, channel_dim=1).eval()

    def classic(images):
        inputs = images.permute(0, 2, 3, 1).contiguous()
        quantized = quantizer.codebook[nearest(inputs, quantizer.codebook)].permute(0, 3, 1, 2).contiguous()
        return (quantized - inputs).square().mean()

    def pulls_every_vector_to_its_codeword(commitment_loss):
        images = torch.randn(2, 5, 5, 5, requires_grad=True)  # C = H = W: the fault goes unnoticed
        vectors = images.movedim(1, -1)
        codewords = quantizer.codebook[nearest(vectors, quantizer.codebook)]
        gradient = torch.autograd.grad(commitment_loss(images), images)[0].movedim(1, -1)
        assert torch.allclose(gradient, 2 * (vectors - codewords) / images.numel(), atol=1e-6)

    tells_apart(pulls_every_vector_to_its_codeword, lambda images: quantizer(images).commitment_loss, classic)
    with pytest.raises(RuntimeError, match="must match"):
        classic(torch.randn(2, 5, 4, 3))
    assert quantizer(torch.randn(2, 5, 4, 3)).loss.isfinite()


# 2. The residual is taken from the straight-through output, x − [x + sg(q₁ − x)]: constant in x.


def test_2_residual_without_gradient():
    quantizer = ResidualVectorQuantizer(4, 8, 4).eval()

    def stages_summed(x, num_quantizers):
        """Ours is the mean over the stages."""
        return num_quantizers * quantizer(x, num_quantizers=num_quantizers).commitment_loss

    def encodec(x, num_quantizers):
        residual, loss = x, 0.0
        for codebook in quantizer.codebooks[:num_quantizers]:
            chosen = codebook[nearest(residual, codebook)]
            loss = loss + F.mse_loss(residual, chosen)
            residual = residual - (residual + (chosen - residual).detach())
        return loss

    def every_stage_has_a_commitment_gradient(commitment_loss):
        x = torch.randn(20, 4, requires_grad=True)
        before = torch.zeros_like(x)
        for m in range(1, 5):
            gradient = torch.autograd.grad(commitment_loss(x, m), x)[0]
            assert not torch.allclose(gradient, before, atol=1e-6)
            before = gradient

    tells_apart(every_stage_has_a_commitment_gradient, stages_summed, encodec)


# 3. One straight-through per stage, summed: the decoder's gradient reaches the encoder M times.


def test_3_gradient_times_the_number_of_stages():
    quantizer = ResidualVectorQuantizer(4, 8, 4).eval()

    def one_straight_through_per_stage(x):
        residual, total = x, 0.0
        for codebook in quantizer.codebooks:
            chosen = codebook[nearest(residual, codebook)]
            total = total + (residual + (chosen - residual).detach())
            residual = residual - chosen.detach()
        return total

    def jacobian_is_the_identity(quantize):
        jacobian = torch.autograd.functional.jacobian(quantize, torch.randn(4))
        assert torch.allclose(jacobian, torch.eye(4))

    tells_apart(jacobian_is_the_identity, lambda x: quantizer(x).quantized, one_straight_through_per_stage)


# 4. The k-means start is thrown away: the EMA's sum is set to the mean, not to mean × count.


class StartWithoutCount(SumAndCount):
    def fit(self, x):
        super().fit(x)
        self.sum = self.codebook.clone()


@pytest.mark.parametrize("right", [Ours, SumAndCount])
def test_4_first_step_wrecks_the_start(right):
    def first_step_keeps_the_start(make):
        x = torch.randn(2000, 4)
        codebook = make(torch.randn(16, 4))
        codebook.fit(x)
        before = error(x, codebook.codebook)
        codebook.step(x)
        assert error(x, codebook.codebook) < 1.02 * before

    tells_apart(first_step_keeps_the_start, right, StartWithoutCount)


# 5. A dead codeword's row is replaced, and the same step's EMA overwrites it.


class RestartUndone(SumAndCount):
    def restart(self, dead, x):
        self.codebook[dead] = x[torch.randint(len(x), (int(dead.sum()),))]
        self.codebook = self.sum / self.count[:, None]


@pytest.mark.parametrize("right", [Ours, SumAndCount])
def test_5_restart_undone(right):
    def a_codeword_far_away_comes_home_and_stays(make):
        start = torch.randn(16, 4)
        start[5] = 1000
        codebook = make(start)
        for _ in range(400):
            codebook.step(torch.randn(200, 4))
        assert codebook.codebook[5].norm() < 10

    tells_apart(a_codeword_far_away_comes_home_and_stays, right, RestartUndone)


# 6. An absolute threshold for dead codewords: wrong for any other codebook size or batch.


class AbsoluteThreshold(SumAndCount):
    def dead(self):
        return self.count < 2


@pytest.mark.parametrize("right", [Ours, SumAndCount])
def test_6_absolute_threshold(right):
    def what_is_used_stays(make):
        """64 codewords and 16 vectors a step: every codeword is used, and none is used twice a step."""
        places = torch.randn(64, 4) * 100
        codebook = make(places)
        for _ in range(30):
            codebook.step(places[torch.randperm(64)[:16]] + torch.randn(16, 4))
        assert (codebook.codebook - places).norm(dim=1).max() < 10

    def what_is_not_used_goes(make):
        """One codeword is chosen by 1 vector in 400, a 200th of the uniform share, but that is 5 of a batch of 2000."""
        x = torch.zeros(2000, 2)
        x[:5] = 1
        codebook = make(torch.randn(2, 2))
        codebook.fit(x)
        assert codebook.codebook.max() > 0.99
        codebook.step(x)
        assert codebook.codebook.max() < 0.01

    tells_apart(what_is_used_stays, right, AbsoluteThreshold)
    tells_apart(what_is_not_used_goes, right, AbsoluteThreshold)


# 7. Laplace smoothing stored back into the counts: a codeword never used, with a sum that isn't zero, explodes.


class SmoothingStored(SumAndCount):
    def __init__(self, codebook):
        super().__init__(codebook)
        self.count = torch.zeros(len(codebook))

    def step(self, x):
        one_hot = F.one_hot(nearest(x, self.codebook), len(self.codebook)).float()
        self.count = self.decay * self.count + (1 - self.decay) * one_hot.sum(0)
        self.sum = self.decay * self.sum + (1 - self.decay) * one_hot.T @ x
        total = self.count.sum()
        self.count = (self.count + 1e-5) / (total + len(self.count) * 1e-5) * total
        self.codebook = self.sum / self.count[:, None]


def test_7_unused_codeword_explodes():
    class Restartless(Ours):
        def __init__(self, codebook):
            super().__init__(codebook)
            self.quantizer.stages[0].dead_code_threshold = 0

    def an_unused_codeword_stays(make):
        codebook = make(torch.tensor([[0.0], [1.0], [9.0]]))
        for _ in range(100):
            codebook.step(torch.tensor([[0.0], [1.0]]))
            assert codebook.codebook.abs().max() < 10

    tells_apart(an_unused_codeword_stays, Restartless, SmoothingStored)


# 8. β on the wrong term.


def test_8_beta_on_the_codebook():
    quantizer = VectorQuantizer(4, 8, commitment_weight=0.1, codebook_update="gradient").eval()

    def taming(x):
        chosen = quantizer.codebook[nearest(x, quantizer.codebook)]
        return F.mse_loss(chosen.detach(), x) + 0.1 * F.mse_loss(chosen, x.detach())

    def beta_holds_back_the_encoder_not_the_codebook(loss):
        x = torch.randn(20, 4, requires_grad=True)
        difference = x.detach() - quantizer.codebook[nearest(x, quantizer.codebook)].detach()
        to_x, to_codebook = torch.autograd.grad(loss(x), [x, quantizer.codebook])
        assert torch.allclose(to_x, 0.1 * 2 * difference / x.numel(), atol=1e-7)
        assert torch.allclose(to_codebook.sum(0), -2 * difference.sum(0) / x.numel(), atol=1e-6)

    tells_apart(beta_holds_back_the_encoder_not_the_codebook, lambda x: quantizer(x).loss, taming)


# 9. Losses summed over the batch: the balance changes with the batch size.


@pytest.mark.parametrize(
    "quantizer", [VectorQuantizer(4, 8, codebook_update="gradient"), ResidualVectorQuantizer(4, 8, 3)]
)
def test_9_loss_grows_with_the_batch(quantizer):
    quantizer.eval()

    def pythae(x):
        return F.mse_loss(quantizer(x).quantized.detach(), x, reduction="none").mean(-1).sum()

    def batch_size_does_not_matter(loss):
        x = torch.randn(10, 4)
        assert torch.allclose(loss(x.repeat(7, 1)), loss(x))

    tells_apart(batch_size_does_not_matter, lambda x: quantizer(x).loss, pythae)


# 10. Normalized search, unnormalized output: what is put out isn't the nearest.


def test_10_output_is_not_the_nearest():
    quantizer = VectorQuantizer(4, 32).eval()

    def dac(x):
        return quantizer.codebook[nearest(F.normalize(x, dim=-1), F.normalize(quantizer.codebook, dim=-1))]

    def output_is_the_nearest_codeword(quantize):
        x = torch.randn(200, 4)
        best = torch.cdist(x, quantizer.codebook).amin(1)
        assert torch.allclose((x - quantize(x)).norm(dim=1), best, atol=1e-4)

    tells_apart(output_is_the_nearest_codeword, lambda x: quantizer(x).quantized, dac)


# 11. A beam search that ranks paths by the sum of their stages' errors, not by the last residual.


def test_11_beam_ranked_by_summed_errors():
    quantizer = ResidualVectorQuantizer(4, 8, 3).eval()

    def by_summed_errors(x):
        residuals, score = x[:, None], torch.zeros(len(x), 1)
        for codebook in quantizer.codebooks:
            left = (residuals[:, :, None] - codebook).flatten(1, 2)
            scores = score.repeat_interleave(8, 1) + left.square().sum(-1)
            score, best = scores.topk(min(64, scores.shape[1]), largest=False)
            residuals = left.take_along_dim(best[..., None], 1)
        return x - residuals[:, 0]

    def by_final_residual(x):
        return quantizer.decode(quantizer.encode(x, beam_size=64))

    def a_beam_of_all_paths_finds_the_best(search):
        x = torch.randn(50, 4)
        every = quantizer.decode(torch.cartesian_prod(*[torch.arange(8)] * 3))
        assert torch.allclose((x - search(x)).norm(dim=1), torch.cdist(x, every).amin(1), atol=1e-4)

    tells_apart(a_beam_of_all_paths_finds_the_best, by_final_residual, by_summed_errors)


# 12. Distances far from the origin, or in half precision: the wrong codeword, most of the time.


def far_from_the_origin(search):
    x, codebook = torch.randn(500, 8) + 1000, torch.randn(300, 8) + 1000
    exact = (x.double()[:, None] - codebook.double()).square().sum(-1).argmin(1)
    assert (search(x, codebook) == exact).float().mean() > 0.99


def under_autocast(search):
    x, codebook = torch.randn(500, 8), torch.randn(300, 8)
    exact = (x.double()[:, None] - codebook.double()).square().sum(-1).argmin(1)
    with torch.autocast("cpu", torch.bfloat16):
        assert (search(x, codebook) == exact).float().mean() > 0.99


def by_matmul(x, codebook):
    return (codebook.square().sum(1) / 2 - x @ codebook.T).argmin(1)


def by_cdist(x, codebook):
    return torch.cdist(x, codebook).argmin(1)


@pytest.mark.parametrize(
    ("check", "faulty"),
    [(far_from_the_origin, by_matmul), (far_from_the_origin, by_cdist), (under_autocast, by_matmul)],
)
def test_12_rounded_distances(check, faulty):
    tells_apart(check, nearest, faulty)


# 13. decode(encode(x)) isn't quite the eval output.


def test_13_round_trip():
    quantizer = ResidualVectorQuantizer(4, 8, 4).eval()

    def usual_straight_through(x, num_quantizers):
        quantized = quantizer.decode(quantizer.encode(x)[..., :num_quantizers])
        return x + (quantized - x).detach()

    def stages_subtracted(x, num_quantizers):
        residual = x
        for codebook in quantizer.codebooks[:num_quantizers]:
            residual = residual - codebook[nearest(residual, codebook)]
        return x - residual

    def decoding_any_prefix_is_the_output(forward):
        x = torch.randn(200, 4)
        indices = quantizer.encode(x)
        for m in range(1, 5):
            assert torch.equal(quantizer.decode(indices[..., :m]), forward(x, m))

    def ours(x, num_quantizers):
        return quantizer(x, num_quantizers=num_quantizers).quantized

    tells_apart(decoding_any_prefix_is_the_output, ours, usual_straight_through)
    tells_apart(decoding_any_prefix_is_the_output, ours, stages_subtracted)
