#!/bin/sh
# boot.sh INIT SCRIPT: boots the system of /mnt/INIT.tar, sysvinit or systemd, with systemd-nspawn, runs /mnt/SCRIPT in it,
# and powers it off. Its network is a loopback interface of its own.
set -eu
machine=/tmp/machine
mkdir $machine
tar -C $machine -xf "/mnt/$1.tar"
mkdir -p $machine/dev
cp /mnt/*.sh /mnt/uwsgi-tls_*.deb $machine/mnt/
case $1 in
systemd) set -- "$@" --boot ;;
# The package is there before the first boot, as on a system that is switched on again.
sysvinit)
    mkdir -p $machine/dev
    mount -t proc proc $machine/proc
    mount --rbind /dev $machine/dev
    chroot $machine sh "/mnt/$2" prepare >/tmp/prepare.log 2>&1 || { cat /tmp/prepare.log && exit 1; }
    umount -l $machine/proc $machine/dev
    set -- "$@" /sbin/init 2
    ;;
esac
script=$2
shift 2
[ -s /etc/machine-id ] || tr -d - </proc/sys/kernel/random/uuid >/etc/machine-id

leader() { # the first process of the machine: the child with a PID namespace of its own
    for pid in $(pgrep -P $nspawn); do
        [ "$(readlink "/proc/$pid/ns/pid")" = "$(readlink /proc/self/ns/pid)" ] || echo "$pid"
    done
}

within() { # SECONDS COMMAND...: it succeeds in that time
    tenths=$(($1 * 10))
    shift
    until "$@"; do
        tenths=$((tenths - 1))
        [ $tenths -gt 0 ] || { cat /tmp/boot.log && echo "FAILED: $*" && exit 1; }
        sleep 0.1
    done
}

is_up() { [ -n "$(leader)" ]; }
is_down() { ! kill -0 $nspawn 2>/dev/null; }

inside() { # COMMAND...
    timeout 240 nsenter -t "$(leader)" -m -u -i -n -p -C -r -w env -i \
        PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LANG=C.UTF-8 "$@"
}

code=0
for time in first second; do
    # No bus and no machined here to register with.
    setsid systemd-nspawn --quiet --register=no --keep-unit --private-network --console=pipe --machine=test \
        --directory=$machine "$@" </dev/null >/tmp/boot.log 2>&1 &
    nspawn=$!
    within 10 is_up
    inside sh "/mnt/$script" $time || code=1
    # It ends as at a reboot; the last one ends with this shell, the first process of its PID namespace.
    [ $time = second ] || inside reboot || true
    [ $time = second ] || within 60 is_down
done
exit $code
