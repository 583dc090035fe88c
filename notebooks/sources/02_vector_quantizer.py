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
# # 02 · How does a lookup learn?
#
# **The question.** In notebook 01 the data stood still and k-means came to it. Inside a network the vectors come from layers that are learning too, and everything learns by gradients. A lookup has none. How can it sit in the middle of a network that is trained?
#
# **You will be able to**
# - find the nearest codewords of many vectors with one matrix product;
# - say exactly which function's gradient the straight-through trick computes, and measure it;
# - write the codebook loss and the commitment loss, and say which tensor each one moves;
# - write a vector quantizer as an `nn.Module`, and recognise four bugs that real libraries shipped.
#
# **You need** notebook 01 (codebook, index, `nearest`, k-means), and from PyTorch: autograd, `detach`, an optimizer, `nn.Module`.
#
# **Time.** It runs in {{run_time}}. Reading takes half an hour, the five exercises another half.

# %%
import torch
import torch.nn.functional as F
from torch import nn

from rvq_tutorial import VectorQuantizer, check, data, kmeans, nearest, plots, straight_through, widgets

torch.manual_seed(0)

# %% [markdown]
# ## A lookup in the middle
#
# The network we are heading for has three parts. An **encoder** turns an input into a vector x. The **quantizer** puts the nearest codeword x̂ in its place. A **decoder** rebuilds the input from x̂. Only the codeword's index has to be stored.
#
# First the middle part alone: vectors in the plane, and 16 codewords that were drawn at random and know nothing of the data.

# %%
x = data.toy("spiral", 500, seed=0)
codebook = torch.randn(16, 2)
plots.voronoi(x, codebook)

# %% [markdown]
# ### Nearest, without a big table
#
# Written as it is said, the nearest codeword is found from all differences x − c: a table with one entry for every vector, every codeword and every component.

# %%
differences = x[:, None] - codebook
indices = differences.square().sum(-1).argmin(1)
print(f"{tuple(differences.shape)}: {differences.numel():,} numbers for {len(x)} vectors")
assert torch.equal(indices, nearest(x, codebook))

# %% [markdown]
# A real layer sees perhaps 16,384 vectors of 64 components and has 1,024 codewords. Then this table has a thousand million entries, 4 GB. Expand the square instead:
#
# $$\|x - c_k\|^2 = \|x\|^2 - 2\,x \cdot c_k + \|c_k\|^2$$
#
# The first term is the same for every codeword, so it cannot change which one wins. Dropping it and halving the rest leaves the **score** $\tfrac12\|c_k\|^2 - x \cdot c_k$. All products x · c together are one matrix product, the thing that computers do fastest, and the table has no third axis.

# %% [markdown]
# ### Exercise 1 · Implement · ★☆☆ · 5 minutes
#
# Find the index of the nearest codeword for every row of `x`, from the scores. No loop, and no table with three axes.

# %% tags=["exercise"]
def nearest_code(x, codebook):
    """Index of the nearest codeword of each row of x: (N, dim), (K, dim) -> (N,)."""
    ### BEGIN SOLUTION
    scores = codebook.square().sum(1) / 2 - x @ codebook.T
    return scores.argmin(1)
    ### END SOLUTION


# %% [markdown] tags=["hint"]
# `x @ codebook.T` has shape (N, K): row n holds the products of vector n with every codeword. `codebook.square().sum(1)` has shape (K,), and broadcasting adds it to every row. Small scores are near: which axis does `argmin` run along?

# %%
check.nearest_code(nearest_code)

# %% [markdown]
# The package's `nearest` does the same, a few rows at a time, so that not even the (N, K) table exists as a whole. From here on we use it.
#
# ### What is wrong here? · Far from home
#
# `torch.cdist` gives a table of distances, and it uses the same matrix product. Below, the vectors and the codewords are all moved by 1,000 along every axis. That changes no difference between any two of them. Before you run the cell: how many of the indices change?

