# Read by the scripts beside it: runs checks one after another, says how each went, and counts.
#
# A check is a function that fails when a command in it does. README.md says what the numbers mean.

passed=0 failed=0

check() { # NUMBER FUNCTION
    # Not in a condition, where set -e would have no effect in the function.
    set +e
    (
        set -eux
        "$2"
    ) >"/root/check.log" 2>&1
    if [ $? = 0 ]; then
        passed=$((passed + 1))
        echo "ok     $1 $2$(sed -n 's/^note: / /p' /root/check.log | tr -d '\n')"
    else
        failed=$((failed + 1))
        echo "FAILED $1 $2"
        sed 's/^/       | /' /root/check.log | tail -n 20
    fi
}

summary() {
    echo "$passed passed, $failed failed"
    [ $failed = 0 ]
}

fail() {
    echo "$*"
    exit 1
}

equal() { # ACTUAL EXPECTED
    [ "$1" = "$2" ] || fail "got '$1', not '$2'"
}

not() { # COMMAND...: it fails; a bare `!` would not end the check
    if "$@"; then fail "$* succeeded"; fi
}

returns() { # STATUS COMMAND...
    wanted=$1
    shift
    code=0
    "$@" || code=$?
    [ $code = "$wanted" ] || fail "$* returned $code, not $wanted"
}

contains() { # FILE FIXED-STRING
    grep -qF -e "$2" "$1" || {
        cat "$1"
        fail "'$2' is not in it"
    }
}

within() { # SECONDS COMMAND...: it succeeds in that time
    tenths=$(($1 * 10))
    shift
    until "$@"; do
        tenths=$((tenths - 1))
        [ $tenths -gt 0 ] || fail "$* did not come true"
        sleep 0.1
    done
}
