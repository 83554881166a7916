# What the rooms of the core share: compiled framings, the store of a stream's bytes, the decoder.

from cpython.object cimport PyObject
from libc.stdint cimport uint8_t, uint32_t, uint64_t

from .batch cimport FrameBatch, sf_span
from .capi cimport Payload


cdef extern from "sockframe.h":
    enum:
        SF_ERROR
        SF_FAULT
        SF_NEED
        SF_FRAME
        SF_LONG
        SF_NUMBERS
        SF_TOO_LONG
        SF_WRAP_TOO_LONG
        SF_WRAP_LAST
        SF_OVERLONG_ERROR
        SF_OVERLONG_SKIP
        SF_OVERLONG_TRUNCATE

    ctypedef struct sf_text:
        const uint8_t *data
        uint64_t size

    ctypedef struct sf_kind

    ctypedef struct sf_framing:
        const sf_kind *kind
        uint64_t max_length
        int overlong
        uint64_t number[11]
        const sf_text *text
        size_t texts
        const sf_framing **child
        size_t children
        void *context

    ctypedef struct sf_scan:
        int ended
        uint64_t resume, size, start, stop, plain, need, quiet, number, limit, seen
        int fault
        const sf_framing *by
        uint64_t left, behind, passed
        void *owner

    ctypedef struct sf_wrapped:
        uint8_t header[256]
        uint8_t trailer[320]
        uint32_t header_size, trailer_size
        uint64_t replaced
        const uint8_t *body
        uint64_t body_size
        const sf_framing *by
        void *object
        int last
        int fault
        uint64_t number, limit

    ctypedef struct sf_kind:
        const char *name
        int (*scan)(const sf_framing *framing, const uint8_t *data, uint64_t size, sf_scan *scan) except -2
        int (*wrap)(const sf_framing *framing, const uint8_t *payload, uint64_t size, sf_wrapped *out) except -2
        int (*skip)(const sf_framing *framing, const uint8_t *data, uint64_t size, sf_scan *scan) noexcept
        size_t (*frames)(const sf_framing *framing, const uint8_t *data, uint64_t size, sf_span *spans, size_t most,
                         uint64_t *used, uint64_t *searched) noexcept

    const sf_kind *sf_kind_named(const char *name)
    int sf_scan_frame(const sf_framing *framing, const uint8_t *data, uint64_t size, sf_scan *scan) except -2
    int sf_skip_frame(const uint8_t *data, uint64_t size, sf_scan *scan)
    void sf_unstuff(const sf_scan *scan, const uint8_t *data, uint8_t *payload)
    int sf_wrap_frame(const sf_framing *framing, const uint8_t *payload, uint64_t size, sf_wrapped *out) except -2
    void sf_stuff(const sf_wrapped *wrapped, const uint8_t *payload, uint64_t size, uint8_t *body)
    size_t sf_wrap_many(const sf_framing *framing, const sf_text *payloads, size_t count, uint64_t largest,
                        uint64_t enough, uint8_t *target, uint64_t *used)


cdef extern from *:
    """
    /* Give a bytes object that nobody else has seen another size. _PyBytes_Resize would free it where
     * there is no memory, and with it what was received. */
    static inline int grow_bytes(PyObject **value, Py_ssize_t size)
    {
    #ifdef Py_TRACE_REFS
        PyObject *grown = PyBytes_FromStringAndSize(NULL, size);
        if (!grown)
            return -1;
        memcpy(PyBytes_AS_STRING(grown), PyBytes_AS_STRING(*value),
               (size_t)(PyBytes_GET_SIZE(*value) < size ? PyBytes_GET_SIZE(*value) : size));
        Py_DECREF(*value);
    #else
        PyObject *grown = (PyObject *)PyObject_Realloc(*value, offsetof(PyBytesObject, ob_sval) + (size_t)size + 1);
        if (!grown) {
            PyErr_NoMemory();
            return -1;
        }
        Py_SET_SIZE((PyVarObject *)grown, size);
        PyBytes_AS_STRING(grown)[size] = 0;
    #endif
        *value = grown;
        return 0;
    }
    """
    int grow_bytes(PyObject **value, Py_ssize_t size) except -1

