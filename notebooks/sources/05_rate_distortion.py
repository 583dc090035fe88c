# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # 05 · How close to the limit are we?
#
# **The question.** More bits, less error: so far every comparison was between quantizers. But how good *could* one be? In 1959 Claude Shannon drew the line that none can cross. How far above it are we, what do we pay for the distance, and why do some published curves lie below?
#
# **You will be able to**
# - measure a quantizer in bits per dimension, and say how many of them it wastes;
# - write a beam search through the stages, and mend one that ranks its paths by the wrong number;
# - choose between one codebook, residual, product and scalar quantization, knowing what each costs;
# - recognise two kinds of curve below Shannon's bound: one that cheats, and one that doesn't.
#
# **You need** notebooks 01 (k-means, held-out data) and 04 (residual quantization), and from school the logarithm.
#
# **Time.** It runs in {{run_time}}. Reading takes half an hour, the five exercises another half.

# %%
import math

import torch
import torch.nn.functional as F

from rvq_tutorial import ResidualVectorQuantizer, check, data, kmeans, metrics, nearest, plots, widgets

_ = torch.manual_seed(0)  # the same numbers in every run

# %% [markdown]
# ## Bits per dimension
#
# 8 bits for a vector of 4 components, or 12 bits for one of 8: which is more? Per component it is 2 bits against 1.5. So we measure both sides per component, or **dimension**: the **rate** R in bits per dimension, and the distortion as the mean squared error per dimension, as ever.
#
# ## The line
#
# Shannon (1959) asked: if the components are independent Gaussian numbers of variance σ², what is the least distortion at rate R? For any quantizer at all: any codebook, any size, any search. His answer is
#
# $$D(R) = \sigma^2\, 2^{-2R}$$
#
# (Cover and Thomas, *Elements of Information Theory*, 2nd edition, Theorem 10.3.2). Every further bit per dimension divides the least error by 4, which is 6 dB. At R = 0 it is σ²: say nothing, rebuild the mean.
#
# ### Exercise 1 · Predict · ★☆☆ · 4 minutes
#
# M stages of K codewords, for vectors of `dim` independent Gaussian components. What is the rate R, and what is the least distortion that Shannon leaves at this rate?


# %% tags=["exercise"]
def rate_and_bound(dim, codebook_size, num_quantizers, variance):
    """Bits per dimension, and the least mean squared error per dimension at this rate: -> (R, D)."""
    ### BEGIN SOLUTION
    rate = num_quantizers * math.log2(codebook_size) / dim
    return rate, variance * 2 ** (-2 * rate)
    ### END SOLUTION


# %% [markdown] tags=["hint"]
# Notebook 04 counted the bits of a vector: M · log₂ K. Its dim components share them. Then put R into Shannon's formula; mind the 2 in the exponent.

# %%
check.rate_and_bound(rate_and_bound)

# %% [markdown]
# The package has the formula as `metrics.shannon_distortion(R, variance)`. From here on the data have variance 1, until the photos.
#
# ## Number by number
#
# Start with the plainest quantizer: each component on its own, L levels, R = log₂ L. The best levels for a given kind of number are those where each is the mean of its cell (Lloyd 1982, written 1957; Max 1960). You have that algorithm: it is k-means in one dimension. Max computed the distortion for Gaussian numbers with pencil, paper and an early computer; his table I says 0.3634, 0.1175 and 0.03454 for 2, 4 and 8 levels.


# %%
def distortion(x, codebook):
    """Mean squared error per dimension of x after one codebook: (N, dim), (K, dim) -> a number."""
    return metrics.mse(x, codebook[nearest(x, codebook)])


numbers, unseen_numbers = torch.randn(20_000, 1), torch.randn(20_000, 1)
by_kmeans = [distortion(unseen_numbers, kmeans(numbers, levels).centroids) for levels in (2, 4, 8)]
by_max, line = [0.3634, 0.1175, 0.03454], [metrics.shannon_distortion(rate) for rate in (1, 2, 3)]
for error, wanted, least in zip(by_kmeans, by_max, line, strict=True):
    print(f"k-means {error:.4f}, Max {wanted:.4f}, Shannon {least:.4f}: {error / least:.2f} times the bound")
plots.rate_distortion({"scalar, by k-means": ([1, 2, 3], by_kmeans)}, bound=([1, 2, 3], line), title="Number by number")

# %%
assert all(abs(error / wanted - 1) < 0.04 for error, wanted in zip(by_kmeans, by_max, strict=True))
distances = [error / least for error, least in zip(by_kmeans, line, strict=True)]
assert 1.35 < distances[0] < 1.55 and distances[0] + 0.2 < distances[1] < distances[2] - 0.2

# %% [markdown]
# Our k-means agrees with Max within 4 %, and both lie well above Shannon: some 1.45 times at one bit, and the distance grows with the rate. (On a logarithmic scale a constant *factor* is a constant distance.)
#
# What do vectors change, if their components have nothing to do with each other? Spend one bit per dimension: 2 codewords for 1 component, 4 for 2, 16 for 4, 256 for 8.

# %%
one_bit = {}
for dim in (1, 2, 4, 8):
    train, held_out = torch.randn(16_384, dim), torch.randn(10_000, dim)
    one_bit[f"dim {dim}, K = {2**dim}"] = distortion(held_out, kmeans(train, 2**dim, num_iters=15).centroids)
plots.bars(
    one_bit | {"bound": metrics.shannon_distortion(1)}, label="held-out MSE per dimension, at 1 bit per dimension"
)

