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

request_under() { # COUNT COMMAND...: runs COMMAND while COUNT requests are made by $request; prints "LOST MILLISECONDS"
    count=$1
    shift
    (
        set +x
        lost=0 first=0 last=0
        for _ in $(seq "$count"); do
            if ! ${request:-answers 127.0.0.1}; then
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

newer() { # VERSION: the package as /tmp/newer.deb, of a later version
    rm -rf /tmp/newer
    dpkg-deb -R /mnt/uwsgi-tls_*.deb /tmp/newer
    sed -i "s/^Version:.*/Version: $1-1/" /tmp/newer/DEBIAN/control
    code=/tmp/newer/usr/lib/python3/dist-packages/uwsgi_tls
    sed -i "s/^__version__ = .*/__version__ = \"$1\"/" $code/__init__.py
    # What a version understands of what an earlier one leaves to it.
    [ "$1" = 9.0 ] || sed -i "s/^FORMAT = .*/FORMAT = 999/" $code/heritage.py
    dpkg-deb -Znone -b /tmp/newer /tmp/newer.deb >/dev/null
}

with_certificate() { # prints the page that Debian's uWSGI makes
    curl --silent --fail --max-time 5 --cacert /etc/uwsgi-tls/ca.crt --connect-to localhost:443:127.0.0.2:443 "$@" https://localhost/
}

anna() {
    [ "$(with_certificate --cert /etc/uwsgi-tls/anna.crt --key /etc/uwsgi-tls/anna.key)" = "app /CN=anna" ]
}

# All that the server is for, at once: port 443, a key that only root can read, clients that must have certificates, and
# uWSGI as Debian has it behind. Then a new certificate and key, taken up under load.
real_uwsgi_behind_it() { # START RELOAD STOP: the commands for server c
    useradd app
    mkdir /srv/app
    cat >/srv/app/app.py <<'END'
import os, pwd
def application(environ, start):
    start("200 OK", [])
    return [f"{pwd.getpwuid(os.getuid()).pw_name} {environ['HTTPS_DN']}".encode()]
END
    chmod 755 /srv/app
    (cd /srv/app && uwsgi --plugin python3 --master --die-on-term --socket 127.0.0.1:3031 --uid app --gid app \
        --wsgi-file app.py --pidfile /tmp/uwsgi.pid --daemonize /tmp/uwsgi.log)
    cd /etc/uwsgi-tls
    uwsgi-tls pki ca && uwsgi-tls pki server localhost && uwsgi-tls pki client anna
    equal "$(stat -c '%U %a' localhost.key)" "root 600"
    printf '[uwsgi]\nshared-socket = 127.0.0.2:443\nhttps = =0,%s.crt,%s.key,,!%s\nhttp-to = 127.0.0.1:3031\nuid = app\n' \
        /etc/uwsgi-tls/localhost /etc/uwsgi-tls/localhost /etc/uwsgi-tls/ca.crt >c.ini
    $1
    within 10 anna
    not with_certificate
    pid=$(pgrep -f '^c uwsgi-tls master')
    equal "$(ps -o user= -p "$pid")" app
    not setpriv --reuid app --regid app --clear-groups cat localhost.key
    old=$(fingerprint 127.0.0.2:443)
    rm localhost.crt localhost.key
    uwsgi-tls pki server localhost
    equal "$(stat -c '%U %a' localhost.key)" "root 600"
    equal "$(request=anna request_under 100 $2)" "0 0"
    renewed() { [ "$(fingerprint 127.0.0.2:443)" != "$old" ]; }
    within 5 renewed
    anna
    equal "$(pgrep -f '^c uwsgi-tls master')" "$pid"
    $3
    rm c.ini localhost.* ca.* anna.*
    kill -TERM "$(cat /tmp/uwsgi.pid)"
}
