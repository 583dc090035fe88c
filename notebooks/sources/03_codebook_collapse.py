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
# **Its place in the course.** In notebook 01 more codewords made a better picture, because k-means put each of them to work. In notebook 02 the codebook moved into a network, where nothing puts it to work. Here we see to it that the codewords we pay for are used. Notebook 04 stacks such codebooks, and 06 and 07 train them on photos: each of them can collapse.
#
# **You will be able to**
# - measure how well a codebook is used, over a whole set, and say how the same number per batch misleads;
# - explain why a codeword that nobody uses stays unused;
# - derive the moving average that many libraries train their codebooks with, in a form that needs no division of two sums;
# - repair a collapsed codebook in three ways, and read off curves what each of them buys;
# - recognise bugs in the repairs, all found in the code of a well-known sound compressor, and mend one.
#
# **You need** notebook 01 (k-means, held-out data) and notebook 02 (encoder and decoder, straight-through, codebook loss and commitment loss, `VectorQuantizer`).
#
# **Time.** It runs in {{run_time}}. Reading takes {{reading_time}}, the five exercises half an hour more.

# %% tags=["measured"]
import copy
import math

import torch
import torch.nn.functional as F
from torch import nn

from rvq_tutorial import VectorQuantizer, metrics, nearest
from rvq_tutorial.autoencoder.training import interruptible
from rvq_tutorial.course import check, data, measured, plots, widgets

torch.set_num_threads(1)  # the networks here are so small that threads would only wait for each other
_ = torch.manual_seed(0)  # the same numbers in every run

# %% [markdown]
# ## A network with a lookup in it
#
# Notebook 02 ended with a linear encoder, a quantizer and a linear decoder. We build the same network for photos. A photo is cut into patches of 4 × 4 pixels, each 48 numbers. The encoder makes a short vector x of a patch, the quantizer puts a codeword in its place, the decoder rebuilds the patch.
#
# PyTorch's `F.unfold` does the cutting: from a batch of photos it makes one column of 48 numbers for each patch. We turn the columns into rows.


# %% tags=["measured"]
def patches(split, num_crops, seed):
    """Patches of photo crops of 64 × 64 pixels, one a row: (256 · num_crops, 48)."""
    crops = data.photo_crops(64, num_crops, seed, split)
    return F.unfold(crops, kernel_size=4, stride=4).transpose(1, 2).flatten(0, 1)


train, held_out = patches("train", 64, seed=0), patches("held_out", 24, seed=1)
variance = train.var()

# %% [markdown]
# That makes 16,384 patches to train on, and 6,144 of other photos to measure the error on. The quantizer has 64 codewords, so a patch costs 6 bits. It learns the plain way of notebook 02: `"gradient"` lets the codebook loss move the codewords. The second setting belongs to a repair further down; 0 switches it off.

# %% tags=["measured"]
PLAIN = {"codebook_update": "gradient", "dead_code_threshold": 0}


def network(dim, codebook_size=64, seed=0, **settings):
    """A linear encoder of patches to `dim` numbers, a quantizer and a linear decoder."""
    torch.manual_seed(seed)
    quantizer = VectorQuantizer(dim, codebook_size, **settings)
    return nn.ModuleList([nn.Linear(48, dim), quantizer, nn.Linear(dim, 48)])


# %% [markdown]
# And the training loop. The reconstruction's error is divided by the variance of the patches, so that 1 means "no better than one and the same grey for all". To look back later, `learn` hands out copies of the network at the steps named in `keep`.


# %% tags=["measured"]
def learn(network, keep=(), steps=300):
    """Train on random batches of 128 patches -> by step, a copy of the network as it was before that step."""
    encoder, quantizer, decoder = network.train()
    optimizer = torch.optim.Adam(network.parameters(), lr=3e-3, fused=True)  # fused: the same, in less time
    kept = dict.fromkeys([*keep, steps], network)
    for step in interruptible(range(steps)):  # if you stop it, steps not reached keep the network as it is then
        if step in keep:
            kept[step] = copy.deepcopy(network)
        batch = train[torch.randint(len(train), (128,))]
        output = quantizer(encoder(batch))
        loss = F.mse_loss(decoder(output.quantized), batch) / variance + output.loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    network.eval()
    return kept


# %% [markdown]
# Nothing here is unusual: PyTorch's starting weights, Adam, codewords drawn from a normal distribution, β = 0.25. First with `dim=2`. Two numbers are few for a patch of 48, but we can look at them.


# %%
@torch.no_grad()
def cells(network, title):
    """The encoder's outputs for every fourth held-out patch, and the codewords."""
    encoder, quantizer, _ = network
    return plots.voronoi(encoder(held_out[::4]), quantizer.codebook, title=title)


path = learn(network(dim=2, **PLAIN), keep=[0, 5, 10, 20, 40, 80, 160])
cells(path[300], title="After 300 steps")

# %% [markdown]
# Look at the colours of the crosses. A handful of codewords stand in the data and divide it among themselves. The grey ones are **dead**: no vector chooses them. We pay 6 bits a patch, and most of the codewords that 6 bits could name are never named.
#
# ## Count them, all of them
#
# The **usage** of a codebook is the share of its codewords that at least one vector chooses. We count over all training patches: a codeword is alive if anything in the data needs it. `encode` looks up indices and changes nothing in the layer.

