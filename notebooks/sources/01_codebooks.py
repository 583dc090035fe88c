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
# **The question.** A photo may use any of 16.7 million colours. How many does it need, which ones, and how is each pixel then written down?
#
# **You will be able to**
# - encode a photo as indices of a codebook, decode it again, and say how many bits it took and what was lost;
# - write k-means in ten lines, say why it never gets worse, and mend the bug that fills it with NaN;
# - compare quantizers fairly: at equal bits, on pixels that none of them was fitted on.
#
# **In the course.** Everything that follows is built on this notebook's lookup table. The notebook ends at a wall, and notebook 04 goes around it.
#
# **You need** PyTorch tensors: shapes, indexing, broadcasting. Nothing about compression.
#
# **Time.** It runs in {{run_time}}. Reading takes {{reading_time}}, the five exercises some forty minutes more.

# %%
import torch
import torch.nn.functional as F

from rvq_tutorial import kmeans, metrics, nearest
from rvq_tutorial.course import check, data, plots, widgets

_ = torch.manual_seed(0)  # the same numbers in every run

# %% [markdown]
# ## A photo is a cloud of points
#
# `rvq_tutorial` is the course's own package: `data` has the photos, `metrics` the measures, `plots` and `widgets` the pictures, `check` looks at your answers. Its other functions you will first write yourself.
#
# The course's ten photos come in two groups, `train` and `held_out`; you will see later what for. Here is a flower, every second pixel of every second row to keep things quick. The photo is a tensor with three channels, red, green and blue, each from 0 to 1.
#
# Forget for a moment where the pixels are. Then each pixel is a **vector**. Its three numbers are the vector's **components**; a vector with three components has dimension 3. It is a point in a cube, and the photo is a cloud of points.

# %%
photo = data.photos().train["flower"][:, ::2, ::2]
pixels = photo.flatten(1).T
print(f"photo: {tuple(photo.shape)}, pixels: {tuple(pixels.shape)}")
plots.color_cube(photo)

# %% [markdown]
# The cloud has two arms: dark teal from the leaves, red to peach from the petals. Nearly all of the cube is empty.
#
# A **bit** is a choice between two, so b bits can tell 2ᵇ things apart, and naming one of K things takes log₂ K bits. Before any compression, each channel of a pixel is one byte, 8 bits, one of 256 steps; a pixel is 24 bits, one of 2²⁴ colours.

# %%
colours = len(pixels.unique(dim=0))
print(f"{2**24:,} possible colours, {colours:,} in this photo of {len(pixels):,} pixels")

# %% tags=["claim"]
assert colours < 0.002 * 2**24 and len(pixels) == 214 * 320

# %% [markdown]
# The photo uses less than 0.2 % of the colours that 24 bits can name.
#
# ## Fewer steps for each channel
#
# The plain way to save bits: cut the range from 0 to 1 into L equal steps, write down which step a number is in, and read it back as the middle of that step. Rounding to a short list of values is called **quantization**. Done number by number, it is **scalar** quantization, and the L values are its levels.


# %%
def scalar_encode(x, levels):
    """The step, 0 to levels - 1, in which each number of x from 0 to 1 lies."""
    return (x * levels).long().clamp(max=levels - 1)


def scalar_decode(steps, levels):
    """The middle of each step."""
    return (steps + 0.5) / levels


# %% [markdown]
# How much is lost? Call what we get back x̂, "x hat". The **mean squared error**, MSE, is the average of (x − x̂)² over all components of all vectors ("per dimension"). It is also called the distortion. For photos it is often given in decibels, dB, as the **peak signal-to-noise ratio**:
#
# $$\text{PSNR} = -10 \log_{10} \text{MSE} \quad \text{(for numbers from 0 to 1)}$$
#
# A higher PSNR is better. An error ten times smaller gives 10 dB more, an error four times smaller 6 dB. As a rule of thumb, below 25 dB a photo looks broken, and from about 40 dB on the loss is hard to see.

# %%
rebuilt, titles = [photo], ["original, 24 bits per pixel"]
for levels, bits in [(2, 3), (4, 6), (8, 9)]:
    rebuilt.append(scalar_decode(scalar_encode(photo, levels), levels))
    psnr = -10 * (photo - rebuilt[-1]).square().mean().log10().item()  # from here on: metrics.psnr
    titles.append(f"{levels} levels: {bits} bits per pixel, {psnr:.1f} dB")
caption = "Look at the leaves: with 2 levels all of them are one grey, with 8 they still have steps and wrong greens."
plots.photo_row(torch.stack(rebuilt), titles, caption=caption)

# %% tags=["claim"]
assert abs(psnr - metrics.psnr(photo, rebuilt[-1])) < 1e-3
_gains = torch.tensor([metrics.psnr(photo, picture) for picture in rebuilt[1:]]).diff()
assert all(4.5 < gain < 7 for gain in _gains)
_eighths = scalar_encode(pixels, 2)
assert not (_eighths == torch.tensor([0, 0, 1])).all(1).any() and (_eighths == 0).all(1).double().mean() > 0.7

