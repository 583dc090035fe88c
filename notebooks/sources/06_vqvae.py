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
# **The question.** A photo goes in, a small grid of whole numbers comes out, and from those numbers alone a network paints the photo again. Each number names a codeword. What does number 137 *mean*? Can we look at it?
#
# **What it adds to the course.** So far the vectors were given. Now a network learns which vectors to make of an image, and another learns to paint from codewords: an autoencoder with a codebook in its middle, a **VQ-VAE**. Notebook 07 puts the residual quantizer into it.
#
# **You will be able to**
# - build a VQ-VAE's encoder and decoder, layer by layer, and say what shape comes out of each;
# - write its loss, and say which of its three terms moves which part of the network;
# - train it, and judge it on photos that it never saw;
# - look at a codeword: alone, in its places, and by what its index tells about a patch;
# - recognise a collapsed codebook and a lost commitment loss.
#
# **You need** notebook 02 (straight-through, codebook and commitment loss) and 03 (usage, perplexity, EMA, restarts); from PyTorch: convolutions.
#
# **Time.** It runs in {{run_time}}, most of it training. Reading takes {{reading_time}}, the four exercises 23 minutes more.

# %% tags=["measured"]
import torch
import torch.nn.functional as F
from torch import nn

from rvq_tutorial import VectorQuantizer, metrics, nearest, straight_through
from rvq_tutorial.autoencoder.models import VQVAE, Decoder, Encoder, cosine_patterns
from rvq_tutorial.autoencoder.training import fit, interruptible
from rvq_tutorial.course import check, data, measured, plots, properties, widgets

# %% [markdown]
# ## The photos
#
# As in notebook 03 we train on crops of seven photos, here of 64 × 64 pixels, from random places and scales. Three other photos are **held out**, and models are judged on them. They are cut to whole patches of 8 × 8 pixels.

# %% tags=["measured"]
crops = data.photo_crops(64, 2048, seed=0)
held_out = {
    name: photo[:, : photo.shape[1] // 8 * 8, : photo.shape[2] // 8 * 8]
    for name, photo in data.photos().held_out.items()
}

# %%
print(f"{len(crops):,} crops of shape {tuple(crops.shape[1:])}; held out: {', '.join(held_out)}")

# %% [markdown]
# ## The encoder, layer by layer
#
# In notebook 03 an encoder was one matrix. Now it is a stack of convolutions. The first cuts the image into patches of 8 × 8 pixels and takes 64 numbers of each, its **features**: a kernel as wide as its stride never looks at a pixel twice.
#
# Its 64 kernels start from the **cosine transform** (Ahmed et al. 1974), which is also in JPEG. The transform's 192 patterns of 8 × 8 pixels in three colours are **orthonormal**: each has length 1, and the product of two, summed over all pixels, is 0. As a patch has 192 numbers too, it is the sum of all patterns, each times the number that its kernel computes. We take the coarsest 64.

# %%
patterns = cosine_patterns(channels=3, size=8)[:64]
from_patches = nn.Conv2d(3, 64, kernel_size=8, stride=8, bias=False)
from_patches.weight.data = patterns

plots.patch_rows(
    {f"{row + 1}–{row + 16}": 0.5 + 2 * patterns[row : row + 16] for row in (0, 16, 32, 48)},
    caption="From coarse to fine: level brightness first, then slopes and ripples, and among them a few of colour.",
)

# %% tags=["claim"]
assert torch.allclose(patterns.flatten(1) @ patterns.flatten(1).T, torch.eye(64), atol=1e-5)
assert len(cosine_patterns(channels=3, size=8)) == 192

# %% [markdown]
# Next come **residual blocks** (He et al. 2016). Each adds to the features what two convolutions make of them. The 3 × 3 convolution looks at neighbouring patches, the 1 × 1 mixes the 64 features. The last layer starts at zero, so at first a block changes nothing: it can learn only what helps.


# %%
class Block(nn.Module):
    """x plus what two convolutions make of it: (B, 64, h, w) -> the same."""

    def __init__(self):
        super().__init__()
        last = nn.Conv2d(64, 64, kernel_size=1)
        self.layers = nn.Sequential(nn.ReLU(), nn.Conv2d(64, 64, kernel_size=3, padding=1), nn.ReLU(), last)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)

    def forward(self, x):
        return x + self.layers(x)


# %% [markdown]
# Last, a 1 × 1 convolution leaves 20 of the 64 features: the **latent** vector that will be quantized. It starts by keeping the first 20 as they are. (Pixels go from [0, 1] to [−1, 1] first, so that mid-grey is 0.)

# %%
to_latents = nn.Conv2d(64, 20, kernel_size=1, bias=False)
nn.init.dirac_(to_latents.weight)  # a copy of the first 20
encoder = nn.Sequential(from_patches, Block(), Block(), Block(), to_latents)

x = 2 * crops[:1] - 1
for layer in encoder:
    x = layer(x)
    print(f"→ {type(layer).__name__:10}{tuple(x.shape)}")

# %% [markdown]
# 12,288 numbers became 1,280, that is 20 for each patch.
#
# ## The decoder, in the mirror
#
# The decoder runs the other way: from 20 numbers to 64 features, three blocks, and a **transposed convolution** that lays down 64 patterns of 8 × 8 pixels, each times its feature, and adds them up. Its first convolution is 3 × 3, so that it too can look at neighbours. At first it undoes the encoder, as far as 20 numbers allow.

# %%
from_latents = nn.Conv2d(20, 64, kernel_size=3, padding=1, bias=False)
to_patches = nn.ConvTranspose2d(64, 3, kernel_size=8, stride=8, bias=False)
nn.init.dirac_(from_latents.weight)
to_patches.weight.data = patterns.clone()  # its own copy: encoder and decoder learn apart
decoder = nn.Sequential(from_latents, Block(), Block(), Block(), to_patches)

