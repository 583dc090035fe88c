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
# # 06 · What do codes of an image mean?
#
# **The question.** A photo goes in, a small grid of whole numbers comes out, and from those numbers alone a network paints the photo again. Each number names a codeword. What does number 137 *mean*? Can we look at it? And where in a photo does it stand?
#
# **You will be able to**
# - build the encoder and the decoder of a VQ-VAE, layer by layer, and say what shape comes out of each;
# - write its loss, and say which of its three terms moves which part of the network;
# - train it, and judge it on photos that it never saw;
# - look at a codeword: decoded alone, in its places in a photo, and by what its index tells about a patch;
# - recognise a collapsed codebook and a lost commitment loss by their pictures and their numbers.
#
# **You need** notebook 02 (straight-through, codebook loss and commitment loss) and 03 (usage, perplexity, EMA, restarts); from PyTorch: convolutions.
#
# **Time.** It runs in {{run_time}}, most of it training. Reading takes half an hour, the four exercises 25 minutes more.

# %%
import copy
import itertools
import sys

import torch
import torch.nn.functional as F
from torch import nn
from tqdm import tqdm

from rvq_tutorial import VectorQuantizer, check, data, metrics, nearest, plots, straight_through, widgets
from rvq_tutorial.models import VQVAE, Decoder, Encoder, cosine_patterns
from rvq_tutorial.training import fit

_ = torch.manual_seed(0)  # the same numbers in every run

# %% [markdown]
# ## The photos
#
# We train on **crops** of 64 × 64 pixels, cut from seven photos at random places and scales. Three other photos are **held out**: nothing is fitted on them, and every quality below is measured on them.

# %%
photos = data.photos()
crops = data.photo_crops(64, 2048, seed=0)
print(f"{len(crops):,} crops of shape {tuple(crops.shape[1:])}; held out: {', '.join(photos.held_out)}")
plots.photo_row(crops[:7], list(photos.train), caption="One crop from each training photo, 64 × 64 pixels.")

# %% [markdown]
# ## The encoder, layer by layer
#
# In notebook 03 an encoder was one matrix, and each patch was encoded by itself. Now a stack of convolutions does it. The first cuts the image into patches of 8 × 8 pixels and takes 64 numbers of each: a convolution whose kernel is as wide as its stride never looks at a pixel twice.

# %%
from_patches = nn.Conv2d(3, 64, kernel_size=8, stride=8, bias=False)
features = from_patches(2 * crops[:1] - 1)  # pixels from [0, 1] to [-1, 1]: mid-grey is 0
print("image", tuple(crops[:1].shape), "→ features", tuple(features.shape))
assert features.shape == (1, 64, 8, 8)

# %% [markdown]
# Where should its 64 kernels start? At random they would first have to find out what patches of photos look like. That has been known since 1974: they are described well by the **cosine transform** (Ahmed et al.), the one in JPEG. Its patterns are orthonormal: none contains any of another, so a patch is the sum of all 192, each times one number. We take the coarsest 64.

# %%
patterns = cosine_patterns(channels=3, size=8)[:64]
assert torch.allclose(patterns.flatten(1) @ patterns.flatten(1).T, torch.eye(64), atol=1e-5)
from_patches.weight.data = patterns

shown = 0.5 + 2 * patterns
plots.patch_rows(
    {f"{row + 1}–{row + 16}": shown[row : row + 16] for row in (0, 16, 32, 48)},
    caption="The first layer's 64 kernels at the start, coarse to fine: level brightness, slopes, ripples, and among them a few of colour.",
)

# %% [markdown]
# Next, **residual blocks**. Each adds to the features what two convolutions make of them and of their neighbours. The 3 × 3 convolution looks at neighbouring patches, the 1 × 1 mixes the 64 features. The last layer starts at zero, so at first a block changes nothing: it can learn only what helps (He et al. 2016 introduced the block).


# %%
class Block(nn.Module):
    """x plus what two convolutions make of it: (B, 64, h, w) -> the same."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(
            nn.ReLU(), nn.Conv2d(64, 64, kernel_size=3, padding=1), nn.ReLU(), nn.Conv2d(64, 64, kernel_size=1)
        )
        nn.init.zeros_(self.layers[-1].weight)
        nn.init.zeros_(self.layers[-1].bias)

    def forward(self, x):
        return x + self.layers(x)


assert torch.equal(Block()(features), features)

# %% [markdown]
# Last, a 1 × 1 convolution leaves 20 of the 64 features: the **latent** vector that will be quantized. It starts by keeping the first 20 as they are. Here is the whole encoder, shape by shape.

# %%
to_latents = nn.Conv2d(64, 20, kernel_size=1, bias=False)
nn.init.dirac_(to_latents.weight)  # a copy of the first 20
encoder = nn.Sequential(from_patches, Block(), Block(), Block(), to_latents)

x = 2 * crops[:1] - 1
print(f"{'image':15}{tuple(x.shape)}")
for layer in encoder:
    x = layer(x)
    print(f"→ {type(layer).__name__:13}{tuple(x.shape)}")
assert x.shape == (1, 20, 8, 8)

# %% [markdown]
# 12,288 numbers became 1,280. The package's `Encoder` is this stack, with the change of range inside. Same weights in number and shape, and at the start the same latents:


# %%
def shapes(module):
    """The shapes of a module's weights, in order."""
    return [tuple(weight.shape) for weight in module.parameters()]


theirs = Encoder(dim=20)
assert shapes(encoder) == shapes(theirs)
assert torch.allclose(encoder(2 * crops[:16] - 1), theirs(crops[:16]), atol=1e-5)
print(f"{sum(weight.numel() for weight in theirs.parameters()):,} weights")

