"""The pieces of bert-base-uncased's vocabulary that the captions of emoji.tar's training split use, with every letter
and digit, so that any other word can be spelled: emoji_vocab.txt.

    python assets/make_vocab.py path/to/bert_base_uncased_vocab.txt
"""
import json
import pathlib
import string
import sys
import tarfile

from tokenizers import BertWordPieceTokenizer

assets = pathlib.Path(__file__).parent
tokenizer = BertWordPieceTokenizer(sys.argv[1], lowercase=True)
used = {"[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"}
for character in string.ascii_lowercase + string.digits:
    used |= {character, f"##{character}"}
used |= set(",.'-&:!()")
with tarfile.open(assets / "emoji.tar") as tar:
    for member in tar:
        if member.name.endswith(".json"):
            sample = json.load(tar.extractfile(member))
            if sample["split"] == "train":
                used |= set(tokenizer.encode(sample["caption"]).tokens)
order = pathlib.Path(sys.argv[1]).read_text(encoding="utf-8").splitlines()
pieces = [piece for piece in order if piece in used]
(assets / "emoji_vocab.txt").write_text("\n".join(pieces) + "\n", encoding="utf-8")
print(len(pieces), "pieces")
