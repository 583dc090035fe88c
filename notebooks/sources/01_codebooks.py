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
# # 01 · How few colours does a photo need?
#
# **The question.** A photo may use any of 16.7 million colours. Painters get by with a dozen tubes. How many does a photo really need, which ones, and how is each pixel then written down?
#
# **You will be able to**
# - say what a codebook, a codeword and an index are, and how many bits an index takes;
# - encode a photo as indices, decode it again, and measure what was lost, in PSNR;
# - write k-means in ten lines, say why it never gets worse, and mend the bug that fills it with NaN;
# - compare quantizers fairly: at equal bits, on pixels that none of them was fitted on.
#
# **You need** PyTorch tensors: shapes, indexing, broadcasting. Nothing about compression.
#
# **Time.** It runs in {{run_time}}. Reading takes half an hour, the five exercises some forty minutes.

# %%
from itertools import pairwise

import torch
import torch.nn.functional as F
from sklearn.cluster import KMeans
from torchvision.utils import make_grid

from rvq_tutorial import check, data, kmeans, metrics, nearest, plots, widgets

_ = torch.manual_seed(0)  # the same numbers in every run

# %% [markdown]
# ## A photo is a cloud of points
#
# Everything from `rvq_tutorial` is the course's own package: `data` has the photos, `metrics` the measures, `plots` and `widgets` the pictures, `check` looks at your answers. What else comes from it you will first write yourself.
#
# Here is a photo, every second pixel of every second row to keep things quick. It is a tensor with three channels, red, green and blue, each from 0 to 1.
#
# Forget for a moment where the pixels are. Then each is a **vector** with three components, a point in a cube, and the photo is a cloud of points.

# %%
photo = data.photos().train["flower"][:, ::2, ::2]
pixels = photo.flatten(1).T
print(f"photo: {tuple(photo.shape)}, pixels: {tuple(pixels.shape)}")
plots.color_cube(photo)

# %% [markdown]
# Two arms, and nearly all of the cube is empty: dark teal from the leaves on one side, red to peach from the petals on the other.
#
# In the file each channel is one byte. A **bit** is a choice between two, so b bits can tell 2ᵇ things apart, and naming one of K things takes log₂ K bits. A byte is 8 bits, one of 256 steps; a pixel is 24 bits, one of 2²⁴ colours.

# %%
colours = len(pixels.unique(dim=0))
print(f"{2**24:,} possible colours, {colours:,} in this photo of {len(pixels):,} pixels")
assert colours < 0.002 * 2**24 and len(pixels) == 214 * 320

# %% [markdown]
# So the photo has 24 bits for each pixel, and uses less than 0.2 % of the colours that they can name.
#
# ## Fewer steps for each channel
#
# The plain way to save: round every number more coarsely. Cut the range from 0 to 1 into L equal steps, write down which step a number is in, and read it back as the middle of that step. Rounding to a short list of values is called **quantization**. Done number by number, it is **scalar** quantization, and the L values are its levels.


# %%
def scalar_encode(x, levels):
    """The step, 0 to levels - 1, in which each number of x from 0 to 1 lies."""
    return (x * levels).long().clamp(max=levels - 1)


def scalar_decode(steps, levels):
    """The middle of each step."""
    return (steps + 0.5) / levels


# %% [markdown]
# How much is lost? The **mean squared error**, MSE, also called the distortion, is the average of (x − x̂)² over all numbers; x̂, "x hat", is what we get back. Photo people turn it into decibels, the **peak signal-to-noise ratio**:
#
# $$\text{PSNR} = -10 \log_{10} \text{MSE} \quad \text{(for numbers from 0 to 1)}$$
#
# More is better. An error ten times smaller gives 10 dB more, one four times smaller 6 dB. As a rule of thumb, below 25 dB a photo looks broken, and from about 40 dB on the loss is hard to see.

# %%
rebuilt, titles = [photo], ["original, 24 bits per pixel"]
for levels, bits in [(2, 3), (4, 6), (8, 9)]:
    rebuilt.append(scalar_decode(scalar_encode(photo, levels), levels))
    psnr = -10 * (photo - rebuilt[-1]).square().mean().log10().item()
    assert abs(psnr - metrics.psnr(photo, rebuilt[-1])) < 1e-3  # from here on we use the package's
    titles.append(f"{levels} levels: {bits} bits per pixel, {psnr:.1f} dB")
caption = "Look at the leaves: with 2 levels all of them are one grey, with 8 they still have steps and wrong greens."
plots.photo_row(torch.stack(rebuilt), titles, caption=caption)

# %% [markdown]
# Three channels with 2 levels each take 3 bits a pixel; every doubling of the levels takes 3 more. It also halves the steps, so the squared error falls to about a quarter, and we gain about 6 dB.
#
# That is a poor bargain, and the cube shows why. The 2 levels of each channel together make 2 · 2 · 2 = 8 colours, on a grid:

# %%
levels = scalar_decode(torch.arange(2), 2)
grid = torch.cartesian_prod(levels, levels, levels)
plots.color_cube(photo, grid)

# %% [markdown]
# The grid has a colour for bright blue, where there is no pixel at all. For the dark half of the picture, with all its leaves, it has a single one. With more levels this doesn't go away:

# %%
boxes = scalar_encode(pixels, 8).unique(dim=0)
print(f"of {8**3} colours with 8 levels, {len(boxes)} are ever used")
gains = [metrics.psnr(photo, fine) - metrics.psnr(photo, coarse) for coarse, fine in pairwise(rebuilt[1:])]
assert len(boxes) < 8**3 / 3 and all(4.5 < gain < 7 for gain in gains)

# %% [markdown]
# More than two thirds of the colours never occur, and the bits that tell them apart are paid all the same.
#
# ## A list of colours of our own
#
# So drop the grid. Write down any K colours we like, as the rows of a table: that is a **codebook**, and each row is a **codeword**. In pictures it is also called a palette. For every pixel store only the **index** of the codeword nearest to it, a whole number from 0 to K − 1. To quantize whole vectors this way is **vector quantization**.
#
# - **encode**: pixel → index of the nearest codeword
# - **decode**: index → that codeword, by looking it up
#
# Our first codebook: 16 pixels, drawn blindly. For one pixel, step by step:

# %%
codebook = pixels[torch.randperm(len(pixels))[:16]]
pixel = pixels[33_000]
distances = (codebook - pixel).square().sum(1)  # to each codeword, squared
index = distances.argmin()
print("pixel", [f"{c:.2f}" for c in pixel.tolist()], "-> index", index.item())
print("index", index.item(), "-> codeword", [f"{c:.2f}" for c in codebook[index].tolist()])

strips = [pixel.expand(16, 3), codebook, codebook[index].expand(16, 3)]
titles = ["the pixel", "the codebook, index 0 to 15", f"codeword {index}"]
caption = f"Codeword {index}, the strip's number {index + 1} from the left, is the nearest to the pixel."
plots.photo_row(torch.stack(strips).mT[:, :, None].expand(-1, -1, 6, -1), titles, caption=caption)

# %% [markdown]
# ### Exercise 1 · Predict · ★☆☆ · 4 minutes
#
# How large is the result? An index takes log₂ K bits. The codebook has to be sent along once, 24 bits for each codeword. Write the bits of the whole photo as a formula.
#
# And before you compute anything: of our photo with K = 16, which part does the codebook take? A tenth, a hundredth, less?


# %% tags=["exercise"]
def file_bits(height, width, codebook_size):
    """Bits for all indices of a photo, and its codebook: three whole numbers -> a number. K is a power of 2."""
    ### BEGIN SOLUTION
    bits_per_index = codebook_size.bit_length() - 1  # log2 of a power of 2
    return height * width * bits_per_index + 24 * codebook_size
    ### END SOLUTION


# %% [markdown] tags=["hint"]
# One index a pixel, not one a channel: the three channels go together. `math.log2` gives the bits of one index, and for a power of 2 so does `codebook_size.bit_length() - 1`.

# %%
check.file_bits(file_bits)

# %% [markdown]
# ### Exercise 2 · Implement · ★★☆ · 8 minutes
#
# Now all pixels at once: find the index of the nearest codeword for each. No loop over pixels.


# %% tags=["exercise"]
def nearest_colours(pixels, codebook):
    """Index of the nearest codeword for each pixel: (N, 3), (K, 3) -> (N,)."""
    ### BEGIN SOLUTION
    differences = pixels[:, None] - codebook  # (N, K, 3)
    return differences.square().sum(2).argmin(1)
    ### END SOLUTION


# %% [markdown] tags=["hint"]
# `pixels[:, None]` has shape (N, 1, 3). Take the codebook, (K, 3), from it, and broadcasting makes all N · K differences. Square, sum over the components, and then: `argmin` along which axis?

# %%
check.nearest_colours(nearest_colours)

# %% [markdown]
# Whether or not you solved it, the notebook goes on with functions of its own. These two are what everything else in this course is built on:


# %%
def encode(pixels, codebook):
    """(N, 3), (K, 3) -> indices, (N,)."""
    return (pixels[:, None] - codebook).square().sum(-1).argmin(1)


def decode(indices, codebook):
    """indices of any shape, (K, 3) -> colours, with one more axis of 3."""
    return codebook[indices]


# %%
indices = encode(pixels, codebook)
quantized = decode(indices, codebook)
assert torch.equal(decode(encode(quantized, codebook), codebook), quantized)  # a second time changes nothing
plots.color_cube(photo, codebook)

# %% [markdown]
# `encode` builds a table of all N · K differences. The package's `nearest` finds the same indices without it, so it can take all pixels and many codewords. We use it where the table would grow too large; how it works is the first thing in notebook 02.

# %%
assert abs(metrics.mse(pixels, decode(nearest(pixels, codebook), codebook)) - metrics.mse(pixels, quantized)) < 1e-7

# %% [markdown]
# Sixteen colours drawn blindly, 4 bits a pixel, and already far better than the grid's eight. Does it really take 4 bits? Two indices below 16 fit into one byte:

# %%
packed = (16 * indices[::2] + indices[1::2]).byte()
unpacked = torch.stack([packed // 16, packed % 16], dim=1).flatten().long()
assert torch.equal(unpacked, indices)
print(f"indices: {packed.numel():,} bytes; codebook: {16 * 3} bytes; the photo was {pixels.numel():,} bytes")
assert 8 * packed.numel() == 4 * len(pixels) and 0.002 * packed.numel() > 16 * 3
assert metrics.psnr(pixels, quantized) > metrics.psnr(photo, rebuilt[1]) + 2

# %% [markdown]
# One sixth of the size, and the codebook is not even 0.2 % of it.
#
# ### What is wrong here? · Bytes
#
# Photos come from files as bytes, whole numbers from 0 to 255. So why convert them? Below, pixels and codewords are bytes, and `encode` is the same. It runs. What do you expect?

# %%
photo_bytes, codebook_bytes = (255 * pixels).round().byte(), (255 * codebook).round().byte()
from_bytes = encode(photo_bytes, codebook_bytes)
both = [decode(i, codebook).T.unflatten(1, photo.shape[1:]) for i in (indices, from_bytes)]
changed = (from_bytes != indices).double().mean()
caption = f"The same codebook and the same formula: {changed:.0%} of the indices differ."
plots.photo_row(torch.stack(both), ["from floats", "from bytes"], caption=caption)

# %% [markdown]
# No error, and a wrong picture. A byte has no room for anything below 0 or above 255: 3 − 5 becomes 254, and squares wrap around again and again. What comes out as the smallest "distance" has little to do with distance.
#
# **The mend.** Convert before you subtract:

# %%
mended = decode(encode(photo_bytes.float(), codebook_bytes.float()), codebook)
error, wrong, right = (metrics.mse(pixels, x) for x in (quantized, decode(from_bytes, codebook), mended))
print(f"MSE from floats {error:.4f}, from bytes {wrong:.4f}, mended {right:.4f}")
assert wrong > 5 * error and abs(right - error) < 1e-6

# %% [markdown]
# ## Which colours are best?
#
# Drawn blindly is not chosen well. We look for the K codewords with the smallest MSE. Nobody knows a quick way to the very best, but two half-questions are easy:
#
# 1. **Assign.** The codewords stand still. Which index is best for each pixel? That of the nearest codeword.
# 2. **Update.** The indices stand still. Which colour is best for the pixels of one codeword? The derivative of Σ‖x − c‖² by c is 2 Σ(c − x); it is 0 where c is the **mean** of these pixels.
#
# Do one, then the other, and again. That is **k-means**, or Lloyd's algorithm (Lloyd 1982; for vectors Linde, Buzo and Gray 1980). Neither step can make the error larger: each picks the best there is while the other half stands still.
#
# ### Exercise 3 · Implement · ★★☆ · 8 minutes
#
# Write the update: move each codeword to the mean of the pixels that chose it. Every codeword was chosen at least once, here. Return a new codebook and leave the old one as it was.


# %% tags=["exercise"]
def move_codewords(pixels, indices, codebook):
    """The mean of each codeword's pixels: (N, dim), (N,), (K, dim) -> (K, dim)."""
    ### BEGIN SOLUTION
    counts = torch.bincount(indices, minlength=len(codebook))
    sums = torch.zeros_like(codebook).index_add_(0, indices, pixels)
    return sums / counts[:, None]
    ### END SOLUTION


# %% [markdown] tags=["hint"]
# A loop is fine: `pixels[indices == k].mean(0)` for every k, then `torch.stack`. Without a loop: `torch.bincount(indices, minlength=K)` counts the pixels of each codeword, and `torch.zeros(K, dim).index_add_(0, indices, pixels)` adds each pixel to its codeword's row.

# %%
check.move_codewords(move_codewords)

# %% [markdown]
# Our own has one line more, for codewords that no pixel chose. You will soon see why.


# %%
def update(pixels, indices, codebook):
    """Each codeword moves to the mean of its pixels; one without pixels stays where it is."""
    counts = torch.bincount(indices, minlength=len(codebook))[:, None]
    sums = torch.zeros_like(codebook).index_add_(0, indices, pixels)
    return torch.where(counts > 0, sums / counts.clamp(min=1), codebook)


# %% [markdown]
# To see it move, take 1,000 pixels and two of their three channels, red to the right and blue upwards. The lines are the borders of the **cells**: within a cell, its codeword is the nearest.

# %%
red_blue = pixels[torch.randperm(len(pixels))[:1000]][:, [0, 2]]
history = [red_blue[:8]]
for _ in range(20):
    history.append(update(red_blue, encode(red_blue, history[-1]), history[-1]))
widgets.explore(
    lambda steps: plots.voronoi(red_blue, history[steps], title=f"red → and blue ↑, after {steps} steps of k-means"),
    steps=[0, 1, 2, 3, 5, 10, 20],
)

# %% [markdown]
# Run the cell to get its slider, and move it. The first steps are large, the later ones small, and soon nothing moves: every codeword is the mean of its cell. Count the codewords in the dark arm on the left: it has most of the pixels, and so most of the blind draws.
#
# Now in all three channels. From here on 5,000 pixels, drawn at random, are for fitting: `train`. All others are **held out**: no codebook ever sees them, and on them we measure.

# %%
order = torch.randperm(len(pixels))
train, held_out = pixels[order[:5000]], pixels[order[5000:]]


def lloyd(pixels, codebook, steps=25):
    """k-means from a given start: the codebook after these steps, and the MSE before each of them."""
    errors = []
    for _ in range(steps):
        indices = encode(pixels, codebook)
        errors.append(metrics.mse(pixels, decode(indices, codebook)))
        codebook = update(pixels, indices, codebook)
    return codebook, errors


# %%
fitted, errors = lloyd(train, codebook)
assert all(later <= earlier * (1 + 1e-5) for earlier, later in pairwise(errors))  # it never gets worse
plots.curve({"train": errors}, ylabel="mean squared error", title="k-means from 16 blind colours")

# %%
assert metrics.mse(held_out, decode(encode(held_out, fitted), fitted)) < 0.8 * errors[0]
plots.color_cube(photo, fitted)

# %% [markdown]
# The same 4 bits a pixel, and a better picture. The codewords now lie along the two arms.
#
# ### It depends on the start
#
# "Never worse" is not "best". When nothing moves any more, another start may still end lower. Blind starts tend to put several codewords into the big dark arm and forget a small one.
#
# **k-means++** spreads the start out. The first codeword is any pixel. Each next one is a pixel drawn with a probability proportional to its squared distance from the nearest codeword so far: far from all of them is likely, close to one is not.


# %%
def spread_out_start(pixels, size):
    """Starting codewords by k-means++ (Arthur & Vassilvitskii 2007, section 2.2)."""
    codebook = pixels[torch.randint(len(pixels), (1,))]
    while len(codebook) < size:
        distances = (pixels[:, None] - codebook).square().sum(-1).amin(1)
        codebook = torch.cat([codebook, pixels[distances.multinomial(1)]])
    return codebook


# %%
def held_out_error(codebook):
    """MSE on the pixels no codebook is fitted on."""
    return metrics.mse(held_out, codebook[nearest(held_out, codebook)])


blind = [held_out_error(lloyd(train, train[torch.randperm(5000)[:16]])[0]) for _ in range(10)]
spread = [held_out_error(lloyd(train, spread_out_start(train, 16))[0]) for _ in range(10)]
assert sum(spread) < sum(blind) and max(spread) < max(blind)
plots.bars({"blind start": blind, "k-means++ start": spread}, label="held-out MSE, K = 16, ten starts each")

# %% [markdown]
# The spread-out start is better on average, and it takes away the bad luck: compare the whiskers, the standard deviations over ten starts.
#
# ### What is wrong here? · A codeword nobody wants
#
# The `update` above has a line for codewords without pixels. Many first versions of k-means don't. Start from the grid of 8, where two colours have no pixel. What will happen in the first step, and what in the second?


# %%
def careless_update(pixels, indices, codebook):
    """As above, but for codewords without pixels."""
    counts = torch.bincount(indices, minlength=len(codebook))[:, None]
    return torch.zeros_like(codebook).index_add_(0, indices, pixels) / counts


broken = grid
for step in range(1, 4):
    broken = careless_update(train, encode(train, broken), broken)
    print(f"after step {step}: {broken.isnan().any(1).sum()} of 8 codewords are NaN")
assert broken.isnan().any(1).sum() == 7

# %% [markdown]
# No pixels: a sum of 0, a count of 0, and 0 / 0 is NaN, "not a number". So far only unused codewords are lost. But in the next step the distance to a NaN is NaN, and `argmin` takes NaN for the smallest of all. Every pixel chooses it, no other codeword has a pixel left, and the whole codebook is gone.
#
# ### Exercise 4 · Repair · ★★☆ · 8 minutes
#
# A codeword that stays where it is does no harm and no good. Do better: let it start again where it is needed most. If there are u codewords without pixels, they move to the u pixels that are served worst, farthest from the codeword they chose. One pixel each, in any order.


# %% tags=["exercise"]
def rescue_codewords(pixels, indices, codebook):
    """Used codewords move to their mean, unused ones to the worst-served pixels: (N, dim), (N,), (K, dim) -> (K, dim)."""
    ### BEGIN SOLUTION
    counts = torch.bincount(indices, minlength=len(codebook))
    sums = torch.zeros_like(codebook).index_add_(0, indices, pixels)
    moved = sums / counts.clamp(min=1)[:, None]
    unused = counts == 0
    distances = (pixels - codebook[indices]).square().sum(1)
    moved[unused] = pixels[distances.topk(int(unused.sum())).indices]
    return moved
    ### END SOLUTION


# %% [markdown] tags=["hint"]
# Start from your update, with `counts.clamp(min=1)` so that nothing is divided by 0. How badly is each pixel served? `(pixels - codebook[indices]).square().sum(1)`. `topk(u).indices` gives the u largest, and `moved[counts == 0] = ...` writes into the rows of the unused.

# %%
check.rescue_codewords(rescue_codewords)

# %% [markdown]
# ## Is ours any good?
#
# Against scikit-learn, which many trust. From the same start both must end in the same place. From their own starts, the best of ten each, ours must be no more than 2 % worse. scikit-learn calls the sum of squared distances its inertia; divided by the number of components it is our MSE.


# %%
def inertia(codebook):
    """Sum of the training pixels' squared distances to their nearest codewords."""
    return (train - codebook[nearest(train, codebook)]).square().sum().item()


start = spread_out_start(train, 16)
ours = inertia(lloyd(train, start, 30)[0])
theirs = KMeans(16, init=start.numpy(), n_init=1, max_iter=30, tol=0).fit(train.numpy()).inertia_
print(f"same start, K = 16: ours {ours:.2f}, scikit-learn {theirs:.2f}")
assert abs(ours / theirs - 1) < 0.01

# %%
ours = min(inertia(lloyd(train, spread_out_start(train, 8))[0]) for _ in range(10))
theirs = KMeans(8, n_init=10, random_state=0).fit(train.numpy()).inertia_
assert ours < 1.02 * theirs
plots.bars({"ours": ours, "scikit-learn": theirs}, label="inertia of the best of ten starts, K = 8")

# %% [markdown]
# ### The package's version
#
# The package's `kmeans` is what we wrote: a k-means++ start, assign, update, and the rescue of exercise 4. It returns the codewords (it calls them centroids), how many pixels each has, and the MSE. Do they agree with ours?

# %%
result = kmeans(train, 16)
ours = encode(train, result.centroids)
assert (result.counts - torch.bincount(ours, minlength=16)).abs().sum() <= 5
assert abs(result.mse / metrics.mse(train, decode(ours, result.centroids)) - 1) < 1e-4

package = [held_out_error(kmeans(train, 16).centroids) for _ in range(10)]
print(f"held-out MSE, mean of ten starts: ours {sum(spread) / 10:.5f}, the package's {sum(package) / 10:.5f}")
assert abs(sum(package) / sum(spread) - 1) < 0.05

# %% [markdown]
# They do, and from here on we use the package's.
#
# ## Which pixels did you measure on?
#
# Why all the fuss about held-out pixels? Fit codebooks of growing size on only 500 pixels. Before you run it: what is the PSNR on these 500 when there are 500 codewords?


# %%
def held_out_psnr(codebook):
    """PSNR on the same pixels."""
    return metrics.psnr(held_out, codebook[nearest(held_out, codebook)])


few, sizes = train[:500], [2, 4, 8, 16, 32, 64, 128, 256]
fits = [kmeans(few, size) for size in sizes]
on_train = [metrics.psnr(few, fit.centroids[nearest(few, fit.centroids)]) for fit in fits]
on_held_out = [held_out_psnr(fit.centroids) for fit in fits]
bits = [metrics.bits_per_pixel(size) for size in sizes]
plots.quality({"train": (bits, on_train), "held_out": (bits, on_held_out)}, title="Fitted on 500 pixels")

# %%
everything = kmeans(few, 500).centroids
print(f"500 codewords for 500 pixels: MSE {metrics.mse(few, everything[nearest(few, everything)]):.1e} on these 500")
assert metrics.mse(few, everything[nearest(few, everything)]) < 1e-10
assert on_train[-1] > 46 and on_held_out[-1] < 38 and abs(on_train[2] - on_held_out[2]) < 1.5

# %% [markdown]
# Each pixel its own codeword, and no error at all, on pixels that were learned by heart. On all others the same codebooks do much worse. With 8 codewords both agree; with 256 for 500 pixels the gap is more than 8 dB. Every distortion in this course is measured on held-out data, and so should be every one you read.
#
# ## At equal bits
#
# Now the comparison that this notebook is about. Three quantizers, each at 3, 6 and 9 bits a pixel, fitted on `train` and measured on `held_out`, which is other pixels *of the same photo*:
#
# - **equal steps**: scalar, L levels a channel; it isn't fitted at all;
# - **fitted levels**: scalar, but each channel has the L levels that k-means finds for it;
# - **codebook**: L³ colours.


# %%
def fitted_levels(train, x, levels):
    """x with each channel rounded to its own levels, which are fitted to that channel of train."""
    codebooks = [kmeans(train[:, [c]], levels).centroids for c in range(3)]
    return torch.cat([book[nearest(x[:, [c]], book)] for c, book in enumerate(codebooks)], dim=1)


def psnr_at(train, x, levels):
    """PSNR on x of the three quantizers with levels³ colours each."""
    codebook = kmeans(train, levels**3, num_iters=15).centroids
    return {
        "equal steps": metrics.psnr(x, scalar_decode(scalar_encode(x, levels), levels)),
        "fitted levels": metrics.psnr(x, fitted_levels(train, x, levels)),
        "codebook": metrics.psnr(x, codebook[nearest(x, codebook)]),
    }


# %%
at = [psnr_at(train, held_out, levels) for levels in (2, 4, 8)]
gains = [row["codebook"] - row["fitted levels"] for row in at]
assert all(4 < row["fitted levels"] - row["equal steps"] < 7 for row in at)
assert gains[0] > 2.5 and gains[1] > 5 and gains[2] > 5
plots.quality({name: ([3, 6, 9], [row[name] for row in at]) for name in at[0]}, title="Held-out pixels, equal bits")

# %% [markdown]
# Two gains. Fitting the levels puts them where the numbers are: 4 to 7 dB. Going from numbers to vectors gives more than 2.5 dB on top at 3 bits, and more than 5 dB at 6 and 9 bits.
#
# Where does the second gain come from? From the channels depending on each other: peach has much red *and* some green *and* a little blue. Test it. Shuffle each channel on its own among the pixels. Each channel then has exactly the numbers that it had, but they no longer go together.


# %%
def shuffled(x):
    """x with each channel in an order of its own."""
    return torch.stack([channel[torch.randperm(len(x))] for channel in x.T], dim=1)


mixed = [psnr_at(shuffled(train), shuffled(held_out), levels) for levels in (2, 4, 8)]
gains = {
    "the photo's pixels": gains,
    "channels shuffled": [row["codebook"] - row["fitted levels"] for row in mixed],
}
assert all(after < before / 2 for before, after in zip(*gains.values(), strict=True))
plots.bars(gains, label="gain of the codebook over fitted levels, in dB, over three rates")

# %% [markdown]
# More than half of the gain is gone. What is left is there for independent numbers too: a codebook is free in the shape of its cells, and in how many codewords it spends where. Why vectors beat scalars, in one line: *what hangs together is cheaper to say together*.
#
# ## A palette from another photo
#
# Held-out pixels of the same photo are an easy test. Take it seriously: photos that no codebook has seen. K = 64, 6 bits a pixel, and four codebooks: one fitted on half of the very pixels of that photo and measured on the other half; one on all seven training photos together; the flower's; and the grid.

# %%
small = {name: picture[:, ::2, ::2] for name, picture in (data.photos().train | data.photos().held_out).items()}
points = {name: picture.flatten(1).T[torch.randperm(picture[0].numel())] for name, picture in small.items()}
levels = scalar_decode(torch.arange(4), 4)
palettes = {
    "grid": torch.cartesian_prod(levels, levels, levels),
    "flower's": kmeans(train, 64).centroids,
    "shared": kmeans(torch.cat([points[name][:2000] for name in data.photos().train]), 64).centroids,
}

# %%
assert 0.02 < 64 * 24 / small["china"][0].numel() < 0.03  # what a palette of its own costs, in bits a pixel
table, own = {}, {}
for name in data.photos().held_out:
    fit_half, test_half = points[name].chunk(2)
    own[name] = kmeans(fit_half[:5000], 64).centroids
    candidates = palettes | {"its own": own[name]}
    table[name] = {key: metrics.psnr(test_half, book[nearest(test_half, book)]) for key, book in candidates.items()}
    print(f"{name:8}", ", ".join(f"{key} {psnr:.1f} dB" for key, psnr in table[name].items()))
assert all(row["its own"] > row["shared"] + 3 > row["grid"] + 4 for row in table.values())
assert table["china"]["flower's"] < table["china"]["grid"] - 2

# %%
china = small["china"][:, :, :224].movedim(0, -1)  # (H, W, 3): nearest takes any shape before the last axis
candidates = palettes | {"its own": own["china"]}
rebuilt = [book[nearest(china, book)].movedim(-1, 0) for book in candidates.values()]
titles = [f"{key}: {table['china'][key]:.1f} dB" for key in candidates]
caption = "6 bits a pixel each. Look at the sky: the flower's palette has no light blue, and takes a petal's peach."
plots.photo_row(torch.stack(rebuilt), titles, caption=caption)

# %% [markdown]
# The pagoda in the flower's colours is worse than on the blind grid: a codebook is only as good as what it was fitted on. The palette shared by seven photos beats the grid on all three. The photo's own is best by far, and as it costs 64 · 24 bits, about 0.02 bits a pixel, it is worth sending along. That is how GIF files work.
#
# Keep both ways in mind. A small codebook can travel with the photo. A large one, as in the rest of this course, is learned once from many pictures and shared by sender and receiver; then only held-out *pictures* are an honest test.
#
# ## How few, then?
#
# One codebook for each size, the best of three starts on `train`. Move the slider: where do you stop seeing the difference?

# %%
books = {size: min((kmeans(train, size) for _ in range(3)), key=lambda fit: fit.mse).centroids for size in sizes}

# %%
widgets.explore(
    lambda codebook_size: plots.color_cube(photo, books[codebook_size]),
    codebook_size=sizes,
)

# %%
for size, book in books.items():
    print(f"K = {size:3}, bits per pixel {metrics.bits_per_pixel(size):.0f}: {held_out_psnr(book):.1f} dB held out")
gains = [held_out_psnr(books[2 * size]) - held_out_psnr(books[size]) for size in sizes[3:-1]]
assert held_out_psnr(books[8]) < 30 < held_out_psnr(books[32]) and all(1.5 < gain < 3 for gain in gains)

# %% [markdown]
# Eight colours give a recognizable photo, and 32 bring it over 30 dB. From 16 on, every further bit per pixel buys some 2 dB. With 256, a third of the 24 bits, the difference is hard to see.
#
# ## Vectors longer than a colour
#
# One index a pixel can't take less than 1 bit, with K = 2. But if channels hang together, so do neighbours. Take blocks of 2 × 2 pixels as vectors: 12 components, one index for four pixels. A codebook of K = 256 such **patches** then takes 8 bits for four pixels, 2 bits a pixel, as much as 4 colours.


# %%
def patches(picture):
    """(3, H, W), H and W even -> its 2 × 2 patches, (H·W/4, 12)."""
    return F.pixel_unshuffle(picture, 2).flatten(1).T  # the four pixels of a block become 4 · 3 channels of one place


def assembled(vectors, height, width):
    """The picture that these patches came from."""
    return F.pixel_shuffle(vectors.T.unflatten(1, (height // 2, width // 2)), 2)


blocks = patches(photo)
assert torch.equal(assembled(blocks, *photo.shape[1:]), photo)
order = torch.randperm(len(blocks))
train_blocks, held_out_blocks = blocks[order[:5000]], blocks[order[5000:]]
print(f"{len(blocks):,} vectors of {blocks.shape[1]} components; 5,000 for fitting")

# %%
codebooks = {size: kmeans(train_blocks, size).centroids for size in (4, 16, 64, 256)}
of_blocks = [metrics.psnr(held_out_blocks, book[nearest(held_out_blocks, book)]) for book in codebooks.values()]
of_colours = [held_out_psnr(books[size]) for size in (2, 4)]
assert of_blocks[1] > of_colours[0] + 4 and of_blocks[3] > of_colours[1] + 4
plots.quality(
    {"2 × 2 patches": ([0.5, 1.0, 1.5, 2.0], of_blocks), "colours": ([1.0, 2.0], of_colours)},
    title="Held-out patches and pixels of the same photo",
)

# %% [markdown]
# At equal bits the patches are more than 4 dB better, and they go where no palette can, to half a bit a pixel. At 1 bit, 2 colours against 16 patches:

# %%
two, sixteen = books[2], codebooks[16]
by_colours = two[nearest(pixels, two)].T.unflatten(1, photo.shape[1:])
by_patches = assembled(sixteen[nearest(blocks, sixteen)], *photo.shape[1:])
titles = [
    f"2 colours: {metrics.psnr(photo, by_colours):.1f} dB",
    f"16 patches: {metrics.psnr(photo, by_patches):.1f} dB",
]
caption = "Both take 1 bit a pixel. Two colours know petal and leaf; 16 patches know shades, and blur edges."
plots.photo_row(torch.stack([by_colours, by_patches]), titles, caption=caption)

# %% [markdown]
# Here are the 256 codewords at 2 bits a pixel, from dark to light. Many are nearly of one colour, because neighbours mostly are; others are edges:

# %%
book = codebooks[256][codebooks[256].sum(1).argsort()]
tiles = make_grid(F.pixel_shuffle(book[:, :, None, None], 2), nrow=32, padding=1, pad_value=1)
edges = (book.unflatten(1, (3, 4)).std(2).amax(1) > 0.1).sum()
caption = f"In {edges} of the 256 the four pixels differ clearly: a standard deviation above 0.1 in some channel."
plots.photo_row(tiles[None], ["256 codewords of 2 × 2 pixels"], caption=caption)

# %% [markdown]
# And on photos that the codebook has never seen? As with the palettes, one codebook of patches and one of colours from the seven training photos, both at 2 bits a pixel:

# %%
even = {name: picture[:, : picture.shape[1] // 2 * 2, : picture.shape[2] // 2 * 2] for name, picture in small.items()}
samples = [patches(even[name]) for name in data.photos().train]
shared_patches = kmeans(torch.cat([s[torch.randperm(len(s))[:1000]] for s in samples]), 256).centroids
shared_colours = kmeans(torch.cat([points[name][:1000] for name in data.photos().train]), 4).centroids
for name in data.photos().held_out:
    x, y = patches(even[name]), even[name].flatten(1).T
    by_patches = metrics.psnr(x, shared_patches[nearest(x, shared_patches)])
    by_colours = metrics.psnr(y, shared_colours[nearest(y, shared_colours)])
    print(f"{name}: 256 patches {by_patches:.1f} dB, 4 colours {by_colours:.1f} dB")
    assert by_patches > by_colours + 3

# %% [markdown]
# So: longer vectors. Why not 4 × 4 patches? At 2 bits a pixel such a patch has 32 bits, and its codebook 2³² codewords, more than four billion. We could neither store it, nor search it, nor find pictures enough to fit it. This wall stands behind the whole course. Notebook 04 goes around it with many small codebooks; 02 and 03 first put a codebook into a network, so that it can work on better vectors than raw pixels.
#
# ### Exercise 5 · Explore · ★★☆ · 10 minutes
#
# How few colours does *your* photo need? Write a function that fits codebooks of K = 1, 2, 4, …, 256 colours to a photo and returns the smallest K with which it reaches a given PSNR; 256 if none does. Then try it on the three held-out photos, and on one of your own: put its path below.


# %% tags=["exercise"]
def colours_needed(photo, target):
    """The smallest K of 1, 2, 4, ..., 256 that reaches the target PSNR in dB: (3, H, W), a number -> a whole number."""
    ### BEGIN SOLUTION
    pixels = photo.flatten(1).T
    for size in (1, 2, 4, 8, 16, 32, 64, 128, 256):
        codebook = kmeans(pixels[torch.randperm(len(pixels))[:5000]], size).centroids
        if metrics.psnr(pixels, codebook[nearest(pixels, codebook)]) >= target:
            return size
    return 256
    ### END SOLUTION


# %% [markdown] tags=["hint"]
# Everything is above: `photo.flatten(1).T` gives the pixels, `kmeans(..., size).centroids` a codebook, `codebook[nearest(pixels, codebook)]` the rebuilt pixels, `metrics.psnr` their quality. Fit on some thousand pixels drawn at random, and it takes a second. Stop at the first size that is good enough.

# %%
check.colours_needed(colours_needed)


# %%
path = None  # for example "holiday.jpg"
mine = {path: data.read_photo(path)[:, ::4, ::4]} if path else {name: small[name] for name in data.photos().held_out}
for name, picture in mine.items():
    print(name, "for 30 dB:", colours_needed(picture, 30))

for name in data.photos().held_out:  # the same with the notebook's own functions
    x = points[name]
    too_few, enough = (kmeans(x[:5000], size).centroids for size in (8, 128))
    assert metrics.psnr(x, too_few[nearest(x, too_few)]) < 30 < metrics.psnr(x, enough[nearest(x, enough)])

# %% [markdown]
# What makes a photo cheap? Look at yours with `plots.color_cube`: the thinner the cloud, the fewer colours. The three photos here lie between 16 and 128 colours.
#
# ## What we saw
#
# - A codebook of K codewords turns each vector into an index of log₂ K bits. Encoding finds the nearest codeword, decoding looks it up, and doing both twice changes nothing.
# - Of 512 grid colours the photo uses less than a third. On held-out pixels a codebook of equal bits is more than 6 dB better than the grid, and 2.5 to more than 5 dB better than levels fitted to each channel.
# - More than half of that second gain comes from the channels depending on each other: shuffle them and it is gone.
# - k-means never gets worse on what it is fitted on; where it ends depends on the start. Ours is within 2 % of scikit-learn's inertia.
# - On the pixels that were fitted, 500 codewords for 500 pixels have no error at all. That says nothing about other pixels. A palette from another photo can be worse than a grid.
# - At 1 and at 2 bits a pixel, patches of 2 × 2 beat colours by more than 4 dB. The price is the size of the codebook: 2 to the number of bits.
#
# ## Self-test
#
# **1.** A photo of 1,000 × 1,000 pixels is encoded with K = 64 colours. How large is it?
#
# <details><summary>Answer</summary>
#
# 6 bits for each of a million pixels is 6 million bits, 750,000 bytes; the codebook adds 64 · 24 bits, 192 bytes. "64 bits a pixel" confuses a codeword with its name: one of 64 things is named by log₂ 64 = 6 bits. "18 bits a pixel" counts an index for each channel, but the three channels share one.
#
# </details>
#
# **2.** Why can k-means never end with a larger error than it started with, and still miss the best codebook?
#
# <details><summary>Answer</summary>
#
# Each half-step takes the best choice while the other half stands still, so the error can only fall or stay. But it may reach a point where neither half-step alone can improve anything, although moving several codewords *and* their pixels together would. "More steps would get there" is wrong for that reason: nothing moves any more. "Worse ends can't be, since the error only falls" confuses falling with falling all the way. Another start may end lower.
#
# </details>
#
# **3.** Two codebooks have the same K. One reports a PSNR of 40 dB on the pixels it was fitted on, the other 36 dB on held-out pixels. Which is better?
#
# <details><summary>Answer</summary>
#
# You can't tell. The first figure may be the result of learning by heart: in the notebook more than 46 dB on 500 fitted pixels were less than 38 dB on the others. "The first, it has more decibels" compares two different things. "The second, because it's honest" is wrong as well: honest isn't the same as better. Measure both on the same held-out pixels.
#
# </details>
#
# **4.** If all channels were independent, would a codebook of colours be of any use against fitted levels?
#
# <details><summary>Answer</summary>
#
# Of some: with the channels shuffled there was a gain left. The cells of a codebook needn't be boxes, and codewords can go where there are many pixels, while levels for each channel always make a full grid. "None, there is nothing left to exploit" overlooks that. But most of the gain was the dependence.
#
# </details>
#
# **5.** Someone wants better pictures at 2 bits a pixel and proposes patches of 8 × 8. What do you answer?
#
# <details><summary>Answer</summary>
#
# The idea is right, longer vectors are better at equal bits. But 64 pixels of 2 bits are 128 bits, and a codebook with 2¹²⁸ codewords will never exist. A larger K "as far as memory goes" doesn't save it: K = 65,536 is 16 bits for 64 pixels, a quarter of a bit each. Something between one huge codebook and one for each number is needed; that is notebook 04.
#
# </details>
#
# ## Where to read on
#
# - S. P. Lloyd, *Least Squares Quantization in PCM*, IEEE Transactions on Information Theory 28(2), 1982 (written in 1957): the algorithm, for numbers.
# - Y. Linde, A. Buzo, R. M. Gray, *An Algorithm for Vector Quantizer Design*, IEEE Transactions on Communications 28(1), 1980: the same for vectors; outside of compression it is called k-means.
# - D. Arthur, S. Vassilvitskii, *k-means++: The Advantages of Careful Seeding*, SODA 2007: the start (section 2.2), and why it is on average within a factor 8 (ln K + 2) of the best (theorem 3.1).
# - P. Heckbert, *Color Image Quantization for Frame Buffer Display*, SIGGRAPH 1982: this notebook's title as a research question.
# - A. Gersho, R. M. Gray, *Vector Quantization and Signal Compression*, 1992: the book. R. M. Gray, D. L. Neuhoff, *Quantization*, IEEE Transactions on Information Theory 44(6), 1998: fifty years in sixty pages.
#
# Next: `02_vector_quantizer`. How does a lookup learn?
