# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False
# cython: freethreading_compatible=True, cdivision=True, auto_pickle=False, embedsignature=True, embedsignature.format=clinic
"""receive_ready: frames from many connections that select() says are ready."""

from cpython.mem cimport PyMem_Free, PyMem_Malloc
from cpython.object cimport PyObject
from cpython.pythread cimport PyThread_get_thread_ident
from cpython.tuple cimport PyTuple_GET_ITEM
from libc.errno cimport EAGAIN, EINTR
from libc.stdint cimport UINT64_MAX, int64_t, uint8_t

from .codec cimport Decoder, begin_section, end_section, section
from .connection cimport Connection
from .descriptors cimport SF_AT_ONCE, sf_receive
from .endpoint cimport GONE, try_turn
from .sender cimport has_tail, plan_in

from .. import errors, transport

cdef extern from "Python.h":
    Py_ssize_t PY_SSIZE_T_MAX
    ctypedef struct PyTypeObject
    object new_tuple "PyTuple_Type.tp_new"(PyTypeObject *kind, tuple arguments, PyObject *keywords)

cdef extern from *:
    """
    /* What is in a list that other threads may change: Cython would borrow it first. */
    #ifdef Py_GIL_DISABLED
    #define item_of(list, at) PyList_GetItemRef(list, at)
    #else
    #define item_of(list, at) Py_NewRef(PyList_GET_ITEM(list, at))
    #endif
    """
    object item_of(list, Py_ssize_t at)

cdef enum:
    ROUND = 64       # connections received from in one go, without the GIL
    SHARE = 65536    # bytes that one connection may bring in a round
    ARENA = 262144   # bytes for a whole round

cdef struct Arrival:
    int fd
    int64_t got      # bytes, 0 at the end of the stream, or a negative errno
    uint8_t *data


def receive_ready(list events, list conns, list data, bint progress, list results, end):
    """Receive from the connections with these events, and append (key, frames) to `results`.

    `events` are those of a poll, (descriptor, what it is ready for); `conns` and `data` have what is registered, by
    descriptor. At most 64 KiB are taken of each connection, so that none starves the others. `end(conn, error)` is
    told of one that has ended or failed, behind its last frames. With `progress`, one that brought no frame comes as
    (key, []). Returns the descriptors of those that have a tail to send, and of what is no connection.
    """
    cdef list rest = [], ready = []
    cdef Connection conn
    cdef Py_ssize_t number, i
    cdef uint8_t *arena
    kind = transport.FrameKey
    for number, _ in events:
        conn = item_of(conns, number) if number < len(conns) else None
        if conn is None or has_tail(conn):
            rest.append(number)
        else:
            ready.append(new_tuple(<PyTypeObject *>kind, ((conn, item_of(data, number)),), NULL))
    if not ready:
        return rest
    arena = <uint8_t *>PyMem_Malloc(ARENA)
    if arena == NULL:
        raise MemoryError
    try:
        for i in range(0, len(ready), ROUND):
            receive_round(ready[i:i + ROUND], progress, results, end, arena)
    finally:
        PyMem_Free(arena)
    return rest


cdef int receive_round(list keys, bint progress, list results, object end, uint8_t *arena) except -1:
    """Receive from at most ROUND connections."""
    cdef Arrival arrivals[ROUND]
    cdef list taken = []
    cdef Connection conn
    cdef Py_ssize_t count = 0, i = 0, done = 0, at = 0, before
    cdef unsigned long me = PyThread_get_thread_ident()
    try:
        for key in keys:
            conn = connection_of(key)
            if conn._methods is not None or conn.reading.owner == GONE:
                before = len(results)
                receive_through(key, conn, results, end)
                if progress and len(results) == before:
                    results.append((key, []))
                continue
            taken.append(key)
            arrivals[count].got = -EAGAIN
            if begin(conn, me, &arrivals[count].fd):
                count += 1
            else:
                taken.pop()
                if progress:
                    results.append((key, []))
        with nogil:
            for i in range(count):
                arrivals[i].data = arena + at
                if at < ARENA:
                    arrivals[i].got = sf_receive(arrivals[i].fd, arena + at, min(SHARE, ARENA - at), SF_AT_ONCE)
                if arrivals[i].got > 0:
                    at += arrivals[i].got
        for i in range(count):
            done = i + 1
            key = taken[i]
            conn = connection_of(key)
            before = len(results)
            try:
                arrive(key, conn, &arrivals[i], results, end)
            finally:
                finish(conn)
            if progress and len(results) == before:
                results.append((key, []))
    finally:
        put_back(taken, arrivals, done, count)
    return 0


