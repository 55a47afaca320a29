"""Empty stand-ins for libraries that a peer imports and its training step never uses: language models, plots, logs.

They spare the installation, and the memory that would count against the peer.
"""

import sys
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType


class _Names(type):
    """Any attribute of a stand-in class is again one."""

    def __getattr__(cls, name: str) -> type:
        return _stand_in(name)


def _stand_in(name: str) -> type:
    """A class, so that it can be called, subclassed, and used in an annotation."""
    if name.startswith("__"):
        raise AttributeError(name)
    return _Names(name, (_Anything,), {})


class _Anything(metaclass=_Names):
    def __init__(self, *_arguments: object, **_named: object) -> None:
        pass

    def __getattr__(self, name: str) -> type:
        return _stand_in(name)

    def __call__(self, *_arguments: object, **_named: object) -> "_Anything":
        return self


class _Module(ModuleType):
    def __getattr__(self, name: str) -> type:
        return _stand_in(name)


class _Finder(MetaPathFinder, Loader):
    def __init__(self, libraries: Sequence[str]) -> None:
        self._libraries = frozenset(libraries)

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """A package for each library, and for whatever lies in it."""
        if fullname.partition(".")[0] in self._libraries:
            return ModuleSpec(fullname, self, is_package=True)
        return None

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        """An empty module that has every name."""
        return _Module(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        """Nothing to run."""


def stand_in_for(*libraries: str) -> None:
    """From now on, importing one of `libraries` or anything in it gives an empty stand-in, installed or not."""
    sys.meta_path.insert(0, _Finder(libraries))
