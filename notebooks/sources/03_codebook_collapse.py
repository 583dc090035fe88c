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
# # 03 · Why do most codewords die?
#
# **The question.** Ask for 64 codewords, train, and find that a handful of them do all the work. Nearly everybody who trains a vector quantizer meets this first. It is called **codebook collapse**. Why does it happen, and what helps?
#
# **You will be able to**
# - measure how well a codebook is used, over a whole set, and say how the same number per batch misleads;
# - explain why a codeword that nobody uses stays unused;
# - derive the moving average that most libraries train their codebooks with, in a form that needs no division of two sums;
# - repair a collapsed codebook in three ways, and read off an experiment what each of them buys;
# - recognise four bugs in the repairs, all found in the code of a well-known codec, and mend one.
#
# **You need** notebook 01 (k-means, held-out data) and notebook 02 (encoder and decoder, straight-through, codebook loss and commitment loss, `VectorQuantizer`).
#
# **Time.** It runs in {{run_time}}. Reading takes half an hour, the five exercises another half.

# %%
import copy
import itertools
import math

import torch
import torch.nn.functional as F
from torch import nn

from rvq_tutorial import VectorQuantizer, check, data, kmeans, metrics, nearest, plots, widgets

torch.set_num_threads(1)  # the networks here are so small that threads would only wait for each other
_ = torch.manual_seed(0)  # the same numbers in every run

# %% [markdown]
# ## A network with a lookup in it
#
# Notebook 02 ended with a linear encoder, a quantizer and a linear decoder. We build the same network for photos. A photo is cut into patches of 4 × 4 pixels, each 48 numbers. The encoder makes a short vector x of a patch, the quantizer puts a codeword in its place, the decoder rebuilds the patch.


# %%
def patches(split, num_crops, seed):
    """Patches of photo crops of 64 × 64 pixels, one a row: (256 · num_crops, 48)."""
    crops = data.photo_crops(64, num_crops, seed, split)
    return F.unfold(crops, kernel_size=4, stride=4).transpose(1, 2).flatten(0, 1)  # unfold cuts, each patch a column


train, held_out = patches("train", 64, seed=0), patches("held_out", 24, seed=1)
variance = train.var()
print(f"{len(train):,} patches to train on, {len(held_out):,} of other photos")

# %% [markdown]
# The quantizer has 64 codewords, so a patch costs 6 bits. It learns the plain way of notebook 02: `"gradient"` lets the codebook loss move the codewords, and a threshold of 0 leaves alone those that nobody uses.

# %%
PLAIN = {"codebook_update": "gradient", "dead_code_threshold": 0}


def network(dim, codebook_size=64, seed=0, **settings):
    """A linear encoder of patches to `dim` numbers, a quantizer and a linear decoder."""
    torch.manual_seed(seed)
    quantizer = VectorQuantizer(dim, codebook_size, **settings)
    return nn.ModuleList([nn.Linear(48, dim), quantizer, nn.Linear(dim, 48)])


# %% [markdown]
# And the training loop. The reconstruction's error is divided by the variance of the patches, so that 1 means "no better than one and the same grey for all". To look back later, `learn` hands out copies of the network at the steps named in `keep`.


# %%
def learn(network, keep=(), steps=300):
    """Train on random batches of 128 patches -> {step: a copy of the network as it was before that step}."""
    encoder, quantizer, decoder = network.train()
    optimizer = torch.optim.Adam(network.parameters(), lr=3e-3, fused=True)  # fused: the same, in fewer steps
    kept = {}
    for step in range(steps):
        if step in keep:
            kept[step] = copy.deepcopy(network)
        batch = train[torch.randint(len(train), (128,))]
        output = quantizer(encoder(batch))
        loss = F.mse_loss(decoder(output.quantized), batch) / variance + output.loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return kept | {steps: network.eval()}


# %% [markdown]
# Nothing here is unusual: PyTorch's own starting weights, Adam at a common learning rate, codewords drawn from a normal distribution, the losses of the paper with β = 0.25. First with `dim=2`. Two numbers are few for a patch of 48, but we can look at them.


# %%
@torch.no_grad()
def cells(network, title=""):
    """The encoder's outputs for every fourth held-out patch, and the codewords."""
    encoder, quantizer, _ = network
    return plots.voronoi(encoder(held_out[::4]), quantizer.codebook, title=title)


plain = network(dim=2, **PLAIN)
path = learn(plain, keep=[0, 5, 10, 20, 40, 80, 160])
cells(plain, title="After 300 steps")

# %% [markdown]
# There it is: look at the colours of the crosses. A handful of codewords stand in the data and divide it among themselves. The grey ones are **dead**: no vector chooses them. We pay 6 bits a patch, and most of what they could name is never named.
#
# ## Count them, all of them
#
# The **usage** of a codebook is the share of its codewords that at least one vector chooses. We count over all training patches: a codeword is alive if anything in the data needs it. `encode` looks up indices and changes nothing in the layer.

# %%
encoder, quantizer, _ = plain
with torch.no_grad():
    indices = quantizer.encode(encoder(train))

used = len(indices.unique())
print(f"{used} of 64 codewords are used, a usage of {used / 64:.0%}")
assert used / 64 == metrics.usage(indices, 64) and used <= 21

# %% [markdown]
# ### Exercise 1 · Predict · ★☆☆ · 3 minutes
#
# Training logs often show the usage of the last *batch*. So suppose that a codebook of 64 is used perfectly: every vector chooses any codeword with the same chance. A batch has 64 vectors. What usage will the log show, on average? Write your prediction as a number from 0 to 1.


