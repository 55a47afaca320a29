"""Output of lm-eval and datasets kept off the terminal, and their errors in one line."""

import logging
from collections.abc import Generator, Iterable
from contextlib import contextmanager

import datasets
import lm_eval.api.model
import lm_eval.api.task
import lm_eval.models.huggingface
import yaml
from datasets.exceptions import DatasetsError
from jinja2 import TemplateError
from tqdm import tqdm


@contextmanager
def quiet_lm_eval() -> Generator[None]:
    """Keep lm-eval's log lines and the bars of lm-eval and datasets off the terminal."""
    logger = logging.getLogger("lm_eval")
    drawing = [vars(module) for module in (lm_eval.api.task, lm_eval.api.model, lm_eval.models.huggingface)]
    level, bars = logger.level, not datasets.are_progress_bars_disabled()
    logger.setLevel(logging.ERROR)
    datasets.disable_progress_bars()
    for names in drawing:
        names["tqdm"] = _no_bar
    try:
        yield
    finally:
        logger.setLevel(level)
        for names in drawing:
            names["tqdm"] = tqdm
        if bars:
            datasets.enable_progress_bars()


@contextmanager
def reading(name: str) -> Generator[None]:
    """Turn what lm-eval and datasets throw at missing or malformed tasks and data into one line."""
    try:
        yield
    except yaml.YAMLError as error:
        raise ValueError(f"{name}: its task file is not valid YAML: {line(error)}") from error
    except TemplateError as error:
        raise ValueError(f"{name}: a template does not fit its data: {line(error)}; check the column names") from error
    except KeyError as error:
        raise ValueError(f"{name}: its data lack {line(error)}; check the split and column names") from error
    except IndexError as error:
        raise ValueError(f"{name}: its data are empty, or an answer's number is beyond its choices") from error
    except (OSError, DatasetsError) as error:
        raise ValueError(f"{name}: its data cannot be read: {line(error)}") from error


def line(error: BaseException) -> str:
    """The first cause, in one line."""
    while error.__cause__ is not None:
        error = error.__cause__
    return " ".join(str(error).split())[:200]


def _no_bar(iterable: Iterable[object] | None = None, **_: object) -> Iterable[object]:
    """A progress bar that is never drawn."""
    return tqdm(iterable, disable=True)
