# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False
# cython: freethreading_compatible=True, cdivision=True, auto_pickle=False, embedsignature=True, embedsignature.format=clinic
"""Encoder and Decoder: frames from bytes and bytes from frames, without I/O."""

from operator import index

cimport cython
from cpython.buffer cimport (PyBUF_FULL_RO, PyBuffer_IsContiguous, PyBuffer_Release, PyObject_CheckBuffer,
                             PyObject_GetBuffer)
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_CheckExact, PyBytes_GET_SIZE
from cpython.exc cimport PyErr_CheckSignals
from cpython.list cimport PyList_GET_SIZE
from cpython.mem cimport PyMem_Calloc, PyMem_Free, PyMem_Malloc, PyMem_Realloc
from cpython.object cimport PyObject
from libc.stdint cimport UINT64_MAX
from libc.string cimport memcpy, memmove

from .batch cimport FrameBatch, fill_view, new_batch, sf_span

from .. import errors
from ..errors import CONTEXT
from ..framings import OVERLONG, Frame, Framing, Need

cdef extern from "Python.h":
    Py_ssize_t PY_SSIZE_T_MAX
    PyObject *PyBytes_FromStringAndSize(const char *data, Py_ssize_t size) except NULL
    char *PyBytes_AsString(PyObject *value)
    int _PyBytes_Resize(PyObject **value, Py_ssize_t size) except -1
    PyObject **PySequence_Fast_ITEMS(object sequence)
    bint is_bytes "PyBytes_CheckExact"(PyObject *value)
    char *bytes_in "PyBytes_AS_STRING"(PyObject *value)
    Py_ssize_t bytes_size "PyBytes_GET_SIZE"(PyObject *value)
    void Py_INCREF(object value)
    void Py_XDECREF(PyObject *value)
    bytes bytes_of "PyBytes_FromStringAndSize"(const char *data, Py_ssize_t size)

cdef extern from *:
    """
    /* What is needed of a view of bytes: they don't change, and the caller holds them. */
    static void view_bytes(PyObject *value, Py_buffer *view)
    {
        view->buf = PyBytes_AS_STRING(value);
        view->len = PyBytes_GET_SIZE(value);
        view->obj = NULL;
    }
    """
    void view_bytes(object value, Py_buffer *view)

cdef enum:
    SIGNAL_FRAMES = 4096  # frames between two looks for a signal
    SPANS = 256  # frames that are found in one call
    FORE = 16  # payloads from one to that which is brought into the cache
    LARGE = 256  # bytes of a payload for which another is brought into the cache
    AHEAD = 2048  # so far behind it, and no more bytes than twice that

cdef uint8_t NOTHING  # where the bytes of an empty store are


# ---- arguments ----

cdef int hold(object value, Py_buffer *view, str what, bint writable) except -1:
    """Hold the bytes of an argument in `view` until PyBuffer_Release; a bytes object is held by the caller."""
    if not writable and PyBytes_CheckExact(value):
        view_bytes(value, view)
        return 0
    if not PyObject_CheckBuffer(value):
        raise errors.not_bytes_error(what, value)
    PyObject_GetBuffer(value, view, PyBUF_FULL_RO)
    if not PyBuffer_IsContiguous(view, b'C'):
        PyBuffer_Release(view)
        raise errors.not_contiguous_error(what)
    if writable and view.readonly:
        PyBuffer_Release(view)
        raise errors.read_only_error(what)
    return 0


cdef bytes new_bytes(const uint8_t *data, Py_ssize_t size):
    """Return new bytes: a copy of `data`, or room for it where that is NULL."""
    return bytes_of(<const char *>data, size)


cdef bytes payload_of(sf_scan *scan, const uint8_t *data):
    """Return the payload of the frame at `data`."""
    cdef bytes payload
    if scan.by == NULL:
        return new_bytes(data + scan.start, scan.stop - scan.start)
    payload = new_bytes(NULL, scan.plain)
    sf_unstuff(scan, data, <uint8_t *>PyBytes_AS_STRING(payload))
    return payload


cdef Py_ssize_t count_of(object out) noexcept:
    """Return the number of frames in what `deliver` fills."""
    return (<FrameBatch>out).found if type(out) is FrameBatch else PyList_GET_SIZE(out)


cdef int deliver(object out, sf_scan *scan, const uint8_t *data) except -1:
    """Add the payload of the frame at `data` to a list of bytes, or to a batch."""
    if type(out) is not FrameBatch:
        (<list>out).append(payload_of(scan, data))
    elif scan.by == NULL:
        (<FrameBatch>out).add(data + scan.start, scan.stop - scan.start)
    else:
        sf_unstuff(scan, data, (<FrameBatch>out).make(scan.plain))
    return 0


cdef int deliver_bytes(object out, bytes payload) except -1:
    """Add a payload that lies nowhere else."""
    cdef Py_ssize_t size = PyBytes_GET_SIZE(payload)
    if type(out) is not FrameBatch:
        (<list>out).append(payload)
    else:
        memcpy((<FrameBatch>out).make(size), PyBytes_AS_STRING(payload), size)
    return 0


# ---- framings, compiled ----

cdef class Plan:
    def __dealloc__(self):
        PyMem_Free(self.texts)
        PyMem_Free(self.children)


cdef Plan compile_framing(object framing, object limit, str overlong):
    """Compile a framing that may deliver at most `limit` bytes; a limit is one for its children too."""
    cdef Plan plan = Plan(), child
    cdef bytes text
    cdef Py_ssize_t i
    cdef list children = []
    name, numbers, texts, framings = framing.spec()
    plan.own = name == "own"
    plan.c.kind = &own_kind if plan.own else sf_kind_named(name.encode())
    plan.c.context = <void *>framing if plan.own else NULL
    plan.c.overlong = OVERLONG.index(overlong)
    if plan.c.kind == NULL or len(numbers) > SF_NUMBERS:
        raise TypeError(f"the core has no framing kind {name!r} with {len(numbers)} numbers")
    plan.c.max_length = limit
    for i in range(len(numbers)):
        plan.c.number[i] = numbers[i]
    plan.texts = <sf_text *>PyMem_Calloc(len(texts) + 1, sizeof(sf_text))
    plan.children = <const sf_framing **>PyMem_Calloc(len(framings) + 1, sizeof(void *))
    if plan.texts == NULL or plan.children == NULL:
        raise MemoryError
    for i, text in enumerate(texts):
        plan.texts[i].data = <const uint8_t *>PyBytes_AS_STRING(text)
        plan.texts[i].size = PyBytes_GET_SIZE(text)
    for i, part in enumerate(framings):
        child = compile_framing(part, min(limit, part.max_length), part.overlong if overlong == "error" else overlong)
        plan.own |= child.own
        plan.children[i] = &child.c
        children.append(child)
    plan.c.text = plan.texts
    plan.c.texts = len(texts)
    plan.c.child = plan.children
    plan.c.children = len(framings)
    plan.held = (texts, tuple(children), framing if plan.c.context != NULL else None)
    return plan


