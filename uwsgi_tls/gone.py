"""The one exception of a connection that is over.

Whoever drives a connection (the lounge through `Connection.ready`, a service thread with a queued request, a backend's
socket) closes it then; whoever merely produces bytes for it stops.
"""


class Gone(Exception):
    """The client can be reached no more; nothing sent from here on would arrive. Carries the reason in words."""


class Ended(Gone):
    """The client has said that it sends no more (close_notify): the end of what it asks for, but a tunnel writes on."""
