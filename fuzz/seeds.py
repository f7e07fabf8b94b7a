"""Writes the files in seeds/ and the dictionaries. Run as: python3 seeds.py (nothing else is needed)."""
import io
import json
import math
import os
import pickle
import struct
import zipfile
import zlib
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parent


def seed(target, name, data):
    folder = HERE / "seeds" / target
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(data)


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width, height, depth, color, rows, *extra):
    header = struct.pack(">IIBBBBB", width, height, depth, color, 0, 0, 0)
    body = b"".join(b"\0" + row for row in rows)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + b"".join(extra) + chunk(b"IDAT", zlib.compress(body)) + chunk(b"IEND", b"")


def images():
    progressive = (ROOT / "crates/data/src/decode/progressive.jpg").read_bytes()
    palette = chunk(b"PLTE", bytes(range(12)))
    exif = chunk(b"eXIf", b"II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0\0\0\0\0")
    files = {
        "rgb.png": png(4, 2, 8, 2, [bytes(range(12)), bytes(range(12))]),
        "rgba16.png": png(2, 1, 16, 6, [bytes(range(16))]),
        "grey.png": png(4, 1, 8, 0, [bytes([0, 7, 33, 1])]),
        "grey1.png": png(9, 1, 1, 0, [b"\xa5\x80"]),
        "grey16.png": png(2, 1, 16, 0, [b"abcd"]),
        "alpha.png": png(2, 1, 8, 4, [b"abcd"]),
        "palette2.png": png(6, 1, 2, 3, [b"\x1b\x10"], palette, exif),
        "palette_cut.png": png(6, 1, 2, 3, [b"\x1b\x10"], chunk(b"PLTE", bytes(range(50)))),
        "huge.png": png(100_000, 100_000, 8, 2, []),
        "progressive.jpg": progressive,
        "cmyk.jpg": bytes.fromhex("ffd8ffc000140800080008040111000211000311000411 00ffd9"),
    }
    for name, data in files.items():
        for kind in (0, 1):
            seed("pair", f"{name}.{kind}", bytes([kind]) + data)


def texts():
    entry = "[[class]]\nname = '{}'\ncolor = [{}, 0, 9]\n"
    seed("class_table", "positions.toml", f"name = 'x'\nvoid = [1]\n{entry.format('a', 1)}{entry.format('b', 2)}".encode())
    seed("class_table", "ids.toml", f"name = 'x'\n{entry.format('a', 1)}id = 7\ntrain_id = 0\n{entry.format('b', 2)}id = -1\ntrain_id = 255\n".encode())
    for name in ("smoke-unet", "smoke-cgan", "smoke-adversarial", "smoke-cvae", "pixelwise"):
        lines = (ROOT / f"data/recipes/{name}.toml").read_text().splitlines()
        text = "\n".join(line for line in lines if line and not line.startswith("#"))
        seed("recipe", f"{name}.toml", (text + "\n\0epochs=3\0data.height=1e3").encode())
    words = {
        "class_table": ["name = ", "void = [", "[[class]]", "color = [", "id = ", "train_id = ", "255", "-1", "256"],
        "recipe": ["[data]", "epochs", "inf", "nan", "-1", "9223372036854775807", "1e999", "base_channels", "batch_size",
                   "[task.segmentation", "[schedule.", "recipe = ", "\\x00data.height=", "0x", "[[", "{", "'''"],
        "weights": ["__metadata__", "\\\"dtype\\\":", "\\\"shape\\\":[", "\\\"data_offsets\\\":[", "F32", "F64", "F16", "BF16", "I64",
                    "U8", "F4", "18446744073709551615", "9223372036854775808", "{}", "[]", "PK\\x01\\x02", "PK\\x03\\x04",
                    "PK\\x05\\x06", "PK\\x06\\x06", "PK\\x06\\x07", "cos\\x0asystem\\x0a", "ctorch\\x0aFloatStorage\\x0a",
                    "ctorch._utils\\x0a_rebuild_tensor_v2\\x0a", "data.pkl", "archive/data/0", "state_dict", "module.",
                    "kind", "conv2d", "batch_norm", "base", "losses", "stride", "padding", "dilation", "groups", "cases",
                    "\\\"epochs\\\":", "\\\"steps\\\":", "\\\"sha256\\\":", "\\\"best\\\":"],
    }
    for name, entries in words.items():
        (HERE / f"{name}.dict").write_text("".join(f'"{entry}"\n' for entry in entries))