# %%
vectors, codewords = torch.randn(2000, 8), torch.randn(256, 8)
moved = vectors + 1000, codewords + 1000
exact = nearest(moved[0].double(), moved[1].double())

wrong = (torch.cdist(*moved).argmin(1) != exact).double().mean().item()
print(f"wrong at the origin: {(torch.cdist(vectors, codewords).argmin(1) != nearest(vectors, codewords)).sum()} of 2000")
print(f"wrong after moving:  {wrong:.0%}")
assert wrong > 0.2

# %% [markdown]
# The formula is right and the arithmetic is not. Far out, the scores are around 8 · 1000² / 2 = 4,000,000 and differ by about 1. A float32 has some seven digits, so what decides is rounded away.
#
# **The mend.** Take the codebook's mean off both sides before the product. Differences stay the same, and the numbers are small again. `nearest` does that:

# %%
assert (nearest(*moved) != exact).double().mean() < 0.001

# %% [markdown]
# ## A staircase has no slope
#
# Now backwards. In one dimension a lookup can be drawn. The codewords are −1, 0 and 1, and x runs along the axis.
#
# Behind the lookup stands a loss: how far is x̂ from the target 0.9? At x = 0.3 the nearest codeword is 0, and going on to the right would help: beyond 0.5 the codeword 1 takes over, and it is much closer to the target.

# %%
levels = torch.tensor([[-1.0], [0.0], [1.0]])


def lookup_1d(x):
    """The nearest of the three levels to a number."""
    return levels[nearest(x.view(1, 1), levels)].view(())


for step in (0.001, 0.01, 0.1):
    slope = (lookup_1d(torch.tensor(0.3 + step)) - lookup_1d(torch.tensor(0.3 - step))) / (2 * step)
    print(f"slope of the lookup at 0.3, measured over ±{step}: {slope:.3f}")
    assert slope == 0

# %% [markdown]
# A **finite difference** is the plainest way to measure a slope: step a little to both sides, and divide the change by the distance. Here nothing changes, so the slope is 0. It is 0 everywhere but at the borders between cells, and there it doesn't exist.
#
# Autograd is not even given the chance. An index is an integer, and nothing flows back through an integer:

# %%
number = torch.tensor(0.3, requires_grad=True)
print("does the lookup's result depend on x, as autograd sees it?", lookup_1d(number).requires_grad)
assert not lookup_1d(number).requires_grad

# %% [markdown]
# So whatever stands before the lookup, the encoder, would never learn. The slope is zero, which is true and useless.
#
# ## Straight-through: a useful untruth
#
# Bengio et al. (2013) had the idea that made this work. Going forward, use the codeword. Going backward, **pretend that x̂ is x plus a constant**:
#
# $$\hat x = x + \mathrm{sg}[\hat x - x]$$
#
# sg is *stop-gradient*: the value stays, the gradient doesn't. In PyTorch it is `detach`.

# %%
def through(x, quantized):
    """The value of `quantized`, with the gradient of x."""
    return x + (quantized - x).detach()


loss = (through(number, lookup_1d(number)) - 0.9) ** 2
print(f"value {through(number, lookup_1d(number)):.3f}, loss {loss:.3f}")

# %%
plots.staircase(levels.flatten(), x=0.3, target=0.9)

# %% [markdown]
# The dashed line is what autograd believes. It touches the truth at one place only: where x is now. With every step of x the constant is made anew and the line is laid through the new place.
#
# ### Exercise 2 · Predict · ★★☆ · 4 minutes
#
# The loss is L(x) = (x̂ − 0.9)², and x = 0.3. Work out on paper, before anything is run: the true slope of L at x, and the slope that straight-through reports.

# %% tags=["exercise"]
def predicted_slopes():
    """The true slope of the loss at x = 0.3, and the slope with straight-through: two numbers."""
    ### BEGIN SOLUTION
    return 0.0, 2 * (0.0 - 0.9)
    ### END SOLUTION


