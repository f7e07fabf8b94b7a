"""Writes `tests/oracle/networks.safetensors`: what PyTorch computes for small networks of crates/models beside the lab report's.

`networks.py FILE`. For each network NAME the file has `NAME.x` and `NAME.y`, the weights and buffers before (`NAME.init.*`), the output in
evaluation before (`NAME.out.eval`), the output of one pass in training (`NAME.out.train`), the gradients of its mean squared error to y
(`NAME.grad.*`), the buffers after it (`NAME.after.*`), and the output in evaluation with these (`NAME.out.after`). The other side is
`tests/src/parity/networks.rs`, where the sizes stand again. Weights are PyTorch's first ones, so that no value is too small to compare.
"""

import sys

import torch
from safetensors.torch import save_file
from torch import nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import spectral_norm

# ---- pix2pix ----


class Level(nn.Module):
    """A level below the outermost: halves, goes through the levels within, doubles, and stacks that onto what came."""

    def __init__(self, above, here, within=None):
        super().__init__()
        down = [nn.LeakyReLU(0.2), nn.Conv2d(above, here, 4, stride=2, padding=1, bias=False)]
        if within is not None:
            down += [nn.BatchNorm2d(here), within]
        seen = here if within is None else 2 * here
        up = [nn.ReLU(), nn.ConvTranspose2d(seen, above, 4, stride=2, padding=1, bias=False), nn.BatchNorm2d(above)]
        self.model = nn.Sequential(*down, *up)

    def forward(self, x):
        return torch.cat([x, self.model(x)], 1)


class Outermost(nn.Module):
    def __init__(self, base, within):
        super().__init__()
        first = nn.Conv2d(3, base, 4, stride=2, padding=1, bias=False)
        last = nn.ConvTranspose2d(2 * base, 3, 4, stride=2, padding=1)
        self.model = nn.Sequential(first, within, nn.ReLU(), last, nn.Tanh())

    def forward(self, x):
        return self.model(x)


class Generator(nn.Module):
    def __init__(self, base, levels):
        super().__init__()
        widths = [base * min(2**level, 8) for level in range(levels)]
        within = None
        for level in reversed(range(1, levels)):
            within = Level(widths[level - 1], widths[level], within)
        self.model = Outermost(base, within)

    def forward(self, x):
        return self.model(x)


class PatchDiscriminator(nn.Module):
    """Patches of 70x70: batch norm, or no norm and all weights divided by their spectral norms."""

    def __init__(self, in_channels, base, spectral):
        super().__init__()
        widths = [base, 2 * base, 4 * base, 8 * base]

        def conv(i, o, stride, bias):
            layer = nn.Conv2d(i, o, 4, stride=stride, padding=1, bias=bias)
            return spectral_norm(layer) if spectral else layer

        layers = [conv(in_channels, base, 2, True), nn.LeakyReLU(0.2)]
        for i, o, stride in zip(widths, widths[1:], (2, 2, 1)):
            norm = nn.Identity() if spectral else nn.BatchNorm2d(o)
            layers += [conv(i, o, stride, spectral), norm, nn.LeakyReLU(0.2)]
        self.model = nn.Sequential(*layers, conv(8 * base, 1, 1, True))

    def forward(self, x):
        return self.model(x)


# ---- U-Net ----


class Residual(nn.Module):
    def __init__(self, in_channels, out_channels):
        super().__init__()
        self.conv1, self.norm1 = nn.Conv2d(in_channels, out_channels, 3, padding=1), nn.GroupNorm(2, out_channels)
        self.conv2, self.norm2 = nn.Conv2d(out_channels, out_channels, 3, padding=1), nn.GroupNorm(2, out_channels)
        self.shortcut = nn.Conv2d(in_channels, out_channels, 1) if in_channels != out_channels else nn.Identity()

    def forward(self, x):
        y = self.norm2(self.conv2(F.relu(self.norm1(self.conv1(x)))))
        return F.relu(y + self.shortcut(x))


class Encoder(nn.Module):
    def __init__(self, in_channels, out_channels):
        super().__init__()
        self.conv = Residual(in_channels, out_channels)

    def forward(self, x):
        skip = self.conv(x)
        return skip, F.max_pool2d(skip, 2)


class Decoder(nn.Module):
    def __init__(self, in_channels, out_channels):
        super().__init__()
        self.up = nn.Conv2d(in_channels, out_channels, 3, padding=1)
        self.conv = Residual(2 * out_channels, out_channels)

    def forward(self, x, skip):
        doubled = F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)
        return self.conv(torch.cat([self.up(doubled), skip], 1))


class UNet(nn.Module):
    """Two levels, of 4 and 8 channels, over a bottleneck of 8."""

    def __init__(self):
        super().__init__()
        self.en1, self.en2, self.b = Encoder(3, 4), Encoder(4, 8), Residual(8, 8)
        self.d1, self.d2 = Decoder(8, 8), Decoder(8, 4)
        self.outputs = nn.Conv2d(4, 5, 1)

    def forward(self, x):
        skip1, x = self.en1(x)
        skip2, x = self.en2(x)
        return self.outputs(self.d2(self.d1(self.b(x), skip2), skip1))


# ---- conditional VAE ----


