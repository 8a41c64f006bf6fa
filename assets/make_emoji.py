"""Microsoft's Fluent emoji (3D style) with captions -> emoji.tar, one WebDataset shard; held_out.txt.

    npm pack @lobehub/fluent-emoji-3d@1.1.0 emoji-datasource-google@16.0.0
    python make_emoji.py DIRECTORY_OF_THE_TWO_TGZ [--sheet sheet.png]

Needs Pillow (made with 13.0.0, libwebp 1.6.0) and NumPy. The result is the same, byte for byte, on every run.
A sample is `CODEPOINTS.webp` (64x64, on white) and `CODEPOINTS.json`: caption, code points, category, split, ...
"""
import argparse
import hashlib
import io
import json
import re
import tarfile
import unicodedata
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

PICTURES, NAMES = "lobehub-fluent-emoji-3d-1.1.0.tgz", "emoji-datasource-google-16.0.0.tgz"
SIZE, QUALITY = 64, 85
# Held out: combinations of a profession and a skin tone, and anything else.
COMBINATIONS, OTHERS = 110, 90
# A picture this close (root mean square of 0 to 255) to another one is never held out: it would be no test.
NEAR = 6.0
TONES = {
    "1f3fb": "light skin tone",
    "1f3fc": "medium-light skin tone",
    "1f3fd": "medium skin tone",
    "1f3fe": "medium-dark skin tone",
    "1f3ff": "dark skin tone",
}
# The package says of several pictures what they don't show; captions here follow the picture.
# Medium-light and medium are exchanged in nearly every sequence (the few that are right show by their brightness);
# the mountain bicyclist's are in an order of their own (file -> what it shows), the deaf man is the deaf woman.
BICYCLIST = {"1f3fb": "1f3ff", "1f3fc": "1f3fd", "1f3fd": "1f3fe", "1f3fe": "1f3fc", "1f3ff": "1f3fb"}
# Shows the medium-dark picture again.
WRONG = {"1fac4-1f3ff"}
DEAF, WOMAN, MAN = "1f9cf", "2640", "2642"
# In Unicode's names black means filled and white outlined; a caption says what colour there is to see.
RENAMED = {
    "heavy black heart": "red heart",
    "black question mark ornament": "red question mark",
    "white question mark ornament": "white question mark",
    "heavy exclamation mark symbol": "red exclamation mark",
    "white exclamation mark ornament": "white exclamation mark",
    "white heavy check mark": "check mark button",
    "white medium star": "star",
}
FILLED = "arrow|index|scissors|smiling|squared|star|suit|sun|symbol|telephone|triangle"
TYPOGRAPHIC = re.compile(rf"\b(black|white|negative) (?=.*\b({FILLED})\b)")
# What a person of a profession holds in the sequence "person ZWJ thing"; the four that are emoji of their own follow.
THINGS = "1f33e 1f373 1f393 1f3a4 1f3a8 1f3eb 1f3ed 1f4bb 1f4bc 1f527 1f52c 1f680 1f692 2695 2696 2708".split()
OWN = {"1f46e": "police officer", "1f477": "construction worker", "1f482": "guard", "1f575": "detective"}


def normal(code: str) -> str:
    """One name for all spellings: lower case, four digits at least, no variation selector, flags' tags closed."""
    parts = [p.zfill(4) for p in code.lower().replace("_", "-").split("-")]
    if parts[0] == "1f3f4" and parts[1:2] == ["e0067"] and parts[-1] != "e007f":
        parts.append("e007f")
    return "-".join(p for p in parts if p != "fe0f")


def plain(text: str) -> str:
    """Lower case, accents and typographic quotes folded to ASCII, colours as they are."""
    text = unicodedata.normalize("NFKD", text.lower().replace("\u2019", "'"))
    text = " ".join("".join(c for c in text if not unicodedata.combining(c)).split())
    return TYPOGRAPHIC.sub("", RENAMED.get(text, text))