# %% [markdown] tags=["hint"]
# The slope of (y − 0.9)² by y is 2 (y − 0.9). The first question: how fast does y = x̂ change with x? The second: if y = x + constant, how fast does it change, and what is the *value* of y at which the slope is taken?

# %%
check.predicted_slopes(predicted_slopes)

# %% [markdown]
# Autograd's answer. Note where the slope is taken: at the codeword, x̂ = 0, not at x = 0.3.

# %%
(slope,) = torch.autograd.grad(loss, number)
print(f"straight-through: {slope:.3f}")
assert abs(slope + 1.8) < 1e-6

# %% [markdown]
# Move x and watch the line follow. Left of −0.5 the slope is steep, and right of 0.5 it is small but not zero: the codeword 1 is past the target, so x is pulled back.

# %%
widgets.explore(lambda x: plots.staircase(levels.flatten(), x, target=0.9), x=[-1.2, -0.7, -0.3, 0.0, 0.3, 0.45, 0.7, 1.2])

# %% [markdown]
# `straight_through` in the package says the same in another order. In floating point x + (x̂ − x) is not always exactly x̂; the package's is.

# %%
quantized = codebook[nearest(x, codebook)]
print("largest difference, ours:    ", (through(x, quantized) - quantized).abs().max().item())
print("largest difference, package: ", (straight_through(x, quantized) - quantized).abs().max().item())
assert torch.allclose(through(x, quantized), quantized, atol=1e-6)
assert torch.equal(straight_through(x, quantized), quantized)

# %% [markdown]
# ## Measured, through an encoder
#
# One number proves little. Here is a whole network, as small as can be: inputs u, an encoder x = tanh(u W), the lookup, and a decoder x̂ V that rebuilds u. All in float64, so that finite differences are sharp.

# %%
inputs, weight = torch.randn(64, 4).double(), torch.randn(4, 2).double().requires_grad_()
decoder_weight = torch.randn(2, 4).double().requires_grad_()
codebook = torch.randn(8, 2).double().requires_grad_()


def encode(weight):
    """What the encoder makes of the inputs."""
    return torch.tanh(inputs @ weight)


def lookup(x, codebook):
    """The nearest codeword of each vector."""
    return codebook[nearest(x, codebook)]


def reconstruction_loss(quantized, decoder_weight=decoder_weight):
    """Mean squared error of what the decoder rebuilds."""
    return F.mse_loss(quantized @ decoder_weight, inputs)


# %% [markdown]
# And finite differences by every entry of a tensor, one after the other:

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


# %% [markdown]
# Now two functions of the encoder's weight W. The **true** one looks the codewords up anew for every W. The **pretended** one freezes the error e = x̂ − x where W is now, and takes x + e for x̂.

# %%
def true_loss(weight):
    """The reconstruction loss as it is."""
    return reconstruction_loss(lookup(encode(weight), codebook))


error = (lookup(encode(weight), codebook) - encode(weight)).detach()


def pretended_loss(weight):
    """The reconstruction loss as straight-through has it: each vector keeps the error that it has now."""
    return reconstruction_loss(encode(weight) + error)


# %%
encoded = encode(weight)
loss = reconstruction_loss(straight_through(encoded, lookup(encoded, codebook)))
(autograd,) = torch.autograd.grad(loss, weight, retain_graph=True)
truth, pretence = finite_differences(true_loss, weight), finite_differences(pretended_loss, weight)

assert torch.all(truth == 0)
assert torch.allclose(autograd, pretence, rtol=1e-5, atol=1e-8) and autograd.norm() > 1e-3
plots.gradient_check(autograd, {"the loss as it is": truth, "the loss with the error frozen": pretence})

