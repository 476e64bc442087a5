"""What answers requests: servers behind us (uwsgi protocol or HTTP), a WSGI application, or the built-in page."""
