"""PyTorch's side of `cargo xtask bench`: `bench.py DEVICE EXACTNESS [compile] CASE...` builds one case and takes its steps as often as it is told.

The first line is `ready N`, where N is what both sides must agree on (trained numbers, or images), or `error TEXT`. Each line `run K` is
answered by the milliseconds of K steps, and `memory` by the most MiB that the last of them had of a GPU's memory. It ends when its input
does. `tests/benches/worker` is the other side. OMP_NUM_THREADS sets the threads.

The networks are those of crates/models, under the same names; the steps are those of crates/training, written as PyTorch runs them fastest.
"""

import os
import sys
import time
from pathlib import Path

THREADS = int(os.environ.get("OMP_NUM_THREADS", os.cpu_count()))

# Answers keep stdout to themselves: what a library prints goes to stderr.
ANSWERS = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)


def answer(text):
    print(" ".join(str(text).split()), file=ANSWERS, flush=True)


try:
    import torch
    from torch import nn
    from torch.nn import functional as F
except ImportError as error:
    answer(f"error {sys.executable}: cannot import torch ({error}); pip install torch")
    sys.exit(1)


# ---- networks ----


class Block(nn.Module):
    """Two 3x3 convolutions, each followed by batch norm and ReLU."""

    def __init__(self, in_channels, out_channels):
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, padding=1)
        self.bn1 = nn.BatchNorm2d(out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1)
        self.bn2 = nn.BatchNorm2d(out_channels)

    def forward(self, x):
        x = F.relu(self.bn1(self.conv1(x)), inplace=True)
        return F.relu(self.bn2(self.conv2(x)), inplace=True)


class Encoder(nn.Module):
    def __init__(self, in_channels, out_channels):
        super().__init__()
        self.conv = Block(in_channels, out_channels)

    def forward(self, x):
        skip = self.conv(x)
        return skip, F.max_pool2d(skip, 2)


class Decoder(nn.Module):
    def __init__(self, in_channels, out_channels):
        super().__init__()
        self.convT = nn.ConvTranspose2d(in_channels, out_channels, 2, stride=2)
        self.conv = Block(2 * out_channels, out_channels)

    def forward(self, x, skip):
        return self.conv(torch.cat([self.convT(x), skip], 1))


class UNet(nn.Module):
    def __init__(self, base):
        super().__init__()
        self.en1, self.en2 = Encoder(3, base), Encoder(base, 2 * base)
        self.en3, self.en4 = Encoder(2 * base, 4 * base), Encoder(4 * base, 8 * base)
        self.b = Block(8 * base, 16 * base)
        self.d1, self.d2 = Decoder(16 * base, 8 * base), Decoder(8 * base, 4 * base)
        self.d3, self.d4 = Decoder(4 * base, 2 * base), Decoder(2 * base, base)
        self.outputs = nn.Conv2d(base, 3, 1)

    def forward(self, x):
        skip1, x = self.en1(x)
        skip2, x = self.en2(x)
        skip3, x = self.en3(x)
        skip4, x = self.en4(x)
        x = self.d1(self.b(x), skip4)
        return self.outputs(self.d4(self.d3(self.d2(x, skip3), skip2), skip1))


def halve(in_channels, out_channels):
    return nn.Conv2d(in_channels, out_channels, 4, stride=2, padding=1, bias=False)


def leaky():
    return nn.LeakyReLU(0.2, inplace=True)


def encode(in_channels):
    return [halve(in_channels, 2 * in_channels), nn.BatchNorm2d(2 * in_channels), leaky()]


def decode(in_channels, out_channels, stride=2, padding=1):
    conv = nn.ConvTranspose2d(in_channels, out_channels, 4, stride=stride, padding=padding, bias=False)
    return [conv, nn.BatchNorm2d(out_channels), nn.ReLU(inplace=True)]


class Generator(nn.Module):
    def __init__(self, base):
        super().__init__()
        self.downSampling = nn.Sequential(
            *[halve(3, base), leaky()],
            *[*encode(base), *encode(2 * base), *encode(4 * base)],
            nn.Conv2d(8 * base, 16 * base, 4, bias=False),
        )
        self.upSampling = nn.Sequential(
            *decode(16 * base, 16 * base, stride=1, padding=0),
            *[*decode(16 * base, 8 * base), *decode(8 * base, 4 * base), *decode(4 * base, 2 * base)],
            *[nn.ConvTranspose2d(2 * base, 3, 4, stride=2, padding=1, bias=False), nn.Tanh()],
        )

    def forward(self, photos):
        return self.upSampling(self.downSampling(photos))


