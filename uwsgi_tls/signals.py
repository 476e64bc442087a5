"""Which signals the master blocks, to take them one by one (sigtimedwait(2))."""

import signal

# Those that tell of a fault in this very process must not be blocked (pthread_sigmask(3)), and stopping a job from the
# terminal stays what it is. SIGPIPE stays ignored: taken here, each line that says so would bring about the next.
_LEFT_ALONE = {
    signal.SIGKILL,
    signal.SIGSTOP,
    signal.SIGSEGV,
    signal.SIGBUS,
    signal.SIGFPE,
    signal.SIGILL,
    signal.SIGABRT,
    signal.SIGTRAP,
    signal.SIGSYS,
    signal.SIGTSTP,
    signal.SIGCONT,
    signal.SIGPIPE,
}
BLOCKED = signal.valid_signals() - _LEFT_ALONE
