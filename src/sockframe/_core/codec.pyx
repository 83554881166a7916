# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False
# cython: cdivision=True, auto_pickle=False, embedsignature=True, embedsignature.format=clinic
"""Encoder and Decoder: frames from bytes and bytes from frames, without I/O."""

from operator import index

cimport cython
from cpython.buffer cimport (PyBUF_FULL_RO, PyBuffer_FillInfo, PyBuffer_IsContiguous, PyBuffer_Release,
                             PyObject_CheckBuffer, PyObject_GetBuffer)
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_CheckExact, PyBytes_GET_SIZE
from cpython.exc cimport PyErr_CheckSignals
from cpython.mem cimport PyMem_Calloc, PyMem_Free, PyMem_Malloc, PyMem_Realloc
from cpython.object cimport PyObject
from libc.stdint cimport UINT64_MAX
from libc.string cimport memcpy, memmove

from .. import errors
from ..errors import CONTEXT
from ..framings import Framing

cdef extern from "Python.h":
    Py_ssize_t PY_SSIZE_T_MAX
    PyObject *PyBytes_FromStringAndSize(const char *data, Py_ssize_t size) except NULL
    char *PyBytes_AsString(PyObject *value)
    int _PyBytes_Resize(PyObject **value, Py_ssize_t size) except -1
    void Py_XDECREF(PyObject *value)
    bytes bytes_of "PyBytes_FromStringAndSize"(const char *data, Py_ssize_t size)

cdef enum:
    SIGNAL_FRAMES = 4096  # frames between two looks for a signal


# ---- arguments ----

cdef int hold(object value, Py_buffer *view, str what, bint writable) except -1:
    """Hold the bytes of an argument in `view` until PyBuffer_Release."""
    if not PyObject_CheckBuffer(value):
        raise errors.not_bytes_error(what, value)
    PyObject_GetBuffer(value, view, PyBUF_FULL_RO)
    if not PyBytes_CheckExact(value) and not PyBuffer_IsContiguous(view, b'C'):
        PyBuffer_Release(view)
        raise errors.not_contiguous_error(what)
    if writable and view.readonly:
        PyBuffer_Release(view)
        raise errors.read_only_error(what)
    return 0


cdef bytes new_bytes(const uint8_t *data, Py_ssize_t size):
    """Return new bytes: a copy of `data`, or room for it where that is NULL."""
    return bytes_of(<const char *>data, size)


# ---- framings, compiled ----

cdef class Plan:
    def __dealloc__(self):
        PyMem_Free(self.texts)
        PyMem_Free(self.children)


cdef Plan compile_spec(object spec, object limit):
    """Compile a framing's spec; its children may deliver no more than `limit` bytes either."""
    cdef Plan plan = Plan(), child
    cdef bytes text
    cdef Py_ssize_t i
    cdef list children = []
    name, numbers, texts, framings = spec
    plan.c.kind = sf_kind_named(name.encode())
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
    for i, framing in enumerate(framings):
        child = compile_spec(framing.spec(), min(limit, framing.max_length))
        plan.children[i] = &child.c
        children.append(child)
    plan.c.text = plan.texts
    plan.c.texts = len(texts)
    plan.c.child = plan.children
    plan.c.children = len(framings)
    plan.held = (texts, tuple(children))
    return plan


cdef Plan plan_of(object framing):
    """Return the compiled framing, kept with the framing object itself."""
    if not isinstance(framing, Framing):
        raise errors.not_framing_error(framing)
    cdef dict attributes = framing.__dict__
    plan = attributes.get("_core")
    if plan is None:
        plan = compile_spec(framing.spec(), framing.max_length)
        attributes["_core"] = plan
    return plan


# ---- payload to frame ----

cdef bytes join_frame(sf_wrapped *wrapped, const uint8_t *payload, Py_ssize_t size):
    """Return the frame of a wrapped payload."""
    cdef Py_ssize_t rest = size - <Py_ssize_t>wrapped.replaced
    cdef bytes frame = new_bytes(NULL, wrapped.header_size + rest + wrapped.trailer_size)
    place_frame(<uint8_t *>PyBytes_AS_STRING(frame), wrapped, payload, size)
    return frame


