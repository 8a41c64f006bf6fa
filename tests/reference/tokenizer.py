"""CLIP's tokenizer: ids of transformers' CLIPTokenizer for several tokenizer directories."""
import gzip
import json
import random
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from transformers import CLIPTokenizer

from seeded import save_fixture

START, END = "<|startoftext|>", "<|endoftext|>"


def vocabulary():
    """The vocabulary of OpenAI's simple_tokenizer.py, with the names that transformers gives the special tokens."""
    path = Path(find_spec("open_clip").origin).parent / "bpe_simple_vocab_16e6.txt.gz"
    merges = gzip.open(path).read().decode().split("\n")[1:49152 - 256 - 2 + 1]
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [b for b in range(256) if b not in printable]
    symbols = [chr(b) for b in printable] + [chr(256 + i) for i in range(len(others))]
    tokens = symbols + [s + "</w>" for s in symbols] + ["".join(m.split()) for m in merges] + [START, END]
    return {token: i for i, token in enumerate(tokens)}, merges


def token(content, **flags):
    return {"content": content, "lstrip": False, "normalized": True, "rstrip": False, "single_word": False, **flags}


def stable_diffusion_files(pad):
    """What Stable Diffusion's model directories hold beside vocab.json and merges.txt."""
    typed = {"bos_token": token(START), "eos_token": token(END), "unk_token": token(END)}
    config = {k: {"__type": "AddedToken", **v} for k, v in typed.items()}
    config |= {"add_prefix_space": False, "do_lower_case": True, "errors": "replace", "model_max_length": 77,
               "pad_token": pad, "tokenizer_class": "CLIPTokenizer"}
    return {"tokenizer_config.json": config, "special_tokens_map.json": {**typed, "pad_token": pad}}


LAYOUTS = {
    "bare": {},
    "sd1": stable_diffusion_files(END),
    "sd2": stable_diffusion_files("!"),
    # Tokens of one's own (textual inversion), in the old and in the newer way.
    "added": {
        **stable_diffusion_files(END),
        "added_tokens.json": {"<cat-toy>": 49408, "<Style>": 49409},
        "special_tokens_map.json": {"bos_token": START, "eos_token": END, "pad_token": END, "unk_token": END,
                                    "additional_special_tokens": ["<cat-toy>", "[MASK]"]},
    },
    "decoder": {
        "tokenizer_config.json": {
            "added_tokens_decoder": {
                "0": token("!", normalized=False, special=True),
                "49406": token(START, normalized=False, special=True),
                "49407": token(END, special=True),
                "49408": token("<cat-toy>", lstrip=True, rstrip=True),
                "49409": token("oslo", single_word=True),
            },
            "bos_token": START, "eos_token": END, "unk_token": END, "pad_token": "!", "model_max_length": 16,
        },
    },
}