def safetensors(tensors, metadata=None):
    header, data = {}, b""
    if metadata:
        header["__metadata__"] = metadata
    for name, (dtype, shape, values) in tensors.items():
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [len(data), len(data) + len(values)]}
        data += values
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + data


def floats(*values):
    return struct.pack(f"<{len(values)}f", *values)


class Storage:
    def __init__(self, kind, key, count):
        self.fields = ("storage", kind, key, "cpu", count)


class Call:
    """A value that unpickles by calling `function`."""

    def __init__(self, function, *arguments):
        self.call = (function, arguments)

    def __reduce__(self):
        return self.call


class Named:
    """Pickles as the global of that name."""

    def __init__(self, module, name):
        self.module, self.name = module, name


class Pickler(pickle._Pickler):
    def persistent_id(self, value):
        return value.fields if isinstance(value, Storage) else None

    def save(self, value, save_persistent_id=True):
        if isinstance(value, Named):
            self.write(f"c{value.module}\n{value.name}\n".encode())
        else:
            super().save(value, save_persistent_id)

    def save_reduce(self, func, args, *rest, **named):
        self.save(func), self.save(args)
        self.write(b"R")


def pickled(value):
    file = io.BytesIO()
    Pickler(file, 2).dump(value)
    return file.getvalue()


def archive(data, storages, method=zipfile.ZIP_STORED):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as zipped:
        for name, content in {"data.pkl": data, **{f"data/{key}": value for key, value in storages.items()}}.items():
            zipped.writestr(zipfile.ZipInfo(f"archive/{name}", (1980, 1, 1, 0, 0, 0)), content, method)
    return file.getvalue()


def tensor(key, shape, strides, kind="FloatStorage", count=None):
    size = 1
    for side in shape:
        size *= side
    storage = Storage(Named("torch", kind), key, size if count is None else count)
    return Call(Named("torch._utils", "_rebuild_tensor_v2"), storage, 0, shape, strides, False, {})


def weights():
    plain = safetensors({"a.weight": ("F32", [2, 2], floats(1, 2, 3, 4)), "a.bias": ("F16", [2], b"\0\x3c\0\x3c"),
                         "a.num_batches_tracked": ("I64", [], b"\1" * 8)}, {"format": "pt"})
    seed("checkpoint", "weights.safetensors", b"\0" + plain)
    state = {"a.weight": tensor("0", (2, 2), (2, 1)), "a.bias": tensor("1", (2,), (1,), "HalfStorage")}
    storages = {"0": floats(1, 2, 3, 4), "1": b"\0\x3c\0\x3c"}
    seed("checkpoint", "weights.pth", b"\1" + archive(pickled(state), storages))
    nested = {"epoch": 3, "best": 0.5, "state_dict": {f"module.{name}": value for name, value in state.items()}}
    seed("checkpoint", "nested.pth", b"\1" + archive(pickled(nested), storages))
    seed("checkpoint", "state.pickle", b"\2" + pickled(state))
    seed("checkpoint", "nested.pickle", b"\2" + pickled(nested))
    evil = {"a": Call(Named("os", "system"), "touch executed")}
    seed("checkpoint", "evil.pth", b"\1" + archive(pickled(evil), {}))
    seed("checkpoint", "deflated.pth", b"\1" + archive(pickled(state), storages, zipfile.ZIP_DEFLATED))
    # What a run of the target's own network saves; its names are those of `pixelwise` with one channel.
    shapes = {"conv1.weight": [1, 3, 1, 1], "conv1.bias": [1], "bn1.weight": [1], "bn1.bias": [1], "conv2.weight": [1, 1, 1, 1],
              "conv2.bias": [1], "bn2.weight": [1], "bn2.bias": [1], "outputs.weight": [1, 1, 1, 1], "outputs.bias": [1]}
    statistics = {f"bn{i}.running_{kind}": [1] for i in (1, 2) for kind in ("mean", "var")}
    ones = lambda shape: ("F32", shape, floats(*[1] * (3 if shape == [1, 3, 1, 1] else 1)))
    seed("checkpoint", "run.safetensors", b"\3" + safetensors({n: ones(s) for n, s in {**shapes, **statistics}.items()}))
    moments = {f"adam.{m}_moment.{n}": ones(s) for m in ("first", "second") for n, s in shapes.items()}
    seed("checkpoint", "optimizer.safetensors", b"\4" + safetensors({**moments, "adam.steps": ("I64", [1], b"\2" + b"\0" * 7)}))
    seed("checkpoint", "progress.json", b'\5{"epochs":1,"batches":0,"steps":2,"best":{"score":"0.5","epoch":1},"sha256":{}}')