y = (decoder(encoder(2 * crops[:16] - 1)) + 1) / 2
assert torch.allclose(y, Decoder(dim=20)(Encoder(dim=20)(crops[:16])), atol=1e-5)

# %% [markdown]
# As the last line says, the package's `Encoder` and `Decoder` are these two stacks, with the change of range inside. `VQVAE` puts a quantizer between the two; its `bypass` leaves the quantizer out.
#
# The quantizer is notebook 02's `VectorQuantizer`, with K = 256 codewords of 20 numbers that start from k-means (notebook 03). `channel_dim=1` says that a vector lies along the second axis.


# %% tags=["measured"]
@torch.no_grad()
def new_model(kmeans_start=True, **settings):
    """A VQ-VAE with 256 codewords, its network untrained."""
    model = VQVAE(Encoder(dim=20), VectorQuantizer(20, 256, channel_dim=1, **settings), Decoder(dim=20))
    if kmeans_start:
        model.quantizer.fit(model.latents(crops[:128]))
    return model.eval()


@torch.no_grad()
def mean_psnr(rebuild):
    """Mean PSNR, in dB, of a function from a photo (1, 3, H, W) to its copy."""
    return sum(metrics.psnr(rebuild(photo[None]).clamp(0, 1), photo[None]) for photo in held_out.values()) / 3


# %%
torch.manual_seed(0)
untrained = new_model()
print(f"encoder and decoder, untrained:  {mean_psnr(untrained.bypass):.1f} dB")
at_start = mean_psnr(lambda photo: untrained(photo).reconstruction)
print(f"and with the quantizer between:  {at_start:.1f} dB")
print(f"indices of a crop {tuple(crops[:1].shape)}:\n{untrained.encode(crops[:1])[0]}")


# %% tags=["claim"]
def _shapes(module):
    return [tuple(weight.shape) for weight in module.parameters()]


assert _shapes(encoder) == _shapes(Encoder(dim=20)) and _shapes(decoder) == _shapes(Decoder(dim=20))
assert abs(mean_psnr(untrained.bypass) - 26.7) < 0.5
assert untrained.encode(crops[:1]).shape == (1, 8, 8) and metrics.bits_per_pixel(256, stride=8) == 1 / 8

# %% [markdown]
# Without a step of training and without a quantizer the copy is fair: it keeps the coarsest 20 of the 192 numbers. With the quantizer an image becomes a grid of indices, one byte for every 8 × 8 pixels. That is 1/8 bit per pixel, 192 times less than the image as it is.
#
# ### Exercise 1 · Predict · ★☆☆ · 4 minutes
#
# Once trained, the decoder looks at neighbours. Suppose that one index in the middle of a large grid is changed. What is the side, in pixels, of the square that may change in the image? Count: one 3 × 3 convolution, then `num_blocks` blocks with a 3 × 3 and a 1 × 1 convolution each; then every place becomes `stride` × `stride` pixels. After training it is measured, for doubters.


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
# ## The loss, term by term
#
# Van den Oord et al. (2017) call the image x, the encoder's output $z_e(x)$ and what replaces it, the codeword $e$, also $z_q(x)$. Their equation 3, with the sign that makes its first term a loss:
#
# $$L = -\log p\,(x \mid z_q(x)) \;+\; \lVert \mathrm{sg}[z_e(x)] - e \rVert^2 \;+\; \beta\, \lVert z_e(x) - \mathrm{sg}[e] \rVert^2$$
#
# **Reconstruction.** How unlikely is the image, given what the decoder paints? Say that each pixel is what is painted plus Gaussian noise of a fixed size. Minus the logarithm of a Gaussian is the squared error, up to constants, summed over the pixels. Of all three terms we take means instead of sums, and divide this one by the variance of all training pixels: 1 means no better than one grey everywhere.
#
# **Codebook** and **commitment** are the two losses of notebook 02. One pulls each chosen codeword to the encoder's outputs, the other the encoder's outputs to their codewords, weighed by β, usually 0.25. `sg` (stop-gradient), in code `detach`, holds the other side still meanwhile.

# %% tags=["measured"]
variance = crops.var()


def pixel_loss(reconstruction, images):
    """Mean squared error in units of the training pixels' variance."""
    return F.mse_loss(reconstruction, images) / variance


# %%
torch.manual_seed(0)
learner = new_model(codebook_update="gradient")  # the codewords are weights, which the codebook loss moves
images, codebook = crops[:16], learner.quantizer.codebook
z_e = learner.encoder(images)
z_q = codebook[nearest(z_e.movedim(1, -1), codebook)].movedim(-1, 1)

terms = {
    "reconstruction": pixel_loss(learner.decoder(straight_through(z_e, z_q)), images),
    "codebook": F.mse_loss(z_q, z_e.detach()),
    "commitment": F.mse_loss(z_e, z_q.detach()),
}
print({name: round(term.item(), 3) for name, term in terms.items()})

output = learner(images)  # the package's loss is the same
by_hand = terms["reconstruction"] + terms["codebook"] + 0.25 * terms["commitment"]
assert torch.allclose(by_hand, pixel_loss(output.reconstruction, images) + output.loss, rtol=1e-4)

# %% [markdown]
# Codebook loss and commitment loss have the same value; their gradients go to different places. In the drawing, as in notebook 02, x is the encoder's output and x̂ the codeword:

# %%
plots.loss_graph()

# %% [markdown]
# The reconstruction moves the decoder and, straight through the lookup, the encoder, but never the codebook. From here on the codewords follow by EMA (notebook 03), and the codebook loss drops out, as in the paper's appendix A.1.

