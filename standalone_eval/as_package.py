"""Makes this folder a package, whatever it is called, for those of its files that are run as scripts."""

import sys
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

if find_spec("numpy") is None:
    print("error: the python here lacks numpy: pip install numpy, or activate an environment with it", file=sys.stderr)
    sys.exit(2)

NAME = "standalone_eval"
SCRIPT = ModuleSpec(f"{NAME}.script", None)  # what a script has to be for its relative imports: one of the package
sys.modules[NAME] = ModuleType(NAME)
sys.modules[NAME].__path__ = [str(Path(__file__).parent)]
