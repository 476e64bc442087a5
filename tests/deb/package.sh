#!/bin/sh
# The package itself, in the system in which it was built: /mnt has uwsgi-tls_*.deb and the logs of the build.
. /mnt/checks.sh
deb=$(echo /mnt/uwsgi-tls_*.deb)
dpkg -x "$deb" /tmp/root

build_ran_the_tests() {
    grep -Eq '[0-9]+ passed' /mnt/build.log
    dpkg -c "$deb" >/tmp/contents
    not grep -E 'pytest_cache|__pycache__|hypothesis' /tmp/contents
}

lintian_is_silent() {
    not grep -E '^[EWIP]:' /mnt/lintian.log
    not grep -E '^[EW]:' /mnt/lintian-source.log
}

fields() {
    for name in python3-openssl python3-prctl python3-setproctitle python3-cryptography python3:any adduser; do
        dpkg -f "$deb" Depends | grep -q "$name"
    done
    dpkg -f "$deb" Pre-Depends | grep -q init-system-helpers
    equal "$(dpkg -f "$deb" Architecture)" all
}

files() {
    dpkg -c "$deb" | awk '{ print $1, $6 }' >/tmp/contents
    for file in etc/default/uwsgi-tls etc/logrotate.d/uwsgi-tls etc/ufw/applications.d/uwsgi-tls \
        etc/apparmor.d/usr.bin.uwsgi-tls lib/systemd/system/uwsgi-tls.service \
        usr/lib/systemd/system/uwsgi-tls@.service usr/lib/systemd/system/uwsgi-tls@.socket \
        usr/lib/systemd/system/uwsgi-tls-activated@.service usr/share/man/man1/uwsgi-tls.1.gz \
        usr/share/man/man5/uwsgi-tls.ini.5.gz usr/share/bash-completion/completions/uwsgi-tls \
        usr/share/doc/uwsgi-tls/copyright usr/share/doc/uwsgi-tls/examples/site.ini; do
        contains /tmp/contents "-rw-r--r-- ./$file"
    done
    contains /tmp/contents "-rwxr-xr-x ./etc/init.d/uwsgi-tls"
    contains /tmp/contents "-rwxr-xr-x ./usr/lib/systemd/system-generators/uwsgi-tls-generator"
    contains /tmp/contents "-rwxr-xr-x ./usr/share/uwsgi-tls/upgrade"
    dpkg -e "$deb" /tmp/control
    dpkg -c "$deb" | sed -n 's/^-.* \.\(\/etc\/.*\)/\1/p' | sort >/tmp/in-etc
    sort /tmp/control/conffiles | diff /tmp/in-etc -
}

two_builds_are_the_same() {
    contains /mnt/twice.log "two builds are the same"
}

scripts_are_clean() {
    for script in /tmp/root/etc/init.d/uwsgi-tls /tmp/root/usr/lib/systemd/system-generators/uwsgi-tls-generator \
        /tmp/root/usr/share/uwsgi-tls/upgrade; do
        sh -n "$script"
        checkbashisms "$script"
        shellcheck -s sh -e SC2086,SC3037 "$script"
    done
}

units_are_well_formed() {
    dpkg --unpack --force-depends "$deb"
    systemd-analyze --man=no verify uwsgi-tls.service uwsgi-tls@a.service uwsgi-tls-activated@a.service \
        uwsgi-tls@a.socket >/tmp/verify 2>&1
    equal "$(cat /tmp/verify)" ""
}

units_expose_little() {
    for pair in uwsgi-tls@a:22 uwsgi-tls-activated@a:13; do
        systemd-analyze security --offline=yes --no-pager --threshold="${pair#*:}" "${pair%:*}.service" >/tmp/security ||
            fail "$(cat /tmp/security)"
        echo "note: ${pair%:*} $(grep -o 'level.*: [0-9.]*' /tmp/security | grep -o '[0-9.]*$')"
    done
}

generated() { # AUTOSTART: the instances that the generator makes the umbrella want
    echo "AUTOSTART=\"$1\"" >/etc/default/uwsgi-tls
    rm -rf /tmp/units
    /usr/lib/systemd/system-generators/uwsgi-tls-generator /tmp/units /tmp/units /tmp/units
    find /tmp/units -name '*@*' -printf '%f ' | tr ' ' '\n' | sort | xargs
}

generator_follows_autostart() {
    mkdir -p /etc/uwsgi-tls
    touch /etc/uwsgi-tls/a.ini /etc/uwsgi-tls/b.ini '/etc/uwsgi-tls/un fit.ini'
    equal "$(generated all)" "uwsgi-tls@a.service uwsgi-tls@b.service"
    equal "$(generated b)" uwsgi-tls@b.service
    equal "$(generated none)" ""
    # One whose sockets systemd holds is not started a second way.
    mkdir -p /etc/systemd/system/sockets.target.wants
    touch /etc/systemd/system/sockets.target.wants/uwsgi-tls@a.socket
    equal "$(generated all)" uwsgi-tls@b.service
}

bash_completes() {
    bash -c '. /usr/share/bash-completion/completions/uwsgi-tls
        COMP_WORDS=(uwsgi-tls --c) COMP_CWORD=1
        _uwsgi_tls
        [[ " ${COMPREPLY[*]} " == *" --check "* ]]'
}

pages_are_well_formed() {
    for page in /usr/share/man/man1/uwsgi-tls.1.gz /usr/share/man/man5/uwsgi-tls.ini.5.gz; do
        zcat $page >/tmp/page # minimal systems are told to leave documentation out
        man --warnings -E UTF-8 -l -Tutf8 -Z /tmp/page >/dev/null 2>/tmp/warnings
        equal "$(cat /tmp/warnings)" ""
    done
    zcat /usr/share/man/man1/uwsgi-tls.1.gz | sed 's/\\-/-/g' >/tmp/page
    uwsgi-tls --help | grep -oE -e '--[a-z0-9-]+' | sort -u | while read -r option; do
        contains /tmp/page "$option"
    done
}

profile_is_well_formed() {
    apparmor_parser -Q -K -T /tmp/root/etc/apparmor.d/usr.bin.uwsgi-tls
}

check 1 build_ran_the_tests
check 2 lintian_is_silent
check 3 fields
check 4 files
[ ! -e /mnt/twice.log ] || check 5 two_builds_are_the_same
check 21 scripts_are_clean
check 25 units_are_well_formed
check 26 units_expose_little
check 28 generator_follows_autostart
check 40 bash_completes
check 41 pages_are_well_formed
check 42 profile_is_well_formed
summary
