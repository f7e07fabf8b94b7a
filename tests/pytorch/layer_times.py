"""Times single layers as `cargo bench -p img2seg-ops --bench layers -- --cpu` does ours: the other columns of docs/ops.md.

    pip install torch
    MALLOC_MMAP_THRESHOLD_=4294967296 MALLOC_TRIM_THRESHOLD_=8589934592 python3 layer_times.py [FILTER]

Processor time of one thread, median and minimum of 15 rounds in ms: forward without a graph, then each gradient alone. Gradients of
convolutions are the bare kernels; all others are `torch.autograd.grad` of a graph that stands already, with the result's gradient given.
"""

import sys
import time

import torch
import torch.nn.functional as F

ROUNDS = 15


def draw(*shape):
    return torch.rand(*shape) * 2 - 1


def timed(prepare, work):
    work(prepare())
    times = []
    for _ in range(ROUNDS):
        prepared = prepare()
        start = time.process_time()
        result = work(prepared)
        times.append((time.process_time() - start) * 1e3)
        del result, prepared
    times.sort()
    return f" {times[ROUNDS // 2]:8.2f} {times[0]:8.2f}"


def wanted(name):
    return all(part in name for part in sys.argv[1:])


def report(name, inputs, op):
    if not wanted(name):
        return
    with torch.inference_mode():
        line = timed(lambda: None, lambda _: op(*inputs))
    for at in range(len(inputs)):
        ours = [x.detach().requires_grad_(i == at) for i, x in enumerate(inputs)]
        given = torch.ones_like(op(*ours))
        line += timed(lambda: op(*ours), lambda y: torch.autograd.grad(y, ours[at], given))
    print(f"{name:<34}{line}", flush=True)


def convolution(name, x, weight, bias, stride, padding, transposed=False):
    if not wanted(name):
        return
    layer = F.conv_transpose2d if transposed else F.conv2d
    with torch.inference_mode():
        line = timed(lambda: None, lambda _: layer(x, weight, bias, stride, padding))
        gradient = torch.ones_like(layer(x, weight, bias, stride, padding))
        for at in range(2 if bias is None else 3):
            mask = [at == i for i in range(3)]
            channels = None if bias is None else [len(bias)]
            settings = (channels, [stride] * 2, [padding] * 2, [1, 1], transposed, [0, 0], 1, mask)
            line += timed(lambda: None, lambda _: torch.ops.aten.convolution_backward(gradient, x, weight, *settings))
    print(f"{name:<34}{line}", flush=True)


