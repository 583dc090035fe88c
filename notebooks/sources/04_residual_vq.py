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
# **The question.** Every further bit doubles a codebook. A good photo needs so many bits that its codebook could be neither stored, nor searched, nor fitted. How do codecs get there all the same?
#
# **You will be able to**
# - quantize what is left over, stage by stage, and rebuild a vector from any number of stages;
# - say what a residual quantizer costs in bits, memory and arithmetic, what it wins, and what it loses;
# - say which gradient must come out of a stack of stages, and measure it;
# - recognise and mend two bugs that well-known libraries shipped in this very loop.
#
# **You need** notebooks 01 to 03: k-means, the quantizer as a layer, straight-through, the commitment loss.
#
# **Time.** It runs in {{run_time}}. Reading takes half an hour, the five exercises another half.

# %%
import math
from itertools import pairwise

import torch
import torch.nn.functional as F

from rvq_tutorial import (
    ResidualVectorQuantizer,
    check,
    data,
    kmeans,
    metrics,
    nearest,
    plots,
    straight_through,
    widgets,
)

_ = torch.manual_seed(0)  # the same numbers in every run

# %% [markdown]
# ## The wall
#
# Take patches of 4 × 4 pixels: vectors of 48 components. `F.pixel_unshuffle(photo, 4)` makes 48 channels of them, (3, H, W) → (48, H/4, W/4), and `F.pixel_shuffle` puts them back. A codebook of 256 codewords, fitted on patches of the training photos, spends 8 bits on a patch, half a bit on a pixel:

# %%
photos = data.photos()
patches = F.pixel_unshuffle(data.photo_crops(size=64, n=64, seed=0), 4)  # (64, 48, 16, 16)
codebook = kmeans(patches.movedim(1, -1).flatten(0, 2), 256, num_iters=10).centroids

eye = photos.held_out["chelsea"][:, 64:160, 120:248]
indices = nearest(F.pixel_unshuffle(eye, 4).movedim(0, -1), codebook)
rebuilt = F.pixel_shuffle(codebook[indices].movedim(-1, 0), 4)
titles = ["original, 24 bits a pixel", f"½ bit a pixel, {metrics.psnr(eye, rebuilt):.1f} dB"]
plots.photo_row(torch.stack([eye, rebuilt]), titles, caption="A photo not fitted on. Look at the squares: patches.")

# %% [markdown]
# That is coarse. So let us spend more. Each bit doubles the codewords:

# %%
patches_there_are = sum(photo[0].numel() for photo in photos.train.values()) // 4**2
for bits in (8, 16, 24, 32):
    print(f"{bits:2} bits: {2**bits:13,} codewords, {4 * 48 * 2**bits / 1e6:13,.2f} MB")
print(f"patches in all training photos: {patches_there_are:,}")
assert patches_there_are < 2**24

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
residual = torch.tensor(16.4)
for codebook in (coarse, middle, fine):
    index = (residual - codebook).abs().argmin()
    print(
        f"{residual:5.1f} → index {index}, codeword {codebook[index]:3.0f}, left over {residual - codebook[index]:4.1f}"
    )
    residual = residual - codebook[index]
assert abs(residual - 0.4) < 1e-5

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
# One codebook of 8 would end here. But the arrows are vectors too: turn them round and you have the residuals r = x − c. Move all eight cells on top of each other, each with its codeword at the origin, and fit a second codebook to that cloud. The second stage needs no new idea: nearest codeword, subtract. And a point is rebuilt as the *sum* of its two codewords.

# %%
second = kmeans(first_residual, 8).centroids
second_residual = first_residual - second[nearest(first_residual, second)]
rebuilt = first[nearest(train, first)] + second[nearest(first_residual, second)]

errors = first_residual.square().mean(), second_residual.square().mean()
print(f"mean squared error per component: {errors[0]:.4f} after one stage, {errors[1]:.4f} after two")
assert torch.allclose(train - rebuilt, second_residual, atol=1e-6) and errors[1] < errors[0] / 3

# %%
plots.residual_stages(train, torch.stack([first, second]), num_quantizers=2)

# %% [markdown]
# The last residual *is* the error of the sum. That is the whole method, **residual vector quantization** (Juang and Gray 1982, under the name of multiple stage vector quantization; SoundStream, Zeghidour et al. 2021, Algorithm 1). With r₁ = x, stage m does
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
# Fitting is the same loop with a k-means in it. Stage m is fitted to what the stages before it leave over, so the order matters and no stage is like another:


# %%
def fit_stages(x, codebook_size, num_quantizers, num_iters=25):
    """Codebooks, each the k-means of what those before it leave of x: (N, dim) -> (M, K, dim)."""
    codebooks, residual = [], x
    for _ in range(num_quantizers):
        codebook = kmeans(residual, codebook_size, num_iters=num_iters).centroids
        residual = residual - codebook[nearest(residual, codebook)]
        codebooks.append(codebook)
    return torch.stack(codebooks)


_ = torch.manual_seed(1)
codebooks = fit_stages(train, codebook_size=8, num_quantizers=4)
plots.residual_stages(held_out, codebooks, num_quantizers=4)

# %% [markdown]
# Every stage is drawn at its own scale: look at how the rms shrinks. The first stage sees a spiral, the second eight pieces of one, and the last ones little more than a cloud. Structure is used up stage by stage.
#
# ## Any number of stages will do
#
# Rebuilding is adding. Nothing says that all the terms must have arrived: the first stages alone give a coarser x̂. Such a beginning of the list of indices is called a **prefix**. When the end of a packet is lost, a radio can still play what came before it.


# %%
def decode(indices, codebooks):
    """The sum of the chosen codewords: (N, m), (M, K, dim) -> (N, dim), for any m ≤ M."""
    return sum(codebook[index] for codebook, index in zip(codebooks, indices.unbind(1), strict=False))


# %% [markdown]
# The indices come from the package's residual quantizer, which we meet here. M is called `num_quantizers`, and `fit` is our `fit_stages`: with the same seed it must find the same codebooks. (`eval()`, because in training mode `forward` also moves the codebooks, as in notebook 03.)

# %%
rvq = ResidualVectorQuantizer(dim=2, codebook_size=8, num_quantizers=4)
_ = torch.manual_seed(1)
rvq.fit(train).eval()
indices = rvq.encode(held_out)

assert torch.allclose(rvq.codebooks, codebooks, atol=1e-6) and indices.shape == (1000, 4)
assert torch.allclose(rvq.decode(indices), decode(indices, codebooks), atol=1e-6)
print("indices of the first point:", indices[0].tolist())

# %%
errors = [metrics.mse(held_out, rvq.decode(indices[:, :m])) for m in range(1, 5)]
for m, error in enumerate(errors, 1):
    assert torch.equal(rvq.encode(held_out, num_quantizers=m), indices[:, :m])
    assert torch.equal(rvq(held_out, num_quantizers=m).quantized, rvq.decode(indices[:, :m]))
    assert torch.allclose(rvq.decode(indices[:, :m]), decode(indices[:, :m], codebooks), atol=1e-6)
    print(f"{m} of 4 stages: {error:.5f}")
assert all(after < before / 2 for before, after in pairwise(errors))

# %% [markdown]
# On points not fitted on, each stage leaves less than half of the error before it, and a prefix of the four indices is exactly what a quantizer with fewer stages would have sent. What `decode` makes of it is, to the last bit, what `forward` gives. One fit, one encoding, every bitrate. Notebook 07 builds on this.
#
# ### What is wrong here? · The same data twice
#
# "A codebook should know the data", and so both stages are fitted to x. Predict what the second one is then worth:

# %%
first, second = kmeans(train, 8).centroids, kmeans(train, 8).centroids
residual = held_out - first[nearest(held_out, first)]
wrong = residual - second[nearest(residual, second)]
print(f"held-out error: {residual.square().mean():.4f} after one stage, {wrong.square().mean():.4f} after two")
print("chosen in stage 2:", torch.bincount(nearest(residual, second), minlength=8).tolist())
assert wrong.square().mean() > 5 * errors[1]

# %% [markdown]
# Nothing; it may even do harm. Stage 2 doesn't receive points of the spiral, it receives short vectors around the origin. Most of them choose the one or two codewords that happen to lie near the origin, and the others are never used. The mend is the line that we had: fit a stage to what it will receive.
#
# Now you: more stages, or more codewords? All codebooks are fitted in the first line.

# %%
fitted = {size: fit_stages(train, size, num_quantizers=4) for size in (2, 4, 8, 16)}
widgets.explore(
    lambda codebook_size, num_quantizers: plots.residual_stages(held_out, fitted[codebook_size], num_quantizers),
    codebook_size=[2, 4, 8, 16],
    num_quantizers=[1, 2, 3, 4],
)

