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
# - make one model decode from any number of stages;
# - find out what the quantizer costs, by taking it out.
#
# **You need** notebook 02 (straight-through, codebook and commitment loss) and 04 (residual stages, prefixes); from PyTorch: convolutions, a training loop.
#
# **Time.** It runs in {{run_time}}, most of it training. Reading takes 25 minutes, the three exercises about 20.

# %%
import torch
import torch.nn.functional as F

from rvq_tutorial import ResidualVectorQuantizer, check, data, metrics, plots, widgets
from rvq_tutorial.models import VQVAE, Decoder, Encoder
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
# The **encoder** is a stack of convolutions. It turns every patch of 8 × 8 pixels into one vector of 20 components, the **latent** z. The **decoder** is its mirror image: latents back to pixels. Between them stands the residual quantizer of notebook 04, with 8 stages of 256 codewords.
#
# `channel_dim=1` tells it that the components lie along the second axis, as convolutions have them.

# %%
encoder, decoder = Encoder(dim=20), Decoder(dim=20)
quantizer = ResidualVectorQuantizer(20, 256, num_quantizers=8, channel_dim=1, quantize_dropout=0.5)
model = VQVAE(encoder, quantizer, decoder)

latents = encoder(crops[:1])
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
# ## Train for every prefix at once
#
# If training always used all 8 stages, the decoder would never see what 2 stages give, and would make little of it. So for half of the crops, chosen anew in every step, only the first m stages are used, with m drawn from 1 to 8. This is **quantizer dropout** (Zeghidour et al. 2021, *SoundStream*, section III-C); it is `quantize_dropout=0.5` above.
#
# A stage that was dropped leaves the index −1, which `decode` skips:

# %%
model.train()
some_indices = quantizer(encoder(crops[:6]).detach()).indices[:, 0, 0]  # of each crop's first latent
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
# (The curve is rough because every batch is different, and because half of each batch is rebuilt from fewer stages.)
#
# ## The picture sharpens
#
# A photo the model has never seen, from 1, 2, 4 and 8 stages. It is the same model and the same indices every time: the shorter ones are the first entries of the longer ones.


# %%
@torch.no_grad()
def rebuilt(photo, num_quantizers):
    """A photo (3, H, W) after the round trip through its first stages."""
    return model(photo[None], num_quantizers=num_quantizers).reconstruction[0].clamp(0, 1)


def described(photo, num_quantizers):
    """Stages, rate and quality in words."""
    quality = metrics.psnr(rebuilt(photo, num_quantizers), photo)
    rate = metrics.bits_per_pixel(256, num_quantizers, stride=8)
    return f"{num_quantizers} of 8 stages\n{rate:.3f} bits per pixel\n{quality:.1f} dB"


