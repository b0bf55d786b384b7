"""``python -m bcos_diffusion``: the same as the command ``bcos-diffusion``."""

import sys

from bcos_diffusion.cli import main

sys.exit(main())