# %%
encoder, quantizer, _ = path[300]
with torch.no_grad():
    indices = quantizer.encode(encoder(train))

used = len(indices.unique())
print(f"{used} of 64 codewords are used, a usage of {used / 64:.0%}")

# %% tags=["claim"]
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

# %% tags=["claim"]
assert abs(shown - 0.635) < 0.01 and metrics.usage(batches, 64) == 1

# %% [markdown]
# A perfect codebook looks as if a third of it were dead. Usage has the opposite fault too: over the whole set a codeword that one vector chose counts as much as a codeword that thousands chose.
#
# ### Perplexity
#
# So let us count codewords by their weight. Suppose there are three, and of all vectors ½, ¼ and ¼ choose them. Short names for frequent codewords save bits: call the first 0, the others 10 and 11. Then an index takes 1 bit half of the time and 2 bits the other half, 1.5 bits on average. No other names do better. This is the **entropy** of the shares, the bits that an index tells; for shares that aren't ½, ¼, … names may need more.
#
# Two codewords, used alike, tell 1 bit, and four tell 2 bits: it takes $2^H$ equally used codewords to tell $H$ bits. Our three tell as much as $2^{1.5} \approx 2.8$ of them. That number is the **perplexity**. With $p_k$ for the share of the vectors that choose codeword k (Shannon 1948; Cover & Thomas, eq. 2.1, for $H$):
#
# $$H = -\sum_k p_k \log_2 p_k, \qquad \text{perplexity} = 2^H$$
#
# Here $-\log_2 p_k$ is the length of the name: 1 for ½, 2 for ¼. Perplexity is K when all codewords are used alike, and 1 when a single one does everything. Here are eight; move the slider to give more of the vectors to the first.


# %%
def crowded(percent_for_the_first):
    """How 8 codewords are used, if the first takes so many percent of the vectors and the others share the rest."""
    rest = 100 - percent_for_the_first
    return plots.code_usage(torch.tensor([percent_for_the_first] + 7 * [rest / 7]))


widgets.explore(crowded, percent_for_the_first=[12.5, 25.0, 37.5, 50.0, 75.0, 90.0, 99.0])

# %% tags=["claim"]
assert abs(metrics.perplexity(torch.tensor([0, 0, 1, 2]), 3) - 2**1.5) < 1e-6

# %% [markdown]
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
# The package has it as `metrics.perplexity`. This is our codebook, over all training patches:

# %%
plots.code_usage(torch.bincount(indices, minlength=64))

# %% [markdown]
# Perplexity of a single batch misleads as usage does. Take batches of growing size, from a perfect codebook and from ours; each point is the mean over 200 batches.


# %%
def batch_perplexity(indices, size):
    """Mean perplexity of 200 random batches of this size."""
    drawn = indices[torch.randint(len(indices), (200, size))]
    return sum(metrics.perplexity(batch, 64) for batch in drawn) / len(drawn)


sizes = [8, 16, 32, 64, 128, 256, 512, 1024]
sources = {"perfect codebook": torch.randint(64, (len(train),)), "our codebook": indices}
curves = {name: [batch_perplexity(source, size) for size in sizes] for name, source in sources.items()}
plots.lines(sizes, curves, xlabel="vectors in the batch", ylabel="mean perplexity of a batch", log_x=True)

# %% [markdown]
# The perfect codebook has perplexity 64, and a batch of 64 shows 36.5. Whatever the codebook, a small batch can't hold much. Batches of a few photos mislead still more: the patches of one photo resemble each other.

# %%
one_photo = sum(metrics.perplexity(crop, 64) for crop in indices.view(64, 256)) / 64  # a crop has 256 patches
print(f"256 patches at random: {curves['our codebook'][5]:.1f}, of one photo: {one_photo:.1f}")

# %% tags=["claim"]
assert one_photo < 0.8 * metrics.perplexity(indices, 64) and abs(curves["perfect codebook"][3] - 36.5) < 1

# %% [markdown]
# So: **usage and perplexity over a whole set**, or a running average over many batches, never of one batch. From here on `report` measures them over all training patches, and the error on held-out patches.


# %% tags=["measured"]
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


# %%
def told(network):
    """Its report in one line."""
    usage, perplexity, error = report(network).values()
    return f"usage {usage:4.0%}, perplexity {perplexity:4.1f}, held-out MSE {error:.4f}"


print(told(path[300]))

# %% [markdown]
# ## Why
#
# What does the loss tell the dead? We take the gradient of the quantizer's loss by every codeword, from *all* training patches at once.

# %%
(gradient,) = torch.autograd.grad(quantizer(encoder(train)).loss, quantizer.codebook)
chosen = torch.bincount(indices, minlength=64)
print(f"{(chosen == 0).sum()} codewords are chosen by no patch, {(gradient == 0).all(1).sum()} have gradient 0")
assert torch.equal(chosen == 0, (gradient == 0).all(1))

# %% [markdown]
# Exactly the dead get nothing. The losses contain $\|x - c_k\|^2$ only for the codeword $c_k$ that x chose, so a codeword that no x chose doesn't occur in them at all. Adam doesn't move what never had a gradient, so a codeword dead all along should stand where it was drawn, to the last bit:

# %%
unmoved = (path[0][1].codebook == path[300][1].codebook).all(1).sum()
print(f"{unmoved} of 64 codewords have never moved in 300 steps")