# %% [markdown]
# The longer the vectors, the nearer to the line. Shannon's proof needs vectors without end, and a codebook that doubles with every bit: 2⁸ codewords here, 2¹⁶ for 16 components. That is the wall of notebook 04. The line is the limit of what is possible, not of what is affordable.

# %%
ladder = list(one_bit.values())
assert abs(ladder[0] - ladder[1]) < 0.02 and ladder[1] > ladder[2] > ladder[3] > 0.25 and ladder[3] < 0.34

# %% [markdown]
# ## Stage by stage
#
# Residual quantization climbs over the wall. How much does it lose against the line? Vectors of 4 components and stages of 16 codewords, so that every stage costs one bit per dimension. Five seeds: new data, new codebooks, new held-out data each time. We keep the five quantizers, they will be needed.

# %%
STAGES = [1, 2, 3, 4, 5]
fitted = []
for seed in range(5):
    torch.manual_seed(seed)
    train, held_out = torch.randn(4096, 4), torch.randn(2000, 4)
    fitted.append((ResidualVectorQuantizer(4, 16, num_quantizers=5).fit(train).eval(), held_out))


# %%
def stage_errors(rvq, x, beam_size=1):
    """Mean squared error per dimension for 1, 2, … stages."""
    return [metrics.mse(x, rvq.decode(rvq.encode(x, num_quantizers=m, beam_size=beam_size))) for m in STAGES]


greedy = torch.tensor([stage_errors(rvq, x) for rvq, x in fitted])
bound = torch.tensor([metrics.shannon_distortion(rate) for rate in STAGES])
plots.rate_distortion({"residual": (STAGES, greedy)}, bound=(STAGES, bound), title="16 codewords a stage, held out")

# %% [markdown]
# The error bars are standard deviations over the seeds, and hardly to be seen. On this logarithmic scale both lines are nearly straight, but they are not parallel: a stage divides the error by some 2.5, and Shannon's bit by 4.
#
# To say how far apart they are, turn the formula round. An error D needs at least R(D) = ½ log₂(σ²/D) bits per dimension. What we spend beyond that is **wasted**:


# %%
def wasted(rate, errors):
    """Bits per dimension spent beyond what Shannon needs for these errors, at variance 1."""
    return rate + 0.5 * torch.log2(errors)


for m, bits in zip(STAGES, wasted(torch.tensor(STAGES), greedy.mean(0)).tolist(), strict=True):
    print(f"{m} bits per dimension: {bits:.2f} of them wasted")

# %%
ratio = greedy[:, :-1] / greedy[:, 1:]
assert ratio.min() > 2.1 and ratio.max() < 3.1
assert wasted(1, greedy[:, 0]).max() < 0.3 and 1.4 < wasted(5, greedy[:, -1]).mean() < 1.75
assert greedy.std(0).div(greedy.mean(0)).max() < 0.2

# %% [markdown]
# The first stage wastes a quarter of a bit, five stages waste some one and a half bits of five. Part of it can be had back without touching the codebooks.
#
# ## Greedy is short-sighted
#
# Two stages in one dimension: codewords 0 and 4, then −2.5, 0 and 1. Encode x = 1.5. Stage 1 takes 0, which is nearer than 4, and leaves 1.5. Stage 2 takes 1 and leaves 0.5. But 4 − 2.5 is 1.5, exactly. To take the nearest at every stage is called **greedy**: what looks best now may be worse in the end.

# %%
pair = [torch.tensor([[0.0], [4.0]]), torch.tensor([[-2.5], [0.0], [1.0]])]
x = torch.tensor([[1.5]])
first = pair[0][nearest(x, pair[0])]
second = pair[1][nearest(x - first, pair[1])]
sums = (pair[0][:, None] + pair[1]).flatten()
print(
    f"greedy: {(first + second).item()}, all sums: {sums.tolist()}, nearest of them: {sums[(sums - x).abs().argmin()]}"
)
assert (first + second).item() == 1 and 1.5 in sums.tolist()

# %% [markdown]
# Is that rare? Take three stages of one of our quantizers. They have 16³ = 4,096 sums, few enough to try all:

# %%
rvq, held_out = fitted[0]
sums = rvq.decode(torch.cartesian_prod(*[torch.arange(16)] * 3))
best = (held_out - sums[nearest(held_out, sums)]).square().mean(1)
found = (held_out - rvq.decode(rvq.encode(held_out, num_quantizers=3))).square().mean(1)
missed = (found > best + 1e-6).double().mean().item()
assert missed > 0.4 and found.mean() > 1.15 * best.mean()
errors = {"greedy": found.mean(), "best of all sums": best.mean()}
plots.bars(errors, label="mean squared error after 3 stages", title=f"Greedy misses the best sum in {missed:.0%}")

# %% [markdown]
# Not rare at all. But trying all sums is just the big codebook again, 16ᴹ of them.
#
# ### Keep a few
#
# Between one path and all paths lies the **beam**: keep the B best paths so far, B = `beam_size`. Each stage extends every path by every codeword, which makes B · K candidates, and again only the best B go on. A path's quality is what it leaves over, the length of its residual. After the last stage, the best one wins. B = 1 is greedy.
#
# ### Exercise 2 · Implement · ★★☆ · 8 minutes
#
# One stage of it, for one vector. Given the residuals of the B paths kept so far, find the `beam_size` best ways to go on. A way is a path (its row, the *parent*) and a codeword (its index). Return parents and indices, best way first.


