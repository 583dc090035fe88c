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
# **What it adds.** Notebook 04 split one large codebook into stages, and notebook 06 put one codebook between an encoder and a decoder. Here the stages go between the two. With that, everything is there for a codec: at the end a photo of your own becomes a file of real bytes.
#
# **You will be able to**
# - train encoder, residual quantizer and decoder together, and decode from any number of stages;
# - say what one model for all bitrates costs, against a model for each;
# - write indices in fewer bits by what their neighbours tell;
# - spend the bits of a photo where they help most;
# - compare your codec fairly with JPEG, WebP and AVIF, and say where it loses.
#
# **You need** notebook 02 (straight-through, codebook and commitment loss), 04 (residual stages, prefixes), 05 (beam search) and 06 (encoder, decoder, VQ-VAE).
#
# **Time.** It runs in {{run_time}}, most of it training. Reading takes {{reading_time}}, the five exercises half an hour more.

# %% tags=["measured"]
import math

import numpy as np
import torch
import torch.nn.functional as F

from rvq_tutorial import ResidualVectorQuantizer, codec, metrics
from rvq_tutorial.autoencoder import VQVAE, Decoder, Encoder, pretrained
from rvq_tutorial.autoencoder.training import fit
from rvq_tutorial.course import check, data, likeness, measured, plots, rivals, widgets

# %% [markdown]
# ## Encoder, residual quantizer, decoder
#
# Seven photos are for training; the network sees them in **crops** of 64 × 64 pixels, cut out at random places and scales. Three photos are **held out**: nothing is ever fitted on them, and models are judged on them.

# %% tags=["measured"]
photos = data.photos()
crops = data.photo_crops(64, 2048, seed=0)

# %%
views = torch.stack([F.interpolate(photo[None], (96, 144), mode="area")[0] for photo in photos.held_out.values()])
plots.photo_row(views, list(photos.held_out), caption="The three held-out photos, made small to fit here.")

# %% [markdown]
# Encoder and decoder are those of notebook 06. The encoder turns every patch of 8 × 8 pixels, 192 numbers, into one vector of 20 numbers, the **latent**; the decoder turns latents back into pixels. Between them stands the residual quantizer of notebook 04, with up to 8 stages of 256 codewords. (`channel_dim=1` tells it that a latent's numbers lie along the second axis, as convolutions have them.)


# %% tags=["measured"]
def autoencoder(num_quantizers, quantize_dropout=0.0):
    """Encoder, that many stages of 256 codewords, decoder; not trained yet."""
    quantizer = ResidualVectorQuantizer(20, 256, num_quantizers, channel_dim=1, quantize_dropout=quantize_dropout)
    return VQVAE(Encoder(dim=20), quantizer, Decoder(dim=20))


# %%
untrained = autoencoder(8)
indices = untrained.encode(crops[:1])
print("crop", tuple(crops[:1].shape), "→ indices", tuple(indices.shape), "→", tuple(untrained.decode(indices).shape))

# %% [markdown]
# A crop has 8 × 8 patches, and each patch gets 8 indices, one for each stage. They are all that has to be stored. An index names one of 256 codewords, 8 bits; a patch has 64 pixels. So a stage costs 8 / 64 = ⅛ bit for each pixel, and all eight stages together 1 bit. Uncompressed, a pixel takes 24.
#
# ## Train for every prefix at once
#
# If training always used all 8 stages, the decoder would never see what 2 stages give. So each crop goes through its first m stages only, with m drawn from 1 to 8 anew in every step. This is **quantizer dropout** (Zeghidour et al. 2021, *SoundStream*, section III-C); `quantize_dropout=1.0` is the share of crops that it falls upon, here all. A stage that was dropped leaves the index −1, and `decode` adds nothing for it:

# %%
torch.manual_seed(0)
dropping = autoencoder(8, quantize_dropout=1.0).train()
print(dropping(crops[:5]).indices[:, 0, 0])  # of the first patch of each crop

# %% tags=["claim"]
_indices = dropping(crops[:32]).indices
assert all(((_row == -1).flatten(0, 1).all(0) | (_row >= 0).flatten(0, 1).all(0)).all() for _row in _indices)

# %% [markdown]
# ### Exercise 1 · Implement · ★★☆ · 6 minutes
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
# Now train. The loss has the parts of notebook 02: the squared error of the rebuilt crop, and the quantizer's commitment loss, averaged over the stages. The codewords follow by moving averages (notebook 03). The loop is `fit` in `rvq_tutorial/autoencoder/training.py`, a page long: it starts the codewords by k-means and leaves the model in eval mode. You may interrupt it at any time.

# %%
torch.manual_seed(0)
model = autoencoder(8, quantize_dropout=1.0)
with widgets.live_curve("psnr", ylabel="PSNR of the batch, dB", smooth=30) as draw:
    history = fit(model, crops, steps=600, seed=0, on_step=draw)

