# The endpoint's C side, for the rooms that send and receive over it.

from cpython.pythread cimport NOWAIT_LOCK, PyThread_acquire_lock, PyThread_type_lock
from libc.stdint cimport int64_t


cdef struct Turn:
    unsigned long owner        # the thread that reads, or writes; 0: nobody
    PyThread_type_lock lock    # held by it, where another thread has ever waited for it

cdef unsigned long GONE  # holds a turn: a thread that stayed behind at a fork


cdef class Endpoint:
    # All of this is shared by threads: see `section`.
    cdef readonly object sock
    cdef readonly object _methods    # what serves a socket that is no plain one
    cdef readonly object _watcher    # the selector that it is registered with
    cdef Turn reading, writing
    cdef tuple turns                 # locks instead of those, where the socket's own methods may switch greenlets
    cdef int forks                   # that this process was away from the first, when it was last used
    cdef int using                   # calls that are at work with the socket
    cdef bint shut, made

    cdef void take_socket(self, object sock, object methods, tuple turns) noexcept
    cdef int change_socket(self, object sock, int64_t deadline) except -1
    cdef int give_away(self) except -1
    cdef int close_socket(self) except -1
    cdef int check_open(self) except -1
    cdef int after_fork(self) except -1
    cdef int give_up(self, Turn *turn, unsigned long me, bint stayed) except -1
    cdef bint is_mine(self, Turn *turn, unsigned long me) except -1
    cdef int64_t deadline(self, object timeout) except? -1
    cdef int enter(self, Turn *turn, int64_t deadline) except -1
    cdef int await_turn(self, Turn *turn, unsigned long me, int64_t deadline) except -1
    cdef int take_turn(self, object turn, int64_t deadline) except -1
    cdef void leave(self, Turn *turn) noexcept
    cdef int begin_use(self) except -1
    cdef int end_use(self) except -1
    cdef bint leave_socket(self) noexcept


cdef inline bint try_turn(Turn *turn, unsigned long me) noexcept:
    """Take a turn that nobody has, in a section. It has a lock from the first time on that a thread waited for it."""
    cdef bint got = PyThread_acquire_lock(turn.lock, NOWAIT_LOCK) if turn.lock != NULL else not turn.owner
    if got:
        turn.owner = me
    return got


cdef int64_t clock() except? -1
cdef tuple turns_at(object methods)
cdef object methods_of(Endpoint endpoint)
cdef object watcher_of(Endpoint endpoint)