# %% tags=["exercise"]
def best_ways(residuals, codebook, beam_size):
    """The ways on that leave the shortest residuals: (B, dim), (K, dim) -> parents, indices, (beam_size,) each."""
    ### BEGIN SOLUTION
    left_over = residuals[:, None] - codebook  # (B, K, dim)
    ways = left_over.square().sum(-1).flatten().argsort()[:beam_size]
    return ways // len(codebook), ways % len(codebook)
    ### END SOLUTION


# %% [markdown] tags=["hint"]
# `residuals[:, None] - codebook` has shape (B, K, dim). Its squared lengths are a table of B rows and K columns. Flatten it, `argsort` it, keep the first `beam_size`. Which row and column does place number 37 of the flat table come from, if a row has K = 16 places? `37 // 16` and `37 % 16`.

# %%
check.best_ways(best_ways)

# %% [markdown]
# ### What is wrong here? · The wider beam that doesn't help
#
# And here is a whole beam search, all vectors at once, as it can be found in the wild. (`take_along_dim` picks, for each vector, the rows that are named for it.) A path's score is the error of its stages. It runs, and beams beat greedy. Read it, then predict: if the beam is so wide that *every* path is kept, is the result the best sum?


# %%
def summed_beam(x, codebooks, beam_size):
    """Indices of the path with the least error: (N, dim), (M, K, dim) -> (N, M)."""
    residuals, scores = x[:, None], torch.zeros(len(x), 1)  # (N, B, dim) and (N, B), B = 1 path so far
    paths = torch.zeros(len(x), 1, 0, dtype=torch.int64)  # (N, B, stages so far)
    for codebook in codebooks:
        left_over = residuals[:, :, None] - codebook  # (N, B, K, dim)
        scores = scores[:, :, None] + left_over.square().sum(-1)
        scores, ways = scores.flatten(1).topk(min(beam_size, scores[0].numel()), largest=False)
        parents, indices = ways // len(codebook), ways % len(codebook)
        residuals = left_over.flatten(1, 2).take_along_dim(ways[:, :, None], 1)
        paths = torch.cat([paths.take_along_dim(parents[:, :, None], 1), indices[:, :, None]], -1)
    return paths[:, 0]


# %%
some, three = held_out[:300], rvq.codebooks[:3]
errors = {f"beam {b}": metrics.mse(some, rvq.decode(summed_beam(some, three, b))) for b in (1, 4, 16, 16**2)}
everything, optimum = errors["beam 256"], metrics.mse(some, sums[nearest(some, sums)])  # 256: no path is dropped
assert everything > 1.03 * optimum
plots.bars(errors | {"best sum": optimum}, label="mean squared error after 3 stages")

# %% [markdown]
# The widest beam keeps all 16² paths that two stages have, so it sees every path of three, and still doesn't return the best. The score is to blame: it adds up what was left over after *every* stage. But what is left after stage 1 is not lost, it is what stage 2 works on. A path that starts badly and ends well, as 4 − 2.5 did, is punished for its start.
#
# ### Exercise 3 · Repair · ★★☆ · 6 minutes
#
# Mend it. Only the last residual counts.


# %% tags=["exercise"]
def beam_encode(x, codebooks, beam_size):
    """Indices of the path that leaves the shortest last residual: (N, dim), (M, K, dim) -> (N, M)."""
    ### BEGIN SOLUTION
    residuals = x[:, None]
    paths = torch.zeros(len(x), 1, 0, dtype=torch.int64)
    for codebook in codebooks:
        left_over = residuals[:, :, None] - codebook
        scores = left_over.square().sum(-1).flatten(1)
        ways = scores.topk(min(beam_size, scores.shape[1]), largest=False).indices
        parents, indices = ways // len(codebook), ways % len(codebook)
        residuals = left_over.flatten(1, 2).take_along_dim(ways[:, :, None], 1)
        paths = torch.cat([paths.take_along_dim(parents[:, :, None], 1), indices[:, :, None]], -1)
    return paths[:, 0]
    ### END SOLUTION


# %% [markdown] tags=["hint"]
# The residual of a path already holds all that its stages did. Its squared length *is* the score; nothing has to be carried from stage to stage. So one term goes.

# %%
check.beam_encode(beam_encode)

# %% [markdown]
# The package's `encode` takes a `beam_size`. Here is our search once more, for one vector and with plain lists, so that nothing hides. Both must find the same paths.


# %%
def beam_of_one(x, codebooks, beam_size):
    """The best path for one vector: (dim,), (M, K, dim) -> M indices."""
    beam = [(x, [])]  # residual and path
    for codebook in codebooks:
        ways = [(residual - c, [*path, k]) for residual, path in beam for k, c in enumerate(codebook)]
        beam = sorted(ways, key=lambda way: way[0].square().sum().item())[:beam_size]
    return beam[0][1]


ours = torch.tensor([beam_of_one(v, three, beam_size=4) for v in some[:50]])
assert (ours == rvq.encode(some[:50], num_quantizers=3, beam_size=4)).all(1).double().mean() > 0.97

# %%
widest = rvq.encode(some, num_quantizers=3, beam_size=16**2)
assert abs(metrics.mse(some, rvq.decode(widest)) / optimum - 1) < 1e-3
print(f"package, beam 256: {metrics.mse(some, rvq.decode(widest)):.4f}; best sum: {optimum:.4f}")

# %% [markdown]
# The same paths (but for a tie that rounding may break), and the widest beam finds the best sum. From here on we use the package's. The whole set, with five seeds:

# %%
beams = {size: torch.tensor([stage_errors(rvq, x[:1000], size) for rvq, x in fitted]) for size in (4, 16)}
curves = {"greedy": (STAGES, greedy)} | {f"beam {size}": (STAGES, errors) for size, errors in beams.items()}
plots.rate_distortion(curves, bound=(STAGES, bound), title="The same codebooks, searched better")

# %%
for name, (_, errors) in curves.items():
    print(f"{name:7}: {wasted(5, errors[:, -1]).mean():.2f} of 5 bits per dimension wasted")
saved = wasted(5, greedy[:, -1]) - wasted(5, beams[16][:, -1])
assert saved.min() > 0.2 and (beams[4][:, 1:] < greedy[:, 1:]).all() and (beams[16][:, 2:] < beams[4][:, 2:]).all()

# %% [markdown]
# For the decoder nothing changes: same codebooks, same bits, one lookup and one sum a stage. The encoder does B times the work from stage 2 on, and saves more than a fifth of a bit per dimension. The first step, from 1 path to 4, brings the most.
#
# One thing is lost. The stages of a greedy search are a prefix of any longer one. A beam picks its first index for the sake of the last, so if only two of five stages arrive, it is the worse one:

# %%
for beam_size in (1, 16):
    indices = rvq.encode(held_out, beam_size=beam_size)
    prefix = [metrics.mse(held_out, rvq.decode(indices[:, :m])) for m in STAGES]
    print(f"beam {beam_size:2}, encoded with 5 stages, decoded from 1 to 5:", " ".join(f"{e:.4f}" for e in prefix))
    if beam_size == 1:
        greedy_prefix = prefix
assert prefix[0] > greedy_prefix[0] and prefix[1] > greedy_prefix[1] and prefix[-1] < greedy_prefix[-1]

# %% [markdown]
# Now you: which of all these quantizers, for how many bits? Everything is measured in the first cell, on held-out data.

# %%
torch.manual_seed(0)
dim = 4
train, held_out = torch.randn(4096, dim), torch.randn(1000, dim)
measured = {}
for size in (4, 16, 64):
    rvq = ResidualVectorQuantizer(dim, size, num_quantizers=4).fit(train).eval()
    for beam_size in (1, 4, 16):
        found = [rvq.decode(rvq.encode(held_out, m, beam_size)) for m in (1, 2, 3, 4)]
        measured[size, beam_size] = [metrics.mse(held_out, x) for x in found]

# %%
widgets.explore(
    lambda num_quantizers, codebook_size, beam_size: plots.operating_point(
        measured, dim, num_quantizers, codebook_size, beam_size
    ),
    num_quantizers=[1, 2, 3, 4],
    codebook_size=[4, 16, 64],
    beam_size=[1, 4, 16],
)

# %% [markdown]
# Compare M = 3, K = 16 with M = 2, K = 64: 3 bits per dimension both times. And move the beam at M = 1: nothing happens, there is nothing to choose.
#
# ## The curve that beats Shannon
#
# A colleague has a better one. The same class, the same 16 codewords a stage, greedy search, five seeds, error bars. The only change in the code is that he uses 60 vectors, "to have it run faster":


# %%
def colleague(seed):
    """The colleague's experiment: mean squared errors for 1 to 5 stages."""
    torch.manual_seed(seed)
    x = torch.randn(60, 4)
    rvq = ResidualVectorQuantizer(4, 16, num_quantizers=5).fit(x).eval()
    return stage_errors(rvq, x), stage_errors(rvq, torch.randn(2000, 4))


results = [colleague(seed) for seed in range(5)]
his = torch.tensor([mine for mine, _ in results])
plots.rate_distortion({"the colleague's": (STAGES, his)}, bound=(STAGES, bound), title="A breakthrough?")

# %%
assert (his[:, 1:] < bound[1:]).all() and his[:, -1].max() < bound[-1] / 2

# %% [markdown]
# At 5 bits per dimension it is below half of Shannon's bound, for every one of the seeds. A theorem says that this can't be. **Why is it? Answer before you unfold.** (The function returns a second list. What is in it?)
#
# <details><summary>Why</summary>
#
# He fits and measures on the same 60 vectors. The theorem speaks of vectors that the codebook was not made for: of those still to come. With five codebooks of 16 there are 80 codewords, more than one for each vector; the later stages can hold the residuals of single vectors. These codebooks don't describe Gaussian vectors, they have these 60 by heart.
#
# Where are the missing bits? In the codebooks. To rebuild the vectors the receiver needs 80 · 4 numbers of 32 bits, and these depend on the very vectors that are sent. Spread over 60 · 4 components they are 42.7 bits per dimension, beside the 5 that he counts. A codebook is free only when it was there before the data.
#
# Error bars don't help: all five seeds make the same mistake. The bound is the alarm. Without a bound, on photos, say, the same mistake is only a surprisingly good result.
#
# </details>
#
# The second list: the same codebooks on 2,000 vectors that they have not seen.

# %%
his_held_out = torch.tensor([unseen for _, unseen in results])
both = {"train": (STAGES, his), "held_out": (STAGES, his_held_out)}
plots.rate_distortion(both, bound=(STAGES, bound), title="The same codebooks, twice measured")

# %%
assert (his_held_out > bound).all() and (his_held_out[:, -1] > 2 * greedy.mean(0)[-1]).all()
assert round(80 * 4 * 32 / (60 * 4), 1) == 42.7

# %% [markdown]
# Held out, they are worse than those fitted on 4,096 vectors by more than a factor of 2. Learning by heart isn't only no better than it looks, it costs.
#
# ### How many vectors are enough?
#
# One codebook of 64, fitted on 2 to 256 vectors a codeword. Where would you trust the number on the training data?