# %% [markdown]
# Compare K = 4 with M = 4 and K = 16 with M = 2: 8 bits a point both times. Remember which looked better; we come back to it.
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
# Bits add up to M · log₂ K, memory to M · K · dim, and the sums multiply to Kᴹ. The package knows the first; the second is what it holds:

# %%
assert rvq.bits == 4 * math.log2(8) == 12 and rvq.codebooks.numel() == 4 * 8 * 2
sums = rvq.decode(torch.cartesian_prod(*[torch.arange(8)] * 4))
print(f"{rvq.codebooks.numel()} numbers stored, {len(sums.unique(dim=0)):,} different points rebuilt")
assert len(sums.unique(dim=0)) > 4000

# %% [markdown]
# Back to the photo patches with their 48 components. The wall was a straight line on a logarithmic scale; stages bend it flat.

# %%
plots.codebook_memory(48, codebook_sizes=[16, 256, 1024])

# %% [markdown]
# Searching costs as much as it holds: one multiplication and addition for every number in the codebooks. So what one codebook of 24 bits does in 805 million steps a patch, three stages of 256 do in 36,864.

# %%
assert 2**24 * 48 == 805_306_368 and 3 * 256 * 48 == 36_864

# %% [markdown]
# ## What it loses
#
# Nothing is free. Stages can only rebuild *sums*, and the second codebook must serve all cells of the first at once. So let us spend the same 12 bits in five ways: one codebook of 4,096, two of 64, and so on. Vectors with 4 independent Gaussian components; 24,576 to fit on, another 10,000 to measure on. Predict the order, and whether the differences are large.

# %%
gaussian, gaussian_held_out = torch.randn(24_576, 4), torch.randn(10_000, 4)
splits = [(1, 4096), (2, 64), (3, 16), (4, 8), (6, 4)]


def residual_error(x, codebooks):
    """Mean squared error per component of x after all stages: (N, dim), (M, K, dim) -> a number."""
    for codebook in codebooks:
        x = x - codebook[nearest(x, codebook)]
    return x.square().mean().item()


# %%
equal_bits = {}
for num_quantizers, codebook_size in splits:
    fitted_stages = fit_stages(gaussian, codebook_size, num_quantizers, num_iters=10)
    equal_bits[f"{num_quantizers} × {codebook_size}"] = residual_error(gaussian_held_out, fitted_stages)

# %%
print("M × K      held-out MSE   numbers stored = multiply–adds a vector")
for (num_quantizers, codebook_size), (name, error) in zip(splits, equal_bits.items(), strict=True):
    print(f"{name:9}  {error:12.4f}   {num_quantizers * codebook_size * 4:9,}")
plots.bars(equal_bits, label="held-out mean squared error per component", title="12 bits a vector, spent in five ways")

# %%
ladder = list(equal_bits.values())
assert all(worse > 1.05 * better for better, worse in pairwise(ladder))
assert abs(ladder[0] - 0.028) < 0.002 and abs(ladder[1] - 0.037) < 0.003 and abs(ladder[3] - 0.053) < 0.004
assert 1.2 < ladder[1] / ladder[0] < 1.5 and 1.7 < ladder[3] / ladder[0] < 2.1

# %% [markdown]
# **At equal bits one big codebook wins, and every further split loses.** Two stages of 64 leave a third more error than one codebook of 4,096. They also need 512 numbers in place of 16,384: a thirty-second of the memory and of the arithmetic. That is the bargain. Four stages of 8 leave nearly twice the error, with 128 numbers.
#
# And at equal *memory*? What does one codebook do with 512 numbers?

# %%
same_memory = kmeans(gaussian, 128).centroids[None]
error = residual_error(gaussian_held_out, same_memory)
print(f"512 numbers: {error:.3f} as one codebook of 128 (7 bits), {equal_bits['2 × 64']:.3f} as two of 64 (12 bits)")
assert error > 3 * equal_bits["2 × 64"]

# %% [markdown]
# So it depends on what is scarce. With few bits, one codebook is the better choice. With many there is no choice.
#
# ### Where the loss comes from
#
# All 64 places that 6 bits can name, in the plane: of one codebook, and of the sums of 2, 3 and 6. Move the slider.


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
# A device has room for `memory` numbers, and a vector may take `bits` bits. Among all splits into M equal stages of K = 2^(bits / M) codewords, which one that fits leaves the least error? M must divide `bits`, and some split always fits. Find the law in the table above (or measure more splits), and write it as a function.


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
# Down the table, as M grows, the error only rises and the memory only falls. So walk through it from the top and stop at the first split that fits. The memory is M · K · dim.

