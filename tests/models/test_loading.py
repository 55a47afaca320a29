"""Tests of truncated loading, the tap and the lineup, on tiny random models of five architectures."""

import json
import logging
from pathlib import Path
from unittest.mock import MagicMock

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer as Backend
from tokenizers import models as backends
from tokenizers import pre_tokenizers
from transformers import (
    AutoModelForCausalLM,
    GPT2Config,
    GPTNeoXConfig,
    LlamaConfig,
    PreTrainedConfig,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen3Config,
)
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from featdiff.api.models import load_models
from featdiff.models.loading import (
    Lineup,
    attention_of,
    depth,
    load_model,
    load_tokenizer,
    load_truncated,
)
from featdiff.models.residual import blocks, residual

DEPTH, WIDTH, VOCABULARY = 4, 32, 48
SHAPE = {
    "vocab_size": VOCABULARY,
    "hidden_size": WIDTH,
    "intermediate_size": 40,
    "num_hidden_layers": DEPTH,
    "num_attention_heads": 4,
    "max_position_embeddings": 64,
    "bos_token_id": 0,
    "eos_token_id": 1,
}
GPT2_SHAPE = {"vocab_size": VOCABULARY, "n_embd": WIDTH, "n_layer": DEPTH, "n_head": 4, "n_positions": 64}
CONFIGS: dict[str, PreTrainedConfig] = {
    "qwen3": Qwen3Config.from_dict(SHAPE | {"num_key_value_heads": 2, "head_dim": 8}),
    "qwen2": Qwen2Config.from_dict(SHAPE | {"num_key_value_heads": 2, "tie_word_embeddings": True}),
    "llama": LlamaConfig.from_dict(SHAPE | {"num_key_value_heads": 2}),
    "gpt2": GPT2Config.from_dict(GPT2_SHAPE | {"bos_token_id": 0, "eos_token_id": 1}),
    "gpt_neox": GPTNeoXConfig.from_dict(SHAPE),
}