cdef Plan plan_of(object framing):
    """Return the compiled framing, kept with the framing object itself."""
    if not isinstance(framing, Framing):
        raise errors.not_framing_error(framing)
    cdef dict attributes = framing.__dict__
    plan = attributes.get("_core")
    if plan is None:
        plan = attributes.setdefault("_core", compile_framing(framing, framing.max_length, framing.overlong))
    return plan


# ---- framings of the user's own ----

cdef extern from "kind.h":
    void sf_bring_near(const uint8_t *data, uint64_t begin, uint64_t end, uint64_t size)
    int sf_found(sf_scan *scan, uint64_t size, uint64_t start, uint64_t stop)
    int sf_want(sf_scan *scan, uint64_t need)
    int sf_await(sf_scan *scan, uint64_t have, uint64_t size, uint64_t start, uint64_t stop)
    int sf_too_long(const sf_framing *framing, sf_scan *scan, uint64_t length, uint64_t seen, uint64_t have,
                    uint64_t size, uint64_t start, uint64_t stop)
    int sf_refuse(sf_wrapped *out, int fault, uint64_t number, uint64_t limit)
    int sf_skip_sized(const sf_framing *framing, const uint8_t *data, uint64_t size, sf_scan *scan)


cdef int scan_own(const sf_framing *framing, const uint8_t *data, uint64_t size, sf_scan *scan) except -2:
    """Ask the framing for the place of the next frame."""
    cdef uint64_t whole, start, stop
    if not size:
        return sf_want(scan, 1)
    own = <object>framing.context
    answer = own.measure(<object>scan.owner)
    if isinstance(answer, Need):
        count = answer.count
        if not isinstance(count, int) or not 0 < count <= PY_SSIZE_T_MAX:
            raise errors.measure_error(own, answer)
        sf_want(scan, count)
        scan.quiet = size + scan.need
        return SF_NEED
    if not isinstance(answer, Frame):
        raise errors.measure_error(own, answer)
    total, first, behind = answer
    if behind is None:
        behind = total
    for number in (total, first, behind):
        if not isinstance(number, int):
            raise errors.measure_error(own, answer)
    if not 0 < total <= PY_SSIZE_T_MAX or not 0 <= first <= behind <= total:
        raise errors.measure_error(own, answer)
    whole, start, stop = total, first, behind
    if stop - start > framing.max_length:
        return sf_too_long(framing, scan, stop - start, 1, size, whole, start, stop)
    if whole > size:
        return sf_await(scan, size, whole, start, stop)
    return sf_found(scan, whole, start, stop)


cdef int wrap_own(const sf_framing *framing, const uint8_t *payload, uint64_t size, sf_wrapped *out) except -2:
    """Ask the framing for the frame of a payload."""
    cdef bytes frame
    own = <object>framing.context
    if size > framing.max_length:
        return sf_refuse(out, SF_WRAP_TOO_LONG, size, framing.max_length)
    answer = own.wrap(new_bytes(payload, size))
    frame = bytes(memoryview(answer))
    out.body = <const uint8_t *>PyBytes_AS_STRING(frame)
    out.body_size = PyBytes_GET_SIZE(frame)
    out.object = <void *>frame
    Py_INCREF(frame)
    return 0


cdef sf_kind own_kind
own_kind.name = "own"
own_kind.scan = scan_own
own_kind.wrap = wrap_own
own_kind.skip = sf_skip_sized
own_kind.frames = NULL


# ---- payload to frame ----

cdef int ask_to_wrap(Plan plan, Py_buffer *view, sf_wrapped *wrapped, Py_ssize_t index) except -2:
    """Let a framing of the user's wrap a payload; the `ValueError` of one among several names its place."""
    try:
        return sf_wrap_frame(&plan.c, <const uint8_t *>view.buf, view.len, wrapped)
    except ValueError as error:
        if index < 0 or type(error) is not ValueError:
            raise
        raise errors.own_wrap_error(error, index) from error


cdef int wrap_payload(Plan plan, Py_buffer *view, sf_wrapped *wrapped, bint last, Py_ssize_t index) except -1:
    """Make what goes around a payload, or raise that it can't be sent; `release` ends its use. `index` is its
    place among others, or -1."""
    cdef bytes body
    cdef int status
    if plan.own:
        status = ask_to_wrap(plan, view, wrapped, index)
    else:
        status = sf_wrap_frame(&plan.c, <const uint8_t *>view.buf, view.len, wrapped)
    if status < 0:
        raise errors.wrap_error(wrapped.fault, wrapped.number, wrapped.limit, None if index < 0 else index)
    if last:
        raise errors.wrap_error(SF_WRAP_LAST, 0, 0, None if index < 0 else index)
    if wrapped.by != NULL:
        body = new_bytes(NULL, wrapped.body_size)
        sf_stuff(wrapped, <const uint8_t *>view.buf, view.len, <uint8_t *>PyBytes_AS_STRING(body))
        wrapped.body = <const uint8_t *>PyBytes_AS_STRING(body)
        wrapped.object = <void *>body
        Py_INCREF(body)
    return 0


cdef Py_ssize_t wrap_bytes(Plan plan, PyObject **payloads, Py_ssize_t most, Py_ssize_t enough, uint8_t *target,
                           Py_ssize_t *used) noexcept:
    """Wrap at `target` the first of `most` payloads, until there are `enough` bytes, and return how many; where that is
    NULL see that they can be wrapped. It stops in front of any that is not bytes, can't be wrapped or is large."""
    cdef sf_text texts[TEXTS]
    cdef Py_ssize_t count = 0
    cdef uint64_t size = 0
    most = min(most, <Py_ssize_t>TEXTS) if not plan.own else 0
    while count < most and is_bytes(payloads[count]):
        if count + FORE < most:
            sf_bring_near(<const uint8_t *>payloads[count + FORE], 0, 128, 128)
        texts[count].data = <const uint8_t *>bytes_in(payloads[count])
        texts[count].size = bytes_size(payloads[count])
        count += 1
    count = sf_wrap_many(&plan.c, texts, count, SMALL, enough, target, &size)
    used[0] = size
    return count