# %%
per_codeword = [2, 4, 8, 16, 32, 64, 128]
unseen, ladders = torch.randn(5000, 4), {"train": [], "held_out": []}
for count in per_codeword:
    fit = kmeans(torch.randn(64 * count, 4), 64)
    ladders["train"].append(fit.mse)
    ladders["held_out"].append(distortion(unseen, fit.centroids))
plots.lines(per_codeword, ladders, xlabel="training vectors a codeword", ylabel="mean squared error", log_x=True)

# %%
line = metrics.shannon_distortion(6 / 4)
gaps = [after / before - 1 for before, after in zip(ladders["train"], ladders["held_out"], strict=True)]
print(f"Shannon at 1.5 bits: {line:.3f}; held out above train by", ", ".join(f"{gap:.0%}" for gap in gaps))
assert ladders["train"][0] < line < min(ladders["held_out"])
assert gaps[0] > 2 and gaps[3] > 0.25 and 0.05 < gaps[-2] < 0.2 and gaps[-1] < 0.2

# %% [markdown]
# From both sides they close in on each other, and the truth is between. At 16 vectors a codeword, the training error is still far too good; at 64 it is about a tenth. Held-out data say the truth at any number.
#
# ## Four ways to spend 8 bits
#
# Vectors of 4 components, 8 bits each, R = 2. Three of the four ways you know:
#
# - **one codebook** of 256;
# - **residual**: 2 stages of 16, or 4 stages of 4;
# - **scalar**: 4 levels for each of the 4 components;
# - **product**: cut the vector into pieces, and give each piece a codebook of its own (Jégou et al. 2011, section II). Two pieces of 2 components with 16 codewords each: 8 bits.
#
# ### Exercise 4 · Implement · ★★☆ · 5 minutes
#
# Write product quantization: S pieces of equal length, one codebook each.


# %% tags=["exercise"]
def product_quantize(x, codebooks):
    """Each piece of x replaced by the nearest codeword of its own codebook: (N, dim), (S, K, dim/S) -> (N, dim)."""
    ### BEGIN SOLUTION
    pieces = x.chunk(len(codebooks), dim=1)
    return torch.cat([c[nearest(p, c)] for p, c in zip(pieces, codebooks, strict=True)], dim=1)
    ### END SOLUTION


# %% [markdown] tags=["hint"]
# `x.chunk(S, dim=1)` cuts x into S neighbouring pieces. Quantize each with its own codebook, `c[nearest(piece, c)]`, and join them with `torch.cat(..., dim=1)`.

# %%
check.product_quantize(product_quantize)

# %% [markdown]
# A product quantizer with pieces of one component *is* the scalar quantizer, and with one piece it is the one codebook. So a single function fits three of the four:


# %%
def fit_pieces(train, num_pieces, codebook_size):
    """A k-means for each piece: (N, dim) -> (S, K, dim/S)."""
    pieces = train.chunk(num_pieces, dim=1)
    return torch.stack([kmeans(piece, codebook_size, num_iters=15).centroids for piece in pieces])


def pieces_error(x, codebooks):
    """Mean squared error per dimension, over all pieces."""
    pieces = zip(x.chunk(len(codebooks), dim=1), codebooks, strict=True)
    return sum(distortion(piece, codebook) for piece, codebook in pieces) / len(codebooks)


# %% [markdown]
# Costs, for a vector: a search takes one multiplication and addition for each number that it looks at. Each codebook is looked at once, so multiply–adds = numbers stored; with a beam, later stages are looked at once for each path.

# %%
CUT = {"one 1 × 256": (1, 256), "product 2 × 16": (2, 16), "scalar 4 × 4": (4, 4)}  # pieces and codewords
STACKED = {"residual 2 × 16": (2, 16), "residual 4 × 4": (4, 4)}  # stages and codewords

costs = {name: {"numbers stored": 4 * size, "multiply–adds": 4 * size} for name, (_, size) in CUT.items()}
for name, (stages, size) in STACKED.items():
    for beam_size, label in ((1, name), (4, f"{name}, beam 4")):
        looks = sum(min(beam_size, size**m) for m in range(stages))
        costs[label] = {"numbers stored": 4 * size * stages, "multiply–adds": 4 * size * looks}


# %%
def errors_at_8_bits(train, held_out):
    """Held-out mean squared error of each way to spend 8 bits on 4 components."""
    errors = {name: pieces_error(held_out, fit_pieces(train, *way)) for name, way in CUT.items()}
    for name, (stages, size) in STACKED.items():
        rvq = ResidualVectorQuantizer(4, size, stages).fit(train).eval()
        errors[name] = metrics.mse(held_out, rvq.decode(rvq.encode(held_out)))
        errors[f"{name}, beam 4"] = metrics.mse(held_out, rvq.decode(rvq.encode(held_out, beam_size=4)))
    return errors


def scoreboard(by_seed, title):
    """Distortion and costs side by side, least distortion first."""
    rows = {name: {"held-out MSE": [errors[name] for errors in by_seed]} | costs[name] for name in costs}
    order = sorted(rows, key=lambda name: sum(rows[name]["held-out MSE"]))
    return plots.scoreboard({name: rows[name] for name in order}, title=title)


# %% [markdown]
# First on Gaussian components, independent of each other. Which will be second best?

# %%
gaussian = []
for seed in range(5):
    torch.manual_seed(seed)
    gaussian.append(errors_at_8_bits(torch.randn(8192, 4), torch.randn(4000, 4)))
scoreboard(gaussian, "8 bits for 4 independent Gaussian components")

