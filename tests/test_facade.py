"""The public names, and the method as a notebook calls it; the same numbers as the stages of a study."""

import ast
import json
import subprocess
import sys
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

import pytest
import torch
from matplotlib.patches import Rectangle
from tiny_study import TASKS
from transformers import AutoModelForCausalLM, PreTrainedModel

import featdiff as fd
from featdiff.run.held_out import held_out_corpus
from featdiff.run.plan import Plan

BASE, SFT, RL = "base", "sft", "rl"


@dataclass(frozen=True)
class Notebook:
    """What the first cells of a notebook hold."""

    texts: list[str]
    tasks: str
    models: fd.Lineup
    tokens: fd.Corpus
    held_out: fd.Corpus
    crosscoder: fd.Crosscoder
    outcomes: fd.Evaluation


@pytest.fixture(scope="module")
def notebook(study_file: Path) -> Notebook:
    folder = study_file.parent
    texts = (folder / "prose.txt").read_text().splitlines()
    models = fd.load_models({name: folder / name for name in (BASE, SFT, RL)}, layer=None, device="cpu")
    tokens = fd.tokenize(texts[:500], models.tokenizer, context=64)
    held_out = fd.tokenize(texts[500:], models.tokenizer, context=64)
    crosscoder = fd.train_crosscoder(
        models, tokens, features=64, sparsity=fd.BatchTopK(k=12), batch_size=256, lr=1e-2, epochs=2, held_out=held_out
    )
    outcomes = fd.evaluate(models, list(TASKS), task_folder=str(folder / "tasks"))
    return Notebook(texts, str(folder / "tasks"), models, tokens, held_out, crosscoder, outcomes)


def test_training_leaves_its_history_and_what_is_alive(notebook: Notebook) -> None:
    crosscoder, history = notebook.crosscoder, notebook.crosscoder.history
    assert crosscoder.models == (BASE, SFT, RL)
    assert [record["step"] for record in history] == list(range(1, len(history) + 1))
    assert history[-1]["variance_explained"] > history[0]["variance_explained"]
    assert crosscoder.density is not None and crosscoder.density.shape == (64,)
    alive = fd.Attribution.of(crosscoder).alive
    assert torch.equal(alive, crosscoder.density >= 1e-5)


def test_steps_of_training_are_those_that_are_asked_for(notebook: Notebook, tmp_path: Path) -> None:
    seen = list[float]()

    def train(steps: int, folder: Path | None) -> fd.Crosscoder:
        return fd.train_crosscoder(
            notebook.models,
            notebook.tokens,
            features=32,
            sparsity=fd.BatchTopK(k=4),
            batch_size=512,
            steps=steps,
            log_every=10,
            folder=folder,
            progress=lambda record: seen.append(record["step"]),
        )

    made = train(25, tmp_path)
    assert [record["step"] for record in made.history] == seen == [1, 10, 20, 25]
    assert made.history[-1]["lr"] == pytest.approx(1e-4 / (0.2 * 25))  # the decay ends with the last of the steps
    read = fd.Crosscoder.load(tmp_path / "crosscoder")
    assert torch.equal(read.W_dec, made.W_dec)
    assert read.density is not None and made.density is not None and torch.equal(read.density, made.density)


def test_scores_are_drawn_and_cut(notebook: Notebook) -> None:
    mas = fd.Attribution.of(notebook.crosscoder)
    axes = mas.hist(RL, cuts=(0.5,))
    heights = [int(bar.get_height()) for bar in axes.patches if isinstance(bar, Rectangle)]
    assert sum(heights) == int(mas.alive.sum())
    assert [text.get_text() for text in axes.texts] == [f"{len(mas.tail(RL, 0.5))} above 0.5"]
    scores = mas[RL][mas.tail(RL, 0.35)]
    assert (scores > 0.35).all() and (scores.diff() <= 0).all()
    assert len(scores) == mas.tails(RL, (0.35,))["0.35"]