# %% [markdown]
# This is the exact statement, and the picture is its proof. **The straight-through gradient is the gradient of the loss in which every vector's error x̂ − x is kept constant.** The true gradient is zero, all of it.
#
# Is the pretence a good guide? It is right about a step so long that x changes its cell, as far as the codewords lie where the error suggests. It is wrong about any smaller step: then nothing changes. That is a bet, not a theorem, and at the end of this notebook we measure what it wins.
#
# ## Who teaches the codebook?
#
# In the forward pass the codewords decide everything. Which of them does the reconstruction loss improve?

# %%
by_codebook = torch.autograd.grad(loss, codebook, retain_graph=True, allow_unused=True)[0]
print("gradient of the reconstruction loss by the codebook, with straight-through:", by_codebook)

truth = finite_differences(lambda codebook: reconstruction_loss(lookup(encode(weight), codebook)), codebook)
print(f"norm of the true one, by finite differences: {truth.norm():.3f}")
assert by_codebook is None and truth.norm() > 1e-3

# %% [markdown]
# None. Here it is straight-through that hides something: moving a codeword does change x̂, so the true gradient isn't zero. But the value of x̂ was put in with sg, and all the gradient went to x. "The embeddings receive no gradients from the reconstruction loss", as the VQ-VAE paper puts it (van den Oord et al. 2017, section 3.2). So the codebook needs a loss of its own.
#
# ### Two losses, one number
#
# Equation 3 of that paper has three terms:
#
# $$L = \underbrace{\text{reconstruction}}_{\text{moves encoder, decoder}} + \underbrace{\|\mathrm{sg}[x] - \hat x\|^2}_{\text{codebook loss}} + \beta\,\underbrace{\|x - \mathrm{sg}[\hat x]\|^2}_{\text{commitment loss}}$$
#
# The **codebook loss** pulls a codeword towards the vectors that chose it. The **commitment loss** pulls the vectors towards their codeword, so that the encoder's output doesn't grow or wander about faster than the codewords can follow. Both are the same number, the distortion. They differ only in who is moved by it.
#
# ### Exercise 3 · Implement · ★★☆ · 5 minutes
#
# Write both, as *means* over all vectors and components, without β.

# %% tags=["exercise"]
def vq_losses(x, quantized):
    """The codebook loss and the commitment loss: (N, dim), (N, dim) -> two scalars."""
    ### BEGIN SOLUTION
    codebook_loss = (x.detach() - quantized).square().mean()
    commitment_loss = (x - quantized.detach()).square().mean()
    return codebook_loss, commitment_loss
    ### END SOLUTION


# %% [markdown] tags=["hint"]
# Both are the mean of a squared difference. In each, one of the two tensors must hold still: `detach` that one. The codebook loss moves codewords, so which tensor holds still in it?

# %%
check.vq_losses(vq_losses)

# %% [markdown]
# Now the table of who is moved by what. Nine gradients: three losses, each by the encoder's weight, the codebook and the decoder's weight.

# %%
chosen = lookup(encoded, codebook)
losses = {
    "reconstruction": reconstruction_loss(straight_through(encoded, chosen)),
    "codebook loss": F.mse_loss(chosen, encoded.detach()),
    "commitment loss": F.mse_loss(encoded, chosen.detach()),
}
moved = {"encoder": weight, "codebook": codebook, "decoder": decoder_weight}
gradients = {
    name: torch.autograd.grad(loss, moved.values(), retain_graph=True, allow_unused=True)
    for name, loss in losses.items()
}

# %%
print(" " * 15, *(f"{name:>9}" for name in moved))
for name, row in gradients.items():
    print(f"{name:15}", *("     none" if gradient is None else f"{gradient.norm():9.4f}" for gradient in row))

pattern = [[gradient is not None for gradient in row] for row in gradients.values()]
assert pattern == [[True, False, True], [False, True, False], [True, False, False]]