class Double(nn.Module):
    def __init__(self, in_channels, out_channels):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(in_channels, out_channels, 3, padding=1), nn.BatchNorm2d(out_channels)
        self.conv2, self.bn2 = nn.Conv2d(out_channels, out_channels, 3, padding=1), nn.BatchNorm2d(out_channels)

    def forward(self, x):
        return F.relu(self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x))))))


class Down(nn.Module):
    def __init__(self, in_channels, out_channels):
        super().__init__()
        self.conv = Double(in_channels, out_channels)


class Up(nn.Module):
    def __init__(self, in_channels, out_channels):
        super().__init__()
        self.convT = nn.ConvTranspose2d(in_channels, out_channels, 2, stride=2)
        self.conv = Double(in_channels, out_channels)


class Trunk(nn.Module):
    def __init__(self, base):
        super().__init__()
        self.en1, self.en2, self.b = Down(3, base), Down(base, 2 * base), Double(2 * base, 4 * base)
        self.d1, self.d2 = Up(4 * base, 2 * base), Up(2 * base, base)

    def forward(self, x):
        skip1 = self.en1.conv(x)
        skip2 = self.en2.conv(F.max_pool2d(skip1, 2))
        x = self.b(F.max_pool2d(skip2, 2))
        for up, skip in ((self.d1, skip2), (self.d2, skip1)):
            x = up.conv(torch.cat([up.convT(x), skip], 1))
        return x


class Cvae(nn.Module):
    """The input is a photo and the planes of five classes; the weight of the divergence is 0.1."""

    def __init__(self, base, latent, noise):
        super().__init__()
        self.encoder = nn.ModuleDict({
            "conv1": nn.Conv2d(3 + 5, base, 4, stride=2, padding=1, bias=False),
            "bn1": nn.BatchNorm2d(base),
            "conv2": nn.Conv2d(base, 2 * base, 4, stride=2, padding=1, bias=False),
            "bn2": nn.BatchNorm2d(2 * base),
            "mean": nn.Conv2d(2 * base, latent, 1),
            "log_variance": nn.Conv2d(2 * base, latent, 1),
        })
        self.unet = Trunk(base)
        self.combine = nn.ModuleDict({
            "conv1": nn.Conv2d(base + latent, base, 1),
            "conv2": nn.Conv2d(base, base, 1),
            "outputs": nn.Conv2d(base, 5, 1),
        })
        self.noise = noise

    def forward(self, x):
        code = x
        for i in "12":
            code = F.leaky_relu(self.encoder["bn" + i](self.encoder["conv" + i](code)), 0.2)
        code = code.mean((2, 3), keepdim=True)
        mean = self.encoder["mean"](code)
        log_variance = 8 * torch.tanh(self.encoder["log_variance"](code) / 8)
        divergence = -0.5 * (1 + log_variance - mean**2 - log_variance.exp())
        self.penalty = 0.1 * divergence.sum((1, 2, 3)).mean()
        latent = mean + (log_variance / 2).exp() * self.noise[:, :, None, None]
        painted = torch.cat([self.unet(x[:, :3]), latent.expand(-1, -1, *x.shape[2:])], 1)
        painted = F.relu(self.combine["conv2"](F.relu(self.combine["conv1"](painted))))
        return self.combine["outputs"](painted)


# ---- the file ----


def tensors(name, network, x):
    x = torch.rand(x) * 2 - 1
    # Norms that begin at scales of 1 and shifts of 0 would hide which is which.
    for module in network.modules():
        if isinstance(module, (nn.BatchNorm2d, nn.GroupNorm)):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.uniform_(module.bias, -0.5, 0.5)
    state = lambda: {key: value.detach().clone() for key, value in network.state_dict().items() if value.is_floating_point()}
    found = {f"init.{key}": value for key, value in state().items()}
    with torch.no_grad():
        found["out.eval"] = network.eval()(x)
    output = network.train()(x)
    y = torch.rand_like(output) * 2 - 0.5  # off centre, or the gradients of last biases could be small by cancellation
    (F.mse_loss(output, y) + getattr(network, "penalty", 0)).backward()
    found |= {"x": x, "y": y, "out.train": output.detach()}
    found |= {f"grad.{key}": parameter.grad for key, parameter in network.named_parameters()}
    buffers = {key for key, _ in network.named_buffers()}
    found |= {f"after.{key}": value for key, value in state().items() if key in buffers}
    with torch.no_grad():
        found["out.after"] = network.eval()(x)
    return {f"{name}.{key}": value.contiguous() for key, value in found.items()}


def main():
    torch.manual_seed(7)
    found = tensors("generator", Generator(2, 6), (1, 3, 64, 64))
    found |= tensors("patch", PatchDiscriminator(6, 2, False), (2, 6, 40, 48))
    found |= tensors("spectral", PatchDiscriminator(6, 2, True), (2, 6, 40, 48))
    found |= tensors("unet", UNet(), (2, 3, 16, 24))
    noise = torch.randn(2, 3)
    found |= tensors("cvae", Cvae(4, 3, noise), (2, 3 + 5, 16, 24)) | {"cvae.noise": noise}
    save_file(found, sys.argv[1], {"kind": "networks"})


main()