TEXTS = r"""
a photograph of an astronaut riding a horse
A PHOTO of a Cat, 8k, ultra-detailed, trending on ArtStation
I'm sure it's you're they've we'll he'd can't o'clock 'tis rock'n'roll IT'S YOU'RE
's't're've'm'll'd 's 'S 'lll ''' "'s"
1234567890 3.14159 1,000,000 10th 2nd 0x1F 1e-5 ½ ² ③ Ⅷ ੧੨੩ ٠١٢٣ ६७८ 一二三
!!! ??? ... --- ___ === +++ *** ((( ))) [[[ ]]] {{{ }}} <<< >>> \\\\ /// ||| ~~~ ``` ^^^ %%% $$$ ### @@@ &&&
hello!world hello ! world !hello! !!hello!! ¡hola! ¿qué?
(masterpiece:1.2), ((best quality)), [blurry|sharp], <lora:foo:0.8>
#hashtag @user http://example.com/a?b=c&d=e user@example.com C++ C# .NET
<|startoftext|>
<|endoftext|>
a<|endoftext|>b <|startoftext|> c<|endoftext|><|endoftext|>
<|STARTOFTEXT|> <|EndOfText|> <|startoftext| > < |endoftext|> <|endoftext|
<cat-toy> a <cat-toy> on a table, <CAT-TOY>, <Style>, <style>, x<cat-toy>y  <cat-toy>  z
Oslo oslo, oslomet, oslo! [MASK] [mask]
</w> a</w> </w</w>> hello</w>world
naïve café résumé Ångström Škoda façade über Straße coöperate
NAI\u0308VE CAFE\u0301 A\u030angstro\u0308m e\u0301\u0323 q\u0307\u0323 \u212b \ufb01 \ufb03 \u1e9e ẞ ſ
İstanbul ISTANBUL ıstanbul DİYARBAKIR Iİıi
ΟΔΥΣΣΕΥΣ ὈΔΥΣΣΕΎΣ Σίσυφος ΣΑΣ ς σ
Привет, мир! Как дела? Ёлка, йод, ЪЫЬ
你好世界，这是一只猫。 漢字とひらがなとカタカナ 한국어 프롬프트 １２３ ＡＢＣ ａｂｃ
ひ゛ が か\u3099 ハ\u309a ﾊﾟ ｶﾞ 〜 ー 々 〆
مرحبا بالعالم، كيف حالك؟ שלום עולם हिन्दी में नमस्ते ภาษาไทยสวัสดี বাংলা தமிழ் తెలుగు ქართული Հայերեն አማርኛ
كِتَابٌ שָׁלוֹם क्षत्रिय ක්‍ර کتاب‌ها กำ ກຳ
Tiếng Việt: Tôi yêu Hà Nội, phở và cà phê sữa đá
Zażółć gęślą jaźń Příliš žluťoučký kůň Þórður Łódź ŐŰ Æsir ﷺ ﷽
😀 😀😀😀 👍🏽 👨‍👩‍👧‍👦 🏳️‍🌈 🇳🇴🇯🇵 ❤️ ❤ ☕️ 🫠 🪿 1️⃣ #️⃣ a😀b 😀a1
zero\u200bwidth zero\u200cwidth zero\u200dwidth \ufefffeff word\u2060joiner soft\u00adhyphen
tab\there  double   triple\u00a0nbsp\u2003em\u3000ideographic\u1680ogham\u205f\u202f\u2028\u2029\u0085end
\u180emongolian\u180evowel \u2800braille\u2800
nul\u0000byte bell\u0007 esc\u001b[31m del\u007f c1\u009f \u001c\u001d\u001e\u001f
\r\nwindows\r\nlines\n\n\nunix\rmac\x0bvt\x0cff
“curly” ‘quotes’ it’s don’t «guillemets» „low” — – ― … • · × ÷ ± ° © ® ™ € £ ¥ § ¶ † ‡
\u0301 \u0301\u0301 a\u0301\u0302\u0303\u0304\u0305 z\u0334\u0335\u0336\u0337\u0338a\u0321l\u0322g\u0327o
\ue000 \uf8ff \U000f0000 \U0010ffff \ufffe \uffff \ufdd0 \ufffd
𝒻𝒶𝓃𝒸𝓎 𝔣𝔯𝔞𝔨𝔱𝔲𝔯 𝟙𝟚𝟛 ⓐⓑⓒ 🄰🄱 ⅓ ㎏ ㍻ ㊗ ℡ №
𐌰𐌱𐌲 𓀀𓁐 𐤀𐤁 𝄞 🂡 🀄 𠀋𠮷 𪚥 ᚠᚢᚦ ᐊᐃ ꙮ ꧁꧂
Ǆ ǅ ǆ ǈ ᾈ ᾼ ﬅ ŉ ǰ ΐ ὒ Ⓐ Ⅳ Ꭰ ꭰ Ა ა 𐐀 𐐨 𞤀
각 각 ㄱㅏㄱ ᄀᄀᄀ ﾻ 힣 ퟀ
a\u0300\u0316 a\u0316\u0300 \u0344 \u0f73 \u0958 \u2adc \ufb1d \U0001d15e \U0002f800 \uf900 \u0374 \u037e
mixedПривет你好مرحبا🎨مixed123абв٣٤٥ x²+y²=z² a1b2c3 4K8K 1080p
_underscore_ snake_case __dunder__ kebab-case CamelCase camelCase SCREAMING_SNAKE
antidisestablishmentarianism pneumonoultramicroscopicsilicovolcanoconiosis aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa
a cat, a cat, a cat, a cat, a cat, a cat, a cat, a cat, a cat, a cat, a cat, a cat, a cat, a cat, a cat, a cat, a cat, a cat, a cat, a cat, a cat, a cat, a cat, a cat, a cat, a cat, a cat!, the END of it’s lost
""".strip("\n").split("\n")