def test_critical_items_are_those_that_only_the_tuned_model_gets_right(notebook: Notebook) -> None:
    outcomes = notebook.outcomes
    critical, mirror = outcomes.critical(BASE, RL), outcomes.mirror(BASE, RL)
    assert list(critical) == list(TASKS)
    for task in TASKS:
        base, rl = outcomes.outcomes[task][BASE], outcomes.outcomes[task][RL]
        assert torch.equal(critical[task].indices, (~base & rl).nonzero().flatten())
        assert torch.equal(mirror[task].indices, (base & ~rl).nonzero().flatten())
        accuracy = outcomes.accuracy[task][RL]
        assert accuracy.value == pytest.approx(float(rl.double().mean()))
        assert accuracy.low < accuracy.value < accuracy.high
    assert len(critical) == sum(len(critical[task].indices) for task in TASKS)
    assert len(critical.of("animals")) == len(critical["animals"].indices)
    with pytest.raises(ValueError, match="none of chess"):
        critical["chess"]


def test_one_model_is_evaluated_alone(notebook: Notebook) -> None:
    alone = fd.evaluate(notebook.models[RL], ["colours"], task_folder=notebook.tasks, limit=5)
    assert alone.results["colours"][RL].samples == notebook.outcomes.results["colours"][RL].samples[:5]
    with pytest.raises(ValueError, match="none of base"):
        alone.critical(BASE, RL)


def test_selection_and_intervention(notebook: Notebook) -> None:
    crosscoder, models, critical = notebook.crosscoder, notebook.models, notebook.outcomes.critical(BASE, RL)
    chosen = fd.select(crosscoder, models, critical.of("colours", "animals"), threshold=0.1)
    assert len(chosen) > 0 and list(chosen) == chosen.chosen.tolist() and chosen[0] == chosen.chosen[0]
    effect = fd.intervene(models, crosscoder, RL, zero=chosen, items=critical, controls=5, bootstrap=100)
    assert [one.task for one in effect] == list(TASKS)
    sets = effect["colours"].sets
    assert sets["critical"].before == 1.0 and sets["held_out"].n == len(chosen.held_out["colours"])
    assert effect["numbers"].sets["held_out"].n == len(critical["numbers"].indices)  # took no part in the selection
    assert effect.verdict == effect.pooled.verdict == "underpowered"
    axes = effect.plot()
    assert len(axes.get_yticks()) == len(TASKS)
    again = fd.intervene(models, crosscoder, RL, amplify=(chosen, 3.0), items=critical, controls=5, bootstrap=100)
    same = fd.intervene(
        models, crosscoder, RL, set=dict.fromkeys(chosen, 3.0), items=critical, controls=5, bootstrap=100
    )
    assert again["numbers"].headline.change == same["numbers"].headline.change
    assert again["colours"].expected == "increase"


def test_an_edited_model_scores_and_generates(notebook: Notebook) -> None:
    models, crosscoder = notebook.models, notebook.crosscoder
    ids = notebook.held_out.input_ids[:1, :12].long()
    strongest = crosscoder.encode(models.residuals(ids)[0])[1:].mean(dim=0).argsort(descending=True)[:8]
    whole = models[RL].whole()
    plain = whole.forward(ids).logits
    with fd.edited(models[RL], crosscoder, zero=strongest) as model:
        zeroed = model(ids).logits
        written = model.generate(ids, max_new_tokens=3, do_sample=False)  # pyright: ignore[reportCallIssue]: as a Tensor
        assert written.shape[1] > 12
    with fd.edited(models[RL], crosscoder, set={int(feature): 0.0 for feature in strongest}) as model:
        assert torch.equal(model(ids).logits, zeroed)
    with fd.edited(models[RL], crosscoder, zero=[]) as model:
        assert torch.equal(model(ids).logits, plain)
    assert not torch.allclose(zeroed, plain, atol=1e-3)
    with fd.edited(models[RL], crosscoder, zero=strongest, positions="generated", prompt=12) as model:
        assert torch.equal(model(ids).logits, plain)