# %% [markdown] tags=["doubters"]
# ### Which term moves which part, asked of autograd
#
# The length of every gradient, for each term and each part; where there is none, 0.

# %% tags=["doubters"]
parts = {"encoder": learner.encoder, "codebook": learner.quantizer, "decoder": learner.decoder}
print(" " * 15 + "".join(f"{part:>10}" for part in parts))
reached = {}
for term in terms:
    for part, module in parts.items():
        weights = list(module.parameters())
        found = torch.autograd.grad(terms[term], weights, retain_graph=True, allow_unused=True, materialize_grads=True)
        reached[term, part] = sum(gradient.square().sum().item() for gradient in found) ** 0.5
    print(f"{term:15}" + "".join(f"{reached[term, part]:10.3f}" for part in parts))

# %% tags=["claim"]
_moved = {key for key, _length in reached.items() if _length > 0}
assert _moved == {
    ("reconstruction", "encoder"),
    ("reconstruction", "decoder"),
    ("codebook", "codebook"),
    ("commitment", "encoder"),
}

# %% [markdown]
# ### What is wrong here? · A sum among means
#
# This loss has β = 0.25, and all its detaches are right. What happens to the balance of its terms when the crops grow from 32 to 128 pixels?


# %% tags=["predict"]
def lopsided_loss(images, reconstruction, z_e, z_q, beta=0.25):
    """Equation 3, or is it?"""
    rebuilt = F.mse_loss(reconstruction, images, reduction="sum") / len(images)
    return rebuilt + F.mse_loss(z_q, z_e.detach()) + beta * F.mse_loss(z_e, z_q.detach())


# %% [markdown]
# The first term is a sum over the pixels of an image, and the others are means. Sixteen times the pixels give it sixteen times the weight. On crops of 64 pixels it weighs thousands of times as much as the commitment loss, which then counts as little as with β near 0. Such a model trains without complaint. We will see what it looks like.
#
# ### Exercise 2 · Repair · ★★☆ · 6 minutes
#
# Mend it: equation 3's terms as three means, the first divided by `variance`.


# %% tags=["exercise"]
def balanced_loss(images, reconstruction, z_e, z_q, variance, beta):
    """Equation 3 in means: images and reconstruction of one shape, z_e and z_q of another, two numbers -> a scalar."""
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

# %% tags=["claim"]
_ratios = {}
for _size in (32, 64, 128):
    _views = data.photo_crops(_size, 16, seed=1)
    with torch.no_grad():
        _z_e, _output = untrained.latents(_views), untrained(_views)
        _z_q = untrained.quantizer.decode(_output.indices)
        _rebuilt = lopsided_loss(_views, _output.reconstruction, _z_e, _z_e)  # the other terms are zero
        _ratios[_size] = (_rebuilt / (0.25 * F.mse_loss(_z_e, _z_q))).item()
print(_ratios)
assert _ratios[64] > 1000 and 8 < _ratios[128] / _ratios[32] < 32

# %% [markdown]
# ## Training


# %% tags=["measured"]
def learn(model, reconstruction_loss=pixel_loss, steps=100, seed=0, on_step=lambda step: None):
    """Train a model on random batches of 16 crops -> the model, in eval mode."""
    torch.manual_seed(seed)
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
    for step in interruptible(range(1, steps + 1)):
        images = crops[torch.randint(len(crops), (16,))]
        output = model.train()(images)
        loss = reconstruction_loss(output.reconstruction, images) + output.loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        on_step(step)
    return model.eval()


# %% [markdown]
# `interruptible` lets you stop it at any step. The package's `fit` is this loop with a k-means start of its own, a learning rate that rises and then falls, a progress bar and a history. We use `fit` now.

# %%
torch.manual_seed(0)
model = new_model()
with widgets.live_curve("psnr", ylabel="PSNR of the batch, dB", smooth=30) as draw:
    history = fit(model, crops, steps=300, seed=0, on_step=draw)

# %%
here = ..., slice(56, 216), slice(144, 304)  # photo[here] is a square of it, 160 × 160 pixels, to look at closely
with torch.no_grad():
    rebuilt = {name: model(photo[None]).reconstruction[0].clamp(0, 1) for name, photo in held_out.items()}

plots.photo_row(
    torch.stack([photo[here] for photo in [*held_out.values(), *rebuilt.values()]]),
    [*held_out, *(f"rebuilt, {metrics.psnr(rebuilt[name], photo):.1f} dB" for name, photo in held_out.items())],
    caption="Above, 24 bits per pixel; below, 0.125. The edges follow the patches of 8 × 8 pixels, and the fur is gone.",
)

# %%
limit, trained = mean_psnr(model.bypass), mean_psnr(lambda photo: model(photo).reconstruction)
print(f"before training {at_start:.2f} dB, after it {trained:.2f} dB, without quantizer {limit:.2f} dB")


# %% [markdown]
# Be sober: cosine patterns and k-means alone, without a step of training, come within one and a half decibels of that. What training adds shows most at the seams between patches. Divide the mean step from pixel to pixel across the seams by the mean step within patches: in a photo that is 1, in what was painted before training more than 5, and now less than 3. The decoder has learned to look at neighbours. And more than three decibels separate the result from the same network without a quantizer: 256 kinds of patch are few.

# %% [markdown] tags=["doubters"]
# ### How deep the seams are


# %% tags=["doubters"]
@torch.no_grad()
def seams(rebuild):
    """Step across patch borders over step within patches, mean over the held-out photos; 1 means no seams."""
    ratios = []
    for photo in held_out.values():
        step = rebuild(photo[None])[0].diff(dim=2).abs().mean((0, 1))
        border = torch.arange(len(step)) % 8 == 7
        ratios.append((step[border].mean() / step[~border].mean()).item())
    return sum(ratios) / 3


