"""ZeTT's hypernetwork: names, the forward pass against one around RobertaModel, padding, files, the real checkpoint."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from rtok_fixtures import ROOT, tiny_hypernet
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional

from speak_neuro.errors import SpeakError
from speak_neuro.rtok.pretrained.hypernet import CONFIG, LANGUAGES, MODEL, UNUSED, HypernetConfig, ZettHypernet

XLMR = HypernetConfig(
    hn_hidden_size=768,
    hn_intermediate_size=1536,
    original_vocab_size=250002,
    hn_n_extra_tokens=161,
    pad_token_id=1,
    n_langs=26,
    hn_surface_maxlen=7,
    hn_rescale_embeddings=True,
    hn_embed_lang_id=True,
)
PAD = 1


def forms(rows: int = 40, columns: int = 7, seed: int = 0) -> Tensor:
    """Ids of pieces and bytes, 1 to `columns` in a row."""
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(2, 60, (rows, columns), generator=generator)
    lengths = torch.randint(1, columns + 1, (rows, 1), generator=generator)
    return torch.where(torch.arange(columns) < lengths, ids, PAD)


def source(rows: int = 50, width: int = 24) -> Tensor:
    return torch.randn(rows, width, generator=torch.Generator().manual_seed(1))


def reference(network: ZettHypernet, ids: Tensor, embeddings: Tensor, language: int) -> Tensor:
    """The same function around transformers' RobertaModel, as the published code is built: with its absolute positions,
    and type and position taken from the language's vector because the model adds them.
    """
    from transformers import RobertaConfig, RobertaModel

    config, state = network.config, network.state_dict()
    inner = RobertaConfig(
        vocab_size=2,
        hidden_size=config.hn_hidden_size,
        intermediate_size=config.hn_intermediate_size,
        num_hidden_layers=config.hn_n_layers,
        num_attention_heads=config.heads,
        max_position_embeddings=514,
        type_vocab_size=1,
        layer_norm_eps=1e-5,
    )
    with torch.random.fork_rng(devices=[]):
        roberta = RobertaModel(inner, add_pooling_layer=False).eval()
    roberta.load_state_dict({name[6:]: value for name, value in state.items() if name.startswith("model.")})

    def linear(name: str, x: Tensor) -> Tensor:
        return functional.linear(x, state[f"{name}.weight"], state[f"{name}.bias"])

    def projector(name: str, x: Tensor) -> Tensor:
        gelu = nn.GELU(approximate="tanh")
        y = gelu(linear(f"{name}.dense2", gelu(linear(f"{name}.dense1", x)))) + x
        return functional.layer_norm(y, y.shape[-1:], state[f"{name}.ln.weight"], state[f"{name}.ln.bias"], 1e-6)

    x = torch.empty(*ids.shape, config.n_embd)
    for place in torch.cartesian_prod(*map(torch.arange, ids.shape)).tolist():
        number = int(ids[tuple(place)])
        if number < config.original_vocab_size:
            x[tuple(place)] = (state["in_scaler.w"] * embeddings[number] + state["in_scaler.b"])[0]
        else:
            x[tuple(place)] = state["fallback_embeddings.weight"][number - config.original_vocab_size]
    x = projector("input_projection.1", linear("input_projection.0", x))
    columns = ids.shape[1]
    vector = state["lang_embeddings.weight"][language] - (
        state["model.embeddings.token_type_embeddings.weight"][0]
        + state["model.embeddings.position_embeddings.weight"][columns]
    )
    x = torch.cat([x, vector.expand(len(ids), 1, -1)], dim=1)
    mask = torch.cat([ids != config.pad_token_id, torch.ones(len(ids), 1, dtype=torch.bool)], dim=1)
    positions = torch.arange(columns + 1).expand(len(ids), -1)
    with torch.no_grad():
        hidden = roberta(inputs_embeds=x, attention_mask=mask.long(), position_ids=positions).last_hidden_state[:, 0]
    y = linear("output_projection.1", projector("output_projection.0", hidden))
    return state["scaler.w"] * y + state["scaler.b"]


def test_names_and_shapes_are_those_of_the_checkpoint() -> None:
    with torch.device("meta"):
        state = ZettHypernet(XLMR).state_dict()
    golden = json.loads((ROOT / "tests" / "golden" / "hypernet_keys.json").read_text(encoding="utf-8"))
    assert {name: list(value.shape) for name, value in state.items()} == golden
    assert len(golden) == 61 + 16
    assert sum(value.numel() for value in state.values()) == pytest.approx(20.6e6, rel=0.01)
    with torch.device("meta"):
        assert len(ZettHypernet(replace(XLMR, hn_n_layers=2)).state_dict()) == 61


def test_the_forward_pass_is_that_of_robertas_blocks() -> None:
    network = tiny_hypernet()
    ids = forms()
    assert ((ids >= 50).any(), (ids == PAD).any()) == (True, True)
    for language in (0, 3):
        found = network(ids, source(), language)
        torch.testing.assert_close(found, reference(network, ids, source(), language), rtol=0, atol=1e-6)


def test_padding_changes_nothing() -> None:
    network = tiny_hypernet()
    ids = forms(columns=4)
    expected = network(ids, source(), 2)
    for more in (1, 3):
        assert torch.equal(network(functional.pad(ids, (0, more), value=PAD), source(), 2), expected)


def test_the_language_changes_the_embedding() -> None:
    network = tiny_hypernet()
    rows = torch.stack([network(forms(), source(), language) for language in range(4)])
    for first in range(4):
        for second in range(first):
            assert (rows[first] - rows[second]).norm(dim=1).min() > 1e-3


def test_a_row_depends_on_its_own_form_only() -> None:
    network = tiny_hypernet()
    ids = forms()
    together = network(ids, source(), 0)
    alone = torch.cat([network(row[None], source(), 0) for row in ids])
    torch.testing.assert_close(together, alone, rtol=0, atol=1e-6)
    assert len({tuple(row) for row in together.tolist()}) == len({tuple(row) for row in ids.tolist()})


def test_no_gradient_reaches_network_or_source() -> None:
    network = tiny_hypernet()
    embeddings = source().requires_grad_()
    found = network(forms(), embeddings, 0)
    assert not found.requires_grad
    assert not any(value.requires_grad for value in network.parameters())
    assert not network.training
    (found * torch.ones(1, requires_grad=True)).sum().backward()
    assert embeddings.grad is None


def test_save_and_load(tmp_path: Path) -> None:
    network = tiny_hypernet()
    network.save(tmp_path)
    again = ZettHypernet.load(tmp_path)
    assert again.config == network.config
    assert all(map(torch.equal, again.state_dict().values(), network.state_dict().values()))
    assert torch.equal(again(forms(), source(), 1), network(forms(), source(), 1))
    assert not any(value.requires_grad for value in again.parameters())


def test_published_files_are_read(tmp_path: Path) -> None:
    """Unknown fields, half precision, buffers of old transformers and rows that nothing reads do no harm."""
    network = tiny_hypernet()
    network.save(tmp_path)
    values = json.loads((tmp_path / CONFIG).read_text())
    values |= {"architectures": ["ZettHypernet"], "auto_map": {}, "hn_inter_token_attention_bias_by_priors": True}
    for name in ("langs", "hn_num_attention_heads"):
        values[name] = None
    values["n_langs"], values["hn_hidden_size"] = 26, 64
    config = replace(network.config, langs=LANGUAGES, n_langs=26, hn_hidden_size=64, hn_num_attention_heads=0)
    wide = ZettHypernet(config)
    state = {name: value.bfloat16().contiguous() for name, value in wide.state_dict().items()}
    state[UNUSED] = torch.zeros(1, 64)
    state["model.embeddings.position_ids"] = torch.arange(514)[None]
    (tmp_path / CONFIG).write_text(json.dumps(values))
    save_file(state, tmp_path / MODEL)
    again = ZettHypernet.load(tmp_path)
    assert again.config == config
    assert again.config.heads == 1
    assert {value.dtype for value in again.state_dict().values()} == {torch.float32}
    assert (again.language("en"), again.language("sw"), again.language("qu")) == (0, 21, 25)


def test_without_language_scale_or_bias(tmp_path: Path) -> None:
    plain = replace(
        tiny_hypernet().config, hn_rescale_embeddings=False, hn_embed_lang_id=False, hn_predict_bias=False, n_langs=0
    )
    ZettHypernet(plain).save(tmp_path)
    network = ZettHypernet.load(tmp_path)
    assert network.config == plain
    assert network.language("any") == 0
    assert network(forms(), source(), 0).shape == (40, 24)
    assert not any(name.startswith(("lang", "scaler", "in_scaler", "bias")) for name in network.state_dict())


def edited(**changes: Any) -> Callable[[Path], object]:
    def apply(folder: Path) -> None:
        values = json.loads((folder / CONFIG).read_text())
        values |= changes
        (folder / CONFIG).write_text(json.dumps({name: value for name, value in values.items() if value != "gone"}))

    return apply


def tensors(change: Callable[[dict], object]) -> Callable[[Path], object]:
    def apply(folder: Path) -> None:
        state = load_file(folder / MODEL)
        change(state)
        save_file(state, folder / MODEL)

    return apply


@pytest.mark.parametrize(
    ("breakage", "message"),
    [
        (edited(hn_embed_target_priors=True), "hn_embed_target_priors is True; supported: false"),
        (edited(hn_add_inter_token_attention=True), "hn_add_inter_token_attention is True; supported: false"),
        (edited(hn_concat_last_hidden_state=True), "hn_concat_last_hidden_state is True; supported: false"),
        (edited(separate_out_embeddings=True), "separate_out_embeddings is True; supported: false"),
        (edited(hn_embed_using_source_embeddings=False), "hn_embed_using_source_embeddings is False; supported: true"),
        (edited(hn_embed_using_source_embeddings="gone"), "hn_embed_using_source_embeddings is None; supported: true"),
        (edited(hn_model_type="t5"), "hn_model_type is 't5'; supported: 'roberta'"),
        (edited(hn_hidden_size="gone"), "hn_hidden_size is missing; allowed: int"),
        (edited(hn_hidden_size="768"), "hn_hidden_size is '768'; allowed: int"),
        (edited(hn_rescale_embeddings=1), "hn_rescale_embeddings is 1; allowed: bool"),
        (edited(n_langs=5), "n_langs is 5, langs names 4"),
        (edited(hn_num_attention_heads=7), "hn_hidden_size is 32; allowed: a multiple of the heads"),
        (edited(hn_n_layers=3), r"tensor model.encoder.layer.2.\S+ is missing"),
        (edited(hn_predict_bias=False), "tensor bias_projection.bias is unknown"),
        (edited(n_embd=25), r"tensor \S+ has shape .*, not .*; the file does not fit its config.json"),
        (lambda folder: (folder / CONFIG).unlink(), "config.json: no such file; name a folder with"),
        (lambda folder: (folder / CONFIG).write_text("{"), "not valid JSON"),
        (lambda folder: (folder / CONFIG).write_text("[]"), "holds no object"),
        (
            lambda folder: (folder / MODEL).unlink(),
            "model.safetensors: no such file; weights are read from safetensors",
        ),
        (lambda folder: (folder / MODEL).write_bytes(b"PK\x03\x04"), "not a whole safetensors file"),
        (tensors(lambda t: t["scaler.w"].fill_(float("nan"))), "tensor scaler.w holds 24 values that are not finite"),
    ],
)
def test_a_bad_checkpoint_is_one_line(tmp_path: Path, breakage: Callable[[Path], object], message: str) -> None:
    tiny_hypernet().save(tmp_path)
    breakage(tmp_path)
    with pytest.raises(SpeakError, match=message) as caught:
        ZettHypernet.load(tmp_path)
    assert "\n" not in str(caught.value)


def test_an_unknown_language_is_one_line() -> None:
    with pytest.raises(
        SpeakError, match=r"language is 'xx'; allowed with this hypernetwork: en ru de es; the embedder fvt"
    ):
        tiny_hypernet().language("xx")


def test_no_network_is_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(
        SpeakError, match=r"no such folder, nor to be had from the hub .* name a local folder with"
    ) as caught:
        ZettHypernet.load("no/such-hypernetwork")
    assert "\n" not in str(caught.value)


needs_zett = pytest.mark.skipif(
    not (Path(os.environ.get("SPEAK_ZETT", "nowhere")) / CONFIG).is_file(),
    reason="SPEAK_ZETT names no folder with ZeTT's checkpoint for XLM-R (config.json, model.safetensors)",
)


@needs_zett
def test_the_real_checkpoint() -> None:
    """It loads, its sizes fit XLM-R's vocabulary, and the forward pass agrees with the reference."""
    network = ZettHypernet.load(os.environ["SPEAK_ZETT"])
    config = network.config
    assert (config.original_vocab_size, config.hn_n_extra_tokens, config.hn_surface_maxlen) == (250002, 161, 7)
    assert config.langs == LANGUAGES
    embeddings = 0.1 * torch.randn(
        config.original_vocab_size, config.n_embd, generator=torch.Generator().manual_seed(0)
    )
    ids = torch.tensor([[35378, 8999, 1, 1], [250147, 250051, 250048, 250043]])
    torch.testing.assert_close(network(ids, embeddings, 2), reference(network, ids, embeddings, 2), rtol=0, atol=1e-5)


@needs_zett
@pytest.mark.skipif(
    not (Path(os.environ.get("SPEAK_XLMR", "nowhere")) / CONFIG).is_file(),
    reason="SPEAK_XLMR names no folder with XLM-R (config.json, model.safetensors, tokenizer.json)",
)
def test_the_real_checkpoint_predicts_xlmrs_own_embeddings() -> None:
    """Of pieces: nearer to the piece's own row than to another piece's."""
    from speak_neuro.rtok.pretrained.embedder import HypernetEmbedder
    from speak_neuro.rtok.pretrained.encoder import load_encoder

    encoder = load_encoder(os.environ["SPEAK_XLMR"])
    embedder = HypernetEmbedder(ZettHypernet.load(os.environ["SPEAK_ZETT"]), encoder)
    numbers = torch.randperm(40_000, generator=torch.Generator().manual_seed(0))[:200] + 10
    predicted = embedder.embed([encoder.pieces.pieces[number] for number in numbers], "en")
    own, other = encoder.embedding[numbers], encoder.embedding[numbers.roll(1)]
    near, far = (functional.cosine_similarity(predicted, rows).mean() for rows in (own, other))
    assert near > far + 0.2
