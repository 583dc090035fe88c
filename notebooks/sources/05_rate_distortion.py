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
# **The question.** More bits, less error: so far we have only compared quantizers with each other. But how good *could* one be? In 1948 Claude Shannon found an error that no quantizer can get below. How far above it are we, and why do some published curves lie below it?
#
# Notebook 04 reached any bitrate at a bearable price. This one brings a measure to judge such quantizers by, a better search through their stages, and their strongest rival, which has no codebook of vectors at all.
#
# **You will be able to**
# - measure a quantizer in bits per dimension, and say how many of these bits it wastes;
# - write a beam search through the stages, and mend a beam search that ranks its paths by the wrong number;
# - choose between one codebook, residual, product and scalar quantization, knowing what each costs;
# - recognise two kinds of curve below Shannon's bound: one that cheats, and one that doesn't.
#
# **You need** notebooks 01 (k-means, held-out data), 03 (entropy) and 04 (residual quantization), and from school the logarithm.
#
# **Time.** It runs in {{run_time}}. Reading takes {{reading_time}}, the five exercises half an hour more.

# %%
import math

import torch
import torch.nn.functional as F

from rvq_tutorial import ResidualVectorQuantizer, kmeans, metrics, nearest
from rvq_tutorial.course import check, data, plots, widgets

# %% [markdown]
# ## Bits per dimension
#
# 8 bits for a vector of 4 components, or 12 for a vector of 8: which is more? A component gets 2 bits in the first case and 1.5 in the second. So we count per component, or **dimension**: the **rate** R is the number of bits per dimension, and the **distortion** D the mean squared error per dimension.
#
# ## Shannon's bound
#
# Shannon (1948) asked: if the components are independent Gaussian numbers of variance σ², what is the least distortion at rate R, for any quantizer at all, with any codebook, of any size, and any search? His answer is
#
# $$D(R) = \sigma^2\, 2^{-2R}$$
#
# (Cover and Thomas, *Elements of Information Theory*, 2nd edition, Theorem 10.3.2). Every further bit per dimension divides the least distortion by 4. At R = 0 it is σ²: nothing is sent, and the receiver rebuilds the mean.
#
# ### Exercise 1 · Predict · ★☆☆ · 4 minutes
#
# M stages of K codewords quantize vectors of `dim` independent Gaussian components. What is the rate R, and what is the least distortion that Shannon allows at this rate?


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
# The plainest way is **scalar** quantization: each component alone gets L levels, so R = log₂ L. The best levels are those where each is the mean of its cell (Lloyd 1982, written 1957; Max 1960). You know what finds them: k-means in one dimension. For Gaussian numbers, Max's table I gives the distortions 0.3634, 0.1175 and 0.03454 for 2, 4 and 8 levels.
#
# To say how far a quantizer is from the bound, turn Shannon's formula round: for a distortion D at variance 1 he needs R = −½ log₂ D bits per dimension. What a quantizer spends beyond that is **wasted**.


# %%
def wasted(rate, error):
    """Bits per dimension spent beyond what Shannon needs for this error, at variance 1."""
    return rate + 0.5 * torch.as_tensor(error).log2()


def distortion(x, codebook):
    """Mean squared error per dimension of x after one codebook: (N, dim), (K, dim) -> a number."""
    return metrics.mse(x, codebook[nearest(x, codebook)])


torch.manual_seed(0)
numbers, unseen_numbers = torch.randn(20_000, 1), torch.randn(20_000, 1)
by_kmeans = [distortion(unseen_numbers, kmeans(numbers, levels).centroids) for levels in (2, 4, 8)]
for rate, error, by_max in zip([1, 2, 3], by_kmeans, [0.3634, 0.1175, 0.03454], strict=True):
    print(f"R = {rate}: k-means {error:.4f}, Max {by_max:.4f}; {wasted(rate, error):.2f} bits wasted")

# %% tags=["claim"]
assert all(abs(_ours / _his - 1) < 0.04 for _ours, _his in zip(by_kmeans, [0.3634, 0.1175, 0.03454], strict=True))
assert 1.35 < by_kmeans[0] / metrics.shannon_distortion(1) < 1.55
assert wasted(3, by_kmeans[2]) > wasted(2, by_kmeans[1]) + 0.08 > wasted(1, by_kmeans[0]) + 0.16

# %% [markdown]
# Our k-means agrees with Max within 4 %. (Two errors even lie below Max's, the least there are: such is the luck of 20,000 numbers.) And the more bits, the more of them are wasted. One reason: Gaussian numbers crowd around 0, so the inner levels are chosen often and the outer ones seldom; and yet each index takes the same log₂ L bits.
#
# ### Short words for frequent indices
#
# Morse gave frequent letters short signs. For indices the best lengths are known (Shannon 1948): an index with a share p of all takes −log₂ p bits. With shares ½, ¼ and ¼ these are 1, 2 and 2 bits, on average 1.5: the entropy of notebook 03. Notebook 07 writes files with such an **entropy coder**; here we count its bits.
#
# Where seldom indices may take many bits, there may be many levels. Take a **grid**: a mark at every multiple of a number, the **step**: the wider the step, the fewer bits are taken.


# %%
def on_a_grid(train, x, step):
    """The bits that each number of x takes on a grid, and its rebuilt value: (N,), (n,) -> (n,), (n,)."""
    marks = step * torch.arange(math.floor(train.min() / step), math.ceil(train.max() / step) + 1)
    train = torch.cat([train, marks])  # each mark comes at least once: a share of 0 would take ∞ bits
    indices = nearest(train[:, None], marks[:, None])
    counts = torch.bincount(indices)
    levels = torch.zeros(len(marks)).index_add_(0, indices, train) / counts  # each the mean of its cell
    chosen = nearest(x[:, None], marks[:, None])
    return -(counts / counts.sum()).log2()[chosen], levels[chosen]


# %% [markdown]
# Marks, shares and levels come from `train`; the bits are counted on x, which none of them has seen. The step is found by halving an interval again and again, until x takes just the bits that it may. (A file would carry the step along, one number.)