print(f"the photos {seams(lambda photo: photo):.2f}")
print(f"before training {seams(lambda photo: untrained(photo).reconstruction):.2f}")
print(f"after training {seams(lambda photo: model(photo).reconstruction):.2f}")

# %% tags=["claim"]
_before, _after = (seams(lambda photo, m=m: m(photo).reconstruction) for m in (untrained, model))
assert abs(trained - 22.8) < 0.5 and 1 < trained - at_start < 1.5 and 3 < limit - trained < 4.5
assert _after < 3 and _before > 5 and abs(seams(lambda photo: photo) - 1) < 0.05

# %% [markdown] tags=["doubters"]
# ### `fit` minimizes the same loss
#
# One step of `fit`, and the same step by hand: its k-means start on 128 random crops, its batch, its loss.

# %% tags=["doubters"]
torch.manual_seed(0)
single = VQVAE(Encoder(dim=20), VectorQuantizer(20, 256, channel_dim=1), Decoder(dim=20))
first = fit(single, crops, steps=1, seed=0, device="cpu")["loss"][0]  # a GPU would draw another batch

torch.manual_seed(0)
again = VQVAE(Encoder(dim=20), VectorQuantizer(20, 256, channel_dim=1), Decoder(dim=20))
torch.manual_seed(0)
with torch.no_grad():
    again.quantizer.fit(again.latents(crops[torch.randint(len(crops), (128,))]))
    batch = crops[torch.randint(len(crops), (16,))]
    result = again.train()(batch)
    print(
        f"loss of fit's first step: {first:.4f}, by hand: {pixel_loss(result.reconstruction, batch) + result.loss:.4f}"
    )
assert abs(first - (pixel_loss(result.reconstruction, batch) + result.loss)) < 1e-3

# %% [markdown]
# ## How many codewords are in use?
#
# Over **all** held-out patches:


# %% tags=["measured"]
@torch.no_grad()
def indices_of(model):
    """The index of every held-out patch, photo after photo, row by row: (N,)."""
    return torch.cat([model.encode(photo[None]).flatten() for photo in held_out.values()])


# %%
indices = indices_of(model)
counts = torch.bincount(indices, minlength=256)
print(
    f"{len(indices):,} patches: usage {metrics.usage(indices, 256):.0%}, perplexity {metrics.perplexity(indices, 256):.0f}"
)

# %% tags=["claim"]
_perplexity = metrics.perplexity(indices, 256)
assert metrics.usage(indices, 256) > 0.8 and 60 < _perplexity < 120

# %% [markdown]
# No collapse: most codewords occur in photos that had no say in choosing them. The use is uneven, though.
#
# ## What does a codeword look like?
#
# Given a grid of one single index, the decoder paints that codeword.
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

# %%
with torch.no_grad():
    pictures = model.decode(torch.arange(256).view(256, 1, 1)).clamp(0, 1)
by_use = counts.argsort(descending=True)
plots.patch_rows(
    {f"{row + 1}–{row + 16}": pictures[by_use[row : row + 16]] for row in range(0, 256, 16)},
    caption="All 256 codewords, each decoded alone, most used first: plain tints, then slopes, edges and corners.",
)

# %% [markdown]
# They look like patches of photos, but for rims that fade to grey: around a single index there is nothing, and the decoder takes nothing for grey.
#
# Is a codeword the mean of the patches that choose it? We take that mean over the held-out photos.

# %% tags=["measured"]
seen = torch.cat([data.patches(photo[None], 8) for photo in held_out.values()])  # (N, 3, 8, 8)


def mean_by_index(values, indices):
    """Mean of the values (N, D) that have each index: (256, D); zeros where there are none."""
    sums = torch.zeros(256, values.shape[1]).index_add(0, indices, values)
    return sums / torch.bincount(indices, minlength=256).clamp(min=1)[:, None]


# %% [markdown]
# Below are 16 codewords in three rows: decoded alone; in the middle of a grid of 9 × 9 times the same index, so that there is no grey nearby; and the mean of the patches that have its index.

# %%
with torch.no_grad():
    among = model.decode(torch.arange(256).view(256, 1, 1).expand(256, 9, 9))[..., 32:40, 32:40].clamp(0, 1)
means = mean_by_index(seen.flatten(1), indices).view(256, 3, 8, 8)
some = by_use[:128:8]
close = properties.explained_variance(means[indices], among[indices])
plots.patch_rows(
    {"alone": pictures[some], "among its like": among[some], "mean of patches": means[some]},
    caption=f"Below, what a codeword stands for. As a guess, the row above errs by {1 - close:.1%} of the means' variance.",
)

# %% tags=["claim"]
_alone = properties.explained_variance(means[indices], pictures[indices])
assert 0.85 < _alone < close and close > 0.95

# %% [markdown]
# **A codeword means: patches like these.** Guess each mean by the codeword among its like: the squared error is less than 5 % of the means' variance. We say that the guess **explains** more than 95 %.
#
# ### What the neighbours add
#
# The grey rims show that the decoder looks at neighbours. How much of a painted patch is known from its own index?

# %%
painted = torch.cat([data.patches(photo[None], 8) for photo in rebuilt.values()])
own = []
for values in painted.flatten(1), (painted - painted.mean((2, 3), keepdim=True)).flatten(1):
    own.append(properties.explained_variance(values, mean_by_index(values, indices)[indices]))
print(
    f"a patch's own index explains {own[0]:.1%} of what is painted, and {own[1]:.0%} without each patch's mean colour"
)

# %% [markdown]
# The mean colour is the codeword's own. Of the detail within the patch about a fifth comes from around it: the neighbours smooth its rims.