def test_models_may_be_given_as_modules(notebook: Notebook, study_file: Path) -> None:
    def module(name: str) -> PreTrainedModel:
        return AutoModelForCausalLM.from_pretrained(study_file.parent / name).eval()

    models = fd.load_models({name: module(name) for name in (BASE, RL)})
    assert (models.names, models.layers) == ((BASE, RL), notebook.models.layers)
    ids = notebook.held_out.input_ids[:2].long()
    assert torch.allclose(models.residuals(ids), notebook.models.of((BASE, RL)).residuals(ids))
    assert models.tokenizer.get_vocab() == notebook.models.tokenizer.get_vocab()
    assert models[RL].whole() is models.models[1]
    with pytest.raises(ValueError, match="training mode"):
        fd.load_models({BASE: module(BASE).train()})


@pytest.mark.parametrize(
    ("problem", "call"),
    [
        ("no models are given", lambda n: fd.load_models({})),
        ("as folders", lambda n: fd.load_models({"a": "x", "b": n.models.models[0]})),
        ("not gpt", lambda n: n.models["gpt"]),
        ("one row", lambda n: fd.train_crosscoder(n.models, n.tokens.select(torch.tensor([0])), features=4)),
        ("take at least 1", lambda n: fd.train_crosscoder(n.models, n.tokens, features=4, steps=0)),
        ("lr = -1", lambda n: fd.train_crosscoder(n.models, n.tokens, features=4, lr=-1.0)),
        ("name at least one", lambda n: fd.evaluate(n.models, [])),
        ("each of them once", lambda n: fd.evaluate(n.models, ["colours", "colours"])),
        ("unknown setting treshold", lambda n: fd.select(n.crosscoder, n.models, critical(n), treshold=0.1)),
        ("one of zero, set and amplify", lambda n: intervene(n, zero=[1], amplify=([1], 3.0))),
        ("one of zero, set and amplify", lambda n: intervene(n)),
        ("nothing to edit", lambda n: intervene(n, zero=[])),
        ("64 features", lambda n: intervene(n, zero=[64])),
        ("several values", lambda n: intervene(n, set={1: 2.0, 2: 3.0})),
        ("unknown setting doze", lambda n: intervene(n, zero=[1], doze=1)),
        ("needs prompt", lambda n: fd.edited(n.models[RL], n.crosscoder, positions="prompt").__enter__()),
        ("64, counted|has 64", lambda n: fd.edited(n.models[RL], n.crosscoder, zero=[99]).__enter__()),
        ("64 features", lambda n: fd.top_contexts(n.crosscoder, n.models, 64, n.held_out)),
    ],
)
def test_mistakes_are_said_in_one_line(notebook: Notebook, problem: str, call: object) -> None:
    assert callable(call)
    with pytest.raises(ValueError, match=problem) as error:
        call(notebook)
    assert "\n" not in str(error.value)


def critical(notebook: Notebook) -> fd.Items:
    return notebook.outcomes.critical(BASE, RL)


def intervene(notebook: Notebook, **given: object) -> object:
    return fd.intervene(notebook.models, notebook.crosscoder, RL, items=critical(notebook), controls=2, **given)  # pyright: ignore[reportArgumentType]


def test_features_are_tested_on_the_items_of_their_selection(notebook: Notebook) -> None:
    chosen = fd.select(notebook.crosscoder, notebook.models, critical(notebook), threshold=0.1)
    with pytest.raises(ValueError, match="selected on other items of colours"):
        fd.intervene(notebook.models, notebook.crosscoder, RL, zero=chosen, items=notebook.outcomes.mirror(BASE, RL))


def test_contexts_are_where_the_feature_is_strongest(notebook: Notebook) -> None:
    crosscoder, models, held_out = notebook.crosscoder, notebook.models, notebook.held_out
    mas = fd.Attribution.of(crosscoder)
    feature = int(mas.density.argmax())
    found = fd.top_contexts(crosscoder, models, feature, held_out, top=3).contexts[0]["joint"]
    rows = models.residuals(held_out.input_ids.long(), position_ids=held_out.position_ids)
    codes = crosscoder.encode(rows.flatten(0, 1)).detach()[:, feature].view(held_out.input_ids.shape)
    codes[held_out.document_start] = 0
    assert found[0].value == pytest.approx(float(codes.max()), rel=1e-4)
    assert found[0].place == int(codes.argmax())
    assert found[0].token == models.tokenizer.decode([int(held_out.input_ids.flatten()[found[0].place])])


