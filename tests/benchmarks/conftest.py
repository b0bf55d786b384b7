"""The suite lies in the repository, not in a package that is installed: found last, so that it hides nothing."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[2]))
