"""Nothing but the path to the tests' own modules."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