# %% [markdown]
# Every doubling of the levels takes 3 more bits a pixel, one a channel. It halves the steps, so the squared error falls to about a quarter, and we gain about 6 dB: 2 dB a bit.
#
# Still, 9 bits leave steps and wrong greens. Where do the bits go? Take 2 levels a channel: they make 2 · 2 · 2 = 8 colours, one in the middle of each eighth of the cube. In the cube above, the eighth at the blue corner has no pixel, and the eighth at the black corner has all the leaves, which share one grey. With more levels this doesn't go away:

# %%
boxes = scalar_encode(pixels, 8).unique(dim=0)
print(f"of {8**3} colours with 8 levels, {len(boxes)} are ever used")

# %% tags=["claim"]
assert len(boxes) < 8**3 / 3

# %% [markdown]
# More than two thirds of the grid's colours never occur, and the bits that tell them apart are paid all the same.
#
# ## A list of colours of our own
#
# So drop the grid, and write down any K colours we like as the rows of a table: that is a **codebook** (for colours also called a palette), and each row is a **codeword**. For every pixel store only the **index** of the nearest codeword, a whole number from 0 to K − 1. To quantize whole vectors in this way is **vector quantization**.
#
# - **encode**: pixel → index of the nearest codeword
# - **decode**: index → that codeword, by looking it up
#
# Our first codebook has the colours of 16 pixels, drawn blindly. For one pixel, step by step:

# %%
codebook = pixels[torch.randperm(len(pixels))[:16]]
pixel = pixels[33_000]  # any pixel would do
distances = (codebook - pixel).square().sum(1)  # to each codeword, squared
index = distances.argmin()
print("pixel", [f"{c:.2f}" for c in pixel.tolist()], "-> index", index.item())
print("index", index.item(), "-> codeword", [f"{c:.2f}" for c in codebook[index].tolist()])

caption = f"Codeword {index}, number {index + 1} from the left, is the nearest to this dark teal pixel."
plots.photo_row(codebook.T[None, :, None], ["the codebook, index 0 to 15"], caption=caption)

# %% [markdown]
# ### Exercise 1 · Predict · ★☆☆ · 4 minutes
#
# How large is the result? An index takes log₂ K bits. The codebook has to be sent along once, 24 bits for each codeword. Write the bits of the whole photo as a formula.
#
# And before you compute anything: of our photo with K = 16, what share does the codebook take? A tenth, a hundredth, less?


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
# The notebook goes on with its own functions, whether or not you solved the exercise. All of the course is built on these two:


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
plots.color_cube(photo, codebook)

# %% [markdown]
# Sixteen colours drawn blindly take 4 bits a pixel, and they beat the grid at 6 bits. About four of five such draws do. In the cube, each codeword is a cross in its own colour; a codeword that no pixel uses would be hollow.

# %% tags=["claim"]
assert torch.equal(decode(encode(quantized, codebook), codebook), quantized)
_grid = metrics.psnr(photo, rebuilt[2])  # 4 levels a channel
assert metrics.psnr(pixels, quantized) > _grid + 1
_draws = [pixels[torch.randperm(len(pixels), generator=torch.Generator().manual_seed(i))[:16]] for i in range(40)]
assert 26 <= sum(metrics.psnr(pixels, draw[nearest(pixels, draw)]) > _grid for draw in _draws) <= 38
assert abs(metrics.mse(pixels, codebook[nearest(pixels, codebook)]) - metrics.mse(pixels, quantized)) < 1e-7

# %% [markdown] tags=["doubters"]
# ### Does an index really take 4 bits?
#
# Two indices below 16 fit into one byte, and come out of it again. The result has one sixth of the photo's size, and the codebook is less than 0.2 % of the result.