# %% [markdown] tags=["doubters"]
# ### How far one index reaches
#
# We change the middle index in a grid of 21 × 21, and look at which pixels move: 72 × 72 of them, as exercise 1 says. But nearly all of the change lies in the patch and its eight neighbours. (The decoder runs in double precision, or the faintest changes would drown in rounding.)

# %% tags=["doubters"]
grids = by_use[0].repeat(2, 21, 21)
grids[1, 10, 10] = by_use[1]
painter = Decoder(dim=20).double()
painter.load_state_dict(model.decoder.state_dict())
with torch.no_grad():
    before, after = painter(model.quantizer.decode(grids).double())
moved = (after - before).abs().sum(0)
print(f"{(moved.sum(1) > 1e-9).sum()} × {(moved.sum(0) > 1e-9).sum()} pixels changed")
print(f"{moved[72:96, 72:96].sum() / moved.sum():.0%} of the change lies in the patch and its eight neighbours")

# %% tags=["claim"]
assert 0.95 < own[0] < 0.999 and 0.68 < own[1] < 0.85
assert (moved.sum(1) > 1e-9).sum() == (moved.sum(0) > 1e-9).sum() == 72
assert moved[72:96, 72:96].sum() / moved.sum() > 0.85

# %% [markdown]
# ## Where does it stand?
#
# The slider goes through the cat's codewords, from the most used to rare ones: where does each occur?

# %%
cat = held_out["chelsea"]
with torch.no_grad():
    grid = model.encode(cat[None])[0]
by_rank = torch.bincount(grid.flatten(), minlength=256).argsort(descending=True).tolist()


def places(rank):
    """The codeword of that rank in the cat's photo: its picture and its places."""
    return plots.codeword_places(cat, grid, by_rank[rank - 1], pictures[by_rank[rank - 1]])


widgets.explore(places, rank=[1, 2, 3, 5, 10, 20, 40, 80])

# %% [markdown]
# A codeword knows nothing of cats. It stands wherever a patch looks so, on fur, wall or eye. And the numbers themselves mean nothing: 17 is no closer to 18 than to 200. Shuffle the codebook's rows, rename the indices to match, and every photo stays the same. So never average indices, and never resize their grid like an image.

# %% tags=["claim"]
_shuffled = torch.randperm(256, generator=torch.Generator().manual_seed(0))
_renamed = _shuffled.argsort()  # where each codeword went
assert torch.equal(model.quantizer.codebook[_shuffled][_renamed[grid]], model.quantizer.codebook[grid])
_neighbours = (pictures[1:] - pictures[:-1]).square().mean().sqrt()
_strangers = (pictures[_shuffled] - pictures).square().mean().sqrt()
assert abs(_neighbours / _strangers - 1) < 0.2

# %% [markdown]
# ## What does an index tell?
#
# If you know only a patch's index, what do you know of the patch? `patch_properties` gives five numbers of each patch: brightness, red minus blue, right half minus left, lower half minus upper, and, as texture, the mean step from pixel to pixel. For each index we note their means on every other held-out patch; on the rest we guess by that table. What the guess explains, the index told.


# %% tags=["measured"]
def told(model):
    """Share of each property's variance that the index explains: noted on every other patch, tried on the rest."""
    indices, noted = indices_of(model), torch.arange(len(seen)) % 2 == 0
    shares = {}
    for name, values in properties.patch_properties(seen).items():
        table = mean_by_index(values[noted], indices[noted])
        shares[name] = properties.explained_variance(values[~noted], table[indices[~noted]])
    return shares


# %%
plots.bars(told(model), label="share of the variance that the index explains")

# %% tags=["claim"]
_brightness, _warmth, _across, _down, _texture = told(model).values()
print(_brightness, _warmth, _across, _down, _texture)
assert _brightness > 0.95 and 0.85 < _warmth < 0.95 and min(_across, _down, _texture) > 0.4
assert max(_across, _down) < 0.75 and _texture < 0.55
_crops, _there = data.patches(crops[:512], 8), model.encode(crops[:512]).flatten()
for _name, _low, _high in (("brightness", 0.9, 1), ("texture: pixel to pixel", 0, 0.3)):
    _values = properties.patch_properties(seen)[_name]
    _noted = mean_by_index(properties.patch_properties(_crops)[_name], _there)
    _share = properties.explained_variance(_values, _noted[indices])
    print(_name, _share)
    assert _low < _share < _high