# %% tags=["exercise"]
def seen_in_batch():
    """The expected share of 64 equally likely codewords that occur among 64 vectors."""
    ### BEGIN SOLUTION
    return 1 - (1 - 1 / 64) ** 64
    ### END SOLUTION


# %% [markdown] tags=["hint"]
# Take one codeword. The chance that one given vector does *not* choose it is 63/64. What is the chance that none of the 64 vectors does?

# %%
check.seen_in_batch(seen_in_batch)

# %% [markdown]
# Drawn instead of calculated, 1,000 such batches:

# %%
batches = torch.randint(64, (1000, 64))
shown = sum(metrics.usage(batch, 64) for batch in batches) / len(batches)
print(f"usage per batch, on average: {shown:.1%}; usage over all batches: {metrics.usage(batches, 64):.0%}")
assert abs(shown - 0.635) < 0.01 and metrics.usage(batches, 64) == 1

# %% [markdown]
# A perfect codebook looks as if a third of it were dead. Usage has the opposite fault too: over the whole set a codeword that one vector chose counts as much as one that thousands chose. Here is how often ours are chosen:

# %%
plots.code_usage(torch.bincount(indices, minlength=64))

# %% [markdown]
# ### Perplexity
#
# A number that counts codewords by their weight is the **perplexity**. Let $p_k$ be the share of the vectors that choose codeword k. Their entropy $H$ says how many bits an index really tells us, and the perplexity says how many codewords, all used equally, would tell as much (Shannon 1948; Cover & Thomas, eq. 2.1, for $H$):
#
# $$H = -\sum_k p_k \log_2 p_k, \qquad \text{perplexity} = 2^H$$
#
# It is K when all are used alike, and 1 when one does everything.
#
# ### Exercise 2 · Implement · ★★☆ · 5 minutes
#
# Write it. Codewords that don't occur add nothing to the sum.


# %% tags=["exercise"]
def perplexity(indices, codebook_size):
    """How many equally used codewords tell as much as these indices, a tensor of any shape: -> a number."""
    ### BEGIN SOLUTION
    share = torch.bincount(indices.flatten(), minlength=codebook_size) / indices.numel()
    share = share[share > 0]
    return 2 ** -(share * share.log2()).sum()
    ### END SOLUTION


# %% [markdown] tags=["hint"]
# `torch.bincount(indices.flatten(), minlength=codebook_size)` counts. In floating point 0 · log 0 is not a number, so leave the zeros out before you take the logarithm. Base 2 in the logarithm wants base 2 in the power.

# %%
check.perplexity(perplexity)

# %% [markdown]
# The package has it as `metrics.perplexity`. Now batches of growing size, from the perfect codebook and from ours; each point is the mean over 200 batches.


# %%
def batch_perplexity(indices, size):
    """Mean perplexity of 200 random batches of this size."""
    batches = indices[torch.randint(len(indices), (200, size))]
    return sum(metrics.perplexity(batch, 64) for batch in batches) / len(batches)


sizes = [8, 16, 32, 64, 128, 256, 512, 1024]
sources = {"perfect codebook": torch.randint(64, (len(train),)), "our codebook": indices}
curves = {name: [batch_perplexity(source, size) for size in sizes] for name, source in sources.items()}
plots.lines(sizes, curves, xlabel="vectors in the batch", ylabel="mean perplexity of a batch", log_x=True)

# %% [markdown]
# The perfect codebook has perplexity 64, and a batch of 64 shows 36.5. A small batch shows a low perplexity in either case, whether the codebook is badly used or the batch can't hold more of it. Real batches mislead still more. They hold neighbouring patches of a few photos, and those resemble each other:

# %%
whole = metrics.perplexity(indices, 64)
one_photo = [metrics.perplexity(crop, 64) for crop in indices.view(64, 256)]  # the 256 patches of each crop
print(f"256 patches at random: {curves['our codebook'][5]:.1f}, of one photo: {sum(one_photo) / 64:.1f}")
print(f"all {len(train):,} patches: {whole:.1f}")
assert sum(one_photo) / 64 < 0.8 * whole and abs(curves["perfect codebook"][3] - 36.5) < 1

# %% [markdown]
# So: **usage and perplexity over a whole set**, or a running average over many batches, never of one batch. From here on `report` measures both over all training patches, and the error on held-out ones.


# %%
@torch.no_grad()
def report(network):
    """Usage and perplexity over all training patches, mean squared error over all held-out ones."""
    encoder, quantizer, decoder = network.eval()
    indices = quantizer.encode(encoder(train))
    rebuilt = decoder(quantizer.decode(quantizer.encode(encoder(held_out))))
    return {
        "usage": metrics.usage(indices, quantizer.codebook_size),
        "perplexity": metrics.perplexity(indices, quantizer.codebook_size),
        "held-out MSE": F.mse_loss(rebuilt, held_out).item(),
    }


def told(measured):
    """A report in one line."""
    usage, perplexity, error = measured.values()
    return f"usage {usage:4.0%}, perplexity {perplexity:4.1f}, held-out MSE {error:.4f}"


print(told(report(plain)))

# %% [markdown]
# ## Why
#
# What does the loss tell the dead? We take the gradient of the quantizer's loss by every codeword, from *all* training patches at once.

# %%
(gradient,) = torch.autograd.grad(quantizer(encoder(train)).loss, quantizer.codebook)
counts = torch.bincount(indices, minlength=64)

print(f"{(counts == 0).sum()} codewords are chosen by no patch, {(gradient == 0).all(1).sum()} have gradient 0")
assert torch.equal(counts == 0, (gradient == 0).all(1))