def texts():
    listed = [t.encode("latin-1", "backslashreplace").decode("unicode_escape") if "\\" in t else t for t in TEXTS]
    listed += ["", " ", "\n\t ", "!", "a", "é", "\u0000", "a" * 10_000, "ab cd " * 1_667, "é1!" * 700, "!" * 500]
    # 74, 75 and 76 tokens: just below, at and above what fits.
    listed += [" ".join(["cat"] * n) for n in (74, 75, 76)]
    draw = random.Random(5)
    blocks = [(0, 0x80), (0x80, 0x250), (0x300, 0x370), (0x370, 0x600), (0x900, 0xd00), (0x1e00, 0x2100),
              (0x2000, 0x2070), (0x3040, 0x3100), (0x4e00, 0x9fff), (0xac00, 0xd7a3), (0x1f300, 0x1f700), (0x10000, 0x10900)]
    for i in range(200):
        chosen = draw.sample(blocks, 1 + i % 4)
        length = draw.randrange(1, 60)
        listed.append("".join(chr(draw.randrange(*draw.choice(chosen))) if draw.random() < 0.85 else " " for _ in range(length)))
    return listed


def fnv(values) -> int:
    state = 0xCBF29CE484222325
    for value in values:
        state = ((state ^ value) * 0x100000001B3) % 2**64
    return state - 2**64 if state >= 2**63 else state


def every_character(tokenizer):
    """One hash for each 256 code points: ids of a text in which every character stands in several places."""
    hashes = []
    # Every plane that has assigned characters; one block of private use.
    for block in [*range(0, 0x40000, 256), *range(0xE0000, 0xE1000, 256), 0x10FF00]:
        scalars = [c for c in range(block, block + 256) if not 0xD800 <= c < 0xE000]
        text = " ".join(f"a{chr(c)}b {chr(c)} {chr(c)}{chr(c)}1" for c in scalars)
        hashes.append(fnv(tokenizer.backend_tokenizer.encode(text, add_special_tokens=False).ids))
    return torch.from_numpy(np.array(hashes, dtype=np.int64))


def ragged(name, lists):
    flat = torch.tensor([i for l in lists for i in l], dtype=torch.int64)
    return {name: flat, name + "_lengths": torch.tensor([len(l) for l in lists], dtype=torch.int64)}


def main():
    ids, merges = vocabulary()
    listed = texts()
    few = listed[:len(TEXTS)]
    tensors, lost, files = {}, {}, {}
    with tempfile.TemporaryDirectory() as root:
        def load(name, layout):
            directory = Path(root) / name
            if not directory.exists():
                directory.mkdir()
                (directory / "vocab.json").write_text(json.dumps(ids))
                (directory / "merges.txt").write_text("#version: 0.2\n" + "\n".join(merges) + "\n")
                for file, content in layout.items():
                    (directory / file).write_text(json.dumps(content))
            return CLIPTokenizer.from_pretrained(directory)

        for name, layout in list(LAYOUTS.items()):
            tokenizer = load(name, layout)
            tokenizer.save_pretrained(Path(root) / f"{name}_saved")
            saved = Path(root) / f"{name}_saved"
            files[name] = layout
            # What transformers 5 writes, less the vocabulary.
            whole = json.loads((saved / "tokenizer.json").read_text())
            whole["model"] = {k: v for k, v in whole["model"].items() if k not in ("vocab", "merges")}
            files[f"{name}_saved"] = {
                "tokenizer.json": whole,
                "tokenizer_config.json": json.loads((saved / "tokenizer_config.json").read_text()),
            }
        # A tokenizer.json alone.
        alone = Path(root) / "alone"
        alone.mkdir()
        (alone / "tokenizer.json").write_text((Path(root) / "sd2_saved" / "tokenizer.json").read_text())
        files["alone"] = {"tokenizer.json": files["sd2_saved"]["tokenizer.json"]}

        for name in files:
            tokenizer = load(name, {})
            length = min(tokenizer.model_max_length, 77)
            chosen = listed if name in ("sd1", "sd2") else few
            plain = tokenizer(chosen, add_special_tokens=False).input_ids
            tensors |= ragged(f"{name}.tokens", plain)
            chosen = chosen[:len(TEXTS) + 14]
            padded = tokenizer(chosen, padding="max_length", max_length=length, truncation=True).input_ids
            tensors[f"{name}.ids"] = torch.tensor(padded, dtype=torch.int64)
            whole = tokenizer(chosen).input_ids
            lost[name] = {i: tokenizer.decode(w[length - 1:-1]) for i, w in enumerate(whole) if len(w) > length}
            if name == "sd1":
                tensors["characters"] = every_character(tokenizer)
            print(name, tokenizer.pad_token, length, len(chosen), len(lost[name]), file=sys.stderr)
    save_fixture("tokenizer", tensors, texts=listed, files=files, lost=lost)


if __name__ == "__main__":
    main()