# %%
def entropy_coded(train, x, rate):
    """x rebuilt from grids, one a component, whose common step takes at most `rate` bits per dimension of x."""
    fine, coarse = 0.01, 16.0
    for _ in range(20):
        step = math.sqrt(fine * coarse)
        grids = [on_a_grid(known, column, step) for known, column in zip(train.T, x.T, strict=True)]
        if torch.stack([bits for bits, _ in grids]).mean() > rate:
            fine = step
        else:
            coarse, best = step, torch.stack([rebuilt for _, rebuilt in grids], dim=1)
    return best


for rate in (0.5, 1, 2, 3):
    error = metrics.mse(unseen_numbers, entropy_coded(numbers, unseen_numbers, rate))
    print(f"R = {rate}: entropy-coded {error:.4f}; {wasted(rate, error):.2f} bits wasted")

# %% tags=["claim"]
for _seed in range(5):
    torch.manual_seed(_seed)
    _train, _x = torch.randn(20_000, 1), torch.randn(20_000, 1)
    for _rate in (1, 2, 3):
        assert 0.22 < wasted(_rate, metrics.mse(_x, entropy_coded(_train, _x, _rate))) < 0.28
    assert 0.12 < wasted(0.5, metrics.mse(_x, entropy_coded(_train, _x, 0.5))) < 0.19
assert abs(0.5 * math.log2(2 * math.pi * math.e / 12) - 0.254) < 0.001

# %% [markdown]
# From 1 bit on, a quarter of a bit is wasted; at half a bit, less. Gish and Pierce (1968) derived it: at high rates an even grid with an entropy coder wastes ½ log₂(2πe/12) = 0.254 bits, and no other scalar quantizer wastes less. The price: the number of bits differs from vector to vector, and when the vectors stand one after another in a file, the file can be read only from its beginning.
#
# ### Vectors instead of numbers
#
# What do vectors change, if their components have nothing to do with each other? Spend one bit per dimension: 2 codewords for 1 component, 4 for 2, 16 for 4, 256 for 8.

# %%
torch.manual_seed(0)
one_bit = {}
for dim in (1, 2, 4, 8):
    fitted_on, measured_on = torch.randn(16_384, dim), torch.randn(10_000, dim)
    one_bit[f"dim {dim}, K = {2**dim}"] = distortion(measured_on, kmeans(fitted_on, 2**dim, num_iters=15).centroids)
one_bit["the bound"] = metrics.shannon_distortion(1)
plots.bars(one_bit, label="held-out mean squared error per dimension, at 1 bit per dimension")

# %% tags=["claim"]
_ladder = list(one_bit.values())
assert abs(_ladder[0] - _ladder[1]) < 0.02 and _ladder[1] > _ladder[2] > _ladder[3] > 0.25 and _ladder[3] < 0.34

# %% [markdown]
# Two components gain nothing over one: the best four points of the plane are the corners of a square, two levels times two levels. From there on, longer vectors come nearer to the bound. Shannon's proof needs longer and longer vectors, and a codebook that doubles with every bit: that is the wall of notebook 04. The bound says what is possible, not what is affordable.
#
# ## Stage by stage
#
# Residual quantization climbs over the wall. How much does it waste? Vectors of 4 components and stages of 16 codewords, so that every stage costs one bit per dimension. Five seeds, each with new data and new codebooks.

# %%
STAGES = [1, 2, 3, 4, 5]
fitted = []
for seed in range(5):
    torch.manual_seed(seed)
    fitted_on, measured_on = torch.randn(4096, 4), torch.randn(2000, 4)
    fitted.append((ResidualVectorQuantizer(4, 16, num_quantizers=5).fit(fitted_on).eval(), measured_on))


# %%
def stage_errors(rvq, x, beam_size=1):
    """Mean squared error per dimension for 1, 2, … stages; more about `beam_size` soon."""
    return [metrics.mse(x, rvq.decode(rvq.encode(x, num_quantizers=m, beam_size=beam_size))) for m in STAGES]


greedy = torch.tensor([stage_errors(rvq, x) for rvq, x in fitted])  # (5 seeds, 5 stages)
for m, error in zip(STAGES, greedy.mean(0), strict=True):
    print(f"R = {m}: error {error:.4f}; {wasted(m, error):.2f} bits wasted")

# %% tags=["claim"]
_ratio = greedy[:, :-1] / greedy[:, 1:]
assert 2.75 < (1 / greedy[:, 0]).mean() < 3.05 and 2.15 < _ratio[:, -1].mean() < 2.4
assert all(_before > _after for _before, _after in zip(_ratio.mean(0), _ratio.mean(0)[1:], strict=False))
assert wasted(1, greedy[:, 0]).max() < 0.3 and 1.4 < wasted(5, greedy[:, -1]).mean() < 1.75

# %% [markdown]
# Shannon's bit divides the error by 4. The first stage divides it by some 2.9, and the fifth by 2.3. What each of them wastes adds up: after one stage a quarter of a bit, after five some one and a half bits of five. Part of the waste can be had back without touching the codebooks.
#
# ## Greedy is short-sighted
#
# Take two stages in one dimension: the first has the codewords 0 and 4, the second −2.5, 0 and 1. Encode 1.5. Stage 1 takes 0, which is nearer than 4, and leaves 1.5. Stage 2 takes 1 and leaves 0.5. But 4 − 2.5 is 1.5, exactly. To take the nearest codeword at every stage is called **greedy**.
#
# Is such a miss rare? Three stages of one of our quantizers have 16³ = 4,096 sums, few enough to try all:

# %%
rvq, unseen = fitted[0]
sums = rvq.decode(torch.cartesian_prod(*[torch.arange(16)] * 3))
best = (unseen - sums[nearest(unseen, sums)]).square().mean(1)
found = (unseen - rvq.decode(rvq.encode(unseen, num_quantizers=3))).square().mean(1)
print(f"mean squared error: greedy {found.mean():.4f}, the best of all sums {best.mean():.4f}")
print(f"greedy misses the best sum for {(found > best + 1e-6).double().mean():.0%} of the vectors")