# %% [markdown]
# Exactly the dead get nothing. The losses contain $\|x - c_k\|^2$ only for the codeword $c_k$ that x chose, so a codeword that no x chose doesn't occur in them at all. It isn't that the pull is weak because the codeword is far away. There is no pull. Adam doesn't move what never had a gradient, so the dead should stand where they were drawn, to the last bit:

# %%
unmoved = (path[0][1].codebook == path[300][1].codebook).all(1).sum()
print(f"{unmoved} of 64 codewords have never moved in 300 steps")
assert unmoved >= 32

# %% [markdown]
# Move through the training, and watch three things.
#
# 1. **Step 0.** The encoder's outputs are one small cloud, the codewords lie all around. The cloud reaches into a few cells only.
# 2. **The next steps.** Those few codewords and the cloud approach each other. Now every vector has a codeword close by, and the others are even less likely to be the nearest. Being chosen makes a codeword better, and being better gets it chosen.
# 3. **Later.** The decoder needs different vectors for different patches, so the cloud grows. Where it sweeps over a codeword that waited there, that one comes to life. Those farther out it never reaches.

# %%
widgets.explore(lambda step: cells(path[step], title=f"Step {step}"), step=list(path))

# %%
spread = {step: encoder(train).std(0).mean().item() for step, (encoder, *_) in path.items()}
print("spread of the encoder's outputs:", ", ".join(f"{value:.2f} at step {step}" for step, value in spread.items()))
assert spread[0] < 0.4 and spread[300] > 1.5 * spread[0]

# %% [markdown]
# ### Is this rigged?
#
# Would a better draw of the first codewords have avoided it? Before training nobody knows how large the encoder's outputs will be, where they will lie, or how they will move. Some libraries draw codewords with a spread of 1, as ours does; others within ±1/K, much closer together. Each suits some encoder, and hardly the next one. Whenever the two sizes differ, a few cells hold all the data.
#
# And two dimensions are a mild case. With more there is more room to be far away. The same network with `dim=8`, which can carry more about a patch:

# %%
watched = [0, 10, 20, 40, 80, 160]
paths = {"random start": learn(network(dim=8, **PLAIN), keep=watched)}
plain_report = report(paths["random start"][300])
print("dim = 2:", told(report(plain)))
print("dim = 8:", told(plain_report))
assert plain_report["usage"] < 0.2 and plain_report["perplexity"] < 10

# %% [markdown]
# From here on we stay with 8 numbers a patch. This is the codebook to repair.
#
# ## Repair 1 · Start where the data is
#
# The cure that suggests itself: put the codewords among the vectors before the first step. Notebook 01 has the tool, k-means. The layer's `fit` does just this:

# %%
started = network(dim=8, **PLAIN)
encoder, quantizer, _ = started
outputs = encoder(train[::8]).detach()  # 2,048 patches

torch.manual_seed(1)
by_hand = kmeans(outputs, 64).centroids
torch.manual_seed(1)
quantizer.fit(outputs)
assert torch.equal(quantizer.codebook, by_hand)
print(told(report(started)))

# %% [markdown]
# At step 0 nearly every codeword is in use. (The error is large because the decoder has learned nothing yet.) Now train, and measure along the way:

# %%
assert report(started)["usage"] > 0.9
paths["k-means start"] = learn(started, keep=watched)


def usage_along(paths):
    """The usage at every step that was kept, for each path."""
    return {name: [report(kept)["usage"] for kept in path.values()] for name, path in paths.items()}


usage = usage_along(paths)
assert usage["k-means start"][-1] < 0.6
plots.lines([*watched, 300], usage, xlabel="step", ylabel="usage", title="A good start does not last")

# %%
spread = {step: encoder(train).std(0).mean().item() for step, (encoder, *_) in paths["k-means start"].items()}
print(f"spread of the encoder's outputs: {spread[0]:.2f} at step 0, {spread[300]:.2f} at step 300")
assert spread[300] > 4 * spread[0]

# %% [markdown]
# For data that stand still this is all there is to do: the codebooks of notebook 01 were nothing but k-means. But here k-means fitted the outputs of an encoder that had learned nothing. Training moved them and made their cloud several times larger. The codewords, close together, followed too slowly; the first to be reached took everything, and those behind them were nearest to nothing any more. A start is no cure for a target that moves.
#
# ## Repair 2 · Follow by moving average
#
# If the codewords are too slow, let them move faster. A codeword's best place is known: the mean of the vectors that choose it. There is no need to go there by gradient. The appendix of the VQ-VAE paper (van den Oord et al. 2017, A.1) keeps, for every codeword, an **exponential moving average** (EMA) of the number $n$ of vectors that chose it in a batch, and one of their sum, and takes the quotient:
#
# $$\bar n \leftarrow \gamma \bar n + (1 - \gamma)\, n, \qquad \bar s \leftarrow \gamma \bar s + (1 - \gamma) \sum_{i=1}^{n} x_i, \qquad c = \bar s / \bar n$$
#
# The decay γ, usually 0.99, says how much of the past is kept: the average looks back over about 1 / (1 − γ) = 100 batches.


# %%
def textbook_step(codebook, sums, counts, x, decay=0.99):
    """Both averages, and with them the codebook, follow the batch x: -> codebook, sums, counts."""
    indices = nearest(x, codebook)
    batch_counts = torch.bincount(indices, minlength=len(codebook)).to(x)  # as precise as x
    batch_sums = torch.zeros_like(codebook).index_add(0, indices, x)
    counts = decay * counts + (1 - decay) * batch_counts
    sums = decay * sums + (1 - decay) * batch_sums
    return sums / counts.clamp_min(1e-5)[:, None], sums, counts  # never divide by zero