# %%
for errors in gaussian:
    assert errors["one 1 × 256"] < errors["product 2 × 16"] < errors["residual 2 × 16"] < errors["residual 4 × 4"]
    assert 1.05 < errors["scalar 4 × 4"] / errors["one 1 × 256"] < 1.3 and errors["one 1 × 256"] > 1 / 16
    assert errors["residual 4 × 4, beam 4"] < 0.95 * errors["residual 4 × 4"]
assert costs["one 1 × 256"]["numbers stored"] == 64 * costs["scalar 4 × 4"]["numbers stored"] == 1024

# %% [markdown]
# The one codebook is best, and by how little! Scalar quantization stores 16 numbers in place of 1,024 and is less than a third worse. Product beats residual, at half its memory. Where components know nothing of each other, cutting them apart costs nearly nothing, and the sums of residual stages overlap for nothing.
#
# If that were all, nobody would build residual quantizers. But whose data are independent?
#
# ### The same 8 bits on photos
#
# Patches of 2 × 2 grey pixels, again 4 components. Codebooks are fitted on the training photos and measured on the held-out ones; the five seeds draw the patches.


# %%
def grey_patches(split):
    """2 × 2 patches of crops of the photos in grey: (163840, 4)."""
    grey = data.photo_crops(size=64, n=160, split=split).mean(1, keepdim=True)
    return F.pixel_unshuffle(grey, 2).movedim(1, -1).flatten(0, 2)


def drawn(x, n):
    """n rows of x, drawn at random."""
    return x[torch.randperm(len(x))[:n]]


patches, held_out_patches = grey_patches("train"), grey_patches("held_out")
photos = []
for seed in range(5):
    torch.manual_seed(seed)
    photos.append(errors_at_8_bits(drawn(patches, 8192), drawn(held_out_patches, 4000)))
scoreboard(photos, "8 bits for 2 × 2 pixels of held-out photos")


# %%
def mean_ratio(one, other):
    """How many times the error of the other one has, on photos, as a mean over the seeds."""
    return sum(errors[one] / errors[other] for errors in photos) / len(photos)


assert 7 < mean_ratio("scalar 4 × 4", "one 1 × 256") < 20
assert (
    1.5 < mean_ratio("product 2 × 16", "residual 2 × 16") < 2.4 and mean_ratio("residual 4 × 4", "product 2 × 16") < 1
)
assert 1.1 < mean_ratio("residual 2 × 16", "one 1 × 256") < 1.6
assert all(e["residual 2 × 16, beam 4"] < e["residual 2 × 16"] for e in photos)

# %% [markdown]
# Another world. Neighbouring pixels are nearly alike. Whoever codes them apart says the same thing four times (scalar) or twice (product). Scalar, nearly as good as any a moment ago, has more than seven times the error of the one codebook, and product nearly twice that of residual. Residual stages look at the whole vector every time, and come near the one codebook, some 1.3 times its error, with an eighth of its memory.
#
# So there is no best quantizer. Ask what the data share: independent components can be cut apart; what hangs together must be looked at together, with one codebook while it can be afforded, with stages when it can't. Seen on a photo, with 4 bits a patch, 1 bit a pixel:

# %%
cat = data.photos().held_out["chelsea"][:, 8:200, 96:288].mean(0, keepdim=True)
cat_patches = F.pixel_unshuffle(cat, 2).flatten(1).T
cut = {
    name: fit_pieces(patches, *way)
    for name, way in {"one 1 × 16": (1, 16), "product 2 × 4": (2, 4), "scalar 4 × 2": (4, 2)}.items()
}
rebuilt = {
    name: torch.cat([c[nearest(p, c)] for p, c in zip(cat_patches.chunk(len(books), 1), books, strict=True)], 1)
    for name, books in cut.items()
}
rvq = ResidualVectorQuantizer(4, 4, num_quantizers=2).fit(patches).eval()
rebuilt["residual 2 × 4"] = rvq(cat_patches).quantized

# %%
levels = {name: metrics.psnr(cat_patches, x) for name, x in rebuilt.items()}
order = sorted(levels, key=levels.get, reverse=True)
pictures = [F.pixel_shuffle(rebuilt[name].T.unflatten(1, (96, 96)), 2).expand(3, -1, -1) for name in order]
titles = [f"{name}\n{levels[name]:.1f} dB" for name in order]
caption = "All take 4 bits a patch. Look at the fur: scalar has only two greys for each pixel."
plots.photo_row(torch.stack(pictures), titles, caption=caption)

# %%
assert order[2:] == ["product 2 × 4", "scalar 4 × 2"] and levels["residual 2 × 4"] > levels["product 2 × 4"] + 2
assert levels["one 1 × 16"] > levels["scalar 4 × 2"] + 6

# %% [markdown]
# ### What is wrong here? · Found by direction
#
# One more way to lose bits. The audio codec DAC searches by direction: it scales the vector and all codewords to length 1, and looks for the nearest. What it then hands to the decoder is the codeword itself, not scaled. Predict: on our photo patches, what happens to the distortion of the codebook of 256?


# %%
def found_by_direction(x, codebook):
    """Search among directions, hand out the codeword: (N, dim), (K, dim) -> (N, dim)."""
    return codebook[nearest(F.normalize(x, dim=1), F.normalize(codebook, dim=1))]