# %% [markdown]
# The numbers are the lengths of the gradients. The codebook learns from its own loss alone; the encoder hears two voices, and only one of them is a pretence. To see which, measure: the functions below look the nearest codewords up anew at every step, nothing in them is frozen.

# %%
def distortion(weight, codebook):
    """Mean squared distance from each vector to its nearest codeword, squared distances divided by dim."""
    return F.mse_loss(encode(weight), lookup(encode(weight), codebook))


by_codebook = finite_differences(lambda codebook: distortion(weight, codebook), codebook)
by_encoder = finite_differences(lambda weight: distortion(weight, codebook), weight)
by_decoder = finite_differences(lambda v: reconstruction_loss(chosen, v), decoder_weight)

assert torch.allclose(gradients["codebook loss"][1], by_codebook, rtol=1e-5, atol=1e-8)
assert torch.allclose(gradients["commitment loss"][0], by_encoder, rtol=1e-5, atol=1e-8)
assert torch.allclose(gradients["reconstruction"][2], by_decoder, rtol=1e-5, atol=1e-8)

# %%
plots.gradient_check(gradients["commitment loss"][0], {"the commitment loss as it is": by_encoder})

# %% [markdown]
# No pretence here. On a border between two cells both codewords are equally far, so the distance to the *nearest* one has no jump, and its gradient is the plain one. Following the codebook loss downhill is what k-means does in notebook 01, in small steps. Of the whole table, one entry is pretended: the reconstruction loss by the encoder.
#
# ## The layer
#
# Lookup, two losses, straight-through. That is all there is in a vector quantizer. The paper uses β = 0.25.

# %%
class Quantizer(nn.Module):
    """The nearest of K learned codewords in place of each row of x: (N, dim) -> (N, dim), indices (N,), loss."""

    def __init__(self, dim, codebook_size, beta=0.25):
        super().__init__()
        self.codebook = nn.Parameter(torch.randn(codebook_size, dim))
        self.beta = beta

    def forward(self, x):
        indices = nearest(x, self.codebook)
        chosen = self.codebook[indices]
        codebook_loss = F.mse_loss(chosen, x.detach())
        commitment_loss = F.mse_loss(x, chosen.detach())
        return straight_through(x, chosen), indices, codebook_loss + self.beta * commitment_loss


# %% [markdown]
# The package's `VectorQuantizer` is the same layer. Two of its settings belong to notebook 03 and are set here to the plain way: the codebook learns by gradient, and codewords that nobody uses are left alone. It returns a named tuple, a `QuantizerOutput`. Both layers get the same codebook and the same x; all they say must agree.

# %%
ours = Quantizer(2, 16)
theirs = VectorQuantizer(2, 16, codebook_update="gradient", dead_code_threshold=0)
theirs.codebook.data.copy_(ours.codebook)

x = data.toy("spiral", 500, seed=0).requires_grad_()
quantized, indices, loss = ours(x)
output = theirs(x)
print(*output._fields, sep=", ")
assert torch.equal(output.quantized, quantized) and torch.equal(output.indices, indices)
assert torch.allclose(output.loss, loss)

# %% [markdown]
# And the gradients. The made-up loss behind the layer is the sum of cubes, so that no two vectors are treated alike.

# %%
by_ours = torch.autograd.grad(quantized.pow(3).sum() + loss, [x, ours.codebook])
by_theirs = torch.autograd.grad(output.quantized.pow(3).sum() + output.loss, [x, theirs.codebook])
for mine, other in zip(by_ours, by_theirs, strict=True):
    assert torch.allclose(mine, other, atol=1e-6)
print("same gradients by x and by the codebook")

# %% [markdown]
# ### What is wrong here? · The batch that shouts
#
# `F.mse_loss` takes a mean. The quantizer of a well-known library of autoencoders, pythae, summed over the batch instead, while its users think of β as a fixed balance. Below, the batch is repeated 4 and 16 times: the same vectors, so nothing about the task changes. The reconstruction loss is a mean. Predict the last column.

