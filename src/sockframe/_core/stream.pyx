# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False
# cython: freethreading_compatible=True, cdivision=True, auto_pickle=False, embedsignature=True, embedsignature.format=clinic
"""StreamBuffer: the bytes of a stream, between what brings them and what asks for so many, or up to a separator."""

from operator import index

cimport cython
from cpython.buffer cimport PyBuffer_Release
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_CheckExact, PyBytes_GET_SIZE
from cpython.long cimport PyLong_CheckExact
from cpython.object cimport PyObject
from cpython.tuple cimport PyTuple_GET_ITEM
from libc.stdint cimport uint8_t
from libc.string cimport memchr, memcmp, memcpy, memmove

from .batch cimport fill_view
from .codec cimport SLACK, begin_move, begin_view, end_move, end_view, grow_bytes, hold

from .. import errors

cdef extern from "Python.h":
    Py_ssize_t PY_SSIZE_T_MAX
    PyObject *PyBytes_FromStringAndSize(const char *data, Py_ssize_t size) except NULL
    bytes bytes_of "PyBytes_FromStringAndSize"(const char *data, Py_ssize_t size)
    long PyLong_AsLongAndOverflow(object value, int *overflow) except? -1
    void Py_DECREF(PyObject *value)
    void Py_XDECREF(PyObject *value)

cdef extern from "find.h":
    const uint8_t *sf_find(const uint8_t *data, size_t size, const uint8_t *word, size_t length)

cdef enum:
    LARGE = 32768  # bytes that are rather handed out with the memory they are in than copied
    MISSES = 16    # bytes to search, that are worth a first byte of a separator which is none
    MANY = 1024


cdef class Room:
    """Memory to receive into: a bytes object that nobody else knows, until it is handed out."""
    cdef PyObject *memory
    cdef Py_ssize_t offset, views

    def __dealloc__(self):
        Py_XDECREF(self.memory)

    def __getbuffer__(self, Py_buffer *view, int flags):
        cdef Py_ssize_t offset
        begin_view(&self.views)
        try:
            if self.memory == NULL:
                raise BufferError("the memory is handed out")
            offset = self.offset
            fill_view(view, self, PyBytes_AS_STRING(<object>self.memory) + offset,
                      PyBytes_GET_SIZE(<object>self.memory) - offset, 0, flags)
        except BaseException:
            end_view(&self.views)
            raise

    def __releasebuffer__(self, Py_buffer *view):
        end_view(&self.views)


