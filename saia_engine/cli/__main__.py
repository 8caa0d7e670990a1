import sys

from saia_engine.cli import main

sys.exit(main())