codebook = kmeans(drawn(patches, 8192), 256, num_iters=15).centroids
x = drawn(held_out_patches, 4000)
by_direction, by_distance = metrics.mse(x, found_by_direction(x, codebook)), distortion(x, codebook)
nothing = x.var(0).mean().item()
assert by_direction > nothing > 20 * by_distance
errors = {"searched by direction": by_direction, "searched by distance": by_distance, "the mean, 0 bits": nothing}
plots.bars(errors, label="held-out mean squared error of 256 codewords")

# %% [markdown]
# Eight bits, and worse than none: rebuilding the mean every time would be better. A dark even patch and a bright even patch have the same direction. The search can't tell them apart, and the codeword it hands out may have any length. A network trained around this search can arrange itself with it, by keeping its vectors' lengths alike. A codebook from k-means can't.
#
# **The mend.** Search in what you hand out: both plain, or both scaled, and then the length, if it matters, is paid for apart. The test: nothing in the codebook may be nearer than what was handed out.

# %%
handed_out, nearest_one = found_by_direction(x, codebook), codebook[nearest(x, codebook)]
nearer = (x - nearest_one).norm(dim=1) < (x - handed_out).norm(dim=1) - 1e-6
print(f"a nearer codeword was there for {nearer.double().mean():.0%} of the patches")
assert nearer.double().mean() > 0.7

# %% [markdown]
# ## Below the line once more
#
# The patches have a variance, so they have a line, σ² 2⁻²ᴿ. Held-out photos, the right split, nothing fitted on what is measured:

# %%
variance = held_out_patches.var(0).mean().item()
line = metrics.shannon_distortion(2, variance)
print(
    f"2 bits per dimension: line {line:.5f}, one codebook {photos[0]['one 1 × 256']:.5f}, product {photos[0]['product 2 × 16']:.5f}"
)
assert photos[0]["one 1 × 256"] < line / 3 and photos[0]["product 2 × 16"] < line

# %% [markdown]
# The one codebook is at less than a third of it. **Who has cheated this time? Answer before you unfold.**
#
# <details><summary>Who</summary>
#
# Nobody. The formula is for *independent* Gaussian components. These four pixels are anything but: knowing one, you nearly know the others. So they need fewer bits, and their true line lies lower. A bound is only one for the data that its theorem speaks of.
#
# </details>
#
# ### The right line
#
# Turn the coordinates: not the four pixels, but their mean and three differences. Turning changes no length, so no distortion. The new components hardly depend on each other, and their variances (the eigenvalues of the covariance matrix) are very unequal:

# %%
variances = torch.linalg.eigvalsh(held_out_patches.T.cov())
assert variances[-1] > 0.9 * variances.sum() and torch.isclose(variances.mean(), torch.tensor(variance), rtol=1e-3)
turned = {f"turned component {n}": value for n, value in enumerate(variances.flip(0).tolist(), 1)}
plots.bars(turned | {"each of the four pixels": variance}, label="variance")

# %% [markdown]
# More than nine tenths of the variance sit in one component. It would be a waste to give each of the four the same number of bits.
#
# ### Exercise 5 · Explore · ★★★ · 10 minutes
#
# Components with these `variances` share `bits` among them, the number given is for all together, in pieces as small as you like. A component of variance v with b bits has the distortion v · 2⁻²ᵇ. Which shares make the mean distortion least? Try two components of variances 16 and 1 by hand first: 4 bits, all splits in steps of 1. Then find a rule.


# %% tags=["exercise"]
def share_bits(variances, bits):
    """The bits of each component, none below 0, that leave the least mean distortion: (dim,), number -> (dim,)."""
    ### BEGIN SOLUTION
    shares = torch.zeros_like(variances)
    for _ in range(2000):  # each small piece goes where most distortion is left
        shares[(variances * 4**-shares).argmax()] += bits / 2000
    return shares
    ### END SOLUTION


# %% [markdown] tags=["hint"]
# For 16 and 1 with 4 bits: (3, 1) leaves 0.25 + 0.25, both alike. Half a bit more here and less there is worse. So where should the *next* small piece of a bit go? To the component that has the most distortion left. Hand out the bits in 2,000 small pieces, one after the other.

# %%
check.share_bits(share_bits)

# %% [markdown]
# Like pouring water: the distortions are levelled from the top, and a component below the level gets no bits at all. This is called **reverse water-filling** (Cover and Thomas, Theorem 10.3.3). With a level θ, each component has the distortion min(v, θ) and takes ½ log₂(v / θ) bits if v > θ. The level is found by halving an interval:


# %%
def gaussian_line(variances, rate):
    """Least mean distortion of Gaussian components with these variances, at this many bits per dimension."""
    low, high = torch.tensor(0.0), variances.max()
    for _ in range(60):
        level = (low + high) / 2
        spent = (0.5 * torch.log2(variances / level)).clamp(min=0).mean()
        low, high = (level, high) if spent > rate else (low, level)  # too many bits spent: raise the level
    return variances.clamp(max=level).mean().item()


assert abs(gaussian_line(torch.ones(4), 2) - metrics.shannon_distortion(2)) < 1e-4
assert abs(gaussian_line(torch.tensor([16.0, 1.0]), 2) - 0.25) < 1e-4

# %% [markdown]
# All of it in one picture, residual with a beam of 4. The curve "if independent" is the line σ² 2⁻²ᴿ, and the dashed one the right line:

# %%
torch.manual_seed(0)
train, held_out = drawn(patches, 8192), drawn(held_out_patches, 4000)
rates = [1, 2, 3]
rvq = ResidualVectorQuantizer(4, 16, num_quantizers=3).fit(train).eval()
curves = {
    "residual": (rates, [metrics.mse(held_out, rvq.decode(rvq.encode(held_out, r, beam_size=4))) for r in rates]),
    "scalar": (rates, [pieces_error(held_out, fit_pieces(train, 4, 2**r)) for r in rates]),
    "product": (rates, [pieces_error(held_out, fit_pieces(train, 2, 4**r)) for r in rates]),
    "one codebook": ([1.5, 2], [pieces_error(held_out, fit_pieces(train, 1, size)) for size in (64, 256)]),
    "if independent": (rates, [metrics.shannon_distortion(r, variance) for r in rates]),
}
line = rates, [gaussian_line(variances, r) for r in rates]
plots.rate_distortion(curves, bound=line, title="2 × 2 pixels of held-out photos")

# %%
above = {
    name: [error / gaussian_line(variances, r) for r, error in zip(*curve, strict=True)]
    for name, curve in curves.items()
}
assert all(min(ratios) > 1 for ratios in above.values()) and max(above["one codebook"]) < 2.2
assert above["scalar"][1] > 10 and above["residual"][0] < 2

# %% [markdown]
# Against the right line, the photos tell the story of the Gaussian data: one codebook within a factor of some 2, residual a little above, and no miracle anywhere. But read it with care. It is the line of *Gaussian* vectors with these variances. Of all data with the same variances and correlations the Gaussian are the hardest, so photos may lie below it, and with longer patches they do better still. For photos nobody knows the true line.
#
# ## What we saw
#
# - Shannon's line for independent Gaussian components is σ² 2⁻²ᴿ. Scalar quantization leaves some 1.45 times as much at one bit; 256 codewords for 8 components come down to some 1.3 times.
# - A residual quantizer with 16 codewords a stage, on 4 components, wastes a quarter of a bit at the first stage and some one and a half bits of five.
# - Greedy search misses the best sum for more than 40 % of the vectors (three stages). A beam of 16 saves more than 0.2 bits per dimension, with the same codebooks; its prefixes are worse.
# - A beam that ranks by the sum of stage errors misses the best sum even when it keeps every path.
# - A curve measured on what it was fitted on fell below half of Shannon's bound, over five seeds. Held out, the same codebooks were worse than honest ones by more than a factor of 2.
# - At 8 bits, on independent data, one codebook, product and scalar are within a third of each other. On photos scalar has more than 7 times the error of the one codebook, residual less than 1.6 times, with an eighth of the memory.
# - Photos lie below σ² 2⁻²ᴿ honestly, because their pixels hang together. The line for correlated Gaussian vectors lies below all of them.
#
# ## Self-test
#
# **1.** Two papers: one reports 0.02 at 24 bits a vector of 16, the other 0.03 at 8 bits a vector of 8, both for variance 1. Which is closer to the line?
#
# <details><summary>Answer</summary>
#
# The rates are 1.5 and 1 bits per dimension, the lines 0.125 and 0.25. Both numbers lie far below: neither can be right for independent Gaussian components. Either the components hang together, or somebody measured on training data. Comparing 0.02 with 0.03, or 24 bits with 8, would have missed it.
#
# </details>
#
# **2.** With a beam, does the decoder need to know `beam_size`?
#
# <details><summary>Answer</summary>
#
# No. It gets M indices and adds M codewords, however they were found. "It needs more bits, since more paths were tried" confuses trying with sending: one path is sent, and each of its indices is still one of K. Only the encoder works harder.
#
# </details>
#
# **3.** Why do error bars over seeds not protect from measuring on training data?
#
# <details><summary>Answer</summary>
#
# They show how much the result changes from seed to seed, not how far it is off. All seeds make the same mistake, and agree on it. "More seeds" would make the bars smaller and the mistake look surer. More training *vectors* would help, and held-out data settle it.
#
# </details>
#
# **4.** On independent Gaussian components, product quantization beat residual. On which data would you bet on it against residual?
#
# <details><summary>Answer</summary>
#
# Where the pieces have little to do with each other, as after a transform that takes out correlations; that is also how it is mostly used. On raw pixels it lost, because each piece is coded as if the other weren't there. "Product is better, it needs less memory" and "residual is better, it is what codecs use" both leave out the data.
#
# </details>
#
# **5.** Can a quantizer for Gaussian vectors lie below the line on *held-out* data, say on ten of them?
#
# <details><summary>Answer</summary>
#
# Yes, by luck: the line holds for the mean over all vectors there are, and ten may happen to be easy ones. "Never, it is a theorem" forgets that it is one about the mean; "then the theorem is wrong" does so too. With 2,000 vectors and five seeds such luck is gone, as the small error bars show. That is what they are good for.
#
# </details>
#
# ## Where to read on
#
# - C. E. Shannon, *Coding Theorems for a Discrete Source with a Fidelity Criterion* (1959): where the line comes from.
# - T. M. Cover, J. A. Thomas, *Elements of Information Theory*, 2nd edition (2006), chapter 10: the proof, Theorem 10.3.2, and reverse water-filling, Theorem 10.3.3.
# - S. P. Lloyd, *Least Squares Quantization in PCM* (1982, written 1957); J. Max, *Quantizing for Minimum Distortion* (1960), table I.
# - H. Jégou, M. Douze, C. Schmid, *Product Quantization for Nearest Neighbor Search* (2011), section II.
# - A. Babenko, V. Lempitsky, *Additive Quantization for Extreme Vector Compression* (CVPR 2014): sums of codewords, and beam search for them.
# - R. Kumar et al., *High-Fidelity Audio Compression with Improved RVQGAN* (2023), arXiv:2306.06546: DAC.
#
# Next: `06_vqvae`. What do codes of an image mean?
