"""The one exception of a connection that is over.

Whoever drives a connection (the lounge through `Connection.ready`, a service thread with a queued request, a backend's
socket) closes it then; whoever merely produces bytes for it stops.
"""


class Gone(Exception):
    """The client can be reached no more; nothing sent from here on would arrive. Carries the reason in words."""

    def __init__(self, reason: str, alert: str = "") -> None:
        """`alert` is the TLS alert that says so, as "sent: NAME" or "received: NAME"; "" where there was none."""
        super().__init__(reason)
        self.alert = alert


class Ended(Gone):
    """The client has said that it sends no more (close_notify): the end of what it asks for, but a tunnel writes on."""