# %% [markdown]
# ## The decoder, in the mirror
#
# The decoder runs the other way: from 20 numbers to 64 features, three blocks, and a **transposed convolution** that lays down 64 patterns of 8 × 8 pixels, each times its feature, and adds them up. Its first convolution is 3 × 3, so that it too can look at neighbours. It starts as the inverse of the encoder.

# %%
from_latents = nn.Conv2d(20, 64, kernel_size=3, padding=1, bias=False)
to_patches = nn.ConvTranspose2d(64, 3, kernel_size=8, stride=8, bias=False)
nn.init.dirac_(from_latents.weight)
to_patches.weight.data = patterns.clone()  # its own copy: encoder and decoder learn apart
decoder = nn.Sequential(from_latents, Block(), Block(), Block(), to_patches)

x = encoder(2 * crops[:1] - 1)
print(f"{'latents':20}{tuple(x.shape)}")
for layer in decoder:
    x = layer(x)
    print(f"→ {type(layer).__name__:18}{tuple(x.shape)}")
assert x.shape == (1, 3, 64, 64)

# %%
assert shapes(decoder) == shapes(Decoder(dim=20))
assert torch.allclose((decoder(encoder(2 * crops[:16] - 1)) + 1) / 2, Decoder(dim=20)(theirs(crops[:16])), atol=1e-5)

# %% [markdown]
# From here on we use the package's two. Already now, untrained and without a quantizer, they give a fair copy: the cosine transform with 20 of 192 numbers kept. It is about what JPEG does before it rounds.


# %%
def mean_psnr(rebuild):
    """Mean PSNR of a function from photos (1, 3, H, W) to their copies over the held-out photos, in dB."""
    with torch.no_grad():
        qualities = [metrics.psnr(rebuild(photo[None]).clamp(0, 1), photo[None]) for photo in photos.held_out.values()]
    return sum(qualities) / len(qualities)


def new_model(codebook_size=256, **settings):
    """A VQ-VAE with one codebook, untrained."""
    quantizer = VectorQuantizer(20, codebook_size, channel_dim=1, **settings)
    return VQVAE(Encoder(dim=20), quantizer, Decoder(dim=20))


def bypassed(model, photo):
    """A photo after encoder and decoder alone, without the quantizer."""
    return model.decoder(model.latents(photo))[..., : photo.shape[2], : photo.shape[3]]


model = new_model()
untrained = mean_psnr(lambda photo: bypassed(model, photo))
print(f"encoder and decoder, untrained and unquantized: {untrained:.1f} dB")
assert abs(untrained - 26.7) < 0.5

# %% [markdown]
# ### Exercise 1 · Predict · ★☆☆ · 4 minutes
#
# Once trained, the decoder looks at neighbours. Suppose that one index in the middle of a large grid is changed. What is the side, in pixels, of the square that may change in the image? Count: one 3 × 3 convolution, then `num_blocks` blocks with a 3 × 3 and a 1 × 1 convolution each; then every place becomes `stride` × `stride` pixels. We will measure it after training.


# %% tags=["exercise"]
def reach(num_blocks, stride):
    """Side of the square, in pixels, that one index can change: two whole numbers -> a whole number."""
    ### BEGIN SOLUTION
    convolutions = num_blocks + 1
    return stride * (2 * convolutions + 1)
    ### END SOLUTION


# %% [markdown] tags=["hint"]
# After one 3 × 3 convolution the change has spread to 3 × 3 places, after two to 5 × 5. A 1 × 1 convolution spreads nothing.

# %%
check.reach(reach)

# %% [markdown]
# ## The quantizer between them
#
# Between the two stands one `VectorQuantizer` with K = 256 codewords of 20 numbers. `channel_dim=1` says that a vector lies along the second axis. An image becomes a grid of indices, one byte for every 8 × 8 pixels:

# %%
with torch.no_grad():
    model.quantizer.fit(model.latents(crops[:128]))  # k-means, as in notebook 03
    indices = model.encode(crops[:1])
print(f"image {tuple(crops[:1].shape)} → indices {tuple(indices.shape)}:\n{indices[0]}")
rate = metrics.bits_per_pixel(256, stride=8)
print(f"{rate} bits per pixel, {24 / rate:.0f} times less than the image as it is")
assert indices.shape == (1, 8, 8) and rate == 1 / 8

# %% [markdown]
# ## The loss, term by term
#
# Van den Oord et al. (2017) call the image x, the encoder's output $z_e(x)$ and what replaces it, the codeword $e$, also $z_q(x)$. Their equation 3, with the sign that makes its first term a loss:
#
# $$L = -\log p\,(x \mid z_q(x)) \;+\; \lVert \mathrm{sg}[z_e(x)] - e \rVert^2 \;+\; \beta\, \lVert z_e(x) - \mathrm{sg}[e] \rVert^2$$
#
# **Reconstruction.** For pixels with Gaussian noise of a fixed size, the negative log-likelihood is the squared error, times and plus constants. We take its mean, divided by the variance of all training pixels: 1 means no better than one grey everywhere.
#
# **Codebook.** It pulls each chosen codeword to the encoder's outputs. `sg`, in code `detach`, holds the encoder still meanwhile.
#
# **Commitment.** The same distance with the roles exchanged: it pulls the encoder's outputs to their codewords. β is usually 0.25.

# %%
variance = crops.var()
learner = new_model(codebook_update="gradient")  # so that the codebook has a gradient to look at
learner.quantizer.load_state_dict(model.quantizer.state_dict())
images, codebook = crops[:16], learner.quantizer.codebook

