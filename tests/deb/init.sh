#!/bin/sh
# The package in a system with sysvinit and without a network: installed, its init script, an upgrade, and its end.
. /mnt/checks.sh
. /mnt/servers.sh
deb=$(echo /mnt/uwsgi-tls_*.deb)
init=/etc/init.d/uwsgi-tls

# --- what the checks stand on

master() { # NAME: its pid
    cat "/run/uwsgi-tls/$1.pid"
}

workers() { # NAME: their pids
    pgrep -P "$(master "$1")" -f 'uwsgi-tls worker' | sort
}

runlevel_2() { # what init would have noted in utmp(5), without which invoke-rc.d starts nothing
    python3 -c 'import struct
record = struct.pack("=hhi32s4s32s256shhiii16s20x", 1, 0, ord("N") << 8 | ord("2"), b"~", b"~~", b"runlevel", b"", 0, 0, 0, 0, 0, b"")
open("/run/utmp", "wb").write(record)'
}

# --- the checks, in an order in which each leaves the system as the next one needs it

installs() {
    runlevel_2
    equal "$(runlevel)" "N 2"
    apt-get install --yes --no-install-recommends "$deb"
    dpkg-query --show --showformat '${db:Status-Status} ${Package}\n' >/tmp/packages
    contains /tmp/packages "installed uwsgi-tls"
    not grep -x "installed systemd" /tmp/packages
    getent passwd uwsgi-tls | grep -q nologin
    not somebody_is_there
    equal "$(ls /etc/uwsgi-tls)" ""
    equal "$(ls /etc/rc2.d | grep -c S..uwsgi-tls)" 1
    returns 3 $init status
    returns 0 $init start
    not somebody_is_there
}

runs() {
    uwsgi-tls --version
    cd / && python3 -W error -c 'import uwsgi_tls.master'
}

configtest() {
    two_servers
    returns 0 $init configtest
    break_a
    returns 6 $init configtest 2>/tmp/stderr
    contains /tmp/stderr /etc/uwsgi-tls/a.crt
    returns 0 $init configtest b
    mend_a
}

starts() {
    returns 0 $init start
    answers 127.0.0.1
    answers 127.0.0.1:8443
    before=$(pgrep -c -f 'uwsgi-tls (master|worker|monitor)')
    returns 0 $init start
    equal "$(pgrep -c -f 'uwsgi-tls (master|worker|monitor)')" "$before"
}

status_tells() {
    $init status >/tmp/status
    contains /tmp/status "a is running"
    contains /tmp/status "b is running"
    service uwsgi-tls status a >/tmp/status
    contains /tmp/status "a is running"
    not grep "b is" /tmp/status
}

root_is_given_up() {
    for pid in $(master a) $(workers a); do
        equal "$(ps -o user:20= -p "$pid")" uwsgi-tls
        equal "$(awk '/^CapEff/ { print $2 }' "/proc/$pid/status")" 0000000000000000
        equal "$(awk '/^CapBnd/ { print $2 }' "/proc/$pid/status")" 0000000000000000
        equal "$(awk '/^NoNewPrivs/ { print $2 }' "/proc/$pid/status")" 1
        equal "$(cat "/proc/$pid/comm")" uwsgi-tls
    done
    equal "$(workers a | wc -l)" 2
    tr '\0' ' ' <"/proc/$(master a)/cmdline" | grep '^a uwsgi-tls master'
    # The monitor alone is root, and may only read.
    monitor=$(pgrep -P "$(master a)" -f 'uwsgi-tls monitor')
    equal "$(awk '/^CapEff/ { print $2 }' "/proc/$monitor/status")" 0000000000000004
}

reload_loses_nothing() {
    was=$(master a) were=$(workers a) old=$(fingerprint 127.0.0.1:443)
    certificate a
    equal "$(request_under 60 $init reload)" "0 0"
    new_workers() { [ "$(workers a | wc -l)" = 2 ] && [ "$(printf '%s\n' "$were" "$(workers a)" | sort | uniq -d)" = "" ]; }
    within 10 new_workers
    equal "$(master a)" "$was"
    [ "$(fingerprint 127.0.0.1:443)" != "$old" ]
}

bad_configuration_harms_nobody() {
    was=$(master a)
    break_a
    for action in reload restart force-reload try-restart start; do
        wanted=6
        [ $action != start ] || wanted=0 # it runs
        returns $wanted $init $action a
        equal "$(master a)" "$was"
        answers 127.0.0.1
    done
    mend_a
    echo 'no-such-option = 1' >>/etc/uwsgi-tls/a.ini
    returns 6 $init restart
    answers 127.0.0.1
    answers 127.0.0.1:8443
    sed -i '$d' /etc/uwsgi-tls/a.ini
}

restart_is_for_one() {
    a=$(master a) b=$(master b)
    returns 0 $init restart a
    [ "$(master a)" != "$a" ]
    equal "$(master b)" "$b"
    returns 0 $init stop b
    returns 0 $init try-restart b
    returns 3 $init status b
    returns 0 $init start b
}

stops() {
    begin=$(date +%s)
    returns 0 $init stop
    [ $(($(date +%s) - begin)) -lt 5 ]
    within 1 nobody_left
    equal "$(ls /run/uwsgi-tls)" ""
    returns 0 $init stop
    returns 3 $init status
    returns 7 $init reload
    returns 7 $init reload a
}

killed_master_takes_workers_along() {
    $init start
    kill -KILL "$(master a)"
    gone() { ! pgrep -f '^a uwsgi-tls'; }
    within 1 gone
    returns 1 $init status a
    returns 0 $init start a
    answers 127.0.0.1
}