cdef Py_ssize_t place_frame(uint8_t *target, sf_wrapped *wrapped, const uint8_t *payload,
                                   Py_ssize_t size) noexcept:
    """Write the frame of a wrapped payload at `target`, which may overlap the payload; return its size."""
    cdef Py_ssize_t rest = size - <Py_ssize_t>wrapped.replaced
    memmove(target + wrapped.header_size, payload + wrapped.replaced, rest)
    memcpy(target, wrapped.header, wrapped.header_size)
    memcpy(target + wrapped.header_size + rest, wrapped.trailer, wrapped.trailer_size)
    return wrapped.header_size + rest + wrapped.trailer_size


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
        hold(payload, &view, "payload", False)
        try:
            if sf_wrap_frame(&self.plan.c, <const uint8_t *>view.buf, view.len, &wrapped) < 0:
                raise errors.wrap_error(wrapped.fault, wrapped.number, wrapped.limit)
            return join_frame(&wrapped, <const uint8_t *>view.buf, view.len)
        finally:
            PyBuffer_Release(&view)

    def encode_many(self, payloads):
        """Return the frames of all payloads of an iterable, one after the other, as bytes.

        An error names the payload's place, counted from 0.
        """
        cdef tuple items = tuple(payloads)
        cdef Py_ssize_t i, size = 0, room = 16 * len(items), needed
        cdef Py_buffer view
        cdef sf_wrapped wrapped
        cdef bint last = False
        cdef PyObject *out
        for item in items:
            if PyBytes_CheckExact(item):
                room += PyBytes_GET_SIZE(item)
        out = PyBytes_FromStringAndSize(NULL, room)
        try:
            for i in range(len(items)):
                hold(items[i], &view, "payload", False)
                try:
                    if sf_wrap_frame(&self.plan.c, <const uint8_t *>view.buf, view.len, &wrapped) < 0:
                        raise errors.wrap_error(wrapped.fault, wrapped.number, wrapped.limit, i)
                    if last:
                        raise errors.wrap_error(SF_WRAP_LAST, 0, 0, i)
                    last = wrapped.last
                    needed = wrapped.header_size + view.len - <Py_ssize_t>wrapped.replaced + wrapped.trailer_size
                    if needed > room - size:
                        room = size + needed + max(size, needed)
                        _PyBytes_Resize(&out, room)
                    size += place_frame(<uint8_t *>PyBytes_AsString(out) + size, &wrapped,
                                        <const uint8_t *>view.buf, view.len)
                finally:
                    PyBuffer_Release(&view)
                if not i & (SIGNAL_FRAMES - 1):
                    PyErr_CheckSignals()
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
                if sf_wrap_frame(&self.plan.c, <const uint8_t *>view.buf, view.len, &wrapped) < 0:
                    raise errors.wrap_error(wrapped.fault, wrapped.number, wrapped.limit)
                needed = wrapped.header_size + view.len - <Py_ssize_t>wrapped.replaced + wrapped.trailer_size
                if needed > target.len - where:
                    raise errors.too_small_error(needed, target.len - where)
                return place_frame(<uint8_t *>target.buf + <Py_ssize_t>where, &wrapped, <const uint8_t *>view.buf,
                                   view.len)
            finally:
                PyBuffer_Release(&view)
        finally:
            PyBuffer_Release(&target)

    def __reduce__(self):
        raise errors.no_copy_error(self)


# ---- stream to frames ----

cdef class Block:
    def __dealloc__(self):
        PyMem_Free(self.data)

    def __getbuffer__(self, Py_buffer *view, int flags):
        PyBuffer_FillInfo(view, self, self.data + self.offset, self.size - self.offset, 0, flags)
        self.exports += 1

    def __releasebuffer__(self, Py_buffer *view):
        self.exports -= 1