cdef void release(Py_buffer *view, sf_wrapped *wrapped) noexcept:
    """Let go of a payload and of what was made of it."""
    PyBuffer_Release(view)
    Py_XDECREF(<PyObject *>wrapped.object)


cdef Py_ssize_t frame_size(sf_wrapped *wrapped) noexcept:
    """Return the size of a wrapped payload's frame."""
    return wrapped.header_size + <Py_ssize_t>wrapped.body_size + wrapped.trailer_size


cdef Py_ssize_t place_frame(uint8_t *target, sf_wrapped *wrapped) noexcept:
    """Write the frame of a wrapped payload at `target`, which may overlap the payload; return its size."""
    memmove(target + wrapped.header_size, wrapped.body, wrapped.body_size)
    memcpy(target, wrapped.header, wrapped.header_size)
    memcpy(target + wrapped.header_size + wrapped.body_size, wrapped.trailer, wrapped.trailer_size)
    return frame_size(wrapped)


cdef bytes join_frame(sf_wrapped *wrapped):
    """Return the frame of a wrapped payload."""
    cdef bytes frame = new_bytes(NULL, frame_size(wrapped))
    place_frame(<uint8_t *>PyBytes_AS_STRING(frame), wrapped)
    return frame


@cython.final
cdef class Encoder:
    """Makes frames of payloads: `Encoder(framing)`.

    A payload is any C-contiguous bytes-like object. One that could not be decoded to the same bytes
    raises `ValueError` (`FrameTooLongError` where it is too long) and makes nothing.
    """

    def __cinit__(self, framing):
        self.plan = plan_of(framing)
        self.framing = framing

    def __init__(self, framing):
        if self.made:
            raise errors.reentry_error("Encoder")
        self.made = True

    def encode(self, payload):
        """Return the frame of one payload, as bytes."""
        cdef Py_buffer view
        cdef sf_wrapped wrapped
        wrapped.object = NULL
        hold(payload, &view, "payload", False)
        try:
            wrap_payload(self.plan, &view, &wrapped, False, -1)
            return join_frame(&wrapped)
        finally:
            release(&view, &wrapped)

    def encode_many(self, payloads):
        """Return the frames of all payloads of an iterable, one after the other, as bytes.

        An error names the payload's place, counted from 0.
        """
        cdef tuple items = tuple(payloads)
        cdef Py_ssize_t i = 0, look = 0, size = 0, room = 16 * len(items) + SMALL + 8, needed, count
        cdef Py_buffer view
        cdef sf_wrapped wrapped
        cdef bint last = False
        cdef PyObject *out
        for item in items:
            if PyBytes_CheckExact(item):
                room += PyBytes_GET_SIZE(item)
        out = PyBytes_FromStringAndSize(NULL, room)
        try:
            while i < len(items):
                if i >= look:
                    look = i + SIGNAL_FRAMES
                    PyErr_CheckSignals()
                if not last and room - size > SMALL + 8:
                    count = wrap_bytes(self.plan, PySequence_Fast_ITEMS(items) + i, len(items) - i,
                                       room - size - SMALL - 8, <uint8_t *>PyBytes_AsString(out) + size, &needed)
                    i += count
                    size += needed
                    if count:
                        continue
                hold(items[i], &view, "payload", False)
                try:
                    wrap_payload(self.plan, &view, &wrapped, last, i)
                    last = wrapped.last
                    needed = frame_size(&wrapped)
                    if needed > room - size:
                        room = size + needed + max(size, needed)
                        _PyBytes_Resize(&out, room)
                    size += place_frame(<uint8_t *>PyBytes_AsString(out) + size, &wrapped)
                    i += 1
                finally:
                    release(&view, &wrapped)
            if size != room:
                _PyBytes_Resize(&out, size)
            return <object>out
        finally:
            Py_XDECREF(out)

    def encode_into(self, payload, buffer, offset=0):
        """Write the frame of one payload into a writable buffer at `offset` and return its size in bytes.

        Raises `BufferTooSmallError`, having written nothing, where there is not enough room.
        """
        cdef Py_buffer view, target
        cdef sf_wrapped wrapped
        cdef Py_ssize_t needed
        where = index(offset)
        hold(buffer, &target, "buffer", True)
        try:
            if not 0 <= where <= target.len:
                raise errors.offset_error(where, target.len)
            hold(payload, &view, "payload", False)
            try:
                wrap_payload(self.plan, &view, &wrapped, False, -1)
                needed = frame_size(&wrapped)
                if needed > target.len - where:
                    raise errors.too_small_error(needed, target.len - where)
                return place_frame(<uint8_t *>target.buf + <Py_ssize_t>where, &wrapped)
            finally:
                release(&view, &wrapped)
        finally:
            PyBuffer_Release(&target)

    def __reduce__(self):
        raise errors.no_copy_error(self)


# ---- stream to frames ----

cdef class Block:
    def __dealloc__(self):
        PyMem_Free(self.data)

    def __getbuffer__(self, Py_buffer *view, int flags):
        cdef Py_ssize_t offset
        begin_view(&self.views)
        try:
            offset = self.offset
            fill_view(view, self, self.data + offset, self.size - offset, 0, flags)
        except BaseException:
            end_view(&self.views)
            raise

    def __releasebuffer__(self, Py_buffer *view):
        end_view(&self.views)


cdef Block new_block(Py_ssize_t size):
    """Return a block of `size` bytes, not written to."""
    cdef Block block = Block()
    block.data = <uint8_t *>PyMem_Malloc(size)
    if block.data == NULL:
        raise MemoryError
    block.size = size
    return block


cdef Long new_long(sf_scan *scan, Plan plan, bytes head, bytes payload):
    """Return the state of an overlong frame that is being passed over."""
    cdef Long long = Long()
    long.scan = scan[0]
    long.plan = plan
    long.head = head
    long.payload = payload
    return long


