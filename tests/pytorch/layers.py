"""Writes `tests/oracle/more-layers.safetensors`: what PyTorch says of layers that the lab report's networks do not have, or not in these shapes.

    python tests/pytorch/layers.py tests/oracle/more-layers.safetensors

Each case has an input `x`, parameters under their names, the output `y`, a gradient `gy` of it, and the gradients `gNAME` of all inputs. Inputs
are f32; everything else is computed in f64 and rounded once.
"""

import json
import sys

import torch
from safetensors.torch import save_file
from torch.nn import functional as F


def main(path):
    torch.manual_seed(0)
    cases, tensors = [], {}

    def add(op, x, function, parameters=None, **settings):
        name = f"{op}{sum(case['op'] == op for case in cases)}"
        inputs = {"x": x, **(parameters or {})}
        wide = {key: value.double().requires_grad_() for key, value in inputs.items()}
        y = function(*wide.values())
        gy = torch.randn(y.shape)
        gradients = torch.autograd.grad(y, list(wide.values()), gy.double())
        cases.append({"name": name, "op": op, **settings})
        stored = {**inputs, "y": y.detach(), "gy": gy}
        stored |= {f"g{key}": gradient for key, gradient in zip(inputs, gradients)}
        tensors.update({f"{name}.{key}": value.float().contiguous().clone() for key, value in stored.items()})

    def conv(shape, out, kernel, stride=(1, 1), padding=(0, 0), dilation=(1, 1), groups=1):
        settings = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
        parameters = {"weight": torch.randn(out, shape[1] // groups, *kernel), "bias": torch.randn(out)}
        add("conv2d", torch.randn(shape), lambda x, w, b: F.conv2d(x, w, b, **settings), parameters, **settings)

    conv((2, 4, 13, 11), 6, (3, 2), (2, 3), (1, 2), (1, 2), 2)
    conv((1, 5, 12, 14), 5, (3, 3), (1, 1), (2, 2), (2, 2), 5)
    conv((2, 3, 17, 20), 9, (3, 3), (1, 1), (1, 1))
    conv((2, 6, 9, 10), 10, (1, 1), (2, 2))
    conv((1, 18, 11, 7), 17, (2, 2), (2, 2), (1, 0))
    conv((1, 20, 23, 21), 18, (3, 3), (1, 1), (1, 1))
    conv((1, 7, 14, 16), 12, (5, 5), (1, 1), (2, 2))
    conv((1, 3, 8, 9), 4, (3, 4), (3, 1), (0, 3))

    def conv_transpose(shape, out, kernel, stride, padding=(0, 0), output_padding=(0, 0), dilation=(1, 1), groups=1):
        settings = {"stride": stride, "padding": padding, "output_padding": output_padding, "groups": groups, "dilation": dilation}
        parameters = {"weight": torch.randn(shape[1], out // groups, *kernel), "bias": torch.randn(out)}
        function = lambda x, w, b: F.conv_transpose2d(x, w, b, **settings)
        add("conv_transpose2d", torch.randn(shape), function, parameters, **settings)

    conv_transpose((2, 4, 6, 5), 6, (3, 2), (2, 3), (1, 0), (1, 2), groups=2)
    conv_transpose((1, 5, 7, 6), 3, (3, 3), (2, 2), (1, 1), (1, 1), (2, 2))
    conv_transpose((1, 17, 8, 9), 18, (4, 4), (2, 2), (1, 1))
    conv_transpose((2, 3, 5, 4), 4, (3, 3), (1, 1), (1, 1))

    image = torch.randn(2, 6, 9, 7)
    affine = {"weight": torch.randn(6), "bias": torch.randn(6)}
    add("instance_norm", image, lambda x: F.instance_norm(x, eps=1e-5), eps=1e-5)
    add("instance_norm", image, lambda x, w, b: F.instance_norm(x, weight=w, bias=b, eps=1e-3), affine, eps=1e-3)
    for groups in [1, 2, 3, 6]:
        add("group_norm", image, lambda x, w, b: F.group_norm(x, groups, w, b, 1e-5), affine, groups=groups, eps=1e-5)
    for kernel in [3, 4]:
        add("max_pool2d", image, lambda x: F.max_pool2d(x, kernel), kernel=kernel)
    for height, width in [(18, 14), (5, 3), (13, 4), (1, 20)]:
        for how in ["nearest", "bilinear"]:
            aligned = {} if how == "nearest" else {"align_corners": False}
            function = lambda x: F.interpolate(x, (height, width), mode=how, **aligned)
            add("resize", image, function, height=height, width=width, how=how)
    add("relu", image, F.relu)
    add("leaky_relu", image, lambda x: F.leaky_relu(x, 1.5), slope=1.5)
    add("tanh", image * 3, torch.tanh)
    add("sigmoid", image * 3, torch.sigmoid)

    metadata = {"kind": "layers", "torch": torch.__version__, "cases": json.dumps(cases)}
    save_file(tensors, path, metadata)


if __name__ == "__main__":
    main(*sys.argv[1:])