def save_tokenizer(folder: Path, swapped: bool = False) -> None:
    letters = [chr(ord("a") + index) for index in range(26)]
    if swapped:
        letters[0], letters[1] = letters[1], letters[0]
    vocabulary = {token: index for index, token in enumerate(["<s>", "</s>", "<unk>", *letters])}
    backend = Backend(backends.WordLevel(vocabulary, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    PreTrainedTokenizerFast(tokenizer_object=backend, bos_token="<s>", eos_token="</s>").save_pretrained(folder)


def save_model(folder: Path, config: PreTrainedConfig, seed: int = 0) -> str:
    torch.manual_seed(seed)
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    save_tokenizer(folder)
    return str(folder)


@pytest.fixture(scope="module", params=CONFIGS)
def path(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> str:
    return save_model(tmp_path_factory.mktemp(request.param), CONFIGS[request.param])


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> str:
    return save_model(tmp_path_factory.mktemp("llama"), CONFIGS["llama"])


def load(paths: dict[str, str], layer: int | None = 2) -> Lineup:
    return Lineup.load(paths, layer=layer, dtype="float32", device="cpu", trust_remote_code=False)


def tokens(rows: int = 2, positions: int = 11) -> torch.Tensor:
    return torch.randint(0, VOCABULARY, (rows, positions), generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("layers", [1, 2, 3])
def test_the_truncated_model_gives_the_full_models_residual_stream_to_the_bit(path: str, layers: int) -> None:
    full = AutoModelForCausalLM.from_pretrained(path).eval()
    with torch.no_grad():
        wanted = full(tokens(), output_hidden_states=True).hidden_states[layers]
    assert torch.equal(residual(load_truncated(path, layers), layers, tokens()), wanted)
    assert torch.equal(residual(load_model(path), layers, tokens()), wanted)


def test_after_the_last_block_the_residual_stream_is_that_before_the_final_norm(path: str) -> None:
    model = load_model(path)
    norms = [module for name, module in model.base_model.named_children() if "norm" in name or name == "ln_f"]
    wanted = model(tokens(), output_hidden_states=True).hidden_states[DEPTH]
    ours = residual(load_truncated(path, DEPTH), DEPTH, tokens())
    assert torch.equal(norms[0](ours), wanted)
    assert not torch.allclose(ours, wanted)


def test_only_blocks_below_the_tap_and_no_head_are_in_a_truncated_model(path: str) -> None:
    model = load_truncated(path, 2)
    assert len(blocks(model)) == model.config.num_hidden_layers == 2
    assert len(blocks(load_model(path))) == DEPTH
    assert not any("lm_head" in name or "embed_out" in name for name, _ in model.named_parameters())
    assert not any(parameter.requires_grad for parameter in model.parameters())


def test_a_model_whose_upper_blocks_and_head_are_gone_from_the_disk_loads_truncated(path: str, tmp_path: Path) -> None:
    weights = load_file(Path(path) / "model.safetensors")
    upper = tuple(f".{index}." for index in range(2, DEPTH))
    kept = {
        name: tensor
        for name, tensor in weights.items()
        if not any(part in name for part in upper) and not name.startswith(("lm_head", "embed_out"))
    }
    assert len(kept) < len(weights)
    for file in Path(path).glob("*.json"):
        (tmp_path / file.name).write_bytes(file.read_bytes())
    save_file(kept, tmp_path / "model.safetensors", metadata={"format": "pt"})
    assert torch.equal(
        residual(load_truncated(str(tmp_path), 2), 2, tokens()), residual(load_truncated(path, 2), 2, tokens())
    )
    with pytest.raises(ValueError, match="do not match its config"):
        load_truncated(str(tmp_path), 3)


def test_blocks_above_the_tap_do_not_run_and_no_hook_stays(path: str) -> None:
    model = load_model(path)
    ran = []
    counters = [
        block.register_forward_hook(lambda *_, index=index: ran.append(index))
        for index, block in enumerate(blocks(model))
    ]
    residual(model, 2, tokens())
    assert ran == [0, 1]
    for counter in counters:
        counter.remove()
    assert not any(module._forward_hooks for module in model.modules())
    assert torch.equal(model(tokens()).logits, load_model(path)(tokens()).logits)


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_packed_documents_are_read_as_if_each_stood_alone(path: str, attention: str) -> None:
    model = load_truncated(path, 3)
    model.set_attn_implementation(attention)
    lengths = [5, 1, 7]
    position_ids = torch.cat([torch.arange(length) for length in lengths]).expand(2, -1)
    packed = residual(model, 3, tokens(2, 13), position_ids=position_ids)
    alone = [residual(model, 3, document) for document in tokens(2, 13).split(lengths, dim=1)]
    torch.testing.assert_close(packed, torch.cat(alone, dim=1), atol=1e-5, rtol=0)
    assert not torch.allclose(packed, residual(model, 3, tokens(2, 13)), atol=1e-3)


def test_padding_on_the_left_with_its_mask_changes_nothing(path: str) -> None:
    model = load_truncated(path, 2)
    padded = torch.cat((torch.zeros(2, 3, dtype=torch.long), tokens()), dim=1)
    mask = torch.tensor([0] * 3 + [1] * 11).expand(2, -1)
    positions = (mask.cumsum(dim=1) - 1).clamp(min=0)
    ours = residual(model, 2, padded, attention_mask=mask, position_ids=positions)
    torch.testing.assert_close(ours[:, 3:], residual(model, 2, tokens()), atol=1e-5, rtol=0)


def test_loading_says_nothing(llama: str, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        load({"base": llama, "sft": llama})
    assert capfd.readouterr() == ("", "")
    assert not caplog.records


def test_the_models_axis_holds_each_models_own_residual_stream(tmp_path: Path) -> None:
    paths = {
        name: save_model(tmp_path / name, CONFIGS["qwen3"], seed) for seed, name in enumerate(("base", "sft", "rl"))
    }
    lineup = load(paths)
    assert (lineup.names, lineup.layers, lineup.d_model) == (("base", "sft", "rl"), 2, WIDTH)
    residuals = lineup.residuals(tokens())
    for index, path in enumerate(paths.values()):
        assert torch.equal(residuals[:, :, index], residual(load_truncated(path, 2), 2, tokens()))
    assert not torch.allclose(residuals[:, :, 0], residuals[:, :, 1])


def test_a_folder_under_two_names_is_loaded_and_run_once(llama: str) -> None:
    lineup = load({"base": llama, "sft": llama, "sft-5": f"{llama}/../{Path(llama).name}"})
    assert len({id(model) for model in lineup.models}) == 1
    runs = []
    blocks(lineup.models[0])[0].register_forward_hook(lambda *_: runs.append(1))
    residuals = lineup.residuals(tokens())
    assert len(runs) == 1
    assert torch.equal(residuals[:, :, 0], residuals[:, :, 2])


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    place = tmp_path_factory.mktemp("three")
    return {name: save_model(place / name, CONFIGS["qwen3"], seed) for seed, name in enumerate(("base", "sft", "rl"))}


def test_models_that_take_turns_give_the_same_bits_one_after_the_other(three: dict[str, str]) -> None:
    paths = three | {"rl-1": three["rl"]}
    plain, turns = load(paths), Lineup.load(paths, layer=2, turns=True)
    ran: list[int] = []
    for index, model in enumerate(turns.models[:3]):
        model.register_forward_pre_hook(lambda *_, index=index: ran.append(index))
    waiting = [parameter.data_ptr() for model in turns.models for parameter in model.parameters()]
    positions = torch.cat([torch.arange(length) for length in (5, 1, 5)]).expand(6, -1)
    room = torch.empty(6, 11, 4, WIDTH)
    turns.fill(room, tokens(6), position_ids=positions, batch_size=2)
    assert ran == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    for rows in range(0, 6, 2):
        part = slice(rows, rows + 2)
        assert torch.equal(room[part], plain.residuals(tokens(6)[part], position_ids=positions[part]))
    assert torch.equal(turns.residuals(tokens()), plain.residuals(tokens()))
    assert [parameter.data_ptr() for model in turns.models for parameter in model.parameters()] == waiting


def test_of_models_that_are_held_elsewhere_only_the_form_is_read(three: dict[str, str], tmp_path: Path) -> None:
    whole = load(three)
    some = Lineup.load(three, layer=2, held=whole.names[1:])
    assert some.names == whole.names[1:] and len(some.models) == len(some.names)
    assert torch.equal(some.residuals(tokens()), whole.residuals(tokens())[:, :, 1:])
    other = save_model(tmp_path, LlamaConfig.from_dict(SHAPE | {"num_key_value_heads": 2, "hidden_size": 16}))
    with pytest.raises(ValueError, match="hidden_size of 'other' is 16"):
        Lineup.load({**three, "other": other}, layer=2, held=whole.names[1:])


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize(("turns", "devices"), [(True, {}), (False, {"sft": "cpu"}), (False, {"base": "cpu"})])
def test_wherever_the_models_are_their_streams_come_together_on_one_device(
    three: dict[str, str], turns: bool, devices: dict[str, str]
) -> None:
    lineup = Lineup.load(three, layer=2, device="cuda", devices=devices, turns=turns)
    residuals = lineup.residuals(tokens())
    assert residuals.device.type == "cuda"
    assert [model.device.type for model in lineup.models] == [
        "cpu" if turns else devices.get(name, "cuda") for name in three
    ]
    torch.testing.assert_close(residuals.cpu(), load(three).residuals(tokens()), atol=1e-3, rtol=1e-3)


def test_weights_in_the_precision_of_their_file_are_mapped_and_not_read_until_they_are_needed(tmp_path: Path) -> None:
    def own_memory() -> int:
        """Bytes of this process that no file holds."""
        lines = Path("/proc/self/status").read_text().splitlines()
        return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("RssAnon"))

    if not Path("/proc/self/status").is_file():
        pytest.skip("needs /proc")
    large = SHAPE | {"vocab_size": 50_000, "hidden_size": 256, "num_hidden_layers": 1}
    path = save_model(tmp_path, LlamaConfig.from_dict(large))
    load_truncated(path, 1)  # so that what is imported on the way is there
    before = own_memory()
    model = load_truncated(path, 1)
    assert sum(parameter.nbytes for parameter in model.parameters()) > 48 * 2**20
    assert own_memory() - before < 25 * 2**20


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_the_attention_is_the_one_that_was_asked_for(llama: str, attention: str) -> None:
    lineup = Lineup.load({"base": llama}, layer=2, attention=attention)
    assert lineup.models[0].config._attn_implementation == attention
    torch.testing.assert_close(lineup.residuals(tokens()), load({"base": llama}).residuals(tokens()))


def test_flash_attention_is_refused_where_it_cannot_run_and_never_chosen(llama: str) -> None:
    assert load({"base": llama}).models[0].config._attn_implementation == "sdpa"
    with pytest.raises(
        ValueError, match=r"^lineup\.attention = flash_attention_2 needs .*, not cpu and float32; set it"
    ):
        Lineup.load({"base": llama}, layer=2, attention="flash_attention_2")
    with pytest.raises(ValueError, match=r"^cannot run the model .* with lineup\.attention = warp"):
        Lineup.load({"base": llama}, layer=2, attention="warp")


@pytest.mark.parametrize(
    ("device", "dtype", "installed", "chosen"),
    [
        ("cuda:1", "bfloat16", True, "flash_attention_2"),
        ("cuda", "float32", True, None),
        ("cuda", "bfloat16", False, None),
        ("cpu", "bfloat16", True, None),
    ],
)
def test_auto_takes_flash_attention_on_cuda_in_half_precision_if_it_is_installed(
    monkeypatch: pytest.MonkeyPatch, device: str, dtype: str, installed: bool, chosen: str | None
) -> None:
    monkeypatch.setattr("featdiff.models.loading.is_flash_attn_2_available", lambda: installed)
    assert attention_of("auto", dtype, device) == chosen


def test_flash_attention_is_told_the_bounds_of_packed_documents(llama: str, monkeypatch: pytest.MonkeyPatch) -> None:
    shapes: list[torch.Size] = []

    def flash(
        module: torch.nn.Module,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        attention_mask: torch.Tensor | None,
        position_ids: torch.Tensor,
        **options: object,
    ) -> tuple[torch.Tensor, None]:
        """What the package does, by its rule: documents are told apart by position ids, in one sequence only."""
        assert attention_mask is None
        shapes.append(query.shape)
        key, value = (part.repeat_interleave(query.shape[1] // part.shape[1], dim=1) for part in (key, value))
        document = (position_ids == 0).cumsum(dim=-1) if len(query) == 1 else torch.zeros_like(position_ids)
        index = torch.arange(query.shape[2])
        sees = (document[:, :, None] == document[:, None, :]) & (index[None, :] <= index[:, None])
        mixed = torch.nn.functional.scaled_dot_product_attention(query, key, value, attn_mask=sees[:, None])
        return mixed.transpose(1, 2), None

    model = load_truncated(llama, 3)
    positions = torch.stack([torch.cat([torch.arange(length) for length in row]) for row in ([5, 1, 7], [2, 10, 1])])
    wanted = residual(model, 3, tokens(2, 13), position_ids=positions)
    monkeypatch.setitem(ALL_ATTENTION_FUNCTIONS, "flash_attention_2", flash)
    model.config._attn_implementation = "flash_attention_2"
    found = residual(model, 3, tokens(2, 13), position_ids=positions)
    assert {shape[:3] for shape in shapes} == {(1, 4, 26)}
    torch.testing.assert_close(found, wanted)


def test_residual_streams_are_float32_and_ready_for_autograd_whatever_the_models_precision(llama: str) -> None:
    lineup = Lineup.load({"base": llama}, layer=2, dtype="bfloat16", device="cpu", trust_remote_code=False)
    assert lineup.models[0].dtype == torch.bfloat16
    residuals = lineup.residuals(tokens())
    assert residuals.dtype == torch.float32
    (residuals * torch.ones(WIDTH, requires_grad=True)).sum().backward()


def test_the_middle_is_half_the_depth_and_at_least_the_first_block(tmp_path: Path, llama: str) -> None:
    shallow = save_model(tmp_path, LlamaConfig.from_dict(SHAPE | {"num_hidden_layers": 1}))
    assert (depth(llama), depth(shallow)) == (4, 1)
    assert [load({"base": path}, layer=None).layers for path in (llama, shallow)] == [2, 1]


def test_models_are_loaded_by_name_and_path_up_to_the_middle_of_the_base(llama: str) -> None:
    lineup = load_models({"base": llama, "rl": Path(llama)}, dtype="bfloat16")
    assert (lineup.names, lineup.layers, lineup.d_model) == (("base", "rl"), 2, WIDTH)
    assert lineup.models[0] is lineup.models[1] and lineup.models[0].dtype == torch.bfloat16
    values = load_models({"base": llama}, layer=3).residuals(tokens())
    assert torch.equal(values[:, :, 0], residual(load_model(llama), 3, tokens()))


def test_no_models_at_all_are_refused() -> None:
    with pytest.raises(ValueError, match="no models are given"):
        load_models({})


@pytest.mark.parametrize("layer", [0, 5])
def test_a_layer_that_the_model_does_not_have_is_refused_with_the_range(llama: str, layer: int) -> None:
    with pytest.raises(ValueError, match=r"lineup\.layer is \d, but base has 4 blocks; choose 1\.\.4"):
        load({"base": llama}, layer=layer)


def test_other_tokenizers_are_refused_by_name_and_resaved_ones_are_not(tmp_path: Path, llama: str) -> None:
    other = save_model(tmp_path / "other", CONFIGS["llama"])
    file = tmp_path / "other" / "tokenizer.json"
    file.write_text(json.dumps(json.loads(file.read_text()), indent=7, sort_keys=True))
    load({"base": llama, "rl": other})
    save_tokenizer(tmp_path / "other", swapped=True)
    with pytest.raises(ValueError, match="tokenizers of 'base' and 'rl' differ in their vocabulary"):
        load({"base": llama, "rl": other})


def test_a_tokenizer_that_splits_otherwise_is_refused(tmp_path: Path, llama: str) -> None:
    other = save_model(tmp_path, CONFIGS["llama"])
    content = json.loads((tmp_path / "tokenizer.json").read_text())
    content["pre_tokenizer"] = {"type": "Whitespace"}
    (tmp_path / "tokenizer.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match="differ in their way of splitting text"):
        load({"base": llama, "sft": other})


def test_an_added_special_token_is_refused(tmp_path: Path, llama: str) -> None:
    other = save_model(tmp_path, CONFIGS["llama"])
    tokenizer = load_tokenizer(other)
    tokenizer.add_special_tokens({"pad_token": "<pad>"})
    tokenizer.save_pretrained(other)
    with pytest.raises(ValueError, match="'base' and 'sft' differ in their"):
        load({"base": llama, "sft": other})


@pytest.mark.parametrize(("key", "value"), [("hidden_size", 16), ("vocab_size", 64)])
def test_models_of_another_shape_are_refused(tmp_path: Path, llama: str, key: str, value: int) -> None:
    other = save_model(tmp_path, LlamaConfig.from_dict(SHAPE | {key: value}))
    with pytest.raises(ValueError, match=f"{key} of 'rl' is {value}, of 'base'"):
        load({"base": llama, "rl": other})


@pytest.mark.parametrize("path", ["/absent/model", "./absent", "runs/x/sft", "~/absent"])
def test_an_absent_folder_is_one_clear_line(path: str) -> None:
    with pytest.raises(ValueError, match=r"^the model folder \S+ does not exist; check the path$"):
        load({"base": path})
    with pytest.raises(ValueError, match="does not exist"):
        load_tokenizer(path)


def test_a_hub_id_that_cannot_be_reached_is_one_clear_line() -> None:
    with pytest.raises(ValueError, match=r"^cannot read the model nobody/nothing: .*check the folder or hub id$"):
        load({"base": "nobody/nothing"})


@pytest.mark.parametrize("size", [0, 100, -200])
def test_a_corrupted_weights_file_is_named(tmp_path: Path, size: int) -> None:
    path = save_model(tmp_path, CONFIGS["llama"])
    file = tmp_path / "model.safetensors"
    file.write_bytes(file.read_bytes()[:size])
    with pytest.raises(ValueError, match=r"model\.safetensors is not a whole safetensors file"):
        load({"base": path})


def test_weights_of_another_shape_than_the_config_says_are_refused(tmp_path: Path) -> None:
    path = save_model(tmp_path, CONFIGS["llama"])
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"intermediate_size": 41}))
    with pytest.raises(ValueError, match=r"do not match its config\.json: \S+ \(and 5 more\)"):
        load_truncated(path, 2)


@pytest.mark.parametrize("file", ["config.json", "tokenizer.json", "model.safetensors"])
def test_a_folder_without_one_of_its_files_is_refused(tmp_path: Path, file: str) -> None:
    path = save_model(tmp_path, CONFIGS["gpt2"])
    (tmp_path / file).unlink()
    with pytest.raises(ValueError, match=rf"{file.partition('.')[0]}"):
        load({"base": path})


def test_a_config_that_is_not_json_is_one_clear_line(tmp_path: Path) -> None:
    path = save_model(tmp_path, CONFIGS["llama"])
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ValueError, match=r"cannot read the model .* not a valid JSON file"):
        load({"base": path})


def test_sequences_longer_than_the_model_reads_are_refused(llama: str) -> None:
    with pytest.raises(ValueError, match=r"65 tokens exceed the 64 positions of model 'base'; set corpus\.context"):
        load({"base": llama}).residuals(tokens(1, 65))


def test_a_device_that_is_not_there_is_refused(llama: str) -> None:
    with pytest.raises(ValueError, match="device 'warp:9' cannot be used here"):
        load_truncated(llama, 2, device="warp:9")


def test_no_tensor_above_the_tap_is_read_from_the_file(llama: str, monkeypatch: pytest.MonkeyPatch) -> None:
    read = []

    class Watched(MagicMock):
        """A safetensors file whose slices say when they are turned into tensors."""

        def get_slice(self, name: str) -> MagicMock:
            content = safe_open(f"{llama}/model.safetensors", framework="pt").get_slice(name)
            slices = MagicMock(**{"get_dtype": content.get_dtype, "get_shape": content.get_shape})
            slices.__getitem__.side_effect = lambda key: (read.append(name), content[key])[1]
            return slices

    def opened(file: str, **options: str) -> Watched:
        content = safe_open(file, framework="pt")
        return Watched(keys=content.keys, metadata=content.metadata)

    monkeypatch.setattr("transformers.modeling_utils.safe_open", opened)
    load_truncated(llama, 2)
    assert any(".layers.1." in name for name in read)
    assert not any(f".layers.{index}." in name for name in read for index in (2, 3))
    assert not any("lm_head" in name for name in read)
