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
# - write a vector quantizer as an `nn.Module`, and recognise four bugs that real code has shipped with.
#
# **You need** notebook 01 (codebook, index, `nearest`, k-means), and from PyTorch: autograd, `detach`, an optimizer, `nn.Module`.
#
# **Time.** It runs in {{run_time}}. Reading takes half an hour, the five exercises another half.

# %%
import torch
import torch.nn.functional as F
from torch import nn

from rvq_tutorial import VectorQuantizer, check, data, kmeans, nearest, plots, straight_through, widgets

_ = torch.manual_seed(0)  # the same numbers in every run

# %% [markdown]
# ## A lookup in the middle
#
# The network we are heading for has three parts. An **encoder** turns an input into a vector x. The **quantizer** puts the nearest codeword x̂ in its place. A **decoder** rebuilds the input from x̂. Only the codeword's index has to be stored. (Such networks are called VQ-VAEs, after van den Oord et al. 2017. Notebook 06 builds one.)
#
# First the middle part alone: 500 vectors in the plane, along a spiral, and 16 codewords that were drawn at random and know nothing of the data. As in notebook 01, a codeword's cell is where it is the nearest; the grey codewords have no vector in theirs.

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
# A real layer sees perhaps 16,384 vectors of 64 components and has 1,024 codewords. Then this table has more than a billion entries and takes 4 GB. Expand the square instead:
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
# `torch.cdist` gives a table of distances, and it uses the same matrix product. Below, the vectors and the codewords are all moved along every axis, by 1 to 1,000. That changes no difference between any two of them. Before you run the cell: how many of the indices change?

# %%
vectors, codewords = torch.randn(2000, 8), torch.randn(256, 8)
distances, shares = [1, 4, 16, 64, 256, 1000], {"torch.cdist": [], "nearest": []}
for distance in distances:
    moved = vectors + distance, codewords + distance
    exact = nearest(moved[0].double(), moved[1].double())
    shares["torch.cdist"].append((torch.cdist(*moved).argmin(1) != exact).double().mean().item())
    shares["nearest"].append((nearest(*moved) != exact).double().mean().item())
plots.lines(distances, shares, xlabel="distance moved along each axis", ylabel="share of wrong indices", log_x=True)

# %%
assert shares["torch.cdist"][0] < 0.01 and shares["torch.cdist"][-1] > 0.2

# %% [markdown]
# The formula is right and the arithmetic is not. Far out, the scores are around 8 · 1000² / 2 = 4,000,000 and differ by about 1. A float32 has some seven digits, so what decides is rounded away.
#
# **The mend.** Take the codebook's mean off both sides before the product. Differences stay the same, and the numbers are small again. `nearest` does that, and stays right:

# %%
assert max(shares["nearest"]) < 0.001

# %% [markdown]
# ## A staircase has no slope
#
# Now backwards. In one dimension a lookup can be drawn. The codewords are −1, 0 and 1, and x runs along the axis.
#
# Behind the lookup stands a loss: how far is x̂ from the target 0.9, squared? At x = 0.3 the nearest codeword is 0, and going on to the right would help: beyond 0.5 the codeword 1 takes over, and it is much closer to the target.

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
# A **finite difference** is the plainest way to measure a slope: step a little to both sides, and divide the change by the distance. Here nothing changes, so the slope is 0. It is 0 everywhere except at the borders between cells, where the lookup jumps and has no slope.

# %%
plots.staircase(levels, target=0.9)

# %% [markdown]
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
# The idea that made this work was written down by Bengio et al. (2013). Going forward, use the codeword. Going backward, **pretend that x̂ is x plus a constant**:
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

# %% [markdown]
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
# Now autograd's answer. `torch.autograd.grad(loss, x)` returns, in a tuple, the gradient that `loss.backward()` would add to `x.grad`. Note where the slope is taken: at the codeword, x̂ = 0, not at x = 0.3.

# %%
(slope,) = torch.autograd.grad(loss, number)
print(f"straight-through: {slope:.3f}")
assert abs(slope + 1.8) < 1e-6

