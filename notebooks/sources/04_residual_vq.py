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
# # 04 · Why many small codebooks, not one big one?
#
# **The question.** Every further bit doubles a codebook. A good photo needs so many bits that its codebook could be neither stored, nor searched, nor fitted. How do compressors get there all the same?
#
# **In the course.** Notebooks 01 to 03 made one codebook, put it into a network, and kept its codewords alive. Here many small codebooks work one after another. The rest of the course is built on them.
#
# **You will be able to**
# - quantize what is left over, stage by stage, and rebuild a vector from any number of stages;
# - say what a residual quantizer costs in bits, memory and arithmetic, what it wins, and what it loses;
# - say which gradient must come out of a stack of stages, and measure it;
# - recognise and mend two bugs that well-known libraries shipped in this very loop.
#
# **You need** notebooks 01 to 03: k-means, the quantizer as a layer, straight-through, the commitment loss.
#
# **Time.** It runs in {{run_time}}. Reading takes {{reading_time}}, the five exercises half an hour more.

# %% tags=["measured"]
import math
from itertools import pairwise

import torch
import torch.nn.functional as F

from rvq_tutorial import ResidualVectorQuantizer, kmeans, metrics, nearest, straight_through
from rvq_tutorial.course import check, data, measured, plots, widgets

_ = torch.manual_seed(0)  # the same numbers in every run

# %% [markdown]
# ## The wall
#
# Take patches of 4 × 4 pixels, in three colours: vectors of 48 components. PyTorch cuts them out and puts them back. The step from one patch to the next, 4 pixels, is called the **stride**.


# %%
def to_patches(images):
    """Patches of 4 × 4 pixels as vectors: (..., 3, H, W) -> (..., H/4, W/4, 48)."""
    return F.pixel_unshuffle(images, 4).movedim(-3, -1)


def to_images(patches):
    """The inverse: (..., H/4, W/4, 48) -> (..., 3, H, W)."""
    return F.pixel_shuffle(patches.movedim(-1, -3), 4)


# %% [markdown]
# A codebook of 256 codewords, fitted on patches of the training photos, spends 8 bits on a patch, which is half a bit on a pixel:

# %%
photos = data.photos()
crops = to_patches(data.photo_crops(size=64, n=64, seed=0))  # (64, 16, 16, 48)
patch_codebook = kmeans(crops.flatten(0, 2), 256, num_iters=10).centroids

eye = photos.held_out["chelsea"][:, 64:160, 120:248]
eye_rebuilt = to_images(patch_codebook[nearest(to_patches(eye), patch_codebook)])
titles = ["original, 24 bits a pixel", f"½ bit a pixel, {metrics.psnr(eye, eye_rebuilt):.1f} dB"]
plots.photo_row(torch.stack([eye, eye_rebuilt]), titles, caption="A photo not fitted on. The squares are the patches.")

# %% [markdown]
# That is coarse. So let us spend more. Each bit doubles the number of codewords, and a codeword of 48 numbers takes 4 · 48 bytes:

# %%
patches_there_are = sum(photo[0].numel() for photo in photos.train.values()) // 4**2
for bits in (8, 16, 24, 32):
    print(f"{bits:2} bits: {2**bits:13,} codewords, {4 * 48 * 2**bits / 1e6:13,.2f} MB")
print(f"patches in all training photos: {patches_there_are:,}")

# %% tags=["claim"]
assert patches_there_are < 2**24 and round(4 * 48 * 2**24 / 1e6) == 3221 and round(4 * 48 * 2**32 / 1e9) == 825

# %% [markdown]
# At 24 bits, 1.5 bits a pixel, the codebook takes 3,221 MB, and one search looks at every byte of it. Worse: k-means needs at least as many vectors as codewords, and all our photos together don't have that many patches. At 32 bits it would be 825 GB.
#
# ## Numbers with places
#
# You know the way out from school. To name a thousand numbers nobody learns a thousand symbols: ten are enough, on three places. 273 is 200, then 70 of what is left, then 3 of what is left then. Let us do that with codebooks, the first coarse, the next ones finer:

# %%
coarse, middle, fine = torch.tensor([0.0, 10, 20]), torch.tensor([-3.0, 0, 3]), torch.tensor([-1.0, 0, 1])

# %% [markdown]
# ### Exercise 1 · Predict · ★☆☆ · 3 minutes
#
# Quantize x = 16.4 by hand. Take the nearest codeword of `coarse`, subtract it, and hand what is left to `middle`; subtract again, and hand the rest to `fine`. Which three *indices* come out, and which number do the three codewords add up to?


# %% tags=["exercise"]
def predicted_stages():
    """The list of the three indices, and the number that their codewords rebuild."""
    ### BEGIN SOLUTION
    return [2, 0, 0], 20.0 - 3.0 - 1.0
    ### END SOLUTION


# %% [markdown] tags=["hint"]
# This is not cutting off digits: the *nearest* codeword may be larger than x. Then what is left is negative.

# %%
check.predicted_stages(predicted_stages)

# %% [markdown]
# Now the machine does it. What a stage leaves over is called the **residual**.

# %%
left = torch.tensor(16.4)
for codebook in (coarse, middle, fine):
    index = (left - codebook).abs().argmin()
    print(f"{left:5.1f} → index {index}, codeword {codebook[index]:3.0f}, left over {left - codebook[index]:4.1f}")
    left = left - codebook[index]

