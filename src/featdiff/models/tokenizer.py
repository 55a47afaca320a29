"""The tokenizer that all models of a lineup must share."""

import json
from pathlib import Path

from transformers import AutoTokenizer, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from featdiff.models.logging import quiet_transformers
from featdiff.models.paths import identity, location, one_line, refuse_absent

Tokenizer = PreTrainedTokenizerBase

TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt", "spiece.model")
PROBE = "Naïve DON'T don't 3.14 12345\n\n\tdef f(x):  return x ** 2  # 日本語 Ünïcödé 😀 <tag> </tag> "


def load_tokenizer(path: str, *, trust_remote_code: bool = False) -> Tokenizer:
    """Load the tokenizer of a model folder or hub id. Raises ValueError when there is none."""
    refuse_absent(path)
    folder = Path(path).expanduser()
    if folder.is_dir() and not any((folder / name).is_file() for name in TOKENIZER_FILES):
        # transformers makes an empty tokenizer of the model's type where the files are absent, without a word.
        raise ValueError(f"{path} holds no tokenizer (tokenizer.json); save the tokenizer with the model")
    with one_line(f"cannot load the tokenizer of {path}"), quiet_transformers():
        return AutoTokenizer.from_pretrained(location(path), trust_remote_code=trust_remote_code)


def token_ids(tokenizer: Tokenizer, text: str, *, special: bool = True) -> list[int]:
    """Tokenize a text, with the special tokens that the tokenizer puts around every text, or without."""
    ids = tokenizer(text, add_special_tokens=special)["input_ids"]
    assert isinstance(ids, list)
    return ids


def special_tokens(tokenizer: Tokenizer) -> dict[int, str]:
    """Text of every special token, by its id."""
    return {index: token.content for index, token in tokenizer.added_tokens_decoder.items()}


def common_tokenizer(paths: dict[str, str], trust_remote_code: bool) -> Tokenizer:
    """Load the one tokenizer of the models at `paths`. Raises ValueError when they read text into different tokens."""
    places = {identity(path): path for path in reversed(paths.values())}
    by_place = {place: load_tokenizer(path, trust_remote_code=trust_remote_code) for place, path in places.items()}
    (base, base_path), *others = paths.items()
    common = by_place[identity(base_path)]
    for name, path in others:
        if differing := _differing(common, by_place[identity(path)]):
            raise ValueError(
                f"the tokenizers of {base!r} and {name!r} differ in their {differing}; "
                "all models of a lineup must read the same tokens"
            )
    return common


def _differing(one: Tokenizer, other: Tokenizer) -> str | None:
    """What differs between two tokenizers, or None; files that say the same in another form are the same."""
    if one is other:
        return None
    if one.get_vocab() != other.get_vocab():
        return "vocabulary"
    if special_tokens(one) != special_tokens(other):
        return "special tokens"
    if _merges(one) != _merges(other):
        return "merges"
    return None if one(PROBE)["input_ids"] == other(PROBE)["input_ids"] else "way of splitting text"


def _merges(tokenizer: Tokenizer) -> object:
    if not isinstance(tokenizer, PreTrainedTokenizerFast):
        return None
    return json.loads(tokenizer.backend_tokenizer.to_str())["model"].get("merges")