# %%
check.best_split(best_split)

# %% [markdown]
# ## Backwards through the stages
#
# In a network an encoder stands before the quantizer and learns through it. Which gradients should come out of M stages?
#
# - **Of the output.** Notebook 02's pretence is x̂ = x + a constant. It doesn't ask how x̂ was found. So the Jacobian of x̂ by x, all slopes in one table, is the *identity*, whatever M.
# - **Of the commitment loss.** Each stage has a term ‖r_m − sg[c]‖² (Défossez et al. 2022, section 3.4), and r_m = x − (codewords, held still). So *every* stage pulls x towards what it and the stages before it rebuild.
#
# The obvious way to write this is to call a quantizer layer M times in a row. Here are two libraries' versions of that. In both, the values are right: indices, sum, losses. The fault is in the gradient, and nothing ever crashes.
#
# To measure gradients we need few vectors, in float64, and two instruments. One is the Jacobian at one vector; the other the length of each stage's commitment gradient.

# %%
codebooks = rvq.codebooks.double()
x = held_out[:20].double().requires_grad_()


def jacobian(layer, num_quantizers=4):
    """Slopes of what the layer makes of one vector, by that vector: (dim, dim)."""
    return torch.autograd.functional.jacobian(lambda v: layer(v[None], codebooks[:num_quantizers])[0][0], x[0].detach())


def commitment_pulls(layer):
    """Length of the gradient of each stage's commitment term by x."""
    _, terms = layer(x, codebooks)
    return [torch.autograd.grad(term, x, retain_graph=True)[0].norm().item() for term in terms]


# %% [markdown]
# ### What is wrong here? · The silent stages
#
# This is how EnCodec's loop goes. `quantized` comes out of the straight-through of its stage, and the residual is x minus that. Predict: which of the four commitment terms has a gradient by x?


# %%
def encodec_stages(x, codebooks):
    """(N, dim), (M, K, dim) -> the quantized vectors and the M commitment terms."""
    residual, total, terms = x, 0, []
    for codebook in codebooks:
        chosen = codebook[nearest(residual, codebook)]
        terms.append(F.mse_loss(residual, chosen.detach()))
        quantized = straight_through(residual, chosen)
        residual = residual - quantized
        total = total + quantized
    return total, terms


# %%
print("Jacobian of the output:", jacobian(encodec_stages).tolist())
print("pull of each stage:    ", [f"{pull:.5f}" for pull in commitment_pulls(encodec_stages)])
assert torch.equal(jacobian(encodec_stages), torch.eye(2).double())
assert commitment_pulls(encodec_stages)[0] > 1e-3 and commitment_pulls(encodec_stages)[1:] == [0, 0, 0]

# %% [markdown]
# The output is right, and from the second stage on the pull is exactly zero. Straight-through says: `quantized` moves with `residual`, one to one. Then `residual - quantized` doesn't move at all. In symbols, r₂ = x − (x + sg[c − x]): x cancels. The loss still shows a number for every stage, but only the first does anything.
#
# Finite differences (the function of notebook 02) see it at once. They know nothing of `detach`, they measure the loss as it is:


# %%
@torch.no_grad()
def finite_differences(function, tensor, step=1e-6):
    """The slope of function(tensor), a number, by each entry of the tensor."""
    slopes = torch.empty_like(tensor)
    for i in range(tensor.numel()):
        moved = torch.zeros_like(tensor)
        moved.view(-1)[i] = step
        slopes.view(-1)[i] = (function(tensor + moved) - function(tensor - moved)) / (2 * step)
    return slopes


(believed,) = torch.autograd.grad(sum(encodec_stages(x, codebooks)[1]), x)
measured = finite_differences(lambda x: sum(encodec_stages(x, codebooks)[1]), x)
print(f"of the pull that the loss has, autograd misses {(measured - believed).norm() / measured.norm():.0%}")
plots.gradient_check(believed, {"commitment loss of all stages": measured})

# %%
assert (measured - believed).norm() > 0.1 * measured.norm()