# %% [markdown]
# The curve is rough because every batch is another one, and because most crops are rebuilt from fewer than 8 stages.
#
# ## The picture sharpens
#
# A held-out photo from 1, 2, 4 and 8 stages. It is the same model every time, and the same indices: the shorter ones are the first entries of the longer ones.


# %%
@torch.no_grad()
def rebuilt(model, photo, num_quantizers):
    """A photo (3, H, W) after the round trip through its first stages."""
    return model(photo[None], num_quantizers=num_quantizers).reconstruction[0].clamp(0, 1)


def part(photo):
    """A square of 160 pixels from the middle of a photo, or less of a small one, to look at closely."""
    top, left = (max(0, (side - 160) // 2) for side in photo.shape[1:])
    return photo[:, top : top + 160, left : left + 160]


# %% tags=["readme-picture"]
cat = photos.held_out["chelsea"]
images = {f"{stages} of 8 stages": rebuilt(model, cat, stages) for stages in (1, 2, 4, 8)}
titles = [f"{name}\n{metrics.psnr(image, cat):.1f} dB" for name, image in images.items()]
views = torch.stack([part(image) for image in (*images.values(), cat)])
plots.photo_row(views, [*titles, "the photo itself\n "], caption="A held-out photo from ⅛, ¼, ½ and 1 bit a pixel.")

# %% [markdown]
# In numbers, as the mean over the three held-out photos:


# %%
def mean_psnr(model, num_quantizers):
    """Mean PSNR over the held-out photos, in dB."""
    qualities = [metrics.psnr(rebuilt(model, photo, num_quantizers), photo) for photo in photos.held_out.values()]
    return sum(qualities) / len(qualities)


psnr = torch.tensor([mean_psnr(model, stages) for stages in range(1, 9)])
print("stages 1 to 8:", "  ".join(f"{quality:.2f}" for quality in psnr), "dB")
print("gain of each: ", "      ", "  ".join(f"{gain:5.2f}" for gain in psnr.diff()), "dB")

# %% tags=["claim"]
assert (psnr.diff() > 0).all() and psnr[-1] - psnr[0] > 4
assert psnr.diff()[0] > psnr.diff()[2:].max()

# %% [markdown]
# Each stage helps, and the first ones most: what the encoder lost stays, a growing share of the error.
#
# ### What does rounding cost?
#
# Hand the decoder the latents as they are, without any codeword. What the picture gains is what rounding to codewords has cost it.


# %%
@torch.no_grad()
def unrounded(model, photo):
    """A photo after encoder and decoder alone."""
    height, width = photo.shape[1:]
    return model.decoder(model.latents(photo[None]))[0, :, :height, :width].clamp(0, 1)


without = sum(metrics.psnr(unrounded(model, photo), photo) for photo in photos.held_out.values()) / 3
print(f"8 stages: {psnr[-1]:.2f} dB, latents unrounded: {without:.2f} dB")

# %% tags=["claim"]
assert psnr[-1] < without < psnr[-1] + 1

# %% [markdown]
# Less than a decibel is missing. But the picture from unrounded latents is no upper limit: in training the decoder has never seen such latents. Further down stands a model that does *worse* on its latents than on their codewords. What no stage can bring back was lost before, in the encoder: of a patch's 192 numbers it kept 20.
#
# ### Exercise 2 · Implement · ★☆☆ · 5 minutes
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
# One slider for the number of stages, one for the codebook size. For the smaller codebooks the autoencoder stays as it is, and only the codewords are placed anew, by k-means on the training crops' latents.


# %%
@torch.no_grad()
def refitted(codebook_size, num_quantizers=8):
    """The trained encoder and decoder with other codebooks between them."""
    torch.manual_seed(0)  # k-means starts alike
    quantizer = ResidualVectorQuantizer(20, codebook_size, num_quantizers, channel_dim=1)
    return VQVAE(model.encoder, quantizer.fit(model.latents(crops[:256])), model.decoder).eval()


models = {16: refitted(16), 64: refitted(64), 256: model}


def sharpened(codebook_size, num_quantizers):
    """The cat from that many stages of that many codewords, beside the photo."""
    image = rebuilt(models[codebook_size], cat, num_quantizers)
    rate = metrics.bits_per_pixel(codebook_size, num_quantizers, stride=8)
    title = f"M = {num_quantizers}, K = {codebook_size}\n{rate:.3f} bits per pixel, {metrics.psnr(image, cat):.1f} dB"
    return plots.photo_row(torch.stack([part(image), part(cat)]), [title, "the photo itself\n24 bits per pixel"])


widgets.explore(sharpened, codebook_size=[16, 64, 256], num_quantizers=[1, 2, 3, 4, 6, 8])

# %% [markdown] tags=["doubters"]
# ### Are few large codebooks better than many small ones, at equal bits?
#
# On the latents of photos it is as on the simpler data of notebook 04. At 8 bits a patch, one codebook of 256 is mostly a tenth or two of a decibel ahead of two of 16 (one start of k-means in eighteen put it level), and two of 16 beat four of 4: a large codebook places its codewords freely, while a sum of small ones is bound to a pattern. At 16 bits two of 256 and four of 16 are level within a few tenths of a decibel, and eight of 4 fall behind. The larger codebooks take 8 and 16 times the memory of the smaller. A single codebook for 16 bits would need 65,536 codewords, four times as many as there are latents here to fit them on: that is why we take stages.

# %% tags=["doubters"]
_equal = {pair: mean_psnr(refitted(*pair), pair[1]) for pair in ((256, 1), (16, 2), (4, 4), (256, 2), (16, 4), (4, 8))}

# %% tags=["claim"]
assert _equal[256, 1] > _equal[16, 2] - 0.1 and _equal[16, 2] > _equal[4, 4] + 0.1
assert abs(_equal[256, 2] - _equal[16, 4]) < 0.4 and _equal[16, 4] > _equal[4, 8]

# %% [markdown]
# ## One model, or one for each rate?
#
# With dropout one decoder has to serve eight numbers of stages. What would a model for one number of stages alone gain? And what would become of the short prefixes if training always used all 8 stages? That takes three models: the one above, one for a single stage alone, and one that always uses all 8 stages (which is also the model for 8 stages alone). With five seeds each these are fifteen trainings, too many for a notebook. A command did them, with the code above; here is what it measured.

# %%
dropout = measured.read("dropout")
print(dropout)
steps = dropout.settings["checkpoints"]


def gain_over(rival, stages):
    """PSNR of the model with dropout above that of another model, over the steps of training; one row a seed."""
    runs = [(run["dropout"][stages], run[rival][stages]) for run in dropout.results.values()]
    return [[ours[str(step)] - theirs[str(step)] for step in steps] for ours, theirs in runs]


gains = {
    "1 stage, over a model for it alone": gain_over("1 alone", "1"),
    "1 stage, over no dropout": gain_over("no dropout", "1"),
    "2 stages, over no dropout": gain_over("no dropout", "2"),
    "8 stages, over no dropout": gain_over("no dropout", "8"),
}
plots.over_steps(steps, {"PSNR with dropout, compared": gains}, ylabel="gain of dropout, dB")

# %% tags=["claim"]
_last = [[_run[-1] for _run in _runs] for _runs in gains.values()]
assert len(_last[0]) == 5 and all(-0.5 < _value < -0.3 for _value in _last[0])
assert all(0.4 < _value < 0.7 for _value in _last[1] + _last[2]) and all(-0.1 < _value < 0 for _value in _last[3])
_before = [[_run[steps.index(450)] for _run in _runs] for _runs in gains.values()]
assert all(abs(sum(_a) - sum(_b)) < 0.1 * len(_a) for _a, _b in zip(_before, _last, strict=True))

# %% [markdown]
# One model has its price at a single stage: a model trained for that alone is 0.3 to 0.5 dB better. At 8 stages it costs less than 0.1 dB. What dropout buys are the short prefixes: cut to 1 or 2 stages, the model that always trained with all 8 is 0.4 to 0.7 dB worse. The curves are level from step 450 on. One model can serve every bitrate, then, and the lowest pays for it. (What 2 to 7 stages would gain from models of their own wasn't measured.)
#
# ## Three terms, three weights
#
# The loss has three terms (van den Oord et al. 2017, eq. 3). The **reconstruction** moves encoder and decoder; the **codebook** loss moves the codewords to the latents; the **commitment** loss, β times, moves the latents to the codewords. What does each one do? Take it away, or give it more weight. For this experiment the codewords follow their loss by gradient, as in notebook 02, and no dead one restarts:


# %% tags=["measured"]
def trained_with(reconstruction_weight=1.0, codebook=True, commitment_weight=0.25, seed=0):
    """A small autoencoder after a short training with these weights; without `codebook` the codewords stay put."""
    torch.manual_seed(seed)
    options = {"commitment_weight": commitment_weight, "codebook_update": "gradient", "dead_code_threshold": 0}
    quantizer = ResidualVectorQuantizer(20, 64, num_quantizers=4, channel_dim=1, **options).requires_grad_(codebook)
    small = VQVAE(Encoder(dim=20), quantizer, Decoder(dim=20))
    fit(small, crops, steps=80, batch_size=8, reconstruction_weight=reconstruction_weight, seed=seed)
    return small


# %% [markdown]
# Before you go on, guess: what becomes of the photos, and of the distance between latents and codewords? A command called this function with five seeds for each setting, and measured three mean squared errors on the held-out photos: the **error** of the picture's pixels, the same **from unrounded latents**, and what is **lost by rounding**, the error of the latents' numbers when codewords replace them.

# %% tags=["predict"]
weights = measured.read("weights")
print(weights)
plots.scoreboard(weights.results, title="What each weight does")

# %% tags=["claim"]
_all, _none, _much, _fixed, _blind = weights.results.values()
assert all(_a > 2 * _b for _a, _b in zip(_none["lost by rounding"], _all["lost by rounding"], strict=True))
assert sum(_a > _b for _a, _b in zip(_none["from unrounded latents"], _none["error"], strict=True)) >= 2
assert all(_a < 0.6 * _b for _a, _b in zip(_much["lost by rounding"], _all["lost by rounding"], strict=True))
assert all(_a > 1.2 * _b for _a, _b in zip(_much["error"], _all["error"], strict=True))
assert all(_a < 1.05 * _b for _a, _b in zip(_fixed["error"], _all["error"], strict=True))
assert all(_a > 1.7 * _b for _a, _b in zip(_blind["error"], _all["error"], strict=True))

# %% [markdown]
# - **No commitment.** Nothing holds the latents near their codewords, and the error of rounding more than doubles. The picture hardly suffers, for codewords are all that the decoder ever sees. Hand it the latents themselves, and with some of the seeds its picture is *worse* than from the codewords: here "unrounded" is no limit at all.
# - **Much commitment.** The latents cling to the codewords, and the error of rounding halves. But the encoder now serves the codebook more than the photo: the error of the picture grows by a quarter and more.
# - **No codebook loss.** The codewords stay where k-means put them. In so short a training that costs little, thanks to the good start. Notebook 03 shows what comes of a bad one.
# - **No reconstruction.** The decoder learns nothing, and the encoder only to please the codebook: it gives up whatever is hard to round.
#
# ## A file of real bytes
#
# So far bits were counted, never written. `rvq_tutorial.codec` writes them: first 13 bytes, the **header**, with the photo's size and a checksum of the model, lest another model read the file. Then comes a **layer** for each stage: the indices of all patches, and some bytes of its own, such as its length.
#
# From here on we use a model that ships with the course. It was trained with the same seven photos, for an hour instead of half a minute; its latents have 19 numbers in place of 20, and it searches with a beam of 8 paths (notebook 05). Its model card, `rvq_tutorial/autoencoder/weights/MODEL_CARD.md`, says more.

# %%
shipped, shipped_prior = pretrained.load()
file = codec.Codec(shipped).compress(cat)
patches = shipped.encode(cat[None]).shape[1] * shipped.encode(cat[None]).shape[2]
print(f"{patches:,} patches × 8 stages × 1 byte = {8 * patches:,} bytes; the file has {len(file):,}")
print(f"{mean_psnr(shipped, 8):.2f} dB from 8 stages over the held-out photos; trained here, {psnr[-1]:.2f} dB")

# %% tags=["claim"]
assert 8 * patches < len(file) < 8 * patches + 13 + 8 * (8 + 8)
assert all(mean_psnr(shipped, _stages) > psnr[_stages - 1] for _stages in (1, 2, 4, 8))

# %% [markdown] tags=["doubters"]
# ### What else is in the file, and what if it is damaged?
#
# | bytes | what |
# |---|---|
# | 13, once | "RVQ", the format's version, 4 bytes of a checksum of the model, height, width, number of layers |
# | 8 before each layer | how many bytes follow, and a checksum of all bytes so far |
# | the rest of the layer | the indices of that stage |
#
# A codec that guesses is worse than one that refuses. A foreign file, a damaged one, one of another model or of a newer version raises `CodecError` with a sentence that says so:

# %% tags=["doubters"]
_flipped = bytearray(file)
_flipped[60] ^= 1  # a single bit
for _broken in (b"GIF89a", bytes(_flipped), b"RVQ\x09" + file[4:], codec.Codec(model).compress(cat)):
    try:
        codec.Codec(shipped).decompress(_broken)
    except codec.CodecError as _error:
        print(_error)
    else:
        raise AssertionError("it was read")

# %% [markdown]
# ### Fewer bits for what is expected
#
# Eight bits an index is what it takes if all indices are equally likely. If an index was expected with probability p, an **entropy coder** can write it in log₂ 1/p bits: few where it was nearly certain, and more than 8 where it was a surprise. So where does p come from? Perhaps from how often an index occurs on the training photos:

# %%
with torch.no_grad():
    grids = shipped.encode(crops[:1024], num_quantizers=1)[..., 0]  # of the first stage: (1024, 8, 8)
    cat_grid = shipped.encode(cat[None], num_quantizers=1)[0, ..., 0]
frequency = torch.bincount(grids.flatten(), minlength=256) + 1
bits = -(frequency / frequency.sum()).log2()[cat_grid]
print(f"{bits.mean():.2f} bits an index of the cat, by how often each occurs")

# %% tags=["claim"]
assert 7.5 < bits.mean() < 8.5

# %% [markdown]
# Nothing is gained: what is frequent in rockets and retinas isn't what is frequent in cats. (One was added to each count, for p = 0 would mean infinitely many bits: the first photo with that index could never be written.)
#
# But a patch looks much like the patch beside it, in every photo. Count how often each index k stands to the right of each index n, and p(k | n) tells more:

# %%
pairs = 256 * grids[:, :, :-1] + grids[:, :, 1:]
beside = torch.bincount(pairs.flatten(), minlength=256**2).view(256, 256)  # at [n, k]: how often k right of n

# %% [markdown]
# ### Exercise 3 · Implement · ★★☆ · 8 minutes
#
# How many bits does an index take if its left neighbour is known? As above, count every pair once more than it was seen. Then try it on the cat: `bits_given_left(beside, cat_grid[:, :-1].flatten(), cat_grid[:, 1:].flatten()).mean()`.


# %% tags=["exercise"]
def bits_given_left(beside, left, index):
    """Bits of each index, given the one on its left: counts (K, K), (N,), (N,) -> (N,)."""
    ### BEGIN SOLUTION
    counts = beside[left] + 1  # (N, K): what stood to the right of each left neighbour
    share = counts / counts.sum(1, keepdim=True)
    return -share[torch.arange(len(index)), index].log2()
    ### END SOLUTION


# %% [markdown] tags=["hint"]
# `beside[n]` is the row of all that stood to the right of n. Add one to each of its K counts, divide by the row's new sum, and the row holds p(k | n) for every k. Pick the k that came, and take −log₂.

# %%
check.bits_given_left(bits_given_left)

# %% tags=["claim"]
_counts = beside + 1
_given_left = -(_counts / _counts.sum(1, keepdim=True))[cat_grid[:, :-1], cat_grid[:, 1:]].log2().mean()
print(_given_left)
assert 5.5 < _given_left < 6.2

# %% [markdown]
# On the cat your function should find a mean of 5.9 bits, not 8. What is known about an index before it is read is called its **prior**. `IndexPrior` (`rvq_tutorial/autoencoder/prior.py`) is made of such pair counts. It starts with p(k), how often k occurs, and multiplies it by p(k | n) / p(k), to the power 0.6, for each neighbour n: the indices on the left and above, and those of the same patch one and two stages earlier (in the first stage, the one above on the right). (As neighbours repeat each other, none counts fully; in the end the products are divided by their sum.) The decoder has read the neighbours by then and expects the same, so nothing is lost: both files give the same picture to the last bit. The entropy coder's arithmetic is done by the library `constriction`.

# %%
coder = codec.Codec(shipped, shipped_prior)
shorter = coder.compress(cat)
print(f"{len(file):,} bytes without the prior, {len(shorter):,} with it")
assert torch.equal(codec.Codec(shipped).decompress(file), coder.decompress(shorter))  # the same picture
sizes = codec.info(shorter).layer_bytes
plots.bars({f"layer {n}": 8 * size / patches for n, size in enumerate(sizes, 1)}, label="bits an index")

# %% tags=["claim"]
assert len(shorter) < 0.8 * len(file) and 8 * sizes[0] / patches < 4.5 and min(sizes[1:]) > 1.3 * sizes[0]
assert all(1.3 < 8 - 8 * _size / patches < 2.2 for _size in sizes[1:])

# %% [markdown]
# The first stage gains most. What later stages refine looks more like noise, and the neighbours tell less of it: some one and a half to two of an index's eight bits.
#
# ### Every prefix is a file
#
# The first layers alone decode to the picture of the first stages. So a file may be cut short, or a download break off:

# %%
for stages in (1, 2, 4, 8):
    prefix = codec.truncate(shorter, stages)
    rate, quality = 8 * len(prefix) / cat[0].numel(), metrics.psnr(coder.decompress(prefix), cat)
    print(f"{stages} layers: {len(prefix):6,} bytes, {rate:.3f} bits per pixel, {quality:.2f} dB")

# %% [markdown]
# ### What is wrong here? · The prefix that isn't the best
#
# Somebody says: "the first layer of an 8-layer file is what a 1-layer file would hold". Think of the beam before you look:

# %% tags=["predict"]
for name, photo in photos.held_out.items():
    first_layer = coder.decompress(coder.compress(photo), num_quantizers=1)
    for_one_layer = coder.decompress(coder.compress(photo, num_quantizers=1))
    cut_down, own = metrics.psnr(first_layer, photo), metrics.psnr(for_one_layer, photo)
    print(f"{name}: first of eight layers {cut_down:.2f} dB, a file for one layer {own:.2f} dB")

# %% tags=["claim"]
for _photo in photos.held_out.values():
    _first = coder.decompress(coder.compress(_photo), num_quantizers=1)
    assert metrics.psnr(coder.decompress(coder.compress(_photo, 1)), _photo) > metrics.psnr(_first, _photo) + 0.1

# %% [markdown]
# The beam chooses the first codeword with all eight in view, and the best sum need not begin with the nearest codeword. With a greedy search the sentence would be true. Whoever wants a small file and nothing else should ask for it: `compress(photo, num_quantizers=1)`.
#
# In a terminal all this is
#
# ```
# python -m rvq_tutorial.codec compress cat.png cat.rvq --max-bytes 6000
# python -m rvq_tutorial.codec decompress cat.rvq again.png
# ```
#
# ## Stages where they are needed
#
# So far every patch got as many stages as every other, the blurred ground behind the cat as many as its whiskers. Let each patch stop by itself: from there on its index is −1, no stage.
#
# Which patches should stop? Put a **price** λ on a bit. Of all numbers of stages m, a patch takes the one that makes
#
# $$D_m + \lambda \cdot \text{bits}_m$$
#
# least, where D is the squared distance that m stages leave between the latent and the sum of codewords, and bits is 8 for each of the m indices, prior or not. A patch may buy a poor stage for a good one after it. As all patches see the same price λ, the last stages bought save, taken together, at least λ of error for each bit, and any further ones would save less. So, by this count, moving bits between patches can't lower the sum of D, the latents' error (Shoham and Gersho 1988).
#
# ### Exercise 4 · Implement · ★★☆ · 6 minutes
#
# Write the rule.


# %% tags=["exercise"]
def stages_at_price(error, bits, price):
    """How many stages each patch takes, 1 to M: errors after 1..M stages (N, M), their bits (M,), a price -> (N,)."""
    ### BEGIN SOLUTION
    cost = error + price * bits
    return cost.argmin(1) + 1
    ### END SOLUTION


# %% [markdown] tags=["hint"]
# Every row of `error` belongs to a patch, and `bits` is the same for all of them: adding broadcasts it. The first column is one stage, so mind where counting starts. Look at all M costs: a second stage that doesn't pay may make way for a third that does.

# %%
check.stages_at_price(stages_at_price)

# %% [markdown]
# In one search `encode_each` gives, for every m, the best indices that its beam finds, and the error that they leave. Raise the price and watch which patches give up first:


# %%
with torch.no_grad():
    paths, left = shipped.quantizer.encode_each(shipped.latents(cat[None]))  # (1, h, w, m, M), (1, h, w, m)


@torch.no_grad()
def at_price(price):
    """How many stages each patch of the cat buys, and what the cat looks like then."""
    indices = codec.stop_early(paths, left, 8 * price)
    num_stages = (indices >= 0).sum(-1)[0]
    height, width = cat.shape[1:]
    image = shipped.decode(indices)[0, :, :height, :width].clamp(0, 1)
    stage_map = (num_stages / 8).repeat_interleave(8, 0).repeat_interleave(8, 1)[:height, :width]
    first = f"stages of each patch, 1 dark, 8 bright\nmean {num_stages.float().mean():.1f}"
    titles = [first, f"price {price:g} a bit\n{metrics.psnr(image, cat):.2f} dB"]
    return plots.photo_row(torch.stack([stage_map.expand(3, -1, -1), image]), titles)


widgets.explore(at_price, price=[0.0, 0.001, 0.003, 0.01, 0.03, 0.1])

# %% [markdown]
# Whoever sends a photo has no price in mind but a number of bytes. So `compress` tries prices until the file just fits: `coder.compress(photo, max_bytes=6000)`. Where a patch stops is entropy-coded too: where its neighbours went on, it most likely does.
#
# Is that better than the same number of stages everywhere? Compare files of the same number of bytes, those of 2 and those of 4 stages:

# %%
for stages in (2, 4):
    for name, photo in photos.held_out.items():
        uniform = coder.compress(photo, num_quantizers=stages)
        fitted = coder.compress(photo, max_bytes=len(uniform))
        before, after = (metrics.psnr(coder.decompress(each), photo) for each in (uniform, fitted))
        print(f"{name:>8}, {len(uniform):6,} bytes: {stages} stages {before:.2f} dB, where needed {after:.2f} dB")

# %% tags=["claim"]
for _photo in photos.held_out.values():
    _uniform = coder.compress(_photo, num_quantizers=4)
    _fitted = coder.compress(_photo, max_bytes=len(_uniform))
    _before, _after = (metrics.psnr(coder.decompress(_file), _photo) for _file in (_uniform, _fitted))
    assert len(_fitted) <= len(_uniform) and _after > _before + 0.1
_two = {}
for _name, _photo in photos.held_out.items():
    _uniform = coder.compress(_photo, num_quantizers=2)
    _fitted = coder.compress(_photo, max_bytes=len(_uniform))
    _before, _after = (metrics.psnr(coder.decompress(_file), _photo) for _file in (_uniform, _fitted))
    _two[_name] = _after - _before
assert _two["coffee"] > 0.05 and -0.2 < _two["china"] < 0 and -0.2 < _two["chelsea"] < 0.05

# %% [markdown]
# With the bytes of 4 stages it pays on every photo. With those of 2 it loses a little on two of three: nearly every patch can use a second stage, so little is left to share out, and where a patch stops must be written too. Then keep the uniform file. What the rule gives in any case is *every* size, not eight of them.
#
# ## Your own photo, beside JPEG, WebP and AVIF

# %% [markdown] tags=["kernel"]
# Press the button and choose a photo. Then run the next cells once more. (Until then they show the held-out cup of coffee. A photo larger than 640 pixels is made smaller, to be quick.)

# %% tags=["kernel"]
upload = widgets.Upload()
upload

# %%
chosen = upload.photo(photos.held_out["coffee"])
scale = min(1, 640 / max(chosen.shape[1:]))
sides = [math.ceil(scale * side) for side in chosen.shape[1:]]
mine = F.interpolate(chosen[None], sides, mode="bilinear", antialias=True)[0].clamp(0, 1)
print(f"{sides[0]} × {sides[1]} pixels")

# %% [markdown]
# A fair comparison takes **files of the same number of bytes**, every header counted. Ours are made to size. The others have settings: `best_within` tries their qualities, and with JPEG four sets of further settings. Of the files that aren't larger than ours may be it keeps the one of the highest PSNR; where there is none, the smallest. AVIF works here at the speed that Pillow sets, not at its most thorough, so you needn't wait for minutes.
#
# PSNR knows only squared errors. **SSIM** (Wang et al. 2004) compares means, variances and covariances in small windows, 1 for equal pictures; it follows the eye a little better.

# %%
least, most = (len(coder.compress(mine, num_quantizers=stages)) for stages in (1, 8))
compared = {}
for num_bytes in (least, round(math.sqrt(least * most)), most):
    mine_coded = coder.compress(mine, max_bytes=num_bytes)
    compared[num_bytes] = {f"ours\n{len(mine_coded):,} bytes": coder.decompress(mine_coded)}
    for kind in rivals.KINDS:
        rival_coded = rivals.best_within(mine, kind, num_bytes)
        compared[num_bytes][f"{kind}\n{len(rival_coded):,} bytes"] = rivals.decode(rival_coded)


def side_by_side(num_bytes):
    """The photo at one size, from our file and from the others', and itself."""
    images = compared[num_bytes]
    quality = {
        name: f"{metrics.psnr(image, mine):.1f} dB, {likeness.ssim(image, mine):.2f}" for name, image in images.items()
    }
    titles = [f"{name}\n{quality[name]}" for name in images] + ["the photo itself\n \nPSNR, SSIM"]
    return plots.photo_row(torch.stack([part(image) for image in (*images.values(), mine)]), titles)


widgets.explore(side_by_side, num_bytes=list(compared))

# %% [markdown]
# Move the slider to the left. There JPEG falls into blocks of a single colour, or can't make a file so small; ours turns soft. Now to the right: the others become sharp, and ours stops getting better. Our encoder kept 19 numbers of a patch and let go of the rest; more stages describe those 19 better, and nothing else. And AVIF is ahead of all.
#
# ## The honest curve
#
# One photo is an anecdote. Here are all three held-out photos. Our points are made now; those of the others were measured by a command, each kind at its most thorough, AVIF too: one file then takes it seconds instead of a fraction of a second.

# %%
theirs = measured.read("rivals")
print(theirs)
RATES = (0.08, 0.12, 0.18, 0.27, 0.4, 0.6)  # bits per pixel


def our_point(photo, rate):
    """(bits per pixel, PSNR) of our largest file within that rate."""
    coded = coder.compress(photo, max_bytes=int(rate * photo[0].numel() / 8))
    return 8 * len(coded) / photo[0].numel(), metrics.psnr(coder.decompress(coded), photo)


curves = {}
for name, photo in photos.held_out.items():
    curves[name] = {"ours": tuple(zip(*(our_point(photo, rate) for rate in RATES), strict=True))}
    for kind, rival in theirs.results[name].items():
        points = {float(rate): quality for rate, quality in rival.items() if float(rate) < 0.65}
        curves[name][kind] = list(points), list(points.values())


def rate_curve(photo):
    """PSNR against bits per pixel of one held-out photo."""
    return plots.quality(curves[photo], title=f"{photo}, every byte of the file counted")


widgets.explore(rate_curve, photo=list(curves))

# %%
for kind in rivals.KINDS:
    for name, curve in curves.items():
        rates, quality = curve["ours"]
        ahead = quality - np.interp(rates, *curve[kind], left=math.nan)  # nan: it has no file so small
        print(f"ours minus {kind}, {name:>8}:", " ".join(f"{gain:6.2f}" for gain in ahead), "dB")
for name, photo in photos.held_out.items():
    whole, rival = metrics.psnr(coder.decompress(coder.compress(photo)), photo), theirs.results[name]["JPEG"]["1.0"]
    print(f"{name:>8}: all eight stages of ours {whole:.2f} dB, JPEG of 1 bit per pixel {rival:.2f} dB")

# %% tags=["claim"]
_ahead = {}
for _kind in rivals.KINDS:
    for _name, _curve in curves.items():
        _rates, _quality = (np.array(_values) for _values in _curve["ours"])
        _ahead[_kind, _name] = _quality - np.interp(_rates, *_curve[_kind], left=np.nan)
assert all((_ahead["JPEG", _name][1:4] > 0.3).all() for _name in curves)
assert (_ahead["WebP", "chelsea"][1:5] > 0.3).all() and np.nanmax(_ahead["WebP", "china"]) < -0.3
assert (_ahead["WebP", "coffee"][2:4] > 0).all() and (_ahead["WebP", "coffee"][4:] < -0.3).all()
assert all((_ahead["AVIF", _name] < -0.3).all() for _name in curves)
assert abs(_ahead["WebP", "chelsea"][5]) < 0.3 and _ahead["JPEG", "china"][5] < -0.3
for _name, _photo in photos.held_out.items():
    _best = metrics.psnr(coder.decompress(coder.compress(_photo)), _photo)
    assert theirs.results[_name]["JPEG"]["1.0"] > _best + 0.3

# %% [markdown]
# - **AVIF is ahead of ours** at every size, on every photo: by half a decibel to two on the cat, by more on the others.
# - **Ours is ahead of JPEG** up to a quarter of a bit per pixel, on each photo. (In colour; there are smaller JPEGs in grey.)
# - **Ours and WebP are close.** On the cat, soft fur and blurred ground, ours is ahead up to 0.4 bit; on the coffee it is ahead up to a quarter of a bit; on the temple, full of fine lines, WebP is ahead wherever it has a file.
# - **Large files are not ours.** At 0.6 bit WebP has caught up on the cat and is ahead on the others, and JPEG is ahead on the temple. JPEG of 1 bit is ahead of all eight stages on every photo, and they are our ceiling. Theirs are far higher. Ours kept 19 numbers of 192.
#
# Seven training photos, a network of a page and a prior of counted pairs, against decades of engineering: there is much to gain still. Larger latents for more bits, more photos to train on, a network that foresees the indices.
#
# ### Exercise 5 · Explore · ★★★ · 8 minutes
#
# From which rate on does JPEG win? `ours` and `jpeg` are lists of points (bits per pixel, PSNR), each in rising order. Return the first of *our* rates at which JPEG, read off the straight lines between its points, is at least as good, even if ours is ahead again later. Below its smallest file JPEG has nothing to show, so there it can't win. Where it never wins, return `math.inf`. Then try it on `curves`: `list(zip(*curves["china"]["ours"]))` are such points.


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
# - One model serves eight bitrates, from ⅛ bit to 1 bit per pixel. The held-out PSNR rises with every stage, by more than 4 dB from the first to the eighth.
# - For that a single stage pays 0.3 to 0.5 dB, against a model of its own. Without dropout it would pay 0.4 to 0.7 dB more.
# - Without commitment the error of rounding more than doubles; with sixteen times as much it halves, and the picture is worse.
# - How often an index occurs told nothing about the cat: 8 bits. Its left neighbour tells two of the eight bits of a first-stage index.
# - One price for all bits makes a better picture of the bytes of 4 stages, and gives every size.
# - The file is real. Up to a quarter of a bit per pixel it is better than JPEG on all three photos, and close to WebP. AVIF is better everywhere.
#
# ## Self-test
#
# **1.** With a greedy search, why are the first two of the 8 indices the same that a 2-stage encoder would give?
#
# <details><summary>Answer</summary>
#
# The search goes stage by stage: the first index depends on the latent alone, the second on what the first left over. No later stage is asked. A beam search, which keeps several candidates, may choose a different first codeword because of a later one; then a prefix isn't what a shorter encoder would give.
#
# </details>
#
# **2.** Quantizer dropout is switched off. Is the 8-stage picture spoiled?
#
# <details><summary>Answer</summary>
#
# No: training then spends all its steps on the 8-stage picture, which becomes a little better. What suffers are the short prefixes, which the decoder never met in training. Saying that "without dropout only 8 stages can be decoded" is wrong as well: prefixes still decode, only worse.
#
# </details>
#
# **3.** The picture from 8 stages is a little below that from unrounded latents. Could 16 stages exceed it?
#
# <details><summary>Answer</summary>
#
# It is tempting to say no, since no sum of codewords tells more than the latent itself. But the decoder has learned to read sums of codewords, not latents, so its picture of the latent is no limit: without commitment we saw it fall below the picture from codewords. What is true: more stages bring the sum closer to the latent, so the two pictures become alike. And none brings back what the encoder left out.
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
# **5.** Two patches have stopped. A stage more would take 3 off the error of the first and 2 off that of the second, at 8 bits each. What does the price tell, and which should get the 8 bits that are left over?
#
# <details><summary>Answer</summary>
#
# That neither is worth it: 8 λ is above 3. If there are 8 bits left over, the price was too high. Lower it to just below 3/8 a bit, and the first patch buys. It would be wrong to give each patch 4 bits, or to serve the worse patch first: what counts is the error that a bit takes away.
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

# %% [markdown] tags=["kernel"]
# ## What you have solved
#
# Here end the seven notebooks, where a real codec begins. ✓ stands at each exercise of the course that its check has accepted.

# %%
check.progress()
