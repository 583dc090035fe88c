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
# # 07 · One model, every bitrate?
#
# **The question.** A photo codec should offer a choice: a small file or a good picture. Must we train a model for every size, or can one model serve them all?
#
# **You will be able to**
# - put a residual quantizer between an encoder and a decoder, and train all three together;
# - say how many bits a pixel takes, and what each further stage buys;
# - make one model decode from any number of stages, and say what that costs;
# - weight the three terms of the loss apart, and foresee what happens;
# - write a photo to a file of real bytes, read it back from any part of it, and spend the bytes where they help;
# - compare the result fairly with JPEG and WebP.
#
# **You need** notebook 02 (straight-through, codebook and commitment loss), 04 (residual stages, prefixes), 05 (beam search) and 06 (encoder, decoder, VQ-VAE).
#
# **Time.** It runs in {{run_time}}, most of it training. Reading takes 45 minutes, the five exercises about 30.

# %%
import contextlib
import io
import math
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from tqdm import tqdm

from rvq_tutorial import ResidualVectorQuantizer, check, codec, data, metrics, plots, pretrained, widgets
from rvq_tutorial.models import VQVAE, Decoder, Encoder
from rvq_tutorial.prior import IndexPrior
from rvq_tutorial.training import fit

_ = torch.manual_seed(0)  # the same numbers in every run

# %% [markdown]
# ## The photos
#
# Seven photographs are for training. Three are **held out**: nothing is ever fitted on them, and every figure below is measured on them.

# %%
photos = data.photos()
print("training:", ", ".join(photos.train))
print("held out:", ", ".join(photos.held_out))

views = torch.stack([F.interpolate(photo[None], (128, 192), mode="area")[0] for photo in photos.held_out.values()])
plots.photo_row(views, list(photos.held_out), caption="The three held-out photos, made small to fit here.")

# %% [markdown]
# The network sees **crops** of 64 × 64 pixels, cut from the training photos at random places and scales.

# %%
crops = data.photo_crops(64, 2048, seed=0)
print(f"{len(crops)} crops of shape {tuple(crops.shape[1:])}")
plots.photo_row(crops[:7], list(photos.train), caption="One crop from each training photo, 64 × 64 pixels.")

# %% [markdown]
# ## Encoder, quantizer, decoder
#
# Encoder and decoder are those of notebook 06. The encoder turns every patch of 8 × 8 pixels into one vector of 20 components, the **latent** z; the decoder turns latents back into pixels. What changes is the middle. In place of the single quantizer stands the residual quantizer of notebook 04, with 8 stages of 256 codewords.
#
# `channel_dim=1` tells it that the components lie along the second axis, as convolutions have them.


# %%
def autoencoder(num_quantizers, quantize_dropout=0.0):
    """Encoder, that many stages of 256 codewords, decoder; not trained yet."""
    quantizer = ResidualVectorQuantizer(20, 256, num_quantizers, channel_dim=1, quantize_dropout=quantize_dropout)
    return VQVAE(Encoder(dim=20), quantizer, Decoder(dim=20))


model = autoencoder(8, quantize_dropout=1.0)
latents = model.encoder(crops[:1])
print("crop", tuple(crops[:1].shape), "→ latents", tuple(latents.shape))
assert latents.shape == (1, 20, 8, 8)

# %% [markdown]
# For each of the 8 × 8 latents the quantizer gives 8 indices, one for each stage. They are all that has to be stored.

# %%
indices = model.encode(crops[:1])
print("indices", tuple(indices.shape), "→ image", tuple(model.decode(indices).shape))
assert indices.shape == (1, 8, 8, 8) and model.decode(indices).shape == (1, 3, 64, 64)

# %% [markdown]
# ### Exercise 1 · Predict · ★☆☆ · 4 minutes
#
# How many bits does a pixel take? A latent stands for a square of `stride` × `stride` pixels and has one index for each of `num_quantizers` stages, each out of `codebook_size`.


# %% tags=["exercise"]
def bits_per_pixel(stride, codebook_size, num_quantizers):
    """Bits that the indices take for each pixel of the image: three whole numbers -> a number."""
    ### BEGIN SOLUTION
    bits_per_latent = num_quantizers * torch.log2(torch.tensor(float(codebook_size))).item()
    return bits_per_latent / stride**2
    ### END SOLUTION


# %% [markdown] tags=["hint"]
# How many bits tell one of 256 codewords from the others? How many pixels share one latent's indices? `math.log2` or `torch.log2` is your friend.

# %%
check.bits_per_pixel(bits_per_pixel)

# %% [markdown]
# Uncompressed, a pixel takes 3 × 8 = 24 bits. With all 8 stages it takes one bit, with the first stage alone an eighth of a bit. That is 24 and 192 times less.

# %%
for stages in (1, 2, 4, 8):
    rate = metrics.bits_per_pixel(256, stages, stride=8)
    print(f"{stages} stages: {rate:.3f} bits per pixel, {24 / rate:.0f} times less than the photo as it is")
assert metrics.bits_per_pixel(256, 8, stride=8) == 1

# %% [markdown]
# ## What it can become
#
# A model of this kind ships with the course. It saw crops of the same seven photos, for an hour instead of half a minute (its card is `rvq_tutorial/weights/MODEL_CARD.md`). Here is a photo that it has never seen, from 1, 2, 4 and 8 stages.


# %%
@torch.no_grad()
def rebuilt(model, photo, num_quantizers):
    """A photo (3, H, W) after the round trip through its first stages."""
    return model(photo[None], num_quantizers=num_quantizers).reconstruction[0].clamp(0, 1)


