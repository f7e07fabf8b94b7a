"""Writes `tests/oracle/steps.safetensors`: where PyTorch's optimisers move parameters in some steps.

    python tests/pytorch/steps.py tests/oracle/steps.safetensors

Each case has a parameter before (`before`), the gradient of each step (`gradients`, one more dimension) and the parameter after them (`after`).
Inputs are f32; steps are taken in f64 and rounded once.
"""

import json
import sys

import torch
from safetensors.torch import save_file


def main(path):
    torch.manual_seed(0)
    cases, tensors = [], {}

    def add(op, make, **settings):
        name = f"{op}{len(cases)}"
        before, gradients = torch.randn(7, 5), torch.randn(6, 7, 5)
        parameter = before.double().requires_grad_()
        optimizer = make([parameter], **settings)
        for gradient in gradients:
            parameter.grad = gradient.double()
            optimizer.step()
        cases.append({"name": name, "op": op, **settings})
        stored = {"before": before, "gradients": gradients, "after": parameter.detach()}
        tensors.update({f"{name}.{key}": value.float().clone() for key, value in stored.items()})

    for decay in [0.0, 0.1]:
        add("adam", torch.optim.AdamW, lr=0.01, betas=(0.9, 0.999), eps=1e-8, weight_decay=decay)
        add("adam", torch.optim.AdamW, lr=0.1, betas=(0.5, 0.9), eps=1e-3, weight_decay=decay)
        for nesterov in [False, True]:
            add("sgd", torch.optim.SGD, lr=0.05, momentum=0.9, nesterov=nesterov, weight_decay=decay)

    metadata = {"kind": "steps", "torch": torch.__version__, "cases": json.dumps(cases)}
    save_file(tensors, path, metadata)


if __name__ == "__main__":
    main(*sys.argv[1:])