# %% [markdown]
# This was reported to both libraries that had it: EnCodec (issue 25) and vector-quantize-pytorch (issue 33), which many PyTorch projects use. The mend that was proposed is one word: subtract `quantized.detach()`. The second library did just that.
#
# ### What is wrong here? · The loud decoder
#
# Here is vector-quantize-pytorch's loop since. Predict the Jacobian this time: each stage's `quantized` moves one to one with its residual, every residual now moves with x, and the output is the sum of M of them.


# %%
def summed_stages(x, codebooks):
    """(N, dim), (M, K, dim) -> the quantized vectors and the M commitment terms."""
    residual, total, terms = x, 0, []
    for codebook in codebooks:
        chosen = codebook[nearest(residual, codebook)]
        terms.append(F.mse_loss(residual, chosen.detach()))
        quantized = straight_through(residual, chosen)
        residual = residual - quantized.detach()
        total = total + quantized
    return total, terms


# %%
for m in (1, 2, 4):
    print(f"M = {m}: Jacobian of the output {jacobian(summed_stages, m).tolist()}")
    assert torch.equal(jacobian(summed_stages, m), m * torch.eye(2).double())
print("pull of each stage:", [f"{pull:.5f}" for pull in commitment_pulls(summed_stages)])
assert min(commitment_pulls(summed_stages)) > 1e-5

# %% [markdown]
# All stages pull now, and whatever gradient the decoder sends arrives at the encoder M times as large. It looks like a learning rate that is M times too high for the encoder, and a commitment loss M times too weak beside it. Change the number of quantizers, and the balance of the losses changes with it. (The library's default pretence is another one, the rotation trick; its gradient is multiplied in much the same way.)
#
# Both loops leave the same question unasked: *where* does straight-through belong, in each stage or around them all? Audiocraft, EnCodec's successor, gets it right, with a comment that points to the bug report.
#
# ### Exercise 5 · Repair · ★★★ · 10 minutes
#
# Write the loop so that both hold: the Jacobian of the output is the identity for every M, and every stage's commitment term pulls x. Same arguments, same two results. The codebooks must get no gradient from either.


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
# ## The package's gradient
#
# `ResidualVectorQuantizer` does it this way: the loop runs on plain values, and one straight-through goes around all of it. First the Jacobian, for new quantizers of 1 to 8 stages:

# %%
for m in (1, 2, 4, 8):
    layer = ResidualVectorQuantizer(dim=2, codebook_size=8, num_quantizers=m).double().eval()
    slopes = torch.autograd.functional.jacobian(lambda v, layer=layer: layer(v).quantized, x[0].detach())
    assert torch.equal(slopes, torch.eye(2).double())
print("M = 1, 2, 4, 8: Jacobian of the output", slopes.tolist())

# %% [markdown]
# Then the commitment loss of the quantizer fitted above. The package gives one number: the mean over vectors, components *and* stages. Times m it is the sum of the first m terms, and two neighbouring sums differ by one term.

# %%
rvq = rvq.double()


def packaged(x, codebooks):
    """The package's output and its commitment terms, for the first stages of `rvq`, as many as there are codebooks."""
    sums = [m * rvq(x, num_quantizers=m).commitment_loss for m in range(1, len(codebooks) + 1)]
    terms = [after - before for before, after in pairwise([0, *sums])]
    return rvq(x, num_quantizers=len(codebooks)).quantized, terms


pulls = commitment_pulls(packaged)
print("pull of each stage:", [f"{pull:.5f}" for pull in pulls])
assert min(pulls) > 1e-5 and torch.allclose(torch.tensor(pulls), torch.tensor(commitment_pulls(summed_stages)))

# %%
(believed,) = torch.autograd.grad(sum(packaged(x, codebooks)[1]), x)
measured = finite_differences(lambda x: sum(packaged(x, codebooks)[1]), x)
assert torch.allclose(believed, measured, rtol=1e-4, atol=1e-8)
plots.gradient_check(believed, {"commitment loss of all stages": measured})

# %% [markdown]
# All on the diagonal. The values, too, are those of the loops above:

# %%
output = rvq(x)
total, terms = summed_stages(x, codebooks)
assert torch.allclose(output.quantized, total) and torch.equal(output.indices, rvq.encode(x))
assert torch.allclose(output.commitment_loss, sum(terms) / 4)

# %% [markdown]
# And who teaches the codebooks? With `codebook_update="gradient"`, every stage's codewords are pulled towards the residuals that came to *it*. Nothing else reaches them, neither a loss behind the output nor the stages after them:

# %%
layer = ResidualVectorQuantizer(dim=2, codebook_size=8, num_quantizers=4, codebook_update="gradient").double().eval()
output, learned = layer(x), list(layer.parameters())
by_package = torch.autograd.grad(output.quantized.pow(3).sum() + output.loss, learned)

residual, codebook_losses = x.detach(), []
for codebook in learned:
    chosen = codebook[nearest(residual, codebook)]
    codebook_losses.append(F.mse_loss(chosen, residual))
    residual = residual - chosen.detach()
by_hand = torch.autograd.grad(sum(codebook_losses) / 4, learned)
assert all(torch.allclose(a, b) and a.norm() > 0 for a, b in zip(by_package, by_hand, strict=True))
print("length of each codebook's gradient:", [f"{gradient.norm():.4f}" for gradient in by_package])

# %% [markdown]
# With the default, `"ema"`, each stage follows its residuals as a moving average while training, with restarts, as in notebook 03.
#
# ## Features of an image
#
# An encoder's features come as (B, C, H, W), channels second. `channel_dim=1`, as in notebook 02; the indices get one more axis, last, for the stages. Two stages of 16 codewords on 64 channels at 8 × 8 places:

# %%
features = torch.randn(1, 64, 8, 8)
layer = ResidualVectorQuantizer(dim=64, codebook_size=16, num_quantizers=2, channel_dim=1).fit(features).eval()
output = layer(features)
print(
    f"quantized {tuple(output.quantized.shape)}, indices {tuple(output.indices.shape)}, {layer.bits:.0f} bits a place"
)
assert output.quantized.shape == features.shape and output.indices.shape == (1, 8, 8, 2) and layer.bits == 8
assert torch.equal(layer.decode(layer.encode(features)), output.quantized)

# %% [markdown]
# ## Photos
#
# The patches of the beginning have this layout already. Eight stages, fitted on them: once with 16 codewords a stage, once with 256. This takes some seconds.

# %%
print("patches", tuple(patches.shape))
quantizers = {
    size: ResidualVectorQuantizer(48, size, num_quantizers=8, channel_dim=1).fit(patches).eval() for size in (16, 256)
}


def rebuild(photo, codebook_size, num_quantizers):
    """A photo (3, H, W), sides a multiple of 4, from the first stages of its patches."""
    rvq = quantizers[codebook_size]
    indices = rvq.encode(F.pixel_unshuffle(photo[None], 4), num_quantizers)
    return F.pixel_shuffle(rvq.decode(indices), 4)[0].clamp(0, 1)


# %% [markdown]
# A photo that none of them was fitted on, from 1, 2, 3, 4 and 8 stages:

# %%
cat = photos.held_out["chelsea"][:, 84:212, 136:312]
stages = (1, 2, 3, 4, 8)
versions = [rebuild(cat, 256, m) for m in stages]
titles = [
    f"{m} of 8 stages, {metrics.bits_per_pixel(256, m, stride=4):g} bits a pixel\n{metrics.psnr(cat, version):.1f} dB"
    for m, version in zip(stages, versions, strict=True)
]
caption = "Look at the bottom, where the nose begins: the first stage paints parts of it red, and the later stages take that back."
plots.photo_row(torch.stack([cat, *versions]), ["original\n24 bits a pixel", *titles], caption=caption)

