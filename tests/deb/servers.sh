# Read by the scripts that try servers: certificates, configurations, requests.

certificate() { # NAME: a new one, whose key only root can read
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 30 -subj "/CN=$1" \
        -addext subjectAltName=DNS:localhost -keyout "/etc/uwsgi-tls/$1.key" -out "/etc/uwsgi-tls/$1.crt" 2>/dev/null
    chmod 600 "/etc/uwsgi-tls/$1.key"
}

ini() { # NAME ADDRESS
    printf '[uwsgi]\nshared-socket = %s\nhttps = =0,/etc/uwsgi-tls/%s.crt,/etc/uwsgi-tls/%s.key\nprocesses = 2\n' \
        "$2" "$1" "$1" >"/etc/uwsgi-tls/$1.ini"
}

two_servers() {
    certificate a && certificate b
    ini a 127.0.0.1:443 && ini b 127.0.0.1:8443
}

answers() { # ADDRESS
    curl --silent --insecure --fail --max-time 5 --output /dev/null "https://$1/"
}

fingerprint() { # ADDRESS: of the certificate that is served
    openssl s_client -connect "$1" </dev/null 2>/dev/null | openssl x509 -noout -fingerprint
}

somebody_is_there() {
    pgrep -f 'uwsgi-tls (master|worker|monitor)'
}

nobody_left() {
    ! somebody_is_there
}

break_a() {
    mv /etc/uwsgi-tls/a.crt /etc/uwsgi-tls/a.crt.away
}

mend_a() {
    mv /etc/uwsgi-tls/a.crt.away /etc/uwsgi-tls/a.crt
}

request_under() { # COUNT COMMAND...: runs COMMAND while COUNT requests are made; prints "LOST MILLISECONDS"
    count=$1
    shift
    (
        set +x
        lost=0 first=0 last=0
        for _ in $(seq "$count"); do
            if ! answers 127.0.0.1; then
                lost=$((lost + 1)) last=$(date +%s%3N)
                [ "$first" != 0 ] || first=$last
            fi
        done
        echo $lost $((last - first)) >/tmp/lost
    ) &
    "$@" >&2
    wait $!
    cat /tmp/lost
}

newer() { # a package of a later version
    dpkg-deb -R /mnt/uwsgi-tls_*.deb /tmp/newer
    sed -i "s/^Version:.*/Version: 9.0-1/" /tmp/newer/DEBIAN/control
    dpkg-deb -b /tmp/newer /tmp/newer.deb >/dev/null
}
