"""
How numba compiles kernels: in less than half the time that it would take by itself, to machine code that is as fast.

By itself it would put each part of a kernel through all of LLVM, down to machine code that nobody calls, and once more
within what calls it; put the whole through LLVM twice, to find counts of references, of which kernels have none;
compile a part anew for each number that a caller states; look for what kernels don't have (closures, array
expressions, `with`); load all that it can compile, linear algebra and with it scipy among it; analyse the code anew
after each pass; and collect garbage while nothing is thrown away. Knows nothing of what kernels compute.
"""

import gc
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from numba import njit, types
from numba.core import typing
from numba.core.codegen import JITCodeLibrary
from numba.core.compiler import CompilerBase
from numba.core.compiler_machinery import PassManager
from numba.core.cpu import CPUContext
from numba.core.runtime import rtsys
from numba.core.typed_passes import (
    IRLegalization,
    NativeLowering,
    NoPythonBackend,
    NopythonTypeInference,
    PreLowerStripPhis,
)
from numba.core.untyped_passes import FixupArgs, GenericRewrites, IRProcessing, ReconstructSSA, TranslateByteCode


def _load_types(context: Any) -> None:
    """The typing of what kernels use beside what is built in."""
    from numba.core.typing import mathdecl

    context.install_registry(mathdecl.registry)


def _load_code(context: Any) -> None:
    """The lowering of what kernels use."""
    rtsys.initialize(context)
    from numba.core import optional  # noqa: F401
    from numba.cpython import builtins, iterators, mathimpl, numbers, rangeobj, slicing, tupleobj  # noqa: F401
    from numba.misc import literal  # noqa: F401
    from numba.np import arrayobj  # noqa: F401

    # what is loaded already too: numba has the code of intrinsics in whichever was the first
    for registry in dict.fromkeys([mathimpl.registry, *context._registries]):
        context.install_registry(registry)


@contextmanager
def _loading_little() -> Iterator[None]:
    """While it lasts numba loads what kernels use alone; what other functions need is loaded once they are compiled.
    Nobody else compiles meanwhile: numba has a lock, and who is here holds it."""
    all_types, all_code = typing.Context.load_additional_registries, CPUContext.load_additional_registries
    typing.Context.load_additional_registries, CPUContext.load_additional_registries = _load_types, _load_code
    try:
        yield
    finally:
        typing.Context.load_additional_registries, CPUContext.load_additional_registries = all_types, all_code


class _Library(JITCodeLibrary):  # type: ignore[misc]
    """Optimizes what is called from Python, once, with all of its parts."""

    def _optimize_functions(self, module: Any) -> None:
        module.data_layout = self._codegen._data_layout

    def _optimize_final_module(self) -> None:
        passes, options = self._codegen._module_pass_manager()
        passes.run(self._final_module, options)


class _PartLibrary(_Library):
    """LLVM's code of a part and of all that it calls, to be linked into what calls it."""

    def finalize(self) -> None:
        for library in dict.fromkeys(self._linking_libraries):
            self._reload_init.update(library._reload_init)
            self._final_module.link_in(library._get_module_for_linking(), preserve=True)
        self._finalized = True

    def get_pointer_to_function(self, name: str) -> int:
        """0: it has no machine code."""
        return 0

    @property
    def codegen(self) -> "_PartLibrary":
        return self

    def set_env(self, name: str, env: object) -> None:
        """Of a function that Python objects reach; none of a part do."""


class Whole(CompilerBase):  # type: ignore[misc]
    """Compiles what is called from Python, by the passes that kernels need."""

    library = _Library

    def __init__(self, *args: Any, **options: Any) -> None:
        with _loading_little():
            super().__init__(*args, **options)

    def define_pipelines(self) -> list[PassManager]:
        self.state.library = self.library(self.state.targetctx.codegen(), self.state.func_id.func_qualname)
        self.state.library.enable_object_caching()
        passes = PassManager("kernel")
        passes._ENFORCING = False  # each pass leaves the code as the next one wants it
        for each in (
            TranslateByteCode,
            FixupArgs,
            IRProcessing,
            GenericRewrites,
            ReconstructSSA,
            NopythonTypeInference,
            PreLowerStripPhis,
            IRLegalization,
            NativeLowering,
            NoPythonBackend,
        ):
            passes.add_pass(each, each.name())
        passes.finalize()
        return [passes]

    def _compile_core(self) -> Any:
        collecting = gc.isenabled()
        gc.disable()  # a seventh of the time
        try:
            with _loading_little():
                return super()._compile_core()
        finally:
            if collecting:
                gc.enable()


class _Part(Whole):
    """Compiles what is called by compiled code only: optimized, and made machine code, with all of its caller."""

    library = _PartLibrary


PART = {"nogil": True, "no_cpython_wrapper": True, "no_cfunc_wrapper": True, "pipeline_class": _Part}
"""Options of numba for parts."""


def compiled(function: Callable[..., Any]) -> Any:
    """A part of kernels, called by compiled code only. It is compiled once for each combination of types; what a caller
    states as a number is one like any other."""
    part = njit(**PART)(function)
    template = part.get_call_template

    def of_types(args: Sequence[Any], kws: Mapping[str, Any]) -> Any:
        return template([types.unliteral(each) for each in args], kws)

    part.get_call_template = of_types
    return part