z_e = learner.encoder(images)
z_q = codebook[nearest(z_e.movedim(1, -1), codebook)].movedim(-1, 1)
reconstruction = learner.decoder(straight_through(z_e, z_q))

terms = {
    "reconstruction": F.mse_loss(reconstruction, images) / variance,
    "codebook": F.mse_loss(z_q, z_e.detach()),
    "commitment": F.mse_loss(z_e, z_q.detach()),
}
print({name: round(term.item(), 3) for name, term in terms.items()})

# %% [markdown]
# Codebook loss and commitment loss have the same value; their gradients go to different places. Which term moves which part? We ask autograd for the length of every gradient:

# %%
parts = {"encoder": learner.encoder, "codebook": learner.quantizer, "decoder": learner.decoder}
reached = {}
print(" " * 15 + "".join(f"{part:>10}" for part in parts))
for name, term in terms.items():
    for part, module in parts.items():
        found = torch.autograd.grad(term, list(module.parameters()), retain_graph=True, allow_unused=True)
        reached[name, part] = sum(g.square().sum().item() for g in found if g is not None) ** 0.5
    print(f"{name:15}" + "".join(f"{reached[name, part]:10.3f}" for part in parts))

moved = {key for key, length in reached.items() if length > 0}
assert moved == {
    *itertools.product(["reconstruction"], ["encoder", "decoder"]),
    ("codebook", "codebook"),
    ("commitment", "encoder"),
}

# %% [markdown]
# The reconstruction moves decoder and encoder, the latter straight through the lookup, and never the codebook. Each of the other terms moves one thing. And the package's model, on the same images, has the same loss:

# %%
by_hand = terms["reconstruction"] + terms["codebook"] + 0.25 * terms["commitment"]
output = learner.eval()(images)
assert torch.allclose(by_hand, F.mse_loss(output.reconstruction, images) / variance + output.loss, rtol=1e-4)

# %% [markdown]
# From here on the codewords follow by EMA (notebook 03), and the codebook loss drops out, as in the paper's appendix A.1.
#
# ### What is wrong here? · A sum among means
#
# This loss has β = 0.25, and all its detaches are right. Notebook 02 met it in a library. What happens to the balance when the crops grow from 32 to 128 pixels?


# %%
def lopsided_loss(images, reconstruction, z_e, z_q, beta=0.25):
    """Equation 3, or is it?"""
    rebuilt = F.mse_loss(reconstruction, images, reduction="sum") / len(images)
    return rebuilt + F.mse_loss(z_q, z_e.detach()) + beta * F.mse_loss(z_e, z_q.detach())


# %%
ratios = {}
for size in (32, 64, 128):
    views = data.photo_crops(size, 16, seed=1)
    with torch.no_grad():
        z_e, output = model.latents(views), model.eval()(views)
        z_q = model.quantizer.decode(output.indices)
        rebuilt = lopsided_loss(views, output.reconstruction, z_e, z_e)  # the other terms are zero
        commitment = 0.25 * F.mse_loss(z_e, z_q)
    ratios[size] = (rebuilt / commitment).item()
    print(f"crops of {size:3}: the reconstruction weighs {ratios[size]:8,.0f} times as much as the commitment")
assert ratios[32] > 100 and 8 < ratios[128] / ratios[32] < 32

# %% [markdown]
# Sixteen times the pixels, sixteen times the weight. Adam doesn't mind a large loss, it divides by the gradient's size, but the *balance* is gone: the commitment loss is a whisper, as if β were near 0. Such a model trains, and its loss falls. At the end of this notebook we see what it looks like.
#
# ### Exercise 2 · Repair · ★★☆ · 6 minutes
#
# Mend it: the loss of equation 3 from three means, with the reconstruction's error divided by `variance`.


# %% tags=["exercise"]
def balanced_loss(images, reconstruction, z_e, z_q, variance, beta):
    """Equation 3: images and reconstruction of one shape, z_e and z_q of another, two numbers -> a scalar."""
    ### BEGIN SOLUTION
    rebuilt = F.mse_loss(reconstruction, images) / variance
    codebook_loss = F.mse_loss(z_q, z_e.detach())
    commitment_loss = F.mse_loss(z_e, z_q.detach())
    return rebuilt + codebook_loss + beta * commitment_loss
    ### END SOLUTION


# %% [markdown] tags=["hint"]
# `F.mse_loss` takes a mean unless told otherwise. Only the first term is measured in pixels, so only it is divided by their variance. What is detached above is right.

# %%
check.balanced_loss(balanced_loss)

# %% [markdown]
# ## Training
#
# The loop is the one of every network. We will want it again for experiments, so it takes the model and how to measure the reconstruction.


# %%
def pixel_loss(reconstruction, images):
    """Mean squared error in units of the training pixels' variance."""
    return F.mse_loss(reconstruction, images) / variance


def learn(model, reconstruction_loss=pixel_loss, steps=100, seed=0):
    """Train a model on random batches of 16 crops -> the model, in eval mode."""
    torch.manual_seed(seed)
    optimizer = torch.optim.Adam(model.train().parameters(), lr=2e-3)
    for _ in range(steps):
        images = crops[torch.randint(len(crops), (16,))]
        output = model(images)
        loss = reconstruction_loss(output.reconstruction, images) + output.loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return model.eval()


# %% [markdown]
# The package's `fit` is this loop with five things that make life easier: the k-means start, a learning rate that rises and then falls, a progress bar, a history, and you may interrupt it. Its loss is ours, as one step on the same batch shows:

# %%
torch.manual_seed(0)
single = new_model()
history = fit(single, crops, steps=1, seed=0, device="cpu")  # a GPU would draw another batch

