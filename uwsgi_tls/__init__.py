"""uwsgi-tls: an HTTPS front end in the manner of uWSGI's `https` option, made of pyOpenSSL and forked workers."""

__version__ = "0.1.0"