# %% tags=["claim"]
assert unmoved >= 32

# %% [markdown]
# Move through the training, and watch three things.
#
# 1. **Step 0.** The encoder's outputs are one small cloud, the codewords lie all around. It reaches into a few cells only.
# 2. **The next steps.** Those few codewords and the cloud approach each other. Being chosen makes a codeword better, and being better gets it chosen.
# 3. **Later.** The decoder needs different vectors for different patches, so the cloud grows and shifts. Codewords that it reaches come to life, some that it leaves die.

# %%
widgets.explore(lambda step: cells(path[step], title=f"Step {step}"), step=list(path))

# %% tags=["claim"]
_spread = {step: encoder(train).std(0).mean().item() for step, (encoder, *_) in path.items()}
assert _spread[0] < 0.4 and _spread[300] > 1.5 * _spread[0]

# %% [markdown]
# Is this rigged? Before training nobody knows how large the encoder's outputs will be, or how they will move. Whatever spread the first codewords are drawn with suits some encoder, and hardly the next one. And two dimensions are a mild case: with more there is more room to be far away. The same network with `dim=8`, which can carry more about a patch:

# %%
watched = [0, 10, 20, 40, 80, 160]
random_path = learn(network(dim=8, **PLAIN), keep=watched)
print("dim = 8:", told(random_path[300]))

# %% tags=["claim"]
_plain = report(random_path[300])
assert _plain["usage"] < 0.2 and _plain["perplexity"] < 10

# %% [markdown]
# This is the codebook to repair.
#
# ## Repair 1 · Start where the data is
#
# The cure that suggests itself: put the codewords among the vectors before the first step. Notebook 01 has the tool, k-means, and the layer's `fit` starts its codebook there.


# %% tags=["measured"]
def start_where_the_data_is(network):
    """Put the codewords at the k-means of what the encoder makes of 2,048 training patches -> the network."""
    encoder, quantizer, _ = network
    quantizer.fit(encoder(train[::8]))
    return network


# %%
kmeans_path = learn(start_where_the_data_is(network(dim=8, **PLAIN)), keep=watched)

paths = {"random start": random_path, "k-means start": kmeans_path}
usages = {name: [report(kept)["usage"] for kept in along.values()] for name, along in paths.items()}
first, later = (kmeans_path[step][0](train).detach() for step in (0, 10))
size_of_cloud, shift = (first - first.mean(0)).norm(dim=1).mean(), (later - first).mean(0).norm()
followed = (kmeans_path[10][1].codebook - kmeans_path[0][1].codebook).norm(dim=1).mean()
print(f"size of the cloud: {size_of_cloud:.2f}; by step 10 it moved {shift:.2f}, the codewords {followed:.2f}")
plots.lines([*watched, 300], usages, xlabel="step", ylabel="usage", title="A good start does not last")

# %% tags=["claim"]
_from_kmeans = usages["k-means start"]
assert _from_kmeans[0] > 0.9 and min(_from_kmeans) < 0.3 and _from_kmeans[-1] < 0.6
assert shift > 2 * size_of_cloud and followed < 0.1 * shift and _from_kmeans[1] < 0.5
_turned = (kmeans_path[10][0].weight - kmeans_path[0][0].weight).detach()
assert (_turned.sum(1).abs() > 0.9 * _turned.abs().sum(1)).all()  # a component's 48 weights move the same way
assert 0.1 < _turned.abs().mean() / (10 * 3e-3) <= 1

# %% [markdown]
# At step 0 nearly every codeword is in use. Ten steps later the cloud has left them behind, and few are nearest to anything any more. Adam moves every number by about the same, at first 0.003 a step. For a codeword's component that is all. An output's component adds up 48 pixels, none negative, with weights that all move the same way. In notebook 01 the data stood still, and k-means was enough.
#
# ## Repair 2 · Follow by moving average
#
# Can codewords follow better? The best place of each is known: the mean of the vectors that choose it. The appendix of the VQ-VAE paper (van den Oord et al. 2017, A.1) keeps, for every codeword, an **exponential moving average** (EMA) of the number $n$ of vectors that chose it in a batch, and another of their sum, and takes the quotient:
#
# $$\bar n \leftarrow \gamma \bar n + (1 - \gamma)\, n, \qquad \bar s \leftarrow \gamma \bar s + (1 - \gamma) \sum_{i=1}^{n} x_i, \qquad c = \bar s / \bar n$$
#
# The decay γ, usually 0.99, says how much of the past is kept: the average looks back over about 1 / (1 − γ) = 100 batches. It replaces the codebook loss.
#
# ### The same without a sum
#
# Two averages are one too many. So put the second formula into the third. The old sum is $\bar s_{\text{old}} = \bar n_{\text{old}}\, c_{\text{old}}$, and by the first formula $\gamma \bar n_{\text{old}} = \bar n - (1 - \gamma)\, n$:
#
# $$c = \frac{\gamma \bar n_{\text{old}}\, c_{\text{old}} + (1 - \gamma) \sum x_i}{\bar n} = \frac{\left(\bar n - (1 - \gamma)\, n\right) c_{\text{old}} + (1 - \gamma) \sum x_i}{\bar n}$$
#
# $$c = c_{\text{old}} + \frac{1 - \gamma}{\bar n} \sum_{i=1}^{n} \left(x_i - c_{\text{old}}\right)$$
#
# A codeword moves by its vectors' errors. It needs no sum, only itself and n̄. Our package keeps it so, and in place of n̄ it keeps a moving average of $p_k$, each codeword's *share* of all vectors, which doesn't depend on the size of the batch: n̄ is that share times the number of vectors in a batch.
#
# ### Exercise 3 · Implement · ★★☆ · 7 minutes
#
# Write one step in this form. `shares` holds the moving average of each codeword's share. First update it, then move the codewords with it. A codeword whose share is 0 stays where it is.