# %% [markdown]
# In the picture the dashed lines are what autograd believes. They touch the truth at one place only: where x is now. With every step of x the constant is made anew, and the lines are laid through the new place. Move x and watch them follow. Right of 0.5 the slope changes its sign: the codeword 1 is past the target, so x is pulled back.


# %%
def believed(x):
    """The lookup, and what autograd takes it for at x."""
    return plots.staircase(levels, target=0.9, x=x)


widgets.explore(believed, x=[-1.2, -0.7, -0.3, 0.0, 0.3, 0.45, 0.7, 1.2])

# %% [markdown]
# `straight_through` in the package says the same in another order, x̂ + (x − sg[x]). In floating point x + (x̂ − x) is not always exactly x̂, but x − x is always exactly 0.

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


def reconstruction_loss(quantized, decoder_weight):
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
# The picture below compares two functions of the encoder's weight W with what autograd says. The **true** one looks the codewords up anew for every W. The **pretended** one freezes the error e = x̂ − x where W is now, and takes x + e for x̂.


# %%
def true_loss(weight):
    """The reconstruction loss as it is."""
    return reconstruction_loss(lookup(encode(weight), codebook), decoder_weight)


error = (lookup(encode(weight), codebook) - encode(weight)).detach()


def pretended_loss(weight):
    """The reconstruction loss as straight-through has it: each vector keeps the error that it has now."""
    return reconstruction_loss(encode(weight) + error, decoder_weight)


# %%
encoded = encode(weight)
loss = reconstruction_loss(straight_through(encoded, lookup(encoded, codebook)), decoder_weight)
(autograd,) = torch.autograd.grad(loss, weight, retain_graph=True)
truth, pretence = finite_differences(true_loss, weight), finite_differences(pretended_loss, weight)

assert torch.all(truth == 0)
assert torch.allclose(autograd, pretence, rtol=1e-5, atol=1e-8) and autograd.norm() > 1e-3
plots.gradient_check(autograd, {"the loss as it is": truth, "the loss with the error frozen": pretence})

# %% [markdown]
# Triangles pointing down lie on the diagonal, triangles pointing up at zero. So this is the exact statement: **The straight-through gradient is the gradient of the loss in which every vector's error x̂ − x is kept constant.** The true gradient is zero, all of it.
#
# Is the pretence a good guide? For one vector and a small step it is plainly wrong. For a crowd of vectors it is better than that. Move a million numbers, spread evenly from −1 to 1, all by the same small distance: nearly all keep their codeword, and the few that cross a border jump far. How far on average?

# %%
crowd = torch.rand(1_000_000, 1) * 2 - 1
for distance in (0.003, 0.03, 0.3):
    jumps = lookup(crowd + distance, levels) - lookup(crowd, levels)
    share, ratio = (jumps != 0).double().mean(), jumps.mean() / distance
    print(f"moved by {distance}: {share:5.1%} jump, x̂ moves {ratio:.2f} times as far as x")
    assert abs(ratio - 1) < 0.1

# %% [markdown]
# As far as x itself. A single staircase is flat; the average over a crowd has the slope that straight-through pretends, as long as the crowd is spread over the cells. That is a reason to bet on it, not a theorem. At the end of this notebook we measure what the bet wins.
#
# ## Who teaches the codebook?
#
# In the forward pass the codewords decide everything. Does the reconstruction loss improve them?

# %%
by_codebook = torch.autograd.grad(loss, codebook, retain_graph=True, allow_unused=True)[0]
print("gradient of the reconstruction loss by the codebook, with straight-through:", by_codebook)

truth = finite_differences(lambda c: reconstruction_loss(lookup(encode(weight), c), decoder_weight), codebook)
print(f"norm of the true one, by finite differences: {truth.norm():.3f}")
assert by_codebook is None and truth.norm() > 1e-3

