import sys

import pytest
from standins import stand_in_for


def test_peers_can_import_call_subclass_and_annotate_what_is_absent(monkeypatch) -> None:
    monkeypatch.setattr(sys, "meta_path", list(sys.meta_path))
    stand_in_for("absent_plots", "absent_models")
    import absent_models  # pyright: ignore[reportMissingImports]
    import absent_plots.io as plots  # pyright: ignore[reportMissingImports]
    from absent_models.hooks import Hook  # pyright: ignore[reportMissingImports]

    class Tapped(Hook):
        pass

    def hooked(hook: Hook | None) -> list[Hook]:
        return [] if hook is None else [hook]

    plots.renderers.default = "none"
    assert plots.renderers("anything").show(width=3) is not None
    assert isinstance(Tapped(), Hook) and hooked(Tapped())
    assert absent_models.from_pretrained("name").eval() is not None


def test_other_absent_libraries_stay_absent(monkeypatch) -> None:
    monkeypatch.setattr(sys, "meta_path", list(sys.meta_path))
    stand_in_for("absent_plots")
    with pytest.raises(ModuleNotFoundError):
        import absent_plots_of_another_kind  # noqa: F401  # pyright: ignore[reportMissingImports]
