"""PNGs of every depth and kind of transparency, and the pixels that diffusers' load_image and its masks' convert("L")
make of them with Pillow -> tests/fixtures/pictures.safetensors: `KIND.png` (the file), `KIND.rgb` [h, w, 3], `KIND.l` [h, w].
"""
import io
import struct
import zlib

import numpy as np
import torch
from diffusers.utils import load_image
from PIL import Image

from seeded import save_fixture

# Colour types of PNG and their channels.
GREY, RGB, PALETTE, GREY_ALPHA, RGBA = (0, 1), (2, 3), (3, 1), (4, 2), (6, 4)
H, W = 5, 16


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(depth: int, colour, values: np.ndarray, *chunks) -> bytes:
    """Rows without filters; Pillow itself writes no 16-bit colours."""
    kind, channels = colour
    rows = values.reshape(H, W * channels)
    if depth < 8:
        bits = np.unpackbits(rows.astype(np.uint8)[..., None], axis=-1)[..., 8 - depth:]
        rows = [np.packbits(row).tobytes() for row in bits.reshape(H, -1)]
    else:
        rows = [row.astype(">u2" if depth == 16 else np.uint8).tobytes() for row in rows]
    header = struct.pack(">IIBBBBB", W, H, depth, kind, 0, 0, 0)
    data = zlib.compress(b"".join(b"\0" + row for row in rows))
    return b"\x89PNG\r\n\x1a\n" + b"".join([chunk(b"IHDR", header), *chunks, chunk(b"IDAT", data), chunk(b"IEND", b"")])


def main() -> None:
    random = np.random.default_rng(4)
    draw = lambda depth, colour: random.integers(0, 2**depth, (H, W, colour[1]))
    palette = chunk(b"PLTE", random.integers(0, 256, 48).astype(np.uint8).tobytes())
    clear = chunk(b"tRNS", bytes(range(0, 256, 17)))
    files = {
        "rgb16": png(16, RGB, draw(16, RGB)), "rgba16": png(16, RGBA, draw(16, RGBA)),
        "grey_alpha16": png(16, GREY_ALPHA, draw(16, GREY_ALPHA)), "rgba8": png(8, RGBA, draw(8, RGBA)),
        "grey_alpha8": png(8, GREY_ALPHA, draw(8, GREY_ALPHA)), "palette": png(8, PALETTE, draw(4, PALETTE), palette, clear),
        "grey8_clear": png(8, GREY, draw(8, GREY), chunk(b"tRNS", struct.pack(">H", 100))),
    }
    files |= {f"grey{depth}": png(depth, GREY, draw(depth, GREY)) for depth in (1, 2, 4, 8)}
    tensors = {}
    for kind, file in files.items():
        picture = load_image(Image.open(io.BytesIO(file)))
        tensors[f"{kind}.png"] = torch.frombuffer(bytearray(file), dtype=torch.uint8)
        tensors[f"{kind}.rgb"] = torch.from_numpy(np.array(picture))
        tensors[f"{kind}.l"] = torch.from_numpy(np.array(picture.convert("L")))
    save_fixture("pictures", tensors, kinds=list(files))


if __name__ == "__main__":
    main()
