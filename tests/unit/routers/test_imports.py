"""What importing the routers costs."""

from __future__ import annotations

import subprocess
import sys

HEAVY = ("torch", "transformers", "sentence_transformers", "onnxruntime", "onnx", "tokenizers", "faiss", "sklearn", "scipy")


def test_no_heavy_library_is_imported_with_the_routers() -> None:
    """Every module of the package is imported in a fresh process."""
    program = (
        "import importlib, pkgutil, sys, routers\n"
        "for module in pkgutil.iter_modules(routers.__path__): importlib.import_module(f'routers.{module.name}')\n"
        f"print(*[name for name in {HEAVY!r} if name in sys.modules])"
    )
    printed = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True).stdout

    assert printed.split() == []