# %% [markdown]
# None. Here it is straight-through that hides something: moving a codeword does change x̂, so the true gradient isn't zero. But the value of x̂ was put in with sg, and all the gradient went to x. The paper that introduced the VQ-VAE says so of its codebook as well (van den Oord et al. 2017, section 3.2). So the codebook needs a loss of its own.
#
# ### Two losses, one number
#
# Equation 3 of that paper has three terms:
#
# $$L = \underbrace{\text{reconstruction}}_{\text{moves encoder, decoder}} + \underbrace{\|\mathrm{sg}[x] - \hat x\|^2}_{\text{codebook loss}} + \beta\,\underbrace{\|x - \mathrm{sg}[\hat x]\|^2}_{\text{commitment loss}}$$
#
# (The paper writes squared lengths; we divide them by the number of components. Only the scale differs.)
#
# The **codebook loss** pulls a codeword towards the vectors that chose it. The **commitment loss** pulls the vectors towards their codeword, so that the encoder's output doesn't grow or wander about faster than the codewords can follow. Both are the same number, the distortion (the mean squared error of notebook 01). They differ only in who is moved by it.
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
    "reconstruction": reconstruction_loss(straight_through(encoded, chosen), decoder_weight),
    "codebook loss": F.mse_loss(chosen, encoded.detach()),
    "commitment loss": F.mse_loss(encoded, chosen.detach()),
}
tensors = {"encoder": weight, "codebook": codebook, "decoder": decoder_weight}
gradients = {
    name: torch.autograd.grad(loss, list(tensors.values()), retain_graph=True, allow_unused=True)
    for name, loss in losses.items()
}

# %%
print(" " * 15, *(f"{name:>9}" for name in tensors))
for name, row in gradients.items():
    print(f"{name:15}", *("     none" if gradient is None else f"{gradient.norm():9.4f}" for gradient in row))

pattern = [[gradient is not None for gradient in row] for row in gradients.values()]
assert pattern == [[True, False, True], [False, True, False], [True, False, False]]

# %% [markdown]
# The numbers are the lengths of the gradients. The codebook learns from its own loss alone; the encoder hears two voices, and only one of them is a pretence. To see which, measure: the functions below look the nearest codewords up anew at every step, nothing in them is frozen.


# %%
def distortion(weight, codebook):
    """Mean squared error, per component, of putting the nearest codeword in the place of each vector."""
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
# `F.mse_loss` takes a mean. Suppose that a quantizer sums instead, beside a reconstruction loss that is a mean. Below, the batch is repeated 2 to 16 times: the same vectors, so nothing about the task changes. Predict both curves.

# %%
sizes, commitment = [], {"sum": [], "mean": []}
for copies in (1, 2, 4, 8, 16):
    batch = x.detach().repeat(copies, 1)
    chosen = theirs.codebook[nearest(batch, theirs.codebook)].detach()
    sizes.append(len(batch))
    for reduction, losses in commitment.items():
        losses.append(F.mse_loss(batch, chosen, reduction=reduction).item())
plots.lines(sizes, commitment, xlabel="vectors in the batch", ylabel="commitment loss", log_x=True)

# %%
mean = theirs(x).commitment_loss.item()
assert all(abs(loss / mean - 1) < 1e-4 for loss in commitment["mean"])
assert all(abs(loss / (2 * size * mean) - 1) < 1e-4 for loss, size in zip(commitment["sum"], sizes, strict=True))

# %% [markdown]
# The sum grows with the batch. The reconstruction loss doesn't, so the balance between them moves: whoever takes a batch 16 times as large has made the quantizer's losses 16 times as important, and learns of it from a worse picture. The slip exists the other way round too: pythae, a library of autoencoders (version 0.1.2), takes the quantizer's losses as means and sums the reconstruction error over the pixels, so there the balance changes with the size of the image.
#
# **The mend.** Means everywhere, in the quantizer over all that was quantized.
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
# The plainest features are colours: 3 channels, and a vector at every pixel. With a palette from notebook 01 as its codebook, the same layer does to a photo what `encode` and `decode` did there:

# %%
photo = data.photos().held_out["coffee"][:, ::4, ::4]
layer = VectorQuantizer(3, 16, channel_dim=1, codebook_update="gradient", dead_code_threshold=0)
layer.codebook.data.copy_(kmeans(photo.flatten(1).T, 16).centroids)
output = layer(photo[None])
index_map = (output.indices / 15).expand(3, -1, -1)  # 0 is black and 15 white
caption = "In the middle the indices, drawn as greys. Look at the cup: neighbouring colours may have any two indices."
titles = ["features (3, H, W)", "indices (H, W)", "quantized (3, H, W)"]
plots.photo_row(torch.stack([photo, index_map, output.quantized[0].detach()]), titles, caption=caption)

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
# Back to the plane. The package draws where the losses pull: an arrow at a codeword is the pull of the codebook loss, an arrow at a vector that of the commitment loss. Before we trust the arrows, a check that they are the gradients, turned round, that autograd gives:

# %%
points, start = data.toy("spiral", 300, seed=0), torch.randn(32, 2)
x, codebook = points.clone().requires_grad_(), start.clone().requires_grad_()
chosen = codebook[nearest(x, codebook)]
loss = F.mse_loss(chosen, x.detach()) + 0.25 * F.mse_loss(x, chosen.detach())
by_x, by_codebook = torch.autograd.grad(loss, [x, codebook])

cell_sums = torch.zeros(32, 2).index_add(0, nearest(x, codebook), x - chosen)
scale = x.numel() / 2  # undoes the mean, and the 2 from the derivative of a square
assert torch.allclose(-scale * by_x, 0.25 * (chosen - x), atol=1e-5)
assert torch.allclose(-scale * by_codebook, cell_sums, atol=1e-3)

# %% [markdown]
# (A codeword's arrow is drawn as the mean over its cell, not the sum, or crowded cells would send theirs off the page.)
#
# Try a few sizes and β. A codeword's arrow doesn't depend on β. A codeword in whose cell no vector lies has none, and will never move. And the more codewords, the shorter the vectors' arrows.


# %%
def pulls(codebook_size, commitment_weight):
    """Where the losses pull the vectors and the first few codewords."""
    return plots.gradient_field(points, start[:codebook_size], commitment_weight)


errors = [F.mse_loss(lookup(points, start[:size]), points).item() for size in (2, 8, 32)]
assert errors[0] > errors[1] > errors[2]
widgets.explore(pulls, codebook_size=[2, 4, 8, 16, 32], commitment_weight=[0.0, 0.1, 0.25, 0.5, 1.0])

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
# taming-transformers, the code of a well-known image model (VQGAN) from which much was copied, weights the other loss. Everything trains, so nothing looks wrong. What do you expect at β = 0.25?


# %%
def wrong_loss(x, codeword, beta):
    """As in many copies: β times codebook loss, plus commitment loss."""
    return beta * (codeword - x.detach()).square() + (x - codeword.detach()).square()


right, wrong = codeword_share(right_loss, 0.25), codeword_share(wrong_loss, 0.25)
print(f"the codeword's share at β = 0.25: {right:.0%} with the paper's loss, {wrong:.0%} with the copy's")
assert abs(right - 0.8) < 0.001 and abs(wrong - 0.2) < 0.001

# %% [markdown]
# The paper asks the codeword to do most of the walking; the copies ask it of the encoder. In the library itself the old way has stayed the default, for the sake of trained models, with a switch that mends it.
#
# **The mend.** β belongs to the term in which x moves: `x - codeword.detach()`.
#
# ### Exercise 5 · Explore · ★★★ · 8 minutes
#
# Which β makes the codeword go a given share of the way? Call `codeword_share(right_loss, beta)` for a few β, find the law, and turn it around.


# %% tags=["exercise"]
def beta_for(share):
    """The β at which the codeword goes this share of the way, 0 < share <= 1: a number -> a number."""
    ### BEGIN SOLUTION
    return 1 / share - 1
    ### END SOLUTION


# %% [markdown] tags=["hint"]
# In every step the codeword is pulled with some force, and x with β times that force. So when the codeword has gone 1, x has gone β. What share of 1 + β is that? Then solve for β.

# %%
check.beta_for(beta_for)

# %% [markdown]
# In a network a vector isn't free: it moves only as the encoder's weights let it, together with all others. The law holds for the forces, not for where things end. The paper found its results the same from β = 0.1 to 2 (section 3.2).
#
# ## Train it
#
# The quantizer layer alone, with 32 codewords, on points in the plane, 300 batches of 64. Here x is the data itself, so only the codebook learns. We keep the codebook after every step, and another 1,000 points that training never sees.

