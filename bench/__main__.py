"""``python -m bench`` is the comparison with Postfix."""

import sys

from bench.compare import main

sys.exit(main())