def oracles():
    case = lambda **fields: {"kind": "layers", "cases": json.dumps([{"name": "c", **fields}])}
    x = ("F32", [1, 1, 2, 2], floats(1, 2, 3, 4))
    one = ("F32", [1, 1, 1, 1], floats(2))
    conv = {"c.x": x, "c.weight": one, "c.y": x, "c.gy": x, "c.gx": x, "c.gweight": one}
    seed("oracle", "conv2d", safetensors(conv, case(op="conv2d", stride=1, padding=[0, 0])))
    seed("oracle", "conv_transpose2d", safetensors(conv, case(op="conv_transpose2d", stride=[1, 1], padding=0, groups=1)))
    plain = {"c.x": x, "c.y": x, "c.gy": x, "c.gx": x}
    for fields in ({"op": "relu"}, {"op": "leaky_relu", "slope": 0.2}, {"op": "instance_norm", "eps": 1e-5}):
        seed("oracle", fields["op"], safetensors(plain, case(**fields)))
    seed("oracle", "max_pool2d", safetensors({**plain, "c.y": one, "c.gy": one}, case(op="max_pool2d", kernel=2)))
    scale = ("F32", [1], floats(1))
    norm = {**plain, **{f"c.{name}": scale for name in ("weight", "bias", "gweight", "gbias", "after_running_mean", "after_running_var")}}
    seed("oracle", "batch_norm", safetensors(norm, case(op="batch_norm", eps=1e-5, momentum=0.1)))
    adam = {"lr": "1e-3", "beta1": "0.9", "beta2": "0.999", "eps": "1e-8"}
    network("unet", "mse", (16, 32), [1], adam)
    network("cgan", "bce", (64, 64), [1, 3], adam)


def network(kind, loss, size, losses, settings):
    """The names and shapes of a golden file, with one channel for its four, one image and one step: it is computed and compared to
    its end."""
    with open(ROOT / f"tests/oracle/{kind}.safetensors", "rb") as file:
        header = json.loads(file.read(struct.unpack("<Q", file.read(8))[0]))
    assert header.pop("__metadata__")["base"] == "4"

    def shape(name, sides):
        if name == "losses":
            return losses
        if name in ("x", "y") or name.startswith("out."):
            return [1, 3, *size]
        if name == "disc.eval":
            return [1, 1, 1, 1]
        return [side // 4 if side % 4 == 0 else side for side in sides[:2]] + sides[2:]

    def one(name, sides):
        # Bytes where they will do, for they are small.
        kind, value = ("F32", floats(1)) if name in ("x", "y") else ("U8", b"\1")
        return kind, sides, value * math.prod(sides)

    ones = {name: one(name, shape(name, entry["shape"])) for name, entry in header.items()}
    metadata = {"kind": kind, "base": "1", "loss": loss, **settings}
    seed("oracle", kind, safetensors(ones, metadata))


os.chdir(HERE)
images()
texts()
weights()
oracles()