# %% tags=["claim"]
assert abs(left - 0.4) < 1e-5

# %% [markdown]
# Three codebooks of three codewords: nine numbers stored, and 3 · 3 · 3 = 27 different numbers that they can rebuild.
#
# ## The same in the plane
#
# Points along a spiral, and a codebook of 8 codewords by k-means: the first **stage**. 1,000 points to fit on, another 1,000 held out.

# %%
train, held_out = data.toy("spiral", 1000, seed=0), data.toy("spiral", 1000, seed=1)
first = kmeans(train, 8).centroids
first_residual = train - first[nearest(train, first)]
plots.voronoi(train, first, arrows=-first_residual, title="Stage 1: what the arrows bridge is lost")

# %% [markdown]
# One codebook of 8 would end here. But the arrows are vectors too: turned round, they are the residuals r = x − c. Subtract from each point its codeword, and the eight cells come to lie on top of each other, each with its codeword at the origin. Move the slider and watch them slide:

# %%
widgets.explore(
    lambda share: plots.sliding_cells(train, first, share),
    share=[0.0, 0.2, 0.4, 0.6, 0.8, 1.0],
)

# %% [markdown]
# To the cloud at the end of the slide we fit a second codebook. The second stage needs no new idea: nearest codeword, subtract. A point is rebuilt as the *sum* of its two codewords.

# %%
second = kmeans(first_residual, 8).centroids
second_residual = first_residual - second[nearest(first_residual, second)]
rebuilt = first[nearest(train, first)] + second[nearest(first_residual, second)]
print(f"mean squared error after one stage {first_residual.square().mean():.4f}")
print(f"and after two                      {(train - rebuilt).square().mean():.4f}")

# %% tags=["claim"]
assert torch.allclose(train - rebuilt, second_residual, atol=1e-6)
assert second_residual.square().mean() < first_residual.square().mean() / 3

# %% [markdown]
# The last residual *is* the error of the sum. That is the whole method, **residual vector quantization** (Juang and Gray 1982, under the name of multiple stage vector quantization; SoundStream, Zeghidour et al. 2021, Algorithm 1). We write $c^{(m)}_k$ for codeword k of stage m, and r₁ for x. Then stage m does
#
# $$k_m = \arg\min_k \|r_m - c^{(m)}_k\|, \qquad r_{m+1} = r_m - c^{(m)}_{k_m}, \qquad \hat x = \sum_{m=1}^{M} c^{(m)}_{k_m}.$$
#
# ### Exercise 2 · Implement · ★★☆ · 6 minutes
#
# Write the loop for any number of stages M: `codebooks` has shape (M, K, dim), and the indices of a vector stand in a row.


# %% tags=["exercise"]
def residual_encode(x, codebooks):
    """The indices of every stage for every row of x: (N, dim), (M, K, dim) -> (N, M)."""
    ### BEGIN SOLUTION
    residual, indices = x, []
    for codebook in codebooks:
        index = nearest(residual, codebook)
        indices.append(index)
        residual = residual - codebook[index]
    return torch.stack(indices, dim=1)
    ### END SOLUTION


# %% [markdown] tags=["hint"]
# Start with `residual = x`. In the loop, `nearest(residual, codebook)` gives the indices of one stage, shape (N,), and `codebook[index]` their codewords. Make a new residual (`residual = residual - ...`): with `-=` you would change the caller's x. At the end `torch.stack(..., dim=1)`.

# %%
check.residual_encode(residual_encode)

# %% [markdown]
# Fitting is the same loop with a k-means in it. Stage m is fitted to what the stages before it leave over, so the order matters and no stage is like another. In the picture below each stage is drawn at its own scale; above it stands its *rms*, the root of the mean square of what the stage receives.


# %% tags=["measured"]
def fit_stages(x, codebook_size, num_quantizers):
    """Codebooks, each the k-means of what those before it leave of x: (N, dim) -> (M, K, dim)."""
    codebooks, residual = [], x
    for _ in range(num_quantizers):
        codebook = kmeans(residual, codebook_size).centroids
        residual = residual - codebook[nearest(residual, codebook)]
        codebooks.append(codebook)
    return torch.stack(codebooks)


# %%
_ = torch.manual_seed(1)
codebooks = fit_stages(train, codebook_size=8, num_quantizers=4)
plots.residual_stages(held_out, codebooks, num_quantizers=4)

# %% [markdown]
# Look at how the rms shrinks from stage to stage. The first stage sees a spiral, the second eight pieces of one, and the last ones little more than a cloud. Structure is used up stage by stage.
#
# ## Any number of stages will do
#
# Rebuilding is adding. Nothing says that all the terms must have arrived: the first stages alone give a coarser x̂. Such a beginning of the list of indices is called a **prefix**. A file that is stored stage by stage and has lost its end can still be shown.


# %%
def decode(indices, codebooks):
    """The sum of the chosen codewords: (N, m), (M, K, dim) -> (N, dim), for any m ≤ M."""
    return sum(codebook[index] for codebook, index in zip(codebooks, indices.unbind(1), strict=False))


# %% [markdown]
# The indices come from the package's residual quantizer, which we meet here. M is called `num_quantizers`, and `fit` is our `fit_stages`: with the same seed it finds the same codebooks. (`eval()`, because in training mode a call also moves the codebooks, as in notebook 03.)