def names(emoji: list) -> dict:
    """Code point -> what is known of it, one entry a skin tone."""
    twice = {n for n, k in Counter(plain(e["name"]) for e in emoji).items() if k > 1}
    table = {}
    for e in emoji:
        name = plain(e["name"])
        if name in twice:
            name = plain(e["short_name"].replace("_", " "))
        for tone, code in [("", e["unified"])] + [(t, v["unified"]) for t, v in e.get("skin_variations", {}).items()]:
            tones = [TONES[t.lower()] for t in tone.split("-") if t]
            table[normal(code)] = dict(
                caption=", ".join([name] + tones),
                name=name,
                skin_tones=tones,
                short_name=e["short_name"],
                category=e["category"],
                subcategory=e["subcategory"],
            )
    return table


def on_white(data: bytes) -> Image.Image:
    """Padded to a square, composited on white, then resized."""
    picture = Image.open(io.BytesIO(data)).convert("RGBA")
    side = max(picture.size)
    square = Image.new("RGBA", (side, side), (255, 255, 255, 255))
    square.alpha_composite(picture, ((side - picture.width) // 2, (side - picture.height) // 2))
    return square.convert("RGB").resize((SIZE, SIZE), Image.Resampling.BICUBIC)


def brightness(data: bytes) -> float:
    """Mean of what isn't transparent."""
    rgba = np.asarray(Image.open(io.BytesIO(data)).convert("RGBA"), np.float64)
    return float((rgba[..., :3].mean(-1) * rgba[..., 3]).sum() / rgba[..., 3].sum())


def shown(found: dict) -> dict:
    """Code point of a file -> code point of what its picture shows, where they differ."""
    moved = {}
    for code in found:
        parts = code.split("-")
        if parts[0] == "1f6b5" and len(parts) == 2:
            moved[code] = f"1f6b5-{BICYCLIST[parts[1]]}"
        elif sum(p in TONES for p in parts) == 1 and "1f3fc" in parts:
            other = code.replace("1f3fc", "1f3fd")
            if brightness(found[code][0][1]) < brightness(found[other][0][1]):
                moved |= {code: other, other: code}
    for code in found:
        sex = {WOMAN: MAN, MAN: WOMAN}
        if code.startswith(DEAF) and code.split("-")[-1] in sex:
            moved[code] = "-".join(sex.get(p, p) for p in moved.get(code, code).split("-"))
    return moved


def pictures(package: Path) -> dict:
    """Code point of what it shows -> picture at 64x64; twins dropped."""
    found = defaultdict(list)
    with tarfile.open(package) as tar:
        for member in tar:
            if member.name.endswith(".webp"):
                found[normal(Path(member.name).stem)].append((Path(member.name).stem, tar.extractfile(member).read()))
    found = {code: files for code, files in found.items() if code not in WRONG}
    moved = shown(found)
    print(f"{len(moved)} pictures show something else than their file's name says")
    kept, seen = {}, {}
    for code in sorted(found):
        # Of two spellings, the longer is the padded or fully qualified one.
        stem, data = max(found[code], key=lambda f: (len(f[0]), f[0]))
        for other, _ in found[code]:
            if other != stem:
                print(f"twin dropped: {other} (kept {stem})")
        pixels = hashlib.sha256(Image.open(io.BytesIO(data)).convert("RGBA").tobytes()).digest()
        if pixels in seen:
            print(f"identical picture dropped: {code} (kept {seen[pixels]})")
            continue
        seen[pixels] = code
        kept[moved.get(code, code)] = on_white(data)
    return {code: kept[code] for code in sorted(kept)}


def profession(code: str) -> str | None:
    """The profession in a code point sequence with one skin tone, else nothing."""
    parts = [p for p in code.split("-") if p not in TONES]
    tones = sum(p in TONES for p in code.split("-"))
    if tones != 1:
        return None
    if len(parts) == 3 and parts[0] in ("1f468", "1f469", "1f9d1") and parts[2] in THINGS:
        return parts[2]
    return parts[0] if parts[0] in OWN else None


def near(kept: dict) -> set:
    """The pictures that have a neighbour closer than NEAR."""
    codes = list(kept)
    flat = np.stack([np.asarray(kept[c], np.float64).ravel() for c in codes])
    norms = (flat**2).sum(1)
    mean_square = (norms[:, None] + norms[None] - 2 * flat @ flat.T) / flat.shape[1]
    np.fill_diagonal(mean_square, np.inf)
    return {c for c, m in zip(codes, mean_square.min(1)) if m < NEAR**2}


def drawn(code: str) -> str:
    """A fixed order without order: by hash."""
    return hashlib.sha256(f"held out: {code}".encode()).hexdigest()


def hold_out(kept: dict, table: dict) -> dict:
    """Code point -> "combination" or "other"."""
    close = near(kept)
    alone = [c for c in sorted(kept, key=drawn) if c not in close]
    # At most two of a person's five skin tones, so that the person and the tone are both seen in training.
    taken, held = Counter(), {}
    for code in alone:
        if profession(code) and taken[table[code]["name"]] < 2 and len(held) < COMBINATIONS:
            held[code] = "combination"
            taken[table[code]["name"]] += 1
    # The rest in proportion to the categories.
    rest = [c for c in alone if not profession(c)]
    by_category = defaultdict(list)
    for code in rest:
        by_category[table[code]["category"]].append(code)
    share = {k: len(v) * OTHERS / len(rest) for k, v in by_category.items()}
    count = {k: int(s) for k, s in share.items()}
    for k in sorted(share, key=lambda k: count[k] - share[k])[: OTHERS - sum(count.values())]:
        count[k] += 1
    for category, codes in by_category.items():
        held |= {c: "other" for c in codes[: count[category]]}
    return held


def check(table: dict, kept: dict, held: dict):
    """What the data promises."""
    train = [table[c] for c in kept if c not in held]
    people, tones = {t["name"] for t in train}, {s for t in train for s in t["skin_tones"]}
    combinations = [table[c] for c, kind in held.items() if kind == "combination"]
    assert len(held) == COMBINATIONS + OTHERS and len(combinations) >= 100
    assert all(t["name"] in people and set(t["skin_tones"]) <= tones for t in combinations)
    captions = Counter(table[c]["caption"] for c in kept)
    assert max(captions.values()) == 1, [c for c, n in captions.items() if n > 1]
    assert all(c.isascii() for c in captions), [c for c in captions if not c.isascii()]


def write(path: Path, kept: dict, table: dict, held: dict):
    """The shard in a fixed random order, so that a reader with a small buffer mixes well."""
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as tar:

        def add(name: str, data: bytes):
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))

        for code in sorted(kept, key=lambda c: hashlib.sha256(c.encode()).hexdigest()):
            buffer = io.BytesIO()
            kept[code].save(buffer, "WEBP", quality=QUALITY, method=6)
            split = dict(split="held_out", held_out=held[code]) if code in held else dict(split="train")
            add(f"{code}.webp", buffer.getvalue())
            add(f"{code}.json", json.dumps(dict(table[code], code_point=code) | split).encode())