# %% tags=["claim"]
for _rvq, _x in fitted:
    _sums = _rvq.decode(torch.cartesian_prod(*[torch.arange(16)] * 3))
    _best = (_x - _sums[nearest(_x, _sums)]).square().mean(1)
    _found = (_x - _rvq.decode(_rvq.encode(_x, num_quantizers=3))).square().mean(1)
    assert (_found > _best + 1e-6).double().mean() > 0.4 and _found.mean() > 1.15 * _best.mean()

# %% [markdown]
# Not rare. But trying all sums is just the big codebook again: M stages have 16ᴹ of them.
#
# ### Keep a few
#
# A list of indices, one for each stage so far, is a **path**. Between one path and all paths lies the **beam**: keep the B best paths, B = `beam_size`. Each stage extends every path by every codeword, which makes B · K candidates, and again only the best B go on. A path's quality is the length of its residual, of what it leaves over. After the last stage, the best path wins. B = 1 is greedy.
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
# Here is a whole beam search, all vectors at once. (`take_along_dim` picks, for each vector, the rows named for it.) A path's score is the sum of the errors of its stages. It runs, and beams beat greedy. Predict: if the beam is so wide that *every* path is kept, is the result the best sum?


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


# %% tags=["predict"]
some, three = unseen[:300], rvq.codebooks[:3]  # fewer vectors than above: so the errors differ a little
summed = {f"beam {b}": metrics.mse(some, rvq.decode(summed_beam(some, three, b))) for b in (1, 4, 16, 16**2)}
optimum = metrics.mse(some, sums[nearest(some, sums)])
plots.bars(summed | {"the best sum": optimum}, label="mean squared error after 3 stages")

# %% tags=["claim"]
assert summed["beam 256"] > 1.03 * optimum and summed["beam 16"] < summed["beam 1"]

# %% [markdown]
# The widest beam keeps all 16² paths that two stages have, so it sees every path of three, and still misses the best. The score is to blame: it adds up what was left over after *every* stage. But what is left after stage 1 is not lost, it is what stage 2 works on. A path that starts badly and ends well, as 4 − 2.5 did, is punished for its start.
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

# %% [markdown] tags=["doubters"]
# ### The package's beam finds the same paths as ours
#
# Here is the search once more, for one vector and with plain lists, so that nothing hides. It finds the package's paths, but for a tie that rounding may break; and the package's widest beam finds the best sum.


# %% tags=["doubters"]
def beam_of_one(x, codebooks, beam_size):
    """The best path for one vector: (dim,), (M, K, dim) -> M indices."""
    beam = [(x, [])]  # residual and path
    for codebook in codebooks:
        ways = [(residual - c, [*path, k]) for residual, path in beam for k, c in enumerate(codebook)]
        beam = sorted(ways, key=lambda way: way[0].square().sum().item())[:beam_size]
    return beam[0][1]


by_lists = torch.tensor([beam_of_one(v, three, beam_size=4) for v in some[:50]])
agree = (by_lists == rvq.encode(some[:50], num_quantizers=3, beam_size=4)).all(1).double().mean().item()
widest = metrics.mse(some, rvq.decode(rvq.encode(some, num_quantizers=3, beam_size=16**2)))
assert agree > 0.97 and abs(widest / optimum - 1) < 1e-3

# %% [markdown]
# The package's `encode` takes a `beam_size`, and ranks by the last residual as well. All five stages, all five seeds:

# %%
searched = {"greedy": greedy}
for beam_size in (4, 16):
    searched[f"beam {beam_size}"] = torch.tensor([stage_errors(rvq, x, beam_size) for rvq, x in fitted])
for name, errors in searched.items():
    print(f"{name:7}: {wasted(5, errors[:, -1]).mean():.2f} of 5 bits per dimension wasted")
stage_bound = STAGES, [metrics.shannon_distortion(m) for m in STAGES]
search_curves = {name: (STAGES, errors) for name, errors in searched.items()}
plots.rate_distortion(search_curves, bound=stage_bound, title="The same codebooks, searched better, held out")

# %% tags=["claim"]
_saved = wasted(5, greedy[:, -1]) - wasted(5, searched["beam 16"][:, -1])
assert 0.38 < _saved.mean() < 0.54 and (searched["beam 4"][:, 1:] < greedy[:, 1:]).all()
assert (searched["beam 16"][:, 2:] < searched["beam 4"][:, 2:]).all()
assert 0.27 < wasted(5, greedy[:, -1]).mean() - wasted(5, searched["beam 4"][:, -1]).mean() < 0.4

# %% [markdown]
# For the decoder nothing changes: same codebooks, same bits, one lookup and one sum a stage. The encoder does B times the work from stage 2 on, and saves some 0.3 bits per dimension with 4 paths, some 0.45 with 16. (Error bars are standard deviations over the seeds.)
#
# One thing is lost. A beam picks its first index for the sake of the last. If only two of five stages arrive, they are worse than a greedy search's:

# %%
prefixes = {}
for beam_size in (1, 16):
    paths = rvq.encode(unseen, beam_size=beam_size)
    prefixes[beam_size] = [metrics.mse(unseen, rvq.decode(paths[:, :m])) for m in STAGES]
    print(f"beam {beam_size:2}, the first 1 to 5 of 5 stages:", *(f"{e:.4f}" for e in prefixes[beam_size]))

# %% tags=["claim"]
for _rvq, _x in fitted:
    _one, _wide = (_rvq.encode(_x, beam_size=_size) for _size in (1, 16))
    _errors = [[metrics.mse(_x, _rvq.decode(_paths[:, :_m])) for _m in (1, 2, 5)] for _paths in (_one, _wide)]
    assert _errors[1][0] > _errors[0][0] and _errors[1][1] > _errors[0][1] and _errors[1][2] < _errors[0][2]

# %% [markdown]
# Now you: which of these quantizers would you take, for how many bits? All are measured on held-out data. (A **multiply–add** is one multiplication and one addition.)

