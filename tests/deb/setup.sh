#!/bin/sh
# bin/setup on a Debian that has next to nothing, with the network: /mnt has source.tar and the certificates of this
# machine, which may have to trust more than a fresh one does to reach what pip asks.
. /mnt/checks.sh
export PIP_CERT=/mnt/ca-certificates.crt

has_python_alone() {
    apt-get -qq update
    apt-get install --yes -qq --no-install-recommends python3
    rm -r /var/lib/apt/lists/*
    useradd --create-home somebody
    mkdir /srv/checkout
    tar -C /srv/checkout -xf /mnt/source.tar
    chown -R somebody: /srv/checkout
}

nobody_without_rights_is_left_in_the_dark() {
    cd /srv/checkout
    returns 69 setpriv --reuid somebody --regid somebody --clear-groups bin/setup 2>/tmp/stderr
    contains /tmp/stderr "apt-get install -y --no-install-recommends python3-venv"
    not ls .venv
}

debians_own_needs_no_compiler() {
    cd /srv/checkout
    returns 0 bin/setup --distro
    not command -v gcc
    .venv-distro/bin/python -m uwsgi_tls --version
}

is_ready_after_one_command() {
    cd /srv/checkout
    returns 0 bin/setup
    begin=$(date +%s%3N)
    returns 0 bin/setup
    [ $(($(date +%s%3N) - begin)) -lt 3000 ]
    bin/uwsgi-tls --version
}

check 43 has_python_alone
check 43 nobody_without_rights_is_left_in_the_dark
check 43 debians_own_needs_no_compiler
check 43 is_ready_after_one_command
summary
