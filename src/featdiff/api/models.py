"""Models that are to be compared, as a lineup."""

from collections.abc import Mapping
from pathlib import Path

from featdiff.models.loading import Lineup, PreTrainedModel
from featdiff.models.tokenizer import Tokenizer, load_tokenizer


def load_models(
    models: Mapping[str, str | Path | PreTrainedModel],
    *,
    layer: int | None = None,
    dtype: str = "float32",
    device: str = "cpu",
    tokenizer: Tokenizer | None = None,
    trust_remote_code: bool = False,
) -> Lineup:
    """Load models that are to be compared, each up to the hook point.

    Arguments:
        models: folders or hub ids by name, the base first; or modules of transformers that are loaded already, in
            evaluation mode.
        layer: number of blocks below the hook point, from 1; None takes the middle of the base, floor(L / 2).
        dtype: float32, bfloat16 or float16; the residual streams are float32 in any case. Modules keep their own.
        device: where the models run, such as cpu or cuda. Modules stay where they are.
        tokenizer: that of modules; None loads it from where the first of them came from.
        trust_remote_code: whether code in a model's folder or repository may run.

    Returns a `Lineup`: `models.residuals(input_ids)` is [batch positions models d_model], `models["rl"]` is one model
    for `evaluate` and `edited`, which load it whole, and `models.tokenizer` is the tokenizer that all share.

    Raises ValueError where no model is given, for a missing or broken model, for models that differ in tokenizer, width
    or vocabulary, for a layer that a model does not have, and for folders mixed with modules.

    >>> models = load_models({"base": "Qwen/Qwen2.5-0.5B", "rl": "runs/grpo/checkpoint-5"})
    >>> models.residuals(torch.tensor([[1, 2, 3]])).shape
    torch.Size([1, 3, 2, 896])
    """
    if not models:
        raise ValueError("no models are given; name at least one, the base first")
    paths = {name: str(model) for name, model in models.items() if isinstance(model, str | Path)}
    modules = {name: model for name, model in models.items() if not isinstance(model, str | Path)}
    if paths and modules:
        raise ValueError(f"{', '.join(paths)} are given as folders, {', '.join(modules)} as modules; give one or other")
    if paths:
        return Lineup.load(paths, layer=layer, dtype=dtype, device=device, trust_remote_code=trust_remote_code)
    if tokenizer is None:
        origin = next(iter(modules.values())).name_or_path
        if not origin:
            raise ValueError("the models do not say where they came from; give their tokenizer")
        tokenizer = load_tokenizer(origin, trust_remote_code=trust_remote_code)
    return Lineup.around(modules, tokenizer, layer=layer)