# %%
print("vectors   mean   sum")
for copies in (1, 4, 16):
    batch = x.detach().repeat(copies, 1)
    chosen = theirs.codebook[nearest(batch, theirs.codebook)].detach()
    mean, total = F.mse_loss(batch, chosen), F.mse_loss(batch, chosen, reduction="sum")
    print(f"{len(batch):7}  {mean:5.3f}  {total:4.0f}")
    assert torch.isclose(mean, theirs(x).commitment_loss) and torch.isclose(total, mean * batch.numel(), rtol=1e-4)

# %% [markdown]
# The sum grows with the batch, and its gradient with it. Whoever doubles the batch doubles β without knowing it. Of all 16,000 numbers here each pulls as hard as in the small batch, while the mean reconstruction loss divides its pull among them.
#
# **The mend.** Take means, in both losses, over everything that was quantized.
#
# ## Features of an image
#
# Images come as (B, C, H, W): channels second. An encoder might make 64 channels at 8 × 8 places of an image. At each place the 64 numbers are one vector; `channel_dim=1` says on which axis a vector lies.

# %%
features = torch.randn(1, 64, 8, 8)
layer = VectorQuantizer(64, 16, channel_dim=1, codebook_update="gradient", dead_code_threshold=0)
output = layer(features)
print(f"quantized {tuple(output.quantized.shape)}, indices {tuple(output.indices.shape)}, {layer.bits:.0f} bits each")
assert output.quantized.shape == features.shape and output.indices.shape == (1, 8, 8) and layer.bits == 4

# %% [markdown]
# ### What is wrong here? · The classic snippet
#
# The following lines, in one wording or another, stand in many tutorials. They move the channels last, look up, move them back, and take the losses. Read them closely and predict: what happens for features (1, 64, 8, 8)? And for (1, 8, 8, 8)?

# %%
def classic_snippet(features, codebook, beta=0.25):
    """(B, C, H, W), (K, C) -> the quantized features, (B, C, H, W), and the loss."""
    x = features.permute(0, 2, 3, 1)  # (B, H, W, C)
    quantized = codebook[nearest(x, codebook)]
    quantized = quantized.permute(0, 3, 1, 2)  # (B, C, H, W)
    loss = (quantized - x.detach()).square().mean() + beta * (quantized.detach() - x).square().mean()
    return straight_through(features, quantized), loss


# %%
try:
    classic_snippet(torch.randn(1, 64, 8, 8), torch.randn(16, 64))
except RuntimeError as error:
    print(f"(1, 64, 8, 8): {error}")

codewords = torch.randn(16, 8)
perfect = codewords[torch.randint(16, (1, 8, 8))].permute(0, 3, 1, 2)  # every vector is a codeword
quantized, loss = classic_snippet(perfect, codewords)
print(f"(1, 8, 8, 8): quantized without error: {torch.equal(quantized, perfect)}, loss {loss:.2f}")
assert torch.equal(quantized, perfect) and loss > 0.5

# %% [markdown]
# With 64 channels it crashes, and that is the lucky case. Where C = H = W it runs. Every vector *is* a codeword and nothing is lost, so the loss should be 0, but it compares `quantized`, channels second, with `x`, channels last: one place's channels with another place's. Training on it pulls codewords towards nonsense.
#
# ### Exercise 4 · Repair · ★★☆ · 6 minutes
#
# Mend it. Same arguments, same two results, both losses as means.

# %% tags=["exercise"]
def quantize_features(features, codebook, beta=0.25):
    """(B, C, H, W), (K, C) -> the quantized features, (B, C, H, W), and the loss."""
    ### BEGIN SOLUTION
    x = features.permute(0, 2, 3, 1)  # (B, H, W, C)
    chosen = codebook[nearest(x, codebook)]  # (B, H, W, C)
    loss = F.mse_loss(chosen, x.detach()) + beta * F.mse_loss(x, chosen.detach())
    return straight_through(features, chosen.permute(0, 3, 1, 2)), loss
    ### END SOLUTION


