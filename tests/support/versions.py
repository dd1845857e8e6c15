"""The versions that the tests run on."""

from importlib.metadata import PackageNotFoundError, version
from platform import python_version

PACKAGES = (
    "torch", "torchvision", "numpy", "h5py", "orjson", "av", "timm", "transformers", "tokenizers", "faiss-cpu",
    "pymilvus", "milvus-lite", "gradio", "fastapi", "starlette", "matplotlib", "hypothesis", "playwright",
)  # fmt: skip
A_LINE = 9


def version_lines() -> list[str]:
    """Of Python and what is installed."""
    found = [f"Python {python_version()}"]
    for package in PACKAGES:
        try:
            found.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            continue
    return [", ".join(found[first : first + A_LINE]) for first in range(0, len(found), A_LINE)]
