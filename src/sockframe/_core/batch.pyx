# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False
# cython: freethreading_compatible=True, cdivision=True, auto_pickle=False, embedsignature=True, embedsignature.format=clinic
"""FrameBatch: many frames, without an object for each."""

cimport cython
from cpython.buffer cimport PyBUF_WRITABLE, Py_buffer
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_CheckExact, PyBytes_GET_SIZE
from cpython.exc cimport PyErr_CheckSignals
from cpython.mem cimport PyMem_Free, PyMem_Realloc
from cpython.number cimport PyNumber_Index
from cpython.object cimport PyObject
from cpython.pycapsule cimport PyCapsule_GetPointer, PyCapsule_New
from libc.stdint cimport INT32_MAX, int32_t, int64_t, uint8_t, uint64_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcpy, memset

from .. import errors

cdef extern from "Python.h":
    PyObject *PyBytes_FromStringAndSize(const char *data, Py_ssize_t size) except NULL
    char *PyBytes_AsString(PyObject *value)
    int _PyBytes_Resize(PyObject **value, Py_ssize_t size) except -1
    Py_buffer *PyMemoryView_GET_BUFFER(object view)
    bint Py_IsInitialized() nogil
    void Py_INCREF(object value)
    void Py_CLEAR(PyObject *value)
    void Py_DECREF(PyObject *value)
    bytes bytes_of "PyBytes_FromStringAndSize"(const char *data, Py_ssize_t size)

cdef extern from *:
    """
    #define WINDOW ((int64_t)1 << 31) /* bytes of a buffer that 31 bits can count */

    /* The Arrow C data interface: https://arrow.apache.org/docs/format/CDataInterface.html */
    struct ArrowSchema {
        const char *format, *name, *metadata;
        int64_t flags, n_children;
        struct ArrowSchema **children, *dictionary;
        void (*release)(struct ArrowSchema *);
        void *private_data;
    };
    struct ArrowArray {
        int64_t length, null_count, offset, n_buffers, n_children;
        const void **buffers;
        struct ArrowArray **children, *dictionary;
        void (*release)(struct ArrowArray *);
        void *private_data;
    };
    """
    const int64_t WINDOW

    struct ArrowSchema:
        const char *format
        const char *name
        int64_t flags
        void (*release)(ArrowSchema *) noexcept nogil

    struct ArrowArray:
        int64_t length, n_buffers
        const void **buffers
        void (*release)(ArrowArray *) noexcept nogil
        void *private_data

cdef extern from *:
    """
    /* Views of one view count each other, which CPython (3.13, 3.14) does without a lock: there each gets its own. */
    #ifdef Py_GIL_DISABLED
    #define OWN_VIEWS 1
    #else
    #define OWN_VIEWS 0
    #endif
    """
    bint OWN_VIEWS

cdef enum:
    FIRST = 64             # spans that a batch begins with
    SIGNAL_FRAMES = 4096   # frames between two looks for a signal
    INLINE = 12            # bytes of a payload that lie in an Arrow view itself
    NULLABLE = 2           # the flag of a schema

cdef struct View:          # of a payload, as Arrow's binary_view has it
    int32_t size
    uint8_t start[4]
    int32_t window, offset

cdef uint64_t NOTHING      # where the spans of an empty batch are


cdef class Spans:
    """Lends a batch's spans."""
    cdef FrameBatch batch
    cdef Py_ssize_t shape[2]
    cdef Py_ssize_t strides[2]

    def __cinit__(self, FrameBatch batch not None):
        self.batch = batch
        self.shape[0], self.shape[1] = batch.found, 2
        self.strides[0], self.strides[1] = sizeof(sf_span), sizeof(uint64_t)

    def __getbuffer__(self, Py_buffer *view, int flags):
        if flags & PyBUF_WRITABLE:
            raise BufferError("the spans of a batch can't be written to")
        view.buf = self.batch.place if self.batch.found else <void *>&NOTHING
        view.len = self.batch.found * sizeof(sf_span)
        view.itemsize = sizeof(uint64_t)
        view.format = b"q"
        view.ndim = 2
        view.shape = self.shape
        view.strides = self.strides
        view.suboffsets = NULL
        view.internal = NULL
        view.readonly = True
        view.obj = self