taken_port_is_named() {
    $init stop
    python3 -c 'import socket, time
s = socket.create_server(("127.0.0.1", 443))
print("bound", flush=True)
time.sleep(60)' >/tmp/holder &
    holder=$!
    within 5 grep -q bound /tmp/holder
    returns 1 $init start a 2>/tmp/stderr
    contains /tmp/stderr 127.0.0.1:443
    contains /tmp/stderr "the address is in use"
    [ ! -e /run/uwsgi-tls/a.pid ]
    kill $holder
}

usage_is_told() {
    returns 3 $init 2>/tmp/stderr
    contains /tmp/stderr usage:
    returns 3 $init nonsense 2>/tmp/stderr
    contains /tmp/stderr usage:
    returns 2 $init start ../../tmp/x
}

autostart() {
    sed -i 's/^AUTOSTART=.*/AUTOSTART="none"/' /etc/default/uwsgi-tls
    returns 0 $init start
    not somebody_is_there
    sed -i 's/^AUTOSTART=.*/AUTOSTART="b"/' /etc/default/uwsgi-tls
    returns 0 $init start
    returns 0 $init status b
    returns 3 $init status a
    sed -i 's/^AUTOSTART=.*/AUTOSTART="all"/' /etc/default/uwsgi-tls
    $init start
}

others_notify_socket_is_ignored() {
    NOTIFY_SOCKET=/nonexistent LISTEN_FDS=1 LISTEN_PID=1 $init restart
    returns 0 $init status
}

rotates() {
    log=/var/log/uwsgi-tls/a.log
    # A line is written a moment after its answer, so the last one is awaited before they are counted.
    curl --silent --insecure --fail --output /dev/null https://127.0.0.1/counted-from-here
    within 5 grep -q 'GET /counted-from-here' $log
    was=$(stat -c '%U:%G %a' $log)
    equal "$was" "uwsgi-tls:adm 640"
    lines=$(grep -c 'GET /' $log)
    equal "$(request_under 60 logrotate -f -v /etc/logrotate.d/uwsgi-tls 2>/tmp/logrotate)" "0 0"
    not grep -i error: /tmp/logrotate
    equal "$(stat -c '%U:%G %a' $log)" "$was"
    answers 127.0.0.1
    within 5 grep -q 'GET /' $log
    both() { [ "$(cat $log $log.1 | grep -c 'GET /')" = $((lines + 61)) ]; }
    within 5 both
    # No process has the old one any more.
    equal "$(find /proc/[0-9]*/fd -lname $log.1 2>/dev/null)" ""
    returns 0 $init rotate a
    ls $log.2*
    equal "$(stat -c %a:%G /var/log/uwsgi-tls)" 2751:adm
}

firewall_knows_it() {
    ufw app info uwsgi-tls | grep 443/tcp
}

upgrades() {
    a=$(master a) b=$(master b) were=$(workers a)
    newer 9.0
    equal "$(request_under 400 dpkg -i /tmp/newer.deb)" "0 0"
    equal "$(master a) $(master b)" "$a $b"
    returns 0 $init status
    # The new program has taken over, with workers of its own.
    contains /var/log/uwsgi-tls/a.log "uwsgi-tls 9.0"
    replaced() { [ "$(printf '%s\n' "$were" "$(workers a)" | sort | uniq -d)" = "" ]; }
    within 5 replaced
}

# b is restarted, as the new version does not understand the old one, and a stays, as it could not be started.
upgrade_takes_a_restart() {
    a=$(master a) b=$(master b)
    break_a
    newer 9.1
    dpkg -i /tmp/newer.deb
    answers 127.0.0.1
    answers 127.0.0.1:8443
    equal "$(master a)" "$a"
    [ "$(master b)" != "$b" ]
    equal "$(dpkg-query -W -f '${Status}' uwsgi-tls)" "install ok installed"
    mend_a
    dpkg -i --force-downgrade "$deb"
    returns 0 $init status
    equal "$(master a)" "$a"
    returns 0 $init upgrade
    equal "$(master a)" "$a"
}

debians_uwsgi() {
    real_uwsgi_behind_it "$init start c" "$init reload c" "$init stop c"
}

removes() {
    returns 0 $init status
    apt-get remove --yes uwsgi-tls
    within 5 nobody_left
    [ -e /etc/uwsgi-tls/a.ini ]
    logrotate -f /etc/logrotate.d/uwsgi-tls
    apt-get install --yes --no-install-recommends "$deb"
    returns 0 $init status
}

purges() {
    apt-get purge --yes uwsgi-tls
    within 5 nobody_left
    [ ! -e /var/log/uwsgi-tls ]
    [ ! -e /run/uwsgi-tls ]
    equal "$(ls /etc/rc?.d | grep -c uwsgi-tls)" 0
    [ -e /etc/uwsgi-tls/a.ini ]
    [ -e /etc/uwsgi-tls/a.key ]
    getent passwd uwsgi-tls
}

check 6 installs
check 7 runs
check 11 configtest
check 12 starts
check 13 status_tells
check 14 root_is_given_up
check 15 reload_loses_nothing
check 16 bad_configuration_harms_nobody
check 17 restart_is_for_one
check 18 stops
check 19 killed_master_takes_workers_along
check 20 taken_port_is_named
check 21 usage_is_told
check 22 autostart
check 23 others_notify_socket_is_ignored
check 39 rotates
check 42 firewall_knows_it
check 38 upgrades
check 38 upgrade_takes_a_restart
check "all " debians_uwsgi
check 10 removes
check 10 purges
summary