# %% [markdown]
# ### The same without a sum
#
# Two averages that only make sense as a quotient are one too many; we will meet three bugs that live in the gap between them. So put the second formula into the third. The old sum is $\bar s_{\text{old}} = \bar n_{\text{old}}\, c_{\text{old}}$, and by the first formula $\gamma \bar n_{\text{old}} = \bar n - (1 - \gamma)\, n$:
#
# $$c = \frac{\gamma \bar n_{\text{old}}\, c_{\text{old}} + (1 - \gamma) \sum x_i}{\bar n} = \frac{\left(\bar n - (1 - \gamma)\, n\right) c_{\text{old}} + (1 - \gamma) \sum x_i}{\bar n}$$
#
# $$c = c_{\text{old}} + \frac{1 - \gamma}{\bar n} \sum_{i=1}^{n} \left(x_i - c_{\text{old}}\right)$$
#
# A codeword moves by its vectors' errors. It needs no sum, only itself and n̄. Our package keeps it so, and in place of n̄ it keeps an average of each codeword's *share* of all vectors, which doesn't depend on the size of the batch: n̄ is that share times the number of vectors in a batch. In code this share is called `usage`, one number for each codeword; the usage of a whole codebook, above, counted how many of these are above 0.
#
# ### Exercise 3 · Implement · ★★☆ · 7 minutes
#
# Write one step in this form. `usage` holds the moving average of each codeword's share. First update it, then move the codewords with it. A codeword whose usage is 0 stays where it is.


# %% tags=["exercise"]
def ema_step(codebook, usage, x, indices, decay):
    """(K, dim), (K,), (N, dim), (N,), a number -> the new codebook and the new usage."""
    ### BEGIN SOLUTION
    counts = torch.bincount(indices, minlength=len(codebook))
    error_sums = torch.zeros_like(codebook).index_add(0, indices, x - codebook[indices])
    usage = decay * usage + (1 - decay) * counts / len(x)
    step = (1 - decay) / (usage * len(x)).clamp_min(1e-30)
    return codebook + step[:, None] * error_sums, usage
    ### END SOLUTION


# %% [markdown] tags=["hint"]
# Three sums: how many vectors chose each codeword (`bincount`), the sum of their errors x − codeword (`index_add` on zeros), and the new usage, which mixes the old one with counts / number of vectors. n̄ in the formula is the *new* usage times the number of vectors. `clamp_min` avoids 0 / 0.

# %%
check.ema_step(ema_step)

# %% [markdown]
# The package's layer takes this form when told `codebook_update="ema"`, its default. The codebook is then no parameter, and moves in every forward pass in training mode. Is it the textbook's average? Both start from the same k-means and see the same 100 batches, of vectors that drift away:

# %%
x = torch.randn(512, 8).double()
layer = VectorQuantizer(8, 64, dead_code_threshold=0).double().fit(x)
counts = torch.bincount(layer.encode(x), minlength=64).to(x)
first = layer.codebook.clone()
codebook, sums = first, first * counts[:, None]

for step in range(100):
    batch = torch.randn(512, 8).double() + 0.02 * step
    layer(batch)
    codebook, sums, counts = textbook_step(codebook, sums, counts, batch)

moved = (codebook - first).norm(dim=1).mean()
print(f"the codewords moved by {moved:.2f}; largest difference: {(layer.codebook - codebook).abs().max():.0e}")
assert torch.allclose(layer.codebook, codebook, atol=1e-9) and moved > 0.2

# %% [markdown]
# The derivation holds. And does the EMA keep codewords alive?

# %%
paths["EMA"] = learn(network(dim=8, codebook_update="ema", dead_code_threshold=0), keep=watched)
print("gradient:", told(plain_report))
print("EMA:     ", told(report(paths["EMA"][300])))
assert report(paths["EMA"][300])["usage"] < 0.25
plots.lines([*watched, 300], usage_along(paths), xlabel="step", ylabel="usage")

# %% [markdown]
# No. An EMA changes *how* a codeword follows its vectors. One without vectors has nothing to follow.
#
# ### What is wrong here? · A sum without its count
#
# EnCodec, a well-known audio codec, keeps sums and counts. It starts from k-means, and hands the means to its codebook and, as they are, to its sums. Below, its start on the outputs of our trained encoder, in the plane. Before you run it: where will the codewords be after one step?

# %%
x = plain[0](train[::8]).detach()
means, mean_counts, _ = kmeans(x, 64)


def mse(codebook):
    """Mean squared error of the 2,048 outputs in x."""
    return F.mse_loss(codebook[nearest(x, codebook)], x).item()


wrecked, *_ = textbook_step(means, sums=means.clone(), counts=mean_counts.float(), x=x)
print(f"error after k-means {mse(means):.4f}, one step later {mse(wrecked):.4f}")
assert mse(wrecked) > 20 * mse(means)
plots.voronoi(x[::2], wrecked, title="One step after a k-means start")

# %% [markdown]
# The sum of a codeword's vectors is mean × count. With the mean alone every codeword is divided by its count, thirty or so, and nearly all fall to near the origin. The k-means was for nothing. Done right, the step changes next to nothing:

# %%
mended, *_ = textbook_step(means, sums=means * mean_counts[:, None], counts=mean_counts.float(), x=x)
print(f"error after k-means {mse(means):.4f}, one step later {mse(mended):.4f}")
assert mse(mended) < 1.01 * mse(means)

