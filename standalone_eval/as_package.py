"""Makes this folder a package, whatever it is called, for those of its files that are run as scripts (PEP 366)."""

import sys
from pathlib import Path
from types import ModuleType

NAME = "standalone_eval"
sys.modules[NAME] = ModuleType(NAME)
sys.modules[NAME].__path__ = [str(Path(__file__).parent)]