# %% [markdown] tags=["hint"]
# Two ways: take the losses while both tensors still have their channels last, or compare the permuted `quantized` with `features`. Don't be tempted by `reshape` in place of `permute`: it gives the right shape and mixes channels with places.

# %%
check.quantize_features(quantize_features)

# %% [markdown]
# ## β: who walks towards whom
#
# Back to the plane. The package draws where the losses pull: an arrow at a codeword is the pull of the codebook loss, an arrow at a vector that of the commitment loss. First, that these arrows are what autograd says:

# %%
points, start = data.toy("spiral", 300, seed=0), torch.randn(32, 2)
x, codebook = points.clone().requires_grad_(), start.clone().requires_grad_()
chosen = codebook[nearest(x, codebook)]
loss = F.mse_loss(chosen, x.detach()) + 0.25 * F.mse_loss(x, chosen.detach())
by_x, by_codebook = torch.autograd.grad(loss, [x, codebook])

counts = torch.bincount(nearest(x, codebook), minlength=32)
means = torch.stack([(x - chosen)[nearest(x, codebook) == k].sum(0) / counts[k].clamp(min=1) for k in range(32)])
scale = x.numel() / 2  # the mean's divisor, and the 2 of the square's derivative
assert torch.allclose(-scale * by_x, 0.25 * (chosen - x), atol=1e-5)
assert torch.allclose(-scale * by_codebook, counts[:, None] * means, atol=1e-3)

# %% [markdown]
# Try a few sizes and β. Watch three things: the codewords' arrows don't depend on β at all; a codeword in whose cell no vector lies has no arrow and will never move; with more codewords all arrows get shorter.

# %%
widgets.explore(
    lambda codebook_size, commitment_weight: plots.gradient_field(points, start[:codebook_size], commitment_weight),
    codebook_size=[2, 4, 8, 16, 32],
    commitment_weight=[0.0, 0.1, 0.25, 0.5, 1.0],
)

# %% [markdown]
# Now let go. One vector at 0 and one codeword at 1, both free, both following their loss downhill until they meet. Where?

# %%
def right_loss(x, codeword, beta):
    """Codebook loss plus β times commitment loss."""
    return (codeword - x.detach()).square() + beta * (x - codeword.detach()).square()


def codeword_share(loss, beta, steps=200):
    """The share of the way between them that the codeword has gone when the two have met."""
    x, codeword = torch.zeros((), requires_grad=True), torch.ones((), requires_grad=True)
    optimizer = torch.optim.SGD([x, codeword], lr=0.1)
    for _ in range(steps):
        optimizer.zero_grad()
        loss(x, codeword, beta).backward()
        optimizer.step()
    return 1 - codeword.item()


for beta in (0.0, 0.25, 1.0):
    print(f"β = {beta:.2f}: the codeword goes {codeword_share(right_loss, beta):.0%} of the way")

# %% [markdown]
# At β = 0 the codeword goes all the way; at β = 1 they meet in the middle. β says how much of the compromise is the encoder's.
#
# ### What is wrong here? · β on the wrong term
#
# taming-transformers, from which much code was copied, weights the other loss. For the first 90 % of its users nothing looked wrong: everything trained. What do you expect at β = 0.25?

# %%
def wrong_loss(x, codeword, beta):
    """As in many copies: β times codebook loss, plus commitment loss."""
    return beta * (codeword - x.detach()).square() + (x - codeword.detach()).square()


right, wrong = codeword_share(right_loss, 0.25), codeword_share(wrong_loss, 0.25)
print(f"the codeword's share at β = 0.25: {right:.0%} with the paper's loss, {wrong:.0%} with the copy's")
assert abs(right - 0.8) < 0.001 and abs(wrong - 0.2) < 0.001