cdef Block new_block(Py_ssize_t size):
    """Return a block of `size` bytes, not written to."""
    cdef Block block = Block()
    block.data = <uint8_t *>PyMem_Malloc(size)
    if block.data == NULL:
        raise MemoryError
    block.size = size
    return block


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

    def __init__(self, framing):
        if self.made:
            raise errors.reentry_error("Decoder")
        self.made = True

    @property
    def framing(self):
        """The framing. Setting it reads all bytes not yet delivered as frames by the new one."""
        return self.given

    @framing.setter
    def framing(self, framing):
        cdef Plan plan = plan_of(framing)
        self.enter()
        try:
            self.use(plan)
            self.given = framing
        finally:
            self.busy = False

    @property
    def need(self):
        """The least number of bytes missing for the next frame; 0 where next_frame() has an answer."""
        cdef sf_scan scan
        cdef Py_ssize_t held = self.end - self.begin
        if self.fault is not None or self.ended:
            return 0
        scan.ended = 0
        scan.resume = self.resume
        if sf_scan_frame(&self.plan.c, self.start(), held, &scan) == SF_NEED:
            return scan.need
        return 0

    @property
    def buffered(self):
        """The number of bytes held that are not yet delivered as frames."""
        return self.end - self.begin

    @property
    def skipped(self):
        """The number of overlong frames that were skipped."""
        return 0

    @property
    def position(self):
        """The stream offset of the next frame, in bytes; of the bad one after a fault."""
        return self.at

    def decode(self, data):
        """Feed `data` and return every frame that is now whole, as a list of bytes."""
        cdef Py_buffer view
        self.enter()
        try:
            hold(data, &view, "data", False)
            try:
                self.check()
                if self.ended and view.len:
                    raise errors.ended_error()
                self.lent = 0
                return self.decode_bytes(<const uint8_t *>view.buf, view.len)
            finally:
                PyBuffer_Release(&view)
        finally:
            self.busy = False

    def feed(self, data):
        """Take `data`, for next_frame() or iteration."""
        cdef Py_buffer view
        self.enter()
        try:
            hold(data, &view, "data", False)
            try:
                self.check()
                if self.ended and view.len:
                    raise errors.ended_error()
                self.lent = 0
                self.append(<const uint8_t *>view.buf, view.len)
            finally:
                PyBuffer_Release(&view)
        finally:
            self.busy = False

    def next_frame(self):
        """Return the next frame, or None until more bytes come."""
        self.enter()
        try:
            self.check()
            return self.take()
        finally:
            self.busy = False

    def __iter__(self):
        return self

    def __next__(self):
        self.enter()
        try:
            self.check()
            frame = self.take()
        finally:
            self.busy = False
        if frame is None:
            raise StopIteration
        return frame

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
            self.make_room(size, held + size)
            self.block.offset = self.end
            self.lent = size
            return memoryview(self.block)[:size]
        finally:
            self.busy = False

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

    def take_buffered(self):
        """Return all bytes held and forget them: what follows belongs to someone else."""
        self.enter()
        try:
            if self.fault is not None and self.fault[0]:
                self.check()
            return self.take_rest()
        finally:
            self.busy = False

    def __reduce__(self):
        raise errors.no_copy_error(self)

    # ---- what the methods are made of; the callers have entered ----

    cdef int enter(self) except -1:
        """Refuse a call from inside another one."""
        if self.busy:
            raise errors.reentry_error("Decoder")
        self.busy = True
        return 0

    cdef int check(self) except -1:
        """Raise the fault that was found, if any."""
        if self.fault is not None:
            if self.fault[0]:
                raise errors.scan_error(*self.fault)
            raise errors.incomplete_error(*self.fault[1:])
        return 0

    cdef const uint8_t *start(self) noexcept:
        """Where the bytes held begin."""
        return self.block.data + self.begin if self.block is not None else NULL

    cdef void use(self, Plan plan) noexcept:
        """Read what is held, and all that follows, by another framing."""
        self.plan = plan
        self.resume = self.least = self.whole = 0

    cdef int look(self, sf_scan *scan, Py_ssize_t used) noexcept:
        """Look for a frame `used` bytes behind the first byte held."""
        cdef Py_ssize_t held = self.end - self.begin - used
        cdef int status
        if not held or <uint64_t>held < self.least:
            scan.need = self.whole - held if held else 0
            scan.size = self.whole
            return SF_NEED
        scan.ended = 0
        scan.resume = self.resume
        status = sf_scan_frame(&self.plan.c, self.start() + used, held, scan)
        if status == SF_NEED:
            self.remember(scan)
        else:
            self.resume = self.least = self.whole = 0
        return status

    cdef void remember(self, sf_scan *scan) noexcept:
        """Keep what a scan that needs more bytes has found out.

        Of a known frame nothing more can be said before its payload is here; a fault in what closes
        it shows with the first byte of that.
        """
        self.resume = scan.resume
        self.whole = scan.size
        self.least = 0 if not scan.size else scan.size if scan.stop == scan.size else scan.stop + 1

    cdef int record(self, sf_scan *scan, const uint8_t *data, uint64_t position) except -1:
        """Keep the fault of the frame at `data`, at that position in the stream, and no bytes."""
        self.fault = (scan.fault, scan.number, scan.limit, position, scan.seen,
                      new_bytes(data, min(scan.seen, CONTEXT)))
        self.at = position
        self.block = None
        self.begin = self.end = self.lent = 0
        return 0

    cdef int make_room(self, Py_ssize_t extra, Py_ssize_t size) except -1:
        """Have room for `extra` bytes behind those held, in a block of `size` bytes if in a new one."""
        cdef Block block = self.block, new
        cdef Py_ssize_t held = self.end - self.begin
        cdef void *data
        self.lent = 0
        if block is not None:
            if block.size - self.end >= extra:
                return 0
            if not block.exports and self.begin >= held and block.size - held >= extra:
                memcpy(block.data, block.data + self.begin, held)
                self.begin = 0
                self.end = held
                return 0
            if not block.exports and not self.begin:
                data = PyMem_Realloc(block.data, size)
                if data == NULL:
                    raise MemoryError
                block.data = <uint8_t *>data
                block.size = size
                return 0
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
        elif block is None or block.exports or block.size < size or block.size > 2 * size + SLACK:
            self.block = new_block(size)
            memcpy(self.block.data, data, size)
        else:
            memmove(block.data, data, size)
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
        cdef int status = self.look(&scan, 0)
        if status == SF_FRAME:
            frame = new_bytes(self.start() + scan.start, scan.stop - scan.start)
            self.skip(scan.size)
            return frame
        if status == SF_FAULT:
            self.record(&scan, self.start(), self.at)
            self.check()
        self.tidy()
        return None

    cdef list take_many(self, Py_ssize_t limit, uint64_t room):
        """Take at most `limit` frames, or about `room` bytes of them, off what is held."""
        cdef list out = []
        cdef sf_scan scan
        cdef Py_ssize_t used = 0, count = 0
        cdef int status = SF_FRAME
        while count < limit and <uint64_t>used < room:
            status = self.look(&scan, used)
            if status != SF_FRAME:
                break
            out.append(new_bytes(self.start() + used + scan.start, scan.stop - scan.start))
            used += scan.size
            count += 1
            if not count & (SIGNAL_FRAMES - 1):
                PyErr_CheckSignals()
        if status == SF_FAULT:
            self.record(&scan, self.start() + used, self.at + used)
            if not out:
                self.check()
            return out
        self.begin += used
        self.at += used
        if status == SF_NEED or self.begin == self.end:
            self.tidy()
        return out

    cdef list decode_bytes(self, const uint8_t *data, Py_ssize_t size):
        """Find all frames in what is held and `data`; copy no more of `data` than the frame that is
        cut needs."""
        cdef list out = []
        cdef sf_scan scan
        cdef Py_ssize_t held = self.end - self.begin, used = 0, taken = 0, piece, count = 0
        cdef uint64_t resume = self.resume, least = self.least, whole = self.whole
        cdef int status = SF_NEED
        try:
            while used < held:
                status = self.look(&scan, used)
                if status == SF_FRAME:
                    out.append(new_bytes(self.start() + used + scan.start, scan.stop - scan.start))
                    used += scan.size
                    count += 1
                    if not count & (SIGNAL_FRAMES - 1):
                        PyErr_CheckSignals()
                elif status == SF_FAULT or taken == size:
                    break
                else:
                    piece = scan.need
                    if not scan.size:
                        piece = max(piece, 512 + taken)
                    piece = min(piece, size - taken)
                    self.append(data + taken, piece)
                    taken += piece
            if used < held:
                # All of `data` is held, or the fault is in what is held.
                if status == SF_FAULT:
                    self.record(&scan, self.start() + used, self.at + used)
                    if not out:
                        self.check()
                else:
                    self.begin += used
                    self.at += used
                    self.tidy()
                return out
            taken = used - held
            if self.plan.c.kind.frames != NULL:
                taken += self.take_whole(out, data + taken, size - taken)
            scan.ended = 0
            while True:
                scan.resume = 0
                status = sf_scan_frame(&self.plan.c, data + taken, size - taken, &scan) if taken < size else SF_NEED
                if status != SF_FRAME:
                    break
                out.append(new_bytes(data + taken + scan.start, scan.stop - scan.start))
                taken += scan.size
                count += 1
                if not count & (SIGNAL_FRAMES - 1):
                    PyErr_CheckSignals()
            if status == SF_FAULT:
                self.record(&scan, data + taken, self.at + held + taken)
                if not out:
                    self.check()
                return out
            self.keep(data + taken, size - taken)
            self.at += held + taken
            if taken < size:
                self.remember(&scan)
            else:
                self.resume = self.least = self.whole = 0
            return out
        except BaseException:
            if self.fault is None:
                self.end = self.begin + held
                self.resume = resume
                self.least = least
                self.whole = whole
            raise

    cdef Py_ssize_t take_whole(self, list out, const uint8_t *data, Py_ssize_t size) except -1:
        """Append the payloads of the whole, good frames from data[0] on; return the bytes that they take."""
        cdef sf_span spans[64]
        cdef size_t found = 64, i
        cdef uint64_t used
        cdef Py_ssize_t taken = 0, rounds = 0
        while found == 64:
            found = self.plan.c.kind.frames(&self.plan.c, data + taken, size - taken, spans, 64, &used)
            for i in range(found):
                out.append(new_bytes(data + taken + spans[i].start, spans[i].stop - spans[i].start))
            taken += used
            rounds += 1
            if not rounds & 63:
                PyErr_CheckSignals()
        return taken

    cdef list close(self):
        """End the stream: return its last frames, or raise that one is cut off."""
        cdef Block block = self.block
        cdef Py_ssize_t begin = self.begin, end = self.end, held
        cdef uint64_t position = self.at
        cdef list out
        cdef sf_scan scan
        cdef int status
        if self.ended:
            return []
        try:
            out = self.take_many(PY_SSIZE_T_MAX, UINT64_MAX)
            if self.fault is not None:
                return out
            held = self.end - self.begin
            scan.ended = 1
            scan.resume = self.resume
            status = sf_scan_frame(&self.plan.c, self.start(), held, &scan)
            if status == SF_FRAME:
                out.append(new_bytes(self.start() + scan.start, scan.stop - scan.start))
                self.at += scan.size
                self.keep(NULL, 0)
            elif status == SF_FAULT:
                self.record(&scan, self.start(), self.at)
            elif held:
                self.fault = (0, new_bytes(self.start(), min(held, CONTEXT)), held, scan.need, self.at)
        except BaseException:
            if self.fault is None:
                self.block = block
                self.begin = begin
                self.end = end
                self.at = position
                self.resume = self.least = self.whole = 0
            raise
        self.ended = True
        if not out:
            self.check()
        return out