# %% tags=["exercise"]
def ema_step(codebook, shares, x, indices, decay):
    """(K, dim), (K,), (N, dim), (N,), a number -> the new codebook and the new shares."""
    ### BEGIN SOLUTION
    counts = torch.bincount(indices, minlength=len(codebook))
    error_sums = torch.zeros_like(codebook).index_add(0, indices, x - codebook[indices])
    shares = decay * shares + (1 - decay) * counts / len(x)
    step = (1 - decay) / (shares * len(x)).clamp_min(1e-30)
    return codebook + step[:, None] * error_sums, shares
    ### END SOLUTION


# %% [markdown] tags=["hint"]
# Three sums: how many vectors chose each codeword (`bincount`), the sum of their errors x − codeword (`index_add` on zeros), and the new shares, which mix the old ones with counts / number of vectors. n̄ in the formula is the *new* share times the number of vectors. `clamp_min` avoids 0 / 0.

# %%
check.ema_step(ema_step)

# %% [markdown] tags=["doubters"]
# ### Is it the same number as sum / count?
#
# The package's layer takes this form when told `codebook_update="ema"`, its default. (In its code the average of the shares is called `usage`.) The codebook is then no parameter, and moves in every forward pass in training mode. Below, the layer and the textbook's two averages start from the same k-means and see the same 100 batches, of vectors that drift away. The codewords move by more than 0.2, and at the end the two codebooks differ by less than 10⁻⁹.


# %% tags=["doubters"]
def textbook_step(codebook, sums, counts, x, decay=0.99):
    """Both averages, and with them the codebook, follow the batch x: -> codebook, sums, counts."""
    indices = nearest(x, codebook)
    batch_counts = torch.bincount(indices, minlength=len(codebook)).to(x)  # as precise as x
    batch_sums = torch.zeros_like(codebook).index_add(0, indices, x)
    counts = decay * counts + (1 - decay) * batch_counts
    sums = decay * sums + (1 - decay) * batch_sums
    return sums / counts.clamp_min(1e-5)[:, None], sums, counts  # never divide by zero


first_batch = torch.randn(512, 8).double()
layer = VectorQuantizer(8, 64, dead_code_threshold=0).double().fit(first_batch)
by_k_means = layer.codebook.clone()
ema_counts = torch.bincount(layer.encode(first_batch), minlength=64).to(first_batch)
state = by_k_means, by_k_means * ema_counts[:, None], ema_counts

for drift in range(100):
    drifting = torch.randn(512, 8).double() + 0.02 * drift
    layer(drifting)
    state = textbook_step(*state, drifting)

# %% tags=["claim"]
assert torch.allclose(layer.codebook, state[0], atol=1e-9)
assert (state[0] - by_k_means).norm(dim=1).mean() > 0.2

# %% [markdown]
# Does the EMA keep alive what k-means put in place?

# %%
ema_path = learn(start_where_the_data_is(network(dim=8, codebook_update="ema", dead_code_threshold=0)), keep=watched)
print("gradient:", told(kmeans_path[300]))
print("EMA:     ", told(ema_path[300]))

# %% tags=["claim"]
assert report(ema_path[300])["usage"] < 0.25

# %% [markdown]
# No. An EMA changes *how* a codeword follows its vectors. A codeword without vectors has nothing to follow.
#
# **Sums and counts come apart.** EnCodec, a well-known compressor of sound, keeps sums *and* counts. It starts from k-means, and copies the means into its sums as they are. But the sum of a codeword's vectors is mean × count. So the first step divides every mean by its count, thirty or so, and nearly all codewords fall to near the origin: the k-means was for nothing. A sum and its count belong together, at every start and every restart. A mean that is kept as such can't come apart.

# %% [markdown] tags=["doubters"]
# ### Two slips with sums and counts
#
# On the outputs of our trained encoder in the plane, the error after one step of EnCodec's start is more than twenty times that of the k-means. With sum = mean × count the step changes less than 1 %.
#
# The opposite slip sits in the same code. Without k-means the sums start as a copy of the random codebook, and the counts at zero. An unused codeword then has a sum and no count. Divided by the tiny number that is there to avoid 0 / 0, it lands more than 10,000 away from the origin, and nothing will ever be near it again. (In EnCodec the tiny number, 10⁻⁵ too, is added to all counts, a habit called Laplace smoothing.)

# %% tags=["doubters"]
outputs = path[300][0](train[::8]).detach()
fitted = VectorQuantizer(2, 64).fit(outputs)
means, mean_counts = fitted.codebook, torch.bincount(fitted.encode(outputs), minlength=64).float()

wrecked, *_ = textbook_step(means, means.clone(), mean_counts, outputs)
mended, *_ = textbook_step(means, means * mean_counts[:, None], mean_counts, outputs)