# ------------------------------------------------------------------ the same numbers as a study


@pytest.mark.slow
def test_a_notebook_gives_the_numbers_of_a_study(tiny: Plan) -> None:
    """Quality, selection and effect, from the crosscoder of the run."""

    def read(*path: str) -> dict[str, object]:
        return json.loads(tiny.run.path(*path).read_text())

    models = fd.load_models({name: tiny.paths[name] for name in tiny.models}, layer=2)
    crosscoder = fd.Crosscoder.load(tiny.run.path("crosscoders", "joint"))
    found = fd.quality(crosscoder, models, held_out_corpus(tiny), activations=tiny.study.activations)
    wanted = read("crosscoders", "joint", "quality.json")
    assert found.variance_explained == pytest.approx(wanted["variance_explained"], rel=1e-5)
    assert found.ce_recovered == pytest.approx(wanted["ce_recovered"], rel=1e-4)
    assert found.kl_recovered == pytest.approx(wanted["kl_recovered"], rel=1e-4)
    assert (found.l0, found.dead_share) == pytest.approx((wanted["l0"], wanted["dead_share"]))

    outcomes = fd.evaluate(models, list(TASKS), task_folder=tiny.study.evaluation.task_folder)
    critical = outcomes.critical(BASE, RL)
    chosen = fd.select(crosscoder, models, critical.of("colours", "animals"))
    selection = read("selection", "selection.json")
    assert list(chosen) == selection["chosen"]
    assert chosen.without_held_out is not None
    half = selection["without_held_out"]
    assert isinstance(half, dict) and chosen.without_held_out.tolist() == half["chosen"]

    effect = fd.intervene(models, crosscoder, RL, zero=chosen, items=critical, controls=6, bootstrap=200)
    stored = read("interventions", RL, "colours.json")
    record = stored.get("record", stored)
    assert isinstance(record, dict)
    ours = json.loads(json.dumps(effect["colours"].full_record(), default=vars))
    for name in ("critical", "mirror", "all", "held_out"):
        for key in ("before", "after", "n", "interval", "change", "flips", "control", "p", "verdict"):
            assert ours["sets"][name][key] == record["sets"][name][key], (name, key)


# ------------------------------------------------------------------ the names


def test_every_public_name_is_imported_from_where_the_types_say() -> None:
    (block,) = [one for one in ast.parse(Path(fd.__file__).read_text()).body if isinstance(one, ast.If)]
    imports = [one for one in block.body if isinstance(one, ast.ImportFrom)]
    homes = {alias.asname or alias.name: (one.module or "", alias.name) for one in imports for alias in one.names}
    assert sorted(homes) == sorted(fd.__all__) == sorted(set(fd.__all__))
    for name, (module, own) in homes.items():
        there = import_module(f"featdiff.{own}") if module == "featdiff" else getattr(import_module(module), own)
        assert getattr(fd, name) is there, name
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        fd.nothing  # noqa: B018


def test_the_package_is_imported_without_torch() -> None:
    code = "import sys, featdiff; assert not {'torch', 'pydantic', 'matplotlib', 'transformers'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_every_public_function_says_what_it_takes() -> None:
    for name in fd.__all__:
        value = getattr(fd, name)
        assert value.__doc__, name
        if callable(value) and not isinstance(value, type) and value.__module__.startswith("featdiff.api"):
            arguments = value.__doc__.partition("Arguments:")[2]
            wanted = [one for one in value.__annotations__ if one != "return"]
            assert all(one in arguments for one in wanted), (name, wanted)
            assert ">>>" in value.__doc__ and "Raises ValueError" in value.__doc__, name