cdef class Part:
    """Lends a part of a batch's memory."""
    cdef FrameBatch batch
    cdef const uint8_t *start
    cdef Py_ssize_t size

    def __getbuffer__(self, Py_buffer *view, int flags):
        fill_view(view, self, <void *>self.start, self.size, 1, flags)


cdef object view_of(FrameBatch batch, const uint8_t *start, Py_ssize_t size):
    """Return a view of a part of a batch's memory, which any thread may make and drop."""
    cdef Part part
    cdef object owner = batch.held.obj
    cdef Py_ssize_t at
    if PyBytes_CheckExact(owner):
        at = start - <const uint8_t *>PyBytes_AS_STRING(owner)
        return memoryview(owner)[at:at + size]
    part = Part()
    part.batch = batch
    part.start = start
    part.size = size
    return memoryview(part)


cdef FrameBatch new_batch(const uint8_t *base):
    """Return a batch that is to be filled with payloads that lie behind `base`."""
    cdef FrameBatch batch = FrameBatch.__new__(FrameBatch)
    batch.base = base
    return batch


cdef FrameBatch batch_of(list frames):
    """Return a batch of these payloads."""
    cdef FrameBatch batch = new_batch(NULL)
    cdef bytes frame
    for frame in frames:
        memcpy(batch.make(PyBytes_GET_SIZE(frame)), PyBytes_AS_STRING(frame), PyBytes_GET_SIZE(frame))
    batch.settle(memoryview(b""))
    return batch


@cython.final
cdef class Views:
    """Gives a batch's payloads in turn. (Each generator of Cython's keeps a reference to their class.)"""

    cdef FrameBatch batch
    cdef Py_ssize_t at

    def __iter__(self):
        return self

    def __next__(self):
        cdef Py_ssize_t at = self.at  # once: threads may share it
        if at >= len(self.batch):
            raise StopIteration
        self.at = at + 1
        return self.batch.payload(at)