drawn_at_random = torch.randn(64, 2)
exploded, _, few = textbook_step(drawn_at_random, drawn_at_random.clone(), torch.zeros(64), outputs)
farthest = exploded[few == 0].norm(dim=1)

# %% tags=["claim"]
_errors = [F.mse_loss(_c[nearest(outputs, _c)], outputs).item() for _c in (means, wrecked, mended)]
assert _errors[1] > 20 * _errors[0] and _errors[2] < 1.01 * _errors[0] and farthest.median() > 1e4

# %% [markdown]
# ## Repair 3 · Restart the dead
#
# What remains is to fetch the dead back. A codeword that has hardly been used of late is put at a vector of the present batch, where it is sure to be near something. So do SoundStream (Zeghidour et al. 2021, section III-C) and Jukebox (Dhariwal et al. 2020: *random restarts*). Here it then counts as a codeword of average use, else it would be dead again in the next step. The moving average of the shares says who is dead.
#
# ### What is wrong here? · Two of what?
#
# Where is the threshold? SoundStream's rule, copied by many libraries: a codeword is dead when the moving average of its count *per batch* falls below 2. We compare it with a tenth of the fair share 1/K. Below, every codebook is used perfectly, each codeword with the same chance. Nobody is dead. How many will be declared so?

# %% tags=["predict"]
print("   K   vectors a batch   below 2 a batch   below 0.1 × fair share")
declared = {}
for size, batch_size in [(16, 512), (64, 512), (256, 512), (1024, 512), (8192, 64)]:
    counts = torch.full((size,), batch_size / size)
    for _ in range(500):
        counts = 0.99 * counts + 0.01 * torch.bincount(torch.randint(size, (batch_size,)), minlength=size)
    declared[size] = [(counts < line).float().mean().item() for line in (2, 0.1 * batch_size / size)]
    print(f"{size:4} {batch_size:10} {declared[size][0]:17.0%} {declared[size][1]:18.0%}")

# %% tags=["claim"]
assert declared[64] == [0, 0] and 0.2 < declared[256][0] < 0.8 and declared[1024] == [1, 0]
assert 0.03 < declared[8192][1] < 0.2

# %% [markdown]
# With 1,024 codewords a batch of 512 has half a vector for each. All are "dead" in every step, and a codebook that restarts all the time has no time to learn. The number 2 belongs to one codebook size and one batch size, and both get changed.
#
# **The mend.** Compare with the fair share 1/K: below a tenth of it a codeword is dead. This has a limit, too, in the last row. An average that looks back over 1 / (1 − γ) batches of N vectors has seen N / (1 − γ) of them. Only if these are many more than K does a low share mean anything but bad luck. Here 6,400 vectors for 8,192 codewords are too few: take a larger batch or a slower decay.
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
torch.manual_seed(0)
codebook = 3 * torch.randn(64, 2)
before = codebook, codebook, torch.ones(64)  # every sum is its codeword times 1
for _ in range(300):
    before = encodec_step(*before, torch.randn(128, 2), threshold=0)  # nobody restarts yet

batch = torch.randn(128, 2)
after = encodec_step(*before, batch)

# %% [markdown]
# A restart has one job, so it can be tested: after the step, every codeword that was dead must stand on its vector of the batch. We watch the dead codeword farthest from the origin:

# %% tags=["predict"]
dead = before[2] < 0.1 * before[2].mean()
restarted = torch.where(dead[:, None], batch[:64], before[0])  # what the step's third line does
stand = torch.isclose(after[0], restarted, atol=1e-3).all(1)
print(f"{dead.sum()} codewords were dead, {(dead & stand).sum()} of them stand on their vector after the step")

moments = {"before the step": before[0], "restarted": restarted, "after the step": after[0]}
farthest_dead = (before[0].norm(dim=1) * dead).argmax()
plots.codebook_moments(
    batch,
    moments,
    farthest_dead,
    caption="Ringed, the codeword to watch. It was put on a vector of the batch, and sum / count puts it back.",
)

# %% tags=["claim"]
assert dead.sum() >= 8 and (dead & stand).sum() == 0

# %% [markdown]
# The test fails: no restart took effect. The step runs without error and the loss falls, so nobody notices; the check of the next exercise does:

# %%
judge = check.restarting_step  # the check of exercise 4, here on a function that isn't yours
judge(encodec_step)

# %% [markdown]
# ### Exercise 4 · Repair · ★★★ · 10 minutes
#
# Find out why, and mend it: the same arguments, the same three results. Follow the batch first; then restart those that are dead by the *new* counts. Dead codeword number k goes to row k of `x` (the batch is shuffled, and has at least K rows), and counts from then on as a codeword of average use: its count is the mean of the counts. The next step must not put it back.


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

# %% [markdown] tags=["doubters"]
# ### Do the package's restarts take effect?
#
# The package keeps no sums, so there is no second copy that could overwrite a restart. In each step it moves by EMA, then restarts, as our `restart_dead` does. Here the layer runs on a cloud of data half as wide as the cloud it was fitted to, and we keep the shares by hand beside it. In every one of 300 steps the codewords that are dead by our count stand on a vector of the batch, and no others do.


