"""`python -m uwsgi_tls` is `uwsgi-tls`."""

import sys

from .cli import main

sys.exit(main())
