"""What answers requests: servers behind us (uwsgi protocol or HTTP), a WSGI application in the worker, or the built-in page."""
