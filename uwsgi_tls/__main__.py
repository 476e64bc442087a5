"""`python -m uwsgi_tls` is `uwsgi-tls`."""

import sys

from uwsgi_tls.cli import main

sys.exit(main())