def part(photo):
    """A square of 224 pixels from the middle of a photo, or less of a small one, to look at closely."""
    top, left = (max(0, (side - 224) // 2) for side in photo.shape[1:])
    return photo[:, top : top + 224, left : left + 224]


# %% tags=["readme-picture"]
cat = photos.held_out["chelsea"]
views = [part(rebuilt(cat, stages)) for stages in (1, 2, 4, 8)] + [part(cat)]
titles = [described(cat, stages) for stages in (1, 2, 4, 8)] + ["the photo itself\n24 bits per pixel\n "]
plots.photo_row(torch.stack(views), titles, caption="A held-out photo rebuilt from 1, 2, 4 and 8 stages, and itself.")

# %% [markdown]
# In numbers, as the mean over the three held-out photos, at every number of stages:


# %%
def mean_psnr(num_quantizers):
    """Mean PSNR over the held-out photos, in dB."""
    qualities = [metrics.psnr(rebuilt(photo, num_quantizers), photo) for photo in photos.held_out.values()]
    return sum(qualities) / len(qualities)


psnr = torch.tensor([mean_psnr(stages) for stages in range(1, 9)])
gains = psnr.diff()
print("stages 1 to 8:", "  ".join(f"{quality:.2f}" for quality in psnr), "dB")
print("gain of each: ", "      ", "  ".join(f"{gain:5.2f}" for gain in gains), "dB")
assert (gains > 0).all() and psnr[-1] - psnr[0] > 4

# %% [markdown]
# Each stage helps, and each helps less than the one before: it refines what is left, and less is left every time.
#
# ### What does the quantizer cost?
#
# Take it out: hand the decoder the latents as they are. That is the same autoencoder without any rounding, and a limit for all stages to come.


# %%
@torch.no_grad()
def bypassed(photo):
    """A photo after encoder and decoder alone."""
    height, width = photo.shape[1:]
    return decoder(model.latents(photo[None]))[0, :, :height, :width].clamp(0, 1)


limit = sum(metrics.psnr(bypassed(photo), photo) for photo in photos.held_out.values()) / 3
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

models = {256: model}
for size in (16, 64):
    smaller = ResidualVectorQuantizer(20, size, num_quantizers=8, channel_dim=1).fit(training_latents).eval()
    models[size] = VQVAE(encoder, smaller, decoder)


# %%
@torch.no_grad()
def sharpened(codebook_size, num_quantizers):
    """The cat from that many stages of that many codewords, beside the photo."""
    image = models[codebook_size](cat[None], num_quantizers=num_quantizers).reconstruction[0].clamp(0, 1)
    rate = metrics.bits_per_pixel(codebook_size, num_quantizers, stride=8)
    title = f"M = {num_quantizers}, K = {codebook_size}\n{rate:.3f} bits per pixel, {metrics.psnr(image, cat):.1f} dB"
    return plots.photo_row(torch.stack([part(image), part(cat)]), [title, "the photo itself\n24 bits per pixel"])


widgets.explore(sharpened, codebook_size=[16, 64, 256], num_quantizers=[1, 2, 3, 4, 6, 8])

# %% [markdown]
# Compare M = 4, K = 256 with M = 8, K = 16: both take 32 bits for a latent. Before you look: which is sharper?


# %%
@torch.no_grad()
def quality_of(size, stages):
    """Mean PSNR over the held-out photos, in dB, with that many codewords and stages."""
    outputs = {name: models[size](photo[None], num_quantizers=stages) for name, photo in photos.held_out.items()}
    pairs = [(outputs[name].reconstruction[0].clamp(0, 1), photo) for name, photo in photos.held_out.items()]
    return sum(metrics.psnr(image, photo) for image, photo in pairs) / len(pairs)


few_large, many_small = quality_of(256, 4), quality_of(16, 8)
print(f"4 stages of 256: {few_large:.2f} dB, 8 stages of 16: {many_small:.2f} dB, both {4 * 8} bits a latent")
assert few_large > many_small

# %% [markdown]
# Fewer, larger codebooks win at equal bits, as notebook 04 found on simpler data: a large codebook places its codewords freely, a sum of small ones is bound to a pattern. The many small ones take less memory and time.
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
# No collapse. The first stage is the most uneven: skies and walls are alike, and many patches share a few codewords. An entropy coder, which gives short bit strings to frequent indices, can use that; the bits counted above take every index as equally likely.
#
# ## Your own photo
#
# Put the path of a picture in place of `None`, as in `"holiday.jpg"`, and run the cell again.

# %%
path = None
mine = data.read_photo(path) if path else photos.held_out["china"]
views = [part(rebuilt(mine, stages)) for stages in (1, 2, 4, 8)] + [part(mine)]
titles = [described(mine, stages) for stages in (1, 2, 4, 8)] + ["the photo itself\n24 bits per pixel\n "]
plots.photo_row(torch.stack(views), titles, caption="The middle of the photo, rebuilt from 1, 2, 4 and 8 stages.")

# %% [markdown]
# ## What we saw
#
# - One model serves eight bitrates, from 1/8 bit to 1 bit per pixel. The held-out PSNR rises with every stage, by more than 4 dB from the first to the eighth.
# - At 8 stages less than 1 dB is missing to the same autoencoder without a quantizer.
# - At equal bits, 4 stages of 256 codewords beat 8 stages of 16.
# - More than four fifths of every stage's codewords are used on photos never seen.
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
# **3.** The picture from 8 stages is 0.7 dB below the bypass. Would 16 stages exceed the bypass?
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
# ## Where to read on
#
# - N. Zeghidour et al., *SoundStream: An End-to-End Neural Audio Codec* (2021), arXiv:2107.03312: residual quantizer and quantizer dropout, section III-C.
# - A. van den Oord, O. Vinyals, K. Kavukcuoglu, *Neural Discrete Representation Learning* (2017), arXiv:1711.00937: the VQ-VAE, eq. 3.
# - D. Lee et al., *Autoregressive Image Generation using Residual Quantization* (2022), arXiv:2203.01941: residual quantization of images.
# - R. Kumar et al., *High-Fidelity Audio Compression with Improved RVQGAN* (2023), arXiv:2306.06546: dropout for a share of the samples, as here.