# %% [markdown]
# The opposite slip sits in the same code. Without k-means the sums start as a copy of the random codebook, and the counts at zero:

# %%
random_start = torch.randn(64, 2)
exploded, _, counts = textbook_step(random_start, sums=random_start.clone(), counts=torch.zeros(64), x=x)
lengths = exploded.norm(dim=1)
print(f"{(counts == 0).sum()} unused codewords, now {lengths[counts == 0].median():,.0f} from the origin")
assert lengths[counts == 0].median() > 1e4

# %% [markdown]
# An unused codeword has a sum and no count. Divided by a tiny number that is there to avoid 0 / 0, it explodes, and nothing will ever be near it again. (In EnCodec the tiny number, 10⁻⁵ too, is added to all counts, which is called Laplace smoothing.)
#
# **The mend.** A sum and its count belong together, at every start and every restart. Or keep no sums: the mean itself can't come apart.
#
# ## Repair 3 · Restart the dead
#
# What remains is to fetch the dead back. A codeword that has hardly been used of late is put at a vector of the present batch, where it is sure to be near something. SoundStream (Zeghidour et al. 2021, section III-C) does this, as does Jukebox (Dhariwal et al. 2020), which calls it *random restarts*. The usage we already keep says who is dead:


# %%
def restart_dead(codebook, usage, x, threshold=0.1):
    """Codewords used less than threshold × the uniform share 1/K restart at vectors of the batch x."""
    dead = usage < threshold / len(codebook)
    vectors = x[torch.randperm(len(x))[: len(codebook)]]
    codebook = torch.where(dead[:, None], vectors, codebook)
    usage = torch.where(dead, 1 / len(codebook), usage)  # else it would be dead again in the next step
    return codebook, usage


# %% [markdown]
# ### What is wrong here? · Two of what?
#
# SoundStream's rule, copied by many libraries: a codeword is dead when the moving average of its count *per batch* falls below 2. Below, every codebook is used perfectly, each codeword with the same chance, in batches of 512. Nobody is dead. How many will be declared so?

# %%
print("   K   below 2 a batch   below 0.1 × uniform")
declared = {}
for size in (16, 64, 256, 1024):
    counts = torch.full((size,), 512 / size)
    for _ in range(500):
        counts = 0.99 * counts + 0.01 * torch.bincount(torch.randint(size, (512,)), minlength=size)
    declared[size] = (counts < 2).float().mean().item(), (counts < 0.1 * 512 / size).float().mean().item()
    print(f"{size:4} {declared[size][0]:12.0%} {declared[size][1]:18.0%}")
assert declared[64] == (0, 0) and 0.2 < declared[256][0] < 0.8 and declared[1024] == (1, 0)

# %% [markdown]
# With 1,024 codewords a batch of 512 has half a vector for each. All are "dead" in every step, and a codebook that restarts all the time has no time to learn. With 16 the same rule calls a codeword alive that gets a sixteenth of its fair share. The number 2 belongs to one codebook size and one batch size, and both get changed.
#
# **The mend.** Compare with uniform use: a threshold of 0.1 means a tenth of the fair share, for every K and every batch.
#
# ### What is wrong here? · The restart that does nothing
#
# EnCodec's training step, with the threshold mended and in our words: choose indices, restart the dead, update both averages, divide. Read it closely. The state it runs on has many dead codewords, and its sums and counts belong together. Afterwards, where should the codewords stand that were dead?


# %%
def encodec_step(codebook, sums, counts, x, decay=0.99, threshold=0.1):
    """Restart the dead at the first rows of x, then follow the batch: -> codebook, sums, counts."""
    indices = nearest(x, codebook)
    dead = counts < threshold * counts.mean()
    codebook = torch.where(dead[:, None], x[: len(codebook)], codebook)

    counts = decay * counts + (1 - decay) * torch.bincount(indices, minlength=len(codebook))
    sums = decay * sums + (1 - decay) * torch.zeros_like(codebook).index_add(0, indices, x)
    return sums / counts.clamp_min(1e-5)[:, None], sums, counts


# %%
codebook = 3 * torch.randn(64, 2)
counts = torch.ones(64)
sums = codebook * counts[:, None]
for _ in range(300):
    codebook, sums, counts = textbook_step(codebook, sums, counts, torch.randn(128, 2))

batch = torch.randn(128, 2)
after, *_ = encodec_step(codebook, sums, counts, batch)
plots.voronoi(batch, after, title="After a step with restarts?")

# %% [markdown]
# A restart has one job, so it can be tested: right after the step, every codeword that was dead must stand on a vector of the batch.


# %%
def stands_on(x, codewords):
    """Whether each codeword stands on a vector of x."""
    return torch.isclose(codewords, x[nearest(codewords, x)], atol=1e-5).all(1)


dead = counts < 0.1 * counts.mean()
lasting = stands_on(batch, after[dead])
print(f"{dead.sum()} codewords were dead, {lasting.sum()} of them stand on a vector of the batch")
assert dead.sum() >= 8 and lasting.sum() == 0

# %% [markdown]
# The test fails. Not one restart took effect. The step runs without error and the loss falls, so nobody notices; the check of the next exercise does:

# %%
judge = check.restarting_step  # the check of exercise 4, here on a function that isn't yours
judge(encodec_step)

# %% [markdown]
# ### Exercise 4 · Repair · ★★★ · 10 minutes
#
# Find out why, and mend it: the same arguments, the same three results. Follow the batch first; then restart those that are dead by the *new* counts. Dead codeword number k goes to row k of `x` (the batch is shuffled, and has at least K rows), and counts from then on as a codeword of average use. It must still be there after the next step.


