#!/bin/sh
# piuparts and autopkgtest, which install the package with what it depends on from the archive, in a system of their own.
# /mnt has uwsgi-tls_*.deb, base.tar, a bare Debian, and source.tar.
. /mnt/checks.sh
deb=$(echo /mnt/uwsgi-tls_*.deb)

piuparts_is_content() {
    gzip -1 </mnt/base.tar >/tmp/base.tgz
    piuparts --basetgz=/tmp/base.tgz --distribution=bookworm --no-eatmydata --warn-on-leftovers-after-purge \
        "$deb" >/tmp/piuparts.log 2>&1 || fail "$(tail -n 30 /tmp/piuparts.log)"
    contains /tmp/piuparts.log "PASS: All tests"
}

autopkgtests_pass() {
    mkdir /tmp/testbed /tmp/source
    tar -C /tmp/testbed -xf /mnt/base.tar
    tar -C /tmp/source -xf /mnt/source.tar
    cp /etc/resolv.conf /tmp/testbed/etc/
    code=0
    mount --rbind /dev /tmp/testbed/dev
    mount -t proc proc /tmp/testbed/proc
    autopkgtest --apt-upgrade --no-built-binaries --output-dir /tmp/autopkgtest "$deb" /tmp/source/ -- chroot /tmp/testbed >/tmp/autopkgtest.log 2>&1 || code=$?
    tail -n 40 /tmp/autopkgtest.log
    # 2: the chroot cannot be put back as it was, so a test that breaks it is skipped.
    [ $code = 0 ] || [ $code = 2 ]
    not grep -E '^[^ ]+ +(FAIL|BAD)' /tmp/autopkgtest.log
    grep -Eq '^smoke +PASS' /tmp/autopkgtest.log
}

check 8 piuparts_is_content
check 44 autopkgtests_pass
summary