# %%
torch.manual_seed(0)
fitted_on, measured_on = torch.randn(4096, 4), torch.randn(1000, 4)
operating_points = {}
for size in (4, 16, 64):
    quantizer = ResidualVectorQuantizer(4, size, num_quantizers=4).fit(fitted_on).eval()
    for beam_size in (1, 4, 16):
        decoded = [
            quantizer.decode(quantizer.encode(measured_on, num_quantizers=m, beam_size=beam_size)) for m in (1, 2, 3, 4)
        ]
        operating_points[size, beam_size] = [metrics.mse(measured_on, x) for x in decoded]

# %%
widgets.explore(
    lambda **chosen: plots.operating_point(operating_points, 4, **chosen),
    num_quantizers=[1, 2, 3, 4],
    codebook_size=[4, 16, 64],
    beam_size=[1, 4, 16],
)

# %% [markdown]
# Compare M = 3, K = 16 with M = 2, K = 64: 3 bits per dimension both times. With every beam the fewer, larger codebooks leave less error, and they store 512 numbers in place of 192.

# %% tags=["claim"]
for _beam_size in (1, 4, 16):
    assert operating_points[64, _beam_size][1] < 0.95 * operating_points[16, _beam_size][2]

# %% [markdown]
# ## The curve that beats Shannon
#
# A colleague has a better curve. He uses the same class, the same 16 codewords a stage, greedy search, five seeds, error bars. He only takes fewer vectors, 60, "to have it run faster":


# %%
def colleague(seed):
    """The colleague's experiment: mean squared errors for 1 to 5 stages."""
    torch.manual_seed(seed)
    x = torch.randn(60, 4)
    rvq = ResidualVectorQuantizer(4, 16, num_quantizers=5).fit(x).eval()
    return stage_errors(rvq, x), stage_errors(rvq, torch.randn(2000, 4))


results = [colleague(seed) for seed in range(5)]
his = torch.tensor([errors for errors, _ in results])
plots.rate_distortion({"the colleague's": (STAGES, his)}, bound=stage_bound, title="A breakthrough?")

# %% tags=["claim"]
assert (his[:, 1:] < torch.tensor(stage_bound[1])[1:]).all() and his[:, -1].max() < stage_bound[1][-1] / 2

# %% [markdown]
# At 5 bits per dimension his error is below half of Shannon's bound, for every one of the seeds. A theorem says that this can't be. **Why is it? Answer before you unfold.** (The function returns a second list. What is in it?)
#
# <details><summary>Why</summary>
#
# He fits and measures on the same 60 vectors. The theorem speaks of vectors that the codebook was not made for: of those still to come. Five codebooks of 16 have 80 codewords, more than one for each vector; the later stages can hold the residuals of single vectors. These codebooks don't describe Gaussian vectors, they have these 60 by heart.
#
# Where are the missing bits? In the codebooks. To rebuild the vectors the receiver needs 80 · 4 numbers of 32 bits, and these depend on the very vectors that are sent. Spread over 60 · 4 components they are 42.7 bits per dimension, beside the 5 that he counts. A codebook is free only when it was there before the data.
#
# Error bars don't help: all five seeds make the same mistake. The bound is the alarm. Without a bound, on photos, say, the same mistake is only a surprisingly good result.
#
# </details>
#
# The second list: the same codebooks on 2,000 vectors that they have not seen.

# %%
his_held_out = torch.tensor([errors for _, errors in results])
both = {"train": (STAGES, his), "held_out": (STAGES, his_held_out)}
plots.rate_distortion(both, bound=stage_bound, title="The colleague's codebooks, measured twice")

# %% tags=["claim"]
assert (his_held_out > torch.tensor(stage_bound[1])).all()
assert 3.5 < his_held_out[:, -1].mean() / greedy.mean(0)[-1] < 5 and (his_held_out.mean(0) > greedy.mean(0)).all()
assert round(80 * 4 * 32 / (60 * 4), 1) == 42.7

# %% [markdown]
# On held-out vectors his five stages leave some four times the error of ours, which were fitted on 4,096 vectors. Learning by heart only looks better; it is worse.

# %% [markdown] tags=["doubters"]
# ### How many vectors are enough?
#
# One codebook of 64 for 4 Gaussian components, fitted on 2 to 128 vectors a codeword. At 2 its error on the training vectors is below the bound, and the held-out error more than three times as large; at 16 it is still some third above, at 64 some eighth. Held-out data say the truth at any number.

# %% tags=["doubters"]
torch.manual_seed(0)
many, apart = torch.randn(5000, 4), {}
for count in (2, 4, 8, 16, 32, 64, 128):
    fit = kmeans(torch.randn(64 * count, 4), 64)
    apart[count] = distortion(many, fit.centroids) / fit.mse - 1
    assert count > 2 or fit.mse < metrics.shannon_distortion(6 / 4)
assert apart[2] > 2 and 0.2 < apart[16] < 0.45 and 0.05 < apart[64] < 0.2

# %% [markdown]
# ## Five ways to spend 8 bits
#
# Vectors of 4 components, 8 bits each, R = 2. Four of the five ways you know:
#
# - **one codebook** of 256;
# - **residual**: 2 stages of 16;
# - **scalar**: 4 levels for each of the 4 components;
# - **entropy-coded**: each component on a grid, 8 bits on average;
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
# A product quantizer with pieces of one component *is* the scalar quantizer, and with a single piece it is the one codebook. So one function serves these three:


# %%
def in_pieces(train, x, sizes):
    """x after a k-means of its own for each of len(sizes) pieces, fitted on train: (N, dim), (n, dim) -> (n, dim)."""
    rebuilt = []
    for size, known, piece in zip(sizes, train.chunk(len(sizes), 1), x.chunk(len(sizes), 1), strict=True):
        codebook = kmeans(known, size, num_iters=15).centroids
        rebuilt.append(codebook[nearest(piece, codebook)])
    return torch.cat(rebuilt, dim=1)