# %% tags=["doubters"]
def restart_dead(codebook, shares, x, threshold=0.1):
    """Codewords used less than threshold × the fair share 1/K restart at vectors of the batch x."""
    dead = shares < threshold / len(codebook)
    vectors = x[torch.randperm(len(x))[: len(codebook)]]
    codebook = torch.where(dead[:, None], vectors, codebook)
    shares = torch.where(dead, 1 / len(codebook), shares)  # else it would be dead again in the next step
    return codebook, shares


def stands_on(x, codewords):
    """Whether each codeword stands on a vector of x."""
    return torch.isclose(codewords, x[nearest(codewords, x)], atol=1e-5).all(1)


wide = 2 * torch.randn(1024, 2)
restarting = VectorQuantizer(2, 64).fit(wide)
kept_shares = torch.bincount(restarting.encode(wide), minlength=64) / 1024
restarts = 0
for _ in range(300):
    narrow = torch.randn(128, 2)
    kept_shares = 0.99 * kept_shares + 0.01 * torch.bincount(restarting.encode(narrow), minlength=64) / 128
    by_hand, kept_shares = restart_dead(restarting.codebook, kept_shares, narrow)
    moved = (by_hand != restarting.codebook).any(1)
    restarting(narrow)
    assert torch.equal(stands_on(narrow, restarting.codebook), moved)
    restarts += moved.sum().item()

# %% tags=["claim"]
assert restarts >= 8

# %% [markdown]
# ## What does each repair buy?
#
# Three repairs can be on or off, eight combinations. An experiment that switches parts off to see what they were good for is called an **ablation**. Each combination was trained from five seeds, which fix the starting weights, the codebook and the batches, eight times as long as above. Forty networks take minutes, so a command trained them beforehand, with the functions defined above. Before you look: which single repair would you keep?

# %%
ablation = measured.read("ablation")
print(ablation)


# %%
def over_seeds(measurement, measure):
    """What plots.over_steps draws: panel -> name -> for each seed, the values of this measure along the way."""
    return {
        panel: {name: [list(seed.values()) for seed in row[measure].values()] for name, row in rows.items()}
        for panel, rows in measurement.results.items()
    }


steps = ablation.settings["steps"]
plots.over_steps(steps, over_seeds(ablation, "held-out MSE"), ylabel="held-out MSE", log=True)

# %% [markdown]
# Read the curves first by panel, then by colour.
#
# - **Restarts decide.** With them every error has fallen steeply by step 300, and from step 600 on changes little. Without them it falls too, as the growing cloud reaches one codeword after another, but so slowly that even after 2,400 steps no network is as good as the worst of those with restarts.
# - **Beside restarts alone the EMA makes no difference that lasts.** After 300 steps the networks with restarts and EMA have about half the error of those with restarts alone. Stop there, and you would say that the EMA makes restarts reliable. From step 600 on the two errors lie within a tenth of each other. A comparison of trainings is a curve, not a moment.
# - **The k-means start is a head start.** Beside the other two repairs it has a third of the error after 200 steps. But from step 600 on it has about a fifth *more* error than both have without it; hardly any more, though, without the EMA.
#
# Why should a better start end worse? Four numbers after 600 steps, means over the seeds. A patch's brightness is the mean of its 48 numbers, a codeword's that of its decoded patch:


# %%
for measure in ("held-out MSE", "training MSE", "held-out MSE without the brightest", "brightest codeword"):
    rows = over_seeds(ablation, measure)["with restarts"]
    random, kmeans = (
        torch.tensor(rows[start])[:, steps.index(600)].mean() for start in ("EMA", "k-means start and EMA")
    )
    print(f"{measure:34}  random start {random:.4f}, k-means start {kmeans:.4f}")
bright = train.mean(1).quantile(0.98)
print(f"above {bright:.2f}: 2% of training patches, {(held_out.mean(1) > bright).float().mean():.0%} of held-out ones")

# %% [markdown]
# On the training patches the k-means start is no worse, nor on the held-out ones without the brightest, those of the last line. The random start's brightest codeword reaches up to these, that of the k-means start does not. With the EMA it seems to count *when* the dead restart: after the random start nearly all together, around step 230; after k-means one by one, from early on (below, for doubters).
#
# All this is one task, one size of network, one learning rate. What carries over is the way to find out.


# %% tags=["claim"]
def _at(panel, repairs, step, measure="held-out MSE"):
    return torch.tensor([seed[str(step)] for seed in ablation.results[panel][repairs][measure].values()])


_repairs, _late = list(ablation.results["with restarts"]), (600, 800, 1200, 1600, 2400)
assert max(_at("with restarts", r, 2400).max() for r in _repairs) < min(
    _at("without restarts", r, 2400).min() for r in _repairs
)
for _r in _repairs:
    assert _at("without restarts", _r, 2400).mean() < 0.98 * _at("without restarts", _r, 1600).mean()
    assert _at("with restarts", _r, 300).mean() < 0.7 * _at("with restarts", _r, 200).mean()
    assert all(0.75 < _at("with restarts", _r, t).mean() / _at("with restarts", _r, 2400).mean() < 1.2 for t in _late)