class Discriminator(nn.Module):
    """Logits of patches; the sigmoid is left to the loss."""

    def __init__(self, base):
        super().__init__()
        self.main = nn.Sequential(
            *[halve(6, base), leaky()],
            *[*encode(base), *encode(2 * base), *encode(4 * base)],
            nn.Conv2d(8 * base, 1, 4, bias=False),
        )

    def forward(self, photos, label_maps):
        return self.main(torch.cat([photos, label_maps], 1))


# ---- cases: each gives its size and its step ----


def count(*networks):
    return sum(weight.numel() for network in networks for weight in network.parameters())


def adam(network, learning_rate, betas):
    # Of the three implementations the fastest on CPU and GPU.
    return torch.optim.Adam(network.parameters(), lr=learning_rate, betas=betas, fused=True)


def judge(logits, target):
    return F.binary_cross_entropy_with_logits(logits, torch.full_like(logits, target))


def rounding(photos, exactness):
    """Networks under it compute convolutions in bf16, losses outside it in f32; without effect where that is not asked for."""
    return torch.autocast(photos.device.type, torch.bfloat16, enabled=exactness == "bf16")


def train_unet(place, compiled, base, photos, label_maps, exactness):
    network = place(UNet(base)).train()
    optimizer = adam(network, 1e-3, (0.9, 0.999))
    forward = compiled(network)

    def step():
        optimizer.zero_grad(set_to_none=True)
        with rounding(photos, exactness):
            y = forward(photos)
        loss = F.mse_loss(y.float(), label_maps)
        loss.backward()
        optimizer.step()
        return loss.item()

    return count(network), step


def train_cgan(place, compiled, base, photos, label_maps, exactness):
    generator, discriminator = place(Generator(base)).train(), place(Discriminator(base)).train()
    size = count(generator, discriminator)
    generator_adam = adam(generator, 2e-4, (0.5, 0.999))
    discriminator_adam = adam(discriminator, 2e-4, (0.5, 0.999))
    generate, discriminate = compiled(generator), compiled(discriminator)

    def judged(label_maps, target):
        with rounding(photos, exactness):
            logits = discriminate(photos, label_maps)
        return judge(logits.float(), target)

    def step():
        discriminator_adam.zero_grad(set_to_none=True)
        real_loss = judged(label_maps, 1.0)
        with rounding(photos, exactness):
            generated = generate(photos)
        generated_loss = judged(generated.detach(), 0.0)
        (real_loss + generated_loss).backward()
        discriminator_adam.step()

        # Nobody uses the discriminator's gradients here.
        generator_adam.zero_grad(set_to_none=True)
        discriminator.requires_grad_(False)
        generator_loss = judged(generated, 1.0)
        generator_loss.backward()
        discriminator.requires_grad_(True)
        generator_adam.step()
        return [loss.item() for loss in (real_loss, generated_loss, generator_loss)]

    return size, step


def layout(device, large_weights):
    """The faster one: a pixel's channels side by side, but where a CPU would spend more on the gradients of large weights (PyTorch 2.15)."""
    return torch.contiguous_format if device == "cpu" and large_weights else torch.channels_last


def network_case(kind, name, base, size, batch, device, exactness, compiled):
    memory_format = layout(device, large_weights=kind == "train" and name == "cgan")
    place = lambda network: network.to(device, memory_format=memory_format)
    draw = lambda: (2 * torch.rand(batch, 3, size, size) - 1).to(device, memory_format=memory_format)
    photos, label_maps = draw(), draw()
    if kind == "train":
        return {"unet": train_unet, "cgan": train_cgan}[name](place, compiled, base, photos, label_maps, exactness)
    network = place({"unet": UNet, "cgan": Generator}[name](base)).eval()
    forward = compiled(network)

    def step():
        with torch.inference_mode(), rounding(photos, exactness):
            forward(photos)

    return count(network), step