cdef Connection connection_of(object key):
    """Return the connection of a FrameKey."""
    return <Connection>PyTuple_GET_ITEM(key, 0)


cdef int put_back(list taken, Arrival *arrivals, Py_ssize_t at, Py_ssize_t count) except -1:
    """Behind an exception that is not the connections' own: what has arrived for the others is kept, and whatever
    fails in this, each gives its turn back."""
    cdef Connection conn
    if at == count:
        return 0
    conn = connection_of(taken[at])
    try:
        if arrivals[at].got > 0:
            conn.take_back(arrivals[at].data, arrivals[at].got)
    finally:
        try:
            finish(conn)
        finally:
            put_back(taken, arrivals, at + 1, count)
    return 0


cdef bint begin(Connection conn, unsigned long me, int *fd) except -1:
    """Take the turn to read, if nobody has it, and the descriptor."""
    cdef section here
    cdef bint got
    begin_section(&here, conn)
    got = not conn.shut and try_turn(&conn.reading, me)
    end_section(&here)
    if not got:
        return False
    try:
        fd[0] = conn.begin_use()
    except OSError:
        conn.leave(&conn.reading)
        return False
    except BaseException:
        conn.leave(&conn.reading)
        raise
    return True


cdef int finish(Connection conn) except -1:
    """Give the turn back, which is not to be another's before the use is over."""
    try:
        conn.end_use()
    except OSError:
        pass  # it was closed meanwhile, which its selector knows
    finally:
        conn.leave(&conn.reading)
    return 0


cdef int arrive(object key, Connection conn, Arrival *arrival, list results, object end) except -1:
    """Decode what has arrived for one connection."""
    cdef Decoder decoder = conn.decoder
    cdef list frames
    if arrival.got == -EAGAIN or arrival.got == -EINTR:
        return 0
    try:
        conn.use(plan_in(conn))
        conn.fold()
        if arrival.got < 0:
            raise errors.os_error(-arrival.got)
        if not arrival.got:
            conn.end()
            frames, conn.rest = conn.rest, None
        else:
            frames = decode(conn, arrival)
        if frames:
            hand_over(key, conn, frames, results)
        decoder.check()
        if decoder.ended:
            raise errors.end_of_stream(decoder.at)
    except Exception as error:
        if not transport.is_own_error(error):
            raise
        end(conn, error)
    return 0


cdef int hand_over(object key, Connection conn, list frames, list results) except -1:
    """Append frames to the results; where there is no memory for that, the connection has them."""
    try:
        results.append((key, frames))
    except BaseException:
        conn.rest = frames
        raise
    return 0


cdef list decode(Connection conn, Arrival *arrival):
    """Return the frames that are now whole; what can't be decoded for lack of memory stays."""
    cdef Decoder decoder = conn.decoder
    decoder.check()
    if decoder.plan.own:
        decoder.append(arrival.data, arrival.got)
        return decoder.take_many(PY_SSIZE_T_MAX, UINT64_MAX)
    try:
        return decoder.decode_bytes(arrival.data, arrival.got)
    except BaseException:
        if decoder.fault is None:
            conn.take_back(arrival.data, arrival.got)
        raise


cdef int receive_through(object key, Connection conn, list results, object end) except -1:
    """Receive from a connection that is served through its socket's own methods."""
    try:
        hand_over(key, conn, conn.recv_many(PY_SSIZE_T_MAX, timeout=0), results)
        if conn.decoder.fault is not None:
            conn.decoder.check()
    except BlockingIOError:
        pass
    except Exception as error:
        if not transport.is_own_error(error):
            raise
        end(conn, error)
    return 0