cdef extern from *:
    """
    /* What threads share of an object is seen and changed in a section of its own, where they run at once; where they have
     * the GIL they are alone already. No section is long, waits, or has an exception leave it. */
    #ifdef Py_GIL_DISABLED
    typedef PyCriticalSection section;
    #define begin_section(section, owner) PyCriticalSection_Begin(section, (PyObject *)(owner))
    #define end_section(section) PyCriticalSection_End(section)
    #else
    typedef char section;
    #define begin_section(section, owner) ((void)(section))
    #define end_section(section) ((void)(section))
    #endif
    """
    ctypedef struct section:
        pass

    void begin_section(section *, object owner)
    void end_section(section *)

cdef extern from *:
    """
    /* Memory that views may hold on to: how many do, or -1 while it is moved. They may come and go in any thread, also in
     * the midst of a call that holds a lock; so there is none to wait for here. */
    #ifdef Py_GIL_DISABLED
    static inline int begin_view(Py_ssize_t *views)
    {
        Py_ssize_t count = __atomic_load_n(views, __ATOMIC_RELAXED);
        while (count >= 0)
            if (__atomic_compare_exchange_n(views, &count, count + 1, 1, __ATOMIC_ACQUIRE, __ATOMIC_RELAXED))
                return 0;
        PyErr_SetString(PyExc_BufferError, "the memory is being moved in another thread");
        return -1;
    }
    static inline void end_view(Py_ssize_t *views) { __atomic_sub_fetch(views, 1, __ATOMIC_RELEASE); }
    static inline int begin_move(Py_ssize_t *views)
    {
        Py_ssize_t none = 0;
        return __atomic_compare_exchange_n(views, &none, -1, 0, __ATOMIC_ACQUIRE, __ATOMIC_RELAXED);
    }
    static inline void end_move(Py_ssize_t *views) { __atomic_store_n(views, 0, __ATOMIC_RELEASE); }
    #else
    #define begin_view(views) (++*(views), 0)
    #define end_view(views) ((void)--*(views))
    #define begin_move(views) (!*(views))
    #define end_move(views) ((void)(views))
    #endif
    """
    int begin_view(Py_ssize_t *views) except -1
    void end_view(Py_ssize_t *views)
    bint begin_move(Py_ssize_t *views)
    void end_move(Py_ssize_t *views)


cdef class Plan:
    """A framing compiled for csrc; shared by all that use the same framing object."""
    cdef sf_framing c
    cdef sf_text *texts
    cdef const sf_framing **children
    cdef tuple held
    cdef bint own


cdef class Block:
    """A piece of memory that views may hold on to."""
    cdef uint8_t *data
    cdef Py_ssize_t size, offset, views


cdef class Long:
    """An overlong frame that is being passed over."""
    cdef sf_scan scan
    cdef Plan plan
    cdef bytes head, payload


cdef class Encoder:
    cdef readonly object framing
    cdef Plan plan
    cdef bint made