torch.manual_seed(0)
again = new_model()
torch.manual_seed(0)
with torch.no_grad():
    again.quantizer.fit(again.latents(crops[torch.randint(len(crops), (128,))]))
    images = crops[torch.randint(len(crops), (16,))]
    output = again.train()(images)
    by_hand = pixel_loss(output.reconstruction, images) + output.loss
print(f"loss of fit's first step: {history['loss'][0]:.4f}, by hand: {by_hand:.4f}")
assert abs(history["loss"][0] - by_hand) < 1e-3

# %% [markdown]
# Now the model that we will take apart. Before, we note its quality, and how visible the seams between patches are: how much larger a step from pixel to pixel is across a border than within a patch. (In the photos themselves it is the same.)


# %%
@torch.no_grad()
def seams(rebuild):
    """Step across patch borders over step within patches, mean over the held-out photos; 1 means no seams."""
    ratios = []
    for photo in photos.held_out.values():
        steps = rebuild(photo[None])[0].diff(dim=2).abs().mean((0, 1))
        border = torch.arange(len(steps)) % 8 == 7
        ratios.append(steps[border].mean() / steps[~border].mean())
    return (sum(ratios) / len(ratios)).item()


def by_model(photo):
    """A batch of photos after the round trip through their indices."""
    return model(photo).reconstruction


at_start, seams_at_start = mean_psnr(by_model), seams(by_model)
assert abs(seams(lambda photo: photo) - 1) < 0.05

# %%
with widgets.live_curve("psnr", ylabel="PSNR of the batch, dB", smooth=30) as draw:
    history = fit(model, crops, steps=300, seed=0, on_step=draw)

# %% [markdown]
# ## Photos it has never seen
#
# Every photo goes through its indices: 1/8 bit per pixel, 192 times less than the photo as it is.