# %% tags=["exercise"]
def restarting_step(codebook, sums, counts, x, decay=0.99, threshold=0.1):
    """Follow the batch, then restart the dead at the first rows of x: -> codebook, sums, counts."""
    ### BEGIN SOLUTION
    indices = nearest(x, codebook)
    counts = decay * counts + (1 - decay) * torch.bincount(indices, minlength=len(codebook))
    sums = decay * sums + (1 - decay) * torch.zeros_like(codebook).index_add(0, indices, x)

    dead = counts < threshold * counts.mean()
    counts = torch.where(dead, counts.mean(), counts)
    sums = torch.where(dead[:, None], x[: len(codebook)] * counts[:, None], sums)
    return sums / counts.clamp_min(1e-5)[:, None], sums, counts
    ### END SOLUTION


# %% [markdown] tags=["hint"]
# The last line computes the *whole* codebook from sums and counts. What was written into the codebook's rows before is lost, because the dead codewords' sums and counts still tell of their old place. So a restart has to change all three: the row, its sum (vector × count, as you saw above) and its count.

# %%
check.restarting_step(restarting_step)

# %% [markdown]
# Now the package. It keeps no sums, so there is no second copy that could overwrite a restart. In each step it moves by EMA, then restarts, as our `restart_dead` does. We let it run on a cloud of data half as wide as the one it was fitted to, and keep the usage by hand beside it. In every step, the codewords that are dead by our count must stand on a vector of the batch, and no others.

# %%
wide = 2 * torch.randn(1024, 2)
layer = VectorQuantizer(2, 64).fit(wide)
usage = torch.bincount(layer.encode(wide), minlength=64) / 1024
restarts = 0
for _ in range(300):
    batch = torch.randn(128, 2)
    usage = 0.99 * usage + 0.01 * torch.bincount(layer.encode(batch), minlength=64) / 128
    by_hand, usage = restart_dead(layer.codebook, usage, batch)
    dead = (by_hand != layer.codebook).any(1)
    layer(batch)
    assert torch.equal(stands_on(batch, layer.codebook), dead)
    restarts += dead.sum().item()

# %%
print(f"{restarts} restarts in 300 steps, every one of them took effect")
assert restarts >= 8
plots.voronoi(torch.randn(2000, 2), layer.codebook, title="After 300 steps of VectorQuantizer")

# %% [markdown]
# ## What does each repair buy?
#
# Three repairs can be on or off, eight combinations. We train every one from five seeds, which fix the starting weights, the codebook and the batches. Forty networks, each of them small: this takes some seconds.
#
# An experiment that switches parts off to see what they were good for is called an **ablation**. Before you look: which single repair would you keep?

# %%
REPAIRS = ("k-means start", "EMA", "restart")


def repaired(repairs, seed):
    """Train a network with these repairs: -> its report."""
    update, threshold = "ema" if "EMA" in repairs else "gradient", 0.1 if "restart" in repairs else 0
    candidate = network(dim=8, seed=seed, codebook_update=update, dead_code_threshold=threshold)
    encoder, quantizer, _ = candidate
    if "k-means start" in repairs:
        quantizer.fit(encoder(train[::8]))
    learn(candidate)
    return report(candidate)


# %%
results = {}
for repairs in itertools.chain.from_iterable(itertools.combinations(REPAIRS, n) for n in range(4)):
    reports = [repaired(repairs, seed) for seed in range(5)]
    results[repairs] = {measure: [r[measure] for r in reports] for measure in reports[0]}

plots.ablation(results)

# %% [markdown]
# In numbers, the means over the five seeds:

# %%
means = {repairs: {m: sum(values) / 5 for m, values in row.items()} for repairs, row in results.items()}
for repairs, row in means.items():
    print(f"{' + '.join(repairs) or 'nothing':30} {told(row)}")

# %% [markdown]
# Read it slowly.
#
# - **Restarts decide.** Every combination with them has several times the perplexity of every one without. Nothing else fetches back what has died, and in a network that learns something always dies. Where the EMA or the k-means start stands beside them, the error is less than half of what it is without any restart.

# %%
with_restart = [row for repairs, row in means.items() if "restart" in repairs]
without = [row for repairs, row in means.items() if "restart" not in repairs]
assert min(row["usage"] for row in with_restart) > 1.3 * max(row["usage"] for row in without)
assert min(row["perplexity"] for row in with_restart) > 2 * max(row["perplexity"] for row in without)

best_without = min(row["held-out MSE"] for row in without)
assert all(row["held-out MSE"] < best_without / 2 for repairs, row in means.items() if "restart" in repairs[1:])

# %% [markdown]
# - **The EMA makes restarts reliable.** Look at the dots: restarts with gradient alone differ widely from seed to seed. With the EMA the error is clearly lower, and so is its spread. Alone the EMA lowers the error a little, and revives nobody.


# %%
def seed_spread(repairs):
    """Standard deviation of the held-out error over the seeds."""
    return torch.tensor(results[repairs]["held-out MSE"]).std().item()


nothing, ema, restart = means[()], means[("EMA",)], means[("restart",)]
both = means[("EMA", "restart")]
print(f"restart: ± {seed_spread(('restart',)):.4f}, EMA + restart: ± {seed_spread(('EMA', 'restart')):.4f}")
assert both["held-out MSE"] < 0.85 * restart["held-out MSE"]
assert seed_spread(("EMA", "restart")) < 0.8 * seed_spread(("restart",))
assert ema["held-out MSE"] < nothing["held-out MSE"] and ema["perplexity"] < 10

