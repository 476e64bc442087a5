def test_what_a_client_proved(lab: Pki) -> None:
    server, _ = handshake(
        build_context(option(lab.server, "", lab.ca.crt, True)), client_context(lab, None, lab.client)
    )
    certificate = lab.client.certificate
    assert server.variables == (
        ("HTTPS", "on"),
        ("HTTPS_CLIENT_CERTIFICATE", lab.client.der.decode("latin-1")),
        ("HTTPS_DN", CLIENT_DN),
        ("HTTPS_CC", lab.client.pem),
    )
    assert lab.client.pem.endswith("-----END CERTIFICATE-----\n")
    assert server.facts is not None
    fact = server.facts
    assert (fact.client_verify, fact.client_dn, fact.client_issuer) == ("SUCCESS", CLIENT_DN, "/CN=Lab CA")
    assert int(fact.client_serial, 16) == certificate.serial_number
    assert fact.client_fingerprint == certificate.fingerprint(hashes.SHA256()).hex()
    shown = subprocess.run(
        ["openssl", "x509", "-in", lab.client.crt, "-noout", "-dates", "-dateopt", "iso_8601"],
        capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    begin, end = fact.client_not_before.replace(" UTC", "Z"), fact.client_not_after.replace(" UTC", "Z")
    assert shown == f"notBefore={begin}\nnotAfter={end}\n"


def test_a_certificate_that_was_not_verified_proves_nothing(lab: Pki, monkeypatch: pytest.MonkeyPatch) -> None:
    """No handshake gets there as contexts are now; should one ever, it must not pass for a proof."""

    class Doubtful:
        SSL_get_verify_result = staticmethod(lambda pointer: 18)  # X509_V_ERR_DEPTH_ZERO_SELF_SIGNED_CERT

        def __getattr__(self, name: str) -> Any:
            return getattr(real, name)

    real = vars(tls)["_lib"]
    monkeypatch.setattr(tls, "_lib", Doubtful())
    server, _ = handshake(
        build_context(option(lab.server, "", lab.ca.crt, True)), client_context(lab, None, lab.client)
    )
    assert server.variables == (("HTTPS", "on"),)
    assert server.facts is not None
    assert (server.facts.client_verify, server.facts.client_dn) == ("NONE", "")




@both_versions
def test_the_pem_is_an_option(version: ssl.TLSVersion, lab: Pki) -> None:
    ours, theirs = socket.socketpair()
    client = Client()
    with ours, theirs:
        thread = threading.Thread(target=client.talk, args=(client_context(lab, version, lab.client), theirs, None))
        thread.start()
        conn = SSL.Connection(build_context(option(lab.server, "", lab.ca.crt)), ours)
        conn.set_accept_state()
        conn.do_handshake()
        assert [name for name, _ in client_variables(conn, False)] == ["HTTPS", "HTTPS_CLIENT_CERTIFICATE", "HTTPS_DN"]
        assert client_variables(conn, True)[:3] == client_variables(conn, False)
        conn.shutdown()
        ours.close()
        thread.join(SECONDS)




# HTTPS_DN, byte for byte


def attribute(oid: ObjectIdentifier, value: str, kind: _ASN1Type | None = None) -> "NameAttribute":
    return x509.NameAttribute(oid, value, kind) if kind else x509.NameAttribute(oid, value)


CN, OU, O, C = (  # noqa: E741 - that is what X.520 calls it
    NameOID.COMMON_NAME,
    NameOID.ORGANIZATIONAL_UNIT_NAME,
    NameOID.ORGANIZATION_NAME,
    NameOID.COUNTRY_NAME,
)
SUBJECTS: dict[str, tuple[list[list["NameAttribute"]], str]] = {
    "escapes": (
        [[attribute(C, "IT")], [attribute(CN, 'a/CN=root+OU=x,d=e\\f"g;<>#')]],
        '/C=IT/CN=a\\/CN=root\\+OU=x,d=e\\f"g;<>#',
    ),
    "UTF-8": ([[attribute(CN, "Zoë ☃")]], r"/CN=Zo\xC3\xAB \xE2\x98\x83"),
    "control characters": ([[attribute(CN, "a\n\t\x7f\x01b")]], r"/CN=a\x0A\x09\x7F\x01b"),
    "embedded NUL": ([[attribute(CN, "good.lab\0evil.lab")]], r"/CN=good.lab\x00evil.lab"),
    # DER sorts a set by its bytes.
    "multi-valued": ([[attribute(OU, "unit"), attribute(CN, "name")], [attribute(O, "Lab")]], "/CN=name+OU=unit/O=Lab"),
    "BMPString": (
        [[attribute(CN, "bé☃/", _ASN1Type.BMPString)]],
        r"/CN=\x00b\x00\xE9&\x03\x00\/",
    ),
    "UniversalString": ([[attribute(CN, "aé", _ASN1Type.UniversalString)]], r"/CN=\x00\x00\x00a\x00\x00\x00\xE9"),
    "unnamed attribute": ([[attribute(ObjectIdentifier("1.2.3.4.5"), "x")]], "/1.2.3.4.5=x"),
    "longer than 512 bytes": ([[attribute(OU, "x" * 64)] for _ in range(40)], "/OU=" + "/OU=".join(["x" * 64] * 40)),
    "long and escaped": ([[attribute(OU, "/é" * 32)] for _ in range(20)], ("/OU=" + r"\/\xC3\xA9" * 32) * 20),
    "usual names": (
        [
            [attribute(oid, value)]
            for oid, value in (
                (NameOID.STATE_OR_PROVINCE_NAME, "RM"),
                (NameOID.LOCALITY_NAME, "Roma"),
                (NameOID.SERIAL_NUMBER, "7"),
                (NameOID.GIVEN_NAME, "g"),
                (NameOID.SURNAME, "s"),
                (NameOID.TITLE, "t"),
                (NameOID.USER_ID, "u"),
                (NameOID.DOMAIN_COMPONENT, "lab"),
                (NameOID.EMAIL_ADDRESS, "c@lab"),
            )
        ],
        "/ST=RM/L=Roma/serialNumber=7/GN=g/SN=s/title=t/UID=u/DC=lab/emailAddress=c@lab",
    ),
    "empty": ([], ""),
}


@pytest.mark.parametrize("subject", SUBJECTS)
def test_https_dn(subject: str, lab: Pki, tmp_path: Path) -> None:
    sets, expected = SUBJECTS[subject]
    name = x509.Name([x509.RelativeDistinguishedName(each) for each in sets])
    client = issue(tmp_path, "dn", name, lab.ca, usage=[CLIENT])
    context = build_context(option(lab.server_ec, "", lab.ca.crt, True))
    server, _ = handshake(context, client_context(lab, None, client))
    assert server.reason == ""
    assert dict(server.variables)["HTTPS_DN"] == expected
    command = ["openssl", "x509", "-in", client.crt, "-noout", "-subject", "-nameopt", "compat"]
    shown = subprocess.run(command, capture_output=True, check=True).stdout
    assert shown == b"subject=" + expected.encode("ascii") + b"\n"




# Cost


def test_without_a_client_certificate_it_costs_next_to_nothing(lab: Pki) -> None:
    """The aim is 3 us for the variables; the limit is loose because others use the machine too."""
    ours, theirs = socket.socketpair()
    client = Client()
    with ours, theirs:
        thread = threading.Thread(target=client.talk, args=(client_context(lab), theirs, None))
        thread.start()
        conn = SSL.Connection(build_context(option(lab.server, "", lab.ca.crt)), ours)
        conn.set_accept_state()
        conn.do_handshake()
        number = 2000
        for action, limit in ((lambda: client_variables(conn, True), 15), (lambda: facts(conn), 60)):
            micros = min(timeit.repeat(action, number=number, repeat=5)) / number * 1e6
            print(f"{micros:.2f} us")
            assert micros < limit
        conn.shutdown()
        ours.close()
        thread.join(SECONDS)