_with_ema, _alone = ({t: _at("with restarts", r, t) for t in (200, 300, *_late)} for r in ("EMA", "neither"))
assert all(abs(_with_ema[t].mean() / _alone[t].mean() - 1) < 0.1 for t in _late)
assert 0.4 < _with_ema[300].mean() / _alone[300].mean() < 0.6 and _with_ema[300].std() < 0.5 * _alone[300].std()
_all = {t: _at("with restarts", "k-means start and EMA", t).mean() / _with_ema[t].mean() for t in (200, *_late)}
assert 0.25 < _all[200] < 0.4 and all(1.1 < _all[t] < 1.3 for t in _late)
_random, _means = (_at("with restarts", r, 200, "perplexity").mean() for r in ("EMA", "k-means start and EMA"))
assert _means > 3 * _random

_starts = "EMA", "k-means start and EMA"
for _measure in ("training MSE", "held-out MSE without the brightest"):
    _random, _means = (_at("with restarts", start, 600, _measure).mean() for start in _starts)
    assert 0.92 < _means / _random < 1.05
_random, _means = (_at("with restarts", start, 600, "brightest codeword").mean() for start in _starts)
assert _random > bright > _means
assert 0.15 < (held_out.mean(1) > bright).float().mean() < 0.2

# %% [markdown] tags=["doubters"]
# ### Where they start, or when they restart?
#
# `fit` gives each codeword the share of vectors that its k-means cell has. The shares differ, so codewords that the cloud leaves behind fall below the threshold one after another. `from_pretrained` with the same k-means gives all the same share. They are left behind as well, and restart together after some 230 steps, as those of the random start do. Their error after 600 steps is then that of the random start.


# %% tags=["doubters"]
def start_alike(network):
    """As start_where_the_data_is, and each codeword counts as one of average use."""
    start_where_the_data_is(network)
    network[1] = VectorQuantizer.from_pretrained(network[1].codebook)
    return network


alike = [report(learn(start_alike(network(8, seed=seed)), steps=600)[600])["held-out MSE"] for seed in (3, 4)]

# %% tags=["claim"]
_random, _means = (_at("with restarts", start, 600)[3:].mean().item() for start in _starts)
assert 0.75 < sum(alike) / 2 / _random < 1.15 and sum(alike) / 2 < 0.85 * _means

# %% [markdown]
# ## The layer as it comes
#
# EMA and restarts are what `VectorQuantizer(dim, codebook_size)` does unless told otherwise; the k-means start is there when you call `fit`. Here is the first network, `dim=2`, with the defaults. Note the step numbers before you read on: when do codewords come to life?

# %%
default_path = learn(network(dim=2), keep=[0, 1, 10, 225, 235, 245, 270])
widgets.explore(lambda step: cells(default_path[step], title=f"Step {step}"), step=list(default_path))

# %%
print("plain, step 300:   ", told(path[300]))
print("defaults, step 225:", told(default_path[225]))
print("defaults, step 300:", told(default_path[300]))

# %% tags=["claim"]
_usage = {step: report(kept)["usage"] for step, kept in default_path.items()}
assert (
    _usage[1] > 0.8
    and _usage[225] < 0.5
    and _usage[235] > 1.5 * _usage[225]
    and _usage[300] > 2 * report(path[300])["usage"]
)
_early, _late, _without = (report(kept)["held-out MSE"] for kept in (default_path[225], default_path[300], path[300]))
assert _late < 0.75 * _early and _early > _without and 0.75 < _late / _without < 1

# %% [markdown]
# Before the first batch no codeword has been used, so nearly all of them restart at its vectors, and at step 1 the whole codebook stands in the cloud. The encoder runs away from it, and most codewords die again. Some time after step 225 the dead are fetched back all at once. The error then falls fast, but late: by step 300 it is little less than the plain network's. Why so late?
#
# ### Exercise 5 · Explore · ★★★ · 8 minutes
#
# A codeword that has just been restarted counts as one of average use. In this unit its share is 1. If no vector chooses it any more, every step multiplies the share by the decay. After how many steps is it below a threshold, given in the same unit? Try some decays with a loop, find the law, and write it without one.


# %% tags=["exercise"]
def steps_until_restart(decay, threshold):
    """The first step after which a share that started at 1 and only decays is below the threshold: a whole number."""
    ### BEGIN SOLUTION
    return math.floor(math.log(threshold) / math.log(decay)) + 1
    ### END SOLUTION


# %% [markdown] tags=["hint"]
# After t steps the share is decayᵗ. Solve decayᵗ = threshold for t with logarithms. The answer is the first whole number beyond it. For 0.5 and 0.3 it is 2: 0.5 is above, 0.25 is below.

# %%
check.steps_until_restart(steps_until_restart)

# %% [markdown]
# With the defaults, 0.99 and 0.1, it is 230 steps. With a decay of 0.95 it is 45, with 0.9 it is 22. Is faster better? Again five seeds each:

# %%
decays = measured.read("decays")
plots.over_steps(decays.settings["steps"], over_seeds(decays, "held-out MSE"), ylabel="held-out MSE", log=True)

# %% [markdown]
# It is faster: after 200 steps both shorter waits have a quarter of the error or less, since the dead come back while the cloud still moves. In the end it makes no difference. In between there is a price: from step 600 to 1,200 the error is an eighth to a fifth larger with a decay of 0.9 than with 0.99.