# %%
def part(photo):
    """A square of 224 pixels from the middle of a photo (3, H, W), to look at closely."""
    top, left = ((side - 224) // 2 for side in photo.shape[1:])
    return photo[:, top : top + 224, left : left + 224]


@torch.no_grad()
def rebuilt(photo, model=model):
    """A photo (3, H, W) after the round trip through its indices."""
    return model(photo[None]).reconstruction[0].clamp(0, 1)


held_out = list(photos.held_out.values())
views = [part(photo) for photo in held_out] + [part(rebuilt(photo)) for photo in held_out]
titles = list(photos.held_out) + [f"rebuilt, {metrics.psnr(rebuilt(photo), photo):.1f} dB" for photo in held_out]
plots.photo_row(
    torch.stack(views),
    titles,
    caption="Above, the middle of each held-out photo, 24 bits per pixel; below, what its indices give back, 0.125 bits per pixel.",
)

# %%
trained, seams_trained = mean_psnr(by_model), seams(by_model)
limit = mean_psnr(lambda photo: bypassed(model, photo))
print(f"before training {at_start:.2f} dB, after {trained:.2f} dB; without the quantizer {limit:.2f} dB")
print(f"seams: {seams_at_start:.1f} before training, {seams_trained:.1f} after")
assert (
    seams_trained < 0.5 * seams_at_start
    and abs(trained - 22.8) < 0.5
    and trained > at_start + 0.5
    and limit > trained + 3
)

# %% [markdown]
# Be sober about it. Cosine patterns and k-means alone, without a single step of training, come within little more than one decibel. What training adds shows most at the seams, which are less than half as strong: the decoder has learned to look at neighbours. And nearly four decibels separate this from the same network without a quantizer: 256 kinds of patch are few. Notebook 07 does something about that.
#
# ## How many codewords are in use?
#
# Count over **all** patches of the three held-out photos.

# %%
with torch.no_grad():
    grids = {name: model.encode(photo[None])[0] for name, photo in photos.held_out.items()}
    training_indices = model.encode(crops[:512]).flatten()
indices = torch.cat([grid.flatten() for grid in grids.values()])
counts = torch.bincount(indices, minlength=256)

usage, perplexity = metrics.usage(indices, 256), metrics.perplexity(indices, 256)
print(f"{len(indices):,} patches: usage {usage:.0%}, perplexity {perplexity:.0f}")
print(f"on the training crops: perplexity {metrics.perplexity(training_indices, 256):.0f}")
assert usage > 0.8 and 60 < perplexity < 120 < metrics.perplexity(training_indices, 256)
plots.code_usage(counts, title="Held-out photos")

# %% [markdown]
# No collapse: nearly every codeword occurs in photos that had no say in choosing them. The use is uneven, though. Photos hold much sky and wall, and few eyes.
#
# ## What does a codeword look like?
#
# Give the decoder a grid that consists of one single index, and it paints that codeword.
#
# ### Exercise 3 · Implement · ★★☆ · 5 minutes
#
# Paint all of them: each codeword decoded alone, in the order of the indices. `model.decode` takes indices of shape (B, h, w).


# %% tags=["exercise"]
def alone(model, codebook_size):
    """Each codeword, decoded in a grid of its own: -> (codebook_size, 3, stride, stride)."""
    ### BEGIN SOLUTION
    indices = torch.arange(codebook_size)
    return model.decode(indices.view(-1, 1, 1))
    ### END SOLUTION


# %% [markdown] tags=["hint"]
# One grid of K places would let the neighbours interfere. K grids of one place are a batch: what shape must `torch.arange(K)` have?

# %%
check.alone(alone)

# %% [markdown]
# Here they are, all 256, those that the held-out photos use most first.

# %%
with torch.no_grad():
    pictures = model.decode(torch.arange(256).view(256, 1, 1)).clamp(0, 1)
most_used = counts.argsort(descending=True)
plots.patch_rows(
    {f"{row + 1}–{row + 16}": pictures[most_used[row : row + 16]] for row in range(0, 256, 16)},
    caption="All 256 codewords, each decoded alone, most used first: plain tints, then slopes, edges and corners of every direction.",
)

# %% [markdown]
# They look like patches of photos, but for rims that fade to grey: around a single index there is nothing, and the decoder takes nothing for grey.
#
# Is a codeword the mean of the patches that choose it? To find out we cut the held-out photos into their patches, in the order of their indices. (Where a photo isn't a multiple of 8 pixels, the encoder filled up the last patches; we leave those out.) Then we take the mean of all patches with the same index.


# %%
def patches(image):
    """Cut an image (B, 3, H, W) into its whole patches, row by row: (N, 3, 8, 8)."""
    image = image[..., : image.shape[2] // 8 * 8, : image.shape[3] // 8 * 8]
    cut = image.unfold(2, 8, 8).unfold(3, 8, 8)  # (B, 3, h, w, 8, 8)
    return cut.permute(0, 2, 3, 1, 4, 5).flatten(0, 2)


def whole(grid, photo):
    """The part of a grid of indices (h, w) that belongs to whole patches, flat."""
    return grid[: photo.shape[1] // 8, : photo.shape[2] // 8].flatten()


def mean_by_index(values, indices):
    """Mean of the values (N, ...) that have each index: (256, ...); zeros where there are none."""
    sums = values.new_zeros(256, *values.shape[1:]).index_add(0, indices, values)
    sizes = torch.bincount(indices, minlength=256).clamp(min=1)
    return sums / sizes.view(-1, *[1] * (values.ndim - 1))


# %%
seen = torch.cat([patches(photo[None]) for photo in photos.held_out.values()])
index_of = torch.cat([whole(grids[name], photo) for name, photo in photos.held_out.items()])
means = mean_by_index(seen, index_of)
print(f"{len(seen):,} held-out patches and their indices")
assert len(seen) == len(index_of)

# %% [markdown]
# Below, every eighth of the 128 most used codewords, in three rows. First decoded alone. Then in the middle of a grid of 9 × 9 times the same index, so that it stands among its like and there is no grey nearby. Last, the mean of the held-out patches that have its index.

# %%
with torch.no_grad():
    among = model.decode(torch.arange(256).view(256, 1, 1).expand(256, 9, 9))[..., 32:40, 32:40].clamp(0, 1)
some = most_used[:128:8]
plots.patch_rows(
    {"alone": pictures[some], "among its like": among[some], "mean of patches": means[some]},
    caption="16 codewords as the decoder draws them, and the means of the held-out patches that chose them.",
)


# %%
def explained(values, guess):
    """Share of the variance of values (N, ...) that a guess (N, ...) of them explains: 1 if it is exact."""
    return 1 - ((values - guess).square().sum() / (values - values.mean(0)).square().sum()).item()


shares = [explained(means[index_of], drawn[index_of]) for drawn in (pictures, among)]
print(f"of what distinguishes those means, codewords explain {shares[0]:.0%} alone, {shares[1]:.0%} among their like")
assert 0.85 < shares[0] < shares[1] and shares[1] > 0.95

# %% [markdown]
# **A codeword means: patches like these.** It is a typical patch, up to details, and the decoder knows how to draw it.
#
# ### Words in a sentence
#
# The rims gave it away: that isn't the whole meaning. The decoder sees the neighbours, and draws the same codeword a little differently beside others. How far does one index reach? We change the middle one in a grid of 21 × 21 and look at which pixels move.

# %%
grid = most_used[0].repeat(1, 21, 21)
changed = grid.clone()
changed[0, 10, 10] = most_used[1]
painter = copy.deepcopy(model.decoder).double()  # or the faintest changes would drown in rounding
with torch.no_grad():
    before, after = (painter(model.quantizer.decode(indices).double()) for indices in (grid, changed))
difference = (before - after).abs().sum(1)[0]

# %%
rows, columns = (difference > 1e-9).nonzero().T
height, width = (rows.max() - rows.min() + 1).item(), (columns.max() - columns.min() + 1).item()
near = (difference[72:96, 72:96].sum() / difference.sum()).item()
print(f"{height} × {width} pixels changed; {near:.0%} of the change lies within the patch and its eight neighbours")
assert height == width == 72 and near > 0.85

# %% [markdown]
# That is the 72 of exercise 1: so far an index *can* reach. What arrives at the rim is next to nothing; most of the influence stays near home. Over the held-out photos we can put a number on it: how much of what the decoder paints in a patch is known from the patch's own index?

# %%
painted = torch.cat([patches(rebuilt(photo)[None]) for photo in photos.held_out.values()])
own = explained(painted, mean_by_index(painted, index_of)[index_of])
print(f"a patch's own index explains {own:.1%} of what is painted there, its neighbours the rest")
assert 0.95 < own < 0.999

# %% [markdown]
# ## Where does it stand?
#
# Now the other way: pick a codeword, and see where in a photo it occurs. The slider goes through the cat's codewords by rank, from the most used to rare ones.

# %%
cat = photos.held_out["chelsea"]
by_rank = torch.bincount(grids["chelsea"].flatten(), minlength=256).argsort(descending=True)


def places(rank):
    """The codeword of that rank in the cat's photo: its picture and its places."""
    index = by_rank[rank - 1].item()
    return plots.codeword_places(cat, grids["chelsea"], index, pictures[index])


widgets.explore(places, rank=[1, 2, 3, 5, 10, 20, 40, 80])

# %% [markdown]
# A codeword knows nothing of cats. It stands wherever a patch looks so, on fur, wall or eye. And the numbers themselves mean nothing: 17 is no closer to 18 than to 200. Shuffle the codebook's rows, rename the indices to match, and every photo stays the same:

# %%
shuffled = torch.randperm(256)
renamed = shuffled.argsort()  # where each codeword went
vectors = model.quantizer.codebook[shuffled][renamed[grids["chelsea"]]]
assert torch.equal(vectors, model.quantizer.codebook[grids["chelsea"]])

neighbours = (pictures[1:] - pictures[:-1]).square().mean().sqrt()
strangers = (pictures[torch.randperm(256)] - pictures).square().mean().sqrt()
print(f"two pictures differ by {neighbours:.3f} (rms) for neighbouring numbers, by {strangers:.3f} for any two")
assert abs(neighbours / strangers - 1) < 0.2

# %% [markdown]
# So never average indices, and never resize a grid of them as if it were an image. (k-means, like the cosine patterns, knows no order among its results.)
#
# ## What does an index tell?
#
# If you know only a patch's index, what do you know of the patch? Take a property, such as its brightness. On the *training* crops we note its mean for each index; on the *held-out* photos we guess by that table. The share of variance explained says how much the index told.


# %%
def properties(patches):
    """Five numbers that describe each patch (N, 3, 8, 8), each of shape (N,)."""
    grey = patches.mean(1)
    left, right, top, bottom = grey[..., :4], grey[..., 4:], grey[:, :4], grey[:, 4:]
    return {
        "brightness": grey.mean((1, 2)),
        "warmth: red − blue": (patches[:, 0] - patches[:, 2]).mean((1, 2)),
        "slope: right − left": (right - left).mean((1, 2)),
        "slope: bottom − top": (bottom - top).mean((1, 2)),
        "texture: pixel to pixel": grey.diff(dim=1).abs().mean((1, 2)) + grey.diff(dim=2).abs().mean((1, 2)),
    }


noted, truth = properties(patches(crops[:512])), properties(seen)
told = {name: explained(truth[name], mean_by_index(noted[name], training_indices)[index_of]) for name in truth}
plots.bars(told, label="share of the held-out variance that the index explains")

# %%
brightness, warmth, across, down, texture = told.values()
assert brightness > 0.95 and warmth > 0.7 and min(across, down) > 0.4 and max(across, down) < 0.8 and texture < 0.4

# %% [markdown]
# The index tells how bright a patch is, almost exactly; its colour well; in which direction it brightens, roughly; and next to nothing about its texture. This is no law of nature. The loss is a squared error over pixels, photos differ most in brightness, so that is where 256 words are spent. **A codeword means what the loss pays for.**
#
# ## What is an index worth?
#
# Each costs 8 bits here, the frequent and the rare alike. But "sky, again" tells you less than "a whisker". If an index has the share p of all, it deserves $-\log_2 p$ bits (Shannon 1948), its **surprise**.
#
# ### Exercise 4 · Explore · ★★★ · 8 minutes
#
# Compute it for every patch of a photo. `counts` says how often each index occurred in training. One that never did would deserve infinitely many bits; so raise all counts by 1 before you make shares of them. Then play: which of the three photos is the most surprising? Where?


# %% tags=["exercise"]
def surprise(indices, counts):
    """Bits that each index deserves: (h, w), (K,) -> (h, w)."""
    ### BEGIN SOLUTION
    share = (counts + 1) / (counts + 1).sum()
    return -share.log2()[indices]
    ### END SOLUTION


# %% [markdown] tags=["hint"]
# First a table of K numbers, one for each codeword: shares that add up to 1, then minus their logarithm to base 2. A table indexed by a tensor of indices gives a tensor of that shape.

# %%
check.surprise(surprise)

# %%
raised = torch.bincount(training_indices, minlength=256) + 1
bits = {name: (raised.sum() / raised).log2()[grid] for name, grid in grids.items()}

picture_of_bits = bits["chelsea"].repeat_interleave(8, 0).repeat_interleave(8, 1)[: cat.shape[1], : cat.shape[2]]
surprising = ((picture_of_bits - 4) / 8).clamp(0, 1).expand(3, -1, -1)
plots.photo_row(
    torch.stack([cat, rebuilt(cat), surprising]),
    ["the photo", "from its indices", f"surprise, mean {bits['chelsea'].mean():.1f} bits"],
    caption="Right, what each index deserves: black for 4 bits or fewer, white for 12 or more. Edges are dear, plain patches cheaper.",
)

# %%
mean_bits = torch.cat([b.flatten() for b in bits.values()]).mean().item()
least = torch.tensor(perplexity).log2().item()
print(f"mean surprise {mean_bits:.2f} bits; with the held-out photos' own shares it would be {least:.2f} bits")
assert least < 7 < mean_bits < 8.7

# %% [markdown]
# That is sobering. Fixed length is 8 bits, and the table from training saves next to nothing, because these photos use the words in other shares than the seven did. With their own shares, which nobody knows beforehand, it would be log2 of the perplexity.
#
# But a patch isn't drawn from an urn. How often is an index the same as the one to its left, and how often would it be by chance?

# %%
same = sum((grid[:, 1:] == grid[:, :-1]).sum().item() for grid in grids.values())
pairs = sum(grid[:, 1:].numel() for grid in grids.values())
chance = (counts / counts.sum()).square().sum().item()
print(f"the same as the one to its left: {same / pairs:.0%} of all; by chance it would be {chance:.1%}")
assert same / pairs > 4 * chance

# %% [markdown]
# Whoever knows the neighbours is less surprised. The entropy coder of notebook 07 asks them.
#
# ## Slide: the size of the codebook
#
# How many words should the language have? For the other sizes the trained network stays as it is, and only the codebook is fitted again, by k-means on the training crops' latents. (So no extra training is needed. A model trained for each size would do a little better.)

# %%
with torch.no_grad():
    latents = model.latents(crops[:256])

models = {}
for size in (4, 16, 64, 256, 1024):
    quantizer = VectorQuantizer(20, size, channel_dim=1).fit(latents).eval()
    models[size] = VQVAE(model.encoder, quantizer, model.decoder)
quality = {size: mean_psnr(lambda photo, m=m: m(photo).reconstruction) for size, m in models.items()}
print("  ".join(f"K = {size}: {psnr:.1f} dB" for size, psnr in quality.items()))


# %%
def with_size(codebook_size):
    """The cat, rebuilt with a codebook of that size, between the photo and the limit."""
    image = rebuilt(cat, models[codebook_size])
    title = f"K = {codebook_size}, {metrics.psnr(image, cat):.1f} dB\n{metrics.bits_per_pixel(codebook_size, stride=8):.3f} bits per pixel"
    with torch.no_grad():
        unquantized = bypassed(model, cat[None])[0].clamp(0, 1)
    views = torch.stack([part(view) for view in (cat, image, unquantized)])
    return plots.photo_row(views, ["the photo\n24 bits per pixel", title, "no quantizer\n "])


widgets.explore(with_size, codebook_size=list(models))

# %%
gains = torch.tensor(list(quality.values())).diff()
print("gained by two more bits:", "  ".join(f"{gain:.1f} dB" for gain in gains))
assert (gains > 0).all() and (gains[2:] < gains[:2]).all() and gains[-1] < 1 and quality[1024] < limit - 2

# %% [markdown]
# Every step makes the codebook four times as large, for two bits more a patch, and the later ones buy less. To close in on the right picture this way would take a codebook with millions of rows. Notebook 04 knows the way out: many small codebooks, one for what the other left. That is notebook 07.
#
# ## What can go wrong
#
# Six short trainings from the same weights and batches, 100 steps each, on the same photos:
#
# - **collapsed**: random codewords, moved by gradient, nobody restarts the dead;
# - **k-means start**: the same, started from k-means;
# - **EMA, restarts**: a random start, repaired while training;
# - **all repairs**: k-means start, EMA and restarts;
# - **no commitment**: all repairs, β = 0;
# - **a sum among means**: all repairs, β = 0.25, and the lopsided loss from above.
#
# Which will be worst? In notebook 03 the k-means start alone did little. Will it here?


# %%
def summed_loss(reconstruction, images):
    """Squared error, summed over an image's pixels."""
    return F.mse_loss(reconstruction, images, reduction="sum") / len(images)


PLAIN = {"codebook_update": "gradient", "dead_code_threshold": 0}
RUNS = {  # name: settings of the quantizer, whether it starts from k-means, reconstruction loss
    "collapsed": (PLAIN, False, pixel_loss),
    "k-means start": (PLAIN, True, pixel_loss),
    "EMA, restarts": ({}, False, pixel_loss),
    "all repairs": ({}, True, pixel_loss),
    "no commitment": ({"commitment_weight": 0.0}, True, pixel_loss),
    "a sum among means": ({}, True, summed_loss),
}
trials = {}
for name, (settings, kmeans_start, loss) in tqdm(RUNS.items(), desc="Training", unit="model", file=sys.stdout):
    torch.manual_seed(0)
    trial = new_model(**settings)
    if kmeans_start:
        with torch.no_grad():
            trial.quantizer.fit(trial.latents(crops[:128]))
    trials[name] = learn(trial, loss)

# %% [markdown]
# Beside quality and perplexity we measure how far the encoder's outputs are spread, and what share of their variance is lost in the lookup.


# %%
@torch.no_grad()
def report(model):
    """Quality, use of the codebook, spread of the latents and share lost in the lookup, over the held-out photos."""
    latents = torch.cat([model.latents(photo[None]).flatten(2)[0].T for photo in photos.held_out.values()])
    codebook = model.quantizer.codebook
    indices = nearest(latents, codebook)
    return {
        "PSNR": mean_psnr(lambda photo: model(photo).reconstruction),
        "perplexity": metrics.perplexity(indices, len(codebook)),
        "spread": latents.std(0).mean().item(),
        "lost": 1 - explained(latents, codebook[indices]),
    }


reports = {name: report(trial) for name, trial in trials.items()}
for name, (psnr, perplexity, spread, lost) in ((name, r.values()) for name, r in reports.items()):
    print(f"{name:18} {psnr:5.1f} dB   perplexity {perplexity:5.1f}   spread {spread:5.2f}   lost {lost:4.0%}")

# %%
titles = [f"{name}\n{r['PSNR']:.1f} dB, perplexity {r['perplexity']:.0f}" for name, r in reports.items()]
views = torch.stack([part(rebuilt(cat, trial)) for trial in trials.values()])
plots.photo_row(
    views,
    titles,
    caption="A held-out photo from six short trainings; PSNR and perplexity are those of all three held-out photos.",
)

# %% [markdown]
# - **Collapsed.** A dozen codewords or so do nearly all the work, and the picture has few tints. The network itself is sound.

# %%
collapsed, started, followed, repaired, adrift, summed = reports.values()
assert collapsed["perplexity"] < 25 and collapsed["PSNR"] < repaired["PSNR"] - 3

# %% [markdown]
# - **Repaired.** Each of the repairs brings it back. Here the k-means start alone does it too: this encoder starts from cosine patterns, which are nearly right, and hardly moves. In notebook 03 the encoder started from nothing and ran away from its codewords. What carries over isn't "k-means is useless" or "k-means suffices" but the question: how far will the vectors move?

# %%
for each in (started, followed, repaired):
    assert each["perplexity"] > 35 and each["PSNR"] > collapsed["PSNR"] + 2.5
assert 0.7 < started["spread"] / repaired["spread"] < 1.3

# %% [markdown]
# - **No commitment.** Nothing holds the encoder near its codewords. It pushes its outputs apart, the codewords follow by their slow average and never catch up: several times the spread, and a far larger share of it lost in the lookup. EMA and restarts were on; they can't repair this. And **a sum among means** is the same illness under another name, although its code says β = 0.25.

# %%
for each in (adrift, summed):
    assert each["spread"] > 2 * repaired["spread"] and each["lost"] > 2 * repaired["lost"]
    assert each["PSNR"] < repaired["PSNR"] - 1.5

# %% [markdown]
# So there are two numbers to log while training such a model: the perplexity over many batches, for collapse; and the share lost in the lookup, for an encoder adrift. The loss alone shows neither by name.
#
# ## What we saw
#
# - An encoder and a decoder of five layers each turn 8 × 8 pixels into 20 numbers and back. Between them, one index of 8 bits stands for a patch: 1/8 bit per pixel.
# - The reconstruction moves encoder and decoder, the codebook loss the codebook, the commitment loss the encoder, and nothing else.
# - Held-out photos come back at about 22.8 dB, little more than 1 dB above the untrained cosine transform with k-means, and nearly 4 dB below the same network without a quantizer.
# - Over all held-out patches more than four fifths of 256 codewords are used, with a perplexity between 60 and 120.
# - A codeword decoded alone is close to the mean of the patches that choose it. A patch's own index explains more than 95 % of what is painted there; the rest comes from its neighbours, most of it from the nearest.
# - The index tells a patch's brightness almost exactly, its slope roughly and its texture hardly at all.
# - Four times as many codewords cost 2 bits more and buy less and less, not 1 dB from 256 to 1,024.
# - Without restarts, from a random start, the perplexity stays below 25; without commitment the encoder runs away from the codewords, and EMA and restarts don't help.
#
# ## Self-test
#
# **1.** The encoder's first convolution has kernel 8 and stride 8. What would change with kernel 16 and stride 8?
#
# <details><summary>Answer</summary>
#
# The grid of latents stays as large, one for 8 × 8 pixels, but each would see 16 × 16 pixels, so neighbouring patches overlap. "The grid gets half as large" is wrong: the stride decides that. (A padding of 4 is needed to keep the grid exactly so.)
#
# </details>
#
# **2.** Codebook loss and commitment loss always have the same value. Why not keep one of them, times 1 + β?
#
# <details><summary>Answer</summary>
#
# A loss is there for its gradient. One of them moves the codeword only, the other the encoder only, because of what is detached. Without any detach, (1 + β) times the distance would move both equally hard; then the encoder is pulled to codewords that have not yet learned anything as strongly as they to it. β < 1 says that the codewords should do most of the moving.
#
# </details>
#
# **3.** A friend stores a photo's indices as a PNG, shrinks that image to half its size with bilinear interpolation, and decodes. What will the picture show?
#
# <details><summary>Answer</summary>
#
# Wild patches, wherever neighbours differ. Between codeword 10 and codeword 200 lies, by number, codeword 105, which looks like neither. "A blurred small photo" would need vectors to be averaged, not their numbers. Look up first, then interpolate the vectors. (And PNG itself is fine: it stores the numbers exactly.)
#
# </details>
#
# **4.** In the picture of all codewords no whisker and no fine fabric is seen. Would a larger network bring them out?
#
# <details><summary>Answer</summary>
#
# Hardly by itself. With 8 bits a patch, the squared error is best spent on brightness and colour; a finer texture explains little variance and would cost many words. More bits would, or a loss that pays for texture. "More training steps" runs into the same wall.
#
# </details>
#
# **5.** Your model's loss falls and its perplexity is fine, but the reconstructions are poor and the share lost in the lookup is 35 %. What do you check first?
#
# <details><summary>Answer</summary>
#
# The balance of the loss: whether the commitment term reaches the encoder with a weight that counts. Is one term a sum and another a mean? Is β on the right term? Restarts and a larger codebook don't answer it: the codewords live, but they stand where the encoder was.
#
# </details>
#
# ## Where to read on
#
# - A. van den Oord, O. Vinyals, K. Kavukcuoglu, *Neural Discrete Representation Learning* (2017), arXiv:1711.00937: the VQ-VAE; equations 1 to 3, and appendix A.1 for the EMA.
# - A. Razavi, A. van den Oord, O. Vinyals, *Generating Diverse High-Fidelity Images with VQ-VAE-2* (2019), arXiv:1906.00446: two grids of indices, coarse and fine.
# - P. Esser, R. Rombach, B. Ommer, *Taming Transformers for High-Resolution Image Synthesis* (2021), arXiv:2012.09841: a loss that pays for texture, and codewords that mean more for it.
# - N. Ahmed, T. Natarajan, K. R. Rao, *Discrete Cosine Transform* (1974), IEEE Transactions on Computers: where our encoder starts.
# - K. He et al., *Deep Residual Learning for Image Recognition* (2016), arXiv:1512.03385: the block.
#
# Next: `07_rvq_vae`. One codebook says roughly what a patch is. A second says what was left out, a third what was left then.