@cython.final
cdef class FrameBatch:
    """The payloads of many frames, without an object for each: a sequence of read-only memoryviews.

    They are made when asked for; a slice is a batch of some of them, in the same memory. A batch comes from
    `decode_batch()`, `next_batch()` or `recv_batch()` and never changes, whatever becomes of the decoder; threads
    may share it. It keeps its whole `buffer`, so for a few payloads out of many take bytes() of them. An
    Arrow library takes it as it is, without a copy: `pyarrow.array(batch)`, `polars.Series(batch)`.
    """

    def __init__(self):
        raise errors.no_batch_error()

    def __dealloc__(self):
        PyMem_Free(self.place)
        Py_CLEAR(self.side)

    @property
    def spans(self):
        """Where each payload begins and ends in `buffer`: a read-only memoryview of int64, n x 2."""
        return memoryview(Spans(self if self.held is not None else new_batch(NULL)))

    @property
    def buffer(self):
        """The bytes that the payloads lie in, as a read-only memoryview; what else is there may be anything."""
        if self.held is None:
            return memoryview(b"")
        return view_of(self, self.base, len(self.held)) if OWN_VIEWS else self.held[:]

    def __len__(self):
        return self.found if self.held is not None else 0

    def __getitem__(self, key):
        cdef Py_ssize_t i, first, step, count
        cdef FrameBatch part
        if isinstance(key, slice):
            first, stop, step = key.indices(len(self))
            count = len(range(first, stop, step))
            part = new_batch(self.base)
            part.reserve(count)
            for i in range(count):
                part.place[i] = self.place[first + i * step]
            part.found = count
            part.held = self.held
            return part
        at = PyNumber_Index(key)
        count = len(self)
        if not -count <= at < count:
            raise IndexError("FrameBatch index out of range")
        return self.payload(at if at >= 0 else at + count)

    def __iter__(self):
        cdef Views views = Views.__new__(Views)
        views.batch = self
        return views

    def index(self, value, start=0, stop=None):
        """Return the place of the first payload that equals `value`; `ValueError` where there is none."""
        cdef Py_ssize_t i, first, last
        first, last, _ = slice(start, stop).indices(len(self))
        for i in range(first, last):
            if self.payload(i) == value:
                return i
            if not i & (SIGNAL_FRAMES - 1):
                PyErr_CheckSignals()
        raise errors.no_payload_error()

    def count(self, value):
        """Return how many payloads equal `value`."""
        cdef Py_ssize_t i, equal = 0
        for i in range(len(self)):
            equal += self.payload(i) == value
            if not i & (SIGNAL_FRAMES - 1):
                PyErr_CheckSignals()
        return equal

    def tolist(self):
        """Return the payloads as a list of bytes."""
        cdef Py_ssize_t i
        cdef list out = []
        for i in range(len(self)):
            out.append(bytes_of(<const char *>self.base + self.place[i].start, self.place[i].stop - self.place[i].start))
            if not i & (SIGNAL_FRAMES - 1):
                PyErr_CheckSignals()
        return out

    def join(self):
        """Return the payloads one behind the other, as bytes."""
        cdef Py_ssize_t i, size = 0, at = 0, count = len(self)
        cdef bytes out
        for i in range(count):
            size += self.place[i].stop - self.place[i].start
        out = bytes_of(NULL, size)
        for i in range(count):
            size = self.place[i].stop - self.place[i].start
            memcpy(PyBytes_AS_STRING(out) + at, self.base + self.place[i].start, size)
            at += size
        return out

    def __arrow_c_array__(self, requested_schema=None):
        """Return the payloads as an Arrow array of type binary_view, over this same memory.

        It is a pair of PyCapsules, as the Arrow PyCapsule interface has it; no Arrow library is needed.
        `requested_schema` is not heeded, as that interface allows. A payload of 2 GiB or more is a `ValueError`.
        """
        return schema_capsule(), array_capsule(self)

    def __repr__(self):
        return f"<FrameBatch of {len(self)} frames>"

    def __reduce__(self):
        raise errors.no_pickle_error(self)

    # ---- how it is filled ----

    cdef int reserve(self, Py_ssize_t room) except -1:
        """Have room for so many spans."""
        cdef void *place = PyMem_Realloc(self.place, room * sizeof(sf_span))
        if place == NULL:
            raise MemoryError
        self.place = <sf_span *>place
        self.room = room
        return 0

    cdef int grow(self, Py_ssize_t expected) except -1:
        """Have room for more spans: for so many as are expected, but not for all of them at once."""
        return self.reserve(self.room + max(<Py_ssize_t>FIRST, min(expected, 7 * self.room)))

    cdef int add(self, const uint8_t *payload, Py_ssize_t size) except -1:
        """Add a payload that lies behind `base`."""
        if self.side != NULL:
            memcpy(self.make(size), payload, size)
            return 0
        if self.found == self.room:
            self.grow(self.room)
        self.place[self.found].start = payload - self.base
        self.place[self.found].stop = payload - self.base + size
        self.found += 1
        return 0

    cdef void move(self, Py_ssize_t count, const uint8_t *start) noexcept:
        """Take in the next `count` spans, which were written behind the others, and count from `start`."""
        cdef uint64_t shift = start - self.base
        cdef sf_span *span = self.place + self.found
        cdef Py_ssize_t i
        self.found += count
        if shift:
            for i in range(count):
                span[i].start += shift
                span[i].stop += shift

    cdef uint8_t *make(self, Py_ssize_t size) except NULL:
        """Add a payload that the caller makes, and return where to; from then on all lie there."""
        cdef sf_span *span
        cdef Py_ssize_t i, length
        if self.found == self.room:
            self.grow(self.room)
        if self.side == NULL:
            for i in range(self.found):
                self.filled += self.place[i].stop - self.place[i].start
            self.side = PyBytes_FromStringAndSize(NULL, self.filled + size)
            self.filled = 0
            for i in range(self.found):
                span = &self.place[i]
                length = span.stop - span.start
                memcpy(PyBytes_AsString(self.side) + self.filled, self.base + span.start, length)
                span.start = self.filled
                span.stop = self.filled = self.filled + length
        elif size > PyBytes_GET_SIZE(<object>self.side) - self.filled:
            _PyBytes_Resize(&self.side, self.filled + size + max(self.filled, size))
        span = &self.place[self.found]
        span.start = self.filled
        span.stop = self.filled = self.filled + size
        self.found += 1
        return <uint8_t *>PyBytes_AsString(self.side) + span.start

    cdef int settle(self, object view) except -1:
        """All are found; `view` holds what is behind `base`."""
        cdef void *place
        if self.side != NULL:
            _PyBytes_Resize(&self.side, self.filled)
            view = memoryview(<object>self.side)
        if self.room > 2 * self.found:
            place = PyMem_Realloc(self.place, self.found * sizeof(sf_span))
            if place != NULL:
                self.place = <sf_span *>place
                self.room = self.found
        self.base = <const uint8_t *>PyMemoryView_GET_BUFFER(view).buf
        self.held = view
        return 0

    cdef object payload(self, Py_ssize_t i):
        """Return a view of one payload."""
        if OWN_VIEWS:
            return view_of(self, self.base + self.place[i].start, self.place[i].stop - self.place[i].start)
        return self.held[self.place[i].start:self.place[i].stop]


