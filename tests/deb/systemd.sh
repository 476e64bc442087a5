#!/bin/sh
# The package in a booted system with systemd, without a network.
. /mnt/checks.sh
. /mnt/servers.sh

property() { # UNIT NAME
    systemctl show --property "$2" --value "$1"
}

field() { # PID NAME: of its /proc/PID/status
    awk -v name="$2:" '$1 == name { print $2 }' "/proc/$1/status"
}

said() { # UNIT TEXT: it is in the journal
    journalctl --sync
    journalctl --no-pager -o cat -u "$1" | grep -F "$2"
}

installs() {
    within 30 systemctl is-system-running
    dpkg -i /mnt/uwsgi-tls_*.deb
    equal "$(systemctl is-enabled uwsgi-tls.service)" enabled
    equal "$(systemctl is-active uwsgi-tls.service)" active
    equal "$(systemctl --failed --no-legend)" ""
    not somebody_is_there
}

starts() {
    two_servers
    systemctl daemon-reload
    systemctl restart uwsgi-tls
    serving() { [ "$(property uwsgi-tls@a SubState)" = running ]; }
    within 10 serving
    property uwsgi-tls@a StatusText | grep 'workers 2'
    answers 127.0.0.1
    within 10 answers 127.0.0.1:8443
}

is_confined() {
    pid=$(property uwsgi-tls@a MainPID)
    equal "$(field "$pid" Uid)" "$(id -u uwsgi-tls)"
    equal "$(field "$pid" CapEff)" 0000000000000000
    equal "$(field "$pid" CapBnd)" 0000000000000000
    equal "$(field "$pid" NoNewPrivs)" 1
    equal "$(field "$pid" Seccomp)" 2
    systemd-cgls --no-pager -u uwsgi-tls@a.service >/tmp/processes
    equal "$(grep -c 'a uwsgi-tls \(master\|monitor\|worker\)' /tmp/processes)" 4
    equal "$(grep -c '[├└]─' /tmp/processes)" 4
}

reloads() {
    pid=$(property uwsgi-tls@a MainPID) old=$(fingerprint 127.0.0.1:443)
    certificate a
    equal "$(request_under 60 systemctl reload uwsgi-tls@a)" "0 0"
    renewed() { [ "$(fingerprint 127.0.0.1:443)" != "$old" ]; }
    within 10 renewed
    equal "$(property uwsgi-tls@a MainPID)" "$pid"
    said uwsgi-tls@a "configuration ok"
    break_a
    not systemctl reload uwsgi-tls@a
    mend_a
    equal "$(property uwsgi-tls@a MainPID)" "$pid"
    answers 127.0.0.1
}

bad_configuration_is_no_loop() {
    break_a
    not systemctl restart uwsgi-tls@a
    sleep 2 # more than RestartSec
    equal "$(property uwsgi-tls@a ActiveState)" failed
    equal "$(property uwsgi-tls@a NRestarts)" 0
    mend_a
    systemctl reset-failed uwsgi-tls@a
    systemctl start uwsgi-tls@a
    answers 127.0.0.1
}

killed_master_comes_back() {
    pid=$(property uwsgi-tls@a MainPID)
    [ "$pid" -gt 1 ]
    kill -KILL "$pid"
    within 5 answers 127.0.0.1
    equal "$(property uwsgi-tls@a NRestarts)" 1
}

names_and_clients_work_in_the_unit() {
    (cd /etc/uwsgi-tls && uwsgi-tls pki ca && uwsgi-tls pki server localhost && uwsgi-tls pki client anna)
    cp /etc/uwsgi-tls/b.ini /tmp/b.ini
    printf 'sni = localhost /etc/uwsgi-tls/%s.crt,/etc/uwsgi-tls/%s.key,,!/etc/uwsgi-tls/ca.crt\n' localhost localhost \
        >>/etc/uwsgi-tls/b.ini
    systemctl restart uwsgi-tls@b
    cd /etc/uwsgi-tls
    curl --silent --fail --cacert ca.crt --cert anna.crt --key anna.key https://localhost:8443/ >/tmp/page
    not curl --silent --fail --cacert ca.crt https://localhost:8443/
    openssl s_client -connect 127.0.0.1:8443 -alpn http/1.1 </dev/null 2>/dev/null | grep 'ALPN protocol: http/1.1'
    cp /tmp/b.ini /etc/uwsgi-tls/b.ini
    rm localhost.* ca.* anna.*
    systemctl restart uwsgi-tls@b
}

upgrades() {
    pid=$(property uwsgi-tls@a MainPID)
    newer 9.0
    equal "$(request_under 400 dpkg -i /tmp/newer.deb)" "0 0"
    equal "$(property uwsgi-tls@a MainPID)" "$pid"
    equal "$(property uwsgi-tls@a SubState)" running
    said uwsgi-tls@a "uwsgi-tls 9.0"
    equal "$(systemctl --failed --no-legend)" ""
}

