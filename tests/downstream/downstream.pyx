# cython: language_level=3, freethreading_compatible=True
"""An extension as somebody else writes it: it has sockframe's names from `sockframe` alone."""

from sockframe cimport Decoder, Payload, feed_bytes, take_payloads


def add_up(framing, chunks):
    """Return the number of the frames in a stream and the sum of all bytes of their payloads, counted without the GIL."""
    cdef Decoder decoder = Decoder(framing)
    cdef Payload payloads[64]
    cdef Py_ssize_t found, i, k, frames = 0
    cdef unsigned long long total = 0
    cdef const unsigned char[::1] chunk
    for chunk in chunks:
        if chunk.shape[0]:
            feed_bytes(decoder, &chunk[0], chunk.shape[0])
        while found := take_payloads(decoder, payloads, 64):
            with nogil:
                for i in range(found):
                    for k in range(payloads[i].size):
                        total += payloads[i].data[k]
            frames += found
    return frames, total


def feed(Decoder decoder, const unsigned char[::1] data, Py_ssize_t size):
    """Feed `size` bytes of `data`, as the caller says."""
    feed_bytes(decoder, &data[0] if data is not None and data.shape[0] else NULL, size)


cdef class Taken:
    """The payloads that one call gave, read when they are asked for."""

    cdef Payload payloads[16]
    cdef Py_ssize_t count
    cdef object decoder

    def __init__(self, decoder, Py_ssize_t most=16):
        self.count = take_payloads(decoder, self.payloads if most <= 16 else NULL, most)
        self.decoder = decoder

    def read(self):
        """Return a copy of each."""
        return [self.payloads[i].data[:self.payloads[i].size] for i in range(self.count)]

    def feed_back(self, Py_ssize_t i):
        """Feed the decoder what it has given itself."""
        feed_bytes(self.decoder, self.payloads[i].data, self.payloads[i].size)


def read_taken(decoder, most):
    """Return copies of at most so many payloads that can be taken."""
    return Taken(decoder, most).read()


def add_up_batch(batch):
    """Return the sum of all bytes of a batch's payloads, by its buffers."""
    cdef const unsigned char[::1] data = batch.buffer
    cdef const long long[:, ::1] spans = batch.spans
    cdef Py_ssize_t i, k
    cdef unsigned long long total = 0
    with nogil:
        for i in range(spans.shape[0]):
            for k in range(spans[i, 0], spans[i, 1]):
                total += data[k]
    return total