# %%
curves = {}
for name, photo in photos.held_out.items():
    photo = photo[:, : photo.shape[1] // 4 * 4, : photo.shape[2] // 4 * 4]
    levels = [metrics.psnr(photo, rebuild(photo, 256, m)) for m in range(1, 9)]
    assert all(more > less + 0.3 for less, more in pairwise(levels))
    assert levels[-1] > levels[0] + 7 and levels[1] - levels[0] > 2 * (levels[7] - levels[6])
    curves[name] = [metrics.bits_per_pixel(256, m, stride=4) for m in range(1, 9)], levels
plots.quality(curves, title="Three held-out photos, one to eight stages")

# %% [markdown]
# Where the nose begins, none of the first stage's 256 codewords was nearer than a red one. Each stage sharpens each photo: 8 stages are more than 7 dB better than one. The eight codebooks hold 98,304 numbers, 0.4 MB. One codebook for the same 64 bits a patch would need 2⁶⁴ codewords.
#
# The curves flatten: the second stage wins more than twice as much as the eighth, for the same 8 bits a patch. What can be won at best when nothing but noise is left? That is the question of notebook 05. Try all of it on the photo:

# %%
assert quantizers[256].codebooks.numel() == 98_304 and quantizers[256].bits == 64
widgets.explore(
    lambda codebook_size, num_quantizers: plots.photo_row(
        torch.stack([cat, rebuild(cat, codebook_size, num_quantizers)]),
        [
            "original\n24 bits a pixel",
            f"{metrics.bits_per_pixel(codebook_size, num_quantizers, stride=4):g} bits a pixel\n"
            f"{metrics.psnr(cat, rebuild(cat, codebook_size, num_quantizers)):.1f} dB",
        ],
        caption=f"Stages used: {num_quantizers} of 8, each of {codebook_size} codewords. When do you see no difference?",
    ),
    codebook_size=[16, 256],
    num_quantizers=[1, 2, 3, 4, 6, 8],
)

# %% [markdown]
# Equal bits once more: one codebook of 256 costs 8 bits a patch, and so do two stages of 16. By how many dB does the one lead? Measured on the patches that both were fitted on, on other crops of the same photos, and on photos never seen. Predict how the three differ.

# %%
sets = {
    "patches fitted on": patches,
    "other crops of the same photos": F.pixel_unshuffle(data.photo_crops(size=64, n=64, seed=100), 4),
    "held-out photos": F.pixel_unshuffle(data.photo_crops(size=64, n=64, seed=100, split="held_out"), 4),
}


def distortion(x, codebook_size, num_quantizers):
    """Mean squared error per component with the first stages: (B, 48, H, W) -> a number."""
    rvq = quantizers[codebook_size]
    return metrics.mse(x, rvq.decode(rvq.encode(x, num_quantizers)))


lead = {name: 10 * math.log10(distortion(x, 16, 2) / distortion(x, 256, 1)) for name, x in sets.items()}
plots.bars(lead, label="lead of one codebook over two stages, dB", title="8 bits a patch: 1 × 256 against 2 × 16")

# %%
fitted_on, other_crops, never_seen = lead.values()
assert fitted_on > 1 and never_seen < fitted_on / 2

# %% [markdown]
# On what it was fitted on, the one codebook leads by more than 1 dB, as on the Gaussian vectors. On photos never seen, less than half of that is left. Its 256 codewords have learned their photos in more detail than others share; two stages of 16, which hold an eighth of the numbers, had less to learn by heart. A comparison on the training set would have told us half a lie.
#
# ## What we saw
#
# - One codebook for 24 bits a patch of 48 components takes 3.2 GB; three stages of 256 take 36,864 numbers, 0.15 MB. Bits add up, M · log₂ K, and so does memory, M · K · dim; what can be rebuilt multiplies, Kᴹ.
# - Each stage quantizes what those before it leave over. On held-out points in the plane each of four stages more than halved the error; on held-out photos eight stages won more than 7 dB over one.
# - Any prefix of the indices is what a shorter quantizer would have sent.
# - At equal bits (12, Gaussian, dim 4) one codebook of 4,096 leaves 0.028, two of 64 leave 0.037, four of 8 leave 0.053: a residual quantizer loses distortion. It wins memory and arithmetic, here 32-fold and 128-fold; at equal memory it wins distortion more than threefold.
# - Right gradients: the Jacobian of the output is the identity for every M, and every stage pulls. A residual that isn't detached silences all stages after the first; one straight-through a stage, summed, multiplies the encoder's gradient by M.
#
# ## Self-test
#
# **1.** Three stages of 1,024 codewords. How many bits, and what one codebook would name as many vectors?
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
# **4.** Your encoder trains well with one quantizer and diverges with 8, in the same loop. Where do you look?
#
# <details><summary>Answer</summary>
#
# At the Jacobian of the output: if it is 8 times the identity, each stage has its own straight-through and they are summed. Lowering the learning rate hides it, and starves the commitment loss along the way. More codewords would change the values, not the gradient's factor.
#
# </details>
#
# **5.** With 8 bits a vector, would you take 1 × 256 or 2 × 16? And with 40?
#
# <details><summary>Answer</summary>
#
# At 8 bits one codebook: 256 codewords are cheap to store, search and fit, and at equal bits the undivided one has the least error. At 40 there is no choice: 2⁴⁰ codewords can't be had, 4 × 1,024 or 5 × 256 can. "Residual is better" and "residual is worse" both leave out at equal *what*.
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
# Next: `05_rate_distortion`. How close to the limit are we?