@cython.final
cdef class Decoder:
    """Finds the frames of one stream, however it is cut: `Decoder(framing)`.

    A fault in the stream (`MalformedFrameError`, `FrameTooLongError`) comes after all frames in front
    of it and is final: every later call raises it again. Any other exception leaves the decoder as it
    was, with nothing of the new bytes taken. Not to be shared by threads without a lock.
    """

    def __cinit__(self, framing):
        self.plan = plan_of(framing)
        self.given = framing

    @cython.critical_section
    def __init__(self, framing):
        if self.made:
            raise errors.reentry_error("Decoder")
        self.made = True

    @property
    @cython.critical_section
    def framing(self):
        """The framing. Setting it reads all bytes not yet delivered as frames by the new one."""
        return self.given

    @framing.setter
    @cython.critical_section
    def framing(self, framing):
        cdef Plan plan = plan_of(framing)
        self.enter()
        try:
            self.use(plan)
            self.given = framing
        finally:
            self.busy = False

    @property
    @cython.critical_section
    def need(self):
        """The least number of bytes missing for the next frame; 0 where next_frame() has an answer."""
        cdef sf_scan scan
        cdef Py_ssize_t at = 0
        cdef int status = SF_LONG
        if self.fault is not None or self.ended:
            return 0
        self.enter()
        try:
            scan.ended = 0
            scan.resume = self.resume
            if self.long is not None:
                scan = self.long.scan
            else:
                status = self.run(self.start(), self.end - self.begin, &scan)
            while status == SF_LONG:
                status = sf_skip_frame(self.start() + at, self.end - self.begin - at, &scan)
                if status == SF_FRAME and scan.by.overlong == SF_OVERLONG_SKIP:
                    at += scan.size
                    scan.resume = 0
                    status = self.run(self.start() + at, self.end - self.begin - at, &scan)
            return scan.need if status == SF_NEED else 0
        finally:
            self.busy = False

    @property
    @cython.critical_section
    def buffered(self):
        """The number of bytes held that are not yet delivered as frames."""
        return self.end - self.begin

    @property
    @cython.critical_section
    def skipped(self):
        """The number of overlong frames that were skipped."""
        return self.passed_over

    @property
    @cython.critical_section
    def position(self):
        """The stream offset of the next frame, in bytes; of the bad one after a fault."""
        return self.at - (self.long.scan.passed if self.long is not None else 0)

    @cython.critical_section
    def decode(self, data):
        """Feed `data` and return every frame that is now whole, as a list of bytes."""
        cdef Py_buffer view
        self.enter()
        try:
            hold(data, &view, "data", False)
            try:
                self.accept(view.len)
                if self.plan.own:
                    # Bytes that stay as they are, for as long as the framing keeps its view.
                    data = new_bytes(<const uint8_t *>view.buf, view.len)
                    self.source = memoryview(data)
                    return self.decode_bytes(<const uint8_t *>PyBytes_AS_STRING(data), view.len)
                return self.decode_bytes(<const uint8_t *>view.buf, view.len)
            finally:
                self.source = None
                PyBuffer_Release(&view)
        finally:
            self.busy = False

    @cython.critical_section
    def decode_batch(self, data):
        """Feed `data` and return every frame that is now whole, as a `FrameBatch`.

        In the core the payloads of bytes that come while nothing is held stay where they are.
        """
        cdef Py_buffer view
        cdef Py_ssize_t held
        self.enter()
        try:
            hold(data, &view, "data", False)
            try:
                self.accept(view.len)
                held = self.end - self.begin
                if held:
                    # An unfinished frame grows where it lies, and the others behind it.
                    self.append(<const uint8_t *>view.buf, view.len)
                    return self.take_batch(UINT64_MAX, held)
                if not PyBytes_CheckExact(data):
                    data = new_bytes(<const uint8_t *>view.buf, view.len)
                return self.batch_bytes(data)
            finally:
                PyBuffer_Release(&view)
        finally:
            self.busy = False

    @cython.critical_section
    def feed(self, data):
        """Take `data`, for next_frame() or iteration."""
        cdef Py_buffer view
        self.enter()
        try:
            hold(data, &view, "data", False)
            try:
                self.accept(view.len)
                self.append(<const uint8_t *>view.buf, view.len)
            finally:
                PyBuffer_Release(&view)
        finally:
            self.busy = False

    def next_frame(self):
        """Return the next frame, or None until more bytes come."""
        return self.next_now()

    @cython.critical_section
    def next_batch(self):
        """Return all frames that are whole, as a `FrameBatch`: an empty one until more bytes come."""
        self.enter()
        try:
            self.check()
            return self.take_batch(UINT64_MAX, self.end - self.begin)
        finally:
            self.busy = False

    def __iter__(self):
        return self

    def __next__(self):
        cdef bytes frame = self.next_now()
        if frame is None:
            raise StopIteration
        return frame

    @cython.critical_section
    def get_buffer(self, sizehint=-1):
        """Return a writable memoryview for the next bytes of the stream; call buffer_updated() after.

        It has `sizehint` bytes (default 64 KiB), but no more than 64 KiB beyond what is held of the
        unfinished frame. The pair is that of `asyncio.BufferedProtocol`.
        """
        cdef Py_ssize_t held, size
        cdef object hint = index(sizehint)
        self.enter()
        try:
            self.check()
            if self.ended:
                raise errors.ended_error()
            held = self.end - self.begin
            size = min(hint, held + SLACK) if hint > 0 else SLACK
            self.make_room(size, held + max(size, held))
            self.block.offset = self.end
            self.lent = size
            return memoryview(self.block)[:size]
        finally:
            self.busy = False

    @cython.critical_section
    def buffer_updated(self, nbytes):
        """Take the first `nbytes` bytes that were written into the buffer of get_buffer()."""
        cdef object count = index(nbytes)
        self.enter()
        try:
            self.check()
            if not 0 <= count <= self.lent:
                raise errors.not_lent_error(count, self.lent)
            self.end += count
            self.lent = 0
            if self.end == self.begin:
                self.tidy()
        finally:
            self.busy = False

    @cython.critical_section
    def finish(self):
        """Say that the stream has ended; return the last frames, as a list of bytes.

        Raises `IncompleteFrameError` where the stream ended inside a frame (after the last frames:
        at the next call).
        """
        self.enter()
        try:
            self.check()
            return self.close()
        finally:
            self.busy = False

    @cython.critical_section
    def take_buffered(self):
        """Return all bytes held and forget them: what follows belongs to someone else."""
        self.enter()
        try:
            if self.fault is not None and self.fault[0]:
                self.check()
            return self.take_rest()
        finally:
            self.busy = False

    @cython.critical_section
    def _midway(self):
        """Say whether an overlong frame is being passed over, of which nothing need be held."""
        return self.long is not None

    def __reduce__(self):
        raise errors.no_copy_error(self)

    @cython.critical_section
    cdef bytes next_now(self):
        """next_frame(), for other rooms."""
        cdef bytes frame
        if not self.busy:
            frame = self.take_whole_one()
            if frame is not None:
                return frame
        self.enter()
        try:
            self.check()
            return self.take()
        finally:
            self.busy = False

    @cython.critical_section
    cdef int feed_now(self, const uint8_t *data, Py_ssize_t size) except -1:
        """feed(), for other extensions."""
        self.enter()
        try:
            self.accept(size)
            self.append(data, size)
        finally:
            self.busy = False
        return 0

    @cython.critical_section
    cdef Py_ssize_t place_payloads(self, Payload *payloads, Py_ssize_t most) except -1:
        """Say where the next payloads lie, and have the decoder hold that memory until the next call."""
        cdef FrameBatch batch
        cdef sf_scan scan
        cdef Py_ssize_t held, count, i
        cdef int status = SF_FRAME
        self.enter()
        try:
            self.end_loan()
            self.check()
            held = self.end - self.begin
            if self.long is None and (not held or <uint64_t>held < self.least):
                return 0
            if self.plan.c.kind.frames != NULL and self.long is None and not self.lent:
                count = self.place_here(payloads, most, &scan, &status)
                if count or status == SF_NEED:
                    return count
            # What does not lie there as it is, or is not good.
            batch = self.take_batch(UINT64_MAX, held, most)
            for i in range(batch.found):
                payloads[i].data = batch.base + batch.place[i].start
                payloads[i].size = batch.place[i].stop - batch.place[i].start
            self.loan = batch
            return batch.found
        finally:
            self.busy = False

    # ---- what the methods are made of; the callers have entered ----

    cdef void end_loan(self) noexcept:
        """Let go of the memory that place_payloads() told of."""
        loan = self.loan
        self.loan = None
        if type(loan) is Block:
            end_view(&(<Block>loan).views)

    cdef Py_ssize_t place_here(self, Payload *payloads, Py_ssize_t most, sf_scan *scan, int *status) except -1:
        """Note where the payloads of the next whole, good frames lie, and lend the block that they are in. Where there
        is none, `status` says why: SF_NEED, or what the other ways are for."""
        cdef sf_span spans[SPANS]
        cdef Block block = self.block
        cdef Py_ssize_t count = 0, asked, found = 0, i
        cdef uint64_t used, searched
        cdef const uint8_t *start
        begin_view(&block.views)
        self.loan = block
        if self.least or self.resume:  # a part of the frame was searched already
            status[0] = self.look(scan)
            if status[0] == SF_FRAME and scan.by == NULL:
                payloads[0].data = self.start() + scan.start
                payloads[0].size = scan.stop - scan.start
                self.skip(scan.size)
                count = 1
        while status[0] == SF_FRAME and count < most and self.begin < self.end:
            asked = min(most - count, <Py_ssize_t>SPANS)
            start = self.start()
            found = self.plan.c.kind.frames(&self.plan.c, start, self.end - self.begin, spans, asked, &used, &searched)
            for i in range(found):
                payloads[count + i].data = start + spans[i].start
                payloads[count + i].size = spans[i].stop - spans[i].start
            count += found
            if found:
                self.skip(used)
            if found < asked:
                self.resume = searched
                break
        if count:
            return count
        self.end_loan()
        if status[0] == SF_FRAME:
            status[0] = self.look(scan)
        if status[0] == SF_NEED:
            self.tidy()
        return 0

    cdef int enter(self) except -1:
        """Refuse a call from inside another one."""
        if self.busy:
            raise errors.reentry_error("Decoder")
        self.busy = True
        return 0

    cdef int check(self) except -1:
        """Raise the fault that was found, if any."""
        if self.fault is not None:
            if self.fault[0] > 0:
                raise errors.scan_error(*self.fault)
            raise (errors.own_error if self.fault[0] else errors.incomplete_error)(*self.fault[1:])
        return 0

    cdef int accept(self, Py_ssize_t size) except -1:
        """So many bytes have come: refuse them behind a fault, or behind the end; a buffer that was lent is void."""
        self.check()
        if self.ended and size:
            raise errors.ended_error()
        self.lent = 0
        return 0

    cdef const uint8_t *start(self) noexcept:
        """Where the bytes held begin; never NULL, from which C lets nothing be counted, not even 0."""
        return self.block.data + self.begin if self.block is not None else &NOTHING

    cdef void use(self, Plan plan) noexcept:
        """Read what is held, and all that follows, by another framing."""
        self.plan = plan
        self.resume = self.least = self.whole = 0

    cdef int run(self, const uint8_t *data, Py_ssize_t size, sf_scan *scan) except -2:
        """Look for one frame at `data`, which lies in the store or in `source`."""
        cdef Block block = self.block
        self.own_fault = None
        if not self.plan.own or not size:
            return sf_scan_frame(&self.plan.c, data, size, scan)
        if block is not None and block.data <= data < block.data + block.size:
            block.offset = data - block.data
            view = memoryview(block).toreadonly()[:size]
        else:
            view = self.source[len(self.source) - size:]
        scan.owner = <void *>view
        try:
            return sf_scan_frame(&self.plan.c, data, size, scan)
        except errors.MalformedFrameError as error:
            if not isinstance(error, errors.MalformedFrameError):
                raise  # there was no memory to catch it with
            self.own_fault = (str(error), error.header)
            return SF_FAULT

    cdef void await_more(self, sf_scan *scan, Py_ssize_t held) noexcept:
        """Note what a scan of an unfinished frame found. Another one is of use once `least` bytes are here: a
        fault may show with any byte, but where the scan says otherwise."""
        self.resume = scan.resume
        self.whole = scan.size
        self.least = max(<uint64_t>(held + 1), scan.quiet)

    cdef int look(self, sf_scan *scan) except -2:
        """Look for the next frame in what is held."""
        cdef Py_ssize_t held = self.end - self.begin
        cdef int status
        if not held or <uint64_t>held < self.least:
            return SF_NEED
        scan.ended = 0
        scan.resume = self.resume
        status = self.run(self.start(), held, scan)
        if status == SF_NEED:
            self.await_more(scan, held)
        else:
            self.resume = self.least = self.whole = 0
        return status

    cdef int record(self, sf_scan *scan, const uint8_t *data, Py_ssize_t size, uint64_t position) except -1:
        """Keep the fault of the frame at `data`, at that position in the stream, and no bytes."""
        cdef bytes header
        if self.own_fault is not None:
            self.fault = (-1, self.own_fault[0], position, self.own_fault[1])
        else:
            header = new_bytes(data, min(size, CONTEXT))
            if self.long is not None:
                header = (self.long.head + header)[:CONTEXT]
                position -= self.long.scan.passed
            self.fault = (scan.fault, scan.number, scan.limit, position, scan.seen, header[:scan.seen])
        self.at = position
        self.long = None
        self.block = None
        self.begin = self.end = self.lent = 0
        return 0

    cdef int begin_long(self, sf_scan *scan, const uint8_t *data) except -1:
        """Begin to pass over an overlong frame."""
        cdef bytes payload = None
        if scan.by.overlong == SF_OVERLONG_TRUNCATE:
            payload = new_bytes(data + scan.start, scan.by.max_length)
        self.long = new_long(scan, self.plan, b"", payload)
        return 0

    cdef int pass_long(self, const uint8_t *data, Py_ssize_t size, bint ended, object out, sf_scan *scan) except -2:
        """Pass over more of an overlong frame: scan.size bytes are done with."""
        cdef Long long = self.long
        cdef bytes head
        cdef int status
        scan[0] = long.scan
        scan.ended = ended
        status = sf_skip_frame(data, size, scan)
        if status == SF_FAULT:
            return status
        head = long.head
        if len(head) < CONTEXT:
            head += new_bytes(data, min(scan.size, CONTEXT - len(head)))
        if status == SF_FRAME:
            if long.payload is not None:
                deliver_bytes(out, long.payload)
            else:
                self.passed_over += 1
            self.long = None
            return status
        self.long = new_long(scan, long.plan, head, long.payload)
        return status

    cdef int harvest(self, const uint8_t *data, Py_ssize_t size, Py_ssize_t limit, uint64_t room, object out,
                     Py_ssize_t *used, sf_scan *scan) except -2:
        """Add the payloads of the frames from `data` on, at most `limit` or about `room` bytes of them;
        `used` bytes are done with. What is known of the first frame, and of the one that is not whole
        at last, is in the decoder."""
        cdef Py_ssize_t at = 0, count = 0
        cdef int status = SF_FRAME
        cdef bint many = self.plan.c.kind.frames != NULL and <uint64_t>size <= room
        while count_of(out) < limit and <uint64_t>at < room:
            if many and self.long is None and not self.least:
                many = False  # behind one that is not good, there may be more such
                if type(out) is FrameBatch:
                    at += self.place_whole(out, data + at, size - at, limit - count_of(out))
                else:
                    at += self.take_whole(out, data + at, size - at, limit - count_of(out))
                continue
            count += 1
            if not count & (SIGNAL_FRAMES - 1):
                PyErr_CheckSignals()
            if self.long is not None:
                status = self.pass_long(data + at, size - at, False, out, scan)
                if status == SF_FAULT:
                    break
                at += scan.size
                if status == SF_NEED:
                    scan.size = 0
                    break
                continue
            if at == size or <uint64_t>(size - at) < self.least:
                scan.need = self.least - (size - at) if at < size else 0
                scan.size = self.whole
                status = SF_NEED
                break
            scan.ended = 0
            scan.resume = self.resume
            status = self.run(data + at, size - at, scan)
            if status == SF_FRAME:
                deliver(out, scan, data + at)
                at += scan.size
                self.resume = self.least = self.whole = 0
            elif status == SF_LONG:
                self.begin_long(scan, data + at)
                self.resume = self.least = self.whole = 0
            else:
                if status == SF_NEED:
                    self.await_more(scan, size - at)
                break
        used[0] = at
        return status

    cdef Py_ssize_t take_whole(self, list out, const uint8_t *data, Py_ssize_t size, Py_ssize_t limit) except -1:
        """Append the payloads of the whole, good frames from `data` on; return the bytes that they take. Of the next
        frame, so much as was searched is not searched again."""
        cdef sf_span spans[SPANS]
        cdef size_t found = SPANS, i, most
        cdef uint64_t used, searched = 0, start, length
        cdef Py_ssize_t taken = 0, rounds = 0
        while found == SPANS and limit:
            most = min(limit, SPANS)
            found = self.plan.c.kind.frames(&self.plan.c, data + taken, size - taken, spans, most, &used, &searched)
            for i in range(found):
                length = spans[i].stop - spans[i].start
                if length >= LARGE:
                    start = taken + spans[i].start + AHEAD
                    sf_bring_near(data, start, start + min(length, <uint64_t>(2 * AHEAD)), size)
                out.append(bytes_of(<const char *>data + taken + spans[i].start, length))
            taken += used
            limit -= found
            rounds += 1
            if not rounds & (SIGNAL_FRAMES // SPANS - 1):
                PyErr_CheckSignals()
        self.resume = searched if limit else 0
        return taken

    cdef Py_ssize_t place_whole(self, FrameBatch batch, const uint8_t *data, Py_ssize_t size,
                                Py_ssize_t limit) except -1:
        """Note where the payloads of the whole, good frames from `data` on lie; return the bytes that they take. Of the
        next frame, so much as was searched is not searched again."""
        cdef Py_ssize_t taken = 0, most, found
        cdef uint64_t used, searched
        if batch.side != NULL:
            return 0  # where they lie is of no use
        while limit:
            if batch.found == batch.room:
                batch.grow(batch.found * (size - taken) // taken if taken else 0)
            most = min(limit, batch.room - batch.found, <Py_ssize_t>SIGNAL_FRAMES)
            found = self.plan.c.kind.frames(&self.plan.c, data + taken, size - taken, batch.place + batch.found, most,
                                            &used, &searched)
            batch.move(found, data + taken)
            taken += used
            limit -= found
            if found < most:
                self.resume = searched
                break
            PyErr_CheckSignals()
        return taken

    cdef int make_room(self, Py_ssize_t extra, Py_ssize_t size) except -1:
        """Have room for `extra` bytes behind those held, in a block of `size` bytes if in a new one."""
        cdef Block block = self.block, new
        cdef Py_ssize_t held = self.end - self.begin
        cdef void *data
        self.lent = 0
        if block is not None:
            if block.size - self.end >= extra:
                return 0
            if begin_move(&block.views):
                if self.begin >= held and block.size - held >= extra:
                    memcpy(block.data, block.data + self.begin, held)
                    end_move(&block.views)
                    self.begin = 0
                    self.end = held
                    return 0
                if not self.begin:
                    data = PyMem_Realloc(block.data, size)
                    if data != NULL:
                        block.data = <uint8_t *>data
                        block.size = size
                    end_move(&block.views)
                    if data == NULL:
                        raise MemoryError
                    return 0
                end_move(&block.views)
        new = new_block(size)
        if held:
            memcpy(new.data, block.data + self.begin, held)
        self.block = new
        self.begin = 0
        self.end = held
        return 0

    cdef int append(self, const uint8_t *data, Py_ssize_t size) except -1:
        """Hold `size` bytes more; a frame of known size gets no more room than it needs."""
        cdef Py_ssize_t wanted = self.end - self.begin + size
        if not size:
            return 0
        self.make_room(size, wanted if wanted == size else
                       wanted + <Py_ssize_t>min(wanted, self.whole - wanted if self.whole > wanted else wanted))
        memmove(self.block.data + self.end, data, size)
        self.end += size
        return 0

    cdef int keep(self, const uint8_t *data, Py_ssize_t size) except -1:
        """Hold these bytes and no others."""
        cdef Block block = self.block
        if not size:
            self.block = None
        elif block is not None and size <= block.size <= 2 * size + SLACK and begin_move(&block.views):
            memmove(block.data, data, size)
            end_move(&block.views)
        else:
            self.block = new_block(size)
            memcpy(self.block.data, data, size)
        self.begin = 0
        self.end = size
        self.lent = 0
        return 0

    cdef int keep_first(self, Py_ssize_t size) except -1:
        """Hold no more than the first `size` bytes held, in memory of that size."""
        cdef Block block = new_block(size) if size else None
        if size:
            memcpy(block.data, self.start(), size)
        self.block = block
        self.begin = 0
        self.end = size
        return 0

    cdef void skip(self, Py_ssize_t size) noexcept:
        """Forget the first `size` bytes held, which were delivered as a frame."""
        self.begin += size
        self.at += size
        self.resume = self.least = self.whole = 0
        if self.begin == self.end:
            self.tidy()

    cdef bytes take_rest(self):
        """Return all bytes held and forget them."""
        cdef bytes rest = new_bytes(self.start(), self.end - self.begin)
        self.at += PyBytes_GET_SIZE(rest)
        self.begin = self.end = self.lent = 0
        self.resume = self.least = self.whole = 0
        self.block = None
        self.long = None
        return rest

    cdef void tidy(self) noexcept:
        """Give back memory that no unfinished frame needs."""
        cdef Py_ssize_t held = self.end - self.begin
        if self.lent:
            return
        if not held:
            self.block = None
            self.begin = self.end = 0
        elif self.block.size > 2 * held + SLACK:
            try:
                self.keep(self.start(), held)
            except MemoryError:
                pass

    cdef bytes take(self):
        """Take the next frame off what is held, or return None."""
        cdef sf_scan scan
        cdef bytes frame
        cdef list frames
        cdef int status = SF_LONG
        if self.long is None:
            status = self.look(&scan)
        if status == SF_FRAME:
            frame = payload_of(&scan, self.start())
            self.skip(scan.size)
            return frame
        if status == SF_FAULT:
            self.record(&scan, self.start(), self.end - self.begin, self.at)
            self.check()
        if status == SF_LONG:
            if self.long is None:
                self.begin_long(&scan, self.start())
            frames = self.take_many(1, UINT64_MAX)
            return frames[0] if frames else None
        self.tidy()
        return None

    cdef bytes take_whole_one(self):
        """Take the next frame off what is held where it is whole and good, and nothing else is to be seen to; None
        says nothing about it. No Python code runs."""
        cdef sf_span span
        cdef uint64_t used, searched
        cdef bytes frame
        if self.plan.c.kind.frames == NULL or self.begin == self.end or self.least or self.long is not None or self.lent:
            return None
        if not self.plan.c.kind.frames(&self.plan.c, self.start(), self.end - self.begin, &span, 1, &used, &searched):
            self.resume = searched
            return None
        frame = new_bytes(self.start() + span.start, span.stop - span.start)
        self.skip(used)
        return frame

    cdef list take_many(self, Py_ssize_t limit, uint64_t room):
        """Take at most `limit` frames, or about `room` bytes of them, off what is held."""
        cdef list out = []
        cdef sf_scan scan
        cdef Py_ssize_t used, held = self.end - self.begin
        cdef int status
        cdef Long long = self.long
        cdef uint64_t resume = self.resume, least = self.least, whole = self.whole, passed_over = self.passed_over
        try:
            status = self.harvest(self.start(), held, limit, room, out, &used, &scan)
            if status == SF_FAULT:
                self.record(&scan, self.start() + used, held - used, self.at + used)
        except BaseException:
            self.restore(held, long, resume, least, whole, passed_over)
            raise
        if status == SF_FAULT:
            if not out:
                self.check()
            return out
        self.begin += used
        self.at += used
        if status == SF_NEED or self.begin == self.end:
            self.tidy()
        return out

    cdef FrameBatch take_batch(self, uint64_t room, Py_ssize_t kept, Py_ssize_t limit=PY_SSIZE_T_MAX):
        """Take the frames that are whole, at most `limit` or about `room` bytes of them, off what is held, as a batch;
        where that fails, the first `kept` bytes are still held."""
        cdef FrameBatch batch
        cdef sf_scan scan
        cdef Py_ssize_t used, held = self.end - self.begin
        cdef int status
        cdef Long long = self.long
        cdef uint64_t resume = self.resume, least = self.least, whole = self.whole, passed_over = self.passed_over
        try:
            batch = new_batch(self.start())
            status = self.harvest(self.start(), held, limit, room, batch, &used, &scan)
            batch.settle(self.view_of(used if batch.found else 0))
            if status == SF_FAULT:
                self.record(&scan, self.start() + used, held - used, self.at + used)
        except BaseException:
            self.restore(kept, long, resume, least, whole, passed_over)
            raise
        if status == SF_FAULT:
            if not batch.found:
                self.check()
            return batch
        self.begin += used
        self.at += used
        if status == SF_NEED or self.begin == self.end:
            self.tidy()
        return batch

    cdef object view_of(self, Py_ssize_t size):
        """Return a view of the first `size` bytes held, that stays good: of the block, unless they are few of it."""
        if not size or size < self.block.size // 4:
            return memoryview(new_bytes(self.start(), size))
        self.block.offset = self.begin
        return memoryview(self.block)[:size].toreadonly()

    cdef FrameBatch batch_bytes(self, bytes data):
        """Find all frames in `data`, as a batch that keeps it; nothing is held."""
        cdef FrameBatch batch
        cdef sf_scan scan
        cdef const uint8_t *start = <const uint8_t *>PyBytes_AS_STRING(data)
        cdef Py_ssize_t used, size = PyBytes_GET_SIZE(data)
        cdef int status
        cdef Long long = self.long
        cdef uint64_t resume = self.resume, least = self.least, whole = self.whole, passed_over = self.passed_over
        try:
            self.source = memoryview(data)
            batch = new_batch(start)
            status = self.harvest(start, size, PY_SSIZE_T_MAX, UINT64_MAX, batch, &used, &scan)
            batch.settle(self.source if batch.found else memoryview(b""))
            if status == SF_FAULT:
                self.record(&scan, start + used, size - used, self.at + used)
            else:
                self.keep(start + used, size - used)
                self.at += used
        except BaseException:
            self.restore(0, long, resume, least, whole, passed_over)
            raise
        finally:
            self.source = None
        if status == SF_FAULT and not batch.found:
            self.check()
        return batch

    cdef list decode_bytes(self, const uint8_t *data, Py_ssize_t size):
        """Find all frames in what is held and `data`; copy no more of `data` than the frame that is
        cut needs."""
        cdef list out = []
        cdef sf_scan scan
        cdef Py_ssize_t held = self.end - self.begin, used = 0, more = 0, taken = 0, piece
        cdef int status = SF_NEED
        cdef Long long = self.long
        cdef uint64_t resume = self.resume, least = self.least, whole = self.whole, passed_over = self.passed_over
        cdef uint64_t wanted
        try:
            while used < held:
                status = self.harvest(self.start() + used, self.end - self.begin - used, PY_SSIZE_T_MAX if not taken
                                      else len(out) + 1, UINT64_MAX, out, &more, &scan)
                used += more
                if status == SF_FAULT:
                    self.record(&scan, self.start() + used, self.end - self.begin - used, self.at + used)
                    break
                if status == SF_NEED and used < held:
                    if taken == size:
                        break
                    wanted = scan.need  # may be more than a Py_ssize_t holds
                    if not scan.size:
                        wanted = max(wanted, <uint64_t>(512 + taken))
                    piece = <Py_ssize_t>min(wanted, <uint64_t>(size - taken))
                    self.append(data + taken, piece)
                    taken += piece
            if status != SF_FAULT and used >= held:
                # Nothing held is left: on with `data` where it lies.
                taken = used - held
                status = self.harvest(data + taken, size - taken, PY_SSIZE_T_MAX, UINT64_MAX, out, &more, &scan)
                taken += more
                if status == SF_FAULT:
                    self.record(&scan, data + taken, size - taken, self.at + held + taken)
                else:
                    self.keep(data + taken, size - taken)
                    self.at += held + taken
            elif status != SF_FAULT:
                self.begin += used
                self.at += used
                self.tidy()
        except BaseException:
            self.restore(held, long, resume, least, whole, passed_over)
            raise
        if status == SF_FAULT and not out:
            self.check()
        return out

    cdef list close(self, bint cut=False):
        """End the stream: return its last frames, or raise that one is cut off: also one that this end alone would
        make, where the stream was `cut`."""
        cdef list out = []
        cdef sf_scan scan
        cdef Py_ssize_t held = self.end - self.begin, used = 0, count
        cdef int status
        cdef Long long = self.long, passing
        cdef uint64_t resume = self.resume, least = self.least, whole = self.whole, passed_over = self.passed_over
        if self.ended:
            return []
        try:
            status = self.harvest(self.start(), held, PY_SSIZE_T_MAX, UINT64_MAX, out, &used, &scan)
            if status == SF_NEED:
                count = len(out)
                passing = self.long
                status = self.last(self.start() + used, held - used, out, &scan)
                if cut and len(out) > count:
                    del out[count:]
                    self.long = passing
                    status = SF_NEED
                    scan.size = 0
                    scan.need = 1
                if status != SF_FAULT:
                    used += scan.size
            if status == SF_FAULT:
                self.record(&scan, self.start() + used, held - used, self.at + used)
            else:
                if status == SF_NEED and (held > used or self.long is not None) and scan.need:
                    self.fault = self.cut_off(self.start() + used, held - used, scan.need, self.at + used)
                    self.begin += used
                else:
                    self.keep(NULL, 0)
                    used = held
                self.at += used
        except BaseException:
            self.restore(held, long, resume, least, whole, passed_over)
            raise
        self.ended = True
        if not out:
            self.check()
        return out

    cdef int last(self, const uint8_t *data, Py_ssize_t size, list out, sf_scan *scan) except -2:
        """Look for the frame that the end of the stream makes of what is left; scan.size bytes are done with."""
        cdef int status = SF_LONG
        if self.long is None:
            scan.ended = 1
            scan.resume = self.resume
            status = self.run(data, size, scan)
            if status == SF_FRAME:
                out.append(payload_of(scan, data))
            elif status == SF_LONG:
                self.begin_long(scan, data)
            elif status == SF_NEED:
                scan.size = 0
        if status == SF_LONG:
            status = self.pass_long(data, size, True, out, scan)
        return status

    cdef tuple cut_off(self, const uint8_t *data, Py_ssize_t size, uint64_t need, uint64_t position):
        """Return the fault of a stream that ended inside the frame that `data` is of."""
        cdef bytes partial = new_bytes(data, min(size, CONTEXT))
        if self.long is None:
            return (0, partial, size, need, position)
        return (0, (self.long.head + partial)[:CONTEXT], size + self.long.scan.passed, need,
                position - self.long.scan.passed)

    cdef void restore(self, Py_ssize_t held, Long long, uint64_t resume, uint64_t least, uint64_t whole,
                      uint64_t passed_over) noexcept:
        """Be as before a call that failed: all that was held then still is."""
        self.end = self.begin + held
        self.long = long
        self.resume = resume
        self.least = least
        self.whole = whole
        self.passed_over = passed_over