@cython.final
cdef class StreamBuffer:
    """Holds the bytes of a stream until they are taken: `StreamBuffer(limit)`.

    take_through() takes no more than `limit` bytes before a separator. take() and take_through() give None rather than
    leave fewer than `guard` bytes: then there is something else to see to. Not to be shared by threads without a lock.
    """

    cdef public Py_ssize_t limit
    cdef public Py_ssize_t guard
    cdef bytes source               # the bytes held are in these, which were fed, or
    cdef Room room                  # in here; in neither where there are none
    cdef const uint8_t *data
    cdef Py_ssize_t begin, end, lent, expected
    cdef list later                 # bytes behind those, large pieces as they were fed
    cdef Py_ssize_t behind          # how many
    cdef object searched_for        # is not in what is held
    cdef Py_ssize_t searched        # before here
    cdef object target              # a view that what comes goes to first, and as flat bytes
    cdef Py_buffer flat
    cdef Py_ssize_t filled

    @cython.critical_section
    def __init__(self, limit):
        self.limit = limit
        self.later = []

    def __dealloc__(self):
        PyBuffer_Release(&self.flat)  # nothing, where there is no target

    @property
    @cython.critical_section
    def held(self):
        """The number of bytes held."""
        return self.have()

    @property
    @cython.critical_section
    def missing(self):
        """The least number of bytes that have not come of those expected, or of those that a target has room for."""
        if self.target is not None:
            return self.flat.len - self.filled
        return max(0, self.expected - self.have())

    @cython.critical_section
    def feed(self, data):
        """Take bytes that came."""
        cdef Py_buffer view
        hold(data, &view, "data", False)
        self.lent = 0  # what get_buffer() lent is void
        try:
            if self.target is not None or not PyBytes_CheckExact(data):
                self.append(<const uint8_t *>view.buf, view.len)
            elif self.begin == self.end:
                self.drop()
                if view.len:
                    self.hold_bytes(<bytes>data)
            elif self.behind or view.len >= LARGE:
                self.hold_later(<bytes>data)
            else:
                self.hold_more(<const uint8_t *>view.buf, view.len)
        finally:
            PyBuffer_Release(&view)

    @cython.critical_section
    def get_buffer(self, sizehint=-1):
        """Return a writable memoryview for the next bytes that come; call buffer_updated() after.

        It is a target's own memory, while it has room; else it has 64 KiB or more, but no more than 64 KiB beyond what
        is held. The pair is that of `asyncio.BufferedProtocol`.
        """
        cdef Py_ssize_t held = self.end - self.begin, missing = self.expected - held, least, extra
        if self.target is not None and self.filled < self.flat.len:
            self.lent = self.flat.len - self.filled
            return self.target[self.filled:]
        if self.behind:
            self.join()
            held = self.end - self.begin
            missing = self.expected - held
        least, extra = SLACK, max(SLACK, held)
        if self.expected >= SLACK and missing > 0:  # room for them, and no more: so it can be handed out
            least = min(missing, SLACK)
            if missing <= held + SLACK:
                extra = missing
        self.make_room(least, held + extra)
        self.room.offset = self.end
        self.lent = PyBytes_GET_SIZE(<object>self.room.memory) - self.end
        return memoryview(self.room)

    @cython.critical_section
    def buffer_updated(self, nbytes):
        """Take the first `nbytes` bytes that were written into the buffer of get_buffer()."""
        cdef object given = index(nbytes)
        cdef Py_ssize_t count
        if not 0 <= given <= self.lent:
            raise errors.not_lent_error(given, self.lent)
        count = given
        self.lent = 0
        if self.target is not None and self.filled < self.flat.len:
            self.filled += count
            return
        self.end += count
        if self.begin == self.end:
            self.drop()

    @cython.critical_section
    def take(self, n):
        """Return the next `n` bytes, or None: where they are not all here, and where `n` is no positive int."""
        cdef int overflow
        cdef Py_ssize_t size
        if not PyLong_CheckExact(n):
            return None
        size = PyLong_AsLongAndOverflow(n, &overflow)
        if not 0 < size <= self.have() - self.guard:
            return None
        return self.cut(size)

    @cython.critical_section
    def take_through(self, separator):
        """Return what comes before the next separator, and the separator; or None, also where that is too much."""
        cdef Py_ssize_t at
        if not PyBytes_CheckExact(separator) or not PyBytes_GET_SIZE(separator):
            return None
        at = self.look_for(<bytes>separator)
        if at < 0 and self.behind:
            self.join()
            at = self.look_for(<bytes>separator)
        if at < 0 or at - self.begin > self.limit:
            return None
        at += PyBytes_GET_SIZE(separator)
        if self.end - at + self.behind < self.guard:
            return None
        return self.cut(at - self.begin)

    @cython.critical_section
    def take_some(self, n):
        """Return the next `n` bytes, or as many as there are."""
        cdef object given = index(n)
        cdef Py_ssize_t size = self.have()
        if given < size:
            size = max(0, given)
        return self.cut(size)

    @cython.critical_section
    def find(self, separators):
        """Return where the separator that ends first begins and ends, from the first byte held; or None.

        `separators` is a tuple of bytes, none empty, the shortest first: that one counts where several end there.
        """
        cdef Py_ssize_t at, start = -1, stop = PY_SSIZE_T_MAX, size = 0
        cdef const uint8_t *found
        cdef tuple several = separators
        cdef bytes separator
        self.join()
        if len(several) == 1:
            start = self.look_for(<bytes?>several[0])
            return None if start < 0 else (start - self.begin, start - self.begin + len(<bytes>several[0]))
        if self.searched_for is not several and self.searched_for != several:
            self.searched_for = several
            self.searched = self.begin
        at = self.searched
        for separator in several:
            size = len(separator)
            found = search(self.data + at, self.end - at, separator)
            if found != NULL and found - self.data + size < stop:
                start = found - self.data
                stop = start + size
        if start < 0:
            self.searched = max(at, self.end + 1 - size)
            return None
        return start - self.begin, stop - self.begin

    @cython.critical_section
    def expect(self, n):
        """Have `n` bytes come into one piece of memory, to be taken at once; 0: however they come."""
        cdef object given = index(n)
        self.expected = PY_SSIZE_T_MAX if given > PY_SSIZE_T_MAX else given

    @cython.critical_section
    def receive_into(self, view):
        """Have a view of flat and writable bytes filled: at once with what is held, then with what comes."""
        cdef Py_ssize_t size
        self.give_back()
        self.join()
        hold(view, &self.flat, "buffer", True)
        self.lent = self.filled = 0
        self.target = view
        size = min(self.flat.len, self.end - self.begin)
        if size:
            memmove(self.flat.buf, self.data + self.begin, size)
            self.begin += size
            self.searched = max(self.searched, self.begin)
            self.filled = size
            self.tidy()

    @cython.critical_section
    def release_target(self):
        """Be done with a target: its bytes are taken."""
        self.target = None
        self.filled = self.lent = 0
        PyBuffer_Release(&self.flat)  # nothing, where there is no target

    @cython.critical_section
    def give_back(self):
        """Be done with a target, and hold the bytes that went into it before all others."""
        cdef Py_ssize_t held = self.end - self.begin
        cdef bytes joined
        if self.filled:
            joined = bytes_of(NULL, self.filled + held)
            memcpy(PyBytes_AS_STRING(joined), self.flat.buf, self.filled)
            if held:
                memcpy(PyBytes_AS_STRING(joined) + self.filled, self.data + self.begin, held)
            self.drop()
            self.hold_bytes(joined)
        self.release_target()

    def __reduce__(self):
        raise errors.no_copy_error(self)

    # ---- what the methods are made of ----

    cdef void drop(self) noexcept:
        """Hold no bytes, nor memory for them."""
        self.source = None
        self.room = None
        self.data = NULL
        self.begin = self.end = self.lent = self.searched = 0

    cdef Py_ssize_t have(self) noexcept:
        """Return how many bytes are held."""
        return self.end - self.begin + self.behind

    cdef int join(self) except -1:
        """Have all bytes held in one piece: with room for as many again, where little comes at a time."""
        cdef Py_ssize_t total = self.have()
        cdef bytes piece
        if self.behind:
            self.make_room(self.behind, total + (total if total >= 2 * self.behind else 0))
            for piece in self.later:
                memcpy(<uint8_t *>self.data + self.end, PyBytes_AS_STRING(piece), PyBytes_GET_SIZE(piece))
                self.end += PyBytes_GET_SIZE(piece)
            self.later.clear()
            self.behind = 0
        return 0

    cdef bytes gather(self, Py_ssize_t size):
        """Take so many bytes, which are in several pieces."""
        cdef bytes taken = bytes_of(NULL, size), piece = None
        cdef uint8_t *place = <uint8_t *>PyBytes_AS_STRING(taken)
        cdef Py_ssize_t done = self.end - self.begin, part = 0, number = 0
        memcpy(place, self.data + self.begin, done)
        while done < size:
            piece = <bytes>self.later[number]
            part = min(size - done, PyBytes_GET_SIZE(piece))
            memcpy(place + done, PyBytes_AS_STRING(piece), part)
            done += part
            number += 1
        del self.later[:number]
        self.behind -= size - (self.end - self.begin) + PyBytes_GET_SIZE(piece) - part
        self.drop()
        self.hold_bytes(piece)
        self.begin = self.searched = part
        self.tidy()
        return taken

    cdef int hold_later(self, bytes data) except -1:
        """Hold some bytes as they are; small ones together with small ones before them."""
        cdef bytes merged = data, last
        cdef Py_ssize_t count = len(self.later)
        while count:
            last = <bytes>self.later[count - 1]
            if PyBytes_GET_SIZE(last) > min(PyBytes_GET_SIZE(merged), LARGE):
                break
            merged = last + merged
            count -= 1
        self.later[count:] = [merged]
        self.behind += PyBytes_GET_SIZE(data)
        return 0

    cdef void hold_bytes(self, bytes given) noexcept:
        """Hold these bytes, where there are no others."""
        self.source = given
        self.data = <const uint8_t *>PyBytes_AS_STRING(given)
        self.end = PyBytes_GET_SIZE(given)

    cdef int append(self, const uint8_t *data, Py_ssize_t size) except -1:
        """Take bytes that are somewhere else: into the target, and behind those held."""
        cdef Py_ssize_t part = min(size, self.flat.len - self.filled) if self.target is not None else 0
        if self.behind or (self.begin < self.end and size - part >= LARGE):
            if size > part:
                self.hold_later(bytes_of(<const char *>data + part, size - part))
        elif size > part:
            self.hold_more(data + part, size - part)
        if part:
            memmove(<uint8_t *>self.flat.buf + self.filled, data, part)
            self.filled += part
        return 0

    cdef int hold_more(self, const uint8_t *data, Py_ssize_t size) except -1:
        """Hold a copy of some bytes behind those held."""
        cdef Py_ssize_t held = self.end - self.begin, wanted = held + size
        if self.expected > wanted:
            self.make_room(size, min(self.expected, wanted + max(wanted, SLACK)))
        else:
            self.make_room(size, wanted + (wanted if held >= size else 0))
        memmove(<uint8_t *>self.data + self.end, data, size)
        self.end += size
        return 0

    cdef int make_room(self, Py_ssize_t extra, Py_ssize_t size) except -1:
        """Have room for `extra` bytes behind those held, in memory of `size` bytes if in other than they are in."""
        cdef Py_ssize_t held = self.end - self.begin, have
        cdef bint front = self.begin and self.expected - held >= LARGE  # what is handed out begins with its memory
        cdef Room room = self.room
        self.lent = 0
        if room is not None:
            have = PyBytes_GET_SIZE(<object>room.memory)
            if have - self.end >= extra and not front:
                return 0
            if begin_move(&room.views):
                try:
                    if self.begin and (front or self.begin >= held) and have - held >= extra:
                        memmove(<uint8_t *>self.data, self.data + self.begin, held)
                        self.move(self.data)
                        return 0
                    if not self.begin:
                        grow_bytes(&room.memory, size)
                        self.data = <const uint8_t *>PyBytes_AS_STRING(<object>room.memory)
                        return 0
                finally:
                    end_move(&room.views)
        room = Room()
        room.memory = PyBytes_FromStringAndSize(NULL, size)
        if held:
            memcpy(PyBytes_AS_STRING(<object>room.memory), self.data + self.begin, held)
        self.room = room
        self.move(<const uint8_t *>PyBytes_AS_STRING(<object>room.memory))
        self.source = None
        return 0

    cdef void move(self, const uint8_t *data) noexcept:
        """The bytes held are now at the beginning of `data`."""
        self.data = data
        self.end -= self.begin
        self.searched -= self.begin
        self.begin = 0

    cdef Py_ssize_t look_for(self, bytes separator) except -2:
        """Return where a separator begins in `data`, or -1; search nothing twice."""
        cdef const uint8_t *found
        cdef Py_ssize_t at
        if self.searched_for is not separator and self.searched_for != separator:
            self.searched_for = separator
            self.searched = self.begin
        at = self.searched
        found = search(self.data + at, self.end - at, separator)
        if found != NULL:
            self.searched = found - self.data
            return self.searched
        self.searched = max(at, self.end + 1 - PyBytes_GET_SIZE(separator))
        return -1

    cdef bytes cut(self, Py_ssize_t size):
        """Take so many bytes, which are here."""
        cdef bytes taken
        cdef Room room = self.room
        if size > self.end - self.begin:
            return self.gather(size)
        if room is not None and size >= LARGE and not self.begin and self.end - size < size and begin_move(&room.views):
            try:
                return self.hand_out(size)
            finally:
                end_move(&room.views)
        if self.source is not None and size == PyBytes_GET_SIZE(self.source):
            taken = self.source
        else:
            taken = bytes_of(<const char *>self.data + self.begin, size)
        self.begin += size
        self.searched = max(self.searched, self.begin)
        self.tidy()
        return taken

    cdef bytes hand_out(self, Py_ssize_t size):
        """Give away the room with the first `size` bytes, and keep those behind them."""
        cdef bytes behind = None, taken
        cdef PyObject *memory
        cdef Py_ssize_t rest = self.end - size, searched = self.searched
        if rest:
            behind = bytes_of(<const char *>self.data + size, rest)
        if size != PyBytes_GET_SIZE(<object>self.room.memory):
            grow_bytes(&self.room.memory, size)
        memory = self.room.memory
        self.room.memory = NULL
        self.drop()
        if rest:
            self.hold_bytes(behind)
            self.searched = max(0, searched - size)
        elif self.behind:
            self.advance()
        taken = <bytes>memory
        Py_DECREF(memory)
        return taken

    cdef void advance(self) noexcept:
        """Go on to the next piece."""
        self.hold_bytes(<bytes>self.later[0])
        self.behind -= self.end
        del self.later[0]

    cdef void tidy(self) noexcept:
        """Give back memory that the bytes held don't need."""
        cdef Py_ssize_t held = self.end - self.begin, have
        cdef bytes kept
        if not held:
            self.drop()
            if self.behind:
                self.advance()
            return
        have = PyBytes_GET_SIZE(self.source if self.source is not None else <object>self.room.memory)
        if have <= 2 * held + SLACK or self.lent:
            return
        try:
            kept = bytes_of(<const char *>self.data + self.begin, held)
        except MemoryError:
            return
        self.room = None
        self.source = kept
        self.move(<const uint8_t *>PyBytes_AS_STRING(kept))


cdef const uint8_t *search(const uint8_t *data, Py_ssize_t size, bytes separator) noexcept:
    """Return where a separator begins, or NULL.

    Its first byte is looked for, which is fast where that is rare; where it is not, by an algorithm for that.
    """
    cdef Py_ssize_t length = PyBytes_GET_SIZE(separator), missed = 0
    cdef const char *wanted = PyBytes_AS_STRING(separator)
    cdef const uint8_t *at = data
    cdef const uint8_t *last
    if size < length:
        return NULL
    last = data + size - length
    while at <= last:
        at = <const uint8_t *>memchr(at, wanted[0], last - at + 1)
        if at == NULL or length == 1 or not memcmp(at, wanted, length):
            return at
        at += 1
        missed += MISSES
        if missed > at - data + MANY:
            return sf_find(at, data + size - at, <const uint8_t *>wanted, length)
    return NULL
