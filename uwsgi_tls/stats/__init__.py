"""How the server is, for people and programs that ask: uWSGI's JSON, Prometheus and a page, by a process of its own."""