# %% [markdown]
# - **The k-means start does little here.** Alone it raises the usage and hardly the perplexity: more codewords live, on next to nothing. Its error is no better than without any repair. Beside the other two it adds nothing that these seeds could show. Remember what it was fitted on: an encoder that knew nothing yet. For vectors that stay where they are, it was all that notebook 01 needed.

# %%
kmeans_alone, all_three = means[("k-means start",)], means[REPAIRS]
assert kmeans_alone["usage"] > nothing["usage"] and kmeans_alone["perplexity"] < 10
assert kmeans_alone["held-out MSE"] > 0.9 * nothing["held-out MSE"]
assert abs(all_three["held-out MSE"] - both["held-out MSE"]) < 0.1 * nothing["held-out MSE"]

# %% [markdown]
# - **Together** the error falls to less than a third of where we began, and more than half of the codebook is in effective use, where it was less than an eighth.

# %%
assert both["held-out MSE"] < nothing["held-out MSE"] / 3
assert both["perplexity"] > 32 and nothing["perplexity"] < 8

# %% [markdown]
# Keep in mind how far this goes: one task, one size of network, 300 steps. The order of the repairs may differ in yours. What carries over is the way to find out.
#
# ## The layer as it comes
#
# EMA and restarts are what `VectorQuantizer(dim, codebook_size)` does unless told otherwise; the k-means start is there when you call `fit`. Here is the network of the beginning, `dim=2` and the same seed, with the defaults. Note the step numbers before you read on: when do codewords come to life?

# %%
default_path = learn(network(dim=2), keep=[0, 1, 10, 225, 235, 245, 270])
widgets.explore(lambda step: cells(default_path[step], title=f"Step {step}"), step=list(default_path))

# %%
usage = {step: report(kept)["usage"] for step, kept in default_path.items()}
print("usage:", ", ".join(f"{value:.0%} at step {step}" for step, value in usage.items()))
assert usage[1] > 0.8 and usage[225] < 0.5 and usage[235] > 1.5 * usage[225]

print("plain:   ", told(report(plain)))
print("defaults:", told(report(default_path[300])))
assert usage[300] > 2 * report(plain)["usage"]

# %% [markdown]
# After the first batch the whole codebook stands in the cloud. The encoder runs away from it, and nearly everybody dies again. Then, some time after step 225, the dead are fetched back all at once, to where the cloud is by then. Why so late?
#
# ### Exercise 5 · Explore · ★★★ · 8 minutes
#
# A codeword that has just been restarted counts as one of average use; call that a usage of 1. Suppose that no vector chooses it any more. In every step its usage is multiplied by the decay, until it falls below the threshold, which is measured in units of the average too. After how many steps does that happen? Try some decays with a loop, find the law, and write it without one.


# %% tags=["exercise"]
def steps_until_restart(decay, threshold):
    """The first step after which a usage that started at 1 and only decays is below the threshold: a whole number."""
    ### BEGIN SOLUTION
    return math.floor(math.log(threshold) / math.log(decay)) + 1
    ### END SOLUTION


# %% [markdown] tags=["hint"]
# After t steps the usage is decayᵗ. Solve decayᵗ = threshold for t with logarithms. The answer is the first whole number beyond it. For 0.5 and 0.3 it is 2: 0.5 is above, 0.25 is below.

# %%
check.steps_until_restart(steps_until_restart)

# %% [markdown]
# With the defaults, 0.99 and 0.1, it is 230 steps. In a training of 100,000 steps that is nothing. Ours has 300, so every codeword gets one more chance at most, and a faster decay is worth a try. It has a price: at γ = 0.9 the average looks back over ten batches only, and the luck of ten batches decides where a codeword stands and whether it lives.

# %%
waits = {}
for decay in (0.9, 0.95, 0.99):
    faster = learn(network(dim=8, decay=decay))[300]
    waits[decay] = next(step for step in itertools.count(1) if decay**step < 0.1)
    print(f"decay {decay:.2f}: restarted after {waits[decay]:3} steps; {told(report(faster))}")
assert list(waits.values()) == [22, 45, 230]

# %% [markdown]
# ### What a larger codebook is worth
#
# Last, why one should care. Somebody who sees a poor picture asks for more codewords. Here is a photo that no codebook has seen, rebuilt with 4 to 256 codewords, once trained the plain way and once with the defaults.

# %%
photo = data.photos().held_out["chelsea"][:, 20:220, 100:340]


@torch.no_grad()
def rebuild(network):
    """The photo, from the indices of its patches."""
    encoder, quantizer, decoder = network
    columns = F.unfold(photo[None], kernel_size=4, stride=4).transpose(1, 2)
    rebuilt = decoder(quantizer.decode(quantizer.encode(encoder(columns))))
    return F.fold(rebuilt.transpose(1, 2), photo.shape[1:], kernel_size=4, stride=4)[0].clamp(0, 1)


# %%
SIZES = [4, 16, 64, 256]
WAYS = {"by gradient": PLAIN, "defaults": {}}
networks = {(way, size): learn(network(8, size, **WAYS[way]))[300] for way in WAYS for size in SIZES}
reports = {key: report(trained) for key, trained in networks.items()}