def ways_at(rate, train, x):
    """What x becomes at 1, 2 or 3 bits per dimension, way by way; everything is fitted on train."""
    rvq = ResidualVectorQuantizer(4, 16, num_quantizers=rate).fit(train).eval()
    ways = {"one codebook": in_pieces(train, x, [16**rate])} if rate < 3 else {}  # 16³ codewords: too many
    return ways | {
        "residual, beam 4": rvq.decode(rvq.encode(x, beam_size=4)),
        "residual, greedy": rvq.decode(rvq.encode(x)),
        "product": in_pieces(train, x, [4**rate] * 2),
        "scalar": in_pieces(train, x, [2**rate] * 4),
        "entropy-coded": entropy_coded(train, x, rate),
    }


# %% [markdown]
# First on Gaussian components, independent of each other. Which two will be best?


# %%
def errors_of(ways, rate, draws):
    """Held-out mean squared errors, way by way: one for each draw of vectors to fit on and vectors to measure on."""
    errors = {}
    for seed, (train, x) in enumerate(draws):
        torch.manual_seed(seed)
        for name, rebuilt in ways(rate, train, x).items():
            errors.setdefault(name, []).append(metrics.mse(x, rebuilt))
    return errors


torch.manual_seed(0)
on_gaussian = errors_of(ways_at, 2, [(torch.randn(8192, 4), torch.randn(4000, 4)) for _ in range(5)])
plots.bars(on_gaussian, label="held-out MSE, 8 bits for 4 independent Gaussian components")

# %% tags=["claim"]
_best, _one, _product, _residual = (
    torch.tensor(on_gaussian[_name]) for _name in ("entropy-coded", "one codebook", "product", "residual, greedy")
)
assert (_best > 1 / 16).all() and (_best < 0.93 * _one).all() and (_one < _product).all()
assert (_product < _residual).all() and (torch.tensor(on_gaussian["residual, beam 4"]) < 0.97 * _residual).all()
assert all(1.05 < _ratio < 1.3 for _ratio in torch.tensor(on_gaussian["scalar"]) / _one)
torch.manual_seed(0)
_at_one_bit = errors_of(ways_at, 1, [(torch.randn(8192, 4), torch.randn(4000, 4)) for _ in range(5)])
assert 0.97 < sum(_at_one_bit["entropy-coded"]) / sum(_at_one_bit["one codebook"]) < 1.05

# %% [markdown]
# At these 2 bits the entropy-coded grid is best (at 1 bit the one codebook does as well), and plain scalar quantization is less than a third worse than the one codebook, though it stores 16 numbers in place of 1,024. Product beats the greedy stages. Where components know nothing of each other, cutting them apart costs little.
#
# If that were all, nobody would build residual quantizers. But whose data are independent?
#
# ### The same 8 bits on photos
#
# Patches of 2 × 2 grey pixels are vectors of 4 components too, of training photos to fit on and held-out ones to measure on.


# %%
def grey_patches(split):
    """2 × 2 patches of crops of the photos in grey: (163840, 4)."""
    grey = data.photo_crops(size=64, n=160, split=split).mean(1, keepdim=True)
    return F.pixel_unshuffle(grey, 2).movedim(1, -1).flatten(0, 2)


patches, unseen_patches = grey_patches("train"), grey_patches("held_out")

# %%
torch.manual_seed(0)
draws = [[x[torch.randperm(len(x))[:8192]] for x in (patches, unseen_patches)] for _ in range(5)]
raw = errors_of(ways_at, 2, draws)
plots.bars(raw, label="held-out MSE, 8 bits for 2 × 2 pixels of photos")

# %% tags=["claim"]
_raw = {_name: torch.tensor(_errors) for _name, _errors in raw.items()}
assert min((_raw[_name] / _raw["one codebook"]).mean() for _name in ("scalar", "entropy-coded")) > 10
assert 1.4 < (_raw["product"] / _raw["residual, greedy"]).mean() < 2.4
assert 1.2 < (_raw["residual, greedy"] / _raw["one codebook"]).mean() < 1.35
assert 1.1 < (_raw["residual, beam 4"] / _raw["one codebook"]).mean() < 1.25
assert (_raw["residual, beam 4"] < _raw["residual, greedy"]).all() and (
    _raw["residual, greedy"] < _raw["product"]
).all()

# %% [markdown]
# Neighbouring pixels are nearly alike. A quantizer that codes them apart says the same thing four times (scalar, entropy-coded) or twice (product). The two that say it four times have more than 10 times the error of the one codebook. Residual stages look at the whole vector every time: they have some 1.3 times the error of the one codebook, or 1.2 with a beam of 4, in an eighth of its memory.

# %% [markdown] tags=["doubters"]
# ### Searched by direction: one more way to lose bits
#
# The audio codec DAC (Kumar et al. 2023) searches by direction: it scales the vector and all codewords to length 1, and looks for the nearest. What it then hands to the decoder is the codeword itself, not scaled. On our patches that is worse than sending nothing at all: a dark even patch and a bright even patch have the same direction, and the codeword found may have any length. A network trained around this search can arrange itself with it, by keeping its vectors' lengths alike; a codebook from k-means can't. The mend: search in what you hand out. The test: no codeword may be nearer than the one handed out.

# %% tags=["doubters"]
known_patches, other_patches = draws[0]
palette = kmeans(known_patches, 256, num_iters=15).centroids
by_direction = palette[nearest(F.normalize(other_patches, dim=1), F.normalize(palette, dim=1))]
by_distance = palette[nearest(other_patches, palette)]
nothing = other_patches.var(0).mean().item()  # the error when the mean is rebuilt every time
assert metrics.mse(other_patches, by_direction) > nothing > 20 * metrics.mse(other_patches, by_distance)
nearer = (other_patches - by_distance).norm(dim=1) < (other_patches - by_direction).norm(dim=1) - 1e-6
assert nearer.double().mean() > 0.7

# %% [markdown]
# ## Below the bound once more
#
# The patches have a variance, so they have a bound, σ² 2⁻²ᴿ. Held-out photos, the right split, nothing fitted on what is measured:

# %%
variance = unseen_patches.var(0).mean().item()
one_codebook = sum(raw["one codebook"]) / 5
print(f"2 bits per dimension: the bound {metrics.shannon_distortion(2, variance):.5f}, one codebook {one_codebook:.5f}")

# %% tags=["claim"]
assert 6.5 < metrics.shannon_distortion(2, variance) / one_codebook < 8
assert max(raw["product"]) < metrics.shannon_distortion(2, variance)

# %% [markdown]
# The one codebook has a seventh of it. **Who has cheated this time? Answer before you unfold.**
#
# <details><summary>Who</summary>
#
# Nobody. The formula is for *independent* Gaussian components. These four pixels are anything but: knowing one, you nearly know the others. So they need fewer bits, and their true bound lies lower. A bound holds only for the data that its theorem speaks of.
#
# </details>
#
# ### Turn, then share
#
# Turn the coordinates: describe a patch not by its four pixels, but by their mean and three differences. Turning changes no length, so no distortion. Which turn? The turn that leaves the new components **uncorrelated**: where one is large, another is on average neither larger nor smaller. `torch.linalg.eigh` finds it in the **covariance matrix** of the training patches, the table of the mean products of any two pixels, each less its mean. (This is principal component analysis.) Each column of `turn` is a new axis.

# %%
middle = patches.mean(0)
turn = torch.linalg.eigh(patches.T.cov()).eigenvectors.flip(1)  # (4, 4), the axis of the largest variance first
variances = ((patches - middle) @ turn).var(0)
print("variances:", *(f"{v:.4f}" for v in variances), "where a pixel has", f"{variances.mean():.4f}")

# %% tags=["claim"]
assert variances[0] > 0.9 * variances.sum() and torch.allclose(turn[:, 0].abs(), torch.full((4,), 0.5), atol=0.01)
assert torch.isclose(variances.mean(), patches.var(0).mean(), rtol=1e-3)
for _patches in (patches, unseen_patches):
    _components = (_patches - _patches.mean(0)) @ torch.linalg.eigh(_patches.T.cov()).eigenvectors.flip(1)
    _sizes = torch.corrcoef(_components.abs().T)
    assert all(0.35 < _sizes[_i, _j] < 0.6 for _i, _j in ((1, 2), (1, 3), (2, 3)))
    assert torch.corrcoef(_components.T).fill_diagonal_(0).abs().max() < 0.01

# %% [markdown]
# More than nine tenths of the variance sit in the first component. Its axis is nearly ½ four times, so this component is twice the mean of a patch's pixels, up to the sign. To give all four as many bits would be a waste. (Uncorrelated is not independent: the last three tend to be far from 0 together, with either sign.)
#
# ### Exercise 5 · Explore · ★★★ · 10 minutes
#
# Components with these `variances` share `bits` among them; the number is for all together, and they may be cut into pieces as small as you like. A component of variance v with b bits has the distortion v · 2⁻²ᵇ. Which shares make the mean distortion least? Try two components of variances 16 and 1 by hand first: 4 bits, all splits in steps of 1. Then find a rule.


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
# The rule: the next piece of a bit goes where most distortion is left. So the distortions are levelled from the top, and a component below the level gets no bits at all. A codebook takes whole bits, so our 8 are handed out one by one:


# %%
def shared(variances, bits, piece=1.0):
    """Bits in pieces, each to the component with the most distortion left: (dim,), number -> (dim,)."""
    shares = torch.zeros_like(variances)
    for _ in range(round(bits / piece)):
        shares[(variances * 4**-shares).argmax()] += piece
    return shares


two_shares = {"2 bits each": torch.full((4,), 2), "to where most is left": shared(variances, 8)}
plots.bit_shares(variances, two_shares)

# %% tags=["claim"]
assert two_shares["to where most is left"].tolist() == [5, 2, 1, 0]
assert (variances * 4.0**-2).mean() > 8 * (variances * 4 ** -shared(variances, 8)).mean()

# %% [markdown]
# (The picture counts with Shannon's v · 2⁻²ᵇ; real levels leave more.)
#
# That makes two more ways, both called **transform coding**. Turn, and spend the 8 bits on scalar codebooks of 2⁵, 2², 2 and 1 levels. Or turn, and code each component on a grid: there the bits share themselves, since with one step for all, a component of small variance mostly stays on the mark 0 and takes few bits. (Turning changes nothing for the one codebook and the stages: all distances stay the same.)


# %%
def turned_too(rate, train, x):
    """What x becomes, way by way, turned and not."""
    turned_train, turned_x = (train - middle) @ turn, (x - middle) @ turn
    sizes = 2 ** shared(turned_train.var(0), 4 * rate).long()
    return ways_at(rate, train, x) | {
        "turned, scalar": in_pieces(turned_train, turned_x, sizes.tolist()) @ turn.T + middle,
        "turned, entropy-coded": entropy_coded(turned_train, turned_x, rate) @ turn.T + middle,
    }


on_photos = {rate: errors_of(turned_too, rate, draws) for rate in (1, 2, 3)}

# %% [markdown]
# What do they cost? A search takes one multiplication and addition for each number it looks at; with a beam of 4, stage 2 is looked at four times. Turning takes 16, and a grid one division a component. The turned ways store 20 numbers for the turn and the mean; a grid stores a level and a share for each mark.

# %%
costs = {  # numbers stored, multiply–adds for a vector
    "turned, entropy-coded": (20 + 2 * 67, 16 + 4),  # some 67 marks in its four grids
    "one codebook": (256 * 4, 256 * 4),
    "residual, beam 4": (2 * 16 * 4, 16 * 4 + 4 * 16 * 4),
    "residual, greedy": (2 * 16 * 4, 2 * 16 * 4),
    "turned, scalar": (20 + 32 + 4 + 2 + 1, 16 + 32 + 4 + 2 + 1),
    "product": (2 * 16 * 2, 2 * 16 * 2),
    "entropy-coded": (2 * 20, 4),  # some 20 marks in its four grids
    "scalar": (4 * 4, 4 * 4),
}
measures = "held-out MSE", "numbers stored", "multiply–adds"
rows = {name: dict(zip(measures, (on_photos[2][name], *cost), strict=True)) for name, cost in costs.items()}
plots.scoreboard(rows, title="8 bits for 2 × 2 pixels of held-out photos")