def layer_case(kind, kernel, stride, padding, in_channels, out_channels, size, batch, device, exactness):
    convolve, channels = {
        "conv": (F.conv2d, (out_channels, in_channels)),
        "conv-transpose": (F.conv_transpose2d, (in_channels, out_channels)),
    }[kind]
    memory_format = layout(device, large_weights=kernel * kernel * in_channels * out_channels > 1 << 20)
    draw = lambda *shape: (2 * torch.rand(shape) - 1).to(device, memory_format=memory_format).requires_grad_()
    x, weight = draw(batch, in_channels, size, size), draw(*channels, kernel, kernel)
    ones = torch.ones_like(convolve(x, weight, stride=stride, padding=padding))

    def step():
        with rounding(x, exactness):
            y = convolve(x, weight, stride=stride, padding=padding).float()
        torch.autograd.grad(y, (x, weight), ones)

    return weight.numel(), step


def loading_case(folder, images, size, batch):
    """The random changes are those of tests/benches/worker/loading.rs."""
    try:
        from torchvision.io import ImageReadMode, decode_image
        from torchvision.transforms import InterpolationMode, v2
    except ImportError as error:
        raise SystemExit(f"cannot import torchvision ({error}); pip install torchvision") from error

    resized = 286 * size // 256
    jitter = v2.ColorJitter(brightness=0.2, contrast=0.2, saturation=0.2, hue=0.05)

    class Pairs(torch.utils.data.Dataset):
        def __init__(self):
            self.files = sorted(str(path) for path in Path(folder, "train").iterdir())

        def __len__(self):
            return len(self.files)

        def __getitem__(self, index):
            pair = decode_image(self.files[index], ImageReadMode.RGB)
            photo, label_map = pair.chunk(2, dim=2)
            photo = v2.functional.resize(photo, [resized, resized], antialias=True)
            label_map = v2.functional.resize(label_map, [resized, resized], InterpolationMode.NEAREST)
            top, left = torch.randint(resized - size + 1, (2,)).tolist()
            photo, label_map = (part[:, top : top + size, left : left + size] for part in (photo, label_map))
            if torch.rand(()) < 0.5:
                photo, label_map = photo.flip(2), label_map.flip(2)
            photo = jitter(photo)
            return photo.float() / 127.5 - 1, label_map.float() / 127.5 - 1

    pairs = Pairs()
    loader = torch.utils.data.DataLoader(
        pairs, batch, shuffle=True, drop_last=True, num_workers=THREADS, persistent_workers=True
    )

    def step():
        for _ in loader:
            pass

    return len(pairs), step


def build(device, exactness, compiles, case):
    torch.set_num_threads(THREADS)
    torch.manual_seed(0)
    if device == "cuda":
        if not torch.cuda.is_available():
            raise SystemExit("torch finds no GPU")
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = exactness != "direct"
        torch.backends.cudnn.benchmark = True
    compiled = torch.compile if compiles else lambda network: network
    match case:
        case ["check"]:
            return 0, lambda: None
        case ["train" | "infer" as kind, name, *numbers]:
            return network_case(kind, name, *map(int, numbers), device, exactness, compiled)
        case ["layer", kind, *numbers]:
            return layer_case(kind, *map(int, numbers), device, exactness)
        case ["load", _, *numbers, folder]:
            return loading_case(folder, *map(int, numbers))
    raise SystemExit(f"{' '.join(case)}: no such case")


def serve(device, exactness, *case):
    compiles = case[0] == "compile"
    size, step = build(device, exactness, compiles, list(case[1:] if compiles else case))
    synchronize = torch.cuda.synchronize if device == "cuda" else lambda: None
    answer(f"ready {size}")
    for line in sys.stdin:
        if line.strip() == "memory":
            answer(f"{torch.cuda.max_memory_allocated() / 2**20:.3f}")
            continue
        if device == "cuda":
            torch.cuda.reset_peak_memory_stats()
        steps = int(line.removeprefix("run "))
        start = time.perf_counter()
        for _ in range(steps):
            step()
        synchronize()
        answer(f"{1e3 * (time.perf_counter() - start):.6f}")


if __name__ == "__main__":
    try:
        serve(*sys.argv[1:])
    except KeyboardInterrupt:
        sys.exit(130)
    except (Exception, SystemExit) as error:
        lines = str(error).strip().splitlines() or [type(error).__name__]
        answer(f"error {lines[0]}")
        sys.exit(1)
