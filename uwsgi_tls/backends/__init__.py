"""What answers requests: a uwsgi-protocol server behind us, a WSGI application in the worker, or the built-in page."""