# %% tags=["claim"]
_photos = {_name: torch.tensor(_errors) for _name, _errors in on_photos[2].items()}
for _better, _worse in zip(list(costs), list(costs)[1:], strict=False):
    assert (_photos[_better] < _photos[_worse]).all(), (_better, _worse)
assert 1.8 < (_photos["one codebook"] / _photos["turned, entropy-coded"]).mean() < 2.4


def _taken(train, x, rate):
    _low, _high = 0.01, 4.0
    for _ in range(20):
        _step = math.sqrt(_low * _high)
        _bits = torch.stack([on_a_grid(*_pair, _step)[0] for _pair in zip(train.T, x.T, strict=True)])
        _low, _high = (_step, _high) if _bits.mean() > rate else (_low, _step)
    return _high, torch.stack([on_a_grid(*_pair, _high)[0] for _pair in zip(train.T, x.T, strict=True)])


for _train, _x in draws[:2]:
    for _turn, _expected in ((torch.eye(4), 20), (turn, 67)):
        _known = (_train - middle) @ _turn
        _step, _bits = _taken(_known, (_x - middle) @ _turn, 2)
        _marks = (_known.amax(0) / _step).ceil() - (_known.amin(0) / _step).floor() + 1
        assert 1.95 < _bits.mean() <= 2 and abs(_marks.sum() - _expected) < 6, _marks
    _least, _most = _bits.sum(0).quantile(torch.tensor([0.1, 0.9])).tolist()
    assert _least < 5 and _most > 13

# %% [markdown]
# The turned grid wins clearly: with less than a sixth of the codebook's numbers and a fiftieth of its multiply–adds, the entropy coder's own work not counted, it leaves half the error. Turn and shares together bring scalar quantization from the last place past product. Entropy coding does the rest: a flat patch takes few bits, an edge many, and a codebook spends 8 on each.

# %% [markdown] tags=["doubters"]
# ### Does the order hold for other photos, and for a codebook with an entropy coder?
#
# The whiskers show how much the draw of the patches matters, from always the same three photos. The photos matter far more. On each of them alone the first six keep their order, with the turned grid ahead of the codebook by a factor of 1.7 on `chelsea` and 2.4 on `coffee`; on `china`, rough all over, by less than 1.2.
#
# The codebook's indices could be entropy-coded as well. They would take some 7.5 bits in place of 8. A codebook of 384 then takes 8, and leaves some 1.7 times the error of the turned grid.