_warmth_by_crops = mean_by_index(properties.patch_properties(_crops)["warmth: red − blue"], _there)[indices]
_lengths = [photo[0].numel() // 64 for photo in held_out.values()]
_by_photo = zip(
    properties.patch_properties(seen)["warmth: red − blue"].split(_lengths),
    _warmth_by_crops.split(_lengths),
    strict=True,
)
_within = [properties.explained_variance(_values, _guess) for _values, _guess in _by_photo]
print(_within)
assert min(_within) > 0.3 and max(_within) < 0.85 and 0.4 < sum(_within) / 3 < 0.7

# %% [markdown]
# The index tells how bright a patch is, almost exactly, and how warm its colour is, nearly as well. Of the slopes it tells half or more, of the texture about half. (The table matters. Noted on the training crops, it tells brightness equally well, but less of warmth and of texture.)
#
# ## Would another loss give other words?
#
# It is tempting to say: a codeword means what the loss pays for. Photos differ most in brightness, a squared error over pixels pays for that, so that is where 256 words are spent. But has the *loss* done it? Another one can tell. It pays for **detail** alone: it takes the mean colour of each patch off, before it compares image and reconstruction. What will the index tell then?


# %% tags=["measured"]
def detail(images):
    """What is left of images (B, 3, H, W) when the mean colour of each patch is taken off."""
    return images - F.interpolate(F.avg_pool2d(images, 8), scale_factor=8)


detail_variance = detail(crops).var()


def detail_loss(reconstruction, images):
    """Mean squared error of the detail, in units of its variance."""
    return F.mse_loss(detail(reconstruction), detail(images)) / detail_variance


# %%
meaning = measured.read("meaning")
print(meaning)
plots.over_steps(
    meaning.settings["checkpoints"],
    {
        name.replace(": ", ":\n"): {loss: list(of[name].values()) for loss, of in meaning.results.items()}
        for name in meaning.results["pixels"]
    },
    ylabel="share explained",
    limits=(0, 1),
)


# %% tags=["claim"]
def _told_at(loss, name, step):
    """The share explained at a step, one number a seed."""
    at = meaning.settings["checkpoints"].index(step)
    return torch.tensor([of[at] for of in meaning.results[loss][name].values()])


_names = list(meaning.results["pixels"])
for _name in _names:
    for _step in (300, 600):
        assert (_told_at("pixels", _name, _step) - _told_at("pixels", _name, 0)).mean().abs() < 0.06, _name
for _step in (100, 300, 600):
    _less = [_told_at("pixels", name, _step) - _told_at("detail", name, _step) for name in _names]
    assert (_less[0] > 0.03).all() and (_less[1] > 0.05).all(), _step
    assert (_less[2] < -0.05).all() and (_less[3] < -0.08).all(), _step
assert 0.6 < _told_at("detail", _names[1], 600).mean() < 0.7 and 0.7 < _told_at("detail", _names[2], 600).mean() < 0.78
assert 0.85 < _told_at("detail", _names[0], 600).mean() < 0.9
assert (_told_at("detail", _names[4], 600) - _told_at("pixels", _names[4], 600)).mean().abs() < 0.03

# %% [markdown]
# **The loss over pixels changes little.** At step 0, before any training, the index tells nearly the same. Orthonormal patterns keep distances: k-means on the untrained latents is k-means on the pixels' coarse content, and that is what a squared error over pixels asks for anyway.
#
# **The loss on detail moves words**, for every seed. Of the slopes, which it pays for, the index tells about three quarters. Of warmth, which it doesn't pay for, it tells two thirds instead of nine tenths. But brightness is worth nothing to this loss, and after 600 steps the index still tells most of it. And texture is no better told than before.
#
# So a codeword means what the latents differ in. The start lays that down, and the loss moves only part of it.

# %% [markdown] tags=["doubters"]
# ### The codebook sees the latents, and nothing else
#
# Take the untrained model. Make the two latents that hold a patch's mean brightness and a mean colour ten times smaller in the encoder, and ten times larger in the decoder: without a quantizer nothing has changed, and no loss is involved. But k-means and the lookup now find that patches hardly differ in brightness, and spend their words elsewhere.

# %% tags=["doubters"]
level = cosine_patterns(channels=3, size=8)[:20].std((2, 3)).amax(1) < 1e-6  # patterns without any slope
factor = torch.where(level, 0.1, 1.0).view(20, 1, 1, 1)
torch.manual_seed(0)
quieter = new_model(kmeans_start=False)
quieter.encoder.to_latents.weight.data *= factor
quieter.decoder.from_latents.weight.data /= factor.movedim(0, 1)
with torch.no_grad():
    quieter.quantizer.fit(quieter.latents(crops[:128]))
for name, share in told(quieter.eval()).items():
    print(f"{name:24} {told(untrained)[name]:.2f} → {share:.2f}")

# %% tags=["claim"]
_loud, _quiet = (list(told(m).values()) for m in (untrained, quieter))
assert level.sum() == 2 and abs(mean_psnr(quieter.bypass) - mean_psnr(untrained.bypass)) < 0.01
assert (
    _quiet[0] < _loud[0] - 0.1 and _quiet[1] < _loud[1] - 0.2 and min(_quiet[2] - _loud[2], _quiet[3] - _loud[3]) > 0.1
)

# %% [markdown]
# ## What is an index worth?
#
# Each costs 8 bits here, the frequent and the rare alike. But "sky, again" tells you less than "a whisker". If an index has the share p of all, it deserves $-\log_2 p$ bits (Shannon 1948), its **surprise**.
#
# ### Exercise 4 · Explore · ★★★ · 8 minutes
#
# Compute it for every patch of a photo. `counts` says how often each index occurred in training. One that never did would deserve infinitely many bits; so raise all counts by 1 before you make shares of them. Then play with `surprise(model.encode(photo[None])[0], counts_in_training)`: which of the three photos in `held_out` is the most surprising? Where?

# %%
with torch.no_grad():
    in_training = model.encode(crops[:512]).flatten()
counts_in_training = torch.bincount(in_training, minlength=256)


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
raised = counts_in_training + 1
bits = (raised.sum() / raised).log2()  # for each codeword
map_of_bits = ((bits[grid] - 4) / 8).repeat_interleave(8, 0).repeat_interleave(8, 1).expand(3, -1, -1)
plots.photo_row(
    torch.stack([view[here] for view in (cat, rebuilt["chelsea"], map_of_bits)]),
    ["the photo", "from its indices", f"surprise, mean {bits[grid].mean():.1f} bits"],
    caption="Right, what each index deserves: black for 4 bits or fewer, white for 12 or more.",
)

# %%
same = (grid[:, 1:] == grid[:, :-1]).float().mean()
chance = (torch.bincount(grid.flatten()) / grid.numel()).square().sum()
print(
    f"mean surprise: {bits[in_training].mean():.1f} bits in training, {bits[indices].mean():.1f} in the held-out photos"
)
print(f"the cat's indices equal their left neighbour at {same:.0%} of all places; by chance it would be {chance:.1%}")

# %% tags=["claim"]
_left = [model.encode(photo[None])[0] for photo in held_out.values()]
for _grid in _left:
    _same = (_grid[:, 1:] == _grid[:, :-1]).float().mean()
    _chance = (torch.bincount(_grid.flatten()) / _grid.numel()).square().sum()
    print(f"{_same:.1%} by chance {_chance:.1%}")
    assert _same > 3 * _chance
assert 7.5 < bits[indices].mean() < 8.3 and bits[in_training].mean() < bits[indices].mean() - 0.4
assert metrics.perplexity(indices, 256) < 2**7  # with shares of their own these photos would take fewer bits

# %% [markdown]
# The table from training saves next to nothing of the 8 bits, because these photos use the words in other shares than the seven did. But a patch isn't drawn from an urn: whoever knows its neighbours is less surprised. The codec of notebook 07 asks them.
#
# ## Slide: the size of the codebook
#
# For other sizes the trained network stays as it is, and only the codebook is fitted again, by k-means on the training crops' latents.

# %%
models = {}
for size in (4, 16, 64, 256, 1024):
    torch.manual_seed(0)
    with torch.no_grad():
        quantizer = VectorQuantizer(20, size, channel_dim=1).fit(model.latents(crops[:256])).eval()
    models[size] = VQVAE(model.encoder, quantizer, model.decoder)
quality = {size: mean_psnr(lambda photo, m=m: m(photo).reconstruction) for size, m in models.items()}
print("   ".join(f"K = {size}: {psnr:.1f} dB" for size, psnr in quality.items()))


# %%
def with_size(codebook_size):
    """The cat, rebuilt with a codebook of that size, between the photo and the limit."""
    with torch.no_grad():
        views = cat, models[codebook_size](cat[None]).reconstruction[0], model.bypass(cat[None])[0]
    rate = metrics.bits_per_pixel(codebook_size, stride=8)
    titles = ["the photo\n ", f"K = {codebook_size}\n{rate:.3f} bits per pixel", "no quantizer\n "]
    caption = (
        "Look at the eye: more codewords give it its rim and its glint, but its green comes only without a quantizer."
    )
    return plots.photo_row(torch.stack([view[here] for view in views]), titles, caption=caption)


widgets.explore(with_size, codebook_size=list(models))

# %% tags=["claim"]
_gains = torch.tensor(list(quality.values())).diff()
print(_gains)
assert (_gains > 0).all() and (_gains[2:] < _gains[:2]).all() and 0.35 < _gains[-1] < 0.65
assert limit - quality[1024] > 3 and (limit - quality[1024]) / _gains[-1] > 5  # so six steps, or more

# %% [markdown]
# Every step makes the codebook four times as large, for two bits more a patch, and the later ones buy less. At K = 1024 over 3 dB are still missing, at half a decibel a step at least six steps more: millions of rows. Notebook 04 knows the way out: many small codebooks.
#
# ## What can go wrong
#
# Five ways of training the same network from the same seed:
#
# - **collapsed**: random codewords, moved by gradient, and nobody restarts the dead;
# - **k-means start alone**: the same but for the start;
# - **all repairs**: k-means start, EMA and restarts;
# - **no commitment**: all repairs, but β = 0;
# - **a sum among means**: all repairs and β = 0.25, but the lopsided loss from above.
#
# What will the pictures show?


# %% tags=["measured"]
def summed_loss(reconstruction, images):
    """The first term of the lopsided loss."""
    return F.mse_loss(reconstruction, images, reduction="sum") / len(images)


WAYS = {  # settings of the model, reconstruction loss
    "collapsed": ({"codebook_update": "gradient", "dead_code_threshold": 0, "kmeans_start": False}, pixel_loss),
    "k-means start alone": ({"codebook_update": "gradient", "dead_code_threshold": 0}, pixel_loss),
    "all repairs": ({}, pixel_loss),
    "no commitment": ({"commitment_weight": 0.0}, pixel_loss),
    "a sum among means": ({}, summed_loss),
}

# %%
trials = {}
for way, (settings, reconstruction_loss) in WAYS.items():
    torch.manual_seed(0)
    trials[way] = learn(new_model(**settings), reconstruction_loss, steps=100)

with torch.no_grad():
    views = torch.stack([trial(cat[None]).reconstruction[0][here] for trial in trials.values()])
plots.photo_row(views, list(trials), caption="A held-out photo after 100 steps of training each.")

# %% [markdown]
# The three failures look alike, blotched and wrong in colour. For the cause we measure what share of the latents' variance is lost in the lookup, the perplexity, and the latents' spread: their standard deviation.

# %% [markdown] tags=["doubters"]
# ### What is measured in each of these trainings


# %% tags=["doubters", "measured"]
@torch.no_grad()
def report(model):
    """Quality, use of the codebook, spread of the latents and share lost in the lookup, on the held-out photos."""
    latents = torch.cat([model.latents(photo[None]).flatten(2)[0].T for photo in held_out.values()])
    indices = indices_of(model)
    return {
        "PSNR": mean_psnr(lambda photo: model(photo).reconstruction),
        "perplexity": metrics.perplexity(indices, 256),
        "spread": latents.std(0).mean().item(),
        "lost": 1 - properties.explained_variance(latents, model.quantizer.codebook[indices]),
    }


# %%
failures = measured.read("failures")
print(failures)
plots.over_steps(
    failures.settings["checkpoints"],
    {
        title: {way: list(failures.results[way][name].values()) for way in WAYS}
        for title, name in {"share lost in the lookup": "lost", "perplexity": "perplexity", "spread": "spread"}.items()
    },
)


# %% tags=["claim"]
def _at(way, measure, step):
    """The measure at a step of training, one number a seed."""
    at = failures.settings["checkpoints"].index(step)
    return torch.tensor([of[at] for of in failures.results[way][measure].values()])


for _step in (100, 200, 300, 400):
    _repaired, _spread = _at("all repairs", "PSNR", _step), _at("all repairs", "spread", _step)
    for _way in ("collapsed", "no commitment", "a sum among means"):
        assert (_at(_way, "lost", _step) > 2.5 * _at("all repairs", "lost", _step)).all(), (_way, _step)
        assert (_at(_way, "PSNR", _step) < _repaired - (1.8 if _step <= 200 else 1)).all(), (_way, _step)
        if _way != "collapsed":
            assert (_at(_way, "spread", _step) > 2.5 * _spread).all(), (_way, _step)
    assert 9 < _at("collapsed", "perplexity", _step).mean() < 15
    assert 1.05 < (_at("collapsed", "spread", _step) / _spread).mean() < 1.25
    assert (_at("all repairs", "perplexity", _step) > 75).all()
    assert (_spread / report(untrained)["spread"] - 1).abs().max() < 0.1
    assert (_at("k-means start alone", "lost", _step) < 1.2 * _at("all repairs", "lost", _step)).all()
    assert (_at("k-means start alone", "PSNR", _step) > _repaired - 0.4).all()
for _way in ("no commitment", "a sum among means"):
    assert (_at(_way, "perplexity", 200) < 45).all() and (_at(_way, "spread", 400) > 8 * _spread).all()
    assert (_at(_way, "perplexity", 300) > 1.4 * _at(_way, "perplexity", 200)).all(), _way
    assert (_at(_way, "lost", 400) < 0.4).all()

# %% [markdown]
# With **all repairs** little is lost in the lookup, and with a **k-means start alone** hardly more: here, unlike in notebook 03, the latents stay spread as they were at the start. The others lose several times as much, the last two for the same reason:
#
# - **Collapsed.** A dozen codewords or so do nearly all the work, and the picture has few tints. The latents are spread little more widely.
# - **No commitment.** Nothing holds the encoder near its codewords. The reconstruction's gradient, taken at the codeword, pushes the encoder's output on, however far away that is; the codewords, which follow by a slow average, don't keep up: the spread grows, and the perplexity falls. After step 230 restarts bring codewords back (notebook 03), but the encoder stays adrift.
# - **A sum among means** is the same illness, although its code says β = 0.25.
#
# So there are three numbers to log while training such a model. The share lost in the lookup says that something is wrong; a small perplexity with a steady spread means collapse, a growing spread an encoder adrift.
#
# ## What we saw
#
# - An encoder and a decoder turn 8 × 8 pixels into 20 numbers and back. Between them one index of 8 bits stands for a patch: 1/8 bit per pixel.
# - The reconstruction moves encoder and decoder, the codebook loss the codebook, the commitment loss the encoder.
# - Held-out photos come back at about 22.8 dB, 1 to 1.5 dB above the untrained VQ-VAE, and more than 3 dB below the same network without a quantizer.
# - A codeword is close to the mean of the patches that choose it, and a patch's own index explains more than 95 % of what is painted there.
# - The index tells a patch's brightness almost exactly, and of its slope and its texture about half; so it does untrained. A loss on detail moves words from colour to slopes.
# - Four times as many codewords cost 2 bits more and buy less and less.
# - From a random start without repairs a dozen codewords do the work; here a k-means start alone prevents that. Without commitment the encoder runs away from the codewords, and neither EMA nor restarts repair it.
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
# Hardly by itself. With 8 bits a patch, the squared error is best spent on brightness and colour; a finer texture explains little variance and would cost many words. More bits would. Another loss does so only in part: that on detail moved words from colour to slopes, and the texture stayed as little told as before. "More training steps" runs into the same wall.
#
# </details>
#
# **5.** Your model's loss falls, but the reconstructions are poor, the share lost in the lookup is 35 %, and the latents' spread has grown to four times what it was. What do you check first?
#
# <details><summary>Answer</summary>
#
# The balance of the loss: whether the commitment term reaches the encoder with a weight that counts. Is one term a sum and another a mean? Is β on the right term? Restarts and a larger codebook don't answer it: the codewords stand where the encoder was.
#
# </details>
#
# ## Where to read on
#
# - A. van den Oord, O. Vinyals, K. Kavukcuoglu, *Neural Discrete Representation Learning* (2017), arXiv:1711.00937: the VQ-VAE; equations 1 to 3, and appendix A.1 for the EMA.
# - A. Razavi, A. van den Oord, O. Vinyals, *Generating Diverse High-Fidelity Images with VQ-VAE-2* (2019), arXiv:1906.00446: two or three grids of indices, coarse to fine.
# - P. Esser, R. Rombach, B. Ommer, *Taming Transformers for High-Resolution Image Synthesis* (2021), arXiv:2012.09841: a perceptual and an adversarial loss in place of the squared error.
# - N. Ahmed, T. Natarajan, K. R. Rao, *Discrete Cosine Transform* (1974), IEEE Transactions on Computers: where our encoder starts.
# - K. He et al., *Identity Mappings in Deep Residual Networks* (2016), arXiv:1603.05027: the block.
#
# **Next**: `07_rvq_vae` puts eight codebooks, one after the other, in this one's place. The first says roughly what a patch is, the second what was left out, the third what was left then. They go after the decibels that one codebook loses.

# %% [markdown] tags=["kernel"]
# ## What you have solved
#
# The checks remember what they accepted, in the file `progress.json` beside the notebooks.

# %%
check.progress()
