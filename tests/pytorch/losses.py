"""Writes `tests/oracle/losses.safetensors`: what PyTorch says of the losses of `crates/ops/src/loss`.

    python tests/pytorch/losses.py tests/oracle/losses.safetensors

Each case has inputs, the loss `y` (softmax and reparameterize: a tensor), a gradient `gy` of it, and the gradients `gNAME` of the inputs that
have one. Inputs are f32; everything else is computed in f64 and rounded once. The losses that PyTorch lacks are written out here from
their papers, with sums and sorts of PyTorch's and its own way back. Labels are stored as numbers; 255 is void.
"""

import json
import sys

import torch
from safetensors.torch import save_file
from torch.nn import functional as F

VOID = 255


def counted(logits, labels):
    """Probabilities (c, pixels) and labels (pixels) of the pixels that are not void, in row order."""
    probabilities = F.softmax(logits, 1).movedim(1, 0).flatten(1)
    keep = labels.flatten() != VOID
    return probabilities[:, keep], labels.flatten()[keep]


def focal(logits, labels, gamma, class_weights=None):
    log_p = F.log_softmax(logits, 1).movedim(1, 0).flatten(1)
    keep = labels.flatten() != VOID
    target = labels.flatten()[keep]
    log_p = log_p[:, keep].gather(0, target[None])[0]
    weights = torch.ones_like(log_p) if class_weights is None else class_weights[target]
    return (weights * -((1 - log_p.exp()) ** gamma) * log_p).sum() / weights.sum()


def dice(logits, labels, class_weights=None, smooth=1.0):
    probabilities, target = counted(logits, labels)
    losses, weights = [], []
    for c in target.unique():
        own = (target == c).to(probabilities)
        overlap = (probabilities[c] * own).sum()
        losses.append(1 - (2 * overlap + smooth) / (probabilities[c].sum() + own.sum() + smooth))
        weights.append(1.0 if class_weights is None else class_weights[c])
    return sum(w * loss for w, loss in zip(weights, losses)) / sum(weights)


def lovasz_softmax(logits, labels):
    probabilities, target = counted(logits, labels)
    losses = []
    for c in target.unique():
        own = (target == c).to(probabilities)
        errors, order = (own - probabilities[c]).abs().sort(descending=True, stable=True)
        own = own[order]
        intersection = own.sum() - own.cumsum(0)
        union = own.sum() + (1 - own).cumsum(0)
        jaccard = 1 - intersection / union
        losses.append((errors * torch.diff(jaccard, prepend=jaccard.new_zeros(1))).sum())
    return sum(losses) / len(losses)


def main(path):
    torch.manual_seed(0)
    cases, tensors = [], {}

    def add(name, op, inputs, function, fixed=(), **settings):
        """`inputs` take gradients, tensors in `fixed` do not."""
        inputs = {key: value.float() for key, value in inputs.items()}
        wide = {key: value.double().requires_grad_() for key, value in inputs.items()}
        fixed = dict(fixed)
        y = function(*wide.values(), **{k: v.double() if v.is_floating_point() else v for k, v in fixed.items()}, **settings)
        gy = torch.randn(y.shape).float()
        gradients = torch.autograd.grad(y, list(wide.values()), gy.double())
        cases.append({"name": name, "op": op, **settings})
        stored = {**inputs, **fixed, "y": y.detach(), "gy": gy}
        stored |= {f"g{key}": gradient for key, gradient in zip(inputs, gradients)}
        tensors.update({f"{name}.{key}": value.float().clone() for key, value in stored.items()})

    for at, (n, c, h, w) in enumerate([(2, 5, 6, 7), (1, 11, 7, 6)]):
        logits = torch.randn(n, c, h, w) * 3
        labels = torch.randint(0, c - 1, (n, h, w))  # the last class does not occur
        labels[torch.rand(n, h, w) < 0.2] = VOID
        weights = torch.rand(c) + 0.2
        add(f"softmax{at}", "softmax", {"logits": logits}, lambda x: F.softmax(x, 1))
        for gamma in [0.5, 2.0]:
            add(f"focal{at}_{gamma}", "focal", {"logits": logits}, focal, {"labels": labels}, gamma=gamma)
        both = {"labels": labels, "class_weights": weights}
        add(f"focal{at}_weighted", "focal", {"logits": logits}, focal, both, gamma=2.0)
        add(f"dice{at}", "dice", {"logits": logits}, dice, {"labels": labels})
        add(f"dice{at}_weighted", "dice", {"logits": logits}, dice, both)
        add(f"lovasz{at}", "lovasz_softmax", {"logits": logits}, lovasz_softmax, {"labels": labels})

    pair = {"prediction": torch.randn(2, 3, 5, 4), "target": torch.randn(2, 3, 5, 4)}
    for epsilon in [0.001, 0.5]:
        charbonnier = lambda x, target, epsilon: ((x - target) ** 2 + epsilon**2).sqrt().mean()
        add(f"charbonnier{epsilon}", "charbonnier", pair, charbonnier, epsilon=epsilon)

    patches = torch.randn(3, 1, 5, 6) * 2
    for target in [0.0, 1.0]:
        least_squares = lambda x, target: F.mse_loss(x, torch.full_like(x, target))
        add(f"least_squares{target}", "least_squares", {"logits": patches}, least_squares, target=target)
    for sign in [1.0, -1.0]:
        add(f"hinge{sign}", "hinge", {"logits": patches}, lambda x, sign: F.relu(1 - sign * x).mean(), sign=sign)
    add("mean0", "mean", {"x": patches}, torch.mean)

    latent = {"mean": torch.randn(4, 6, 2, 2), "log_variance": torch.randn(4, 6, 2, 2) * 2}

    def gaussian_kl(mean, log_variance):
        scale = (log_variance / 2).exp()
        normal, standard = torch.distributions.Normal(mean, scale), torch.distributions.Normal(0.0, 1.0)
        return torch.distributions.kl_divergence(normal, standard).flatten(1).sum(1).mean()

    def reparameterize(mean, log_variance, noise):
        return mean + (log_variance / 2).exp() * noise

    add("gaussian_kl0", "gaussian_kl", latent, gaussian_kl)
    add("reparameterize0", "reparameterize", latent, reparameterize, {"noise": torch.randn(4, 6, 2, 2)})

    for at, (n, c, h, w) in enumerate([(2, 5, 6, 7), (1, 11, 7, 6)]):
        logits = torch.randn(n, c, h, w) * 3
        labels = torch.randint(0, c, (n, h, w))
        labels[torch.rand(n, h, w) < 0.2] = VOID
        cross_entropy = lambda x, labels, class_weights=None: F.cross_entropy(x, labels, class_weights, ignore_index=VOID)
        add(f"cross_entropy{at}", "cross_entropy", {"logits": logits}, cross_entropy, {"labels": labels})
        both = {"labels": labels, "class_weights": torch.rand(c) + 0.2}
        add(f"cross_entropy{at}_weighted", "cross_entropy", {"logits": logits}, cross_entropy, both)
    for target in [0.0, 0.9, 1.0]:
        bce = lambda x, target: F.binary_cross_entropy_with_logits(x, torch.full_like(x, target))
        add(f"bce{target}", "bce_with_logits", {"logits": patches * 4}, bce, target=target)
    add("mse0", "mse", pair, F.mse_loss)
    add("l1_0", "l1", pair, F.l1_loss)

    metadata = {"kind": "losses", "torch": torch.__version__, "cases": json.dumps(cases)}
    save_file(tensors, path, metadata)


if __name__ == "__main__":
    main(*sys.argv[1:])