def compared(codebook_size):
    """The photo, rebuilt both ways, with the error and the perplexity of each codebook."""
    images, titles = [photo], [f"original\nK = {codebook_size}"]
    for way in WAYS:
        images.append(rebuild(networks[way, codebook_size]))
        perplexity = reports[way, codebook_size]["perplexity"]
        titles.append(f"{way}, {metrics.psnr(images[-1], photo):.1f} dB\nperplexity {perplexity:.1f}")
    caption = "Perplexity says how many codewords, equally used, would tell as much: compare it with K, and compare the pictures."
    return plots.photo_row(torch.stack(images), titles, caption=caption)


widgets.explore(compared, codebook_size=SIZES)

# %%
for way in WAYS:
    print(
        f"{way:12} held-out MSE:", ", ".join(f"{reports[way, size]['held-out MSE']:.4f} (K = {size})" for size in SIZES)
    )

gain = {way: reports[way, 4]["held-out MSE"] / reports[way, 256]["held-out MSE"] for way in WAYS}
print(
    f"from 4 to 256 codewords the error falls {gain['by gradient']:.1f}× by gradient, {gain['defaults']:.1f}× by default"
)
assert gain["defaults"] > 2 * gain["by gradient"]
assert reports["by gradient", 256]["perplexity"] < 16 and reports["defaults", 256]["perplexity"] > 64
assert reports["defaults", 16]["held-out MSE"] < 0.7 * reports["by gradient", 256]["held-out MSE"]

# %% [markdown]
# By gradient the perplexity hardly knows how many codewords there are: 256 are paid for, 8 bits a patch, and fewer than 16 are in effective use. With the defaults the new codewords are used, and the picture shows it. **Sixteen codewords that live are better than 256 that don't**, at half the bits.

# %% [markdown]
# ## What we saw
#
# - Trained by gradient, less than a third of 64 codewords stayed in use with 2 numbers a patch, and less than a fifth with 8. More than half of them never moved at all: a codeword that no vector chooses occurs in no loss.
# - Usage and perplexity belong to a whole set. A perfect codebook of 64 shows a usage of 63.5 % in batches of 64, and a perplexity of about 36.5.
# - The quotient of the averages of sum and count is c + (1 − γ)/n̄ · Σ(x − c). A codeword can follow its vectors without a sum, and then a sum without its count can neither shrink nor explode it, nor undo a restart.
# - A restart that only replaces a row is overwritten in the same step: of all dead codewords none was revived.
# - A threshold of 2 vectors a batch declares all codewords of a perfect codebook dead at K = 1,024 and batches of 512. One relative to uniform use declares none.
# - Ablation over five seeds: restarts decide, the EMA makes them reliable, a k-means start alone is outrun by the encoder. EMA and restarts together cut the held-out error to less than a third.
#
# ## Self-test
#
# **1.** The log of a training with K = 1,024 says "usage 6 %" for every batch of 64 vectors. Has the codebook collapsed?
#
# <details><summary>Answer</summary>
#
# The log can't say. 64 vectors can choose 64 different codewords at most, which is 6.25 % of 1,024, so 6 % is nearly the best there could be. "Yes, 94 % are dead" takes the batch for the set. "No, 6 % is the maximum" is wrong too: every batch may use the same 64. Count over the whole set.
#
# </details>
#
# **2.** Would a larger learning rate for the codebook revive dead codewords?
#
# <details><summary>Answer</summary>
#
# No. Their gradient is exactly zero, and any multiple of zero is zero. A larger rate can keep some from dying, because codewords follow the encoder faster. Neither does a larger β help: the commitment loss moves the encoder towards codewords that *are* chosen.
#
# </details>
#
# **3.** Usage is 100 % and perplexity is 5, at K = 64. How can that be, and is it good?
#
# <details><summary>Answer</summary>
#
# Every codeword is chosen by some vector, but a few take nearly all of them. An index then tells log2 5 = 2.3 bits and costs 6. It is no contradiction: usage asks whether, perplexity asks how much. It isn't "fully used" either, except in name.
#
# </details>
#
# **4.** A colleague's restart sets `codebook[dead] = batch[:n]` at the end of the step, after the EMA. The codebook is computed from sums and counts. Does the restart work?
#
# <details><summary>Answer</summary>
#
# Until the next step. Then the codebook is computed again from sums and counts, which still describe the old place. Moving the restart behind the EMA is half of the mend; sums and counts have to change with it. "It works because the restart comes last" overlooks that there is a next step.
#
# </details>
#
# **5.** After a k-means start all codewords are used. Why isn't that the end of the story in a VQ-VAE, when it is for a palette of colours?
#
# <details><summary>Answer</summary>
#
# A photo's colours stand still. In a VQ-VAE the vectors come from an encoder that is still learning, so they move away from where k-means found them, and codewords left behind die as if they had been drawn at random. More iterations of k-means wouldn't help: the fit was good, for another place.
#
# </details>
#
# ## Where to read on
#
# - A. van den Oord, O. Vinyals, K. Kavukcuoglu, *Neural Discrete Representation Learning* (2017), arXiv:1711.00937, appendix A.1: the EMA.
# - N. Zeghidour et al., *SoundStream: An End-to-End Neural Audio Codec* (2021), arXiv:2107.03312, section III-C: k-means start and restarts.
# - P. Dhariwal et al., *Jukebox: A Generative Model for Music* (2020), arXiv:2005.00341: random restarts.
# - A. Łańcucki et al., *Robust Training of Vector Quantized Bottleneck Models* (2020), arXiv:2005.08520: collapse in an encoder that moves, and k-means repeated during training.
# - A. Défossez et al., *High Fidelity Neural Audio Compression* (EnCodec, 2022), arXiv:2210.13438. The code we took apart is its file `core_vq.py`.
#
# Next: `04_residual_vq`. One codebook can be kept alive. Why would one want many small ones?