def convolutions():
    sizes = [(4, 3, 16, 128), (4, 16, 16, 128), (4, 32, 16, 128), (4, 32, 32, 128), (4, 64, 64, 128), (4, 32, 32, 64)]
    sizes += [(4, 64, 64, 64), (4, 128, 128, 32), (4, 256, 256, 16), (4, 256, 256, 8), (1, 512, 512, 16)]
    for n, i, o, size in sizes:
        convolution(f"conv 3x3 {n} {i}->{o} @{size}", draw(n, i, size, size), draw(o, i, 3, 3), draw(o), 1, 1)
    for n, i, o, size in [(4, 6, 64, 128), (4, 64, 128, 64), (4, 128, 256, 32), (4, 256, 512, 16)]:
        convolution(f"conv 4x4 s2 {n} {i}->{o} @{size}", draw(n, i, size, size), draw(o, i, 4, 4), None, 2, 1)
    convolution("conv 4x4 s1 4 512->1024 @8", draw(4, 512, 8, 8), draw(1024, 512, 4, 4), None, 1, 0)
    convolution("conv 1x1 4 16->19 @128", draw(4, 16, 128, 128), draw(19, 16, 1, 1), draw(19), 1, 0)
    convolution("conv 1x1 s2 4 64->128 @64", draw(4, 64, 64, 64), draw(128, 64, 1, 1), None, 2, 0)
    for n, i, o, k, size in [(4, 32, 16, 2, 64), (4, 64, 32, 2, 64), (4, 256, 128, 2, 8), (4, 128, 64, 4, 32), (4, 512, 256, 4, 8)]:
        name = f"conv_transpose {k}x{k} s2 {n} {i}->{o} @{size}"
        convolution(name, draw(n, i, size, size), draw(i, o, k, k), None, 2, (k - 2) // 2, transposed=True)


def others():
    for c, size in [(16, 128), (64, 128), (128, 64), (256, 16)]:
        inputs = (draw(4, c, size, size), draw(c), draw(c))
        norm = lambda x, weight, bias: torch.relu_(F.batch_norm(x, None, None, weight, bias, training=True))
        report(f"batch_norm relu train 4 {c} @{size}", inputs, norm)
        mean, variance = draw(c), draw(c) + 2
        norm = lambda x, weight, bias: torch.relu_(F.batch_norm(x, mean, variance, weight, bias))
        report(f"batch_norm relu eval 4 {c} @{size}", inputs, norm)
    x = draw(4, 32, 128, 128)
    report("max_pool 4 32 @128", [x], lambda x: F.max_pool2d(x, 2))
    report("relu 4 32 @128", [x], torch.relu)
    report("leaky_relu 4 32 @128", [x], lambda x: F.leaky_relu(x, 0.2))
    report("tanh 4 32 @128", [x], torch.tanh)
    report("sigmoid 4 32 @128", [x], torch.sigmoid)
    report("dropout 4 32 @128", [x], lambda x: F.dropout(x, 0.5))
    report("global_avg_pool 4 32 @128", [x], lambda x: x.mean((2, 3)))
    report("resize nearest 4 32 @128 to 256", [x], lambda x: F.interpolate(x, (256, 256)))
    report("resize bilinear 4 32 @128 to 256", [x], lambda x: F.interpolate(x, (256, 256), mode="bilinear"))
    report("add relu 4 32 @128", [x, x * 0.5], lambda a, b: torch.relu_(a + b))
    report("cat 4 32 + 32 @128", [x, x * 0.5], lambda a, b: torch.cat([a, b], 1))
    inputs = (x, draw(32), draw(32))
    report("instance_norm 4 32 @128", inputs, lambda x, weight, bias: F.instance_norm(x, weight=weight, bias=bias))
    report("group_norm 8 groups 4 32 @128", inputs, lambda x, weight, bias: F.group_norm(x, 8, weight, bias))
    labels = (torch.arange(4 * 128 * 128) % 19).reshape(4, 128, 128)
    report("cross_entropy 4 19 @128", [draw(4, 19, 128, 128)], lambda x: F.cross_entropy(x, labels))
    report("softmax 4 11 @128", [draw(4, 11, 128, 128)], lambda x: torch.softmax(x, 1))
    logits = draw(4, 1, 32, 32)
    ones = torch.ones_like(logits)
    report("bce_with_logits 4 1 @32", [logits], lambda x: F.binary_cross_entropy_with_logits(x, ones))
    photos, target = draw(4, 3, 128, 128), draw(4, 3, 128, 128)
    report("mse 4 3 @128", [photos], lambda x: F.mse_loss(x, target))
    report("l1 4 3 @128", [photos], lambda x: F.l1_loss(x, target))
    report("charbonnier 4 3 @128", [photos], lambda x: torch.sqrt((x - target) ** 2 + 1e-6).mean())
    report("least_squares 4 3 @128", [photos], lambda x: ((x - 1) ** 2).mean())
    report("hinge 4 3 @128", [photos], lambda x: torch.relu(1 - x).mean())


def adam():
    name = "adam_step 4 Mi parameters"
    if not wanted(name):
        return
    parameter = torch.zeros(4 << 20, requires_grad=True)
    parameter.grad = draw(4 << 20)
    step = torch.optim.Adam([parameter], fused=True).step
    print(f"{name:<34}{timed(lambda: None, lambda _: step())}", flush=True)


if __name__ == "__main__":
    torch.set_num_threads(1)
    convolutions()
    others()
    adam()