# %% tags=["claim"]
_decay = {
    name: {t: sum(seed[t] for seed in row["held-out MSE"].values()) / 5 for t in ("200", "600", "800", "1200", "2400")}
    for name, row in decays.results["EMA and restarts"].items()
}
_fast, _middle, _slow = (_decay[f"decay {decay}"] for decay in (0.9, 0.95, 0.99))
assert max(_fast["200"], _middle["200"]) < 0.26 * _slow["200"]
assert all(1.1 < _fast[t] / _slow[t] < 1.25 for t in ("600", "800", "1200"))
assert max(d["2400"] for d in _decay.values()) < 1.1 * min(d["2400"] for d in _decay.values())
assert [math.floor(math.log(0.1) / math.log(decay)) + 1 for decay in (0.9, 0.95, 0.99)] == [22, 45, 230]

# %% [markdown]
# ## What living codewords buy
#
# Whoever sees a poor picture asks for more codewords. Do they help? Here is a photo that no codebook has seen, rebuilt with 4 to 256 codewords, once trained the plain way and once with the defaults.

# %%
photo = data.photos().held_out["chelsea"][:, 20:220, 100:340]


@torch.no_grad()
def rebuild(network):
    """The photo, from the indices of its patches."""
    encoder, quantizer, decoder = network
    columns = F.unfold(photo[None], kernel_size=4, stride=4).transpose(1, 2)
    rebuilt = decoder(quantizer.decode(quantizer.encode(encoder(columns))))
    return F.fold(rebuilt.transpose(1, 2), photo.shape[1:], kernel_size=4, stride=4)[0].clamp(0, 1)  # undoes unfold


WAYS = {"by gradient": PLAIN, "defaults": {}}
SIZES = [4, 16, 64, 256]
trained = {(way, size): learn(network(8, size, **WAYS[way]), steps=600)[600] for way in WAYS for size in SIZES}


# %%
def compared(codebook_size):
    """The photo, rebuilt both ways, with the error and the perplexity of each codebook."""
    images, titles = [photo], [f"original\nK = {codebook_size}"]
    for way in WAYS:
        images.append(rebuild(trained[way, codebook_size]))
        perplexity = report(trained[way, codebook_size])["perplexity"]
        titles.append(f"{way}, {metrics.psnr(images[-1], photo):.1f} dB\nperplexity {perplexity:.1f}")
    caption = "Compare each perplexity with K, and then the pictures."
    return plots.photo_row(torch.stack(images), titles, caption=caption)


widgets.explore(compared, codebook_size=SIZES)

# %% [markdown]
# One photo and one seed can deceive. Here are five seeds, on all held-out patches, after 600 steps and after four times as many:


# %%
by_size = measured.read("codebook_sizes")
sizes_drawn = over_seeds(by_size, "held-out MSE")
plots.over_steps(by_size.settings["sizes"], sizes_drawn, xlabel="codewords K", ylabel="held-out MSE", log=True)


# %% tags=["claim"]
def _seeds(steps, way, size, measure="held-out MSE"):
    return [seed[str(size)] for seed in by_size.results[f"after {steps:,} steps"][way][measure].values()]


assert max(_seeds(600, "by gradient", 256, "perplexity")) < 8 and min(_seeds(600, "defaults", 256, "perplexity")) > 180
assert sum(_seeds(600, "defaults", 16)) < 0.45 * sum(_seeds(600, "by gradient", 256))
assert max(_seeds(2400, "defaults", 64)) < 0.85 * min(_seeds(2400, "by gradient", 256))
assert max(_seeds(2400, "by gradient", 256, "perplexity")) < 23
assert max(_seeds(600, "defaults", 256)) < min(_seeds(600, "defaults", 64)) and max(
    _seeds(2400, "defaults", 256)
) < min(_seeds(2400, "defaults", 64))

# %% [markdown]
# With living codewords a larger codebook is worth its bits: from 4 to 256 every step to the right lowers the error. By gradient alone 256 codewords, 8 bits a patch, have a perplexity of 6 after 600 steps, and **16 living codewords have less than half their error**, at half the bits. After 2,400 steps the 256 have caught up with the 16, but not with 64 living codewords, at 6 bits.
#
# This is what notebook 01 promised: pay for more codewords, and get a better picture. It holds in a network that learns as soon as codewords are kept alive. What it doesn't change is the price: every further bit doubles the codebook. Notebook 04 finds the way around that.

# %% [markdown]
# ## What we saw
#
# - Trained by gradient for 300 steps, less than a third of 64 codewords are in use with 2 numbers a patch, and less than a fifth with 8. More than half never moved: a codeword that no vector chooses occurs in no loss.
# - Usage and perplexity belong to a whole set. A perfect codebook of 64 shows a usage of 63.5 % in batches of 64, and a perplexity of about 36.5.
# - The quotient of the averages of sum and count is c + (1 − γ)/n̄ · Σ(x − c). A codeword can follow its vectors without a sum.
# - A restart that only replaces a row is overwritten in the same step.
# - A threshold of 2 vectors a batch declares all codewords of a perfect codebook dead at K = 1,024 and batches of 512. A threshold relative to the fair share declares none, as long as the average sees many more vectors than there are codewords.
# - Ablation over five seeds, until little changes any more: restarts decide. A k-means start and a faster decay shorten the way there. Neither lowers the error that is reached.
# - With living codewords a larger codebook is worth its bits.
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

# %% [markdown] tags=["kernel"]
# ## What you have solved
#
# Each exercise of the course that a check has accepted:

# %%
check.progress()