cdef class Decoder:
    cdef object given
    cdef Plan plan
    cdef Block block
    cdef Py_ssize_t begin, end, lent
    cdef uint64_t resume, least, whole, at, passed_over
    cdef tuple fault
    cdef Long long
    cdef object source, loan
    cdef tuple own_fault
    cdef bint busy, ended, made

    cdef bytes next_now(self)
    cdef int feed_now(self, const uint8_t *data, Py_ssize_t size) except -1
    cdef Py_ssize_t place_payloads(self, Payload *payloads, Py_ssize_t most) except -1
    cdef void end_loan(self) noexcept
    cdef Py_ssize_t place_here(self, Payload *payloads, Py_ssize_t most, sf_scan *scan, int *status) except -1
    cdef int enter(self) except -1
    cdef int check(self) except -1
    cdef int accept(self, Py_ssize_t size) except -1
    cdef void use(self, Plan plan) noexcept
    cdef int run(self, const uint8_t *data, Py_ssize_t size, sf_scan *scan) except -2
    cdef void await_more(self, sf_scan *scan, Py_ssize_t held) noexcept
    cdef int look(self, sf_scan *scan) except -2
    cdef int record(self, sf_scan *scan, const uint8_t *data, Py_ssize_t size, uint64_t position) except -1
    cdef int begin_long(self, sf_scan *scan, const uint8_t *data) except -1
    cdef int pass_long(self, const uint8_t *data, Py_ssize_t size, bint ended, object out, sf_scan *scan) except -2
    cdef int harvest(self, const uint8_t *data, Py_ssize_t size, Py_ssize_t limit, uint64_t room, object out,
                     Py_ssize_t *used, sf_scan *scan) except -2
    cdef Py_ssize_t place_whole(self, FrameBatch batch, const uint8_t *data, Py_ssize_t size,
                                Py_ssize_t limit) except -1
    cdef Py_ssize_t take_whole(self, list out, const uint8_t *data, Py_ssize_t size, Py_ssize_t limit) except -1
    cdef const uint8_t *start(self) noexcept
    cdef int make_room(self, Py_ssize_t extra, Py_ssize_t size) except -1
    cdef int keep(self, const uint8_t *data, Py_ssize_t size) except -1
    cdef int keep_first(self, Py_ssize_t size) except -1
    cdef void skip(self, Py_ssize_t size) noexcept
    cdef bytes take_rest(self)
    cdef void tidy(self) noexcept
    cdef int append(self, const uint8_t *data, Py_ssize_t size) except -1
    cdef bytes take(self)
    cdef bytes take_whole_one(self)
    cdef list take_many(self, Py_ssize_t limit, uint64_t room)
    cdef FrameBatch take_batch(self, uint64_t room, Py_ssize_t kept, Py_ssize_t limit=*)
    cdef object view_of(self, Py_ssize_t size)
    cdef FrameBatch batch_bytes(self, bytes data)
    cdef list decode_bytes(self, const uint8_t *data, Py_ssize_t size)
    cdef list close(self, bint cut=*)
    cdef int last(self, const uint8_t *data, Py_ssize_t size, list out, sf_scan *scan) except -2
    cdef tuple cut_off(self, const uint8_t *data, Py_ssize_t size, uint64_t need, uint64_t position)
    cdef void restore(self, Py_ssize_t held, Long long, uint64_t resume, uint64_t least, uint64_t whole,
                      uint64_t passed_over) noexcept


cdef enum:
    SMALL = 16384  # frames up to this size are gathered
    TEXTS = 256  # payloads that are wrapped by one call
    SLACK = 65536  # bytes that an unfinished frame may hold beyond twice what arrived


cdef bytes new_bytes(const uint8_t *data, Py_ssize_t size)
cdef bytes payload_of(sf_scan *scan, const uint8_t *data)
cdef Plan plan_of(object framing)
cdef int hold(object value, Py_buffer *view, str what, bint writable) except -1
cdef int wrap_payload(Plan plan, Py_buffer *view, sf_wrapped *wrapped, bint last, Py_ssize_t index) except -1
cdef Py_ssize_t wrap_bytes(Plan plan, PyObject **payloads, Py_ssize_t most, Py_ssize_t enough, uint8_t *target,
                           Py_ssize_t *used) noexcept
cdef void release(Py_buffer *view, sf_wrapped *wrapped) noexcept
cdef Py_ssize_t frame_size(sf_wrapped *wrapped) noexcept
cdef Py_ssize_t place_frame(uint8_t *target, sf_wrapped *wrapped) noexcept
cdef bytes join_frame(sf_wrapped *wrapped)