# %%
rvq = ResidualVectorQuantizer(dim=2, codebook_size=8, num_quantizers=4)
_ = torch.manual_seed(1)
rvq.fit(train).eval()
assert torch.allclose(rvq.codebooks, codebooks, atol=1e-6)

indices = rvq.encode(held_out)
print("indices of the first point:", indices[0].tolist())

# %%
errors = [metrics.mse(held_out, decode(indices[:, :m], codebooks)) for m in range(1, 5)]
for m, error in enumerate(errors, 1):
    assert torch.equal(rvq.encode(held_out, num_quantizers=m), indices[:, :m])
    print(f"{m} of 4 stages: {error:.5f}")

# %% tags=["claim"]
assert indices.shape == (1000, 4) and all(_after < _before / 2 for _before, _after in pairwise(errors))
for _m in range(1, 5):
    assert torch.equal(rvq(held_out, num_quantizers=_m).quantized, rvq.decode(indices[:, :_m]))
    assert torch.allclose(rvq.decode(indices[:, :_m]), decode(indices[:, :_m], codebooks), atol=1e-6)

# %% [markdown]
# On points not fitted on, each stage leaves less than half of the error before it, and a prefix of the four indices is exactly what a quantizer with fewer stages would have sent. One fit, one encoding, four **bitrates**: 3, 6, 9 and 12 bits a point. Notebook 07 builds on this.
#
# ### What is wrong here? · The same data twice
#
# "A codebook should know the data", and so two stages are both fitted to x. Predict what the second is then worth:

# %% tags=["predict"]
unlike = kmeans(train, 8).centroids  # in the place of stage 2
received = held_out - codebooks[0][nearest(held_out, codebooks[0])]
wrong = received - unlike[nearest(received, unlike)]
print(f"held-out error: {received.square().mean():.4f} after one stage, {wrong.square().mean():.4f} after two")
print("chosen in stage 2:", torch.bincount(nearest(received, unlike), minlength=8).tolist())

# %% tags=["claim"]
assert wrong.square().mean() > 5 * errors[1]

# %% [markdown]
# Little or nothing; it may even do harm. Stage 2 doesn't receive points of the spiral, it receives short vectors around the origin. Most of them choose the few codewords that happen to lie near the origin, and the others are hardly used. The mend is the line that we had: fit a stage to what it will receive.

# %% [markdown]
# Now you: more stages, or more codewords? All codebooks are fitted in the first line.

# %%
fitted = {size: fit_stages(train, size, num_quantizers=4) for size in (2, 4, 8, 16)}
widgets.explore(
    lambda codebook_size, num_quantizers: plots.residual_stages(held_out, fitted[codebook_size], num_quantizers),
    codebook_size=[2, 4, 8, 16],
    num_quantizers=[1, 2, 3, 4],
)

# %% [markdown]
# Compare K = 4 with M = 4 and K = 16 with M = 2: 8 bits a point both times. Remember which error was smaller; we come back to it.
#
# ## What it costs
#
# ### Exercise 3 · Predict · ★★☆ · 5 minutes
#
# M stages of K codewords of size dim. How many bits does one vector take? How many numbers do the codebooks hold? And how many would a *single* codebook hold that can rebuild as many different vectors?


# %% tags=["exercise"]
def cost(dim, codebook_size, num_quantizers):
    """Bits of a vector; numbers in M codebooks; numbers in one codebook with as many codewords as they have sums."""
    ### BEGIN SOLUTION
    bits = num_quantizers * math.log2(codebook_size)
    stored = num_quantizers * codebook_size * dim
    stored_in_one = codebook_size**num_quantizers * dim
    return bits, stored, stored_in_one
    ### END SOLUTION


# %% [markdown] tags=["hint"]
# Think of the school example: ten symbols on three places name 10³ numbers, and a number takes three digits. Each index takes log₂ K bits. The codebooks lie in memory beside each other, so their sizes add up; the choices multiply.

# %%
check.cost(cost)

# %% [markdown]
# Bits add up to M · log₂ K, memory to M · K · dim, and the sums multiply to Kᴹ. Back to the photo patches with their 48 components: on a logarithmic scale the memory of one codebook rises as a straight line, and that of stages hardly rises at all.

# %%
plots.codebook_memory(48, codebook_sizes=[16, 256, 1024])

# %% [markdown]
# To find the nearest codeword is to find the least ‖c‖² − 2 x · c, and ‖c‖² can be kept ready. So a search takes about one multiplication and one addition for every number in the codebooks. What one codebook of 24 bits does in 805 million steps a patch, three stages of 256 do in 36,864.

# %% tags=["claim"]
assert 2**24 * 48 == 805_306_368 and 3 * 256 * 48 == 36_864
assert rvq.bits == 4 * math.log2(8) == 12 and rvq.codebooks.numel() == 4 * 8 * 2
assert len(rvq.decode(torch.cartesian_prod(*[torch.arange(8)] * 4)).unique(dim=0)) > 4000

# %% [markdown]
# ## What it loses
#
# Stages can only rebuild *sums*, and the second codebook must serve all cells of the first at once. So let us spend the same 12 bits in five ways: one codebook of 4,096, two of 64, and so on. The vectors have 4 independent Gaussian components.