# %%
train, held_out = data.toy("spiral", 1000, seed=0), data.toy("spiral", 1000, seed=1)
layer = VectorQuantizer(2, 32, codebook_update="gradient", dead_code_threshold=0)
optimizer = torch.optim.Adam(layer.parameters(), lr=0.02)
path = [layer.codebook.detach().clone()]
for _ in range(300):
    optimizer.zero_grad()
    layer(train[torch.randint(len(train), (64,))]).loss.backward()
    optimizer.step()
    path.append(layer.codebook.detach().clone())

# %%
plots.codeword_paths(held_out, torch.stack(path))

# %% [markdown]
# Codewords that had points in their cells walked to them, and settled along the spiral. Others stand where they stood. How good is the result? We compare with the k-means of notebook 01, fitted on the same 1,000 points, and measure on the other 1,000. Once with 32 codewords, once with only as many as the layer really uses:


# %%
def held_out_distortion(codebook):
    """Mean squared error per component on the held-out points."""
    return F.mse_loss(codebook[nearest(held_out, codebook)], held_out).item()


still = (path[-1] == path[0]).all(1).sum().item()
used = len(nearest(held_out, path[-1]).unique())
print(f"of 32 codewords {used} are in use, and {still} never moved at all")
errors = {
    "random codebook": held_out_distortion(path[0]),
    "trained layer": held_out_distortion(path[-1]),
    f"k-means, K = {used}": held_out_distortion(kmeans(train, used).centroids),
    "k-means, K = 32": held_out_distortion(kmeans(train, 32).centroids),
}
random, trained, few, full = errors.values()
assert still > 0 and trained < random / 2
assert full < 0.8 * trained and 0.6 * trained < few < 1.6 * trained
plots.bars(errors, label="held-out mean squared error")

# %% [markdown]
# Training works: the layer does about as well as k-means does with as many codewords as the layer *uses*. The rest is lost. A codeword that no vector chooses gets no gradient, stays where no vector is, and is not chosen the next time either. That is the question of notebook 03.
#
# ## Does the pretence pay?
#
# Last, the bet of straight-through. The points of a two-moons set are lifted to 16 dimensions by a random matrix, and noise is added. A linear encoder brings them to the plane, a quantizer with 16 codewords follows, and a linear decoder leads back. Once with straight-through; once with the decoder's gradient cut off at the lookup, as the true slope of zero would have it.

# %%
lift = torch.randn(2, 16) / 2**0.5
train, held_out = (data.toy("moons", 1000, seed) @ lift + 0.3 * torch.randn(1000, 16) for seed in (0, 1))


def held_out_error(cut, beta, steps=300):
    """Train encoder, quantizer and decoder; the mean squared error of what they rebuild of the held-out inputs."""
    encoder, decoder = nn.Linear(16, 2), nn.Linear(2, 16)
    settings = {"commitment_weight": beta, "codebook_update": "gradient", "dead_code_threshold": 0}
    network = nn.ModuleList([encoder, VectorQuantizer(2, 16, **settings), decoder])
    optimizer = torch.optim.Adam(network.parameters(), lr=0.02)
    for _ in range(steps):
        batch = train[torch.randint(len(train), (64,))]
        output = network[1](encoder(batch))
        quantized = output.quantized.detach() if cut else output.quantized
        optimizer.zero_grad()
        (F.mse_loss(decoder(quantized), batch) + output.loss).backward()
        optimizer.step()
    with torch.no_grad():
        return F.mse_loss(decoder(network[1](encoder(held_out)).quantized), held_out).item()


# %%
errors = {
    "straight-through": held_out_error(cut=False, beta=0.25),
    "gradient cut": held_out_error(cut=True, beta=0.25),
    "gradient cut, β = 0": held_out_error(cut=True, beta=0.0),
}
nothing = F.mse_loss(train.mean(0).expand_as(held_out), held_out).item()
assert errors["straight-through"] < 0.3 * nothing and errors["gradient cut"] > 0.8 * nothing
assert errors["straight-through"] < 0.8 * errors["gradient cut, β = 0"]
plots.bars(errors | {"rebuilding the mean": nothing}, label="held-out mean squared error")