def part(photo):
    """A square of 224 pixels from the middle of a photo, or less of a small one, to look at closely."""
    top, left = (max(0, (side - 224) // 2) for side in photo.shape[1:])
    return photo[:, top : top + 224, left : left + 224]


def sharpening(model, photo, caption):
    """The photo from 1, 2, 4 and 8 stages, with rate and quality, and itself."""
    views, titles = [], []
    for stages in (1, 2, 4, 8):
        image = rebuilt(model, photo, stages)
        rate = metrics.bits_per_pixel(256, stages, stride=8)
        views.append(part(image))
        titles.append(f"{stages} of 8 stages\n{rate:.3f} bits per pixel\n{metrics.psnr(image, photo):.1f} dB")
    titles.append("the photo itself\n24 bits per pixel\n ")
    return plots.photo_row(torch.stack([*views, part(photo)]), titles, caption=caption)


# %%
shipped, shipped_prior = pretrained.load()
cat = photos.held_out["chelsea"]
sharpening(shipped, cat, "The shipped model: a held-out photo from 1, 2, 4 and 8 stages, and itself.")

# %% [markdown]
# ## Train for every prefix at once
#
# If training always used all 8 stages, the decoder would never see what 2 stages give, and would make less of it. So each crop goes through only the first m stages, with m drawn from 1 to 8 anew in every step. This is **quantizer dropout** (Zeghidour et al. 2021, *SoundStream*, section III-C). `quantize_dropout=1.0` above is the share of the crops that it falls upon: all of them.
#
# A stage that was dropped leaves the index −1, which `decode` skips:

# %%
model.train()
some_indices = model.quantizer(model.encoder(crops[:6]).detach()).indices[:, 0, 0]  # of each crop's first latent
print(some_indices)
assert ((some_indices == -1).any(1) | (some_indices >= 0).all(1)).all()

# %% [markdown]
# ### Exercise 2 · Implement · ★★☆ · 6 minutes
#
# Write the dropping. `kept` says for each image of the batch how many stages it keeps.


# %% tags=["exercise"]
def drop_stages(indices, kept):
    """Set the indices of stages that are not kept to -1: (B, h, w, M), (B,) -> (B, h, w, M)."""
    ### BEGIN SOLUTION
    stage = torch.arange(indices.shape[-1])
    dropped = stage >= kept.view(-1, 1, 1, 1)
    return torch.where(dropped, -1, indices)
    ### END SOLUTION


# %% [markdown] tags=["hint"]
# `torch.arange(M)` numbers the stages from 0, so an image that keeps 2 of them keeps numbers 0 and 1. Give `kept` the shape (B, 1, 1, 1), and a comparison of the two broadcasts to a mask. Return a new tensor and leave `indices` as it was.

# %%
check.drop_stages(drop_stages)

# %% [markdown]
# Now train. The loss has the two parts of notebook 02. The reconstruction error is the mean squared difference between crop and rebuilt crop. The quantizer adds its commitment loss, averaged over the stages; the codewords themselves follow by moving averages. Before the first step the codebooks are placed by k-means on the latents.
#
# The loop is `fit` in `rvq_tutorial/training.py`, a page long. You may interrupt it at any time: the model keeps what it has learned.

# %%
with widgets.live_curve("psnr", ylabel="PSNR of the batch, dB", smooth=30) as draw:
    history = fit(model, crops, steps=600, seed=0, on_step=draw)

# %% [markdown]
# (The curve is rough because every batch is different, and because most crops are rebuilt from fewer than 8 stages.)
#
# ## The picture sharpens
#
# The same photo with the model that was trained here, from 1, 2, 4 and 8 stages. It is the same model and the same indices every time: the shorter ones are the first entries of the longer ones.

# %% tags=["readme-picture"]
sharpening(model, cat, "A held-out photo rebuilt from 1, 2, 4 and 8 stages, and itself.")

# %% [markdown]
# In numbers, as the mean over the three held-out photos, at every number of stages:


# %%
def mean_psnr(model, num_quantizers):
    """Mean PSNR over the held-out photos, in dB."""
    qualities = [metrics.psnr(rebuilt(model, photo, num_quantizers), photo) for photo in photos.held_out.values()]
    return sum(qualities) / len(qualities)


psnr = torch.tensor([mean_psnr(model, stages) for stages in range(1, 9)])
gains = psnr.diff()
print("stages 1 to 8:", "  ".join(f"{quality:.2f}" for quality in psnr), "dB")
print("gain of each: ", "      ", "  ".join(f"{gain:5.2f}" for gain in gains), "dB")
assert (gains > 0).all() and psnr[-1] - psnr[0] > 4

# %% [markdown]
# Each stage helps, and the first ones most: a stage refines what is left, and less is left every time. And the shipped model, beside ours?

# %%
longer = {stages: mean_psnr(shipped, stages) for stages in (1, 2, 4, 8)}
for stages, quality in longer.items():
    print(f"{stages} stages: {psnr[stages - 1]:.2f} dB trained here, {quality:.2f} dB shipped")
assert all(quality > psnr[stages - 1] for stages, quality in longer.items())

# %% [markdown]
# Longer training, a wider network and more varied crops pay at every number of stages.
#
# ### What does the quantizer cost?
#
# Take it out: hand the decoder the latents as they are. That is the same autoencoder without any rounding, and a limit for all stages to come.


# %%
@torch.no_grad()
def bypassed(model, photo):
    """A photo after encoder and decoder alone."""
    height, width = photo.shape[1:]
    return model.decoder(model.latents(photo[None]))[0, :, :height, :width].clamp(0, 1)


limit = sum(metrics.psnr(bypassed(model, photo), photo) for photo in photos.held_out.values()) / 3
print(f"8 stages: {psnr[-1]:.2f} dB, quantizer bypassed: {limit:.2f} dB")
assert psnr[-1] < limit < psnr[-1] + 1

rates = [metrics.bits_per_pixel(256, stages, stride=8) for stages in range(1, 9)]
plots.quality(
    {"1 to 8 stages": (rates, psnr.tolist()), "quantizer bypassed": (rates, [limit] * 8)},
    title="Mean over the held-out photos",
)

# %% [markdown]
# Less than a decibel is missing. What separates even the upper line from a perfect copy is lost in the encoder: 192 numbers of a patch went into 20.
#
# ### Exercise 3 · Implement · ★★☆ · 6 minutes
#
# The photo arrives as indices, and the connection breaks after `num_quantizers` stages. Show what can be shown. (`model.decode` takes any prefix of the stages and returns whole patches of 8 × 8 pixels; the photo may be a little smaller.)


# %% tags=["exercise"]
def decode_prefix(model, indices, num_quantizers, height, width):
    """Image from the first stages: indices (B, h, w, M) -> (B, 3, height, width)."""
    ### BEGIN SOLUTION
    images = model.decode(indices[..., :num_quantizers])
    return images[..., :height, :width]
    ### END SOLUTION


# %% [markdown] tags=["hint"]
# The stages are the *last* axis of the indices: `indices[..., :2]` keeps the first two. Cut the image at the bottom and at the right, where `model.encode` has filled up the last patches.

# %%
check.decode_prefix(decode_prefix)

# %% [markdown]
# ## Slide
#
# One slider for the number of stages, one for the codebook size. For the smaller codebooks the autoencoder stays as it is, and only the codebooks are fitted again, by k-means on the training crops' latents. (A model trained for them from the start would do somewhat better.)

# %%
with torch.no_grad():
    training_latents = model.latents(crops[:256])


def refitted(codebook_size, num_quantizers):
    """The trained encoder and decoder with other codebooks between them."""
    quantizer = ResidualVectorQuantizer(20, codebook_size, num_quantizers, channel_dim=1)
    return VQVAE(model.encoder, quantizer.fit(training_latents), model.decoder).eval()


models = {16: refitted(16, 8), 64: refitted(64, 8), 256: model}


# %%
def sharpened(codebook_size, num_quantizers):
    """The cat from that many stages of that many codewords, beside the photo."""
    image = rebuilt(models[codebook_size], cat, num_quantizers)
    rate = metrics.bits_per_pixel(codebook_size, num_quantizers, stride=8)
    title = f"M = {num_quantizers}, K = {codebook_size}\n{rate:.3f} bits per pixel, {metrics.psnr(image, cat):.1f} dB"
    return plots.photo_row(torch.stack([part(image), part(cat)]), [title, "the photo itself\n24 bits per pixel"])


widgets.explore(sharpened, codebook_size=[16, 64, 256], num_quantizers=[1, 2, 3, 4, 6, 8])

# %% [markdown]
# ## Equal bits
#
# Compare M = 2, K = 256 with M = 4, K = 16: both take 16 bits for a latent, and both take a quarter of a bit for a pixel. Which is sharper? And at 8 bits, one codebook of 256, two of 16, or four of 4? All are fitted on the same latents of the training crops, and measured on the held-out photos.

# %%
choices = [(1, 256), (2, 16), (4, 4), (2, 256), (4, 16), (8, 4)]
rows = {}
for stages, size in choices:
    quality = mean_psnr(refitted(size, stages), stages)
    name = f"{stages * int(math.log2(size))} bits: {stages} × {size}"
    rows[name] = {"held-out MSE": 10 ** (-quality / 10), "numbers stored": 20 * stages * size}
    print(f"{name}: {quality:.2f} dB")
plots.scoreboard(rows, title="Stages × codewords, at equal bits")

# %%
errors = [row["held-out MSE"] for row in rows.values()]
assert errors[0] < errors[1] < errors[2]
assert abs(10 * math.log10(errors[3] / errors[4])) < 0.3 and errors[4] < errors[5]

# %% [markdown]
# At 8 bits one codebook of 256 beats two of 16, and two beat four of 4: a large codebook places its codewords freely, while a sum of small ones is bound to a pattern. So it was in notebook 04, on simpler data. At 16 bits two of 256 and four of 16 are level within a few tenths of a decibel, and eight of 4 fall behind.
#
# Now look at the column on the right. Halving an index's bits takes an eighth of the memory, and of the search. The other way, a single codebook for 16 bits would need 65,536 codewords, four times as many as there are latents here to fit them on. That is why we take stages, and why they aren't as small as can be.
#
# ## One model, or one for each rate?
#
# One model with dropout has to please eight decoders in one. How much would be gained by a model for each number of stages, each with the same number of steps? Training five models at full length takes too long for a notebook. So all of them, the shared one as well, get 120 steps of 8 crops.

# %%
shared = autoencoder(8, quantize_dropout=1.0)
separate = {stages: autoencoder(stages) for stages in (1, 2, 4, 8)}
for candidate in (shared, *separate.values()):
    fit(candidate, crops, steps=120, batch_size=8)

# %%
differences, cut_differences = {}, {}
for stages, own in separate.items():
    alone = mean_psnr(own, stages)
    differences[f"M = {stages}, dropout"] = mean_psnr(shared, stages) - alone
    if stages < 8:
        cut_differences[f"M = 8, cut to {stages}"] = mean_psnr(separate[8], stages) - alone
    print(f"a model for M = {stages} alone: {alone:.2f} dB")
rounded = {name: round(gain, 2) + 0.0 for name, gain in (differences | cut_differences).items()}
plots.bars(rounded, label="gain over a model for that many stages alone, dB")

# %%
dropout, cut = list(differences.values()), list(cut_differences.values())
assert min(dropout) > -0.5  # dropout costs little
assert sum(dropout[:2]) > sum(cut[:2])  # and short prefixes need it

# %% [markdown]
# One model costs a few tenths of a decibel at most: over three seeds we saw at most 0.3 dB less than a model trained for that number of stages alone. Without dropout, the model for 8 stages is a little better at 8, and worse when it is cut to 1 or 2.
#
# So little is lost because the latents are the same for all: what a good first stage needs differs little from what eight need. The longer one trains, the more the models specialize. To see it, set `steps=600, batch_size=16`: there the model for a single stage was ahead by 0.30, 0.32 and 0.42 dB with three seeds.
#
# ## Three terms, three weights
#
# The loss has three terms (van den Oord et al. 2017, eq. 3): the **reconstruction** moves encoder and decoder, the **codebook** loss moves the codewords to the latents, and the **commitment** loss moves the latents to the codewords. Each can be weighted apart. `fit` takes a `reconstruction_weight`, the quantizer its `commitment_weight` β. The codebook loss has the weight 1. Only ratios count, so two numbers set all three.
#
# A weight on the codebook loss alone would change nothing at all, unless it is zero. No other term reaches the codewords, and Adam divides a gradient by its own size:

# %%
moved = []
for weight in (1.0, 10.0):
    codeword = torch.zeros(3, requires_grad=True)
    adam = torch.optim.Adam([codeword], lr=0.1)
    (weight * F.mse_loss(codeword, torch.tensor([1.0, 2.0, -3.0]))).backward()
    adam.step()
    moved.append(codeword.detach())
print("weight 1:", moved[0], " weight 10:", moved[1])
assert torch.allclose(*moved, atol=1e-4)

# %% [markdown]
# So far moving averages stood in for the codebook loss (notebook 03). For the sake of this experiment the codewords follow the gradient, `codebook_update="gradient"`, and no dead one restarts. The quantizer has 4 stages of 64 codewords, and training takes 80 steps of 8 crops. Before you go on, guess: what becomes of the photos, and of the distance between latents and codewords, with each of the terms taken away?


# %%
def trained_with(reconstruction_weight=1.0, codebook=True, commitment_weight=0.25):
    """An autoencoder after a short training with these weights; the codewords stay where they are without `codebook`."""
    quantizer = ResidualVectorQuantizer(
        20,
        64,
        num_quantizers=4,
        channel_dim=1,
        commitment_weight=commitment_weight,
        codebook_update="gradient",
        dead_code_threshold=0,
    ).requires_grad_(codebook)
    short = VQVAE(Encoder(dim=20), quantizer, Decoder(dim=20))
    fit(short, crops, steps=80, batch_size=8, reconstruction_weight=reconstruction_weight)
    return short


weighted = {
    "all three, β = 0.25": trained_with(),
    "no commitment, β = 0": trained_with(commitment_weight=0.0),
    "much of it, β = 4": trained_with(commitment_weight=4.0),
    "no codebook loss": trained_with(codebook=False),
    "no reconstruction": trained_with(reconstruction_weight=0.0),
}


# %%
@torch.no_grad()
def measured(short):
    """Mean over the held-out photos: error with and without the quantizer, and what it loses of the latents."""
    whole, without, lost = [], [], []
    for photo in photos.held_out.values():
        latents = short.latents(photo[None])
        whole.append(metrics.mse(rebuilt(short, photo, 4), photo))
        without.append(metrics.mse(bypassed(short, photo), photo))
        lost.append(metrics.mse(short.quantizer(latents).quantized, latents))
    means = (sum(values) / len(values) for values in (whole, without, lost))
    return dict(zip(("held-out MSE", "quantizer bypassed", "lost of the latents"), means, strict=True))


results = {name: measured(short) for name, short in weighted.items()}
plots.scoreboard(results, title="What each weight does")

# %%
views = [part(rebuilt(short, cat, 4)) for short in weighted.values()] + [part(cat)]
titles = [f"{name}\n{metrics.psnr(rebuilt(short, cat, 4), cat):.1f} dB" for name, short in weighted.items()]
plots.photo_row(torch.stack(views), [*titles, "the photo itself\n "], caption="The held-out cat after 80 steps each.")

# %%
photo_error, without, lost = ([row[measure] for row in results.values()] for measure in results["no codebook loss"])
assert lost[1] > 1.5 * lost[0] and lost[2] < 0.7 * lost[0]  # β decides how close the latents stay
assert without[1] > 1.1 * without[0]
assert photo_error[2] > 1.2 * photo_error[0]
assert photo_error[4] > 1.5 * photo_error[0]
assert photo_error[3] < 1.1 * photo_error[0]

# %% [markdown]
# - **No commitment.** Nothing holds the latents near their codewords. They drift after whatever the reconstruction asks for, and the quantizer loses far more of them. The decoder, which only ever sees codewords, makes up for it. Hand it the latents themselves, with the quantizer bypassed, and it does worse than with commitment: they lie farther from anything it has learned on.
# - **Much commitment.** The latents cling to the codewords, so that little is lost in the quantizer. But the encoder now serves the codebook more than the photo: what it hands over is easy to quantize and says less about the picture.
# - **No codebook loss.** The codewords stay where k-means put them. In so short a training that costs next to nothing, thanks to the good start. Notebook 03 shows what comes of a random one.
# - **No reconstruction.** The decoder learns nothing, and the encoder only to please the codebook. It gives up whatever is hard to quantize: of each patch little more than its mean colour is left.
#
# ## Are all codewords in use?
#
# Counted over every latent of the three held-out photos. **Usage** is the share of codewords chosen at least once. **Perplexity** is the number of equally used codewords that would carry as much information.

# %%
with torch.no_grad():
    all_indices = torch.cat([model.encode(photo[None]).flatten(0, 2) for photo in photos.held_out.values()])
usages = [metrics.usage(all_indices[:, stage], 256) for stage in range(8)]
for stage, share in enumerate(usages):
    print(f"stage {stage + 1}: usage {share:.0%}, perplexity {metrics.perplexity(all_indices[:, stage], 256):.0f}")
assert min(usages) > 0.8

# %%
plots.code_usage(torch.bincount(all_indices[:, 0], minlength=256), title="Stage 1, held-out photos")

# %% [markdown]
# No collapse. The first stage is the most uneven: skies and walls are alike, and many patches share a few codewords. What is frequent can be written in fewer bits. That is the next step.
#
# ## A file of real bytes
#
# So far bits were counted, never written. `rvq_tutorial.codec` writes them. Its file is a **header** and then one **layer** for each stage:
#
# | bytes | what |
# |---|---|
# | 13, once | "RVQ", version, the model's fingerprint, height, width, number of layers |
# | 8 for each layer | how many bytes follow, and a checksum |
# | the rest of the layer | the indices of that stage |
#
# Without any further knowledge an index takes log₂ 256 = 8 bits:

# %%
plain = codec.Codec(model)
file = plain.compress(cat)
print("It begins with", file[:13].hex(" "))
print(plain.fingerprint, codec.info(file))

# %%
latents_of_cat = model.encode(cat[None])[0, ..., 0].numel()
indices_alone = 8 * latents_of_cat * 8 // 8  # stages, bits an index, bits a byte
print(f"{latents_of_cat} latents × 8 stages × 8 bits = {indices_alone:,} bytes; the file has {len(file):,}")
assert indices_alone < len(file) < indices_alone + 13 + 8 * (8 + 8)

# %% [markdown]
# ### Fewer bits for what is expected
#
# A patch of sky seldom has a neighbour of fur. If we expect an index with probability p, an **entropy coder** can write it in log₂ 1/p bits, a fraction of a bit where it was nearly certain. Where does p come from? `IndexPrior` counts on the training photos how often each index occurs, and how often beside which neighbours; it is a page long, `rvq_tutorial/prior.py`. The decoder has the same tables and reads the same neighbours before it, so that it expects the same. The arithmetic is done by the library `constriction`.

# %%
with torch.no_grad():
    grids = [model.encode(photo[None]) for photo in photos.train.values()] + [model.encode(crops[:1024])]
expecting = codec.Codec(model, IndexPrior(256, 8).fit(grids))
shorter = expecting.compress(cat)
print(f"{len(file):,} bytes before, {len(shorter):,} with the prior")
sizes = codec.info(shorter).layer_bytes
plots.bars({f"layer {n}": 8 * size / latents_of_cat for n, size in enumerate(sizes, 1)}, label="bits an index")

# %%
assert len(shorter) < len(file)
assert sizes[0] < 0.65 * latents_of_cat  # 8 bits would be one byte for each latent
assert torch.equal(plain.decompress(file), expecting.decompress(shorter))

# %% [markdown]
# Nothing is lost by it: the pictures are equal to the last bit. The first stage gains most. Later stages look more and more like noise, which nobody can foresee. The shipped model was fitted with far more crops. From here on we use it.
#
# ### Read it back from any part
#
# The connection breaks half way. The layers that arrived whole still give a picture.

# %%
coder = codec.Codec(shipped, shipped_prior)
file = coder.compress(cat)
received = file[: len(file) // 2]
whole_layers = len(codec.info(received).layer_bytes)
image = coder.decompress(received, num_quantizers=whole_layers)
print(f"{len(received):,} of {len(file):,} bytes arrived, with {whole_layers} whole layers")
print(f"The picture in them: {metrics.psnr(image, cat):.2f} dB")
assert 1 <= whole_layers < 8

# %% [markdown]
# `codec.truncate` cuts a file cleanly, and every one of its prefixes is a file:

# %%
for stages in range(1, 9):
    prefix = codec.truncate(file, stages)
    rate, quality = 8 * len(prefix) / cat[0].numel(), metrics.psnr(coder.decompress(prefix), cat)
    print(f"{stages} layers: {len(prefix):6,} bytes, {rate:.3f} bits per pixel, {quality:.2f} dB")
assert coder.decompress(file).shape == cat.shape

# %% [markdown]
# ### What is wrong here? · The layer that isn't there
#
# Somebody asks how many layers a partial download holds, and adds up the layers' sizes. It runs, it looks right, and the next line fails. Why?


# %%
def layers_there(layer_bytes, num_bytes):
    ends = torch.tensor(layer_bytes).cumsum(0)
    return (ends <= num_bytes).sum().item()


sizes = codec.info(file).layer_bytes
received = file[: sum(sizes[:4]) + 10]
print("promised:", layers_there(sizes, len(received)), "layers")
try:
    coder.decompress(received, num_quantizers=4)
except codec.CodecError as error:
    print(error)

# %% [markdown]
# ### Exercise 4 · Repair · ★★☆ · 6 minutes
#
# Mend it: how many whole layers are there among the first `num_bytes` bytes of a file with layers of these sizes?


# %% tags=["exercise"]
def layers_within(layer_bytes, num_bytes):
    """Number of whole layers in the first num_bytes bytes of a file: a list of sizes, a number -> a number."""
    ### BEGIN SOLUTION
    end, whole = 13, 0  # the header
    for size in layer_bytes:
        end += 8 + size  # its length and checksum, then the layer
        if end > num_bytes:
            break
        whole += 1
    return whole
    ### END SOLUTION


# %% [markdown] tags=["hint"]
# The table above says what else is in the file. Where does the first layer end? And the second?

# %%
check.layers_within(layers_within)

# %% [markdown]
# ### A file that can't be read
#
# A codec that guesses is worse than one that refuses. Each of these gives one clear sentence:

# %%
flipped = bytearray(file)
flipped[60] ^= 1  # a single bit
broken = {"foreign": b"GIF89a", "too new": b"RVQ\x09" + file[4:], "damaged": bytes(flipped), "another model's": file}
for name, content in broken.items():
    try:
        (expecting if name == "another model's" else coder).decompress(content)
    except codec.CodecError as error:
        print(f"{name}: {error}")
    else:
        raise AssertionError(f"{name} was read")

# %% [markdown]
# ### In a terminal
#
# The same from a command line. A file that can't be read ends with exit code 1, and no half-written output is left behind.

# %%
folder = tempfile.TemporaryDirectory()


def as_picture(photo):
    """A photo (3, H, W) in [0, 1] as a picture of Pillow's."""
    return Image.fromarray((255 * photo).round().byte().permute(1, 2, 0).numpy())


as_picture(cat).save(Path(folder.name) / "cat.png")
words = ["-m", "rvq_tutorial.codec", "compress", "cat.png", "cat.rvq", "--num-quantizers", "4"]
print("$ python", *words)
run = subprocess.run([sys.executable, *words], cwd=folder.name, capture_output=True, text=True)
print(run.stdout)
assert run.returncode == 0

# %% [markdown]
# `decompress cat.rvq again.png` is the way back, and `info cat.rvq` tells what the header holds. The command is the function `codec.main`; here it is given the wrong file:

# %%
wrong, output = Path(folder.name) / "cat.png", Path(folder.name) / "again.png"
with contextlib.redirect_stderr(sys.stdout):
    exit_code = codec.main(["decompress", str(wrong), str(output)])
print("exit code", exit_code)
assert exit_code == 1 and not output.exists()

# %% [markdown]
# ## Stages where they are needed
#
# So far every patch got as many stages as every other, the blurred ground behind the cat as many as its whiskers. Let each patch stop by itself: from there on its index is −1, no stage.
#
# Which patches should stop? Put a **price** on a stage. A patch takes the number of stages m that makes
#
# $$\lVert \text{what } m \text{ stages leave of its latent} \rVert^2 + \text{price} \cdot m$$
#
# least: it buys as long as buying pays. All patches see the same price, so no stage would save more if another patch had it instead (Shoham and Gersho 1988). `encode_each` finds, in one search, the best indices for every m, and what they leave:

# %%
with torch.no_grad():
    paths, left = shipped.quantizer.encode_each(shipped.latents(cat[None]))
print("for each m:", tuple(paths.shape), "indices,", tuple(left.shape), "squared distances")
assert torch.equal(paths[..., 3, :4], shipped.encode(cat[None], num_quantizers=4)) and (paths[..., 3, 4:] == -1).all()

# %% [markdown]
# Raise the price and watch which patches give up first.


# %%
@torch.no_grad()
def at_price(price):
    """How many stages each patch of the cat buys, and what it looks like then."""
    num_stages = (left + price * torch.arange(1, 9)).argmin(-1) + 1
    indices = torch.take_along_dim(paths, num_stages[..., None, None] - 1, -2)[..., 0, :]
    height, width = cat.shape[1:]
    image = shipped.decode(indices)[0, :, :height, :width].clamp(0, 1)
    amounts = (num_stages[0] / 8).repeat_interleave(8, 0).repeat_interleave(8, 1)[:height, :width]
    titles = [
        f"stages of each patch\n1 dark, 8 bright, mean {num_stages.float().mean():.1f}",
        f"price {price:g}\n{metrics.psnr(image, cat):.2f} dB",
        "the photo itself\n ",
    ]
    return plots.photo_row(torch.stack([amounts.expand(3, -1, -1), image, cat]), titles)


widgets.explore(at_price, price=[0.0, 0.01, 0.03, 0.1, 0.3, 1.0])

# %% [markdown]
# Whoever sends a photo has no price in mind but a number of bytes. So `compress` tries prices, by halving, until the file just fits: `coder.compress(photo, max_bytes=6000)`, or `--max-bytes 6000` in a terminal. Whether a patch goes on is entropy-coded too: where its neighbours went on, it most likely does.
#
# Is that better than the same number of stages everywhere? Both at the same number of bytes:

# %%
for name, photo in photos.held_out.items():
    uniform = coder.compress(photo, num_quantizers=4)
    fitted = coder.compress(photo, max_bytes=len(uniform))
    before, after = (metrics.psnr(coder.decompress(file), photo) for file in (uniform, fitted))
    print(f"{name:>8}, {len(uniform):6,} bytes: 4 stages everywhere {before:.2f} dB, where needed {after:.2f} dB")
    assert len(fitted) <= len(uniform) and after > before + 0.1

# %% [markdown]
# It pays on every photo, most where calm and busy parts lie side by side. And it gives us *every* size, not eight of them. (Very small files gain nothing: the first stage is worth its price nearly everywhere, and there is little else to share out.)
#
# ## Your own photo, beside JPEG and WebP
#
# Press the button and choose a photo. Then run the next cell and those below it once more. (Until then they show the held-out cup of coffee. A photo larger than 640 pixels is made smaller, to be quick.)

# %%
upload = widgets.Upload()
upload

# %%
mine = upload.photo(photos.held_out["coffee"])
scale = min(1, 640 / max(mine.shape[1:]))
sides = [math.ceil(scale * side) for side in mine.shape[1:]]
mine = F.interpolate(mine[None], sides, mode="bilinear", antialias=True)[0].clamp(0, 1)
print(f"{sides[0]} × {sides[1]} pixels")

# %% [markdown]
# A fair comparison takes **files of the same number of bytes**, every header counted. Ours are made to size. JPEG and WebP have a quality setting; for each size we look, by halving, for the highest quality whose file isn't larger.


# %%
def encoded(photo, kind, quality):
    """A JPEG or WebP file of the photo, as bytes."""
    file = io.BytesIO()
    as_picture(photo).save(file, kind, quality=quality, optimize=True)
    return file.getvalue()


def decoded(file):
    """The photo (3, H, W) in a JPEG or WebP file."""
    pixels = np.array(Image.open(io.BytesIO(file)).convert("RGB"))
    return torch.from_numpy(pixels).permute(2, 0, 1) / 255


def best_within(photo, kind, num_bytes):
    """The file of the highest quality that has at most num_bytes bytes; of quality 0 where none is so small."""
    low, high = 0, 95
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if len(encoded(photo, kind, middle)) <= num_bytes else (low, middle - 1)
    return encoded(photo, kind, low)


# %%
def file_sizes(photo):
    """Five numbers of bytes, evenly spread on a logarithmic scale, from a file of one stage to one of all."""
    least, most = (len(coder.compress(photo, num_quantizers=stages)) for stages in (1, 8))
    return np.geomspace(least, most, 5).astype(int).tolist()


compared = {}
for num_bytes in tqdm(file_sizes(mine), desc="Files", unit="size", file=sys.stdout):
    files = {"ours": coder.compress(mine, max_bytes=num_bytes)}
    files |= {kind: best_within(mine, kind, num_bytes) for kind in ("JPEG", "WebP")}
    images = {kind: (coder.decompress if kind == "ours" else decoded)(file) for kind, file in files.items()}
    compared[num_bytes] = {kind: (image, len(files[kind])) for kind, image in images.items()}

# %% [markdown]
# Two measures tell how good a picture is. PSNR knows only squared errors. **SSIM** (Wang et al. 2004) compares means, variances and covariances in small windows, 1 for equal pictures; it follows the eye a little better.

# %%
quality_of = {
    (num_bytes, kind): (metrics.psnr(image, mine), metrics.ssim(image, mine))
    for num_bytes, row in compared.items()
    for kind, (image, _) in row.items()
}
print(" at most " + "".join(f"{kind:>26}" for kind in ("ours", "JPEG", "WebP")))
for num_bytes, row in compared.items():
    words = ["{:7,} B {:5.2f} dB {:.3f}".format(size, *quality_of[num_bytes, kind]) for kind, (_, size) in row.items()]
    print(f"{num_bytes:7,} B" + "".join(f"{word:>26}" for word in words))


# %%
def beside(num_bytes):
    """The photo at one size: from our file, from a JPEG, from a WebP, and itself."""
    row = compared[num_bytes]
    titles = [
        "{}\n{:,} bytes\n{:.1f} dB, SSIM {:.2f}".format(kind, size, *quality_of[num_bytes, kind])
        for kind, (_, size) in row.items()
    ]
    views = [part(image) for image, _ in row.values()] + [part(mine)]
    return plots.photo_row(torch.stack(views), [*titles, "the photo itself\n \n "])


widgets.explore(beside, num_bytes=list(compared))

# %% [markdown]
# Move the slider to the left. There JPEG falls into blocks of a single colour or can't make a file so small, while ours turns soft. Now to the right: JPEG and WebP become sharp, and ours stops getting better. Our encoder kept 19 numbers of a patch and let go of the rest; more stages describe those 19 better, and nothing else.
#
# ## The honest curve
#
# One photo is an anecdote. Here are all three held-out photos, with the slider for each of them.

# %%
QUALITIES = (0, 2, 4, 6, 8, 11, 15, 20, 30, 45, 70)


def points(photo, files, images):
    """(bits per pixel, PSNR) of each file, as two lists."""
    rates = [8 * len(file) / photo[0].numel() for file in files]
    return rates, [metrics.psnr(image, photo) for image in images]


curves = {}
for name, photo in tqdm(photos.held_out.items(), desc="Files", unit="photo", file=sys.stdout):
    files = [coder.compress(photo, max_bytes=num_bytes) for num_bytes in file_sizes(photo)]
    curves[name] = {"ours": points(photo, files, map(coder.decompress, files))}
    for kind in ("JPEG", "WebP"):
        files = [encoded(photo, kind, quality) for quality in QUALITIES]
        curves[name][kind] = points(photo, files, map(decoded, files))


# %%
def rate_curve(photo):
    """PSNR against bits per pixel of one held-out photo, up to the rates that our file has."""
    most = 1.1 * max(curves[photo]["ours"][0])
    shown = {
        kind: tuple(zip(*((rate, psnr) for rate, psnr in zip(*curve, strict=True) if rate <= most), strict=True))
        for kind, curve in curves[photo].items()
    }
    return plots.quality(shown, title=f"{photo}, every byte of the file counted")


widgets.explore(rate_curve, photo=list(curves))

# %% [markdown]
# Who is ahead at our rates? JPEG's and WebP's PSNR is read off the straight lines between their points, and below their smallest file it is that file's, in their favour.

# %%
ahead = {}
for kind in ("JPEG", "WebP"):
    for name, curve in curves.items():
        rates, ours = map(np.array, curve["ours"])
        ahead[kind, name] = ours - np.interp(rates, *curve[kind])
        print(f"ours minus {kind}, {name:>8}: " + " ".join(f"{gain:6.2f}" for gain in ahead[kind, name]) + " dB")
jpeg, webp = (np.mean([ahead[kind, name] for name in curves], axis=0) for kind in ("JPEG", "WebP"))
smallest = [(min(curve["ours"][0]), min(curve["JPEG"][0]), min(curve["WebP"][0])) for curve in curves.values()]

# %%
assert all((ahead["JPEG", name][:3] > 0).all() for name in curves)  # each photo, the three smaller files
assert jpeg[4] < 0 and webp[4] < -1  # the mean over the photos, the largest
assert (ahead["WebP", "chelsea"][1:4] > 0).all() and (ahead["WebP", "china"] < 0).all()
assert all(ours < min(rivals) for ours, *rivals in smallest)

# %% [markdown]
# - **Ours is ahead of JPEG** with the three smaller files, up to a fifth of a bit per pixel, on each of the three photos. The smallest is smaller than any JPEG or WebP that Pillow can write.
# - **Ours and WebP are close** in the middle. On the cat, soft fur and blurred ground, ours is ahead there; on the coffee they are about level; on the temple, full of fine lines, WebP is ahead everywhere.
# - **WebP and JPEG are ahead** where files are large. They have no ceiling: with enough bits they keep all of a patch. Ours kept 19 numbers of 192.
#
# Seven training photos, a network of a page and a prior of counted pairs: there is much to gain still. Larger latents for more bits, more photos to train on, a network that foresees the indices. The seven notebooks end where a real codec begins.
#
# ### What is wrong here? · The prefix that isn't the best
#
# The shipped model searches with a beam of 8 paths (notebook 05). Somebody says: "the first layer of an 8-layer file is what a 1-layer file would hold". Compare:

# %%
for name, photo in photos.held_out.items():
    first_layer = coder.decompress(coder.compress(photo), num_quantizers=1)
    for_one_layer = coder.decompress(coder.compress(photo, num_quantizers=1))
    cut_down, own = metrics.psnr(first_layer, photo), metrics.psnr(for_one_layer, photo)
    print(f"{name}: first of eight layers {cut_down:.2f} dB, a file for one layer {own:.2f} dB")
    assert own > cut_down

# %% [markdown]
# The beam chooses the first codeword with all eight in view, and the best sum need not begin with the nearest codeword. Whoever wants a small file and nothing else should ask for it: `compress(photo, num_quantizers=1)`, or `max_bytes`, as in the curves above.
#
# ### Exercise 5 · Explore · ★★★ · 8 minutes
#
# From which rate on does JPEG win? `ours` and `jpeg` are lists of points (bits per pixel, PSNR), each in rising order. Return the first of *our* rates at which JPEG, read off the straight lines between its points, is at least as good. Below its smallest file JPEG has nothing to show, so there it can't win. Where it never wins, return `math.inf`. Then try it on `curves`: `list(zip(*curves["china"]["ours"]))` are such points.


# %% tags=["exercise"]
def jpeg_wins_from(ours, jpeg):
    """First of our rates at which JPEG is at least as good: two lists of (bits per pixel, PSNR) -> a rate."""
    ### BEGIN SOLUTION
    jpeg_rates, jpeg_psnrs = zip(*jpeg, strict=True)
    for rate, psnr in ours:
        if np.interp(rate, jpeg_rates, jpeg_psnrs, left=-math.inf) >= psnr:
            return rate
    return math.inf
    ### END SOLUTION


# %% [markdown] tags=["hint"]
# `np.interp(rate, rates, psnrs)` reads a value off the lines between points; its argument `left` says what to give below the first of them.

# %%
check.jpeg_wins_from(jpeg_wins_from)

# %% [markdown]
# ## What we saw
#
# - One model serves eight bitrates, from 1/8 bit to 1 bit per pixel. The held-out PSNR rises with every stage, by more than 4 dB from the first to the eighth.
# - At 8 stages less than 1 dB is missing to the same autoencoder without a quantizer.
# - A model trained for one number of stages alone is less than half a decibel better there, after the same number of steps.
# - At 8 bits one codebook of 256 beats two of 16, and two beat four of 4. It takes 8 and 16 times their memory.
# - Without commitment the quantizer loses more than 1.5 times as much of the latents; with sixteen times as much commitment, less than 0.7 times, and the picture is worse.
# - More than four fifths of every stage's codewords are used on photos never seen.
# - Stages where they are needed make a better picture of the same number of bytes, and give every size.
# - The file is real. Up to a fifth of a bit per pixel it is better than JPEG on all three photos, and about as good as WebP on two. At its largest size both are better.
#
# ## Self-test
#
# **1.** Why are the first two entries of the 8 indices the same that a 2-stage encoder would give?
#
# <details><summary>Answer</summary>
#
# The search goes stage by stage: the first index depends on the latent alone, the second on what the first left over. No later stage is asked. This holds for the greedy search. A beam search, which keeps several candidates, may choose a different first codeword because of a later one; then a prefix isn't what a shorter encoder would give.
#
# </details>
#
# **2.** Quantizer dropout is switched off. Is the 8-stage picture spoiled?
#
# <details><summary>Answer</summary>
#
# No: training then spends all its steps on the 8-stage picture. What suffers are the short prefixes, which the decoder never met in training. Saying that "without dropout only 8 stages can be decoded" is wrong as well: prefixes still decode, only worse.
#
# </details>
#
# **3.** The picture from 8 stages is a little below the bypass. Would 16 stages exceed the bypass?
#
# <details><summary>Answer</summary>
#
# Hardly. More stages bring the quantized latent closer to the latent itself, so the result closes in on the bypass. The decoder is no better informed than by the latent. To gain more, make the latents larger or the network better.
#
# </details>
#
# **4.** Why is the index −1, and not 0, for a dropped stage?
#
# <details><summary>Answer</summary>
#
# 0 is a codeword like any other, and its vector would be added. −1 is none, so `decode` adds nothing. One could reserve a codeword of zeros, but then it would also be found by the search.
#
# </details>
#
# **5.** The prior gives an index that never occurred in training the probability 0. What happens, and what to do?
#
# <details><summary>Answer</summary>
#
# log₂ 1/0 is infinite: no number of bits can write it, and the first photo with that index can't be encoded. So every index must keep a little probability, whatever was counted. "It is only written badly" would be true of a small probability, not of none.
#
# </details>
#
# ## Where to read on
#
# - N. Zeghidour et al., *SoundStream: An End-to-End Neural Audio Codec* (2021), arXiv:2107.03312: residual quantizer and quantizer dropout, section III-C.
# - A. van den Oord, O. Vinyals, K. Kavukcuoglu, *Neural Discrete Representation Learning* (2017), arXiv:1711.00937: the VQ-VAE, eq. 3.
# - D. Lee et al., *Autoregressive Image Generation using Residual Quantization* (2022), arXiv:2203.01941: residual quantization of images.
# - Y. Shoham, A. Gersho, *Efficient Bit Allocation for an Arbitrary Set of Quantizers* (1988), IEEE Transactions on Acoustics, Speech, and Signal Processing 36(9): one price for all.
# - J. Ballé, V. Laparra, E. P. Simoncelli, *End-to-end Optimized Image Compression* (2017), arXiv:1611.01704: a learned codec trained for rate and distortion together, with an entropy coder.
# - R. Bamler, *Understanding Entropy Coding With Asymmetric Numeral Systems (ANS): a Statistician's Perspective* (2022), arXiv:2201.01741: by the author of `constriction`.
# - R. Kumar et al., *High-Fidelity Audio Compression with Improved RVQGAN* (2023), arXiv:2306.06546: dropout for a share of the samples, as here.
