"""Side effects of a run's edits on held-out text, beside those of features that are as active there."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from featdiff.files import Record
from featdiff.intervention.activity import activity_on, order_of
from featdiff.intervention.controls import activity_matched
from featdiff.intervention.side_effects import TextShift, edited_residual, text_shift
from featdiff.run.held_out import held_out_corpus
from featdiff.run.intervention_context import Bench, Measured, PlannedEdit, edit_of
from featdiff.run.splice import packed_parts

NOTHING = TextShift(0.0, 0.0, 0.0, 0)


def side_effects(bench: Bench, tests: list[PlannedEdit], chosen: Int[Tensor, " n"]) -> list[Record]:
    """KL and cross-entropy on neutral text under every edit of one model, at all its tokens.

    Levels that are measured are measured on this text. Controls are features matched by activity on it, edited in the
    same way.
    """
    plan, settings = bench.plan, bench.plan.study.intervention
    if not settings.neutral_tokens or not tests:
        return []
    order, parts, tokens = order_of(bench.lineup, bench.crosscoder), [], 0
    for part in packed_parts(held_out_corpus(plan), plan.study.activations.batch_size):
        if tokens >= settings.neutral_tokens:
            break
        parts.append(part)
        tokens += part.input_ids.numel()
    streams = [bench.lineup.residuals(part.input_ids, None, part.position_ids) for part in parts]
    found = _measured(bench, tests, [stream[:, :, order] for stream in streams])
    own, seed = found.own, plan.study.seed
    drawn = activity_matched(
        chosen, own.density, own.contribution, bench.attribution.alive, settings.side_controls, seed
    ).features
    edits = [[edit_of(bench, test, features, found) for features in (chosen, *drawn)] for test in tests]
    sums = [[NOTHING for _ in row] for row in edits]
    index = bench.lineup.names.index(bench.model)
    for part, stream in zip(parts, streams, strict=True):
        everywhere = torch.ones_like(part.input_ids, dtype=torch.bool).to(stream.device)
        labels = part.labels.to(stream.device)

        def logits(residual: Tensor, ids: Tensor = part.input_ids, places: Tensor | None = part.position_ids) -> Tensor:
            device = residual.device
            return bench.upper(residual, ids.to(device), None, None if places is None else places.to(device))

        plain = logits(stream[:, :, index])
        for row, edited in enumerate(edits):
            for column, edit in enumerate(edited):
                moved = edited_residual(
                    stream[:, :, order], bench.crosscoder, bench.model, edit, everywhere, settings.reading
                )
                sums[row][column] += text_shift(plain, logits(moved), labels)
    return [
        {
            "model": bench.model,
            "edit": test.value.name,
            "features": len(chosen),
            **row[0].to_json(),
            "control": {"draws": len(row) - 1, "kl": [one.to_json()["kl"] for one in row[1:]]},
        }
        for test, row in zip(tests, sums, strict=True)
    ]


def _measured(
    bench: Bench, tests: list[PlannedEdit], streams: list[Float[Tensor, "batch positions models d_model"]]
) -> Measured:
    reading = bench.plan.study.intervention.reading
    quantiles = sorted({test.value.by for test in tests if test.value.kind == "quantile"})
    own, given = (
        activity_on(
            (stream.flatten(0, 1) for stream in streams),
            bench.crosscoder,
            bench.model,
            reading=reading,
            source=source,
            quantiles=quantiles,
        )
        for source in (None, bench.other)
    )
    return Measured(own, given)
