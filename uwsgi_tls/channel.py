"""TLS over one socket: the only caller of pyOpenSSL's I/O.

Each call becomes one of five things: bytes (or a count of them), not now because the client must send or must read
first (`want` says which), and `Gone` for a clean end, a broken one, or a handshake that failed. After a `Gone`
nothing more may be asked of a channel: OpenSSL answers with an empty error (observed), and `shutdown` is not for
broken ones, SSL_shutdown(3).
"""

from _socket import socket as RawSocket
from collections.abc import Sequence
from contextlib import suppress

from OpenSSL import SSL

from uwsgi_tls import peer, tls
from uwsgi_tls.client_allow import Rule
from uwsgi_tls.gone import Ended, Gone
from uwsgi_tls.lounge import READ, WRITE

WRITE_BYTES = 65536  # of one call: four records


class Channel:
    __slots__ = ("_said", "_tls", "want")

    def __init__(self, context: SSL.Context, sock: RawSocket, resumes: bool = True) -> None:
        """Where it does not resume, no session is taken up and every handshake is a full one."""
        self.want = READ
        self._said = False  # that nothing more comes from us
        self._tls = tls.server_connection(context, sock, resumes)

    def handshake(self) -> bool:
        """Goes on with the handshake as far as it can; True when it is complete. Raises Gone."""
        self.want = READ
        try:
            return tls.shake_hands(self._tls)
        except SSL.WantWriteError:
            self.want = WRITE
            return False
        except SSL.Error as error:
            raise Gone(tls.reason(error, self._tls), tls.alert(error, self._tls)) from None

    def receive(self) -> bytes:
        """What one record holds; empty when nothing is there now. Raises Gone."""
        try:
            return tls.receive(self._tls)
        except SSL.WantReadError:
            self.want = READ
        except SSL.WantWriteError:
            self.want = WRITE
        except SSL.ZeroReturnError:
            raise Ended("the client closed the connection") from None
        except SSL.Error as error:
            raise Gone(tls.reason(error, self._tls)) from None
        return b""

    def send(self, data: bytes | memoryview) -> int:
        """Sends what the socket takes now and returns how many bytes that was. Raises Gone.

        What was not taken must begin the next call's data, as far as WRITE_BYTES of it: OpenSSL has encrypted it
        already, and has perhaps sent a part, SSL_write(3).
        """
        sent, total = 0, len(data)
        self.want = WRITE
        try:
            if total <= WRITE_BYTES:
                return tls.send(self._tls, data)
            view = memoryview(data)
            while sent < total:
                sent += tls.send(self._tls, view[sent : sent + WRITE_BYTES])
        except SSL.WantWriteError:
            return sent
        except SSL.WantReadError:
            # The client is in the middle of a handshake message, such as a KeyUpdate; until the rest of it is there
            # OpenSSL writes nothing, however much room the socket has.
            self.want = READ
            return sent
        except SSL.Error as error:
            raise Gone(tls.reason(error, self._tls)) from None
        return sent

    def shutdown(self) -> bool:
        """Tells the client, once, that nothing more comes (close_notify); False: there is no room for it now.

        Raises Gone.
        """
        if self._said:  # one more call would wait for the client's, SSL_shutdown(3)
            return True
        try:
            self._tls.shutdown()
        except SSL.WantWriteError:
            self.want = WRITE
            return False
        except SSL.Error as error:
            raise Gone(tls.reason(error, self._tls)) from None
        self._said = True
        return True

    def has_asked_for(self, name: str | None) -> bool:
        """Whether that is the name in the ClientHello that OpenSSL has read."""
        return tls.has_asked_for(self._tls, name)

    def outcome(self) -> tls.Handshake:
        """What the handshake, which is complete, has come to."""
        return tls.outcome(self._tls)

    def client_variables(
        self, shaken: tls.Handshake, sni: str, export_cert: bool, rules: Sequence[Rule]
    ) -> peer.Variables:
        """What the handshake proved, as CGI variables. Raises Gone where it did not prove enough to stay."""
        objection = peer.objection(self._tls, shaken, rules)
        if objection:
            with suppress(SSL.Error):
                self._tls.shutdown()  # TLS has an alert for it, access_denied, but pyOpenSSL does not
            raise Gone(objection, "sent: close_notify")
        return peer.client_variables(self._tls, shaken, sni, export_cert)

    def facts(self, sni: str) -> peer.TlsFacts:
        """What was negotiated, for the built-in page."""
        return peer.facts(self._tls, sni)
