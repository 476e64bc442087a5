"""uwsgi-tls: an HTTPS front end in the manner of uWSGI's `https` option, made of pyOpenSSL and forked workers."""

import os

if "UWSGI_TLS_HERITAGE" in os.environ:
    # A program that takes over (heritage.py) holds the way to the monitor from its first moment on, and execve(2) has
    # made it traceable for its user: no longer than until here.
    import prctl

    prctl.set_dumpable(0)

__version__ = "0.1.0"
