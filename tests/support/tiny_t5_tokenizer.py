"""A tiny T5's tokenizer.json, as transformers 5 saves it."""

import json


def content(byte_fallback=False, sentinels=100, unk_id=2):
    """As transformers 5 saves a T5: Unigram, words split at blanks, sentinels behind the pieces."""
    words = (
        "\u2581 \u2581Definition : \u2581In \u2581this \u2581task , . \u2581you \u2581are y e s in"
    )
    pieces = [["<pad>", 0.0], ["</s>", 0.0], ["<unk>", 0.0]]
    pieces += [[word, -1.0 - 0.01 * i] for i, word in enumerate(words.split())]
    pieces += [[letter, -9.0] for letter in "abcdfghjklmopqrtuvwxz02" if letter not in "yesin"]
    if byte_fallback:
        pieces += [[f"<0x{byte:02X}>", -12.0] for byte in range(256)]
    names = [f"<extra_id_{i}>" for i in reversed(range(sentinels))]
    pieces += [[name, 0.0] for name in names]
    special = [*("<pad>", "</s>", "<unk>"), *names]
    ids = {piece: i for i, (piece, _) in enumerate(pieces)}
    flags = dict(single_word=False, lstrip=False, rstrip=False, normalized=False, special=True)
    metaspace = {
        "type": "Metaspace", "replacement": "\u2581", "prepend_scheme": "always", "split": True
    }  # fmt: skip
    decoders = [{"type": "ByteFallback"}, metaspace] if byte_fallback else [metaspace]
    return {
        "version": "1.0",
        "truncation": dict(direction="Right", max_length=5, strategy="LongestFirst", stride=0),
        "padding": None,
        "added_tokens": [{"id": ids[name], "content": name, **flags} for name in special],
        "normalizer": None,
        "pre_tokenizer": {
            "type": "Sequence", "pretokenizers": [{"type": "WhitespaceSplit"}, metaspace]
        },
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [
                {"Sequence": {"id": "A", "type_id": 0}},
                {"SpecialToken": {"id": "</s>", "type_id": 0}},
            ],
            "pair": [{"Sequence": {"id": one, "type_id": 0}} for one in "AB"],
            "special_tokens": {"</s>": {"id": "</s>", "ids": [1], "tokens": ["</s>"]}},
        },
        "decoder": {"type": "Sequence", "decoders": decoders},
        "model": {
            "type": "Unigram", "unk_id": unk_id, "vocab": pieces, "byte_fallback": byte_fallback
        },
    }  # fmt: skip


def write(folder, **options):
    folder.mkdir(exist_ok=True)
    (folder / "tokenizer.json").write_text(json.dumps(content(**options)))
    settings = {"tokenizer_class": "T5Tokenizer", "eos_token": "</s>", "pad_token": "<pad>"}
    settings["model_max_length"] = int(1e30)
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return folder
