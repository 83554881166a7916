# What an extension of somebody else's may cimport, from sockframe itself; it needs no header of C.
#
# Both functions are called with the GIL, or a thread state where there is none, and raise what the Decoder's own methods
# raise. They are found by their names and types when the extension is imported: one that was built with another version
# of sockframe works, or its import says which of them has changed.

cdef struct Payload:
    const unsigned char *data
    Py_ssize_t size


cdef extern from *:
    ctypedef class sockframe._core.codec.Decoder [object PyObject, check_size ignore]:
        pass


# Take `size` bytes at `data`, which are copied: Decoder.feed() without an object.
cdef int feed_bytes(Decoder decoder, const void *data, Py_ssize_t size) except -1

# Say where the next payloads lie, at most `most` of them, in the order of the stream, and return how many: 0 until more
# bytes come. They stay as they are until the next call of this function with this decoder, or until the decoder is gone,
# whatever else becomes of it; read them only, without the GIL if you like.
cdef Py_ssize_t take_payloads(Decoder decoder, Payload *payloads, Py_ssize_t most) except -1