# %% [markdown]
# With the pretended gradient the error is below a third of what rebuilding nothing but the mean would give. Without it, the commitment loss is all that the encoder hears: it pulls every vector to its codeword, nothing pulls them apart, and in the end they say nothing about the input. Without the commitment loss too, the encoder stays the random one it was at the start. Quantizing its outputs still works in part, and clearly less well.
#
# The bet pays, here and in every VQ-VAE. The gradient is taken at the codeword and used at x, so it fits the worse the farther the two are apart. Keeping them close is what the commitment loss is for.
#
# ## What we saw
#
# - The nearest codeword takes one matrix product: the score ½‖c‖² − x · c has no third axis. Far from the origin it needs the mean taken off first, or more than a fifth of the indices are wrong.
# - The slope of a lookup is zero. Straight-through computes, to five digits, the gradient of the loss with every vector's error x̂ − x frozen.
# - No reconstruction gradient reaches the codebook. The codebook loss moves codewords alone and the commitment loss the encoder alone; both gradients are true ones.
# - Alone with its codeword, a vector goes β / (1 + β) of the way: 20 % at β = 0.25. With β on the wrong term it goes 80 %.
# - Trained by gradient, the layer more than halves the held-out error of a random codebook, and stays behind k-means: it comes out like a k-means with as many codewords as it uses, since unused ones never move.
# - With the pretence an encoder learns; with the true gradient, zero, it doesn't.
#
# ## Self-test
#
# **1.** Someone computes finite differences of a VQ network's reconstruction loss by an encoder weight, finds 0, and concludes that the implementation of straight-through is broken. Right?
#
# <details><summary>Answer</summary>
#
# No. Finite differences measure the loss as it is, and its slope *is* zero. Straight-through's gradient is that of another function, in which each vector's error is frozen. To test the implementation, take finite differences of that one. "The step was too small" is no way out either: a larger step shows jumps, not a slope.
#
# </details>
#
# **2.** The codebook loss and the commitment loss always have the same value. Could one write (1 + β) · mse(x, x̂) without any detach?
#
# <details><summary>Answer</summary>
#
# The value would be the same, the gradients not: both codeword and encoder would be pulled with strength 1 + β. The two losses exist to give the two pulls different strengths. "The losses are equal, so nothing changes" confuses a function's value with its gradient.
#
# </details>
#
# **3.** At β = 0, does the encoder still learn?
#
# <details><summary>Answer</summary>
#
# Yes, from the reconstruction loss by straight-through. β = 0 only stops pulling its outputs to their codewords. What can go wrong then is that the outputs run ahead of the codewords, and errors grow; it isn't that the gradient vanishes.
#
# </details>
#
# **4.** Why does no gradient of any loss reach an unused codeword?
#
# <details><summary>Answer</summary>
#
# The losses contain only codewords that were chosen. One that is nearest to no vector appears nowhere, so its gradient is exactly zero. A larger learning rate doesn't help (any number times zero), and neither does a larger β, which doesn't act on codewords at all.
#
# </details>
#
# **5.** A colleague's quantizer runs without error on features (8, 32, 32, 32) and its loss doesn't fall. What do you look at first?
#
# <details><summary>Answer</summary>
#
# C = H = W = 32: a loss between a channels-first and a channels-last tensor would run. Make features out of codewords alone: the loss must be 0. The batch size doesn't matter here, and a learning rate can't mend a loss that compares the wrong numbers.
#
# </details>
#
# ## Where to read on
#
# - A. van den Oord, O. Vinyals, K. Kavukcuoglu, *Neural Discrete Representation Learning* (2017), arXiv:1711.00937. Lookup: eqs. 1 and 2. The loss: eq. 3 and section 3.2.
# - Y. Bengio, N. Léonard, A. Courville, *Estimating or Propagating Gradients Through Stochastic Neurons for Conditional Computation* (2013), arXiv:1308.3432: where straight-through comes from.
# - M. Huh, B. Cheung, P. Agrawal, P. Isola, *Straightening Out the Straight-Through Estimator* (2023), arXiv:2305.08842: what it costs in vector-quantized networks, and remedies.
# - C. Fifty et al., *Restructuring Vector Quantization with the Rotation Trick* (2024), arXiv:2410.06424: another pretence, which turns the gradient with the vector.
#
# Next: `03_codebook_collapse`. Why do most codewords die?