# %% tags=["claim"]
for _title, _photo in data.photos().held_out.items():
    torch.manual_seed(0)
    _grey = _photo.mean(0, keepdim=True)[:, : _photo.shape[1] // 2 * 2, : _photo.shape[2] // 2 * 2]
    _x = F.pixel_unshuffle(_grey, 2).flatten(1).T
    _x, _known = _x[torch.randperm(len(_x))[:8192]], patches[torch.randperm(len(patches))[:8192]]
    _found = {_name: metrics.mse(_x, _y) for _name, _y in turned_too(2, _known, _x).items()}
    assert sorted(_found, key=_found.get)[:6] == list(costs)[:6], (_title, _found)
    _ahead = _found["one codebook"] / _found["turned, entropy-coded"]
    assert {"chelsea": 1.5 < _ahead < 2, "coffee": 2.2 < _ahead < 2.7, "china": 1 < _ahead < 1.25}[_title]


# %% tags=["claim"]
def _coded_codebook(train, x, size):
    _codebook = kmeans(train, size, num_iters=15).centroids
    _counts = torch.bincount(nearest(train, _codebook), minlength=size) + 1
    _chosen = nearest(x, _codebook)
    return -(_counts / _counts.sum()).log2()[_chosen].mean().item(), metrics.mse(x, _codebook[_chosen])


torch.manual_seed(0)
_known = patches[torch.randperm(len(patches))[:16_384]]
for _number, (_, _x) in enumerate(draws[:2]):
    assert 7.3 < _coded_codebook(_known, _x, 256)[0] < 7.7
    _bits, _error = _coded_codebook(_known, _x, 384)
    assert 7.9 < _bits < 8.2 and 1.5 < _error / on_photos[2]["turned, entropy-coded"][_number] < 2.0

# %% [markdown]
# Seen on a photo, at 4 bits a patch, 1 bit a pixel:

# %%
torch.manual_seed(0)
cat = data.photos().held_out["chelsea"][:, 8:200, 96:288].mean(0, keepdim=True)
seen = turned_too(1, draws[0][0], F.pixel_unshuffle(cat, 2).flatten(1).T)
names = "scalar", "product", "one codebook", "turned, entropy-coded"
cats = [F.pixel_shuffle(seen[name].T.unflatten(1, (96, 96)), 2) for name in names]
titles = [f"{name}\n{metrics.psnr(cat, picture):.1f} dB" for name, picture in zip(names, cats, strict=True)]
caption = "Look at the fur and the eyes. Scalar has two greys for a pixel, product four for each pair of pixels."
plots.photo_row(torch.stack(cats).expand(-1, 3, -1, -1), titles, caption=caption)

# %% tags=["claim"]
_levels = [metrics.psnr(cat, _picture) for _picture in cats]
assert _levels[0] + 2 < _levels[1] < _levels[2] - 2 < _levels[3] - 2

# %% [markdown]
# So why codebooks of vectors at all? With indices of fixed length, reading can start anywhere, and a flipped bit spoils one vector; an entropy-coded stream may be lost from there on. Greedy stages give every bitrate from one encoding. And a small, fixed number of codewords is an alphabet, as models that predict the next index want it. Entropy coding can be had on top: notebook 07 does it, with shares that depend on the neighbours.
#
# ### The right bound
#
# What you found in exercise 5 is called **reverse water-filling**. With smaller and smaller pieces it gives the bound for Gaussian vectors whose components are uncorrelated and of different variances (Cover and Thomas, Theorem 10.3.3; in Gaussian vectors, uncorrelated *is* independent). 500 pieces a bit will do:


# %%
def gaussian_bound(variances, rate):
    """Least mean distortion of independent Gaussian components of these variances, at this many bits per dimension."""
    return (variances * 4 ** -shared(variances, rate * len(variances), piece=0.002)).mean().item()


unseen_variances = torch.linalg.eigvalsh(unseen_patches.T.cov())  # along the held-out patches' own axes
right_bound = [1, 2, 3], [gaussian_bound(unseen_variances, rate) for rate in (1, 2, 3)]
curves = {}
for name in ("one codebook", "residual, beam 4", "turned, scalar", "turned, entropy-coded"):
    errors = torch.tensor([by_way[name] for by_way in on_photos.values() if name in by_way])
    curves[name] = range(1, len(errors) + 1), errors.T
plots.rate_distortion(curves, bound=right_bound, title="2 × 2 pixels of held-out photos")

# %% tags=["claim"]
assert abs(gaussian_bound(torch.ones(4), 2) - metrics.shannon_distortion(2)) < 1e-3
assert abs(gaussian_bound(torch.tensor([16.0, 1.0]), 2) - 0.25) < 1e-3
_above = {
    _name: [min(_e) / _least for _e, _least in zip(_errors.T.tolist(), right_bound[1], strict=False)]
    for _name, (_, _errors) in curves.items()
}
assert min(_above["one codebook"]) > 1.1 and max(_above["one codebook"]) < 1.5
assert max(_above["turned, entropy-coded"][1:]) < 0.75 and _above["turned, entropy-coded"][0] > 1
_at_one_bit = [sum(on_photos[1][_name]) / 5 for _name in curves]
assert max(_at_one_bit) < 1.3 * min(_at_one_bit)

# %% [markdown]
# All ways of fixed length lie above this bound, the one codebook by less than half. And the turned grid? At 2 and 3 bits it lies below, on held-out photos, with every bit counted. It is honest again: this is the bound for *Gaussian* vectors, and of all vectors with the same variances and correlations, the Gaussian ones are the hardest to code (a theorem, too). In photos many patches are flat. An entropy coder saves bits there and spends them at the edges; fixed lengths can't. For photos nobody knows the true bound. (At 1 bit all four are nearly alike: there are few bits to move.)
#
# ## What we saw
#
# - Shannon's bound for independent Gaussian components is σ² 2⁻²ᴿ. A grid with entropy coding wastes a quarter of a bit at 1, 2 and 3 bits; five residual stages of 16 codewords, on 4 components, some one and a half bits of five.
# - A beam of 16 saves some 0.45 of these bits with the same codebooks, if it ranks by the last residual; its short prefixes are worse.
# - A curve measured on what it was fitted on fell below half of the bound, over five seeds.
# - At 8 bits for 2 × 2 pixels, residual has some 1.3 times the error of one codebook, with an eighth of the memory, and scalar more than 10 times. Turned and entropy-coded, scalar has half.
# - On photos an error may honestly lie below σ² 2⁻²ᴿ, because pixels hang together; and below the bound for correlated Gaussian vectors, because pixels aren't Gaussian.
#
# In 06 a network takes the place of the turn. In 07 a beam searches its stages, an entropy coder writes what they say, and rivals are judged by such curves.
#
# ## Self-test
#
# **1.** Two papers report errors per dimension, both for variance 1: 0.02 at 24 bits for 16 components, and 0.03 at 8 bits for 8. Which is closer to the bound?
#
# <details><summary>Answer</summary>
#
# The rates are 1.5 and 1 bits per dimension, the bounds 0.125 and 0.25. Both numbers lie far below: neither can be right for independent Gaussian components. Either the components hang together or aren't Gaussian, or somebody measured on training data. Comparing 0.02 with 0.03, or 24 bits with 8, would have missed it.
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
# **4.** An entropy coder takes −log₂ p bits for an index of share p. Why are the shares not counted on the very photo that is sent?
#
# <details><summary>Answer</summary>
#
# The receiver must have the same shares to read the bits, and doesn't have the photo. They would have to be sent too, and their bits counted: the colleague's mistake once more. "Because it would be less exact" is the tempting reply, and the opposite is true: for that photo they would be the best shares there are. (A coder may learn the shares while it goes along, from what both sides already know.)
#
# </details>
#
# **5.** Can a quantizer for Gaussian vectors lie below the bound on *held-out* data, say on ten vectors?
#
# <details><summary>Answer</summary>
#
# Yes, by luck: the bound holds for the mean over all vectors there are, and ten may happen to be easy ones. "Never, it is a theorem" forgets that it is a theorem about the mean; "then the theorem is wrong" does so too. With 2,000 vectors and five seeds such luck is gone, as the small error bars show. That is what error bars are good for.
#
# </details>
#
# ## Where to read on
#
# - C. E. Shannon, *A Mathematical Theory of Communication* (1948), and *Coding Theorems for a Discrete Source with a Fidelity Criterion* (1959).
# - T. M. Cover, J. A. Thomas, *Elements of Information Theory*, 2nd edition (2006), chapter 10.
# - S. P. Lloyd, *Least Squares Quantization in PCM* (1982, written 1957); J. Max, *Quantizing for Minimum Distortion* (1960), table I.
# - H. Gish, J. N. Pierce, *Asymptotically Efficient Quantizing* (1968): the quarter of a bit.
# - H. Jégou, M. Douze, C. Schmid, *Product Quantization for Nearest Neighbor Search* (2011), section II.
# - A. Babenko, V. Lempitsky, *Additive Quantization for Extreme Vector Compression* (CVPR 2014): sums of codewords, and beam search for them.
# - R. Kumar et al., *High-Fidelity Audio Compression with Improved RVQGAN* (2023), arXiv:2306.06546: DAC.
#
# Next: `06_vqvae`. What do codes of an image mean?

# %% [markdown] tags=["kernel"]
# ## What you have solved
#
# A ✓ stands for every exercise of the course that a check has accepted.

# %%
check.progress()