# ---- for Arrow ----

cdef struct Export:        # what an ArrowArray has of a batch; what these point to is behind them
    PyObject *batch
    View *views
    const void **buffers
    int64_t *sizes


cdef void release_schema(ArrowSchema *schema) noexcept nogil:
    schema.release = NULL


cdef void drop_schema(object capsule) noexcept:
    """Free what a capsule holds."""
    cdef ArrowSchema *schema = <ArrowSchema *>PyCapsule_GetPointer(capsule, "arrow_schema")
    if schema.release != NULL:
        schema.release(schema)
    free(schema)


cdef object schema_capsule():
    """Return the schema of a batch."""
    cdef ArrowSchema *schema = <ArrowSchema *>calloc(1, sizeof(ArrowSchema))
    if schema == NULL:
        raise MemoryError
    schema.format = b"vz"
    schema.name = b""
    schema.flags = NULLABLE
    schema.release = release_schema
    try:
        return PyCapsule_New(schema, "arrow_schema", drop_schema)
    except BaseException:
        free(schema)
        raise


cdef void release_array(ArrowArray *array) noexcept nogil:
    cdef Export *exported = <Export *>array.private_data
    if Py_IsInitialized():  # where it ended, so does the process
        with gil:
            Py_DECREF(exported.batch)
    free(exported)
    array.release = NULL


cdef void drop_array(object capsule) noexcept:
    """Free what a capsule holds, where nobody took it."""
    cdef ArrowArray *array = <ArrowArray *>PyCapsule_GetPointer(capsule, "arrow_array")
    if array.release != NULL:
        array.release(array)
    free(array)


cdef object array_capsule(FrameBatch batch):
    """Return the array of a batch: its bytes are a buffer, or several where they are too many for 31 bits."""
    cdef Py_ssize_t count = len(batch), size = len(batch.buffer), windows = (size + WINDOW - 1) // WINDOW, i
    cdef Py_ssize_t behind = count * sizeof(View) + (windows + 3) * sizeof(void *) + windows * sizeof(int64_t)
    cdef ArrowArray *array = <ArrowArray *>calloc(1, sizeof(ArrowArray))
    cdef Export *exported = <Export *>malloc(sizeof(Export) + behind)
    try:
        if array == NULL or exported == NULL:
            raise MemoryError
        exported.views = <View *>(exported + 1)
        exported.buffers = <const void **>(exported.views + count)
        exported.sizes = <int64_t *>(exported.buffers + windows + 3)
        for i in range(count):
            write_view(&exported.views[i], batch.base, batch.place[i])
        exported.buffers[0] = NULL  # no payload is missing
        exported.buffers[1] = exported.views
        for i in range(windows):
            exported.buffers[2 + i] = batch.base + i * WINDOW
            exported.sizes[i] = min(size - i * WINDOW, 2 * WINDOW)  # one that begins in it ends in it
        exported.buffers[2 + windows] = exported.sizes
        array.length = count
        array.n_buffers = windows + 3
        array.buffers = exported.buffers
        array.private_data = exported
        capsule = PyCapsule_New(array, "arrow_array", drop_array)
    except BaseException:
        free(exported)
        free(array)
        raise
    exported.batch = <PyObject *>batch
    Py_INCREF(batch)
    array.release = release_array
    return capsule


cdef int write_view(View *view, const uint8_t *base, sf_span span) except -1:
    """Write one payload's view: the payload itself where it is short, or its start and its place."""
    cdef uint64_t size = span.stop - span.start
    if size > INT32_MAX:
        raise errors.arrow_size_error(size)
    memset(view, 0, sizeof(View))
    view.size = <int32_t>size
    if size <= INLINE:
        memcpy(<uint8_t *>view + sizeof(int32_t), base + span.start, size)
    else:
        memcpy(view.start, base + span.start, sizeof(view.start))
        view.window = <int32_t>(span.start // WINDOW)
        view.offset = <int32_t>(span.start % WINDOW)
    return 0