def sheet(path: Path, kept: dict, table: dict, codes: list):
    """Pictures with their captions, for eyes."""
    columns, cell = 15, (132, 100)
    page = Image.new("RGB", (columns * cell[0], -(-len(codes) // columns) * cell[1]), "white")
    draw = ImageDraw.Draw(page)
    for i, code in enumerate(codes):
        x, y = i % columns * cell[0], i // columns * cell[1]
        page.paste(kept[code], (x + 34, y))
        text = table[code]["caption"]
        for line in range(3):
            draw.text((x + 2, y + 64 + 11 * line), text[line * 22 : line * 22 + 22], "black")
    page.save(path)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("packages", type=Path)
    parser.add_argument("--sheet", type=Path, help="also a sheet of every eighth picture and of those held out")
    args = parser.parse_args()
    here = Path(__file__).parent

    with tarfile.open(args.packages / NAMES) as tar:
        table = names(json.load(tar.extractfile("package/emoji.json")))
    kept = pictures(args.packages / PICTURES)
    for code in [c for c in kept if c not in table]:
        print(f"no name, dropped: {code}")
        del kept[code]
    held = hold_out(kept, table)
    check(table, kept, held)
    write(here / "emoji.tar", kept, table, held)
    lines = [f"{code}\t{held[code]}\t{table[code]['caption']}\n" for code in sorted(held)]
    (here / "held_out.txt").write_text("".join(lines))
    print(len(kept), "pictures,", Counter(held.values()), (here / "emoji.tar").stat().st_size, "bytes")
    print(Counter(table[c]["category"] for c in kept))
    if args.sheet:
        ordered = sorted(kept)
        sheet(args.sheet, kept, table, ordered[::8])
        sheet(args.sheet.with_stem(args.sheet.stem + "_held_out"), kept, table, sorted(held))


if __name__ == "__main__":
    main()