# %% tags=["measured"]
splits = [(1, 4096), (2, 64), (3, 16), (4, 8), (6, 4)]  # M, K
same_memory = 1, 128  # as many numbers as 2 × 64


def residual_error(x, codebooks):
    """Mean squared error per component of x after all stages: (N, dim), (M, K, dim) -> a number."""
    for codebook in codebooks:
        x = x - codebook[nearest(x, codebook)]
    return x.square().mean().item()


# %% [markdown]
# A codebook of 4,096 wants many vectors to be fitted on, so this was measured beforehand, with the functions above: 196,608 vectors to fit on, 48 for each of the 4,096 codewords, 50,000 held out, five seeds. Predict the order, and whether the differences are large.

# %% tags=["predict"]
twelve_bits = measured.read("equal_bits")
print(twelve_bits)
by_split = {name: list(by_seed.values()) for name, by_seed in twelve_bits.results["196608"].items()}
average = {name: sum(of_seeds) / len(of_seeds) for name, of_seeds in by_split.items()}
plots.bars(
    {f"{m} × {size}: {m * size * 4:,} numbers": by_split[f"{m} × {size}"] for m, size in splits},
    label="held-out mean squared error per component",
    title="12 bits a vector, spent in five ways",
)

# %% tags=["claim"]
_ladder = [average[f"{_m} × {_size}"] for _m, _size in splits]
assert all(_worse > 1.05 * _better for _better, _worse in pairwise(_ladder))
assert 1.36 < _ladder[1] / _ladder[0] < 1.41 and 1.8 < _ladder[3] / _ladder[0] < 2
assert residual_error(held_out, fitted[16][:2]) < 0.8 * residual_error(held_out, fitted[4])

# %% [markdown]
# **Fitted on enough vectors, one big codebook wins at equal bits, and here every further split loses.** Two stages of 64 leave 38 % more error than one codebook of 4,096. They also hold 512 numbers in place of 16,384: a thirty-second of the memory and of the arithmetic. That is the bargain. Four stages of 8 leave nearly twice the error, with 128 numbers. (On the spiral above, too: at 8 bits a point, two stages of 16 left less error than four of 4.)
#
# And at equal *memory*? With 512 numbers, one codebook has 128 codewords:

# %%
print(f"512 numbers: {average['1 × 128']:.3f} as one codebook (7 bits), {average['2 × 64']:.3f} as two of 64 (12 bits)")

# %% tags=["claim"]
assert average["1 × 128"] > 3 * average["2 × 64"]

# %% [markdown]
# So it depends on what is scarce. With few bits, one codebook is the better choice. With many there is no choice.

# %% [markdown] tags=["doubters"]
# ### How much do the vectors to fit on matter?
#
# Six vectors a codeword are too few. Fitted on 24,576 vectors, the codebook of 4,096 leaves about 7 % more held-out error than fitted on 196,608, and the small codebooks hardly any more. Who compares on few vectors flatters the stages:

# %% tags=["doubters"]
for _name, _by_seed in twelve_bits.results["24576"].items():
    print(f"{_name:9} {sum(_by_seed.values()) / len(_by_seed):.4f} → {average[_name]:.4f}")

# %% tags=["claim"]
_few = {_name: sum(_by_seed.values()) / len(_by_seed) for _name, _by_seed in twelve_bits.results["24576"].items()}
assert 1.04 < _few["1 × 4096"] / average["1 × 4096"] < 1.1 and 0.97 < _few["2 × 64"] / average["2 × 64"] < 1.03

# %% [markdown]
# ### Where the loss comes from
#
# All 64 places that 6 bits can name, from 1, 2, 3 or 6 stages. (Cells and error take the nearest place; going stage by stage may miss it.) Move the slider.


# %%
def all_sums(codebooks):
    """Every sum of one codeword from each codebook: (M, K, dim) -> (Kᴹ, dim)."""
    sums = codebooks[0]
    for codebook in codebooks[1:]:
        sums = (sums[:, None] + codebook).flatten(0, 1)
    return sums