# b is restarted, as the new version does not understand the old one, and a stays, as it could not be started.
upgrade_takes_a_restart() {
    a=$(property uwsgi-tls@a MainPID) b=$(property uwsgi-tls@b MainPID)
    break_a
    newer 9.1
    dpkg -i /tmp/newer.deb
    answers 127.0.0.1
    answers 127.0.0.1:8443
    equal "$(property uwsgi-tls@a MainPID)" "$a"
    [ "$(property uwsgi-tls@b MainPID)" != "$b" ]
    mend_a
    equal "$(systemctl --failed --no-legend)" ""
}

debians_uwsgi() {
    real_uwsgi_behind_it "systemctl start uwsgi-tls@c" "systemctl reload uwsgi-tls@c" "systemctl stop uwsgi-tls@c"
}

# What docs/debian.md says for UNIX sockets and for logs in files.
rights_can_be_added() {
    cp /etc/uwsgi-tls/b.ini /tmp/b.ini
    mkdir -p /etc/systemd/system/uwsgi-tls@b.service.d
    printf '[Service]\nCapabilityBoundingSet=CAP_CHOWN\n' >/etc/systemd/system/uwsgi-tls@b.service.d/local.conf
    printf 'https = /run/uwsgi-tls/b.sock,/etc/uwsgi-tls/b.crt,/etc/uwsgi-tls/b.key\n' >>/etc/uwsgi-tls/b.ini
    echo 'req-logger = file:/var/log/uwsgi-tls/b.log' >>/etc/uwsgi-tls/b.ini
    systemctl daemon-reload
    systemctl restart uwsgi-tls@b
    equal "$(stat -c %U /run/uwsgi-tls/b.sock)" uwsgi-tls
    through_it() { curl --silent --insecure --fail --unix-socket /run/uwsgi-tls/b.sock https://localhost/ >/tmp/page; }
    through_it
    within 5 grep -q 'GET /' /var/log/uwsgi-tls/b.log
    logrotate -f /etc/logrotate.d/uwsgi-tls
    reopened() { through_it && grep -q 'GET /' /var/log/uwsgi-tls/b.log; }
    within 5 reopened
    rm -r /etc/systemd/system/uwsgi-tls@b.service.d
    mv /tmp/b.ini /etc/uwsgi-tls/b.ini
    systemctl daemon-reload
    systemctl restart uwsgi-tls@b
}

comes_up_again() {
    within 30 systemctl is-system-running
    within 10 answers 127.0.0.1
    within 10 answers 127.0.0.1:8443
    equal "$(property uwsgi-tls@a ActiveState) $(property uwsgi-tls@b ActiveState)" "active active"
    equal "$(property uwsgi-tls@a NRestarts)" 0
}

stops() {
    systemctl stop uwsgi-tls.service
    within 5 nobody_left
    equal "$(property uwsgi-tls@a ActiveState) $(property uwsgi-tls@b ActiveState)" "inactive inactive"
}

sockets_of_systemd() {
    certificate c
    # shellcheck disable=SC2016 # a placeholder of the ini
    printf '[uwsgi]\nhttps = =0,/etc/uwsgi-tls/c.crt,$(CREDENTIALS_DIRECTORY)/key.pem\nprocesses = 2\n' >/etc/uwsgi-tls/c.ini
    systemctl start uwsgi-tls@c.socket
    not somebody_is_there
    answers 127.0.0.1 || fail "$(journalctl --no-pager -o cat -n 12 -u uwsgi-tls@c.socket -u uwsgi-tls-activated@c)"
    pid=$(property uwsgi-tls-activated@c MainPID)
    equal "$(field "$pid" CapBnd)" 0000000000000000
    equal "$(pgrep -u root -f 'uwsgi-tls (master|worker|monitor)')" ""
    # A client waits while the server restarts; none is refused.
    equal "$(request_under 60 systemctl restart uwsgi-tls-activated@c)" "0 0"
    equal "$(request_under 60 systemctl reload uwsgi-tls-activated@c)" "0 0"
    systemctl stop uwsgi-tls@c.socket uwsgi-tls-activated@c.service
    rm /etc/uwsgi-tls/c.*
}

exposure_is_little() {
    for pair in uwsgi-tls@a:22 uwsgi-tls-activated@c:13; do
        systemd-analyze security --no-pager --threshold="${pair#*:}" "${pair%:*}.service" >/tmp/security ||
            fail "$(cat /tmp/security)"
        echo "note: ${pair%:*} $(sed -n 's/.*exposure level.*: \([0-9.]*\).*/\1/p' /tmp/security)"
    done
}

removes() {
    systemctl start uwsgi-tls
    within 10 answers 127.0.0.1
    dpkg --remove uwsgi-tls
    within 5 nobody_left
    equal "$(systemctl --failed --no-legend)" ""
}

if [ "$1" = first ]; then
    check 27 installs
    check 28 starts
    check 29 is_confined
    check 26 exposure_is_little
    check 30 reloads
    check 31 bad_configuration_is_no_loop
    check 32 killed_master_comes_back
    check 36 names_and_clients_work_in_the_unit
    check "all" debians_uwsgi
    check 36 rights_can_be_added
    check 38 upgrades
    check 38 upgrade_takes_a_restart
else
    check 34 comes_up_again
    check 33 stops
    check 35 sockets_of_systemd
    check 37 removes
fi
summary
