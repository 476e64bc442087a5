#!/bin/sh
# A system with sysvinit that is switched on, and again. `prepare` installs the package and two servers before.
. /mnt/checks.sh
. /mnt/servers.sh

boots() {
    answering() { answers 127.0.0.1 && answers 127.0.0.1:8443; }
    within 20 answering
    equal "$(runlevel)" "N 2"
    returns 0 /etc/init.d/uwsgi-tls status
}

if [ "${1-}" = prepare ]; then
    dpkg -i /mnt/uwsgi-tls_*.deb
    two_servers
    exit
fi
check 24 boots # the second time after a reboot
summary