cloud, unseen = data.toy("gaussian", 4000, seed=0), data.toy("gaussian", 1000, seed=1)
places = {m: all_sums(fit_stages(cloud, codebook_size=2 ** (6 // m), num_quantizers=m)) for m in (1, 2, 3, 6)}
widgets.explore(
    lambda num_quantizers: plots.voronoi(
        unseen, places[num_quantizers], title=f"64 places from {num_quantizers} stages"
    ),
    num_quantizers=[1, 2, 3, 6],
)

# %% [markdown]
# One codebook puts every place where the data wants it. Sums repeat the pattern of the later stages around each codeword of the first. Where two copies overlap, places are wasted; between them there are gaps.
#
# ### Exercise 4 · Explore · ★★☆ · 8 minutes
#
# A device has room for `memory` numbers, and a vector may take `bits` bits. Among all splits into M equal stages of K = 2^(bits / M) codewords, which one that fits leaves the least error? M must divide `bits`, and some split always fits. Find the law in the bars above, and write it as a function.


# %% tags=["exercise"]
def best_split(dim, bits, memory):
    """M and K with M · log2 K = bits, of the least distortion that fits into this many numbers: -> (M, K)."""
    ### BEGIN SOLUTION
    for num_quantizers in range(1, bits + 1):
        codebook_size = 2 ** (bits // num_quantizers)
        if bits % num_quantizers == 0 and num_quantizers * codebook_size * dim <= memory:
            return num_quantizers, codebook_size
    ### END SOLUTION


# %% [markdown] tags=["hint"]
# Down the bars, as M grows, the error only rises and the memory only falls. So walk from the top and stop at the first split that fits. The memory is M · K · dim.

# %%
check.best_split(best_split)

# %% [markdown]
# ## Backwards through the stages
#
# In a network an encoder stands before the quantizer and learns through it. Which gradients should come out of M stages?
#
# - **Of the output.** Notebook 02's pretence is x̂ = x + a constant. It doesn't ask how x̂ was found. So the **Jacobian** of x̂ by x, all slopes in one table, is the *identity*, whatever M: each component of x̂ moves one to one with its own component of x.
# - **Of the commitment loss.** Each stage has a term ‖r_m − sg[c]‖² (Défossez et al. 2022, section 3.4), and r_m = x − (codewords, held still). So *every* stage pulls x towards what it and the stages before it rebuild.
#
# The obvious way is to call a quantizer layer, with its straight-through, M times in a row. Everything then hangs on one line: what is handed on to the next stage. We leave that line open, as `hand_on`.


# %%
def stages(x, codebooks, hand_on):
    """The quantized vectors and the M commitment terms: (N, dim), (M, K, dim) -> (N, dim), list."""
    residual, total, terms = x, 0, []
    for codebook in codebooks:
        chosen = codebook[nearest(residual, codebook)]
        terms.append(F.mse_loss(residual, chosen.detach()))
        quantized = straight_through(residual, chosen)
        total = total + quantized
        residual = hand_on(residual, quantized)
    return total, terms


# %% [markdown]
# Two instruments, on a few vectors in float64: the Jacobian at one of them, and how strongly each stage's term pulls.

# %%
few, fixed = held_out[:20].double().requires_grad_(), codebooks.double()


def jacobian(hand_on, num_quantizers=4):
    """Slopes of the output for one vector, by that vector: (dim, dim)."""

    def output(vector):
        return stages(vector[None], fixed[:num_quantizers], hand_on)[0][0]

    return torch.autograd.functional.jacobian(output, few[0].detach()).tolist()


def pulls(hand_on):
    """Length of the gradient of each stage's commitment term; 0 where a term doesn't depend on x."""
    # + 0 · x: even a constant term then has a gradient to ask for, and it is 0.
    terms = [term + 0 * few.sum() for term in stages(few, fixed, hand_on)[1]]
    return [round(torch.autograd.grad(term, few, retain_graph=True)[0].norm().item(), 5) for term in terms]


# %% [markdown]
# ### What is wrong here? · The silent stages
#
# This is EnCodec's line: the next residual is x minus what came out of the stage's straight-through. The values are right. Predict: which of the four terms has a gradient by x?


# %% tags=["predict"]
def silent(residual, quantized):
    return residual - quantized


print("Jacobian of the output:", jacobian(silent))
print("pull of each stage:", pulls(silent))

# %% [markdown]
# The output's slope is right, and from the second stage on the pull is exactly zero. Straight-through says: `quantized` moves with `residual`, one to one. Then `residual - quantized` doesn't move at all. In symbols, r₂ = x − (x + sg[c − x]): x cancels. The loss still shows a number for every stage, but only the first one does anything, and nothing ever crashes.

# %%
plots.residual_loop_graph("silent")

# %% [markdown]
# To detach the whole residual is no mend. Then r₂ is a constant, and again only stage 1 pulls:


# %%
def detached(residual, quantized):
    return (residual - quantized).detach()


print("pull of each stage:", pulls(detached))

# %% tags=["claim"]
for _hand_on in (silent, detached):
    assert jacobian(_hand_on) == [[1, 0], [0, 1]] and pulls(_hand_on)[0] > 1e-3 and pulls(_hand_on)[1:] == [0, 0, 0]

# %% [markdown]
# The bug was reported to two libraries that had it, vector-quantize-pytorch (issue 33) and EnCodec (issue 25). The first changed the line. EnCodec's published code keeps it, so that its results can be reproduced, and warns whoever trains with it.
#
# ### What is wrong here? · The loud decoder
#
# Here is vector-quantize-pytorch's line since: detach what is subtracted. Predict the Jacobian this time: each stage's `quantized` moves one to one with its residual, every residual now moves with x, and the output is the sum of M of them.


# %% tags=["predict"]
def loud(residual, quantized):
    return residual - quantized.detach()


print("Jacobian of the output:", jacobian(loud))
print("pull of each stage:", pulls(loud))

# %% tags=["claim"]
assert min(pulls(loud)) > 1e-4 and all(jacobian(loud, _m) == [[_m, 0], [0, _m]] for _m in (1, 2, 4))

# %% [markdown]
# All stages pull now, and whatever gradient the decoder sends arrives at the encoder M times as large, here four times.

# %%
plots.residual_loop_graph("loud")

# %% [markdown]
# (By now the library's default pretence is another one, the rotation trick, which turns the gradient along with the vector.) Both lines leave the same question unasked: *where* does straight-through belong, in each stage or around them all? Audiocraft, EnCodec's successor, gets it right, with a comment that points to the bug report.
#
# ### Exercise 5 · Repair · ★★★ · 10 minutes
#
# Write the loop so that both hold: the Jacobian of the output is the identity for every M, and every stage's commitment term pulls x. Return the same two results as `stages`. The codebooks must get no gradient from either.


# %% tags=["exercise"]
def residual_layer(x, codebooks):
    """(N, dim), (M, K, dim) -> the quantized vectors, straight-through, and the list of the M commitment terms."""
    ### BEGIN SOLUTION
    residual, total, terms = x, 0, []
    for codebook in codebooks:
        chosen = codebook[nearest(residual, codebook)].detach()
        terms.append(F.mse_loss(residual, chosen))
        residual = residual - chosen
        total = total + chosen
    return straight_through(x, total), terms
    ### END SOLUTION


# %% [markdown] tags=["hint"]
# Inside the loop no straight-through is needed at all: subtract plain codewords, detached, and add them up. Each residual is then x minus a constant. How many straight-throughs does the sum at the end need?

# %%
check.residual_layer(residual_layer)

# %% [markdown]
# `ResidualVectorQuantizer` does it this way:

# %%
plots.residual_loop_graph("right")

# %% [markdown] tags=["doubters"]
# ### Are the package's gradients the true ones?
#
# The Jacobian is the identity for 1 to 8 stages. The commitment loss is compared with finite differences, the function of notebook 02: they know nothing of `detach` and measure the loss as it is. With `codebook_update="gradient"`, each codebook's gradient is the one that its own residuals give it; neither a loss behind the output nor a later stage reaches it. (With the default, `"ema"`, each stage follows its residuals as a moving average, with restarts, as in notebook 03.)

# %% tags=["doubters"]
for _m in (1, 2, 4, 8):
    _layer = ResidualVectorQuantizer(dim=2, codebook_size=8, num_quantizers=_m).double().eval()
    _slopes = torch.autograd.functional.jacobian(lambda v, layer=_layer: layer(v).quantized, few[0].detach())
    assert torch.equal(_slopes, torch.eye(2).double())

_layer = ResidualVectorQuantizer(dim=2, codebook_size=8, num_quantizers=4, codebook_update="gradient").double().eval()
_output, _learned = _layer(few), list(_layer.parameters())
(_believed,) = torch.autograd.grad(_output.commitment_loss, few, retain_graph=True)
_true = torch.empty(few.numel()).double()
for _i, _step in enumerate(1e-6 * torch.eye(few.numel()).double().view(-1, *few.shape)):
    with torch.no_grad():
        _true[_i] = (_layer(few + _step).commitment_loss - _layer(few - _step).commitment_loss) / 2e-6
assert torch.allclose(_believed.flatten(), _true, rtol=1e-4, atol=1e-8)

_by_package = torch.autograd.grad(_output.quantized.pow(3).sum() + _output.loss, _learned)
_residual, _losses = few.detach(), []
for _codebook in _learned:
    _chosen = _codebook[nearest(_residual, _codebook)]
    _losses.append(F.mse_loss(_chosen, _residual))
    _residual = _residual - _chosen.detach()
_by_hand = torch.autograd.grad(sum(_losses) / 4, _learned)
assert all(torch.allclose(_a, _b) and _a.norm() > 0 for _a, _b in zip(_by_package, _by_hand, strict=True))

# %% [markdown]
# ### A balance that moves with M
#
# The encoder hears two voices, the decoder's gradient and the commitment loss, balanced by β. The loud decoder makes the decoder's gradient M times as loud. But in a right loop, too, the balance moves with M. The terms can be summed over the stages, or one takes their mean, as the package does. Here are both on the spiral, for up to 16 stages, as multiples of the pull that one stage has:

# %%
counts = [1, 2, 4, 8, 16]
deep = ResidualVectorQuantizer(dim=2, codebook_size=8, num_quantizers=16).fit(train).double().eval()
spiral = held_out.double().requires_grad_()
losses = [deep(spiral, num_quantizers=m).commitment_loss for m in counts]
lengths = [torch.autograd.grad(loss, spiral)[0].norm().item() for loss in losses]
pull = {
    "mean over the stages": [length / lengths[0] for length in lengths],
    "sum over the stages": [m * length / lengths[0] for m, length in zip(counts, lengths, strict=True)],
}
plots.lines(counts, pull, xlabel="stages M", ylabel="pull, with one stage: 1", log_x=True, title="The commitment loss")

# %% tags=["claim"]
assert 1 / 16 < pull["mean over the stages"][-1] < 0.1 and 1.15 < pull["sum over the stages"][-1] < 1.47
assert all(_after < _before for _before, _after in pairwise(lengths))
_wide = torch.randn(1000, 64).requires_grad_()
_deep = ResidualVectorQuantizer(dim=64, codebook_size=16, num_quantizers=16).fit(_wide).eval()
_wide_losses = [_deep(_wide, num_quantizers=_m).commitment_loss for _m in (1, 16)]
_one, _all = (torch.autograd.grad(_loss, _wide)[0].norm() for _loss in _wide_losses)
assert 9 < 16 * _all / _one < 11.5

# %% [markdown]
# With the mean the pull fades as stages are added: the later stages leave hardly any residual, so they hardly pull, and yet they count in the mean. With 16 stages less than a tenth is left, while the decoder's gradient is what it was. The sum grows, here by some 30 %; with 64 Gaussian components, of which 16 codewords leave more over, ten times and more. Neither is wrong, but β was set for some M: **who changes the number of quantizers must look at β again.** In the package β is `commitment_weight`; M times as much of it gives the sum.
#
# ## Photos
#
# We fit eight stages on patches of the training photos, once with 16 codewords a stage, once with 256. This takes some seconds. (Here a patch's 48 numbers come last. For an encoder's features, (B, C, H, W), there is `channel_dim=1` as in notebook 02; the indices are then (B, H, W, M).)

# %%
quantizers = {size: ResidualVectorQuantizer(48, size, num_quantizers=8).fit(crops).eval() for size in (16, 256)}


def rebuild(photo, codebook_size, num_quantizers):
    """A photo (3, H, W), sides a multiple of 4, from the first stages of its patches."""
    indices = quantizers[codebook_size].encode(to_patches(photo), num_quantizers=num_quantizers)
    return to_images(quantizers[codebook_size].decode(indices)).clamp(0, 1)


def label(photo, codebook_size, num_quantizers):
    """What this version of the photo costs, and how near it comes."""
    bits = metrics.bits_per_pixel(codebook_size, num_quantizers, stride=4)
    return f"{bits:g} bits a pixel\n{metrics.psnr(photo, rebuild(photo, codebook_size, num_quantizers)):.1f} dB"


# %% tags=["claim"]
_features = torch.randn(1, 64, 8, 8)
_layer = ResidualVectorQuantizer(dim=64, codebook_size=16, num_quantizers=2, channel_dim=1).fit(_features).eval()
_output = _layer(_features)
assert _output.quantized.shape == _features.shape and _output.indices.shape == (1, 8, 8, 2) and _layer.bits == 8
assert torch.equal(_layer.decode(_layer.encode(_features)), _output.quantized)

# %% [markdown]
# A photo that none of them was fitted on, from 1, 2, 3, 4 and 8 stages:

# %%
cat = photos.held_out["chelsea"][:, 84:212, 136:312]
shown = (1, 2, 3, 4, 8)
versions = [cat, *(rebuild(cat, 256, m) for m in shown)]
labels = ["original\n24 bits a pixel", *(f"{m} of 8 stages, {label(cat, 256, m)}" for m in shown)]
caption = "Look at the bottom, where the nose begins: what the first stage paints wrong, the later ones take back."
plots.photo_row(torch.stack(versions), labels, caption=caption)

# %%
curves = {}
for name, photo in photos.held_out.items():
    photo = photo[:, : photo.shape[1] // 4 * 4, : photo.shape[2] // 4 * 4]
    levels = [metrics.psnr(photo, rebuild(photo, 256, m)) for m in range(1, 9)]
    curves[name] = [metrics.bits_per_pixel(256, m, stride=4) for m in range(1, 9)], levels
plots.quality(curves, title="Three held-out photos, one to eight stages")

# %% tags=["claim"]
for _, _levels in curves.values():
    assert all(_more > _less + 0.3 for _less, _more in pairwise(_levels))
    assert _levels[-1] > _levels[0] + 7 and _levels[1] - _levels[0] > 2 * (_levels[7] - _levels[6])
assert quantizers[256].codebooks.numel() == 98_304 and quantizers[256].bits == 64

# %% [markdown]
# These are whole photos; the cat above was a piece of one. Each stage sharpens each photo: 8 stages are more than 7 dB better than one. The eight codebooks hold 98,304 numbers, 0.4 MB. One codebook for the same 64 bits a patch would need 2⁶⁴ codewords.
#
# The curves flatten: the second stage wins more than twice as much as the eighth, for the same 8 bits a patch. What can be won at best when nothing but noise is left? That is the question of notebook 05. Try all of it on the photo:

# %%
widgets.explore(
    lambda codebook_size, num_quantizers: plots.photo_row(
        torch.stack([cat, rebuild(cat, codebook_size, num_quantizers)]),
        ["original\n24 bits a pixel", label(cat, codebook_size, num_quantizers)],
        caption=f"Stages used: {num_quantizers} of 8, each of {codebook_size} codewords. When do you see no difference?",
    ),
    codebook_size=[16, 256],
    num_quantizers=[1, 2, 3, 4, 6, 8],
)

# %% [markdown]
# Equal bits once more: one codebook of 256 costs 8 bits a patch, and so do two stages of 16. By how many dB does the one codebook lead? We measure it on the patches that both were fitted on, on other crops of the same photos, and on photos never seen; five times, each time on new crops. Predict how the three differ.


# %% tags=["predict"]
def lead(seed):
    """How far 1 × 256 leads over 2 × 16 in dB, both fitted on crops of this seed, on three sets of patches."""
    torch.manual_seed(seed)
    fit_on, other = (to_patches(data.photo_crops(64, 64, seed=s)).flatten(0, 2) for s in (seed, 100 + seed))
    never_seen = to_patches(data.photo_crops(64, 64, seed=seed, split="held_out")).flatten(0, 2)
    one_stage, two_stages = fit_stages(fit_on, 256, 1), fit_stages(fit_on, 16, 2)
    sets = fit_on, other, never_seen
    return [10 * math.log10(residual_error(x, two_stages) / residual_error(x, one_stage)) for x in sets]


names = "patches fitted on", "other crops of the same photos", "photos never seen"
leads = dict(zip(names, zip(*(lead(seed) for seed in range(5)), strict=True), strict=True))
plots.bars(leads, label="lead of one codebook over two stages, dB", title="8 bits a patch: 1 × 256 against 2 × 16")

# %% tags=["claim"]
_fitted_on, _other_crops, _never_seen = (sum(_values) / 5 for _values in leads.values())
assert _fitted_on > 1.3 and 0.3 < _other_crops / _fitted_on < 0.65 and -0.1 < _never_seen / _fitted_on < 0.35

# %% [markdown]
# On what it was fitted on, the one codebook leads by more than 1 dB. On other crops about half of the lead is left, and on photos never seen, on average, about a quarter. The 256 codewords have also learned details of just these patches, and of just these photos; two stages of 16 hold an eighth of the numbers, and can learn less by heart. A comparison on the patches fitted on would have shown far too large a lead.
#
# ## What we saw
#
# - One codebook for 24 bits a patch of 48 components takes 3.2 GB; three stages of 256 take 36,864 numbers, 0.15 MB. Bits add up, M · log₂ K, and so does memory, M · K · dim; what can be rebuilt multiplies, Kᴹ.
# - Each stage quantizes what those before it leave over. On held-out points in the plane each of four stages more than halved the error; on held-out photos eight stages won more than 7 dB over one.
# - Any prefix of the indices is what a shorter quantizer would have sent.
# - At equal bits (12, Gaussian, dim 4) one codebook of 4,096 leaves 0.027, two of 64 leave 0.037, four of 8 leave 0.050: a residual quantizer has more error. It needs less memory and arithmetic, 32 times less with two stages and 128 times less with four. At equal memory (512 numbers) its error is less than a third, but for 12 bits in place of 7.
# - Right gradients: the Jacobian of the output is the identity for every M, and every stage pulls. Subtracting a stage's straight-through output, or detaching the whole residual, silences all stages after the first; detaching only what is subtracted multiplies the decoder's gradient by M.
# - The mean of the commitment terms over the stages pulls less the more stages there are. β belongs to its M.
#
# ## Self-test
#
# **1.** Three stages of 1,024 codewords. How many bits does a vector take, and how many codewords would one codebook need to name as many vectors?
#
# <details><summary>Answer</summary>
#
# 3 · 10 = 30 bits, as many as 2³⁰, a thousand million codewords. Not 3 · 1,024 = 3,072: that is how many codewords are *stored*. Choices multiply, memory adds.
#
# </details>
#
# **2.** After three stages the residuals have a mean square of 0.04. How large is the error of x̂ from three stages? Can a fourth stage make it worse?
#
# <details><summary>Answer</summary>
#
# 0.04: the last residual *is* the error of the sum, there is nothing to add up over the stages. On average over what it was fitted on, a fourth stage can't make it worse, for k-means leaves at most what one codeword at the mean would. But a single vector may fare worse: if its residual is short and no codeword lies near the origin, the nearest one takes it farther away. "Never, since the nearest is chosen" forgets that choosing none isn't offered.
#
# </details>
#
# **3.** From 4 indices of a vector only the *last* two arrived. Can you rebuild a coarse version?
#
# <details><summary>Answer</summary>
#
# No. They add up to a part of the residual r₃, a small vector near the origin, and nothing says where x was. "Half of the indices, so half of the picture" takes all stages for alike, but the first one carries most. Prefixes work because each stage builds on those before it; suffixes don't, and a missing middle stage costs as much as its codeword is long.
#
# </details>
#
# **4.** A learning rate that served well with one quantizer is far too high with 8, in the same loop. Where do you look?
#
# <details><summary>Answer</summary>
#
# At the Jacobian of the output: if it is 8 times the identity, each stage has its own straight-through and they are summed. Lowering the learning rate hides it, and starves the commitment loss along the way. (Adam divides the size of a gradient out, so under Adam only the lost balance shows.) More codewords would change the values, not the gradient's factor.
#
# </details>
#
# **5.** With 8 bits a vector, would you take 1 × 256 or 2 × 16? And with 40?
#
# <details><summary>Answer</summary>
#
# At 8 bits one codebook: 256 codewords are cheap to store, search and fit, and the undivided one has the least error. At 40 there is no choice: 2⁴⁰ codewords can't be had, 4 × 1,024 or 5 × 256 can. "Residual is better" and "residual is worse" both leave out at equal *what*.
#
# </details>
#
# ## Where to read on
#
# - B.-H. Juang, A. H. Gray, *Multiple Stage Vector Quantization for Speech Coding* (ICASSP 1982): where it comes from.
# - N. Zeghidour et al., *SoundStream: An End-to-End Neural Audio Codec* (2021), arXiv:2107.03312: residual quantization in a network, section III-C and Algorithm 1.
# - A. Défossez et al., *High Fidelity Neural Audio Compression* (2022), arXiv:2210.13438: EnCodec.
# - D. Lee et al., *Autoregressive Image Generation using Residual Quantization* (2022), arXiv:2203.01941: residual indices of images, with one codebook shared by all stages.
#
# Next: `05_rate_distortion`. Stages cost error at equal bits. How far is any of this from the least error there can be?

# %% [markdown] tags=["kernel"]
# ## What you have solved
#
# The map of the course's exercises, with a ✓ for each that a check has accepted.

# %%
check.progress()