# %% tags=["doubters"]
_packed = (16 * indices[::2] + indices[1::2]).byte()
_unpacked = torch.stack([_packed // 16, _packed % 16], dim=1).flatten().long()
assert torch.equal(_unpacked, indices)
assert 6 * _packed.numel() == pixels.numel() and 0.002 * _packed.numel() > 16 * 3

# %% [markdown]
# ### What is wrong here? · Bytes
#
# Photos come as bytes, whole numbers from 0 to 255; the package has made them numbers from 0 to 1. Why not keep the bytes? Below, pixels and codewords are bytes, and `encode` is the same. What do you expect to see?

# %% tags=["predict"]
photo_bytes, codebook_bytes = (255 * pixels).round().byte(), (255 * codebook).round().byte()
from_bytes = encode(photo_bytes, codebook_bytes)
mended = encode(photo_bytes.float(), codebook_bytes.float())  # converted before anything is subtracted
pictures = [decode(i, codebook).T.unflatten(1, photo.shape[1:]) for i in (from_bytes, mended)]
caption = f"The same codebook and the same formula. {(from_bytes != mended).double().mean():.0%} of the indices differ."
plots.photo_row(torch.stack(pictures), ["from bytes", "from bytes, converted first"], caption=caption)

# %% tags=["claim"]
_wrong, _right = (metrics.mse(photo, picture) for picture in pictures)
_error = metrics.mse(pixels, quantized)
assert _wrong > 5 * _error and abs(_right - _error) < 1e-6

# %% [markdown]
# No error was raised, and the first picture is wrong. A byte has no room for anything below 0 or above 255: 3 − 5 becomes 254, and 16² = 256 becomes 0. The smallest result has little to do with distance. **The mend**, the second picture: convert before you subtract.

# %% [markdown]
# ## Which colours are best?
#
# We look for the K codewords with the smallest MSE. Nobody knows a quick way to the very best codebook, but two half-questions are easy:
#
# 1. **Assign.** The codewords stand still. Which index is best for each pixel? The index of the nearest codeword.
# 2. **Update.** The indices stand still. Which colour c is best for all pixels x of one codeword? Their squared distances to c add up to Σ‖x − c‖², where ‖·‖ is the length of a vector. The gradient of this sum with respect to c is 2 Σ(c − x), and it is 0 where c is the **mean** of these pixels.
#
# Assign, update, assign, update, …: that is **k-means**, or Lloyd's algorithm (Lloyd 1982; for vectors Linde, Buzo and Gray 1980). Neither step can make the error larger: each picks the best there is while the other half stands still.
#
# For the update we need the sum of each codeword's pixels, and their number. PyTorch has a function for each, without a loop:

# %%
values, chosen = torch.tensor([[1.0, 1.0], [2.0, 0.0], [5.0, 5.0]]), torch.tensor([0, 2, 0])
print(torch.bincount(chosen, minlength=3).tolist())  # how often each of 0, 1, 2 was chosen
print(torch.zeros(3, 2).index_add_(0, chosen, values).tolist())  # row i of values, added to row chosen[i]

# %% [markdown]
# ### Exercise 3 · Implement · ★★☆ · 8 minutes
#
# Write the update: move each codeword to the mean of the pixels that chose it. In this exercise every codeword was chosen at least once. Return a new codebook and leave the old codebook as it was.


# %% tags=["exercise"]
def move_codewords(pixels, indices, codebook):
    """The mean of each codeword's pixels: (N, dim), (N,), (K, dim) -> (K, dim)."""
    ### BEGIN SOLUTION
    counts = torch.bincount(indices, minlength=len(codebook))
    sums = torch.zeros_like(codebook).index_add_(0, indices, pixels)
    return sums / counts[:, None]
    ### END SOLUTION


# %% [markdown] tags=["hint"]
# A loop is fine: `pixels[indices == k].mean(0)` for every k, then `torch.stack`. Without a loop: the sums by `index_add_` (`torch.zeros_like(codebook)` to start from), divided by the counts by `bincount`; `counts[:, None]` lets one count divide a whole row.

# %%
check.move_codewords(move_codewords)

# %% [markdown]
# The notebook's own version has one addition, for codewords that no pixel chose. You will soon see why.


# %%
def update(pixels, indices, codebook):
    """Each codeword moves to the mean of its pixels; one without pixels stays where it is."""
    counts = torch.bincount(indices, minlength=len(codebook))[:, None]
    sums = torch.zeros_like(codebook).index_add_(0, indices, pixels)
    return torch.where(counts > 0, sums / counts.clamp(min=1), codebook)


# %% [markdown]
# To see the codewords move, take 1,000 pixels and two of their three channels, red to the right and blue upwards. The lines are the borders of the **cells**: all points of a cell are nearest to the codeword inside it.

# %%
red_blue = pixels[torch.randperm(len(pixels))[:1000]][:, [0, 2]]
history = [red_blue[:8]]
for _ in range(20):
    history.append(update(red_blue, encode(red_blue, history[-1]), history[-1]))
widgets.explore(
    lambda steps: plots.voronoi(red_blue, history[steps], title=f"red → and blue ↑, after {steps} steps of k-means"),
    steps=[0, 1, 2, 3, 5, 10, 20],
)

# %% [markdown] tags=["kernel"]
# Run the cell to get its slider, and move it.

# %% [markdown]
# The codewords take large steps first, then mostly small ones; some are still on their way after twenty. Where nothing moves any more, every codeword is the mean of its cell.
#
# Now the grid and this codebook on the same points. The grid's levels cut the plane into equal boxes; a codebook is free in where its cells lie and how they are shaped:

# %%
thirds = torch.tensor([0.5, 1.5, 2.5]) / 3
plots.cells_side_by_side(
    red_blue, {"grid: 3 · 3 box cells": torch.cartesian_prod(thirds, thirds), "k-means: 8 free cells": history[-1]}
)

# %% tags=["claim"]
_grid = torch.cartesian_prod(thirds, thirds)
assert metrics.mse(red_blue, _grid[nearest(red_blue, _grid)]) > 3 * metrics.mse(
    red_blue, history[-1][nearest(red_blue, history[-1])]
)

# %% [markdown]
# Now in all three channels. From here on 5,000 pixels, drawn at random, are for fitting: `train`. All others are **held out**: no codebook is fitted on them, and on them quantizers are compared. (The PSNR above a picture is over all pixels; without the 5,000 it differs by less than 0.2 dB.)
#
# `encode` builds a table of all N · K differences. The package's `nearest(x, codebook)` finds the same indices without that table, so it can take many pixels; notebook 02 shows how.

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


def quantize(x, codebook):
    """Each vector's nearest codeword, in its place."""
    return codebook[nearest(x, codebook)]


# %%
fitted, errors = lloyd(train, codebook)
assert (torch.tensor(errors).diff() <= 1e-5 * errors[0]).all()  # the error never grows, but for rounding
print(f"MSE on train: {errors[0]:.5f} with 16 blind colours, {errors[-1]:.5f} after k-means")
plots.color_cube(photo, fitted)

# %% tags=["claim"]
assert metrics.mse(held_out, decode(encode(held_out, fitted), fitted)) < 0.8 * errors[0]

# %% [markdown]
# The codebook still takes 4 bits a pixel, and the picture is better. The codewords now lie along the two arms.
#
# ### It depends on the start
#
# "Never worse" is not "best". When nothing moves any more, another start may still end lower. A blind start draws most codewords where most pixels are, in the dark arm, and may leave a small part of the cloud without any.
#
# **k-means++** spreads the start out. The first codeword is any pixel. Each next codeword is a pixel too, drawn with a probability proportional to its squared distance from the nearest codeword so far: a pixel far from all codewords is likely to be drawn, a pixel close to one is not.


# %%
def spread_out_start(pixels, size):
    """Starting codewords by k-means++ (Arthur & Vassilvitskii 2007, section 2.2)."""
    codebook = pixels[torch.randint(len(pixels), (1,))]
    while len(codebook) < size:
        distances = (pixels[:, None] - codebook).square().sum(-1).amin(1)
        drawn = distances.multinomial(1)  # one place, with a probability proportional to its number
        codebook = torch.cat([codebook, pixels[drawn]])
    return codebook


# %%
starts = {"blind start": red_blue[:8], "k-means++ start": spread_out_start(red_blue, 8)}
plots.cells_side_by_side(red_blue, starts)


# %%
def held_out_errors(start):
    """MSE on held-out pixels, for ten codebooks of 16 colours that k-means fits from ten starts."""
    books = [lloyd(train, start(train, 16))[0] for _ in range(10)]
    return [metrics.mse(held_out, quantize(held_out, book)) for book in books]


blind, spread = held_out_errors(lambda x, size: x[torch.randperm(len(x))[:size]]), held_out_errors(spread_out_start)
plots.bars({"blind start": blind, "k-means++ start": spread}, label="held-out MSE, K = 16, ten starts each")

# %% tags=["claim"]
assert sum(spread) < sum(blind) and max(spread) < max(blind)

# %% [markdown]
# The spread-out start is better on average, and it takes away the bad luck: compare the whiskers, the standard deviations over the ten starts.
#
# ### What is wrong here? · A codeword nobody wants
#
# The `update` above lets a codeword without pixels stay where it is. Many first versions of k-means forget it. Start from the grid of 2 levels a channel, 8 colours, some of which have no pixel. What will happen in the first step, and what in the second?


# %% tags=["predict"]
def careless_update(pixels, indices, codebook):
    """As above, but without a thought for codewords that no pixel chose."""
    counts = torch.bincount(indices, minlength=len(codebook))[:, None]
    return torch.zeros_like(codebook).index_add_(0, indices, pixels) / counts


levels = scalar_decode(torch.arange(2), 2)
broken = torch.cartesian_prod(levels, levels, levels)
for step in range(1, 4):
    broken = careless_update(train, encode(train, broken), broken)
    print(f"after step {step}: {broken.isnan().any(1).sum()} of 8 codewords are NaN")

# %% tags=["claim"]
assert broken.isnan().any(1).sum() == 7
assert torch.allclose(broken[~broken.isnan().any(1)], train.mean(0), atol=1e-4)

# %% [markdown]
# A codeword without pixels has a sum of 0 and a count of 0, and 0 / 0 is NaN, "not a number". After the first step only the unused codewords are lost. But in the second step the distance to a NaN is NaN, and `argmin` takes the first NaN for the smallest of all. Every pixel chooses the same lost codeword, which becomes the mean of all pixels. The other 7 have no pixel left, and are NaN. The third step does the same again: the codebook is gone.
#
# ### Exercise 4 · Repair · ★★☆ · 8 minutes
#
# A codeword that stays where it is does no harm and no good. Do better: let it start again where it is needed most. If u codewords have no pixels, they move to the u pixels that are served worst, which means farthest from the codeword that they chose, before it moves. Each of the u codewords takes a pixel of its own, in any order. (`x.topk(u).indices` are the places of the u largest numbers in x.)


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
# Start from your update, with `counts.clamp(min=1)` so that nothing is divided by 0. How badly is each pixel served? `(pixels - codebook[indices]).square().sum(1)`. `distances.topk(u).indices` are the u worst-served pixels, and `moved[counts == 0] = ...` writes into the rows of the unused codewords.

# %%
check.rescue_codewords(rescue_codewords)

# %% [markdown] tags=["doubters"]
# ### Is this k-means any good?
#
# scikit-learn's k-means is trusted by many. From the same start the two must end in the same place, and from ten starts each, the better of ours must not be more than 2 % worse. scikit-learn calls the sum of squared distances its inertia; divided by the number of all numbers it is our MSE. Both hold:

# %% tags=["doubters"]
from sklearn.cluster import KMeans


def inertia(codebook):
    """Sum of the training pixels' squared distances to their nearest codewords."""
    return (train - codebook[nearest(train, codebook)]).square().sum().item()


_start = spread_out_start(train, 16)
_ours = inertia(lloyd(train, _start, 30)[0])
_theirs = KMeans(16, init=_start.numpy(), n_init=1, max_iter=30, tol=0).fit(train.numpy()).inertia_
assert abs(_ours / _theirs - 1) < 0.01

_ours = min(inertia(lloyd(train, spread_out_start(train, 8))[0]) for _ in range(10))
assert _ours < 1.02 * KMeans(8, n_init=10, random_state=0).fit(train.numpy()).inertia_

# %% [markdown]
# The package's `kmeans(pixels, K)` is what we wrote: a k-means++ start, assign, update, and the rescue of exercise 4. Its result has the codewords, called `centroids`, and the `mse` on the pixels they were fitted on. From here on we use it.

# %% tags=["claim"]
_package = [kmeans(train, 16) for _ in range(10)]
_chosen = encode(train, _package[0].centroids)
assert abs(_package[0].mse / metrics.mse(train, decode(_chosen, _package[0].centroids)) - 1) < 1e-4
assert abs(sum(metrics.mse(held_out, quantize(held_out, fit.centroids)) for fit in _package) / sum(spread) - 1) < 0.05

# %% [markdown]
# ## Which pixels did you measure on?
#
# Fit codebooks of growing size on only 500 pixels, and measure on these 500 and on the held-out pixels. Before you look: what is the MSE on the 500 pixels when there are 500 codewords?


# %% tags=["predict"]
def psnr_with(x, codebook):
    """PSNR of the vectors x when the codebook stands for them."""
    return metrics.psnr(x, quantize(x, codebook))


few, sizes = train[:500], [2, 4, 8, 16, 32, 64, 128, 256]
fits = [kmeans(few, size).centroids for size in sizes]
on_train = [psnr_with(few, book) for book in fits]
on_held_out = [psnr_with(held_out, book) for book in fits]
print(f"500 codewords for 500 pixels: MSE {kmeans(few, 500).mse:.1e} on these 500")
plots.quality({"train": (range(1, 9), on_train), "held_out": (range(1, 9), on_held_out)}, title="Fitted on 500 pixels")

# %% tags=["claim"]
assert kmeans(few, 500).mse < 1e-10
assert on_train[-1] > on_held_out[-1] + 10 and abs(on_train[2] - on_held_out[2]) < 2

# %% [markdown]
# With 500 codewords each pixel is its own codeword, learned by heart. In the picture, *train* are these 500. At 3 bits, 8 codewords, the curves agree within 2 dB; at 8 bits, 256 codewords, the PSNR is more than 10 dB lower on held-out pixels. So this course compares quantizers on held-out data. Of every distortion you read about, ask on which data it was measured.
#
# ## At equal bits
#
# Now the comparison that this notebook is about: three quantizers, each at 3, 6 and 9 bits a pixel. They are fitted on `train` and measured on `held_out`, other pixels *of the same photo*:
#
# - **equal steps**: scalar, L levels a channel; it isn't fitted at all;
# - **fitted levels**: scalar, but each channel has the L levels that k-means finds for it;
# - **codebook**: L³ colours (`num_iters=15`: fitted in 15 steps, to save time).


# %%
def fitted_levels(train, x, levels):
    """x with each channel rounded to its own levels, which are fitted to that channel of train."""
    return torch.cat([quantize(x[:, [c]], kmeans(train[:, [c]], levels).centroids) for c in range(3)], dim=1)


def psnr_at(train, x, levels):
    """PSNR on x of the three quantizers with levels³ colours each."""
    return {
        "equal steps": metrics.psnr(x, scalar_decode(scalar_encode(x, levels), levels)),
        "fitted levels": metrics.psnr(x, fitted_levels(train, x, levels)),
        "codebook": psnr_with(x, kmeans(train, levels**3, num_iters=15).centroids),
    }


# %%
at = [psnr_at(train, held_out, levels) for levels in (2, 4, 8)]
plots.quality({name: ([3, 6, 9], [row[name] for row in at]) for name in at[0]}, title="Held-out pixels, equal bits")

# %% tags=["claim"]
assert all(4.5 < row["fitted levels"] - row["equal steps"] < 6.5 for row in at)
assert all(row["codebook"] > row["equal steps"] + 9 for row in at)
assert 3 < at[0]["codebook"] - at[0]["fitted levels"] < 5
assert all(row["codebook"] - row["fitted levels"] > 6 for row in at[1:])
assert all(1.6 < (at[2][name] - at[0][name]) / 6 < 2.4 for name in at[0])  # dB a bit
assert 0.175 < 512 * 24 / len(pixels) < 0.185

# %% [markdown]
# All three lines rise by about 2 dB a bit; a better quantizer lies higher. There are two gains. Levels that are fitted lie where the numbers are: 5 to 6 dB. Vectors in place of numbers gain about 4 dB on top of that at 3 bits, and more than 6 dB at 6 and 9 bits.
#
# These bits are those of the indices. The codebook of 512 colours, sent along, adds 0.18 bits a pixel to this photo, worth less than half a dB.
#
# Does the second gain come from channels that depend on each other? (Peach has much red *and* some green *and* a little blue.) A test: shuffle each channel on its own among the pixels. Each channel keeps its numbers, but the three numbers of a pixel no longer belong together.


# %%
def shuffled(x):
    """x with each channel in an order of its own."""
    return torch.stack([channel[torch.randperm(len(x))] for channel in x.T], dim=1)


mixed = [psnr_at(shuffled(train), shuffled(held_out), levels) for levels in (2, 4, 8)]
gains = {
    name: [row["codebook"] - row["fitted levels"] for row in rows]
    for name, rows in {"photo": at, "shuffled photo": mixed}.items()
}
plots.lines([3, 6, 9], gains, xlabel="bits per pixel", ylabel="gain (dB)", title="Codebook over fitted levels")

# %% tags=["claim"]
assert all(after < before / 3 for before, after in zip(*gains.values(), strict=True))

# %% [markdown]
# More than two thirds of the gain is gone, at 3, 6 and 9 bits. What is left does not need dependent channels: a codebook is free in the shape of its cells, and in how many codewords it spends where. In one line: *what hangs together is cheaper to say together*.
#
# ## A palette from another photo
#
# Held-out pixels of the same photo are an easy test. Other photos are a harder test; that is what the photos' group `held_out` is for. We take K = 64, 6 bits a pixel, and four codebooks:
#
# - **grid**: 4 levels a channel;
# - **flower**: fitted on the flower;
# - **shared**: fitted on all seven photos of the group `train` together;
# - **own**: fitted on 5,000 pixels of the tested photo.
#
# All four are measured on a half of the photo's pixels that has none of these 5,000.

# %%
small = {name: picture[:, ::2, ::2] for name, picture in (data.photos().train | data.photos().held_out).items()}
points = {name: picture.flatten(1).T[torch.randperm(picture[0].numel())] for name, picture in small.items()}
levels = scalar_decode(torch.arange(4), 4)
palettes = {
    "grid": torch.cartesian_prod(levels, levels, levels),
    "flower": kmeans(train, 64).centroids,
    "shared": kmeans(torch.cat([points[name][:2000] for name in data.photos().train]), 64).centroids,
}

# %%
table, own = {}, {}
for name in data.photos().held_out:
    fit_half, test_half = points[name].chunk(2)
    own[name] = kmeans(fit_half[:5000], 64).centroids
    candidates = palettes | {"own": own[name]}
    table[name] = {key: psnr_with(test_half, book) for key, book in candidates.items()}
    print(f"{name:8}", ", ".join(f"{key} {psnr:.1f} dB" for key, psnr in table[name].items()))

# %% tags=["claim"]
assert all(row["own"] > row["shared"] + 3 > row["grid"] + 4 for row in table.values())
assert table["china"]["flower"] < table["china"]["grid"] - 2
assert 0.02 < 64 * 24 / small["china"][0].numel() < 0.03  # what a palette of its own costs, in bits a pixel

# %%
china = small["china"][:, :, :224].movedim(0, -1)  # (H, W, 3): nearest takes any shape before the last axis
in_palettes = [quantize(china, book).movedim(-1, 0) for book in [*palettes.values(), own["china"]]]
titles = [f"{key}: {psnr:.1f} dB" for key, psnr in table["china"].items()]
caption = "6 bits a pixel each. Look at the sky: the flower's palette has no light blue, and takes a petal's peach."
plots.photo_row(torch.stack(in_palettes), titles, caption=caption)

# %% [markdown]
# The pagoda in the flower's colours is worse than on the grid: a codebook is only as good as what it was fitted on. The shared palette beats the grid on all three photos. The palette of the photo's own pixels is best by far, and to send it along costs 64 · 24 bits, about 0.02 bits a pixel. GIF files work in this way, with palettes of up to 256 colours.
#
# So a small codebook can travel with the photo. A large codebook, as in the rest of this course, is learned once from many pictures and shared by sender and receiver; then only held-out *pictures* are an honest test.
#
# ## How few, then?
#
# One codebook for each size, the best of three starts on `train`. Move the slider: where do you stop seeing the difference?

# %%
books = {size: min((kmeans(train, size) for _ in range(3)), key=lambda fit: fit.mse).centroids for size in sizes}
widgets.explore(lambda codebook_size: plots.color_cube(photo, books[codebook_size]), codebook_size=sizes)

# %% tags=["claim"]
_steps = [psnr_with(held_out, books[2 * size]) - psnr_with(held_out, books[size]) for size in sizes[3:-1]]
assert psnr_with(held_out, books[8]) < 30 < psnr_with(held_out, books[32]) and all(1.5 < step < 3 for step in _steps)
assert 37 < psnr_with(held_out, books[256]) < 39
assert all(abs(psnr_with(pixels, book) - psnr_with(held_out, book)) < 0.2 for book in books.values())

# %% [markdown]
# Eight colours give a recognizable photo. From 16 colours on, every further bit gains about 2 dB: 32 colours bring it over 30 dB, and 256 colours, one byte a pixel in place of three, to about 38 dB, where the loss is getting hard to see. So of its 25,071 colours this photo needs 32 for a fair copy, and 256 for a good one.
#
# ## Vectors longer than a colour
#
# With one index for each pixel, a pixel takes 1 bit at least: K = 2. But neighbouring pixels hang together too, like channels. Take blocks of 2 × 2 pixels as vectors: 12 components, one index for four pixels. A codebook of K = 256 such **patches** then takes 8 bits for four pixels. That is 2 bits a pixel, as many as a codebook of 4 colours takes.


# %%
def patches(picture):
    """(3, H, W), H and W even -> its 2 × 2 patches, (H·W/4, 12)."""
    return F.pixel_unshuffle(picture, 2).flatten(1).T  # the four pixels of a block become 4 · 3 channels of one place


def assembled(vectors, height, width):
    """The picture that these patches came from."""
    return F.pixel_shuffle(vectors.T.unflatten(1, (height // 2, width // 2)), 2)


blocks = patches(photo)
assert torch.equal(assembled(blocks, *photo.shape[1:]), photo)
mixed_up = torch.randperm(len(blocks))
train_blocks, held_out_blocks = blocks[mixed_up[:5000]], blocks[mixed_up[5000:]]
print(f"{len(blocks):,} vectors of {blocks.shape[1]} components; 5,000 for fitting")

# %%
codebooks = {size: kmeans(train_blocks, size).centroids for size in (4, 16, 64, 256)}
of_blocks = [psnr_with(held_out_blocks, book) for book in codebooks.values()]
of_colours = [psnr_with(held_out, books[size]) for size in (2, 4, 8)]
plots.quality(
    {"2 × 2 patches": ([0.5, 1.0, 1.5, 2.0], of_blocks), "colours": ([1.0, 2.0, 3.0], of_colours)},
    title="Held-out patches and pixels of the same photo",
)

# %% tags=["claim"]
assert 5.5 < of_blocks[1] - of_colours[0] < 7 and 6.5 < of_blocks[3] - of_colours[1] < 8
assert of_blocks[3] > of_colours[2] + 3 and 0.35 < 256 * 12 * 8 / len(pixels) < 0.37

# %% [markdown]
# The patches are about 6 dB better at 1 bit a pixel and about 7 dB at 2 bits, and they reach half a bit, which no palette can. Their codebook is larger: 256 patches of 12 bytes, sent along, add 0.36 bits a pixel to this photo. That does not close the gap, as even 3 bits of colours stay below. Here are 2 colours and 16 patches at 1 bit a pixel:

# %%
by_colours = quantize(pixels, books[2]).T.unflatten(1, photo.shape[1:])
by_patches = assembled(quantize(blocks, codebooks[16]), *photo.shape[1:])
caption = "1 bit a pixel each. Two colours can only tell petal from leaf; 16 patches have shades, and blur edges."
plots.photo_row(torch.stack([by_colours, by_patches]), ["2 colours", "16 patches"], caption=caption)

# %% [markdown] tags=["doubters"]
# ### Do patches also win on photos that no codebook has seen?
#
# They do, by more than 3 dB on each of the three held-out photos. As before we fit on the seven training photos: one codebook of 256 patches and one of 4 colours, 2 bits a pixel each.

# %% tags=["doubters"]
_even = {name: picture[:, : picture.shape[1] // 2 * 2, : picture.shape[2] // 2 * 2] for name, picture in small.items()}
_samples = [patches(_even[name]) for name in data.photos().train]
_shared_patches = kmeans(torch.cat([s[torch.randperm(len(s))[:1000]] for s in _samples]), 256).centroids
_shared_colours = kmeans(torch.cat([points[name][:1000] for name in data.photos().train]), 4).centroids
for _name in data.photos().held_out:
    assert psnr_with(patches(_even[_name]), _shared_patches) > psnr_with(points[_name], _shared_colours) + 3

# %% [markdown]
# Why not take still longer vectors, patches of 4 × 4? At 2 bits a pixel such a patch has 32 bits, and its codebook 2³² codewords, more than four billion: too many to store, to search or to fit. This is the wall: at a fixed number of bits a pixel, the codebook grows exponentially with the length of the vectors. Notebook 04 goes around it, with several small codebooks one after the other. Before that, notebooks 02 and 03 put a codebook into a network, so that codewords can stand for something better than raw pixels.
#
# ### Exercise 5 · Explore · ★★☆ · 10 minutes
#
# How few colours does *your* photo need? Write a function that fits codebooks of K = 1, 2, 4, …, 256 colours to a photo and returns the smallest K with which it reaches a given PSNR; 256 if none does. As this codebook travels with its photo, fit it on the photo's own pixels and measure on all of them. Then try it on the three held-out photos, and on one of your own: put its path below.


# %% tags=["exercise"]
def colours_needed(photo, target):
    """The smallest K of 1, 2, 4, ..., 256 that reaches the target PSNR in dB: (3, H, W), a number -> a whole number."""
    ### BEGIN SOLUTION
    pixels = photo.flatten(1).T
    for size in (1, 2, 4, 8, 16, 32, 64, 128, 256):
        codebook = kmeans(pixels[torch.randperm(len(pixels))[:5000]], size).centroids
        if psnr_with(pixels, codebook) >= target:
            return size
    return 256
    ### END SOLUTION


# %% [markdown] tags=["hint"]
# Everything is above: `photo.flatten(1).T` gives the pixels, `kmeans(..., size).centroids` a codebook, `psnr_with(pixels, codebook)` the quality of the rebuilt pixels. Fit on some thousand pixels drawn at random, and it takes a second. Stop at the first size that is good enough.

# %%
check.colours_needed(colours_needed)


# %% tags=["kernel"]
path = None  # for example "holiday.jpg"
mine = {path: data.read_photo(path)[:, ::4, ::4]} if path else {name: small[name] for name in data.photos().held_out}
for name, picture in mine.items():
    print(name, "for 30 dB:", colours_needed(picture, 30))

# %% tags=["claim"]
for _name in data.photos().held_out:
    _x = points[_name]
    _few, _enough = (kmeans(_x[:5000], size).centroids for size in (8, 64))
    assert psnr_with(_x, _few) < 30 < psnr_with(_x, _enough)

# %% [markdown]
# What makes a photo cheap? Look at your photo with `plots.color_cube(photo)`: the thinner its cloud, the fewer colours it needs. The three held-out photos need between 16 and 64 colours for 30 dB.
#
# ## What we saw
#
# - A codebook of K codewords turns each vector into an index of log₂ K bits. Encoding finds the nearest codeword, decoding looks it up.
# - On held-out pixels, at equal bits, a codebook is more than 9 dB better than the grid. At least 3 dB of that is over fitted levels, mostly because the channels depend on each other.
# - k-means never gets worse on what it is fitted on; where it ends depends on the start.
# - A good result on the fitted pixels may not hold on others. A palette from another photo can be worse than a grid.
# - At equal bits, patches of 2 × 2 pixels beat colours by 6 to 7 dB. The price is the size of the codebook: 2 to the number of bits.
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
# Each half-step takes the best choice while the other half stands still, so the error can only fall or stay. But it may reach a point where neither half-step alone can improve anything, although moving several codewords *and* their pixels together would. "More steps would get there" is wrong for that reason: nothing moves any more. "The error always falls, so it falls to the lowest" confuses falling with falling all the way: another start may end lower.
#
# </details>
#
# **3.** Two codebooks have the same K. One reports a PSNR of 40 dB on the pixels it was fitted on, the other 36 dB on held-out pixels. Which is better?
#
# <details><summary>Answer</summary>
#
# You can't tell. The 40 dB may be the result of learning by heart: in the notebook a codebook of 256 colours was more than 10 dB better on its 500 fitted pixels than on held-out pixels. "The first, it has more decibels" compares two different things. "The second, because it's honest" is wrong as well: an honest figure isn't the same as a better codebook. Measure both codebooks on the same held-out pixels.
#
# </details>
#
# **4.** If all channels were independent, would a codebook of colours be of any use against fitted levels?
#
# <details><summary>Answer</summary>
#
# It would be of some use: with the channels shuffled there was a gain left. The cells of a codebook needn't be boxes, and codewords can go where there are many pixels, while levels for each channel always make a full grid. "None, there is nothing left to exploit" overlooks that. But most of the gain came from the dependence.
#
# </details>
#
# **5.** Someone wants better pictures at 2 bits a pixel and proposes patches of 8 × 8. What do you answer?
#
# <details><summary>Answer</summary>
#
# The idea is right, longer vectors are better at equal bits. But 64 pixels of 2 bits are 128 bits, and a codebook with 2¹²⁸ codewords will never exist. A larger K "as far as memory goes" doesn't save the idea: K = 65,536 is 16 bits for 64 pixels, a quarter of a bit each. Something between one huge codebook and one for each number is needed; that is notebook 04.
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

# %% [markdown] tags=["kernel"]
# ## What you have solved
#
# The checks remember what they accepted, in the file `progress.json` beside the notebooks.

# %%
check.progress()

# %% [markdown]
# Next: `02_vector_quantizer`. How does a lookup learn? It puts the codebook into a network, as a layer.
